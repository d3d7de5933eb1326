"""YOLOX: without anchors, SimOTA's choice of predictions, class scores that are the IoU of the box."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import SimOTA, SoftAssignment
from lossatlas.boxes.yolo_coders import YOLOXCoder
from lossatlas.checks import check_floating, check_number
from lossatlas.losses.boxes import iou_loss
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.losses.regression import l1_loss
from lossatlas.objectives.decoder import DetectionDecoder
from lossatlas.objectives.dense import Target, check_predictions, check_targets, gather_positives
from lossatlas.objectives.point_squares import check_points_of
from lossatlas.objectives.slots import BoxLoss, BoxPairs, ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer
from lossatlas.objectives.yolo import ObjectnessTarget, YOLOObjective, gather_quality, is_softmax

DEFAULT_BOX_LOSS = functools.partial(iou_loss, mode="square")


@dataclass(frozen=True, eq=False)
class YOLOXOutputs:
    """What a network of YOLOX's kind puts out for a batch of B images with P points each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each point and class.
        objectness_logits: ``(B, P)``.
        box_numbers: ``(B, P, 4)`` t_x, t_y, t_w, t_h, as the objective's coder encodes them.
        points: ``(P, 2)`` x, y pixels of the cells' centres, the same for all images, as of `point_grid`.
        strides: ``(P,)`` pixels.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "b p c"]
    objectness_logits: Float[Tensor, "b p"]
    box_numbers: Float[Tensor, "b p 4"]
    points: Float[Tensor, "p 2"]
    strides: Float[Tensor, " p"]

    def __post_init__(self) -> None:
        for name in ("class_logits", "objectness_logits", "box_numbers"):
            check_floating(name, getattr(self, name))
        check_predictions("class_logits", self.class_logits, (None, None, None), "B P C")
        images, predictions, _ = self.class_logits.shape
        check_predictions("objectness_logits", self.objectness_logits, (images, predictions), "B P")
        check_predictions("box_numbers", self.box_numbers, (images, predictions, 4), "B P 4")
        check_points_of(self.points, self.strides, predictions)


