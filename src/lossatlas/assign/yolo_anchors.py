"""YOLOv3 and YOLOv4: the anchors in an object's cell whose shape fits it answer for it; no wrong guess is punished."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, blocks, check_block_size, ordered_objects
from lossatlas.assign.cells import levels_of
from lossatlas.assign.regions import boxes_in_crowd, check_rows, highest_iou
from lossatlas.assign.selection import settle, to_rows
from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import pairwise_iou, shape_iou
from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast

IgnoreBy: TypeAlias = Literal["anchor", "prediction"]
ClassMatch: TypeAlias = Literal["object", "any"]


@dataclass(frozen=True)
class YOLOv3BestAnchor:
    """Assign each object to the one anchor, of all levels, that has its shape best and stands on its cell.

    Formula:
        candidates of an object: the anchors of every level on the cell that holds the object's centre
        positive: the candidate with the highest IoU of shapes, as if anchor and object had the same centre
        ignored: not positive, and IoU of its anchor, or of its predicted box, with some object > ignore_threshold
        negative: the rest

    Args:
        ignore: ``"anchor"``, the IoU of the anchor box, as the paper writes and mmdetection does; or
            ``"prediction"``, that of the box which is predicted at the time, as darknet does.
        ignore_threshold: from 0 to 1; 0.5 in the paper. 1 ignores nothing.
        crowd_threshold: a box that is not positive is ignored if a crowd region covers this share of it, the anchor or
            the predicted box as `ignore` says; None leaves it as it is. Nothing is ever assigned to a crowd region.
        block_size: boxes that are held against all objects at a time; it changes memory, never the result.

    Raises:
        ValueError: a number out of its range or an unknown `ignore`.

    Example:
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors = yolo_anchors([(1, 2)], [16], [[(10, 10), (10, 30)]])
        >>> target = {"boxes": torch.tensor([[2.0, 0, 12, 9]]), "labels": torch.tensor([0])}
        >>> YOLOv3BestAnchor()(anchors, torch.full((4,), 16.0), target).state
        tensor([1, 0, 0, 0], dtype=torch.int8)

    Note:
        Equal shapes go to the anchor that comes first. If several objects have the same best anchor, the one whose
        shape fits it best keeps it, of equal ones the first in `canonical_order`, and the others have none; in darknet
        the object that comes last in the target. An object without an area, or with its centre on no cell, has no
        anchor. Memory grows with anchors + objects.

    Reference:
        Redmon and Farhadi, "YOLOv3", 2018, arXiv 1804.02767, section 2.1.
    """

    ignore: IgnoreBy = "anchor"
    ignore_threshold: float = 0.5
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("ignore", self.ignore, get_args(IgnoreBy))
        check_number("ignore_threshold", self.ignore_threshold, at_least=0, at_most=1)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    @classmethod
    def darknet(cls) -> Self:
        """Return the assigner of the authors' code: predictions with an IoU above 0.7 are ignored."""
        return cls("prediction", 0.7)

    def __call__(
        self,
        anchors: Float[Tensor, "p 4"],
        strides: Float[Tensor, " p"],
        target: Mapping[str, Tensor],
        predictions: Float[Tensor, "p 4"] | None = None,
    ) -> Assignment:
        """Return which object of one image each anchor answers for.

        Args:
            anchors: ``(P, 4)`` xyxy pixels, each in the middle of its cell, as of `yolo_anchors`.
            strides: ``(P,)`` pixels, which tell the cell.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).
            predictions: ``(P, 4)`` predicted boxes, xyxy pixels, which ``ignore="prediction"`` needs; ``"anchor"``
                does not look at them.

        Raises:
            ValueError: shapes that do not fit, or predictions that are missing.
        """
        check_anchors(anchors, strides)
        boxes = anchors
        if self.ignore == "prediction":
            if predictions is None:
                raise ValueError("`predictions` must be given with ignore='prediction'")
            check_rows("predictions", predictions, len(anchors))
            boxes = predictions.detach()
        anchors, boxes, strides = upcast(anchors, boxes, strides)
        objects = ordered_objects(target, anchors.dtype)
        owner, prediction, fit = shape_candidates(anchors, strides, objects.boxes)
        best = _best_of_each(owner, prediction, fit, len(objects.boxes))
        matched = to_rows(objects.rows, settle(owner[best], prediction[best], fit[best], len(anchors)))
        ignored = highest_iou(boxes, objects.boxes, self.block_size) > self.ignore_threshold
        ignored |= boxes_in_crowd(boxes, objects.crowd, self.crowd_threshold, self.block_size)
        return Assignment.build(matched, ignored)


