"""Which predictions stand on which cell of which feature map."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """The predictions of one stride, sorted by their cell."""

    stride: float
    """Pixels between two cells."""
    columns: int
    keys: Tensor
    """``(N,)`` int64, row · columns + column of each prediction, ascending."""
    predictions: Tensor
    """``(N,)`` int64 row among all predictions, ascending within a cell."""

    def pairs(self, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predictions on given cells; none on cells outside the feature map.

        Args:
            column: ``(Q,)`` int64 column of each cell that is asked for.
            row: ``(Q,)`` its row.

        Returns:
            Two int64 tensors of one length: which question, and a prediction on its cell. Ascending in both.
        """
        inside = (column >= 0) & (column < self.columns) & (row >= 0)
        key = torch.where(inside, row * self.columns + column, -1)
        first = torch.searchsorted(self.keys, key)
        count = torch.searchsorted(self.keys, key, right=True) - first
        question = torch.arange(len(key), device=key.device).repeat_interleave(count)
        within = torch.arange(len(question), device=key.device) - (count.cumsum(0) - count)[question]
        return question, self.predictions[first[question] + within]


def levels_of(centers: Tensor, strides: Tensor) -> Iterator[Level]:
    """Group predictions by stride, smallest first.

    Args:
        centers: ``(P, 2)`` x, y of the middle of each prediction's cell, in pixels.
        strides: ``(P,)`` pixels.
    """
    for stride in strides.unique().tolist():
        predictions = (strides == stride).nonzero().squeeze(1)
        # The middle of a cell is half a stride off its border, so that rounding errors never move it to another one.
        column, row = (centers[predictions] / stride - 0.5).round().to(torch.int64).unbind(1)
        columns = int(column.max()) + 1
        keys, order = (row * columns + column).sort(stable=True)
        yield Level(stride, columns, keys, predictions[order])
