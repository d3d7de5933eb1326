"""RetinaNet: focal loss over all anchors of a dense grid, and box offsets of the positive ones."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, MaxIoU
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.voting import decoded_variance
from lossatlas.dtypes import upcast
from lossatlas.losses.focal import sigmoid_focal_loss
from lossatlas.losses.regression import smooth_l1_loss
from lossatlas.objectives.decoder import Decoding, DetectionDecoder
from lossatlas.objectives.dense import (
    AnchorOutputs,
    DenseObjective,
    Target,
    add_variances,
    anchor_pairs,
    check_targets,
    check_variances,
    gather_positives,
)
from lossatlas.objectives.slots import ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer

DEFAULT_BOX_LOSS = functools.partial(smooth_l1_loss, beta=1 / 9)


@dataclass(frozen=True, eq=False)
class RetinaNetOutputs(AnchorOutputs):
    """What a network of RetinaNet's kind puts out for a batch of B images with P anchors each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each anchor and class.
        deltas: ``(B, P, 4)`` dx, dy, dw, dh, as the objective's coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels, the same for all images, in the order of `lossatlas.boxes.priors`.
        log_variances: ``(B, P, 4)`` logarithms of the variances of the deltas, for `kl_box_loss` and for the vote.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    log_variances: Float[Tensor, "b p 4"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variances(self.log_variances, self.deltas)


class RetinaNet(DenseObjective, DetectionDecoder[RetinaNetOutputs]):
    """The training objective of RetinaNet, without a network.

    Formula:
        class = 1/N Σ over anchors that are not ignored, and classes: class_loss(logit, target)
        box   = 1/N Σ over positive anchors: box_loss(deltas, encoded object)      N: number of positives, at least 1

    Args:
        class_loss: slot of the classification; `sigmoid_focal_loss` with α = 0.25, γ = 2 by default. A loss of
            qualities, such as `quality_focal_loss`, gets the IoU of the decoded box with its object, detached, as
            target of the object's class.
        box_loss: slot of the regression; `smooth_l1_loss` with β = 1/9 by default. A loss of boxes, such as
            `giou_loss`, gets decoded boxes in pixels and the objects' boxes.
        class_weight: factor of the class term.
        box_weight: factor of the box term; with losses of boxes 2 is usual.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one.
        assigner: called as ``assigner(anchors, target)`` for each image; `MaxIoU.retinanet()` by default.
        coder: how boxes are written as deltas.

    Raises:
        ValueError: a loss that does not fit its slot, or a negative weight.

    Example:
        >>> from lossatlas.boxes.priors import anchor_grid
        >>> from lossatlas.losses import giou_loss
        >>> anchors = anchor_grid([(4, 4), (2, 2)], [8, 16])
        >>> outputs = RetinaNetOutputs(torch.zeros(1, 180, 3), torch.zeros(1, 180, 4), anchors)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 32, 32]]), "labels": torch.tensor([2])}]
        >>> terms = RetinaNet(box_loss=giou_loss, box_weight=2.0)(outputs, targets)
        >>> sorted(terms)
        ['box', 'class']

    Note:
        Assignment, encoded targets and qualities are outside the graph. An image without objects trains the
        background; a batch without positives has a box term of 0, and every output still gets a (zero) gradient.
        torchvision divides by the positives of each image (``normalizer="image"``) and uses L1; detectron2 divides by
        a moving average of the number of positives (``normalizer="moving_average"``) and uses smooth L1 with β = 0.1.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, section 4.
    """

    decoding: ClassVar[Decoding] = Decoding(iou_threshold=0.5)

    def __init__(
        self,
        *,
        class_loss: LossFunction = sigmoid_focal_loss,
        box_loss: LossFunction = DEFAULT_BOX_LOSS,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Mapping[str, Tensor]], Assignment] | None = None,
        coder: DeltaCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            class_target=class_target,
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            normalizer=normalizer,
        )
        self.assigner = assigner or MaxIoU.retinanet()
        self.coder = coder or DeltaCoder()

    @torch.no_grad()
    def assign(self, outputs: RetinaNetOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor answers for."""
        check_targets(targets, len(outputs.class_logits))
        return [self.assigner(outputs.anchors, target) for target in targets]

    def forward(self, outputs: RetinaNetOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class`` and ``box``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.deltas)
        pairs = anchor_pairs(self.coder, outputs.deltas, outputs.anchors, positives)
        pairs = add_variances(pairs, outputs.log_variances, positives)
        scale = self.normalizer(positives.counts)
        return LossTerms(
            {
                "class": self.class_term(outputs.class_logits, assignments, positives, pairs, scale),
                "box": self.box_term(pairs, positives, scale),
            }
        )

    def scores(self, outputs: RetinaNetOutputs) -> Tensor:
        """Return σ(logit)."""
        return upcast(outputs.class_logits)[0].sigmoid()

    def boxes(self, outputs: RetinaNetOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the decoded boxes."""
        anchors = outputs.anchors[prediction]
        return self.coder.decode(outputs.deltas[image, prediction], anchors)

    def variances(self, outputs: RetinaNetOutputs, image: int, prediction: Tensor) -> Tensor | None:
        """Return the variances of the decoded boxes, to first order."""
        if outputs.log_variances is None:
            return None
        anchors = outputs.anchors[prediction]
        return decoded_variance(
            lambda deltas: self.coder.decode(deltas, anchors),
            outputs.deltas[image, prediction],
            outputs.log_variances[image, prediction],
        )
