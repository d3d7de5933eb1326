"""The contract that every loss keeps: arithmetic, ignored elements, weights and reductions.

A loss computes one number for each element and hands the elements to `reduce`, which is the only place where
elements become a value. In short:

* arithmetic is in float32 at least (`lossatlas.dtypes.upcast`), so half-precision inputs give a float32 loss;
* ``mean`` divides by the number of valid elements, or by `normalizer` where one is given;
* `weight` multiplies elements and never changes the denominator;
* an ignored element adds nothing to the value, the gradient or the denominator;
* no elements give 0, attached to the graph.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, cast, get_args

import torch
from torch import Tensor

from lossatlas import kernels
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.kernels import elementwise as elementwise_kernels
from lossatlas.kernels.loss import register_twin
from lossatlas.typing import Normalizer, Reduction


class FusedFormula(Protocol):
    """A formula that a kernel computes too."""

    kernel: str
    """Its name."""

    def __call__(self, *arguments: Any) -> Tensor:
        """Return the elements through PyTorch."""
        ...


_REDUCTIONS = get_args(Reduction)


def fused(
    kernel: str, by_formula: Callable[..., Tensor] | None = None
) -> Callable[[Callable[..., Tensor]], FusedFormula]:
    """Say that a kernel computes a formula, ``formula(x, y, *parameters)``, and its derivative.

    The formula stays the definition: the kernel is checked against it, and `reduced` takes it where a kernel cannot be.

    Args:
        kernel: its name.
        by_formula: what computes the reduced loss from the formula step by step; None is for elementwise ones.
    """

    def decorate(formula: Callable[..., Tensor]) -> FusedFormula:
        marked = cast("FusedFormula", formula)
        marked.kernel = kernel
        register_twin(kernel, functools.partial(by_formula or _by_formula, formula))
        return marked

    return decorate


def reduced(
    formula: FusedFormula,
    input: Tensor,
    target: Tensor,
    *parameters: float,
    ignore_index: float | None = None,
    factor: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Tensor:
    """Apply an elementwise formula in float32 at least, and reduce: by its kernel, or step by step.

    Args:
        formula: ``formula(x, y, *parameters)``, or ``formula(x, y, factor, *parameters)``, marked with `fused`.
        input: ``(*shape)`` predictions.
        target: ``(*shape)`` targets.
        parameters: of the formula.
        ignore_index: the target value that marks an ignored element; None ignores nothing.
        factor: a tensor that the formula takes for each element; it broadcasts to ``(*shape)``.
        weight: see `reduce`.
        reduction: see `reduce`.
        normalizer: see `reduce`.

    Returns:
        See `reduce`.
    """
    if not takes_kernel(input, target, weight, factor, normalizer=normalizer):
        return _by_formula(formula, input, target, weight, parameters, ignore_index, reduction, normalizer, factor)
    weight, divisor = kernel_factors(input, weight, reduction, normalizer)
    return elementwise_kernels.elementwise(
        formula.kernel, input, target, weight, parameters, ignore_index, reduction, divisor, factor
    )


def takes_kernel(input: Tensor, *others: Tensor | None, normalizer: Normalizer | None) -> bool:
    """Whether kernels compute the gradient of `input`, with these other tensors and the normalizer held constant."""
    return kernels.usable(input, *others, normalizer if isinstance(normalizer, Tensor) else None)


def kernel_factors(
    elements: Tensor, weight: Tensor | None, reduction: Reduction, normalizer: Normalizer | None
) -> tuple[Tensor | None, Tensor | None]:
    """Check what `reduce` takes and return it as kernels take it: float32 weights, and the normalizer as a tensor.

    Args:
        elements: a tensor of the shape of the loss's elements.
        weight: see `reduce`.
        reduction: see `reduce`.
        normalizer: see `reduce`.

    Returns:
        Weight and normalizer.
    """
    check_reduction(reduction, normalizer)
    if weight is not None:
        weight = broadcastable("weight", weight, elements, torch.float32)
    if normalizer is not None and not isinstance(normalizer, Tensor):
        normalizer = elements.new_tensor(normalizer, dtype=torch.float64)
    return weight, normalizer


def _by_formula(
    formula: Callable[..., Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: tuple[float, ...],
    ignore_index: float | None,
    reduction: Reduction,
    normalizer: Normalizer | None,
    factor: Tensor | None,
) -> Tensor:
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    factors = () if factor is None else (factor,)
    return reduce(formula(x, y, *factors, *parameters), weight, reduction, normalizer, valid)


def split_ignored(input: Tensor, target: Tensor, ignore_index: float | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Replace what is ignored by zeros and say which elements are valid.

    The replacement comes before any arithmetic, so that an ignored logit, whatever its value, reaches neither the
    value nor the gradient.

    Args:
        input: ``(*shape)`` predictions.
        target: ``(*shape)`` targets.
        ignore_index: the target value that marks an ignored element; None ignores nothing.

    Returns:
        Input and target with zeros at ignored elements, and the mask ``(*shape)`` of valid ones (None if all are).
    """
    if ignore_index is None:
        return input, target, None
    valid = target != ignore_index
    return torch.where(valid, input, 0), torch.where(valid, target, 0), valid


