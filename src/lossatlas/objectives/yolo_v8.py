"""YOLOv8: without anchors and objectness, task-aligned assignment, boxes as distributions over distances."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import SoftAssignment, TaskAligned
from lossatlas.boxes.coders import DistributionCoder
from lossatlas.checks import check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import ciou_loss
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.losses.quality import distribution_focal_loss
from lossatlas.objectives.decoder import Decoding, DetectionDecoder
from lossatlas.objectives.dense import DenseObjective, Target, check_predictions, check_targets, gather_positives
from lossatlas.objectives.point_squares import check_points_of
from lossatlas.objectives.slots import BinLoss, BoxPairs, ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer
from lossatlas.objectives.yolo import gather_quality


@dataclass(frozen=True, eq=False)
class YOLOv8Outputs:
    """What a network of YOLOv8's kind puts out for a batch of B images with P points each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each point and class.
        distributions: ``(B, P, 4, R)`` logits of the distances 0 to R - 1 strides to left, top, right and bottom.
        points: ``(P, 2)`` x, y pixels of the cells' centres, the same for all images, as of `point_grid`.
        strides: ``(P,)`` pixels.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "b p c"]
    distributions: Float[Tensor, "b p 4 r"]
    points: Float[Tensor, "p 2"]
    strides: Float[Tensor, " p"]

    def __post_init__(self) -> None:
        for name in ("class_logits", "distributions"):
            check_floating(name, getattr(self, name))
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("distributions", self.distributions, (images, predictions, 4, None), "B P 4 R")
        check_points_of(self.points, self.strides, predictions)


class YOLOv8(DetectionDecoder[YOLOv8Outputs], DenseObjective):
    """The training objective of YOLOv8, without a network.

    Formula:
        class        = 0.5/S Σ over points that are not ignored, and classes: class_loss(logit, s for the class, else 0)
        box          = 7.5/S Σ over positives: s · box_loss(decoded box, object)
        distribution = 1.5/S Σ over positives: s · mean over four sides: distribution_loss(logits, distance in strides)
        s: the assignment's quality of a positive, S = Σ s, at least 1

    Args:
        class_loss: slot of the classification; `binary_cross_entropy_with_logits` by default.
        box_loss: slot of the regression; `ciou_loss` by default. A loss of boxes gets decoded boxes in pixels and the
            objects' boxes, an elementwise one the distances in strides.
        distribution_loss: slot of the distributions; `distribution_focal_loss` by default.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        distribution_weight: factor of the distribution term.
        times_batch_size: whether all terms are multiplied by the number of images, as ultralytics does, whose learning
            rate is made for it.
        class_target: ``"quality"``, s, or ``"binary"``, 1; None is ``"quality"``.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one, for S.
        assigner: called as ``assigner(points, class_logits, boxes, target)`` for each image, with decoded boxes;
            `TaskAligned.yolov8()` by default.
        coder: how boxes are written as distributions; ``DistributionCoder(reg_max=15, margin=0.01)`` by default.

    Raises:
        ValueError: a loss that does not fit its slot or a negative weight.

    Example:
        >>> from lossatlas.boxes.priors import point_grid
        >>> points, strides = point_grid([(4, 4), (2, 2)], [8, 16])
        >>> outputs = YOLOv8Outputs(torch.zeros(1, 20, 3), torch.zeros(1, 20, 4, 16), points, strides)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOv8()(outputs, targets)
        >>> sorted(terms)
        ['box', 'class', 'distribution']

    Note:
        Assignment, its quality and the distances as targets are outside the graph. An image without objects trains the
        background; a batch without positives has box and distribution terms of 0, and every output still gets a (zero)
        gradient. The box term reaches the distributions through their means.

    Reference:
        There is no paper; the formula is that of ultralytics' detection loss, version 8 (2023). Feng et al., "TOOD",
        2021, arXiv 2108.07755 (s), and Li et al., "Generalized Focal Loss", 2020, arXiv 2006.04388 (distributions).
    """

    decoding: ClassVar[Decoding] = Decoding(score_threshold=0.01)

    def __init__(
        self,
        *,
        class_loss: LossFunction = binary_cross_entropy_with_logits,
        box_loss: LossFunction = ciou_loss,
        distribution_loss: LossFunction = distribution_focal_loss,
        class_weight: float = 0.5,
        box_weight: float = 7.5,
        distribution_weight: float = 1.5,
        times_batch_size: bool = False,
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[..., SoftAssignment] | None = None,
        coder: DistributionCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            class_target=class_target or "quality",
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            normalizer=normalizer,
        )
        check_number("distribution_weight", distribution_weight, at_least=0)
        self.distribution_loss = BinLoss(distribution_loss)
        self.distribution_weight = distribution_weight
        self.times_batch_size = times_batch_size
        self.assigner = assigner or TaskAligned.yolov8()
        self.coder = coder or DistributionCoder(reg_max=15, margin=0.01)

    @torch.no_grad()
    def assign(self, outputs: YOLOv8Outputs, targets: Sequence[Target]) -> list[SoftAssignment]:
        """Return, for each image, which object each point answers for, and its quality."""
        check_targets(targets, len(outputs.class_logits))
        return [
            self.assigner(outputs.points, outputs.class_logits[image], self.boxes(outputs, image), target)
            for image, target in enumerate(targets)
        ]

    def forward(self, outputs: YOLOv8Outputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``distribution``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.distributions)
        quality = gather_quality(assignments, outputs.class_logits)
        logits = outputs.distributions[positives.image, positives.prediction]
        place = (outputs.points[positives.prediction], outputs.strides[positives.prediction])
        distances = self.coder.encode(positives.boxes, *place)
        pairs = BoxPairs(self.coder.decode(logits, *place), positives.boxes, self.coder.distances(logits), distances)
        scale = self.normalizer(positives.sums(quality))
        distribution = self.distribution_loss(
            logits, distances, weight=scale.weigh(positives.image, quality), normalizer=scale.denominator
        )
        terms = {
            "class": self.class_term(outputs.class_logits, assignments, positives, pairs, scale, quality),
            "box": self.box_term(pairs, positives, scale, quality),
            "distribution": self.distribution_weight * distribution,
        }
        factor = len(targets) if self.times_batch_size else 1
        return LossTerms({name: factor * term for name, term in terms.items()})

    def scores(self, outputs: YOLOv8Outputs) -> Tensor:
        """Return σ(class logit), ``(B, P, C)``."""
        return upcast(outputs.class_logits)[0].sigmoid()

    def boxes(self, outputs: YOLOv8Outputs, image: int, prediction: Tensor | slice = slice(None)) -> Tensor:
        """Return the ``(K, 4)`` xyxy boxes of predictions of an image of the batch, all of them by default."""
        place = (outputs.points[prediction], outputs.strides[prediction])
        return self.coder.decode(outputs.distributions[image, prediction], *place)
