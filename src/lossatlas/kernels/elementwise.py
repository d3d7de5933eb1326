"""Losses that are one number for each element of an input and its target, weighed and reduced in the same pass.

For float32 the value and the gradient are computed in one pass, so that going back costs nothing; half precision and
``reduction="none"`` compute the gradient when it is asked for, from the upstream gradient in single precision.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lossatlas.kernels.native import define, run

Twin: TypeAlias = Callable[..., Tensor]

_ARGUMENTS = (
    "str kernel, Tensor input, Tensor target, Tensor? weight, float[] parameters, float? ignored, str reduction, "
    "Tensor? normalizer"
)
_REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}

_twins: dict[str, Twin] = {}


def register(kernel: str, twin: Twin) -> None:
    """Name the PyTorch code that a kernel stands for; gradients of gradients go through it.

    Args:
        kernel: name of an elementwise kernel.
        twin: takes what the operator takes after the kernel's name, and returns what it returns.
    """
    _twins[kernel] = twin


def twins() -> dict[str, Twin]:
    """Return the twin of every elementwise kernel."""
    return dict(_twins)


def elementwise(
    kernel: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: tuple[float, ...],
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
) -> Tensor:
    """Return an elementwise loss, reduced.

    Args:
        kernel: its name.
        input: ``(*shape)`` predictions, which `lossatlas.kernels.usable` has accepted with the other tensors.
        target: ``(*shape)``.
        weight: factors that broadcast to ``(*shape)``.
        parameters: of the loss.
        ignored: target value of elements that are left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        normalizer: 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` for ``"none"``, a scalar otherwise; float32.
    """
    result: Tensor = torch.ops.lossatlas.elementwise(
        kernel, input, target, weight, parameters, ignored, reduction, normalizer
    )
    return result


def _run(
    kernel: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: tuple[float, ...],
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
    *,
    upstream: Tensor | None = None,
    value: Tensor | None = None,
    gradient: Tensor | None = None,
) -> None:
    if weight is not None:
        weight = weight.expand(input.shape)
    numbers = (_REDUCTIONS[reduction], math.nan if ignored is None else ignored, *parameters)
    run(kernel, (input, target, weight, upstream, value, gradient, normalizer), numbers)


def _new_value(input: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return torch.empty_like(input, dtype=torch.float32)
    return input.new_empty((), dtype=torch.float32)


def _value(kernel: str, input: Tensor, *rest: Any) -> Tensor:
    value = _new_value(input, rest[4])
    _run(kernel, input, *rest, value=value)
    return value


def _value_and_gradient(kernel: str, input: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    value, gradient = _new_value(input, rest[4]), torch.empty_like(input)
    _run(kernel, input, *rest, value=value, gradient=gradient)
    return value, gradient


def _gradient(upstream: Tensor, kernel: str, input: Tensor, *rest: Any) -> Tensor:
    gradient = torch.empty_like(input)
    _run(kernel, input, *rest, upstream=upstream, gradient=gradient)
    return gradient


def _scale(self: Tensor, factor: Tensor) -> None:
    run("scale", (self, factor), ())


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: str, input: Tensor, *rest: Any) -> Tensor:
        target, weight, parameters, ignored, reduction, normalizer = rest
        ctx.save_for_backward(input, target, weight, normalizer)
        ctx.others = kernel, parameters, ignored, reduction
        ctx.gradient = None
        with torch._C._AutoDispatchBelowAutograd():
            if input.dtype != torch.float32 or reduction == "none":
                value: Tensor = torch.ops.lossatlas.elementwise(kernel, input, *rest)
            else:
                value, ctx.gradient = torch.ops.lossatlas.elementwise_with_gradient(kernel, input, *rest)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        input, target, weight, normalizer = ctx.saved_tensors
        kernel, parameters, ignored, reduction = ctx.others
        rest = target, weight, parameters, ignored, reduction, normalizer
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():
            gradient = _gradient_of_twin(upstream, kernel, input, *rest)
        elif gradient is None:
            gradient = torch.ops.lossatlas.elementwise_backward(upstream, kernel, input, *rest)
        elif type(gradient) is Tensor:
            # Nobody else has it: the gradient of a second call is computed anew.
            torch.ops.lossatlas.scale_(gradient, upstream)
        else:
            gradient = gradient * upstream
        return None, gradient, None, None, None, None, None, None


def _gradient_of_twin(upstream: Tensor, kernel: str, input: Tensor, *rest: Any) -> Tensor:
    """Return the gradient as a part of the graph."""
    with torch.enable_grad():
        x = input.view_as(input)
        value = _twins[kernel](x, *rest)
        (gradient,) = torch.autograd.grad(value, x, upstream, create_graph=True)
    return gradient


def _autograd(kernel: str, input: Tensor, *rest: Any) -> Tensor:
    if torch.is_grad_enabled() and input.requires_grad:
        result: Tensor = _Elementwise.apply(kernel, input, *rest)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            result = torch.ops.lossatlas.elementwise(kernel, input, *rest)
    return result


define(f"elementwise({_ARGUMENTS}) -> Tensor", _value, _autograd)
define(f"elementwise_with_gradient({_ARGUMENTS}) -> (Tensor, Tensor)", _value_and_gradient)
define(f"elementwise_backward(Tensor upstream, {_ARGUMENTS}) -> Tensor", _gradient)
define("scale_(Tensor(a!) self, Tensor factor) -> ()", _scale)
