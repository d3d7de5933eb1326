"""YOLOv1: one object for each cell of a coarse grid, everything by squared errors of plain numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, YOLOv1Cell
from lossatlas.boxes.yolo_coders import YOLOv1Coder
from lossatlas.checks import check_floating
from lossatlas.dtypes import upcast
from lossatlas.losses.squared import mse_loss
from lossatlas.objectives.decoder import DetectionDecoder
from lossatlas.objectives.dense import Target, check_predictions, check_targets, gather_positives
from lossatlas.objectives.slots import BoxPairs, ClassTarget, LossFunction, Regression, SigmoidLoss
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer
from lossatlas.objectives.yolo import NormalizeBy, ObjectnessTarget, YOLOObjective
from lossatlas.objectives.yolo_darknet import check_image_size


@dataclass(frozen=True, eq=False)
class YOLOv1Outputs:
    """What a network of YOLOv1's kind puts out for a batch of B images with S cells, P boxes (S · n) and C classes.

    Args:
        class_scores: ``(B, S, C)`` plain numbers, one for each cell and class, row by row.
        confidences: ``(B, P)`` plain numbers: row by row, the n boxes of a cell side by side.
        box_numbers: ``(B, P, 4)`` t_x, t_y, t_w, t_h, as `YOLOv1Coder` encodes them.
        image_size: height and width in pixels of the images that the network was given.

    Raises:
        ValueError: shapes that do not fit together, or an `image_size` that is not above 0.
        TypeError: tensors that are not floating point.
    """

    class_scores: Float[Tensor, "b s c"]
    confidences: Float[Tensor, "b p"]
    box_numbers: Float[Tensor, "b p 4"]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("class_scores", "confidences", "box_numbers"):
            check_floating(name, getattr(self, name))
        check_predictions("class_scores", self.class_scores, (None, None, None), "B S C")
        images, cells, _ = self.class_scores.shape
        check_predictions("confidences", self.confidences, (images, None), "B P")
        predictions = self.confidences.shape[1]
        check_predictions("box_numbers", self.box_numbers, (images, predictions, 4), "B P 4")
        if predictions % max(cells, 1) or (predictions and not cells):
            raise ValueError(f"`confidences` must have as many boxes for each of {cells} cells, but has {predictions}")
        check_image_size(self.image_size)


class _ScoreLoss(SigmoidLoss):
    """A slot whose elementwise losses are given what the network puts out, without a sigmoid."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return upcast(logits)[0] if self.kind == "elementwise" else super().probabilities(logits)


