"""Which few predictions each object may take, without a matrix of predictions and objects in memory."""

import torch
from torch import Tensor

from lossatlas.kernels import native
from lossatlas.kernels.native import define, run


def usable(*tensors: Tensor | None) -> bool:
    """Whether kernels take these numbers: float32 on the CPU, at least one of each. None is no tensor."""
    given = [tensor for tensor in tensors if tensor is not None]
    return all(tensor.dtype == torch.float32 and tensor.numel() > 0 for tensor in given) and native.usable(*given)


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


def _nearest(predictions: Tensor, objects: Tensor, most: int, squared: bool) -> tuple[Tensor, Tensor]:
    distance = objects.new_empty(len(objects), most)
    place = torch.empty_like(distance, dtype=torch.int64)
    run("nearest", (predictions, objects, place, distance), (0.0 if squared else 1.0,))
    return place, distance


define("nearest(Tensor predictions, Tensor objects, SymInt most, bool squared) -> (Tensor, Tensor)", _nearest)
