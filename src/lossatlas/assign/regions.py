"""Where predictions lie: their checks, points within boxes, and what a crowd region covers."""

import torch
from torch import Tensor

from lossatlas.assign.assignment import blocks
from lossatlas.boxes.geometry import pairwise_coverage, pairwise_iou
from lossatlas.checks import check_boxes, check_floating
from lossatlas.kernels import matching
from lossatlas.kernels.native import usable_float32


def check_points(points: Tensor, strides: Tensor | None = None) -> None:
    """Raise unless `points` is ``(P, 2)`` and `strides`, if given, ``(P,)``, both floating point."""
    check_floating("points", points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"`points` must have shape (P, 2), but got {tuple(points.shape)}")
    if strides is None:
        return
    check_floating("strides", strides)
    if strides.shape != points.shape[:1]:
        raise ValueError(f"`strides` must have shape ({len(points)},), but got {tuple(strides.shape)}")


def check_rows(name: str, boxes: Tensor, rows: int | None = None) -> None:
    """Raise unless `boxes` is ``(P, 4)`` and floating point, with P = `rows` unless that is None."""
    check_boxes(name, boxes)
    if boxes.ndim != 2 or (rows is not None and len(boxes) != rows):
        raise ValueError(f"`{name}` must have shape ({'P' if rows is None else rows}, 4), but got {tuple(boxes.shape)}")


def check_class_logits(class_logits: Tensor, labels: Tensor, rows: int) -> None:
    """Raise unless `class_logits` is ``(P, C)`` with P = `rows` and has a column wherever there are labels."""
    check_floating("class_logits", class_logits)
    if class_logits.ndim != 2 or len(class_logits) != rows:
        raise ValueError(f"`class_logits` must have shape ({rows}, C), but got {tuple(class_logits.shape)}")
    if len(labels) and not class_logits.shape[1]:
        raise ValueError("`class_logits` must have at least one class where there are objects, but has none")


def edge_distances(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of each point to the nearest and to the farthest edge of the box.

    Args:
        points: ``(*batch, 2)``.
        boxes: ``(*batch, 4)`` xyxy; the two broadcast. The nearest distance is negative for a point outside the box.
    """
    x, y = points.unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
    least = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    most = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    return least, most


def points_in_crowd(points: Tensor, crowd: Tensor, block_size: int | None = None) -> Tensor:
    """Return the ``(P,)`` mask of points inside one of the crowd regions ``(K, 4)``."""
    inside = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    if len(crowd):
        for block in blocks(len(points), len(crowd), block_size):
            inside[block] = (edge_distances(points[block, None], crowd)[0] > 0).any(1)
    return inside


def boxes_in_crowd(boxes: Tensor, crowd: Tensor, threshold: float | None, block_size: int | None = None) -> Tensor:
    """Return the ``(P,)`` mask of boxes of which a crowd region ``(K, 4)`` covers this share; None covers nothing."""
    covered = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if threshold is not None and len(crowd):
        for block in blocks(len(boxes), len(crowd), block_size):
            covered[block] = (pairwise_coverage(boxes[block], crowd) >= threshold).any(1)
    return covered


def highest_iou(priors: Tensor, boxes: Tensor, block_size: int | None = None) -> Tensor:
    """Return the ``(P,)`` highest IoU of each prior with one of the boxes ``(G, 4)``; 0 without boxes.

    A box with a coordinate that is not a number overlaps nothing.
    """
    priors = priors.detach()
    if block_size is None and usable_float32(priors, boxes):
        return matching.highest_iou(priors, boxes)
    best = priors.new_zeros(len(priors))
    if len(boxes):
        for block in blocks(len(priors), len(boxes), block_size):
            best[block] = pairwise_iou(priors[block], boxes).nan_to_num().amax(1)
    return best
