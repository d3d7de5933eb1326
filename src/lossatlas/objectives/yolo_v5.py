"""YOLOv5: every anchor of similar sides on three cells, an objectness that is the box's IoU, means level by level."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lossatlas.assign import Assignment, YOLOv5Ratio
from lossatlas.boxes.yolo_coders import YOLOv5Coder
from lossatlas.checks import check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.boxes import ciou_loss
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.objectives.dense import Positives, Target, check_targets
from lossatlas.objectives.slots import IGNORE, BoxPairs, ClassTarget, LossFunction, Regression, SigmoidLoss
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer, Scale
from lossatlas.objectives.yolo import AnchorCoder, AnchorObjective, Assigner, ObjectnessTarget, YOLOAnchorOutputs

BALANCE = (4.0, 1.0, 0.4)
"""Factors of the objectness of strides 8, 16 and 32."""


@dataclass(frozen=True, eq=False)
class YOLOv5Outputs(YOLOAnchorOutputs):
    """What a network of YOLOv5's kind puts out; the arguments are those of `YOLOAnchorOutputs`."""


class YOLOv5(AnchorObjective[YOLOv5Outputs]):
    """The training objective of YOLOv5, without a network.

    Formula:
        box        = 0.05 Σ over levels: mean over its positives: box_loss(decoded box, object)
        objectness = 1.0 Σ over levels: balance · mean over its predictions: objectness_loss(logit, target)
        class      = 0.5 Σ over levels: mean over its positives and classes: class_loss(logit, 1 for the class, else 0)
        target: complete IoU of a positive's box with its object, at least 0; 0 for a negative

    Args:
        class_loss: slot of the classification; `binary_cross_entropy_with_logits` by default. A loss of qualities gets
            the IoU of the decoded box as target of the object's class, a loss of class indices, such as
            `cross_entropy`, makes the classes exclude each other.
        box_loss: slot of the regression; `ciou_loss` by default. A loss of boxes gets decoded boxes in pixels and the
            objects' boxes, an elementwise one the four logits and those that the coder encodes the object as.
        objectness_loss: slot of the objectness; `binary_cross_entropy_with_logits` by default. An elementwise loss gets
            probabilities.
        class_weight: factor of the class term; see `gains`.
        box_weight: factor of the box term.
        objectness_weight: factor of the objectness term.
        balance: factor of each level's objectness, smallest stride first; (4, 1, 0.25, 0.06, 0.02) for five levels.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        objectness_target: target of the positives: the ``"ciou"`` (0 where negative) or the ``"iou"`` of the decoded
            box with its object, or ``"one"``.
        times_batch_size: whether all terms are multiplied by the number of images, as YOLOv5 does, whose learning rate
            is made for it.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one, for the number of each level's positives. The objectness is
            a mean over predictions; of ``"moving_average"`` it takes the mean over the batch.
        assigner: called as ``assigner(anchors, strides, target)`` for each image; `YOLOv5Ratio()` by default.
        coder: how boxes are written as logits; `YOLOv5Coder()` by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown option.

    Example:
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors = yolo_anchors([(2, 2), (1, 1)], [16, 32], [[(10, 10), (20, 12)], [(30, 30)]])
        >>> strides = torch.tensor([16.0] * 8 + [32.0])
        >>> logits = torch.zeros(1, 9, 3), torch.zeros(1, 9), torch.zeros(1, 9, 4)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 32, 30]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOv5(balance=(4, 1))(YOLOv5Outputs(*logits, anchors, strides), targets)
        >>> sorted(terms)
        ['box', 'class', 'objectness']

    Note:
        Assignment and qualities are outside the graph. An anchor answers for one object: if several claim it, the one
        whose shape fits it best has it, with its box, its class and its objectness. YOLOv5 trains box and class of all
        of them, so that its means run over more pairs. With a single class there is nothing to classify: the class
        term is 0 and the score is the objectness. A level without positives adds nothing to the box and the class
        term, and every output still gets a (zero) gradient.

    Reference:
        There is no paper; the formula is that of YOLOv5's loss (Jocher et al., 2020 and later).
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = binary_cross_entropy_with_logits,
        box_loss: LossFunction = ciou_loss,
        objectness_loss: LossFunction = binary_cross_entropy_with_logits,
        class_weight: float = 0.5,
        box_weight: float = 0.05,
        objectness_weight: float = 1.0,
        balance: Sequence[float] = BALANCE,
        class_target: ClassTarget | None = None,
        objectness_target: ObjectnessTarget = "ciou",
        times_batch_size: bool = False,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
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
            no_object_weight=objectness_weight,
            class_target=class_target,
            objectness_target=objectness_target,
            regression=regression,
            normalizer=normalizer,
        )
        for factor in balance:
            check_number("balance", factor, at_least=0)
        self.balance = tuple(balance)
        self.times_batch_size = times_batch_size
        mode = self.normalizer.mode
        # A moving average for each level: their numbers of positives differ.
        self.level_normalizers = nn.ModuleList(self.normalizer.with_floor(self.normalizer.floor) for _ in balance)
        self.cell_normalizer = PositiveNormalizer("batch" if mode == "moving_average" else mode)
        self.assigner = assigner or YOLOv5Ratio()
        self.coder = coder or YOLOv5Coder()

    @staticmethod
    def gains(num_classes: int, image_size: int = 640, levels: int = 3) -> dict[str, float]:
        """Return the weights that YOLOv5 derives from its defaults, which are for 80 classes, 640 pixels and 3 levels.

        Formula:
            box 0.05 · 3 / levels      class 0.5 · C / 80 · 3 / levels      objectness (image_size / 640)² · 3 / levels

        Args:
            num_classes: C.
            image_size: longer side of the network's input in pixels.
            levels: number of strides.

        Example:
            >>> YOLOv5.gains(20, image_size=320)
            {'box_weight': 0.05, 'class_weight': 0.125, 'objectness_weight': 0.25}
        """
        share = 3 / levels
        return {
            "box_weight": 0.05 * share,
            "class_weight": 0.5 * num_classes / 80 * share,
            "objectness_weight": (image_size / 640) ** 2 * share,
        }

    @torch.no_grad()
    def assign(self, outputs: YOLOv5Outputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor answers for."""
        check_targets(targets, len(outputs.objectness_logits))
        return [self.assigner(outputs.anchors, outputs.strides, target) for target in targets]

    def forward(self, outputs: YOLOv5Outputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``box``, ``objectness`` and ``class``.

        Args:
            outputs: of a batch of B images, with as many different strides as `balance` has factors, or none.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of levels or targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives, pairs = self.positives(outputs, assignments, targets)
        target = self.objectness_targets(outputs.objectness_logits, assignments, positives, pairs)
        terms: dict[str, list[Tensor]] = {"box": [], "objectness": [], "class": []}
        for index, stride in enumerate(self._levels(outputs.strides)):
            here = outputs.strides[positives.prediction] == stride
            level = _select(positives, here), BoxPairs(*(values[here] for values in pairs[:4]))
            scale: Scale = self.level_normalizers[index](level[0].counts)
            rows = (outputs.strides == stride).nonzero().squeeze(1)
            objectness = self._mean_objectness(outputs.objectness_logits, target, rows, *level)
            terms["box"].append(self.box_term(level[1], level[0], scale))
            terms["objectness"].append(self.balance[index] * objectness)
            terms["class"].append(self._mean_class(outputs.class_logits, *level, scale))
        factor = len(targets) if self.times_batch_size else 1
        return LossTerms({name: factor * torch.stack(levels).sum() for name, levels in terms.items()})

    def _levels(self, strides: Tensor) -> list[float]:
        levels: list[float] = strides.unique().tolist()
        if levels and len(levels) != len(self.balance):
            raise ValueError(
                f"`balance` must have one factor for each of the {len(levels)} strides {levels}, but has "
                f"{len(self.balance)}"
            )
        return levels or [1.0]

    def _mean_objectness(
        self, logits: Tensor, target: Tensor, rows: Tensor, positives: Positives, pairs: BoxPairs
    ) -> Tensor:
        """Return the objectness term of the predictions in some rows."""
        target = target[:, rows]
        scale: Scale = self.cell_normalizer((target != IGNORE).sum(1).to(target.dtype))
        within = positives._replace(prediction=torch.searchsorted(rows, positives.prediction))
        return self.objectness_of(logits[:, rows], target, within, pairs, scale)

    def _mean_class(self, class_logits: Tensor, positives: Positives, pairs: BoxPairs, scale: Scale) -> Tensor:
        """Return the class term of a level's positives."""
        logits = class_logits[positives.image, positives.prediction]
        classes = logits.shape[1]
        if classes == 1:
            return upcast(logits[:0])[0].sum()
        if isinstance(self.class_loss, SigmoidLoss):
            scale = scale._replace(denominator=scale.denominator * max(classes, 1))
        return self.class_term(logits, positives, pairs, scale)

    def scores(self, outputs: YOLOv5Outputs) -> Tensor:
        """Return σ(objectness) times the probability of each class, ``(B, P, C)``; the former alone for one class."""
        if outputs.class_logits.shape[2] == 1:
            return self.objectness_loss.probabilities(outputs.objectness_logits)[..., None]
        return super().scores(outputs)


def _select(positives: Positives, mask: Tensor) -> Positives:
    """Return some of the positives and how many there are in each image."""
    image = positives.image[mask]
    counts = positives.sums(mask.to(positives.counts.dtype))
    return Positives(image, positives.prediction[mask], positives.boxes[mask], positives.labels[mask], counts)
