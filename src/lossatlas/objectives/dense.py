"""What the one-stage detectors share: from raw outputs at many places to terms, and to detections."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossatlas.assign.assignment import Assignment, check_target
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.geometry import overlap
from lossatlas.boxes.nms import Kept, batched_nms
from lossatlas.checks import check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import giou_loss
from lossatlas.objectives.slots import (
    IGNORE,
    BoxLoss,
    BoxPairs,
    ClassTarget,
    LossFunction,
    Regression,
    SigmoidLoss,
)
from lossatlas.objectives.terms import NormalizerMode, PositiveNormalizer, Scale

Target: TypeAlias = Mapping[str, Tensor]
Detections: TypeAlias = dict[str, Tensor]
NMS: TypeAlias = Callable[[Tensor, Tensor, Tensor, float], Tensor | Kept]
"""A suppression: ``nms(boxes, scores, labels, iou_threshold)`` returns the rows that are kept, highest score first, or
`Kept` if it changes scores. `batched_nms`, `diou_nms`, `soft_nms` and ``torchvision.ops.batched_nms`` are such; of all
classes alike, ``lambda boxes, scores, labels, limit: torchvision.ops.nms(boxes, scores, limit)``."""
Voting: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""What moves boxes: ``voting(boxes, kept, variance, labels)`` returns where the kept ones go; `vote_boxes` is such."""


class Positives(NamedTuple):
    """The positive predictions of a batch and their objects, image by image."""

    image: Tensor
    """``(N,)`` row of the batch."""
    prediction: Tensor
    """``(N,)`` row of the predictions."""
    boxes: Tensor
    """``(N, 4)`` xyxy pixels of the object."""
    labels: Tensor
    """``(N,)`` class of the object."""
    counts: Tensor
    """``(B,)`` positives of each image, floating point."""

    def sums(self, values: Tensor) -> Tensor:
        """Return the ``(B,)`` sums over each image of what belongs to the positives, ``(N,)``."""
        return values.new_zeros(len(self.counts)).index_add(0, self.image, values)


@dataclass(frozen=True, eq=False)
class AnchorOutputs:
    """Class logits and deltas of a batch of B images with P anchors each."""

    class_logits: Float[Tensor, "b p c"]
    deltas: Float[Tensor, "b p 4"]
    anchors: Float[Tensor, "p 4"]

    def __post_init__(self) -> None:
        for name in ("class_logits", "deltas", "anchors"):
            check_floating(name, getattr(self, name))
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("deltas", self.deltas, (images, predictions, 4), "B P 4")
        check_predictions("anchors", self.anchors, (predictions, 4), "P 4")


class BoxObjective(nn.Module):
    """The box slot and the normaliser of a detector, whatever its classifier."""

    def __init__(
        self,
        *,
        box_loss: LossFunction,
        regression: Regression | None,
        box_weight: float,
        normalizer: NormalizerMode | PositiveNormalizer,
    ) -> None:
        super().__init__()
        check_number("box_weight", box_weight, at_least=0)
        self.box_loss = BoxLoss(box_loss, regression)
        self.box_weight = box_weight
        self.normalizer = normalizer if isinstance(normalizer, PositiveNormalizer) else PositiveNormalizer(normalizer)

    def box_term(self, pairs: BoxPairs, positives: Positives, scale: Scale, weight: Tensor | None = None) -> Tensor:
        """Return the weighted regression term over the positives.

        Args:
            pairs: predictions and targets.
            positives: the positives they belong to.
            scale: what the sum is divided by.
            weight: ``(N,)`` factors of the positives.
        """
        weight = scale.weigh(positives.image, weight)
        loss: Tensor = self.box_loss(pairs, weight=weight, normalizer=scale.denominator)
        return self.box_weight * loss


class DenseObjective(BoxObjective):
    """Slots, normaliser and terms of a detector with a logit for each class at every place of a grid."""

    def __init__(
        self,
        *,
        class_loss: LossFunction,
        box_loss: LossFunction,
        class_target: ClassTarget | None,
        regression: Regression | None,
        class_weight: float,
        box_weight: float,
        normalizer: NormalizerMode | PositiveNormalizer,
    ) -> None:
        super().__init__(box_loss=box_loss, regression=regression, box_weight=box_weight, normalizer=normalizer)
        check_number("class_weight", class_weight, at_least=0)
        self.class_loss = SigmoidLoss(class_loss, class_target)
        self.class_weight = class_weight

    def class_term(
        self,
        logits: Tensor,
        assignments: Sequence[Assignment],
        positives: Positives,
        pairs: BoxPairs,
        scale: Scale,
        quality: Tensor | None = None,
    ) -> Tensor:
        """Return the weighted classification term over all predictions that are not ignored; see `sigmoid_term`."""
        term = sigmoid_term(self.class_loss, logits, assignments, positives, pairs, scale, quality)
        return self.class_weight * term


