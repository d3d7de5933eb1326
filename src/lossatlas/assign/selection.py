"""How assigners choose: an object's best few predictions, and one object for each prediction."""

import torch
from torch import Tensor


def top_mask(score: Tensor, most: int, count: Tensor | None = None) -> Tensor:
    """Return which entries are among the highest of their row; of equal ones the first in the row.

    Args:
        score: ``(N, P)``. An entry of -infinity or NaN is never chosen.
        most: how many of each row, at least 1; fewer where a row has fewer.
        count: ``(N,)`` how many of each row, from 1 to `most`; None takes `most`.

    Returns:
        ``(N, P)`` mask.
    """
    if not score.numel():
        return torch.zeros_like(score, dtype=torch.bool)
    score = score.masked_fill(score.isnan(), -torch.inf)
    most = min(most, score.shape[1])
    wanted = torch.full_like(score[:, :1], most, dtype=torch.int64) if count is None else count[:, None].clamp(max=most)
    least = score.topk(most, dim=1).values.gather(1, wanted - 1)
    above = score > least
    # Which of equal entries `topk` returns is not defined, so it only gives the threshold.
    tied = (score == least) & (score > -torch.inf)
    return above | (tied & (tied.cumsum(1) <= wanted - above.sum(1, keepdim=True)))


def settle(objects: Tensor, predictions: Tensor, strength: Tensor, count: int) -> Tensor:
    """Return for each prediction the object with the strongest claim to it; of equal claims that of the first object.

    Args:
        objects: ``(N,)`` int64 object of each claim.
        predictions: ``(N,)`` int64 prediction of each claim.
        strength: ``(N,)``, not NaN; the highest wins.
        count: number of predictions.

    Returns:
        ``(count,)`` int64, -1 where nobody has a claim.
    """
    best = strength.new_full((count,), -torch.inf).scatter_reduce(0, predictions, strength, "amax")
    strongest = strength == best[predictions]
    nobody = torch.iinfo(torch.int64).max
    first = objects.new_full((count,), nobody)
    first = first.scatter_reduce(0, predictions[strongest], objects[strongest], "amin")
    return torch.where(first == nobody, -1, first)


def to_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return the target's row of each object in canonical order; -1 stays -1.

    Args:
        rows: ``(G,)`` row of each object.
        index: ``(P,)`` place in canonical order, or -1.
    """
    return torch.where(index >= 0, rows[index.clamp(min=0)], -1) if len(rows) else torch.full_like(index, -1)
