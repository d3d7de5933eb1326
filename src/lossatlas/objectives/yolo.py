"""What the detectors of the YOLO family share: an objectness for every prediction, a class for the positive ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias, TypedDict, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, SoftAssignment
from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import ciou_loss
from lossatlas.losses.catalog import find
from lossatlas.objectives.decoder import Decoding, DetectionDecoder
from lossatlas.objectives.dense import (
    BoxObjective,
    Positives,
    Target,
    box_quality,
    check_predictions,
    class_targets,
    gather_positives,
    localization_error,
)
from lossatlas.objectives.slots import (
    SOFTMAX_KINDS,
    BoxPairs,
    ClassTarget,
    LossFunction,
    Regression,
    SigmoidLoss,
    SoftmaxLoss,
)
from lossatlas.objectives.terms import NormalizerMode, PositiveNormalizer, Scale

NormalizeBy = Literal["positives", "images"]
ObjectnessTarget = Literal["one", "iou", "ciou"]

Assigner: TypeAlias = Callable[..., Assignment]
AnyAnchorOutputs = TypeVar("AnyAnchorOutputs", bound="YOLOAnchorOutputs")


class AnchorCoder(Protocol):
    """How boxes are written relative to an anchor on a cell: `YOLOCoder` or `YOLOv5Coder`."""

    def encode(self, boxes: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
        """Return the logits that decode to the boxes."""
        ...

    def decode(self, logits: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
        """Return the boxes that the logits stand for."""
        ...


@dataclass(frozen=True, eq=False)
class YOLOAnchorOutputs:
    """What a network of YOLO's kind with anchors puts out for a batch of B images with P anchors each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each anchor and class.
        objectness_logits: ``(B, P)``.
        box_logits: ``(B, P, 4)`` t_x, t_y, t_w, t_h, as the objective's coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels, the same for all images, each in the middle of its cell, as of `yolo_anchors`.
        strides: ``(P,)`` pixels.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "b p c"]
    objectness_logits: Float[Tensor, "b p"]
    box_logits: Float[Tensor, "b p 4"]
    anchors: Float[Tensor, "p 4"]
    strides: Float[Tensor, " p"]

    def __post_init__(self) -> None:
        for name in ("class_logits", "objectness_logits", "box_logits", "anchors", "strides"):
            check_floating(name, getattr(self, name))
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("objectness_logits", self.objectness_logits, (images, predictions), "B P")
        check_predictions("box_logits", self.box_logits, (images, predictions, 4), "B P 4")
        check_predictions("anchors", self.anchors, (predictions, 4), "P 4")
        check_predictions("strides", self.strides, (predictions,), "P")


def class_slot(
    loss: LossFunction, class_target: ClassTarget | None, independent: type[SigmoidLoss] = SigmoidLoss
) -> SigmoidLoss | SoftmaxLoss:
    """Return the slot of a classification, by independent logits or by ones that exclude each other.

    Args:
        loss: of either kind.
        class_target: what independent logits shall be; None asks the catalogue.
        independent: slot of independent logits.
    """
    if not is_softmax(loss):
        return independent(loss, class_target)
    if class_target is not None:
        raise ValueError(f"`class_target` must be None for a loss of class indices, but got {class_target!r}")
    return SoftmaxLoss(loss)


def is_softmax(loss: LossFunction) -> bool:
    """Return whether a loss is one of classes that exclude each other."""
    entry = find(loss)
    return entry is not None and entry.input_kind in SOFTMAX_KINDS


class YOLOOptions(TypedDict):
    """Keyword arguments that all objectives of the family share."""

    class_loss: LossFunction
    box_loss: LossFunction
    objectness_loss: LossFunction
    class_weight: float
    box_weight: float
    objectness_weight: float
    no_object_weight: float
    class_target: ClassTarget | None
    objectness_target: ObjectnessTarget
    regression: Regression | None
    normalizer: NormalizerMode | PositiveNormalizer
    normalize_by: NormalizeBy


