"""FCOS: class, box and centerness at every point of a dense grid, without anchors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, FCOSPoints
from lossatlas.boxes.coders import PointDistanceCoder
from lossatlas.boxes.voting import decoded_variance
from lossatlas.checks import check_floating
from lossatlas.losses.boxes import iou_loss
from lossatlas.losses.focal import sigmoid_focal_loss
from lossatlas.objectives.centerness import BoxWeighting, CenternessObjective, centered_scores, centerness_target
from lossatlas.objectives.decoder import DetectionDecoder
from lossatlas.objectives.dense import (
    Target,
    add_variances,
    check_predictions,
    check_targets,
    check_variances,
    gather_positives,
)
from lossatlas.objectives.slots import BoxPairs, ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer


@dataclass(frozen=True, eq=False)
class FCOSOutputs:
    """What a network of FCOS's kind puts out for a batch of B images with P points each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each point and class.
        distances: ``(B, P, 4)`` left, top, right, bottom in units of the point's stride, at least 0.
        centerness: ``(B, P)`` logits.
        points: ``(P, 2)`` x, y pixels, the same for all images, in the order of `lossatlas.boxes.priors`.
        strides: ``(P,)`` pixels.
        log_variances: ``(B, P, 4)`` logarithms of the variances of the distances, for `kl_box_loss` and for the vote.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "b p c"]
    distances: Float[Tensor, "b p 4"]
    centerness: Float[Tensor, "b p"]
    points: Float[Tensor, "p 2"]
    strides: Float[Tensor, " p"]
    log_variances: Float[Tensor, "b p 4"] | None = None

    def __post_init__(self) -> None:
        for name in ("class_logits", "distances", "centerness", "points", "strides"):
            check_floating(name, getattr(self, name))
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("distances", self.distances, (images, predictions, 4), "B P 4")
        check_predictions("centerness", self.centerness, (images, predictions), "B P")
        check_predictions("points", self.points, (predictions, 2), "P 2")
        check_predictions("strides", self.strides, (predictions,), "P")
        check_variances(self.log_variances, self.distances)


class FCOS(CenternessObjective, DetectionDecoder[FCOSOutputs]):
    """The training objective of FCOS, without a network.

    Formula:
        class      = 1/N Σ over points that are not ignored, and classes: class_loss(logit, target)
        box        = 1/Σc Σ over positive points: c · box_loss(decoded box, object)
        centerness = 1/N Σ over positive points: BCE(logit, c)
        c: `centerness_target` of the point in its object, N: number of positives, at least 1

    Args:
        class_loss: slot of the classification; `sigmoid_focal_loss` with α = 0.25, γ = 2 by default. A loss of
            qualities, such as `quality_focal_loss`, gets the IoU of the decoded box with its object, detached, as
            target of the object's class.
        box_loss: slot of the regression; `iou_loss` in mode ``"log"`` by default. A loss of boxes gets decoded boxes
            in pixels and the objects' boxes, an elementwise one the distances in strides.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        centerness_weight: factor of the centerness term.
        box_weighting: ``"centerness"`` as in the formula, or ``"none"``: 1/N Σ box_loss, as in torchvision and
            detectron2.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one; the sum of the centerness targets is normalised in the
            same mode, with a state of its own.
        assigner: called as ``assigner(points, strides, target)`` for each image; `FCOSPoints()` by default.
        coder: how boxes are written as distances.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown `box_weighting`.

    Example:
        >>> from lossatlas.boxes.priors import point_grid
        >>> points, strides = point_grid([(4, 4), (2, 2)], [8, 16])
        >>> outputs = FCOSOutputs(torch.zeros(1, 20, 3), torch.ones(1, 20, 4), torch.zeros(1, 20), points, strides)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([2])}]
        >>> terms = FCOS()(outputs, targets)
        >>> sorted(terms)
        ['box', 'centerness', 'class']

    Note:
        Assignment, centerness and qualities as targets are outside the graph. An image without objects trains the
        background; a batch without positives has box and centerness terms of 0, and every output still gets a (zero)
        gradient. The centerness term does not fall to 0: at the optimum it is the entropy of its targets, often about
        0.57. torchvision's objective is ``FCOS(box_loss=giou_loss, box_weighting="none",
        assigner=FCOSPoints(bounds="strict"))``.

    Reference:
        Tian et al., "FCOS", 2019, arXiv 1904.01355, equation 2; the weighting by centerness is that of the authors'
        code and of "FCOS: A Simple and Strong Anchor-free Object Detector", 2020, arXiv 2006.09214.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = sigmoid_focal_loss,
        box_loss: LossFunction = iou_loss,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        centerness_weight: float = 1.0,
        box_weighting: BoxWeighting = "centerness",
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Assignment] | None = None,
        coder: PointDistanceCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            class_target=class_target,
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            normalizer=normalizer,
            centerness_weight=centerness_weight,
            box_weighting=box_weighting,
        )
        self.assigner = assigner or FCOSPoints()
        self.coder = coder or PointDistanceCoder()

    @torch.no_grad()
    def assign(self, outputs: FCOSOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each point answers for."""
        check_targets(targets, len(outputs.class_logits))
        return [self.assigner(outputs.points, outputs.strides, target) for target in targets]

    def forward(self, outputs: FCOSOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``centerness``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.distances)
        distances = outputs.distances[positives.image, positives.prediction]
        place = (outputs.points[positives.prediction], outputs.strides[positives.prediction])
        encoded_boxes = self.coder.encode(positives.boxes, *place)
        pairs = BoxPairs(self.coder.decode(distances, *place), positives.boxes, distances, encoded_boxes)
        pairs = add_variances(pairs, outputs.log_variances, positives)
        target = centerness_target(encoded_boxes)
        return self.centered_terms(outputs.class_logits, outputs.centerness, assignments, positives, pairs, target)

    def scores(self, outputs: FCOSOutputs) -> Tensor:
        """Return √(σ(class logit) · σ(centerness logit)), as in the authors' code.

        The first version of the paper has the product, which ranks the same.
        """
        return centered_scores(outputs.class_logits, outputs.centerness)

    def boxes(self, outputs: FCOSOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the decoded boxes."""
        place = (outputs.points[prediction], outputs.strides[prediction])
        return self.coder.decode(outputs.distances[image, prediction], *place)

    def variances(self, outputs: FCOSOutputs, image: int, prediction: Tensor) -> Tensor | None:
        """Return the variances of the decoded boxes, to first order."""
        if outputs.log_variances is None:
            return None
        place = (outputs.points[prediction], outputs.strides[prediction])
        return decoded_variance(
            lambda distances: self.coder.decode(distances, *place),
            outputs.distances[image, prediction],
            outputs.log_variances[image, prediction],
        )
