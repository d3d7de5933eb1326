"""Faster R-CNN: the region proposal network and the second stage as one objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.assign import Assignment
from lossatlas.objectives.dense import Detections, Target
from lossatlas.objectives.roi_head import Regions, RoIHead, RoIOutputs
from lossatlas.objectives.rpn import RPN, RPNOutputs
from lossatlas.objectives.terms import LossTerms


@dataclass(frozen=True, eq=False)
class FasterRCNNOutputs:
    """What both stages put out for a batch.

    Args:
        rpn: of the first stage.
        head: of the second stage, for the regions of the same images.

    Raises:
        ValueError: stages that saw different numbers of images.
    """

    rpn: RPNOutputs
    head: RoIOutputs

    def __post_init__(self) -> None:
        images = len(self.rpn.deltas)
        if len(self.head.regions.boxes) != images:
            raise ValueError(
                f"`head` must have the regions of the {images} images of `rpn`, but has those of "
                f"{len(self.head.regions.boxes)}"
            )


class FasterRCNN(nn.Module):
    """The training objective of Faster R-CNN, trained jointly, without a network.

    Between its stages a network asks the objective which regions to look at::

        rpn = first_stage(features)                                       # RPNOutputs
        proposals = objective.propose(rpn, image_sizes)
        regions = objective.sample(proposals, targets, generator)         # in training
        regions = Regions(proposals)                                      # in testing
        head = second_stage(features, regions.boxes)                      # RoIOutputs
        terms = objective(FasterRCNNOutputs(rpn, head), targets, generator=generator)

    Formula:
        rpn_objectness, rpn_box: the terms of `RPN`;  class, box: the terms of `RoIHead`

    Args:
        rpn: objective of the first stage; ``RPN()`` by default.
        head: objective of the second stage; ``RoIHead()`` by default.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 16, 16], [16.0, 0, 32, 16], [0.0, 16, 16, 32], [16.0, 16, 32, 32]])
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 15]]), "labels": torch.tensor([1])}]
        >>> objective, generator = FasterRCNN(), torch.Generator().manual_seed(0)
        >>> rpn = RPNOutputs(torch.zeros(1, 4), torch.zeros(1, 4, 4), anchors)
        >>> regions = objective.sample(objective.propose(rpn, [(32, 32)]), targets, generator)
        >>> count = len(regions.boxes[0])
        >>> head = RoIOutputs(torch.zeros(count, 3), torch.zeros(count, 2, 4), regions)
        >>> sorted(objective(FasterRCNNOutputs(rpn, head), targets, generator=generator))
        ['box', 'class', 'rpn_box', 'rpn_objectness']

    Note:
        Proposals are constants to the second stage: the gradient of its terms by the coordinates of the regions is
        left out, as in the paper ("approximate joint training"). Of an image without objects both stages learn
        the background.

    Reference:
        Ren et al., "Faster R-CNN", 2015, arXiv 1506.01497, sections 3.1.2 and 3.2.
    """

    def __init__(self, *, rpn: RPN | None = None, head: RoIHead | None = None) -> None:
        super().__init__()
        self.rpn = rpn or RPN()
        self.head = head or RoIHead()

    def propose(
        self, outputs: RPNOutputs, image_sizes: Sequence[tuple[int, int]] | None = None, **options: Any
    ) -> list[Tensor]:
        """Return the proposals of each image, ``(N_b, 4)`` xyxy pixels, best first, outside the graph.

        Args:
            outputs: of the first stage.
            image_sizes: height and width of each image in pixels, to which boxes are clipped; None clips nothing.
            options: of `RPN.decode`, such as ``max_detections``.
        """
        return [found["boxes"] for found in self.rpn.decode(outputs, image_sizes, **options)]

    def sample(
        self, proposals: Sequence[Tensor], targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> Regions:
        """Return the regions that the second stage is trained on, see `RoIHead.sample`."""
        return self.head.sample(proposals, targets, generator)

    def assign(self, outputs: FasterRCNNOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor of the first stage answers for, before sampling."""
        return self.rpn.assign(outputs.rpn, targets)

    def forward(
        self, outputs: FasterRCNNOutputs, targets: Sequence[Target], *, generator: torch.Generator | None = None
    ) -> LossTerms:
        """Return the terms ``rpn_objectness``, ``rpn_box``, ``class`` and ``box``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.
            generator: of the random numbers that the first stage's sampling takes; None takes torch's default.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        first = self.rpn(outputs.rpn, targets, generator=generator)
        return LossTerms({f"rpn_{name}": term for name, term in first.items()} | dict(self.head(outputs.head, targets)))

    def decode(
        self,
        outputs: FasterRCNNOutputs,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        **options: Any,
    ) -> list[Detections]:
        """Return the detections of each image, see `RoIHead.decode`, whose `options` it takes."""
        return self.head.decode(outputs.head, image_sizes, **options)
