"""The choice that SimOTA and RTMDet share: each object takes as many predictions as fit it, the cheapest ones."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lossatlas.assign.candidates import Pairs, Reach, all_pairs, best_pairs, pairs, reached
from lossatlas.assign.selection import settle
from lossatlas.boxes.geometry import overlap

Pool = Literal["own", "any"]


class PairCosts(NamedTuple):
    """What objects would pay for predictions, pair by pair: both ``(N,)``."""

    cost: Tensor
    iou: Tensor


def dynamic_k_matching(
    reach: Reach, pool: Pool, costs: Callable[[Tensor], Callable[[Pairs], PairCosts]], topk: int
) -> Tensor:
    """Return the object of each prediction, in canonical order, or -1.

    Args:
        reach: which predictions are candidates of which object.
        pool: whether an object takes only its ``"own"`` candidates, or those of ``"any"`` object.
        costs: takes the rows of all predictions that are a candidate of any object, and returns what takes pairs of
            objects and of these predictions, by their place among the rows, and returns their costs.
        topk: how many of an object's highest IoUs add up to how many predictions it takes.
    """
    rows = reached(reach).nonzero().squeeze(1)
    if pool == "own":
        found = pairs(reach.of(rows))
    else:
        found = all_pairs(len(reach.boxes), reach.places[rows], reach.block_size)
    costs_of = costs(rows)
    nothing = torch.empty(0, dtype=torch.int64, device=rows.device)
    claimants, claimed, strength = [nothing], [nothing], [reach.boxes.new_empty(0)]
    for some in found:
        cost, iou = costs_of(some)
        score = -cost.clamp(max=torch.finfo(cost.dtype).max)
        chosen = best_pairs(some, score, topk, iou)
        claimants.append(some.objects[chosen])
        claimed.append(rows[some.predictions[chosen]])
        strength.append(score[chosen])
    return settle(torch.cat(claimants), torch.cat(claimed), torch.cat(strength), len(reach.places))


def matched_iou(boxes: Tensor, objects: Tensor, matched: Tensor) -> Tensor:
    """Return the ``(P,)`` IoU of each box with the object that it is matched with, 0 where `matched` is -1."""
    iou = boxes.new_zeros(len(boxes))
    rows = (matched >= 0).nonzero().squeeze(1)
    iou[rows] = overlap(boxes[rows], objects[matched[rows]]).iou
    return iou
