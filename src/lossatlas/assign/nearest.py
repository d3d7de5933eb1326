"""The predictions that lie nearest to each object."""

from typing import Literal

import torch
from torch import Tensor

from lossatlas.assign.assignment import blocks
from lossatlas.assign.selection import top_mask
from lossatlas.kernels import candidates
from lossatlas.kernels.native import usable_float32

Metric = Literal["squared", "absolute"]


def nearest(
    predictions: Tensor, objects: Tensor, most: int, metric: Metric, block_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the predictions nearest to each object, and how far away they are; of equal distances the first.

    Args:
        predictions: ``(P, N)`` numbers.
        objects: ``(G, N)``.
        most: how many of the predictions, at least 1.
        metric: the sum of the ``"squared"`` or ``"absolute"`` differences. A squared distance that is too large, or
            not a number, is the largest that there is, so that every object has equally many predictions; an absolute
            one is never taken.
        block_size: objects at a time; None takes kernels where they can be used.

    Returns:
        ``(G, K)`` int64, ascending for each object, -1 where there are fewer, and ``(G, K)``; K is `most` or P.
    """
    most = min(most, len(predictions))
    if block_size is None and usable_float32(predictions, objects):
        return candidates.nearest(predictions.contiguous(), objects.contiguous(), most, squared=metric == "squared")
    place = torch.full((len(objects), most), -1, dtype=torch.int64, device=objects.device)
    distance = objects.new_full(place.shape, torch.inf)
    for block in blocks(len(objects), len(predictions), block_size):
        away = _distance(predictions, objects[block], metric)
        chosen = top_mask(-away, most)
        rows, found = chosen.nonzero().unbind(1)
        column = (chosen.cumsum(1) - 1)[chosen]
        place[block][rows, column] = found
        distance[block][rows, column] = away[chosen]
    return place, distance


def _distance(predictions: Tensor, objects: Tensor, metric: Metric) -> Tensor:
    """Return the distance of each object, a row, from each prediction, ``(N, P)``."""
    distance = objects.new_zeros(len(objects), len(predictions))
    for own, other in zip(objects.unbind(1), predictions.unbind(1), strict=True):
        difference = own[:, None] - other
        distance = distance + (difference**2 if metric == "squared" else difference.abs())
    if metric == "squared":
        return distance.nan_to_num(nan=torch.inf).clamp(max=torch.finfo(distance.dtype).max)
    return distance