def sigmoid_term(
    class_loss: SigmoidLoss,
    logits: Tensor,
    assignments: Sequence[Assignment],
    positives: Positives,
    pairs: BoxPairs,
    scale: Scale,
    quality: Tensor | None = None,
) -> Tensor:
    """Return the classification term of a logit for each class, over all predictions that are not ignored.

    Args:
        class_loss: slot of the loss.
        logits: ``(B, P, C)``.
        assignments: one for each image.
        positives: their positives.
        pairs: boxes of the positives.
        scale: what the sum is divided by.
        quality: ``(N,)`` what a loss of qualities gets as target of the positives; None takes the IoU of the boxes.
    """
    value: Tensor | float = 1.0
    if class_loss.target == "quality":
        value = box_quality(pairs) if quality is None else quality
    target = class_targets(logits, assignments, positives, value)
    error = None
    if class_loss.needs_localization_error:
        error = target.new_zeros((*target.shape[:2], 1))
        error[positives.image, positives.prediction, 0] = localization_error(pairs).to(error.dtype)
    weight = None if scale.image_weight is None else scale.image_weight[:, None, None]
    loss: Tensor = class_loss(logits, target, weight=weight, normalizer=scale.denominator, localization_error=error)
    return loss


def box_quality(pairs: BoxPairs) -> Tensor:
    """Return the ``(N,)`` IoU of the decoded boxes with their objects, outside the graph."""
    return overlap(*upcast(pairs.decoded.detach(), pairs.boxes)).iou


def localization_error(pairs: BoxPairs) -> Tensor:
    """Return the ``(N,)`` error of the decoded boxes that aLRP takes: GIoU loss / 2 / (1 - τ) with τ = 0.5."""
    return giou_loss(pairs.decoded.detach(), pairs.boxes, reduction="none")


