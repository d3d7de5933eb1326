"""YOLOv2: the best anchor of an object's cell, an objectness that says how good the box is, classes by softmax."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lossatlas.assign import Assignment, YOLOv3BestAnchor
from lossatlas.checks import check_number
from lossatlas.losses.classification import binary_cross_entropy_with_logits, cross_entropy
from lossatlas.losses.squared import l2_loss
from lossatlas.objectives.dense import Positives, Target
from lossatlas.objectives.slots import BoxPairs, ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer, Scale
from lossatlas.objectives.yolo import AnchorCoder, Assigner, NormalizeBy, ObjectnessTarget
from lossatlas.objectives.yolo_darknet import Center, DarknetObjective, DarknetOutputs, SizeWeighting


@dataclass(frozen=True, eq=False)
class YOLOv2Outputs(DarknetOutputs):
    """What a network of YOLOv2's kind puts out; the arguments are those of `DarknetOutputs`."""


class YOLOv2(DarknetObjective[YOLOv2Outputs]):
    """The training objective of YOLOv2, without a network.

    Formula:
        box        = 1/N Σ over positives: (2 - w h) [BCE(t_x, x̂) + BCE(t_y, ŷ) + Σ over both sides: box_loss(t, t̂)]
        objectness = 1/N [5 Σ over positives: objectness_loss(logit, IoU) + Σ over negatives: objectness_loss(logit, 0)]
        class      = 1/N Σ over positives: class_loss(logits, class)
        prior      = 0.01/N Σ over negatives: BCE(t_x, ½) + BCE(t_y, ½) + Σ over both sides: box_loss(t, 0), for the
                     first `prior_images` images that it is trained on, then 0
        x̂, ŷ: the object's centre in its cell; t̂ = ln(side / anchor's side); w, h: sides as fractions of the image
        N: number of images, or of positives

    Args:
        class_loss: slot of the classification; `cross_entropy` by default. A loss of logits of yes/no questions makes
            the classes independent.
        box_loss: slot of the regression; `l2_loss`, half the squared error, by default. An elementwise loss gets
            numbers as `center` says; a loss of boxes, such as `giou_loss`, decoded boxes in pixels and the objects'.
        objectness_loss: slot of the objectness; `binary_cross_entropy_with_logits` by default. An elementwise loss,
            such as `l2_loss`, gets probabilities.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        objectness_weight: factor of the positives' objectness.
        no_object_weight: factor of the negatives' objectness.
        prior_weight: factor of the prior term, beside `box_weight`; the term pulls every box to its anchor. 0 leaves it
            out.
        prior_images: how many images it lasts. They are counted in training mode, of this process.
        center: how an elementwise `box_loss` compares centres: ``"cross_entropy"``, not at all, but binary cross
            entropy does (the authors' code); ``"sigmoid"``, in cells, after the sigmoid; ``"logit"``, before it.
        box_weighting: ``"size"``, the factor 2 - w h of the authors' code, or ``"none"``.
        class_target: of independent classes, ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        objectness_target: target of the positives: the ``"iou"`` of the decoded box with its object, as the paper says,
            its ``"ciou"`` (0 where negative), or ``"one"``.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one.
        normalize_by: the amount that it takes: ``"images"``, the sums of an image averaged over the batch, as darknet,
            or ``"positives"``.
        assigner: called as ``assigner(anchors, strides, target, predictions)`` for each image, the last being decoded
            boxes; by default ``YOLOv3BestAnchor("prediction", 0.6)``: the anchor of the best shape, and no objectness
            for other boxes with an IoU above 0.6.
        coder: how boxes are written as logits; `YOLOCoder()` by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown option.

    Example:
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors, strides = yolo_anchors([(2, 2)], [16], [[(10, 10), (20, 12)]]), torch.full((8,), 16.0)
        >>> logits = torch.zeros(1, 8, 3), torch.zeros(1, 8), torch.zeros(1, 8, 4)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 30, 12]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOv2()(YOLOv2Outputs(*logits, anchors, strides, (32, 32)), targets)
        >>> sorted(terms)
        ['box', 'class', 'objectness', 'prior']

    Note:
        Assignment, encoded targets and qualities are outside the graph. How many images were seen is saved with the
        objective. An anchor answers for one object; where two have the same best anchor, the worse fitting one trains
        nothing. A batch without positives has box and class terms of 0, and every output still gets a (zero) gradient.
        darknet pulls boxes that are ignored to their anchors too.
        The paper says what is predicted, but not by which loss; weights and losses are those of the authors' code, in
        which, too, what it prints is the sum of squared gradients.

    Reference:
        Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger", 2016, arXiv 1612.08242, section 2; darknet.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = cross_entropy,
        box_loss: LossFunction = l2_loss,
        objectness_loss: LossFunction = binary_cross_entropy_with_logits,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        objectness_weight: float = 5.0,
        no_object_weight: float = 1.0,
        prior_weight: float = 0.01,
        prior_images: int = 12_800,
        center: Center = "cross_entropy",
        box_weighting: SizeWeighting = "size",
        class_target: ClassTarget | None = None,
        objectness_target: ObjectnessTarget = "iou",
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
            assigner=assigner or YOLOv3BestAnchor("prediction", 0.6),
            coder=coder,
        )
        check_number("prior_weight", prior_weight, at_least=0)
        check_number("prior_images", prior_images, at_least=0)
        self.prior_weight = prior_weight
        self.prior_images = prior_images
        self.images_seen = 0

    def get_extra_state(self) -> dict[str, int]:
        """Return how many images it was trained on."""
        return {"images_seen": self.images_seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from a saved number of images."""
        self.images_seen = state["images_seen"]

    def forward(self, outputs: YOLOv2Outputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``box``, ``objectness``, ``class`` and, with a `prior_weight`, ``prior``.

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
        terms = self.terms(outputs, assignments, positives, pairs, scale)
        if self.prior_weight:
            terms["prior"] = self.prior_weight * self._prior_term(outputs, assignments, positives, scale)
        if self.training:
            self.images_seen += len(targets)
        return LossTerms(terms)

    def _prior_term(
        self, outputs: YOLOv2Outputs, assignments: Sequence[Assignment], positives: Positives, scale: Scale
    ) -> Tensor:
        """Return how far the negatives' boxes are from their anchors; of none of them once it is over."""
        negative = torch.zeros_like(outputs.objectness_logits, dtype=torch.bool)
        if assignments and self.images_seen < self.prior_images:
            negative = torch.stack([assignment.negative for assignment in assignments])
        image, prediction = negative.nonzero().unbind(1)
        anchors, strides = outputs.anchors[prediction].detach(), outputs.strides[prediction]
        logits = outputs.box_logits[image, prediction]
        pairs = BoxPairs(
            self.coder.decode(logits, anchors, strides), anchors, logits, self.coder.encode(anchors, anchors, strides)
        )
        return self.coordinates_term(pairs, positives._replace(image=image), scale, None)
