"""Information: of an outcome, of a distribution, and of one distribution under another.

All take probabilities, not logits. Values are in nats, or in units of another base: 2 gives bits. 0 ln 0 is 0. The
logarithm is at least -100, torch's bound for probabilities, and its slope, 1 / p, at most 1e12 (1e4 where the input is
float16, whose gradient holds no more), so that a probability of 0 has a finite value and gradient.
"""

import math

from torch import Tensor

from lossatlas.checks import check_floating, check_number, check_same_shape
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import bounded_log
from lossatlas.losses.classification import steepest_log
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.typing import Loss, Normalizer, Reduction, Values

# p ln p falls faster than its logarithm rises: where the product is needed its slope has no need of a bound that
# a float16 gradient can hold.
_STEEPEST_PRODUCT = 1e30


def information_content(
    input: Values,
    *,
    base: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Information of an outcome, its surprise.

    Formula:
        I = -ln p / ln b,  at most 100 / ln b

    Args:
        input: ``(*shape)`` probabilities p of the outcomes that came.
        base: b above 1; None stands for e, which gives nats, and 2 gives bits.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: a `base` that is not above 1, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> import torch
        >>> information_content(torch.tensor([0.5, 0.125, 1.0]), base=2, reduction="none")
        tensor([1., 3., -0.])

    Reference:
        C. E. Shannon, "A Mathematical Theory of Communication", 1948, section 6.
    """
    check_floating("input", input)
    unit = _unit(base)
    (p,) = upcast(input)
    return reduce(-bounded_log(p, steepest_log(input.dtype)) / unit, weight, reduction, normalizer)


def entropy(
    input: Tensor,
    *,
    base: float | None = None,
    dim: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Entropy of a distribution, the mean information of its outcomes.

    Formula:
        H = -Σ_c p_c ln p_c / ln b

    Args:
        input: probabilities p, which sum to 1 along `dim`; they are not normalised here.
        base: b above 1; None stands for e, which gives nats, and 2 gives bits.
        dim: axis of the outcomes.
        weight: factors of the distributions, broadcasting to `input` without `dim`; they do not change the
            denominator.
        reduction: ``"none"``, ``"mean"`` over the distributions, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        The shape of `input` without `dim` with ``"none"``, else a scalar.

    Raises:
        ValueError: an `input` without axes, a `base` that is not above 1, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.
        IndexError: a `dim` that `input` does not have.

    Example:
        >>> import torch
        >>> entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]), base=2, reduction="none")
        tensor([2., 1.])

    Note:
        The gradient is -(ln p + 1) / ln b, -100 at most in size at p = 0.

    Reference:
        C. E. Shannon, "A Mathematical Theory of Communication", 1948, section 6.
    """
    check_floating("input", input)
    _check_axis(input)
    unit = _unit(base)
    (p,) = upcast(input)
    return reduce(-_times_log(p).sum(dim) / unit, weight, reduction, normalizer)


def distribution_cross_entropy(
    input: Values,
    target: Values,
    *,
    base: float | None = None,
    dim: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy of a distribution with another: the mean surprise of who expects the wrong one.

    Formula:
        H(p, q) = -Σ_c p_c ln q_c / ln b,  each logarithm at least -100

    Args:
        input: probabilities q that are predicted; they sum to 1 along `dim` and are not normalised here.
        target: probabilities p, of the same shape.
        base: b above 1; None stands for e, which gives nats, and 2 gives bits.
        dim: axis of the outcomes.
        weight: factors of the distributions, broadcasting to `input` without `dim`; they do not change the
            denominator.
        reduction: ``"none"``, ``"mean"`` over the distributions, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        The shape of `input` without `dim` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or have no axes, a `base` that is not above 1, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` or `target` that is not floating point.
        IndexError: a `dim` that `input` does not have.

    Example:
        >>> import torch
        >>> distribution_cross_entropy(torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.0]), base=2)
        tensor(2.)

    Note:
        It is ``entropy(target)`` plus ``kl_divergence(input, target)``. From logits, `cross_entropy` with
        probabilities as target is the more exact one.

    Reference:
        I. J. Good, "Rational Decisions", 1952.
    """
    q, p = _distributions(input, target)
    unit = _unit(base)
    return reduce(-(p * bounded_log(q, steepest_log(input.dtype))).sum(dim) / unit, weight, reduction, normalizer)


def kl_divergence(
    input: Values,
    target: Values,
    *,
    base: float | None = None,
    dim: int = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Kullback-Leibler divergence of a predicted distribution from the target.

    Formula:
        KL(p ‖ q) = Σ_c p_c ln(p_c / q_c) / ln b,  each logarithm at least -100

    Args:
        input: probabilities q that are predicted; they sum to 1 along `dim` and are not normalised here.
        target: probabilities p, of the same shape.
        base: b above 1; None stands for e, which gives nats, and 2 gives bits.
        dim: axis of the outcomes.
        weight: factors of the distributions, broadcasting to `input` without `dim`; they do not change the
            denominator.
        reduction: ``"none"``, ``"mean"`` over the distributions, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        The shape of `input` without `dim` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or have no axes, a `base` that is not above 1, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` or `target` that is not floating point.
        IndexError: a `dim` that `input` does not have.

    Example:
        >>> import torch
        >>> kl_divergence(torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5]))
        tensor(0.1438)

    Note:
        ``"mean"`` is over the distributions, which torch calls ``"batchmean"``; torch takes ln q as input and its own
        ``"mean"`` divides by the number of outcomes, too.

    Reference:
        S. Kullback and R. A. Leibler, "On Information and Sufficiency", 1951.
    """
    q, p = _distributions(input, target)
    unit = _unit(base)
    divergence = (_times_log(p) - p * bounded_log(q, steepest_log(input.dtype))).sum(dim)
    return reduce(divergence / unit, weight, reduction, normalizer)


def _times_log(p: Tensor) -> Tensor:
    return p * bounded_log(p, _STEEPEST_PRODUCT)


def _unit(base: float | None) -> float:
    if base is None:
        return 1.0
    check_number("base", base, above=1)
    return math.log(base)


def _distributions(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    check_floating("input", input)
    check_same_shape("input", input, "target", target)
    check_floating("target", target)
    _check_axis(input)
    q, p = upcast(input, target)
    return q, p


def _check_axis(input: Tensor) -> None:
    if input.ndim == 0:
        raise ValueError("`input` must have an axis of outcomes, but got shape ()")


InformationContent = module_form("InformationContent", information_content)
Entropy = module_form("Entropy", entropy)
DistributionCrossEntropy = module_form("DistributionCrossEntropy", distribution_cross_entropy)
KLDivergence = module_form("KLDivergence", kl_divergence)
