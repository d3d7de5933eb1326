"""Which object each prediction answers for, without a matrix of predictions and objects in memory.

The results are an assignment: the row of each prediction's object ``(P,)`` int64, -1 for none, and its state ``(P,)``
int8, 1 positive, 0 negative, -1 ignored.
"""

import torch
from torch import Tensor

from lossatlas.kernels.native import define, run

LOW_QUALITY = ("none", "keep", "reassign")
"""How the kernel numbers what becomes of low-quality matches."""


def max_iou(
    priors: Tensor,
    objects: Tensor,
    labels: Tensor,
    crowd: Tensor | None,
    ignored: Tensor | None,
    *,
    positive: float,
    negative: float,
    low_quality: str,
    least: float,
) -> tuple[Tensor, Tensor]:
    """Return the assignment of `lossatlas.assign.MaxIoU`.

    Args:
        priors: ``(P, 4)`` xyxy.
        objects: ``(G, 4)`` xyxy.
        labels: ``(G,)``.
        crowd: ``(G,)`` mask of the crowd regions among the objects, to which nothing is assigned.
        ignored: ``(P,)`` mask of priors that are ignored unless they are positive.
        positive: threshold.
        negative: threshold.
        low_quality: one of `LOW_QUALITY`.
        least: IoU of low-quality matches.
    """
    options = (positive, negative, float(LOW_QUALITY.index(low_quality)), least)
    matched, state = torch.ops.lossatlas.max_iou.default(
        priors.contiguous(), objects.contiguous(), _contiguous(labels), crowd, ignored, options
    )
    return matched, state


def fcos_points(
    points: Tensor,
    strides: Tensor,
    ranges: tuple[Tensor, Tensor] | None,
    objects: Tensor,
    labels: Tensor,
    crowd: Tensor | None,
    ignored: Tensor | None,
    *,
    radius: float | None,
    strict: bool,
) -> tuple[Tensor, Tensor]:
    """Return the assignment of `lossatlas.assign.FCOSPoints`.

    Args:
        points: ``(P, 2)`` x, y.
        strides: ``(P,)``.
        ranges: lowest and highest size for each point, ``(P,)``; None takes the paper's.
        objects: ``(G, 4)`` xyxy.
        labels: ``(G,)``.
        crowd: ``(G,)`` mask of the crowd regions among the objects, to which nothing is assigned.
        ignored: ``(P,)`` mask of points that are ignored unless they are positive.
        radius: around the centre of an object, in strides; None for none.
        strict: whether a size on a bound belongs to no range.
    """
    low, high = (None, None) if ranges is None else ranges
    options = (-1.0 if radius is None else radius, float(strict))
    matched, state = torch.ops.lossatlas.fcos_points.default(
        points.contiguous(),
        strides.contiguous(),
        low,
        high,
        objects.contiguous(),
        _contiguous(labels),
        crowd,
        ignored,
        options,
    )
    return matched, state


def highest_iou(priors: Tensor, boxes: Tensor) -> Tensor:
    """Return the ``(P,)`` highest IoU of each of ``(P, 4)`` priors with one of ``(G, 4)`` boxes."""
    highest: Tensor = torch.ops.lossatlas.highest_iou.default(priors.contiguous(), boxes.contiguous())
    return highest


def _contiguous(labels: Tensor) -> Tensor:
    return labels.to(torch.int64).contiguous()


def _assignment(like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_empty(like.shape[:1], dtype=torch.int64), like.new_empty(like.shape[:1], dtype=torch.int8)


def _max_iou(
    priors: Tensor,
    objects: Tensor,
    labels: Tensor,
    crowd: Tensor | None,
    ignored: Tensor | None,
    options: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    results = _assignment(priors)
    run("max_iou", (priors, objects, labels, crowd, ignored, *results), tuple(options))
    return results


def _fcos_points(
    points: Tensor,
    strides: Tensor,
    low: Tensor | None,
    high: Tensor | None,
    objects: Tensor,
    labels: Tensor,
    crowd: Tensor | None,
    ignored: Tensor | None,
    options: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    results = _assignment(points)
    run("fcos_points", (points, strides, low, high, objects, labels, crowd, ignored, *results), tuple(options))
    return results


def _highest_iou(priors: Tensor, boxes: Tensor) -> Tensor:
    highest = priors.new_empty(priors.shape[:1])
    run("highest_iou", (priors, boxes, highest), ())
    return highest


define("highest_iou(Tensor priors, Tensor boxes) -> Tensor", _highest_iou)
_REST = "Tensor objects, Tensor labels, Tensor? crowd, Tensor? ignored, float[] options) -> (Tensor, Tensor)"
define(f"max_iou(Tensor priors, {_REST}", _max_iou)
define(f"fcos_points(Tensor points, Tensor strides, Tensor? low, Tensor? high, {_REST}", _fcos_points)
