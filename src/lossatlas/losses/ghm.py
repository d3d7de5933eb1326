"""Gradient harmonising: elements count the less, the more others have a gradient of the same size."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lossatlas.checks import check_choice, check_elementwise, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import binary_costs
from lossatlas.losses.reduction import reduce, split_ignored
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values

Normalization = Literal["paper", "reference"]


def ghmc_loss(
    input: Values,
    target: Targets,
    *,
    bins: int = 30,
    normalization: Normalization = "paper",
    counts: Tensor | None = None,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Binary cross entropy of logits, each element divided by the density of gradients like its own.

    Formula:
        l = β BCE(x, y),  β = N / (M R_j),  j = ⌊M g⌋,  g = |σ(x) - y|
        R_j the number of elements in bin j,  N of all valid elements

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` probabilities y from 0 to 1; any dtype.
        bins: M, the number of bins that [0, 1] is divided into.
        normalization: M is the number of all bins (``"paper"``), or of those that are not empty (``"reference"``, the
            authors' code).
        counts: ``(bins,)`` numbers R, such as their moving average; a bin of 0 counts as 1. None counts this batch.
            `GHMCLoss` keeps the average.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, `bins` below 1, an unknown `normalization`, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> ghmc_loss(torch.tensor([0.0, 4.0, 4.0, 4.0]), torch.ones(4), bins=2, reduction="none")
        tensor([1.3863, 0.0121, 0.0121, 0.0121])

    Note:
        The density is a constant, outside the graph. It is that of equal bins, the paper's approximation.

    Reference:
        Li et al., "Gradient Harmonized Single-stage Detector", 2018, arXiv 1811.05181, section 3.
    """
    check_elementwise(input, target)
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    hit, miss = binary_costs(x, y)
    beta = _harmony(_classification_norm(x, y), valid, bins, normalization, counts)
    return reduce(beta * (hit + miss), weight, reduction, normalizer, valid)


