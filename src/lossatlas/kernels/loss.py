"""What the operators of fused losses share: value and gradient in one pass, and their registration.

For float32 the value and the gradient are computed in one pass, so that going back costs nothing; half precision and
``reduction="none"`` compute the gradient when it is asked for, from the upstream gradient in single precision.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lossatlas.kernels.native import define, run

Results: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Upstream gradient, value and gradient of a launch; one that is None is not given, or not wanted."""

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
"""How kernels number the reductions."""

_twins: dict[str, Callable[..., Any]] = {}


def register_twin(name: str, twin: Callable[..., Any]) -> None:
    """Name the PyTorch code that a kernel stands for; gradients of gradients go through it.

    Args:
        name: of an operator, or of a kernel of one that has several.
        twin: takes what the operator takes, but for the name of the kernel.
    """
    _twins[name] = twin


def twin_of_kernel(input: Tensor, target: Tensor, weight: Tensor | None, kernel: str, *rest: object) -> Tensor:
    """Return the value of an operator that has several kernels through PyTorch."""
    value: Tensor = _twins[kernel](input, target, weight, *rest)
    return value


def gradient_of_twin(
    twin: str | Callable[..., Any], upstream: Sequence[Tensor | None], input: Tensor, *rest: Any
) -> Tensor:
    """Return the gradient of what a kernel computes through PyTorch, as a part of the graph.

    Args:
        twin: the PyTorch code, or the name it is registered with.
        upstream: gradients of its outputs; those that have no graph have none.
        input: what the gradient is of.
        rest: what else the twin takes.
    """
    with torch.enable_grad():
        x = input.view_as(input)
        outputs = (_twins[twin] if isinstance(twin, str) else twin)(x, *rest)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [(output, above) for output, above in zip(outputs, upstream, strict=True) if output.requires_grad]
        learned, received = zip(*pairs, strict=True)
        (gradient,) = torch.autograd.grad(learned, x, received, create_graph=True)
    return gradient


def define_differentiable(
    schema: str, function: Callable[..., Any], apply: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Register an operator that has a gradient.

    Args:
        schema: see `define`.
        function: see `define`.
        apply: of the `torch.autograd.Function` that computes it where gradients are needed.

    Returns:
        What computes it where no gradients are needed, and where they may be: the operator where a graph is captured,
        else what it calls, without its detour over the dispatcher.
    """

    def compute(input: Tensor, *rest: Any) -> Any:
        if torch.is_grad_enabled() and input.requires_grad:
            return apply(input, *rest)
        return below_autograd(input, *rest)

    below_autograd = define(schema, function, compute)
    operator = getattr(torch.ops.lossatlas, schema.partition("(")[0])

    def call(input: Tensor, *rest: Any) -> Any:
        return (operator if torch.compiler.is_compiling() else compute)(input, *rest)

    return below_autograd, call


@dataclass
class FusedLoss:
    """A loss of one input, whose other arguments are constants, registered as an operator of the same name."""

    name: str
    launch: Callable[..., None]
    """``launch(input, *rest, results=)`` calls the kernel."""
    value_shape: Callable[..., torch.Size]
    """``value_shape(input, *rest)`` of the elements."""
    reduction: int
    """Which of the rest is the reduction."""
    twin: Callable[..., Tensor] | None = None
    """``twin(input, *rest)`` is the value through PyTorch; None for what is registered with the operator's name."""

    def register(self, arguments: str) -> None:
        """Register the operators; `arguments` is the schema of the rest."""
        self.value, self._call = define_differentiable(
            f"{self.name}(Tensor input, {arguments}) -> Tensor", self._value, functools.partial(_Loss.apply, self)
        )
        self.value_and_gradient = define(
            f"{self.name}_with_gradient(Tensor input, {arguments}) -> (Tensor, Tensor)", self._value_and_gradient
        )
        self.gradient = define(
            f"{self.name}_backward(Tensor upstream, Tensor input, {arguments}) -> Tensor", self._gradient
        )

    def __call__(self, input: Tensor, *rest: Any) -> Tensor:
        """Return the value."""
        value: Tensor = self._call(input, *rest)
        return value

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
        self.launch(input, *rest, results=(None, value, None))
        return value

    def _value_and_gradient(self, input: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        value, gradient = self._new_value(input, *rest), torch.empty_like(input)
        self.launch(input, *rest, results=(None, value, gradient))
        return value, gradient

    def _gradient(self, upstream: Tensor, input: Tensor, *rest: Any) -> Tensor:
        gradient = torch.empty_like(input)
        self.launch(input, *rest, results=(upstream, None, gradient))
        return gradient


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: FusedLoss, input: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(input, *(value if isinstance(value, Tensor) else None for value in rest))
        ctx.others = [None if isinstance(value, Tensor) else value for value in rest]
        ctx.loss, ctx.gradient = loss, None
        if loss.in_one_pass(input, *rest):
            value, ctx.gradient = loss.value_and_gradient(input, *rest)
        else:
            value = loss.value(input, *rest)
        result: Tensor = value
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        input, *tensors = ctx.saved_tensors
        rest = [other if tensor is None else tensor for tensor, other in zip(tensors, ctx.others, strict=True)]
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled():
            gradient = gradient_of_twin(ctx.loss.twin or ctx.loss.name, [upstream], input, *rest)
        elif gradient is None:
            gradient = ctx.loss.gradient(upstream, input, *rest)
        elif type(gradient) is Tensor:
            # Nobody else has it: the gradient of a second call is computed anew.
            _scale_in_place(gradient, upstream)
        else:
            gradient = gradient * upstream
        return None, gradient, *(None for _ in rest)


def _scale(self: Tensor, factor: Tensor) -> None:
    run("scale", (self, factor), ())


_scale_in_place = define("scale_(Tensor(a!) self, Tensor factor) -> ()", _scale)