def reduce(
    loss: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Weigh the elements of a loss and reduce them.

    Formula:
        none: wᵢ lᵢ      sum: Σ wᵢ lᵢ      mean: Σ wᵢ lᵢ / max(number of valid elements, 1)

    Args:
        loss: ``(*shape)`` one number for each element.
        weight: factors that broadcast to ``(*shape)``; they never change the denominator.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        normalizer: positive number or 0-d tensor that replaces the count of ``"mean"``; a tensor that holds 0
            divides by 1, as an empty batch does.
        valid: ``(*shape)`` mask; elements where it is False add nothing to the value, the gradient or the count.

    Returns:
        ``(*shape)`` for ``"none"``, a scalar otherwise. No elements give 0 that is attached to the graph.

    Raises:
        ValueError: unknown `reduction`, a `normalizer` that is not positive, is not a scalar or comes with another
            reduction than ``"mean"``, or a `weight` that does not broadcast to the loss.
        TypeError: a `weight` or `normalizer` of another type.
    """
    check_reduction(reduction, normalizer)
    if weight is not None:
        loss = loss * broadcastable("weight", weight, loss)
    if valid is not None:
        loss = torch.where(valid, loss, 0)
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "sum":
        return total
    if normalizer is None:
        return total / max(loss.numel(), 1) if valid is None else total / valid.sum().clamp(min=1)
    if isinstance(normalizer, Tensor):
        normalizer = torch.where(normalizer == 0, 1, normalizer).to(loss.dtype)
    return total / normalizer


def check_reduction(reduction: Reduction, normalizer: object) -> None:
    """Raise unless `reduction` is known and `normalizer` fits it."""
    check_choice("reduction", reduction, _REDUCTIONS)
    if normalizer is None:
        return
    if reduction != "mean":
        raise ValueError(f"`normalizer` replaces the count of reduction 'mean', but `reduction` is {reduction!r}")
    if not isinstance(normalizer, Tensor):
        check_number("normalizer", normalizer, above=0)
    elif normalizer.ndim != 0:
        raise ValueError(f"`normalizer` must be a 0-d tensor, but got shape {tuple(normalizer.shape)}")


def broadcastable(name: str, factor: object, loss: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return `factor` in the dtype of `loss` or another; raise unless it is a tensor that broadcasts to its shape."""
    if not isinstance(factor, Tensor):
        raise TypeError(f"`{name}` must be a tensor, but got {type(factor).__name__}")
    fits = factor.ndim <= loss.ndim and all(
        size in (1, loss_size) for size, loss_size in zip(reversed(factor.shape), reversed(loss.shape), strict=False)
    )
    if not fits:
        raise ValueError(f"`{name}` must broadcast to {tuple(loss.shape)}, but got {tuple(factor.shape)}")
    return factor.to(dtype or loss.dtype)