def ghmr_loss(
    input: Values,
    target: Targets,
    *,
    mu: float = 0.02,
    bins: int = 10,
    normalization: Normalization = "paper",
    counts: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Smooth absolute error, each element divided by the density of gradients like its own.

    Formula:
        l = β (√(d² + μ²) - μ),  β = N / (M R_j),  j = ⌊M g⌋,  g = |d| / √(d² + μ²),  d = x - y
        R_j the number of elements in bin j,  N of all elements

    Args:
        input: ``(*shape)`` predictions x of the positives, in the units of the box coder.
        target: ``(*shape)`` y in the same unit.
        mu: μ above 0, the width of the rounding at no error, in the unit of the input.
        bins: M, the number of bins that [0, 1] is divided into.
        normalization: M is the number of all bins (``"paper"``), or of those that are not empty (``"reference"``, the
            authors' code).
        counts: ``(bins,)`` numbers R, such as their moving average; a bin of 0 counts as 1. None counts this batch.
            `GHMRLoss` keeps the average.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `mu` that is not above 0, `bins` below 1, an unknown `normalization`, or
            a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> ghmr_loss(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.zeros(4), bins=2, reduction="none")
        tensor([0.0000, 0.6535, 1.3201, 1.9867])

    Note:
        The density is a constant, outside the graph. Elements of weight 0 are counted like all others: give the
        positives alone.

    Reference:
        Li et al., "Gradient Harmonized Single-stage Detector", 2018, arXiv 1811.05181, section 3.
    """
    check_elementwise(input, target)
    check_number("mu", mu, above=0)
    x, y = upcast(input, target)
    beta = _harmony(_regression_norm(x, y, mu), None, bins, normalization, counts)
    return reduce(beta * (torch.hypot(x - y, x.new_full((), mu)) - mu), weight, reduction, normalizer)


def _classification_norm(x: Tensor, y: Tensor) -> Tensor:
    return (torch.sigmoid(x) - y).detach().abs()


def _regression_norm(x: Tensor, y: Tensor, mu: float) -> Tensor:
    distance = (x - y).detach()
    return (distance / torch.hypot(distance, distance.new_full((), mu))).abs()


def _bin_of(norm: Tensor, bins: int) -> Tensor:
    # A norm that is not a number has to go somewhere: the loss beside it says so.
    return (norm.nan_to_num() * bins).long().clamp(max=bins - 1)


def _counts_of(index: Tensor, valid: Tensor | None, bins: int) -> Tensor:
    # Counted in integers: ones that are added in float32 stop adding up at 2^24.
    ones = torch.ones_like(index) if valid is None else valid.long()
    return torch.zeros(bins, dtype=torch.long, device=index.device).scatter_add(0, index.flatten(), ones.flatten())


def _harmony(
    norm: Tensor, valid: Tensor | None, bins: int, normalization: Normalization, counts: Tensor | None
) -> Tensor:
    """Return the factors β of elements whose gradients have these norms."""
    check_number("bins", bins, at_least=1)
    check_choice("normalization", normalization, get_args(Normalization))
    index = _bin_of(norm, bins)
    here = _counts_of(index, valid, bins)
    if counts is None:
        counts = here
    elif counts.shape != (bins,):
        raise ValueError(f"`counts` must have shape ({bins},), but got {tuple(counts.shape)}")
    counts = torch.where(counts > 0, counts.detach(), 1).to(norm.dtype)
    parts = bins if normalization == "paper" else (here > 0).sum().clamp(min=1)
    return here.sum() / (counts[index] * parts)


class _HarmonizingLoss(nn.Module):
    """What the two modules share: the moving average of the counts of the bins."""

    counts: Tensor
    started: Tensor

    def __init__(self, bins: int, momentum: float, normalization: Normalization) -> None:
        super().__init__()
        check_number("bins", bins, at_least=1)
        check_number("momentum", momentum, at_least=0, below=1)
        check_choice("normalization", normalization, get_args(Normalization))
        self.bins = bins
        self.momentum = momentum
        self.normalization = normalization
        self.register_buffer("counts", torch.zeros(bins))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def _averaged(self, norm: Tensor, valid: Tensor | None) -> Tensor:
        """Return the average that includes the elements of this batch; in training mode, keep it."""
        here = _counts_of(_bin_of(norm, self.bins), valid, self.bins).to(self.counts.dtype)
        moved = self.momentum * self.counts + (1 - self.momentum) * here
        some = here.sum() > 0
        if self.normalization == "reference":
            average = torch.where(here > 0, moved, self.counts)
        else:
            average = torch.where(some, torch.where(self.started, moved, here), self.counts)
        if self.training:
            self.counts.copy_(average)
            self.started.logical_or_(some)
        return average

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"bins={self.bins}, momentum={self.momentum}, normalization={self.normalization!r}"


class GHMCLoss(_HarmonizingLoss):
    """`ghmc_loss` with the moving average of its counts.

    The counts R of the bins are a moving average over the batches, S ← m S + (1 - m) R, which is saved with the
    module. In evaluation mode a batch is averaged in for its own loss but not kept. A batch without elements changes
    nothing. Counts are of this process.

    With ``"paper"`` normalisation the first batch starts the average. With ``"reference"`` it is the authors' code:
    the average starts at 0 and is not corrected for that, so that the first loss is 1 / (1 - m) times as large, and
    only bins that are not empty move.

    Args:
        bins: M, the number of bins.
        momentum: m in [0, 1); 0 counts each batch by itself. The authors' setting is 0.75.
        normalization: ``"paper"`` or ``"reference"``.
        ignore_index: target value of elements that are left out; None leaves out none.

    Example:
        >>> loss = GHMCLoss(bins=2)
        >>> loss(torch.tensor([0.0, 4.0, 4.0, 4.0]), torch.ones(4)), loss.counts
        (tensor(0.3556), tensor([3., 1.]))
    """

    function = staticmethod(ghmc_loss)

    def __init__(
        self,
        *,
        bins: int = 30,
        momentum: float = 0.75,
        normalization: Normalization = "paper",
        ignore_index: float | None = None,
    ) -> None:
        super().__init__(bins, momentum, normalization)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss of `input` against `target`; `kwargs` are weight, reduction, normalizer and ignore_index."""
        check_elementwise(input, target)
        options = {"ignore_index": self.ignore_index} | kwargs
        x, y = upcast(input.detach(), target)
        x, y, valid = split_ignored(x, y, options["ignore_index"])
        counts = self._averaged(_classification_norm(x, y), valid)
        return ghmc_loss(input, target, bins=self.bins, normalization=self.normalization, counts=counts, **options)


class GHMRLoss(_HarmonizingLoss):
    """`ghmr_loss` with the moving average of its counts.

    The counts R of the bins are a moving average over the batches, S ← m S + (1 - m) R, which is saved with the
    module. In evaluation mode a batch is averaged in for its own loss but not kept. A batch without elements changes
    nothing. Counts are of this process.

    With ``"paper"`` normalisation the first batch starts the average. With ``"reference"`` it is the authors' code:
    the average starts at 0 and is not corrected for that, so that the first loss is 1 / (1 - m) times as large, and
    only bins that are not empty move.

    Args:
        mu: μ above 0, the width of the rounding at no error, in the unit of the input.
        bins: M, the number of bins.
        momentum: m in [0, 1); 0 counts each batch by itself. The authors' setting is 0.7.
        normalization: ``"paper"`` or ``"reference"``.

    Example:
        >>> loss = GHMRLoss(bins=2)
        >>> loss(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.zeros(4)), loss.counts
        (tensor(0.9901), tensor([1., 3.]))
    """

    function = staticmethod(ghmr_loss)

    def __init__(
        self, *, mu: float = 0.02, bins: int = 10, momentum: float = 0.7, normalization: Normalization = "paper"
    ) -> None:
        super().__init__(bins, momentum, normalization)
        check_number("mu", mu, above=0)
        self.mu = mu

    def forward(self, input: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss of `input` against `target`; `kwargs` are weight, reduction and normalizer."""
        check_elementwise(input, target)
        x, y = upcast(input.detach(), target)
        counts = self._averaged(_regression_norm(x, y, self.mu), None)
        return ghmr_loss(
            input, target, mu=self.mu, bins=self.bins, normalization=self.normalization, counts=counts, **kwargs
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"mu={self.mu}, {super().extra_repr()}"