class YOLOX(YOLOObjective, DetectionDecoder[YOLOXOutputs]):
    """The training objective of YOLOX, without a network.

    Formula:
        box        = 5/N Σ over positives: box_loss(decoded box, object)
        objectness = 1/N Σ over points that are not ignored: objectness_loss(logit, 1 for a positive, else 0)
        class      = 1/N Σ over positives and classes: class_loss(logit, IoU for the object's class, else 0)
        l1         = l1_weight/N Σ over positives: l1_loss(numbers, encoded object)
        N: number of positives, at least 1

    Args:
        class_loss: slot of the classification; `binary_cross_entropy_with_logits` by default. A loss of class indices,
            such as `cross_entropy`, makes the classes exclude each other.
        box_loss: slot of the regression; `iou_loss` in mode ``"square"`` by default. A loss of boxes gets decoded boxes
            in pixels and the objects' boxes, an elementwise one the four numbers and the encoded object.
        objectness_loss: slot of the objectness; `binary_cross_entropy_with_logits` by default. An elementwise loss gets
            probabilities.
        l1_loss: slot of the additional regression of the numbers; `lossatlas.losses.l1_loss` by default.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        objectness_weight: factor of the objectness term.
        l1_weight: factor of the additional term. 0, the default, leaves it out; YOLOX sets it to 1 for its last 15
            epochs, when it stops augmenting, and it may be set at any time.
        class_target: of independent classes, ``"quality"``, the IoU of the decoded box with its object, or
            ``"binary"``, 1; None is ``"quality"``.
        objectness_target: target of the positives: ``"one"``, or the ``"iou"`` or ``"ciou"`` (0 where negative) of the
            decoded box with its object.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one.
        assigner: called as ``assigner(points, strides, class_logits, boxes, target, objectness)`` for each image, with
            decoded boxes; `SimOTA()` by default.
        coder: how boxes are written as numbers; `YOLOXCoder()` by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown option.

    Example:
        >>> from lossatlas.boxes.priors import point_grid
        >>> points, strides = point_grid([(4, 4), (2, 2)], [8, 16])
        >>> outputs = YOLOXOutputs(torch.zeros(1, 20, 3), torch.zeros(1, 20), torch.zeros(1, 20, 4), points, strides)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOX()(outputs, targets)
        >>> sorted(terms)
        ['box', 'class', 'objectness']

    Note:
        Assignment, encoded targets and the IoU as target are outside the graph. An image without objects trains the
        objectness; a batch without positives has box and class terms of 0, and every output still gets a (zero)
        gradient. The paper says IoU loss; the authors' code has 1 - IoU².

    Reference:
        Ge et al., "YOLOX: Exceeding YOLO Series in 2021", 2021, arXiv 2107.08430, section 2.1; weights are only in the
        authors' code.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = binary_cross_entropy_with_logits,
        box_loss: LossFunction = DEFAULT_BOX_LOSS,
        objectness_loss: LossFunction = binary_cross_entropy_with_logits,
        l1_loss: LossFunction = l1_loss,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        objectness_weight: float = 1.0,
        l1_weight: float = 0.0,
        class_target: ClassTarget | None = None,
        objectness_target: ObjectnessTarget = "one",
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[..., SoftAssignment] | None = None,
        coder: YOLOXCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            objectness_loss=objectness_loss,
            class_weight=class_weight,
            box_weight=box_weight,
            objectness_weight=objectness_weight,
            no_object_weight=objectness_weight,
            class_target=class_target or (None if is_softmax(class_loss) else "quality"),
            objectness_target=objectness_target,
            regression=regression,
            normalizer=normalizer,
        )
        check_number("l1_weight", l1_weight, at_least=0)
        self.l1_loss = BoxLoss(l1_loss, "encoded", name="l1_loss")
        self.l1_weight = l1_weight
        self.assigner = assigner or SimOTA()
        self.coder = coder or YOLOXCoder()

    @torch.no_grad()
    def assign(self, outputs: YOLOXOutputs, targets: Sequence[Target]) -> list[SoftAssignment]:
        """Return, for each image, which object each point answers for, and its IoU with it."""
        check_targets(targets, len(outputs.objectness_logits))
        return [
            self.assigner(
                outputs.points,
                outputs.strides,
                outputs.class_logits[image],
                self.boxes(outputs, image),
                target,
                outputs.objectness_logits[image],
            )
            for image, target in enumerate(targets)
        ]

    def forward(self, outputs: YOLOXOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``box``, ``objectness``, ``class`` and, with an `l1_weight`, ``l1``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.box_numbers)
        numbers = outputs.box_numbers[positives.image, positives.prediction]
        place = (outputs.points[positives.prediction], outputs.strides[positives.prediction])
        encoded = self.coder.encode(positives.boxes, *place)
        pairs = BoxPairs(self.coder.decode(numbers, *place), positives.boxes, numbers, encoded)
        scale = self.normalizer(positives.counts)
        logits = outputs.class_logits[positives.image, positives.prediction]
        terms = {
            "box": self.box_term(pairs, positives, scale),
            "objectness": self.objectness_term(outputs.objectness_logits, assignments, positives, pairs, scale),
            "class": self.class_term(logits, positives, pairs, scale, gather_quality(assignments, numbers)),
        }
        if self.l1_weight:
            weight = scale.weight_of(positives.image)
            terms["l1"] = self.l1_weight * self.l1_loss(pairs, weight=weight, normalizer=scale.denominator)
        return LossTerms(terms)

    def scores(self, outputs: YOLOXOutputs) -> Tensor:
        """Return σ(objectness) times the probability of each class, ``(B, P, C)``."""
        objectness = self.objectness_loss.probabilities(outputs.objectness_logits)
        return objectness[..., None] * self.probabilities(outputs.class_logits)

    def boxes(self, outputs: YOLOXOutputs, image: int, prediction: Tensor | slice = slice(None)) -> Tensor:
        """Return the ``(K, 4)`` xyxy boxes of predictions of an image of the batch, all of them by default."""
        place = (outputs.points[prediction], outputs.strides[prediction])
        return self.coder.decode(outputs.box_numbers[image, prediction], *place)
