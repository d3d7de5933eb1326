"""Squared errors: their mean, its square root, and half of them."""

import math
from typing import TypeAlias

from torch import Tensor

from lossatlas.checks import check_choice, check_elementwise
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_sqrt
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import fused, reduce, reduced
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values

Dimensions: TypeAlias = int | tuple[int, ...] | None
"""One axis, several, or None for all."""


def mse_loss(
    input: Values,
    target: Targets,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Squared error.

    Formula:
        l = (x - y)²

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar, in the square of the unit.

    Raises:
        ValueError: shapes that differ, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> import torch
        >>> mse_loss(torch.tensor([1.0, -3.0]), torch.zeros(2))
        tensor(5.)

    Note:
        The gradient is 2 (x - y); `l2_loss` is half of it. The gradient of an error above 32,752 has no float16.

    Reference:
        A.-M. Legendre, 1805 (least squares).
    """
    check_elementwise(input, target)
    return reduced(scaled_squares, input, target, 1.0, weight=weight, reduction=reduction, normalizer=normalizer)


@fused("squared_error")
def scaled_squares(x: Tensor, y: Tensor, factor: float) -> Tensor:
    """Return the elements of `mse_loss`, times a factor."""
    return factor * (x - y) ** 2


def l2_loss(
    input: Values,
    target: Targets,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Half the squared error.

    Formula:
        l = (x - y)² / 2

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar, in the square of the unit.

    Raises:
        ValueError: shapes that differ, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> import torch
        >>> l2_loss(torch.tensor([1.0, -3.0]), torch.zeros(2))
        tensor(2.5000)

    Note:
        The half makes the gradient the error itself, x - y, and this the loss that `huber_loss` follows near zero.
        Others call `mse_loss` L2. The L2 norm of an error is neither; see `rmse_loss`.

    Reference:
        A.-M. Legendre, 1805 (least squares).
    """
    check_elementwise(input, target)
    return reduced(scaled_squares, input, target, 0.5, weight=weight, reduction=reduction, normalizer=normalizer)


def rmse_loss(
    input: Values,
    target: Targets,
    *,
    dim: Dimensions = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Square root of the mean squared error.

    Formula:
        l = √(Σ (x - y)² / n)    over the n numbers along `dim`

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        dim: axes to average over before the root. None is all of them: the whole call has one element.
        weight: factors of the elements, the roots, broadcasting to the shape that `dim` leaves over.
        reduction: ``"none"``, ``"mean"`` over the roots, or ``"sum"``. It makes no difference for one root.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the number of roots.

    Returns:
        ``(*shape)`` without `dim` with ``"none"``, else a scalar, in the unit of the input.

    Raises:
        ValueError: shapes that differ, a `dim` that the input does not have, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> import torch
        >>> rmse_loss(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2), dim=1, reduction="none")
        tensor([3.5355, 0.0000])

    Note:
        The root is taken before the reduction: a mean of roots is not the root of a mean. The root has no derivative
        at no error; its gradient is 0 there. Without that care it is infinite times 0, NaN.

    Reference:
        A.-M. Legendre, 1805 (least squares).
    """
    check_elementwise(input, target)
    x, y = upcast(input, target)
    axes = tuple(range(x.ndim)) if dim is None else (dim,) if isinstance(dim, int) else dim
    for axis in axes:
        check_choice("dim", axis, range(-x.ndim, x.ndim))
    total = ((x - y) ** 2).sum(axes)
    # No numbers have no mean, but they have a sum, 0, which keeps the graph.
    count = max(math.prod([x.shape[axis] for axis in axes]), 1)
    return reduce(safe_sqrt(total / count), weight, reduction, normalizer)


MSELoss = module_form("MSELoss", mse_loss)
L2Loss = module_form("L2Loss", l2_loss)
RMSELoss = module_form("RMSELoss", rmse_loss)
