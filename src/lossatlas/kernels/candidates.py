"""Which few predictions each object may take, without a matrix of predictions and objects in memory."""

import torch
from torch import Tensor

from lossatlas.kernels.native import define, run

RULES = ("inside", "near", "either")
"""Of what an object reaches, in the order of `reachable` in native/kernels/candidates.cpp."""


def nearest(predictions: Tensor, objects: Tensor, most: int, *, squared: bool) -> tuple[Tensor, Tensor]:
    """Return the predictions that are nearest to each object, and their distances; of equal ones the first.

    Args:
        predictions: ``(P, N)``, N numbers of each prediction, contiguous.
        objects: ``(G, N)``, contiguous.
        most: how many of them, from 1 to P.
        squared: whether the distance is the sum of the squared differences, and at most the largest number there is;
            or that of their absolute values, and what is infinitely far away is never taken.

    Returns:
        ``(G, most)`` int64 in ascending order, -1 where there are fewer, and ``(G, most)`` float32.
    """
    place, distance = torch.ops.lossatlas.nearest(predictions, objects, most, squared)
    return place, distance


def reachable(boxes: Tensor, places: Tensor, rule: str, margin: float) -> tuple[Tensor, Tensor]:
    """Return how many predictions each object reaches, and which of them any object does.

    Args:
        boxes: ``(G, 4)`` xyxy of objects, contiguous.
        places: points of predictions ``(P, 2)``, with a radius ``(P, 3)`` unless the rule is ``"inside"``, or boxes
            ``(P, 4)`` xyxy; contiguous.
        rule: one of `RULES`.
        margin: of the rule ``"inside"``.

    Returns:
        ``(G,)`` int64 and ``(P,)`` bool.
    """
    counts, any_ = torch.ops.lossatlas.reachable(boxes, places, rule, margin)
    return counts, any_


def list_reachable(boxes: Tensor, places: Tensor, counts: Tensor, total: int, rule: str, margin: float) -> Tensor:
    """Return the predictions that each object reaches, one object's after the other's.

    Args:
        boxes: as for `reachable`, and so on.
        places: ...
        counts: ``(G,)`` what `reachable` has returned for these objects.
        total: the sum of the counts, at least 1.
        rule: ...
        margin: ...

    Returns:
        ``(total,)`` int64.
    """
    found: Tensor = torch.ops.lossatlas.list_reachable(boxes, places, counts, total, rule, margin)
    return found


def choose(score: Tensor, starts: Tensor, iou: Tensor | None, most: int) -> Tensor:
    """Return which pairs are among the highest of their object; of equal ones the first.

    Args:
        score: ``(N,)`` float32, contiguous, object by object.
        starts: ``(G + 1,)`` int64, where the pairs of each object begin, and N.
        iou: ``(N,)`` float32, contiguous: an object takes only as many as its `most` highest add up to, at least one.
        most: how many for each object.

    Returns:
        ``(N,)`` bool.
    """
    chosen: Tensor = torch.ops.lossatlas.choose(score, starts, iou, most)
    return chosen


def _nearest(predictions: Tensor, objects: Tensor, most: int, squared: bool) -> tuple[Tensor, Tensor]:
    distance = objects.new_empty(len(objects), most)
    place = torch.empty_like(distance, dtype=torch.int64)
    run("nearest", (predictions, objects, place, distance), (0.0 if squared else 1.0,))
    return place, distance


def _reachable(boxes: Tensor, places: Tensor, rule: str, margin: float) -> tuple[Tensor, Tensor]:
    counts = torch.empty(len(boxes), dtype=torch.int64)
    any_ = torch.zeros(len(places), dtype=torch.bool)
    run("reachable", (places, boxes, counts, any_, None, None), (RULES.index(rule), margin))
    return counts, any_


def _list_reachable(boxes: Tensor, places: Tensor, counts: Tensor, total: int, rule: str, margin: float) -> Tensor:
    found = torch.empty(total, dtype=torch.int64)
    starts = counts.cumsum(0) - counts
    again = torch.empty_like(starts)
    run("reachable", (places, boxes, again, None, starts, found), (RULES.index(rule), margin))
    return found


def _choose(score: Tensor, starts: Tensor, iou: Tensor | None, most: int) -> Tensor:
    chosen = torch.empty_like(score, dtype=torch.bool)
    run("choose", (score, starts, iou, chosen), (most,))
    return chosen


define("nearest(Tensor predictions, Tensor objects, SymInt most, bool squared) -> (Tensor, Tensor)", _nearest)
define("reachable(Tensor boxes, Tensor places, str rule, float margin) -> (Tensor, Tensor)", _reachable)
define(
    "list_reachable(Tensor boxes, Tensor places, Tensor counts, SymInt total, str rule, float margin) -> Tensor",
    _list_reachable,
)
define("choose(Tensor score, Tensor starts, Tensor? iou, SymInt most) -> Tensor", _choose)