class YOLOObjective(BoxObjective):
    """Slots, normaliser and terms of a detector that asks everywhere for an object, and for its class where one is."""

    decoding: ClassVar[Decoding] = Decoding(score_threshold=0.01)
    slot: type[SigmoidLoss] = SigmoidLoss
    """Of the objectness and of independent classes."""

    def __init__(
        self,
        *,
        class_loss: LossFunction,
        box_loss: LossFunction,
        objectness_loss: LossFunction,
        class_weight: float,
        box_weight: float,
        objectness_weight: float,
        no_object_weight: float,
        class_target: ClassTarget | None,
        objectness_target: ObjectnessTarget,
        regression: Regression | None,
        normalizer: NormalizerMode | PositiveNormalizer,
        normalize_by: NormalizeBy = "positives",
    ) -> None:
        super().__init__(box_loss=box_loss, regression=regression, box_weight=box_weight, normalizer=normalizer)
        check_number("class_weight", class_weight, at_least=0)
        check_number("objectness_weight", objectness_weight, at_least=0)
        check_number("no_object_weight", no_object_weight, at_least=0)
        check_choice("objectness_target", objectness_target, get_args(ObjectnessTarget))
        check_choice("normalize_by", normalize_by, get_args(NormalizeBy))
        self.class_loss = class_slot(class_loss, class_target, self.slot)
        self.objectness_loss = self.slot(objectness_loss, "quality", name="objectness_loss")
        self.class_weight = class_weight
        self.objectness_weight = objectness_weight
        self.no_object_weight = no_object_weight
        self.objectness_target = objectness_target
        self.normalize_by = normalize_by

    def scale(self, positives: Positives) -> Scale:
        """Return how the sums of a batch are scaled."""
        by_images = self.normalize_by == "images"
        scale: Scale = self.normalizer(torch.ones_like(positives.counts) if by_images else positives.counts)
        return scale

    def objectness_term(
        self, logits: Tensor, assignments: Sequence[Assignment], positives: Positives, pairs: BoxPairs, scale: Scale
    ) -> Tensor:
        """Return the weighted objectness term over all predictions ``(B, P)`` that are not ignored."""
        target = self.objectness_targets(logits, assignments, positives, pairs)
        return self.objectness_of(logits, target, positives, pairs, scale)

    def objectness_targets(
        self, logits: Tensor, assignments: Sequence[Assignment], positives: Positives, pairs: BoxPairs
    ) -> Tensor:
        """Return the ``(B, P)`` targets of the objectness."""
        quality: Tensor | float = 1.0
        if self.objectness_target == "iou":
            quality = box_quality(pairs)
        elif self.objectness_target == "ciou":
            quality = (1 - ciou_loss(pairs.decoded.detach(), pairs.boxes, reduction="none")).clamp(min=0)
        anything = positives._replace(labels=torch.zeros_like(positives.labels))
        return class_targets(logits[..., None], assignments, anything, quality)[..., 0]

    def objectness_of(
        self, logits: Tensor, target: Tensor, positives: Positives, pairs: BoxPairs, scale: Scale
    ) -> Tensor:
        """Return the weighted objectness term of given targets, both ``(B, P)``."""
        weight = None if scale.image_weight is None else scale.image_weight[:, None]
        larger = max(self.objectness_weight, self.no_object_weight)
        if self.objectness_weight != self.no_object_weight:
            factors = torch.full_like(target, self.no_object_weight / larger)
            factors[positives.image, positives.prediction] = self.objectness_weight / larger
            weight = factors if weight is None else weight * factors
        error = None
        if self.objectness_loss.needs_localization_error:
            error = torch.zeros_like(target)
            error[positives.image, positives.prediction] = localization_error(pairs).to(error.dtype)
        # With an axis of classes, of which there is one.
        loss: Tensor = self.objectness_loss(
            logits[..., None],
            target[..., None],
            weight=None if weight is None else weight[..., None],
            normalizer=scale.denominator,
            localization_error=None if error is None else error[..., None],
        )
        return larger * loss

    def class_term(
        self,
        logits: Tensor,
        positives: Positives,
        pairs: BoxPairs,
        scale: Scale,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted classification term over the positives.

        Args:
            logits: ``(N, C)`` of the positives.
            positives: with their classes.
            pairs: their boxes.
            scale: what the sum is divided by.
            quality: ``(N,)`` targets of a loss of qualities; None takes the IoU of the decoded box.
        """
        weight = scale.weight_of(positives.image)
        if isinstance(self.class_loss, SoftmaxLoss):
            loss: Tensor = self.class_loss(logits, positives.labels, weight=weight, normalizer=scale.denominator)
            return self.class_weight * loss
        if self.class_loss.target == "binary":
            quality = torch.ones_like(positives.boxes[:, 0])
        elif quality is None:
            quality = box_quality(pairs)
        (target,) = upcast(torch.zeros_like(logits, requires_grad=False))
        target.scatter_(1, positives.labels[:, None], quality.to(target.dtype)[:, None])
        error = localization_error(pairs)[:, None] if self.class_loss.needs_localization_error else None
        loss = self.class_loss(
            logits,
            target,
            weight=None if weight is None else weight[:, None],
            normalizer=scale.denominator,
            localization_error=error,
        )
        return self.class_weight * loss

    def probabilities(self, class_logits: Tensor) -> Tensor:
        """Return the probability of each class ``(..., C)`` where there is an object."""
        if isinstance(self.class_loss, SoftmaxLoss):
            return upcast(class_logits)[0].softmax(-1)
        return self.class_loss.probabilities(class_logits)


def gather_quality(assignments: Sequence[SoftAssignment], like: Tensor) -> Tensor:
    """Return the ``(N,)`` qualities of the positive predictions of a batch, in the order of `gather_positives`."""
    nothing = upcast(like.new_empty(0))[0]
    return torch.cat([nothing, *(assignment.quality[assignment.positive] for assignment in assignments)])


class AnchorObjective(YOLOObjective, DetectionDecoder[AnyAnchorOutputs]):
    """What the versions with anchors, 2 to 5, share beyond that: how boxes are written, and the scores."""

    assigner: Assigner
    coder: AnchorCoder

    def positives(
        self, outputs: AnyAnchorOutputs, assignments: Sequence[Assignment], targets: Sequence[Target]
    ) -> tuple[Positives, BoxPairs]:
        """Return the positives of a batch, their predicted boxes and their targets."""
        positives = gather_positives(assignments, targets, outputs.box_logits)
        logits = outputs.box_logits[positives.image, positives.prediction]
        place = outputs.anchors[positives.prediction].detach(), outputs.strides[positives.prediction]
        decoded, encoded = self.coder.decode(logits, *place), self.coder.encode(positives.boxes, *place)
        return positives, BoxPairs(decoded, positives.boxes, logits, encoded)

    def scores(self, outputs: AnyAnchorOutputs) -> Tensor:
        """Return σ(objectness) times the probability of each class, ``(B, P, C)``."""
        objectness = self.objectness_loss.probabilities(outputs.objectness_logits)
        return objectness[..., None] * self.probabilities(outputs.class_logits)

    def boxes(self, outputs: AnyAnchorOutputs, image: int, prediction: Tensor | slice = slice(None)) -> Tensor:
        """Return the ``(K, 4)`` xyxy boxes of predictions of an image of the batch, all of them by default."""
        place = outputs.anchors[prediction], outputs.strides[prediction]
        return self.coder.decode(outputs.box_logits[image, prediction], *place)