@dataclass(frozen=True)
class YOLOv4:
    """Assign each object to its best anchor and to every other one on its cell whose shape is near its own.

    Formula:
        candidates of an object: the anchors of every level on the cell that holds the object's centre
        positive: the candidate with the highest IoU of shapes, and all with an IoU of shapes > shape_threshold
        ignored: not positive, and its predicted box has an IoU > ignore_threshold with an object for which
                 "object": the predicted probability of the object's class > class_threshold
                 "any":    the predicted probability of any class > class_threshold
        negative: the rest

    Args:
        shape_threshold: from 0 to 1; 0.213 in the configuration for COCO. 1 leaves only the best anchor.
        ignore_threshold: from 0 to 1; 1 ignores nothing.
        class_threshold: from 0 to 1.
        class_match: ``"object"`` or ``"any"``, see the formula. The authors' code has a parameter for the object's
            class but does not use it: it does ``"any"``.
        crowd_threshold: a prediction that is not positive is ignored if a crowd region covers this share of its box;
            None leaves it as it is. Nothing is ever assigned to a crowd region.
        block_size: boxes that are held against all objects at a time; it changes memory, never the result.

    Raises:
        ValueError: a number out of its range or an unknown `class_match`.

    Example:
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors = yolo_anchors([(1, 2)], [16], [[(10, 10), (10, 30)]])
        >>> target = {"boxes": torch.tensor([[2.0, 0, 12, 9]]), "labels": torch.tensor([0])}
        >>> YOLOv4()(anchors, torch.full((4,), 16.0), target, anchors, torch.zeros(4, 1)).state
        tensor([1, 1, 0, 0], dtype=torch.int8)

    Note:
        If several objects claim one anchor, the one whose shape fits it best has it, of equal ones the first in
        `canonical_order`; the authors' code adds up the gradients of all. An object without an area, or with its
        centre on no cell, has no anchor. Memory grows with anchors + objects.

    Reference:
        Bochkovskiy et al., "YOLOv4", 2020, arXiv 2004.10934, section 3.4 (multiple anchors for a single ground truth);
        the ignore rule is only in the authors' code.
    """

    shape_threshold: float = 0.213
    ignore_threshold: float = 0.7
    class_threshold: float = 0.25
    class_match: ClassMatch = "object"
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("shape_threshold", "ignore_threshold", "class_threshold"):
            check_number(name, getattr(self, name), at_least=0, at_most=1)
        check_choice("class_match", self.class_match, get_args(ClassMatch))
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    def __call__(
        self,
        anchors: Float[Tensor, "p 4"],
        strides: Float[Tensor, " p"],
        target: Mapping[str, Tensor],
        predictions: Float[Tensor, "p 4"],
        probabilities: Float[Tensor, "p c"],
    ) -> Assignment:
        """Return which object of one image each anchor answers for.

        Args:
            anchors: ``(P, 4)`` xyxy pixels, each in the middle of its cell, as of `yolo_anchors`.
            strides: ``(P,)`` pixels, which tell the cell.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) below C, optionally ``iscrowd`` (G,).
            predictions: ``(P, 4)`` predicted boxes, xyxy pixels.
            probabilities: ``(P, C)`` predicted probability of each class, without the objectness.
        """
        check_anchors(anchors, strides)
        check_rows("predictions", predictions, len(anchors))
        check_floating("probabilities", probabilities)
        if probabilities.ndim != 2 or len(probabilities) != len(anchors):
            raise ValueError(
                f"`probabilities` must have shape ({len(anchors)}, C), but got {tuple(probabilities.shape)}"
            )
        anchors, boxes, strides = upcast(anchors, predictions.detach(), strides)
        objects = ordered_objects(target, anchors.dtype)
        owner, prediction, fit = shape_candidates(anchors, strides, objects.boxes)
        claims = _best_of_each(owner, prediction, fit, len(objects.boxes)) | (fit > self.shape_threshold)
        matched = to_rows(objects.rows, settle(owner[claims], prediction[claims], fit[claims], len(anchors)))
        labels = target["labels"][objects.rows]
        ignored = torch.zeros_like(matched, dtype=torch.bool)
        for block in blocks(len(boxes), len(objects.boxes), self.block_size):
            near = pairwise_iou(boxes[block], objects.boxes) > self.ignore_threshold
            ignored[block] = (near & self._sure(probabilities[block], labels)).any(1)
        ignored |= boxes_in_crowd(boxes, objects.crowd, self.crowd_threshold, self.block_size)
        return Assignment.build(matched, ignored)

    def _sure(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        sure = probabilities > self.class_threshold
        return sure[:, labels] if self.class_match == "object" else sure.any(1, keepdim=True)


def check_anchors(anchors: Tensor, strides: Tensor) -> None:
    """Raise unless `anchors` is ``(P, 4)`` and `strides` ``(P,)``, both floating point."""
    check_rows("anchors", anchors)
    check_floating("strides", strides)
    if strides.shape != anchors.shape[:1]:
        raise ValueError(f"`strides` must have shape ({len(anchors)},), but got {tuple(strides.shape)}")


def shape_candidates(anchors: Tensor, strides: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of objects with the anchors on the cells that hold their centres, and how shapes fit.

    Args:
        anchors: ``(P, 4)`` xyxy.
        strides: ``(P,)``.
        boxes: ``(G, 4)`` xyxy.

    Returns:
        ``(N,)`` object, ``(N,)`` anchor and ``(N,)`` IoU of their shapes, above 0, of each pair.
    """
    centers, sides = convert(anchors, "xyxy", "cxcywh").split(2, dim=1)
    object_centers, object_sides = convert(boxes, "xyxy", "cxcywh").split(2, dim=1)
    owners, predictions = [strides.new_zeros(0, dtype=torch.int64)], [strides.new_zeros(0, dtype=torch.int64)]
    for level in levels_of(centers, strides):
        owner, prediction = level.pairs(*(object_centers / level.stride).floor().to(torch.int64).unbind(1))
        owners.append(owner)
        predictions.append(prediction)
    owner, prediction = torch.cat(owners), torch.cat(predictions)
    fit = shape_iou(object_sides[owner], sides[prediction])
    usable = fit > 0
    return owner[usable], prediction[usable], fit[usable]


def _best_of_each(owner: Tensor, prediction: Tensor, fit: Tensor, objects: int) -> Tensor:
    """Return the ``(N,)`` mask of each object's best pair; of equal ones, that of the first prediction."""
    first = settle(prediction, owner, fit, objects)
    return prediction == first[owner]
