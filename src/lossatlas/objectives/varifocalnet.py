"""VarifocalNet: classes that are the IoU of a refined box, and two boxes, a first one and its refinement."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.boxes.coders import PointDistanceCoder
from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import giou_loss
from lossatlas.losses.quality import varifocal_loss
from lossatlas.objectives.decoder import DetectionDecoder
from lossatlas.objectives.dense import (
    Positives,
    Target,
    check_predictions,
    gather_positives,
)
from lossatlas.objectives.point_squares import LevelAssigner, PointSquaresObjective, check_points_of
from lossatlas.objectives.slots import BoxPairs, ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LEAST_WEIGHT, LossTerms, NormalizerMode, PositiveNormalizer


@dataclass(frozen=True, eq=False)
class VarifocalNetOutputs:
    """What a network of VarifocalNet's kind puts out for a batch of B images with P points each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each point and class: how good the refined box is.
        distances: ``(B, P, 4)`` left, top, right, bottom of the first box in units of the point's stride.
        refined_distances: ``(B, P, 4)`` those of the refined box: in the paper the first ones, detached, times factors
            that the network reads at nine places of the first box.
        points: ``(P, 2)`` x, y pixels, the same for all images, level by level, as `point_grid` returns them.
        strides: ``(P,)`` pixels.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "b p c"]
    distances: Float[Tensor, "b p 4"]
    refined_distances: Float[Tensor, "b p 4"]
    points: Float[Tensor, "p 2"]
    strides: Float[Tensor, " p"]

    def __post_init__(self) -> None:
        for name in ("class_logits", "distances", "refined_distances"):
            check_floating(name, getattr(self, name))
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("distances", self.distances, (images, predictions, 4), "B P 4")
        check_predictions("refined_distances", self.refined_distances, (images, predictions, 4), "B P 4")
        check_points_of(self.points, self.strides, predictions)


class VarifocalNet(PointSquaresObjective, DetectionDecoder[VarifocalNetOutputs]):
    """The training objective of VarifocalNet, without a network.

    Formula:
        class       = 1/N Σ over points that are not ignored, and classes: class_loss(logit, r or 0)
        box         = λ/Σq Σ over positive points: q · box_loss(first box, object)          λ = 1.5
        refined_box = μ/Σr Σ over positive points: r · box_loss(refined box, object)        μ = 2
        q, r: IoU of the first and of the refined box with the object
        N: number of positives, at least 1

    Args:
        class_loss: slot of the classification; `varifocal_loss` with α = 0.75, γ = 2 by default, whose target is the
            IoU of the refined box with its object, detached. Losses of yes/no targets get 0 and 1.
        box_loss: slot of both regressions; `giou_loss` by default. A loss of boxes gets decoded boxes in pixels and
            the objects' boxes, an elementwise one the distances in strides.
        class_weight: factor of the class term.
        box_weight: λ, the factor of the box term.
        refined_box_weight: μ, the factor of the refined box term.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one; Σq and Σr are normalised in the same mode, each with a
            state of its own. The authors' code has ``"all_reduce"``.
        assigner: called as ``assigner(anchors, level_sizes, target)`` for each image; `lossatlas.assign.ATSS()` by
            default.
        coder: how boxes are written as distances.
        anchor_scale: side in strides of the square around a point that stands for it in assignment.

    Raises:
        ValueError: a loss that does not fit its slot, or a number out of its range.

    Example:
        >>> from lossatlas.boxes.priors import point_grid
        >>> points, strides = point_grid([(4, 4), (2, 2)], [8, 16])
        >>> first, refined = torch.ones(1, 20, 4), torch.full((1, 20, 4), 1.5)
        >>> outputs = VarifocalNetOutputs(torch.zeros(1, 20, 3), first, refined, points, strides)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 30, 32]]), "labels": torch.tensor([2])}]
        >>> sorted(VarifocalNet()(outputs, targets))
        ['box', 'class', 'refined_box']

    Note:
        Assignment and the IoUs, as targets and as weights, are outside the graph. Weights are 1e-6 at least, as in the
        authors' code, so that a batch whose boxes all miss their objects still learns to reach them. An image without
        objects trains the background; a batch without positives has box terms of 0, and every output still gets a
        (zero) gradient.

    Reference:
        Zhang et al., "VarifocalNet: An IoU-aware Dense Object Detector", 2020, arXiv 2008.13367, section 3; that the
        box terms are divided by the sums of their weights: the authors' code.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = varifocal_loss,
        box_loss: LossFunction = giou_loss,
        class_weight: float = 1.0,
        box_weight: float = 1.5,
        refined_box_weight: float = 2.0,
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: LevelAssigner | None = None,
        coder: PointDistanceCoder | None = None,
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
        check_number("refined_box_weight", refined_box_weight, at_least=0)
        self.refined_box_weight = refined_box_weight
        self.box_normalizer = self.normalizer.with_floor(LEAST_WEIGHT)
        self.refined_box_normalizer = self.normalizer.with_floor(LEAST_WEIGHT)
        self.coder = coder or PointDistanceCoder()

    @torch.no_grad()
    def assign(self, outputs: VarifocalNetOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each point answers for."""
        return self.assign_points(outputs.points, outputs.strides, targets, len(outputs.class_logits))

    def forward(self, outputs: VarifocalNetOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``refined_box``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.distances)
        first, refined = (
            self._pairs(distances, outputs, positives) for distances in (outputs.distances, outputs.refined_distances)
        )
        scale = self.normalizer(positives.counts)
        refined_scale = self.refined_box_normalizer(positives.sums(_iou(refined)))
        refined_box: Tensor = self.box_loss(
            refined,
            weight=refined_scale.weigh(positives.image, _iou(refined)),
            normalizer=refined_scale.denominator,
        )
        first_scale = self.box_normalizer(positives.sums(_iou(first)))
        return LossTerms(
            {
                "class": self.class_term(outputs.class_logits, assignments, positives, refined, scale),
                "box": self.box_term(first, positives, first_scale, _iou(first)),
                "refined_box": self.refined_box_weight * refined_box,
            }
        )

    def _pairs(self, distances: Tensor, outputs: VarifocalNetOutputs, positives: Positives) -> BoxPairs:
        distances = distances[positives.image, positives.prediction]
        place = (outputs.points[positives.prediction], outputs.strides[positives.prediction])
        boxes = positives.boxes
        return BoxPairs(self.coder.decode(distances, *place), boxes, distances, self.coder.encode(boxes, *place))

    def scores(self, outputs: VarifocalNetOutputs) -> Tensor:
        """Return σ(class logit)."""
        return upcast(outputs.class_logits)[0].sigmoid()

    def boxes(self, outputs: VarifocalNetOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the refined boxes."""
        place = (outputs.points[prediction], outputs.strides[prediction])
        return self.coder.decode(outputs.refined_distances[image, prediction], *place)


def _iou(pairs: BoxPairs) -> Tensor:
    """Return how much each box is worth: its IoU with its object, detached, and a little of what does not touch it."""
    return overlap(*upcast(pairs.decoded.detach(), pairs.boxes)).iou.clamp(min=1e-6)
