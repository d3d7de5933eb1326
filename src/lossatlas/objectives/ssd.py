"""SSD: softmax over classes and background with hard negative mining, and box offsets of the positive priors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lossatlas.assign import Assignment, Bipartite, HardNegativeSampler
from lossatlas.assign.assignment import ordered_objects
from lossatlas.assign.regions import highest_iou
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import cross_entropy
from lossatlas.losses.regression import smooth_l1_loss
from lossatlas.objectives.background import (
    Background,
    SoftmaxObjective,
    background_index,
    class_indices,
    foreground_scores,
)
from lossatlas.objectives.decoder import Decoding, DetectionDecoder
from lossatlas.objectives.dense import (
    AnchorOutputs,
    Target,
    anchor_pairs,
    check_targets,
    gather_positives,
)
from lossatlas.objectives.slots import LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer

HARD_NEGATIVES = HardNegativeSampler()


@dataclass(frozen=True, eq=False)
class SSDOutputs(AnchorOutputs):
    """What a network of SSD's kind puts out for a batch of B images with P priors each and C classes.

    Args:
        class_logits: ``(B, P, C + 1)``, one logit for each class and one for the background.
        deltas: ``(B, P, 4)`` dx, dy, dw, dh, as the objective's coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels of the priors ("default boxes"), the same for all images, in the order of
            `lossatlas.boxes.priors`.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """


class SSD(SoftmaxObjective, DetectionDecoder[SSDOutputs]):
    """The training objective of SSD, the MultiBox loss, without a network.

    Formula:
        class = 1/N Σ over positive priors and mined negatives: class_loss(logits, class or background)
        box   = 1/N Σ over positive priors: box_loss(deltas, encoded object)      N: number of positives, at least 1
        mined negatives of an image: three for each positive, those with the largest -ln softmax(logits) of background

    Args:
        class_loss: slot of the classification; `cross_entropy` by default. It takes class indices.
        box_loss: slot of the regression; `smooth_l1_loss` with β = 1 by default. A loss of boxes, such as `giou_loss`,
            gets decoded boxes in pixels and the objects' boxes.
        class_weight: factor of the class term.
        box_weight: factor of the box term, α in the paper.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        background: index of the background among the C + 1 classes, ``"first"`` or ``"last"``.
        normalizer: a mode of `PositiveNormalizer`, or one.
        assigner: called as ``assigner(anchors, target)`` for each image; `Bipartite()` by default.
        sampler: called as ``sampler(assignment, costs, overlaps)`` for each image, with the highest IoU of each prior
            with an object; `HardNegativeSampler()` by default. None trains all negatives, as focal losses need it.
        coder: how boxes are written as deltas; `DeltaCoder.ssd()` by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown `background`.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 16, 16], [16.0, 0, 32, 16], [0.0, 16, 16, 32], [16.0, 16, 32, 32]])
        >>> outputs = SSDOutputs(torch.zeros(1, 4, 3), torch.zeros(1, 4, 4), anchors)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([1])}]
        >>> SSD()(outputs, targets)
        LossTerms({'class': tensor(4.3944), 'box': tensor(0.)})

    Note:
        Assignment, mining and encoded targets are outside the graph. Negatives are mined by cross entropy, whatever
        `class_loss` is, and only among priors that overlap every object by less than the sampler's limit, as in the
        authors' code. An image without objects trains nothing, as published, unless the sampler's
        ``without_positives`` says how many of its hardest negatives to train.
        torchvision's objective is ``SSD(assigner=MaxIoU(0.5, 0.5, "reassign"), sampler=HardNegativeSampler(3.0, 1.0))``
        as long as no prior is the best of two objects (the last one of the target wins there) and an image has enough
        negatives; where it has fewer than 3 for each positive, torchvision makes up the number with positives, which
        then count twice.

    Reference:
        Liu et al., "SSD: Single Shot MultiBox Detector", 2015, arXiv 1512.02325, equation 1 and section 2.2; the limit
        on the overlap and the variances: the authors' code.
    """

    decoding: ClassVar[Decoding] = Decoding(
        score_threshold=0.01, iou_threshold=0.45, max_candidates=400, max_detections=200
    )
    """The authors' limits; they and torchvision take the candidates of each class by themselves."""

    def __init__(
        self,
        *,
        class_loss: LossFunction = cross_entropy,
        box_loss: LossFunction = smooth_l1_loss,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        regression: Regression | None = None,
        background: Background = "first",
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Mapping[str, Tensor]], Assignment] | None = None,
        sampler: Callable[[Assignment, Tensor, Tensor], Assignment] | None = HARD_NEGATIVES,
        coder: DeltaCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            background=background,
            normalizer=normalizer,
        )
        self.assigner = assigner or Bipartite()
        self.sampler = sampler
        self.coder = coder or DeltaCoder.ssd()

    @torch.no_grad()
    def assign(self, outputs: SSDOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each prior answers for, before negatives are mined."""
        check_targets(targets, len(outputs.class_logits))
        return [self.assigner(outputs.anchors, target) for target in targets]

    @torch.no_grad()
    def sample(
        self, outputs: SSDOutputs, assignments: Sequence[Assignment], targets: Sequence[Target]
    ) -> list[Assignment]:
        """Return the assignments in which the negatives that are not mined are ignored."""
        if self.sampler is None:
            return list(assignments)
        logits, anchors = upcast(outputs.class_logits, outputs.anchors)
        costs = -logits.log_softmax(-1)[..., background_index(logits, self.background)]
        return [
            self.sampler(assignment, cost, highest_iou(anchors, ordered_objects(target, anchors.dtype).boxes))
            for assignment, cost, target in zip(assignments, costs, targets, strict=True)
        ]

    def forward(self, outputs: SSDOutputs, targets: Sequence[Target]) -> LossTerms:
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
        scale = self.normalizer(positives.counts)
        index = outputs.class_logits.new_empty(outputs.class_logits.shape[:2], dtype=torch.int64)
        for image, sampled in enumerate(self.sample(outputs, assignments, targets)):
            index[image] = class_indices(sampled, targets[image]["labels"], outputs.class_logits, self.background)
        weight = None if scale.image_weight is None else scale.image_weight[:, None]
        return LossTerms(
            {
                "class": self.class_term(outputs.class_logits, index, scale, weight),
                "box": self.box_term(pairs, positives, scale),
            }
        )

    def scores(self, outputs: SSDOutputs) -> Tensor:
        """Return the softmax of the classes, without the background."""
        return foreground_scores(outputs.class_logits, self.background)

    def boxes(self, outputs: SSDOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the decoded boxes."""
        return self.coder.decode(outputs.deltas[image, prediction], outputs.anchors[prediction])
