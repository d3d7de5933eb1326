"""The choice that SimOTA and RTMDet share: each object takes as many predictions as fit it, the cheapest ones."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lossatlas.assign.assignment import blocks
from lossatlas.assign.selection import settle, top_mask
from lossatlas.boxes.geometry import overlap


class PairCosts(NamedTuple):
    """What some objects would pay for each prediction, all ``(N, P)``."""

    cost: Tensor
    iou: Tensor
    candidate: Tensor
    """Mask of the pairs that may be matched."""


def dynamic_k_matching(
    costs: Callable[[slice], PairCosts], objects: int, like: Tensor, topk: int, block_size: int | None
) -> Tensor:
    """Return the object of each prediction, in canonical order, or -1.

    Args:
        costs: returns the costs of a slice of the objects.
        objects: number of objects.
        like: ``(P, ...)``, for the number of predictions, dtype and device.
        topk: how many of an object's highest IoUs add up to how many predictions it takes.
        block_size: objects at a time.
    """
    nothing = torch.empty(0, dtype=torch.int64, device=like.device)
    claimants, claimed, strength = [nothing], [nothing], [like.new_empty(0)]
    for block in blocks(objects, len(like), block_size) if len(like) else ():
        cost, iou, candidate = costs(block)
        highest = torch.where(candidate, iou.nan_to_num(), 0).topk(min(topk, len(like)), dim=1).values
        # Column by column: the order of a sum over rows may depend on how many rows there are.
        count = sum(highest.unbind(1), highest.new_zeros(len(highest))).long().clamp(min=1)
        score = torch.where(candidate, -cost.clamp(max=torch.finfo(cost.dtype).max), -torch.inf)
        chosen = top_mask(score, topk, count)
        rows, predictions = chosen.nonzero().unbind(1)
        claimants.append(rows + block.start)
        claimed.append(predictions)
        strength.append(score[chosen])
    return settle(torch.cat(claimants), torch.cat(claimed), torch.cat(strength), len(like))


def matched_iou(boxes: Tensor, objects: Tensor, matched: Tensor) -> Tensor:
    """Return the ``(P,)`` IoU of each box with the object that it is matched with, 0 where `matched` is -1."""
    iou = boxes.new_zeros(len(boxes))
    rows = (matched >= 0).nonzero().squeeze(1)
    iou[rows] = overlap(boxes[rows], objects[matched[rows]]).iou
    return iou
