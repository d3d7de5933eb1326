"""Which object each prior overlaps most, without a matrix of priors and objects in memory."""

import torch
from torch import Tensor

from lossatlas.kernels import native
from lossatlas.kernels.native import define, run


def usable(priors: Tensor, objects: Tensor) -> bool:
    """Whether kernels match these boxes: ``(P, 4)`` and ``(G, 4)`` float32 on the CPU, at least one of each."""
    return objects.numel() > 0 and objects.dtype == priors.dtype == torch.float32 and native.usable(priors, objects)


def max_iou(priors: Tensor, objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best IoU of each prior, the first object that it has it with, and the best IoU of each object.

    Args:
        priors: ``(P, 4)`` xyxy, contiguous.
        objects: ``(G, 4)`` xyxy, contiguous.

    Returns:
        ``(P,)`` float32, ``(P,)`` int64 and ``(G,)`` float32.
    """
    best, own, object_best = torch.ops.lossatlas.max_iou(priors, objects)
    return best, own, object_best


def claims(priors: Tensor, objects: Tensor, wanted: Tensor) -> Tensor:
    """Return the object that each prior has the highest claim to, the first of equal ones.

    Args:
        priors: ``(P, 4)`` xyxy, contiguous.
        objects: ``(G, 4)`` xyxy, contiguous.
        wanted: ``(G,)`` float32, the IoU with each object that is a claim to it, above 0.

    Returns:
        ``(P,)`` int64, -1 without a claim.
    """
    claimant: Tensor = torch.ops.lossatlas.claims(priors, objects, wanted)
    return claimant


def _max_iou(priors: Tensor, objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    results = (
        priors.new_empty(len(priors)),
        priors.new_empty(len(priors), dtype=torch.int64),
        priors.new_empty(len(objects)),
    )
    run("max_iou", (priors, objects, *results), ())
    return results


def _claims(priors: Tensor, objects: Tensor, wanted: Tensor) -> Tensor:
    claimant = priors.new_empty(len(priors), dtype=torch.int64)
    run("claims", (priors, objects, wanted, claimant), ())
    return claimant


define("max_iou(Tensor priors, Tensor objects) -> (Tensor, Tensor, Tensor)", _max_iou)
define("claims(Tensor priors, Tensor objects, Tensor wanted) -> Tensor", _claims)
