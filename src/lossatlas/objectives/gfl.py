"""GFL: classes that are qualities, and edges that are distributions, at every point of a dense grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.boxes.coders import DistributionCoder
from lossatlas.checks import check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import giou_loss
from lossatlas.losses.quality import distribution_focal_loss, quality_focal_loss
from lossatlas.objectives.decoder import DetectionDecoder
from lossatlas.objectives.dense import Target, check_predictions, gather_positives
from lossatlas.objectives.point_squares import LevelAssigner, PointSquaresObjective, check_points_of
from lossatlas.objectives.slots import BinLoss, BoxPairs, ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LEAST_WEIGHT, LossTerms, NormalizerMode, PositiveNormalizer


@dataclass(frozen=True, eq=False)
class GFLOutputs:
    """What a network of GFL's kind puts out for a batch of B images with P points each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each point and class: how good a box of that class is here.
        distributions: ``(B, P, 4, n + 1)`` logits of the distances 0 to n, in strides, to left, top, right and bottom.
        points: ``(P, 2)`` x, y pixels, the same for all images, level by level, as `point_grid` returns them.
        strides: ``(P,)`` pixels.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "b p c"]
    distributions: Float[Tensor, "b p 4 n"]
    points: Float[Tensor, "p 2"]
    strides: Float[Tensor, " p"]

    def __post_init__(self) -> None:
        check_floating("class_logits", self.class_logits)
        check_floating("distributions", self.distributions)
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("distributions", self.distributions, (images, predictions, 4, None), "B P 4 bins")
        check_points_of(self.points, self.strides, predictions)


class GFL(PointSquaresObjective, DetectionDecoder[GFLOutputs]):
    """The training objective of generalised focal loss (GFL), without a network.

    Formula:
        class        = 1/N Σ over points that are not ignored, and classes: class_loss(logit, IoU or 0)
        box          = λ/Σw Σ over positive points: w · box_loss(decoded box, object)                     λ = 2
        distribution = μ/Σw Σ over positive points: w · mean of the 4 sides: distribution_loss(bins, y)   μ = 1/4
        w: the highest score of the point over all classes, y: distance of the object's edge in strides
        N: number of positives, at least 1

    Args:
        class_loss: slot of the classification; `quality_focal_loss` with β = 2 by default, whose target is the IoU
            of the decoded box with its object, detached. Losses of yes/no targets get 0 and 1.
        box_loss: slot of the regression; `giou_loss` by default. A loss of boxes gets decoded boxes in pixels and the
            objects' boxes, an elementwise one the mean distances in strides.
        distribution_loss: slot of the distributions; `distribution_focal_loss` by default.
        class_weight: factor of the class term.
        box_weight: λ, the factor of the box term.
        distribution_weight: μ, the factor of the distribution term.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one; Σw is normalised in the same mode, with a state of its
            own. The authors' code has ``"all_reduce"``.
        assigner: called as ``assigner(anchors, level_sizes, target)`` for each image; `lossatlas.assign.ATSS()` by
            default.
        coder: how boxes are written as distributions; it says how many bins there are.
        anchor_scale: side in strides of the square around a point that stands for it in assignment.

    Raises:
        ValueError: a loss that does not fit its slot, or a number out of its range.

    Example:
        >>> from lossatlas.boxes.priors import point_grid
        >>> points, strides = point_grid([(4, 4), (2, 2)], [8, 16])
        >>> outputs = GFLOutputs(torch.zeros(1, 20, 3), torch.zeros(1, 20, 4, 17), points, strides)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 30, 32]]), "labels": torch.tensor([2])}]
        >>> sorted(GFL()(outputs, targets))
        ['box', 'class', 'distribution']

    Note:
        Assignment, qualities and the weights w are outside the graph. An edge further than n strides from its point
        is trained to be n strides away. An image without objects trains the background; a batch without positives has
        box and distribution terms of 0, and every output still gets a (zero) gradient. mmdetection does not let Σw,
        averaged over the processes, fall below 1, which turns the box term down as long as scores are low.

    Reference:
        Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
        Detection", 2020, arXiv 2006.04388, section 3; the weights w are those of the authors' code.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = quality_focal_loss,
        box_loss: LossFunction = giou_loss,
        distribution_loss: LossFunction = distribution_focal_loss,
        class_weight: float = 1.0,
        box_weight: float = 2.0,
        distribution_weight: float = 0.25,
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: LevelAssigner | None = None,
        coder: DistributionCoder | None = None,
        anchor_scale: float = 8.0,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            class_target=class_target,
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            normalizer=normalizer,
            assigner=assigner,
            anchor_scale=anchor_scale,
        )
        check_number("distribution_weight", distribution_weight, at_least=0)
        self.distribution_loss = BinLoss(distribution_loss)
        self.distribution_weight = distribution_weight
        self.box_normalizer = self.normalizer.with_floor(LEAST_WEIGHT)
        self.coder = coder or DistributionCoder()

    @torch.no_grad()
    def assign(self, outputs: GFLOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each point answers for."""
        return self.assign_points(outputs.points, outputs.strides, targets, len(outputs.class_logits))

    def forward(self, outputs: GFLOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``distribution``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, a target whose shapes do not fit, or bins that are not the coder's.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.distributions)
        logits = outputs.distributions[positives.image, positives.prediction]
        place = (outputs.points[positives.prediction], outputs.strides[positives.prediction])
        distances = self.coder.encode(positives.boxes, *place)
        pairs = BoxPairs(self.coder.decode(logits, *place), positives.boxes, self.coder.distances(logits), distances)
        scale = self.normalizer(positives.counts)
        weight = self._weights(outputs.class_logits[positives.image, positives.prediction])
        box_scale = self.box_normalizer(positives.sums(weight))
        distribution: Tensor = self.distribution_loss(
            logits,
            distances,
            weight=box_scale.weigh(positives.image, weight),
            normalizer=box_scale.denominator,
        )
        return LossTerms(
            {
                "class": self.class_term(outputs.class_logits, assignments, positives, pairs, scale),
                "box": self.box_term(pairs, positives, box_scale, weight),
                "distribution": self.distribution_weight * distribution,
            }
        )

    def _weights(self, class_logits: Tensor) -> Tensor:
        """Return the highest score of each positive over all classes."""
        (class_logits,) = upcast(class_logits.detach())
        return class_logits.sigmoid().amax(-1) if class_logits.numel() else class_logits.new_zeros(0)

    def scores(self, outputs: GFLOutputs) -> Tensor:
        """Return σ(class logit)."""
        return upcast(outputs.class_logits)[0].sigmoid()

    def boxes(self, outputs: GFLOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the decoded boxes."""
        place = (outputs.points[prediction], outputs.strides[prediction])
        return self.coder.decode(outputs.distributions[image, prediction], *place)
