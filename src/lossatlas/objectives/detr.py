"""DETR: a set of predictions without order, each object matched with one of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lossatlas.assign import Assignment, FocalCost, GIoUCost, Hungarian, L1Cost
from lossatlas.assign.assignment import ordered_objects
from lossatlas.boxes.formats import convert
from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import giou_loss
from lossatlas.losses.catalog import find
from lossatlas.losses.classification import cross_entropy
from lossatlas.losses.regression import l1_loss
from lossatlas.objectives.background import background_index, class_indices, foreground_scores
from lossatlas.objectives.dense import (
    NMS,
    BoxObjective,
    Detections,
    Target,
    check_predictions,
    check_targets,
    gather_positives,
    select_detections,
    sigmoid_term,
)
from lossatlas.objectives.slots import (
    IGNORE,
    SOFTMAX_KINDS,
    BoxLoss,
    BoxPairs,
    ClassTarget,
    LossFunction,
    Regression,
    SigmoidLoss,
    SoftmaxLoss,
)
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer, Scale

Classifier = Literal["softmax", "sigmoid"]

_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True, eq=False)
class DETROutputs:
    """What a network of DETR's kind puts out for a batch of B images, with Q queries after each of L decoder layers.

    Args:
        class_logits: ``(L, B, Q, C + 1)`` with "no object" as the last class, or ``(L, B, Q, C)`` for a sigmoid
            classifier. The last layer is the one that detects.
        boxes: ``(L, B, Q, 4)`` x and y of the centre, width and height in fractions of the image.
        image_sizes: ``(B, 2)`` height and width in pixels of what the boxes are fractions of.

    Raises:
        ValueError: shapes that do not fit together, or no layer.
        TypeError: logits or boxes that are not floating point.
    """

    class_logits: Float[Tensor, "l b q k"]
    boxes: Float[Tensor, "l b q 4"]
    image_sizes: Shaped[Tensor, "b 2"]

    def __post_init__(self) -> None:
        check_floating("class_logits", self.class_logits)
        check_floating("boxes", self.boxes)
        check_predictions("class_logits", self.class_logits, (None, None, None, None), "L B Q K")
        layers, images, queries, _ = self.class_logits.shape
        if not layers:
            raise ValueError("`class_logits` must have at least one layer, but has none")
        check_predictions("boxes", self.boxes, (layers, images, queries, 4), "L B Q 4")
        check_predictions("image_sizes", self.image_sizes, (images, 2), "B 2")


class _Batch(NamedTuple):
    """Some of the layers, each with all its images, as one batch of n · B images."""

    class_logits: Tensor
    """``(n · B, Q, K)``."""
    boxes: Tensor
    """``(n · B, Q, 4)``."""
    extents: Tensor
    """``(n · B, 4)`` width, height, width, height in pixels."""
    assignments: Sequence[Assignment]
    targets: Sequence[Target]


class DETR(BoxObjective):
    """The training objective of DETR, without a network.

    Formula:
        class = 1/Σw Σ over predictions: w · class_loss(logits, class of the object or "no object"),
                w = `no_object_weight` for "no object", 1 for objects
        box   = 1/N Σ over objects: box_loss(box, object), in fractions of the image
        iou   = 1/N Σ over objects: iou_loss(box, object)
        on the last layer, and the sum of the same over the other layers as ``aux_class``, ``aux_box``, ``aux_iou``;
        each layer is matched anew, N: number of objects, at least 1

    Args:
        class_loss: slot of the classification; `cross_entropy` by default. A loss of yes/no targets or qualities, such
            as `sigmoid_focal_loss`, makes a sigmoid classifier: there is no "no object" and the sum is divided by N.
        box_loss: slot of the regression; `l1_loss` by default, on x, y, w, h in fractions of the image. A loss of
            boxes gets xyxy boxes in pixels.
        iou_loss: second slot of the regression, on xyxy boxes in pixels; `giou_loss` by default.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        iou_weight: factor of the iou term.
        no_object_weight: weight of "no object", above 0.
        auxiliary_weight: factor of all terms of the other layers.
        classifier: ``"softmax"`` or ``"sigmoid"``; None reads it from the catalogue.
        class_target: of a sigmoid classifier, ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one; Σw is normalised in the same mode, with a state of its own.
        assigner: called as ``assigner(class_logits, boxes, target, image_size)`` with boxes in pixels for each image
            and layer; `Hungarian()` by default, with `FocalCost` for a sigmoid classifier.

    Raises:
        ValueError: a loss that does not fit its slot, a number out of its range or an unknown option.

    Example:
        >>> outputs = DETROutputs(torch.zeros(2, 1, 5, 4), torch.full((2, 1, 5, 4), 0.5), torch.tensor([[64, 64]]))
        >>> targets = [{"boxes": torch.tensor([[16.0, 16, 48, 48]]), "labels": torch.tensor([2])}]
        >>> terms = DETR()(outputs, targets)
        >>> list(terms), terms["class"]
        (['class', 'box', 'iou', 'aux_class', 'aux_box', 'aux_iou'], tensor(1.3863))

    Note:
        The matching is outside the graph. A prediction in a crowd region is left out of the class term, see
        `Hungarian`. Σw is the mean over the layers. The authors' code divides the class term by the Σw of each process
        and the others by N of all; ``normalizer="all_reduce"`` takes both over all processes. Deformable DETR is
        ``DETR(class_loss=sigmoid_focal_loss, class_weight=2.0)``. The paper's equation has the sum of -ln p; its
        weighted mean is the authors' code's.

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers", 2020, arXiv 2005.12872, equation 2 and
        the appendix on the losses.
    """

    class_loss: SoftmaxLoss | SigmoidLoss

    def __init__(
        self,
        *,
        class_loss: LossFunction = cross_entropy,
        box_loss: LossFunction = l1_loss,
        iou_loss: LossFunction = giou_loss,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        iou_weight: float = 2.0,
        no_object_weight: float = 0.1,
        auxiliary_weight: float = 1.0,
        classifier: Classifier | None = None,
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Tensor, Mapping[str, Tensor], tuple[int, int]], Assignment] | None = None,
    ) -> None:
        super().__init__(box_loss=box_loss, regression=regression, box_weight=box_weight, normalizer=normalizer)
        check_number("class_weight", class_weight, at_least=0)
        check_number("iou_weight", iou_weight, at_least=0)
        check_number("no_object_weight", no_object_weight, above=0)
        check_number("auxiliary_weight", auxiliary_weight, at_least=0)
        if _classifier(class_loss, classifier) == "softmax":
            self.class_loss = SoftmaxLoss(class_loss)
        else:
            self.class_loss = SigmoidLoss(class_loss, class_target)
        self.iou_loss = BoxLoss(iou_loss, "boxes", name="iou_loss")
        self.class_weight = class_weight
        self.iou_weight = iou_weight
        self.no_object_weight = no_object_weight
        self.auxiliary_weight = auxiliary_weight
        self.class_normalizer = self.normalizer.with_floor(_LEAST_WEIGHT)
        self.assigner = assigner or (
            Hungarian() if self.classifier == "softmax" else Hungarian((FocalCost(), L1Cost(), GIoUCost()))
        )

    @property
    def classifier(self) -> Classifier:
        """Whether classes exclude each other and "no object" is one of them, or each is a question of its own."""
        return "softmax" if isinstance(self.class_loss, SoftmaxLoss) else "sigmoid"

    @torch.no_grad()
    def match(self, outputs: DETROutputs, targets: Sequence[Target]) -> list[list[Assignment]]:
        """Return, for each layer and image, which object each query answers for."""
        check_targets(targets, outputs.boxes.shape[1])
        sizes = [(height, width) for height, width in outputs.image_sizes.tolist()]
        boxes = _to_pixels(outputs.boxes, _extents(outputs)[:, None])
        return [
            [
                self.assigner(logits, layer[image], targets[image], sizes[image])
                for image, logits in enumerate(layer_logits)
            ]
            for layer_logits, layer in zip(outputs.class_logits, boxes, strict=True)
        ]

    def assign(self, outputs: DETROutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each query answers for after the last layer."""
        last = DETROutputs(outputs.class_logits[-1:], outputs.boxes[-1:], outputs.image_sizes)
        return self.match(last, targets)[0]

    def forward(self, outputs: DETROutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``iou``, and where there are more layers their ``aux_`` sums.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0 and below C, optionally
                ``iscrowd`` (G,), on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
            ImportError: scipy is not installed.
        """
        matched = self.match(outputs, targets)
        objects = [len(ordered_objects(target, torch.float32).rows) for target in targets]
        dtype = torch.promote_types(outputs.boxes.dtype, torch.float32)
        scale = self.normalizer(outputs.boxes.new_tensor(objects, dtype=dtype))
        layers = len(matched)
        class_scale = self._class_scale(_as_batch(outputs, targets, matched, slice(0, layers)), scale, layers)
        terms = self._terms(_as_batch(outputs, targets, matched, slice(layers - 1, layers)), scale, class_scale)
        if layers > 1:
            others = self._terms(_as_batch(outputs, targets, matched, slice(0, layers - 1)), scale, class_scale)
            terms |= {f"aux_{name}": self.auxiliary_weight * term for name, term in others.items()}
        return LossTerms(terms)

    def _terms(self, batch: _Batch, scale: Scale, class_scale: Scale) -> dict[str, Tensor]:
        scale, class_scale = (_repeat(one, len(batch.targets)) for one in (scale, class_scale))
        positives = gather_positives(batch.assignments, batch.targets, batch.boxes)
        encoded, boxes, extents = upcast(
            batch.boxes[positives.image, positives.prediction], positives.boxes, batch.extents[positives.image]
        )
        decoded, fractions = _to_pixels(encoded, extents), convert(boxes, "xyxy", "cxcywh") / extents
        pairs = BoxPairs(decoded, boxes, encoded, fractions)
        if isinstance(self.class_loss, SoftmaxLoss):
            index, weight = self._class_indices(batch)
            if class_scale.image_weight is not None:
                weight = weight * class_scale.image_weight[:, None]
            class_term = self.class_loss(batch.class_logits, index, weight=weight, normalizer=class_scale.denominator)
        else:
            class_term = sigmoid_term(
                self.class_loss, batch.class_logits, batch.assignments, positives, pairs, class_scale
            )
        iou_term = self.iou_loss(pairs, weight=scale.weight_of(positives.image), normalizer=scale.denominator)
        return {
            "class": self.class_weight * class_term,
            "box": self.box_term(pairs, positives, scale),
            "iou": self.iou_weight * iou_term,
        }

    def _class_scale(self, batch: _Batch, scale: Scale, layers: int) -> Scale:
        """Return what the class term is divided by, given all layers."""
        if self.classifier == "sigmoid":
            return scale
        _, weight = self._class_indices(batch)
        result: Scale = self.class_normalizer(weight.sum(1).view(layers, -1).mean(0))
        return result

    def _class_indices(self, batch: _Batch) -> tuple[Tensor, Tensor]:
        """Return the class of each prediction and its weight, 0 where it is ignored, both ``(n · B, Q)``."""
        logits = batch.class_logits
        index = logits.new_empty(logits.shape[:2], dtype=torch.int64)
        for image, (assignment, target) in enumerate(zip(batch.assignments, batch.targets, strict=True)):
            index[image] = class_indices(assignment, target["labels"], logits, "last")
        (weight,) = upcast(torch.ones_like(logits[..., 0], requires_grad=False))
        weight = weight.masked_fill(index == background_index(logits, "last"), self.no_object_weight)
        return index, weight.masked_fill(index == IGNORE, 0)

    @torch.no_grad()
    def decode(
        self,
        outputs: DETROutputs,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        *,
        score_threshold: float = 0.0,
        iou_threshold: float = 0.5,
        max_candidates: int = 1000,
        max_detections: int = 100,
        nms: NMS | None = None,
    ) -> list[Detections]:
        """Return the detections of each image: ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels`` (D,).

        They are those of the last layer. The score is the softmax of the class, and of a query's classes the best one
        is detected, as in the authors' code; or σ(logit) of any class, as in Deformable DETR's.

        Args:
            outputs: of a batch of B images.
            image_sizes: height and width of each image in pixels, to which boxes are clipped; None clips nothing.
            score_threshold: scores must be above it.
            iou_threshold: of `nms`.
            max_candidates: pairs of query and class of an image, highest score first, that enter `nms`.
            max_detections: detections that are returned for an image.
            nms: None for none, as in the paper, or a function with the arguments of
                `lossatlas.boxes.nms.batched_nms`, such as torchvision's.
        """
        logits = outputs.class_logits[-1]
        if self.classifier == "softmax":
            scores = foreground_scores(logits, "last")
            if scores.shape[-1]:
                best = scores.max(-1, keepdim=True)
                scores = torch.zeros_like(scores).scatter(-1, best.indices, best.values)
        else:
            scores = upcast(logits)[0].sigmoid()
        boxes = _to_pixels(outputs.boxes[-1], _extents(outputs)[:, None])
        return select_detections(
            scores,
            lambda image, query: boxes[image, query],
            image_sizes,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_candidates=max_candidates,
            max_detections=max_detections,
            nms=nms,
        )


def _classifier(class_loss: LossFunction, classifier: Classifier | None) -> Classifier:
    if classifier is not None:
        check_choice("classifier", classifier, get_args(Classifier))
        return classifier
    entry = find(class_loss)
    if entry is None and callable(class_loss):
        raise ValueError(
            "`class_loss` is not a loss of the library: pass classifier='softmax' if it takes a vector of logits with "
            "'no object' as the last class, or classifier='sigmoid' if it takes a logit for each class"
        )
    return "softmax" if entry is not None and entry.input_kind in SOFTMAX_KINDS else "sigmoid"


def _extents(outputs: DETROutputs) -> Tensor:
    """Return ``(B, 4)`` width, height, width, height of the images."""
    return upcast(outputs.image_sizes.flip(1).repeat(1, 2), outputs.boxes)[0]


def _to_pixels(boxes: Tensor, extents: Tensor) -> Tensor:
    boxes, extents = upcast(boxes, extents)
    return convert(boxes * extents, "cxcywh", "xyxy")


def _as_batch(
    outputs: DETROutputs, targets: Sequence[Target], matched: Sequence[Sequence[Assignment]], layers: slice
) -> _Batch:
    count = layers.stop - layers.start
    return _Batch(
        outputs.class_logits[layers].flatten(0, 1),
        outputs.boxes[layers].flatten(0, 1),
        _extents(outputs).repeat(count, 1),
        [assignment for layer in matched[layers] for assignment in layer],
        list(targets) * count,
    )


def _repeat(scale: Scale, images: int) -> Scale:
    """Return the scale of a batch that holds the same images several times."""
    if scale.image_weight is None or not len(scale.image_weight):
        return scale
    return scale._replace(image_weight=scale.image_weight.repeat(images // len(scale.image_weight)))
