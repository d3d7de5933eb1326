"""How many logits beat which: the sums and the error-driven update that ranking losses are made of.

The step of the ranking papers, 1 where a logit beats another and 0 where it loses, rises in a straight line between -δ
and δ: H(x) = x / (2 δ) + 1/2, at least 0 and at most 1. A sum of it over all logits is therefore a count of those that
are beaten clearly plus a first moment of those in between. Both are differences of running sums over the sorted
logits, so that N sums over N logits cost a sort and N look-ups, not N² comparisons. Running sums are float64 whatever
the logits are: they are differences of large numbers.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lossatlas.checks import check_elementwise
from lossatlas.dtypes import upcast
from lossatlas.losses.reduction import reduce, split_ignored
from lossatlas.typing import Normalizer, Reduction

_PAIRS = 2**18
"""How many pairs are looked at together where pairs have to be looked at."""


def beaten_by(logits: Tensor, amount: Tensor, delta: float) -> Tensor:
    """Return for each logit the sum of what it is beaten by: Σₖ amountₖ H(sₖ - s).

    Args:
        logits: ``(N,)`` float64 s.
        amount: ``(N,)`` float64, 0 for those that do not count. The sum is differentiable by it.
        delta: δ, half the width of the step.

    Returns:
        ``(N,)`` float64.

    Example:
        >>> beaten_by(torch.tensor([0.0, 0.5, 9.0]).double(), torch.ones(3).double(), delta=1.0)
        tensor([2.2500, 1.7500, 0.5000], dtype=torch.float64)
    """
    ordered, order = logits.sort()
    count = F.pad(amount[order].cumsum(0), (1, 0))
    moment = F.pad((amount[order] * ordered).cumsum(0), (1, 0))
    start = torch.searchsorted(ordered, logits - delta)
    end = torch.searchsorted(ordered, logits + delta)
    between = count[end] - count[start]
    above = count[-1] - count[end]
    return above + between / 2 + (moment[end] - moment[start] - logits * between) / (2 * delta)


def step(difference: Tensor, delta: float) -> Tensor:
    """Return H of a difference of logits."""
    return (difference / (2 * delta) + 0.5).clamp(min=0, max=1)


class RankingUpdate(torch.autograd.Function):
    """Errors of positives with the gradient that error-driven learning gives their logits.

    The errors are not differentiated. Each positive i wants every negative j that beats it down by shareᵢ H(sⱼ - sᵢ)
    and itself up by the sum of it. The update is a constant: there is no double backward.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, error: Tensor, share: Tensor, beaten: Tensor, negative: Tensor, delta: float
    ) -> Tensor:
        """Return a copy of `error`.

        Args:
            ctx: of autograd.
            logits: ``(N,)``, what the gradient is for.
            error: ``(N,)`` in the dtype of the logits.
            share: ``(N,)`` float64, 0 for all but positives.
            beaten: ``(N,)`` float64, for each positive the sum of H(sⱼ - sᵢ) over the negatives j.
            negative: ``(N,)`` mask.
            delta: of the step.
        """
        ctx.save_for_backward(logits, share, beaten, negative)
        ctx.delta = delta
        return error.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the update of the logits, for each positive as large as `grad_output` says."""
        logits, share, beaten, negative = ctx.saved_tensors
        push = grad_output * share
        # Which positives a negative beats is which it is beaten by with all signs turned.
        down = torch.where(negative, beaten_by(-logits.double(), push, ctx.delta), 0)
        return (down - push * beaten).to(logits.dtype), None, None, None, None, None


class SortingUpdate(torch.autograd.Function):
    """Errors of the order of positives with the gradient that error-driven learning gives their logits.

    The errors are not differentiated. Each positive i wants every positive k of lower quality that beats it down by
    shareᵢ H(sₖ - sᵢ) and itself up by the sum of it. The update is a constant: there is no double backward.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, error: Tensor, share: Tensor, beaten: Tensor, quality: Tensor, delta: float
    ) -> Tensor:
        """Return a copy of `error`.

        Args:
            ctx: of autograd.
            logits: ``(P,)`` of the positives, what the gradient is for.
            error: ``(P,)`` in the dtype of the logits.
            share: ``(P,)`` float64.
            beaten: ``(P,)`` float64, the sum of H(sₖ - sᵢ) over the positives k of lower quality.
            quality: ``(P,)``.
            delta: of the step.
        """
        ctx.save_for_backward(logits, share, beaten, quality)
        ctx.delta = delta
        return error.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the update of the logits, for each positive as large as `grad_output` says."""
        logits, share, beaten, quality = ctx.saved_tensors
        push, wide = grad_output * share, logits.double()
        update = -push * beaten
        for rows in row_blocks(logits):
            worse = quality[rows, None] < quality
            update[rows] += (worse * step(wide[rows, None] - wide, ctx.delta)) @ push
        return update.to(logits.dtype), None, None, None, None, None


def row_blocks(positives: Tensor) -> list[Tensor]:
    """Return the indices of ``(P,)`` positives in blocks whose comparisons with all of them stay few."""
    count = len(positives)
    return list(torch.arange(count, device=positives.device).split(max(_PAIRS // max(count, 1), 1)))


def sorting_errors(logits: Tensor, quality: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Return how wrongly positives are sorted by quality, and how much those of lower quality beat each.

    Formula:
        Sᵢ = Σₖ Hᵢₖ (1 - qₖ) / Σₖ Hᵢₖ - the same over the k with qₖ ≥ qᵢ only,  Hᵢₖ = H(sₖ - sᵢ)

    Args:
        logits: ``(P,)`` float64 s of the positives.
        quality: ``(P,)`` float64 q from 0 to 1.
        delta: of the step.

    Returns:
        The errors S and the sums of H over the positives of lower quality; each ``(P,)`` float64.
    """
    errors, beaten = [logits.new_empty(0)], [logits.new_empty(0)]
    for rows in row_blocks(logits):
        beats = step(logits - logits[rows, None], delta)
        rightly = beats * (quality >= quality[rows, None])
        cost = 1 - quality
        errors.append(beats @ cost / beats.sum(1) - rightly @ cost / rightly.sum(1))
        beaten.append((beats - rightly).sum(1))
    return torch.cat(errors).clamp(min=0), torch.cat(beaten)