def check_predictions(name: str, tensor: Tensor, shape: tuple[int | None, ...], meaning: str) -> None:
    """Raise `ValueError` unless `tensor` has the given shape, in which None stands for any size."""
    fits = tensor.ndim == len(shape) and all(
        size is None or size == got for size, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        expected = ", ".join(
            axis if size is None else str(size) for axis, size in zip(meaning.split(), shape, strict=True)
        )
        raise ValueError(f"`{name}` must have shape ({expected}), but got {tuple(tensor.shape)}")


def check_variances(log_variances: Tensor | None, encoded: Tensor) -> None:
    """Raise unless log-variances are absent or of the shape of what they belong to."""
    if log_variances is not None:
        check_floating("log_variances", log_variances)
        check_predictions("log_variances", log_variances, tuple(encoded.shape), "B P 4")


def check_targets(targets: Sequence[Target], images: int) -> None:
    """Raise unless there is one well-formed target for each image of the batch."""
    if len(targets) != images:
        raise ValueError(f"`targets` must have one entry for each of the {images} images, but has {len(targets)}")
    for index, target in enumerate(targets):
        check_target(f"targets[{index}]", target)


def gather_positives(assignments: Sequence[Assignment], targets: Sequence[Target], like: Tensor) -> Positives:
    """Return the positive predictions of a batch and their objects.

    Args:
        assignments: one for each image.
        targets: one for each image.
        like: an output, for the device and the dtype of the counts.
    """
    image, prediction = [like.new_empty(0, dtype=torch.int64)], [like.new_empty(0, dtype=torch.int64)]
    boxes, labels = [like.new_empty((0, 4), dtype=torch.float32)], [like.new_empty(0, dtype=torch.int64)]
    for index, (assignment, target) in enumerate(zip(assignments, targets, strict=True)):
        rows = assignment.positive.nonzero().squeeze(1)
        objects = assignment.matched[rows]
        image.append(torch.full_like(rows, index))
        prediction.append(rows)
        boxes.append(target["boxes"][objects].to(torch.promote_types(target["boxes"].dtype, torch.float32)))
        labels.append(target["labels"][objects].long())
    dtype = torch.promote_types(like.dtype, torch.float32)
    counts = torch.tensor([len(rows) for rows in prediction[1:]], device=like.device, dtype=dtype)
    return Positives(torch.cat(image), torch.cat(prediction), torch.cat(boxes), torch.cat(labels), counts)


def anchor_pairs(coder: DeltaCoder, deltas: Tensor, anchors: Tensor, positives: Positives) -> BoxPairs:
    """Return the predictions of the positives and their objects.

    Args:
        coder: how boxes are written.
        deltas: ``(B, P, 4)`` as the coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels.
        positives: of the batch.
    """
    deltas = deltas[positives.image, positives.prediction]
    anchors = anchors[positives.prediction].detach()
    boxes = positives.boxes
    return BoxPairs(coder.decode(deltas, anchors), boxes, deltas, coder.encode(boxes, anchors))


def add_variances(pairs: BoxPairs, log_variances: Tensor | None, positives: Positives) -> BoxPairs:
    """Return the pairs with the log-variances ``(B, P, 4)`` of the network, if it has some."""
    if log_variances is None:
        return pairs
    return pairs._replace(log_variance=log_variances[positives.image, positives.prediction])


def class_targets(
    logits: Tensor, assignments: Sequence[Assignment], positives: Positives, quality: Tensor | float = 1.0
) -> Tensor:
    """Return the elementwise targets of a sigmoid classifier.

    Args:
        logits: ``(B, P, C)``, for the shape.
        assignments: one for each image.
        positives: their positives.
        quality: target of a positive's class, a number or ``(N,)``.

    Returns:
        ``(B, P, C)``: `quality` at each positive's class, `IGNORE` for ignored predictions and 0 elsewhere.
    """
    (target,) = upcast(torch.zeros_like(logits, requires_grad=False))
    if assignments:
        # By places: a mask would be compared with every element.
        target[torch.stack([assignment.ignored for assignment in assignments]).nonzero(as_tuple=True)] = IGNORE
    place = (positives.image, positives.prediction, positives.labels)
    target[place] = quality.to(target.dtype) if isinstance(quality, Tensor) else target.new_tensor(quality)
    return target


def select_detections(
    scores: Tensor,
    decode: Callable[[int, Tensor], Tensor],
    image_sizes: Sequence[tuple[int, int]] | None,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_candidates: int,
    max_detections: int,
    nms: NMS | None = batched_nms,
    variance: Callable[[int, Tensor], Tensor | None] | None = None,
    voting: Voting | None = None,
) -> list[Detections]:
    """Return the detections of each image.

    Args:
        scores: ``(B, P, C)`` from 0 to 1.
        decode: returns the ``(K, 4)`` xyxy boxes of the given predictions ``(K,)`` of an image of the batch.
        image_sizes: height and width of each image, to which the boxes are clipped; None clips nothing.
        score_threshold: scores must be above it.
        iou_threshold: of non-maximum suppression.
        max_candidates: pairs of prediction and class of an image that enter non-maximum suppression.
        max_detections: detections of an image that are returned.
        nms: a function with the arguments of `batched_nms`, see `NMS`; None suppresses nothing.
        variance: returns the ``(K, 4)`` variances of what `decode` returns, or None; only `voting` needs it.
        voting: a function with the arguments of `vote_boxes`, which moves the boxes that `nms` keeps; None moves none.

    Returns:
        For each image ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels`` (D,), highest score first.
    """
    images = len(scores)
    if image_sizes is not None and len(image_sizes) != images:
        raise ValueError(
            f"`image_sizes` must have one entry for each of the {images} images, but has {len(image_sizes)}"
        )

    def of_image(image: int) -> Detections:
        return select_of_image(
            scores[image],
            lambda prediction, _: decode(image, prediction),
            None if image_sizes is None else image_sizes[image],
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_candidates=max_candidates,
            max_detections=max_detections,
            nms=nms,
            variance=None if variance is None else functools.partial(variance, image),
            voting=voting,
        )

    return [of_image(image) for image in range(images)]


def select_of_image(
    scores: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    image_size: tuple[int, int] | None,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_candidates: int,
    max_detections: int,
    nms: NMS | None = batched_nms,
    variance: Callable[[Tensor], Tensor | None] | None = None,
    voting: Voting | None = None,
) -> Detections:
    """Return the detections of one image.

    The arguments are those of `select_detections`, but `scores` is ``(P, C)`` and `decode` returns the ``(K, 4)`` xyxy
    boxes of the given predictions ``(K,)`` for the given classes ``(K,)``.
    """
    check_number("score_threshold", score_threshold, at_least=0, at_most=1)
    check_number("max_candidates", max_candidates, at_least=1)
    check_number("max_detections", max_detections, at_least=1)
    flat = scores.flatten()
    candidates = (flat > score_threshold).nonzero().squeeze(1)
    order = flat[candidates].sort(descending=True, stable=True).indices[:max_candidates]
    candidates = candidates[order]
    classes = max(scores.shape[1], 1)
    prediction, labels = candidates // classes, candidates % classes
    boxes = clip(decode(prediction, labels), image_size)
    kept, kept_scores = suppress(nms, boxes, flat[candidates], labels, iou_threshold)
    kept = kept[:max_detections]
    if voting is None:
        found = boxes[kept]
    else:
        spread = None if variance is None else variance(prediction)
        if spread is None:
            raise ValueError("`voting` needs variances, but the outputs have no `log_variances`")
        found = voting(boxes, kept, spread, labels)
    return {"boxes": found, "scores": kept_scores[:max_detections], "labels": labels[kept]}


def clip(boxes: Tensor, image_size: tuple[int, int] | None) -> Tensor:
    """Return boxes ``(N, 4)`` cut to an image of this height and width; None cuts nothing."""
    if image_size is None:
        return boxes
    height, width = image_size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def suppress(nms: NMS | None, boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Kept:
    """Return what a suppression of either kind keeps, with the scores that it has then; None keeps all as they are."""
    if nms is None:
        return Kept(torch.arange(len(scores), device=scores.device), scores)
    kept = nms(boxes, scores, labels, iou_threshold)
    return kept if isinstance(kept, Kept) else Kept(kept, scores[kept])
