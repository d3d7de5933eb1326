"""YOLOv4: every anchor that fits an object's shape, complete IoU, centres that reach beyond their cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lossatlas.assign import Assignment
from lossatlas.assign import YOLOv4 as YOLOv4Assigner
from lossatlas.boxes.yolo_coders import YOLOCoder
from lossatlas.losses.boxes import ciou_loss
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.objectives.dense import Target, check_targets
from lossatlas.objectives.slots import ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer
from lossatlas.objectives.yolo import (
    AnchorCoder,
    AnchorObjective,
    Assigner,
    NormalizeBy,
    ObjectnessTarget,
    YOLOAnchorOutputs,
)


@dataclass(frozen=True, eq=False)
class YOLOv4Outputs(YOLOAnchorOutputs):
    """What a network of YOLOv4's kind puts out; the arguments are those of `YOLOAnchorOutputs`."""


class YOLOv4(AnchorObjective[YOLOv4Outputs]):
    """The training objective of YOLOv4, without a network.

    Formula:
        box        = 0.07/N Σ over positives: box_loss(decoded box, object)
        objectness = 1/N [Σ over positives: objectness_loss(logit, 1) + Σ over negatives: objectness_loss(logit, 0)]
        class      = 1/N Σ over positives and classes: class_loss(logit, 1 for the object's class, else 0)
        N: number of images, or of positives

    Args:
        class_loss: slot of the classification; `binary_cross_entropy_with_logits` by default. A loss of qualities gets
            the IoU of the decoded box as target of the object's class, a loss of class indices, such as
            `cross_entropy`, makes the classes exclude each other.
        box_loss: slot of the regression; `ciou_loss` by default. A loss of boxes gets decoded boxes in pixels and the
            objects' boxes, an elementwise one the four logits and those that the coder encodes the object as.
        objectness_loss: slot of the objectness; `binary_cross_entropy_with_logits` by default. An elementwise loss gets
            probabilities.
        class_weight: factor of the class term.
        box_weight: factor of the box term; 0.07 in the authors' configuration, where N is the number of images.
        objectness_weight: factor of the positives' objectness.
        no_object_weight: factor of the negatives' objectness.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        objectness_target: target of the positives: ``"one"``, or the ``"iou"`` or ``"ciou"`` (0 where negative) of the
            decoded box with its object.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one.
        normalize_by: the amount that it takes: ``"images"``, the sums of an image averaged over the batch, as darknet,
            or ``"positives"``.
        assigner: called as ``assigner(anchors, strides, target, predictions, probabilities)`` for each image, with
            decoded boxes and the probability of each class; `lossatlas.assign.YOLOv4()` by default, which gives an
            object several anchors and ignores a good box only if its class is right too.
        coder: how boxes are written as logits; `YOLOCoder.yolov4()` by default, whose centres reach beyond their cell.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown option.

    Example:
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors = yolo_anchors([(2, 2), (1, 1)], [16, 32], [[(10, 10), (20, 12)], [(30, 30)]])
        >>> strides = torch.tensor([16.0] * 8 + [32.0])
        >>> logits = torch.zeros(1, 9, 3), torch.zeros(1, 9), torch.zeros(1, 9, 4)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 32, 30]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOv4()(YOLOv4Outputs(*logits, anchors, strides), targets)
        >>> sorted(terms)
        ['box', 'class', 'objectness']

    Note:
        Assignment and qualities are outside the graph. An anchor answers for one object, the one whose shape fits it
        best; the authors' code adds up the gradients of all that claim it. An image without objects trains the
        negatives; a batch without positives has box and class terms of 0, and every output still gets a (zero)
        gradient. The authors' code computes the gradient of the complete IoU by hand:
        ``box_loss=CIoULoss(gradient="unscaled")`` has its derivative of the aspect ratio for boxes in fractions of the
        image; that it does not differentiate through the sigmoid, and cuts gradients at 5, has no counterpart here.

    Reference:
        Bochkovskiy et al., "YOLOv4", 2020, arXiv 2004.10934, section 3.4; weights and the ignore rule are only in the
        authors' code and configuration.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = binary_cross_entropy_with_logits,
        box_loss: LossFunction = ciou_loss,
        objectness_loss: LossFunction = binary_cross_entropy_with_logits,
        class_weight: float = 1.0,
        box_weight: float = 0.07,
        objectness_weight: float = 1.0,
        no_object_weight: float = 1.0,
        class_target: ClassTarget | None = None,
        objectness_target: ObjectnessTarget = "one",
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        normalize_by: NormalizeBy = "images",
        assigner: Assigner | None = None,
        coder: AnchorCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            objectness_loss=objectness_loss,
            class_weight=class_weight,
            box_weight=box_weight,
            objectness_weight=objectness_weight,
            no_object_weight=no_object_weight,
            class_target=class_target,
            objectness_target=objectness_target,
            regression=regression,
            normalizer=normalizer,
            normalize_by=normalize_by,
        )
        self.assigner = assigner or YOLOv4Assigner()
        self.coder = coder or YOLOCoder.yolov4()

    @torch.no_grad()
    def assign(self, outputs: YOLOv4Outputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor answers for."""
        check_targets(targets, len(outputs.objectness_logits))
        place = outputs.anchors, outputs.strides
        return [
            self.assigner(*place, target, self.boxes(outputs, image), self.probabilities(outputs.class_logits[image]))
            for image, target in enumerate(targets)
        ]

    def forward(self, outputs: YOLOv4Outputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``box``, ``objectness`` and ``class``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives, pairs = self.positives(outputs, assignments, targets)
        scale = self.scale(positives)
        logits = outputs.class_logits[positives.image, positives.prediction]
        return LossTerms(
            {
                "box": self.box_term(pairs, positives, scale),
                "objectness": self.objectness_term(outputs.objectness_logits, assignments, positives, pairs, scale),
                "class": self.class_term(logits, positives, pairs, scale),
            }
        )