class Sides(NamedTuple):
    """Logits and which of them are to be above which, flat."""

    shape: torch.Size
    """Of the input."""
    logits: Tensor
    """``(N,)`` in the dtype of the arithmetic; likewise `target`."""
    target: Tensor
    positive: Tensor
    """``(N,)`` mask; likewise `negative`. What is ignored is neither."""
    negative: Tensor
    intact: Tensor
    """1, or NaN where a logit or a target that counts is NaN, which a comparison would hide."""

    @property
    def fixed(self) -> Tensor:
        """The logits as numbers to be ranked: ``(N,)`` float64 outside the graph."""
        return self.logits.detach().double()

    def beaten_by_negatives(self, delta: float) -> Tensor:
        """Return Σⱼ H(sⱼ - sᵢ) over the negatives, 0 but for positives i."""
        # The difference of running sums is 0 or more but for rounding.
        beaten = beaten_by(self.fixed, self.negative.double(), delta).clamp(min=0)
        return torch.where(self.positive, beaten, 0)

    def beaten_by_positives(self, delta: float) -> Tensor:
        """Return Σₖ H(sₖ - sᵢ) over the positives, among them i, which counts 1/2."""
        return beaten_by(self.fixed, self.positive.double(), delta)

    def learn(self, error: Tensor, share: Tensor, beaten: Tensor, delta: float) -> Tensor:
        """Return the errors of positives with the update that each asks for, `share` for each negative."""
        share = torch.where(self.positive, share, 0)
        learned: Tensor = RankingUpdate.apply(
            self.logits, error.to(self.logits.dtype), share, beaten, self.negative, delta
        )
        return learned

    def reduce(
        self, loss: Tensor, weight: Tensor | None, reduction: Reduction, normalizer: Normalizer | None
    ) -> Tensor:
        """Reduce the elements, one for each positive."""
        loss, positive = loss.view(self.shape), self.positive.view(self.shape)
        return reduce(loss, weight, reduction, normalizer, positive) * self.intact


def sides_of(input: Tensor, target: Tensor, ignore_index: float | None) -> Sides:
    """Return the two sides of a ranking loss; targets above 0 are positive, of 0 negative."""
    check_elementwise(input, target)
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    x, y = x.flatten(), y.flatten()
    counts = torch.ones_like(x, dtype=torch.bool) if valid is None else valid.flatten()
    intact = torch.where((x.isnan() | y.isnan()).any(), torch.nan, 1).to(x.dtype)
    return Sides(input.shape, x, y, counts & (y > 0), counts & (y == 0), intact)


def running_maximum(precision: Tensor, sides: Sides) -> Tensor:
    """Return for each positive the largest precision of it and of the positives with smaller logits; else 1."""
    _, order = sides.fixed.sort()
    best = torch.where(sides.positive, precision, 0)[order].cummax(0).values
    return torch.where(sides.positive, torch.empty_like(best).scatter(0, order, best), 1)