class YOLOv1(YOLOObjective, DetectionDecoder[YOLOv1Outputs]):
    """The training objective of YOLOv1, without a network.

    Formula:
        box        = 5/N Σ over responsible boxes: (t_x - x̂)² + (t_y - ŷ)² + (t_w - √w)² + (t_h - √h)²
        objectness = 1/N [Σ over responsible boxes: (confidence - IoU)² + 0.5 Σ over other boxes: confidence²]
        class      = 1/N Σ over cells with an object, and classes: (score - 1 for the object's class, else 0)²
        x̂, ŷ: the object's centre in its cell; w, h: sides as fractions of the image; N: number of images

    Args:
        class_loss: slot of the classification; `mse_loss` by default. An elementwise loss gets the numbers that the
            network puts out; for a loss of logits or of class indices they are logits.
        box_loss: slot of the regression; `mse_loss` by default. A loss of boxes, such as `giou_loss`, gets decoded
            boxes in pixels and the objects' boxes.
        objectness_loss: slot of the confidence; `mse_loss` by default, as `class_loss`.
        class_weight: factor of the class term.
        box_weight: factor of the box term.
        objectness_weight: factor of the responsible boxes' confidence.
        no_object_weight: factor of the other boxes' confidence.
        class_target: of independent classes, ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        objectness_target: target of the responsible boxes: the ``"iou"`` of the decoded box with its object, its
            ``"ciou"`` (0 where negative), or ``"one"``.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one.
        normalize_by: the amount that it takes: ``"images"``, the sums of an image averaged over the batch, as darknet,
            or ``"positives"``.
        grid: rows and columns of cells.
        assigner: called as ``assigner(boxes, image_size, target)`` for each image, with decoded boxes;
            ``YOLOv1Cell(grid)`` by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown option.

    Example:
        >>> outputs = YOLOv1Outputs(torch.zeros(1, 4, 3), torch.zeros(1, 8), torch.full((1, 8, 4), 0.5), (64, 64))
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([2])}]
        >>> terms = YOLOv1(grid=(2, 2))(outputs, targets)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'box': 0.625, 'objectness': 0.0204, 'class': 1.0}

    Note:
        Assignment, encoded targets and the IoU as target are outside the graph. A cell answers for one object, the
        smallest of those whose centre it holds; the paper does not say which. An image without objects trains the
        confidences; a batch without positives has box and class terms of 0, and every output still gets a (zero)
        gradient. The paper predicts w and h and takes their roots in the loss; here, as in the authors' code, the
        network predicts the roots. The paper's sum is that of one image.

    Reference:
        Redmon et al., "You Only Look Once", 2015, arXiv 1506.02640, equation 3.
    """

    slot = _ScoreLoss

    def __init__(
        self,
        *,
        class_loss: LossFunction = mse_loss,
        box_loss: LossFunction = mse_loss,
        objectness_loss: LossFunction = mse_loss,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        objectness_weight: float = 1.0,
        no_object_weight: float = 0.5,
        class_target: ClassTarget | None = None,
        objectness_target: ObjectnessTarget = "iou",
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        normalize_by: NormalizeBy = "images",
        grid: tuple[int, int] = (7, 7),
        assigner: Callable[..., Assignment] | None = None,
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
        self.coder = YOLOv1Coder(grid)
        self.assigner = assigner or YOLOv1Cell(grid)

    @torch.no_grad()
    def assign(self, outputs: YOLOv1Outputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each box answers for."""
        check_targets(targets, len(outputs.class_scores))
        rows, columns = self.coder.grid
        check_predictions("class_scores", outputs.class_scores, (None, rows * columns, None), "B S C")
        return [
            self.assigner(self.boxes(outputs, image), outputs.image_size, target)
            for image, target in enumerate(targets)
        ]

    def forward(self, outputs: YOLOv1Outputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``box``, ``objectness`` and ``class``.

        Args:
            outputs: of a batch of B images, with as many cells as `grid` has.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of cells or targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.box_numbers)
        cells = self._cells(outputs, positives.prediction)
        numbers = outputs.box_numbers[positives.image, positives.prediction]
        boxes, numbers = upcast(positives.boxes, numbers)
        place = (cells, outputs.image_size)
        pairs = BoxPairs(self.coder.decode(numbers, *place), boxes, numbers, self.coder.encode(boxes, *place))
        scale = self.scale(positives)
        scores = outputs.class_scores[positives.image, cells]
        return LossTerms(
            {
                "box": self.box_term(pairs, positives, scale),
                "objectness": self.objectness_term(outputs.confidences, assignments, positives, pairs, scale),
                "class": self.class_term(scores, positives, pairs, scale),
            }
        )

    def scores(self, outputs: YOLOv1Outputs) -> Tensor:
        """Return confidence times class score, ``(B, P, C)``, negative ones as 0."""
        confidence = self.objectness_loss.probabilities(outputs.confidences).clamp(min=0)
        boxes = outputs.confidences.shape[1] // max(outputs.class_scores.shape[1], 1)
        classes = self.probabilities(outputs.class_scores).clamp(min=0).repeat_interleave(boxes, dim=1)
        return confidence[..., None] * classes

    def boxes(self, outputs: YOLOv1Outputs, image: int, prediction: Tensor | None = None) -> Tensor:
        """Return the ``(K, 4)`` xyxy boxes of predictions of an image of the batch, all of them by default."""
        if prediction is None:
            prediction = torch.arange(outputs.confidences.shape[1], device=outputs.confidences.device)
        cells = self._cells(outputs, prediction)
        return self.coder.decode(outputs.box_numbers[image, prediction], cells, outputs.image_size)

    def _cells(self, outputs: YOLOv1Outputs, prediction: Tensor) -> Tensor:
        """Return the number of each prediction's cell."""
        return prediction // max(outputs.confidences.shape[1] // max(outputs.class_scores.shape[1], 1), 1)
