"""YOLOv3: one anchor of all levels for each object, logistic objectness and classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from lossatlas.assign import YOLOv3BestAnchor
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.losses.squared import l2_loss
from lossatlas.objectives.dense import Target
from lossatlas.objectives.slots import ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer
from lossatlas.objectives.yolo import AnchorCoder, Assigner, NormalizeBy, ObjectnessTarget
from lossatlas.objectives.yolo_darknet import Center, DarknetObjective, DarknetOutputs, SizeWeighting


@dataclass(frozen=True, eq=False)
class YOLOv3Outputs(DarknetOutputs):
    """What a network of YOLOv3's kind puts out; the arguments are those of `DarknetOutputs`."""


class YOLOv3(DarknetObjective[YOLOv3Outputs]):
    """The training objective of YOLOv3, without a network.

    Formula:
        box        = 1/N Σ over positives: (2 - w h) [BCE(t_x, x̂) + BCE(t_y, ŷ) + Σ over both sides: box_loss(t, t̂)]
        objectness = 1/N [λ Σ over positives: objectness_loss(logit, 1) + λₙ Σ negatives: objectness_loss(logit, 0)]
        class      = 1/N Σ over positives and classes: class_loss(logit, 1 for the object's class, else 0)
        x̂, ŷ: the object's centre in its cell; t̂ = ln(side / anchor's side); w, h: sides as fractions of the image
        N: number of images, or of positives; λ: objectness_weight, λₙ: no_object_weight

    Args:
        class_loss: slot of the classification; `binary_cross_entropy_with_logits` by default. A loss of qualities gets
            the IoU of the decoded box as target of the object's class, a loss of class indices, such as
            `cross_entropy`, makes the classes exclude each other.
        box_loss: slot of the regression; `l2_loss`, half the squared error, by default. An elementwise loss gets
            numbers as `center` says; a loss of boxes, such as `giou_loss`, decoded boxes in pixels and the objects'.
        objectness_loss: slot of the objectness; `binary_cross_entropy_with_logits` by default. An elementwise loss,
            such as `mse_loss`, gets probabilities: the squared error of older versions.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        objectness_weight: factor of the positives' objectness.
        no_object_weight: factor of the negatives' objectness.
        center: how an elementwise `box_loss` compares centres: ``"cross_entropy"``, not at all, but binary cross
            entropy does (the authors' code); ``"sigmoid"``, in cells, after the sigmoid; ``"logit"``, before it,
            against the inverse (as the paper writes).
        box_weighting: ``"size"``, the factor 2 - w h of the authors' code, or ``"none"`` as in the paper.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        objectness_target: target of the positives: ``"one"``, or the ``"iou"`` or ``"ciou"`` (0 where negative) of the
            decoded box with its object.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one.
        normalize_by: the amount that it takes: ``"images"``, the sums of an image averaged over the batch, as darknet,
            or ``"positives"``.
        assigner: called as ``assigner(anchors, strides, target, predictions)`` for each image, the last being decoded
            boxes; `YOLOv3BestAnchor()` by default, which ignores by the IoU of the anchor.
            `YOLOv3BestAnchor.darknet()` ignores by that of the prediction.
        coder: how boxes are written as logits; `YOLOCoder()` by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown option.

    Example:
        >>> import torch
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors = yolo_anchors([(2, 2), (1, 1)], [16, 32], [[(10, 10), (20, 12)], [(30, 30)]])
        >>> strides = torch.tensor([16.0] * 8 + [32.0])
        >>> logits = torch.zeros(1, 9, 3), torch.zeros(1, 9), torch.zeros(1, 9, 4)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 32, 30]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOv3()(YOLOv3Outputs(*logits, anchors, strides, (32, 32)), targets)
        >>> sorted(terms)
        ['box', 'class', 'objectness']

    Note:
        Assignment, encoded targets and qualities are outside the graph. An anchor answers for one object; where two
        have the same best anchor, the worse fitting one trains nothing. An image without objects trains the negatives;
        a batch without positives has box and class terms of 0, and every output still gets a (zero) gradient. The
        loss that darknet prints is another number: the sum of squared gradients.

    Reference:
        Redmon and Farhadi, "YOLOv3", 2018, arXiv 1804.02767, sections 2.1 and 2.2; the factor 2 - w h and the cross
        entropy of the centre are only in the authors' code.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = binary_cross_entropy_with_logits,
        box_loss: LossFunction = l2_loss,
        objectness_loss: LossFunction = binary_cross_entropy_with_logits,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        objectness_weight: float = 1.0,
        no_object_weight: float = 1.0,
        center: Center = "cross_entropy",
        box_weighting: SizeWeighting = "size",
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
            center=center,
            box_weighting=box_weighting,
            class_target=class_target,
            objectness_target=objectness_target,
            regression=regression,
            normalizer=normalizer,
            normalize_by=normalize_by,
            assigner=assigner or YOLOv3BestAnchor(),
            coder=coder,
        )

    def forward(self, outputs: YOLOv3Outputs, targets: Sequence[Target]) -> LossTerms:
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
        return LossTerms(self.terms(outputs, assignments, positives, pairs, self.scale(positives)))
