"""What the operators of fused losses share: value and gradient in one pass, and their registration.

For float32 the value and the gradient are computed in one pass, so that going back costs nothing; half precision and
``reduction="none"`` compute the gradient when it is asked for, from the upstream gradient in single precision.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lossatlas.kernels.native import define, run

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
"""How kernels number the reductions."""

_twins: dict[str, Callable[..., Tensor]] = {}


def register_twin(kernel: str, twin: Callable[..., Tensor]) -> None:
    """Name the PyTorch code that a kernel stands for; gradients of gradients go through it.

    Args:
        kernel: name of a kernel of an operator that has several.
        twin: takes what the operator takes, but for the name of the kernel.
    """
    _twins[kernel] = twin


def twin_of_kernel(input: Tensor, target: Tensor, weight: Tensor | None, kernel: str, *rest: object) -> Tensor:
    """Return the value of an operator that has several kernels through PyTorch."""
    return _twins[kernel](input, target, weight, *rest)


def _no_twin(*arguments: Any) -> Tensor:
    raise NotImplementedError


@dataclass
class FusedLoss:
    """A loss of one input, whose other arguments are constants, registered as an operator of the same name."""

    name: str
    launch: Callable[..., None]
    """``launch(input, *rest, upstream=, value=, gradient=)`` calls the kernel; a result that is None is not wanted."""
    value_shape: Callable[..., torch.Size]
    """``value_shape(input, *rest)`` of the elements."""
    reduction: int
    """Which of the rest is the reduction."""
    twin: Callable[..., Tensor] = field(default=_no_twin)
    """``twin(input, *rest)`` is the value through PyTorch, for gradients of gradients; the losses set it."""

    def register(self, arguments: str) -> None:
        """Register the operators; `arguments` is the schema of the rest."""
        define(f"{self.name}(Tensor input, {arguments}) -> Tensor", self._value, self._autograd)
        define(f"{self.name}_with_gradient(Tensor input, {arguments}) -> (Tensor, Tensor)", self._value_and_gradient)
        define(f"{self.name}_backward(Tensor upstream, Tensor input, {arguments}) -> Tensor", self._gradient)

    def operator(self, suffix: str = "") -> Callable[..., Any]:
        """Return one of the registered operators."""
        operator: Callable[..., Any] = getattr(torch.ops.lossatlas, self.name + suffix).default
        return operator

    def __call__(self, input: Tensor, *rest: Any) -> Tensor:
        """Return the value; where a graph is captured by the operator, else without its detour over the dispatcher."""
        if torch.compiler.is_compiling():
            value: Tensor = self.operator()(input, *rest)
            return value
        return self._autograd(input, *rest)

    def in_one_pass(self, input: Tensor, *rest: Any) -> bool:
        """Whether the gradient is computed with the value."""
        return input.dtype == torch.float32 and rest[self.reduction] != "none"

    def _new_value(self, input: Tensor, *rest: Any) -> Tensor:
        shape = self.value_shape(input, *rest) if rest[self.reduction] == "none" else ()
        if shape == input.shape:
            return torch.empty_like(input, dtype=torch.float32)
        return input.new_empty(shape, dtype=torch.float32)

    def _value(self, input: Tensor, *rest: Any) -> Tensor:
        value = self._new_value(input, *rest)
        self.launch(input, *rest, upstream=None, value=value, gradient=None)
        return value

    def _value_and_gradient(self, input: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        value, gradient = self._new_value(input, *rest), torch.empty_like(input)
        self.launch(input, *rest, upstream=None, value=value, gradient=gradient)
        return value, gradient

    def _gradient(self, upstream: Tensor, input: Tensor, *rest: Any) -> Tensor:
        gradient = torch.empty_like(input)
        self.launch(input, *rest, upstream=upstream, value=None, gradient=gradient)
        return gradient

    def _autograd(self, input: Tensor, *rest: Any) -> Tensor:
        if torch.is_grad_enabled() and input.requires_grad:
            value: Tensor = _Loss.apply(self, input, *rest)
        else:
            with torch._C._AutoDispatchBelowAutograd():
                value = self.operator()(input, *rest)
        return value

    def gradient_of_twin(self, upstream: Tensor, input: Tensor, *rest: Any) -> Tensor:
        """Return the gradient as a part of the graph."""
        with torch.enable_grad():
            x = input.view_as(input)
            (gradient,) = torch.autograd.grad(self.twin(x, *rest), x, upstream, create_graph=True)
        return gradient


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: FusedLoss, input: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(input, *(value if isinstance(value, Tensor) else None for value in rest))
        ctx.others = [None if isinstance(value, Tensor) else value for value in rest]
        ctx.loss, ctx.gradient = loss, None
        with torch._C._AutoDispatchBelowAutograd():
            if loss.in_one_pass(input, *rest):
                value, ctx.gradient = loss.operator("_with_gradient")(input, *rest)
            else:
                value = loss.operator()(input, *rest)
        result: Tensor = value
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        input, *tensors = ctx.saved_tensors
        rest = [other if tensor is None else tensor for tensor, other in zip(tensors, ctx.others, strict=True)]
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():
            gradient = ctx.loss.gradient_of_twin(upstream, input, *rest)
        elif gradient is None:
            gradient = ctx.loss.operator("_backward")(upstream, input, *rest)
        elif type(gradient) is Tensor:
            # Nobody else has it: the gradient of a second call is computed anew.
            torch.ops.lossatlas.scale_.default(gradient, upstream)
        else:
            gradient = gradient * upstream
        return None, gradient, *(None for _ in rest)


def _scale(self: Tensor, factor: Tensor) -> None:
    run("scale", (self, factor), ())


define("scale_(Tensor(a!) self, Tensor factor) -> ()", _scale)
