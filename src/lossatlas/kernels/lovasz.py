"""Lovász losses: the errors of all classes, sorted one class at a time, and their slopes."""

from typing import Any

import torch
from torch import Tensor

from lossatlas.kernels import native
from lossatlas.kernels.loss import define_differentiable, gradient_of_twin
from lossatlas.kernels.native import define, ignored_number, run

Elements = tuple[Tensor, Tensor]
"""Elements of the loss, float32, and the mask of the valid ones; ``(N, K)``, or ``(K,)`` over the batch."""

_ERRORS = {"softmax": 0, "sigmoid": 1, "hinge": 2}

_MOST_ELEMENTS = 2**31
"""Of which each has its place in 31 bits."""


def usable(input: Tensor, target: Tensor, errors: str) -> bool:
    """Whether the kernel takes these tensors: class indices, or for independent channels also their own targets."""
    fits = errors != "softmax" or target.ndim < input.ndim
    return fits and input.numel() < _MOST_ELEMENTS and native.usable(input, target)


def lovasz(
    input: Tensor, target: Tensor, errors: str, ignored: int | None, per_image: bool, absent: bool, first: int
) -> Elements:
    """Return the Lovász extension of the Jaccard loss for each class.

    Args:
        input: ``(N, C, *spatial)`` logits, which `usable` has accepted.
        target: ``(N, *spatial)`` class indices, or for independent channels also ``(N, C, *spatial)``.
        errors: ``"softmax"`` or ``"sigmoid"``: 1 minus the probability of the right answer; ``"hinge"``.
        ignored: target value of what is left out.
        per_image: whether each image has an element for each class.
        absent: whether the element of a class that is absent from the target is valid.
        first: the first class that counts.

    Returns:
        Elements and what is valid.

    Raises:
        ValueError: an index that is no class.
    """
    result: Elements = _call(input, target, errors, ignored, per_image, absent, first)
    return result


def _numbers(errors: str, ignored: int | None, *rest: float) -> tuple[float, ...]:
    return (_ERRORS[errors], ignored_number(ignored), *rest)


def _with_slopes(input: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, per_image, _, first = rest
    classes = input.shape[1] - first
    shape = (input.shape[0], classes) if per_image else (classes,)
    loss, valid = (input.new_empty(shape, dtype=torch.float32) for _ in range(2))
    slopes = input.new_empty(input.shape, dtype=torch.float32)
    run("lovasz", (slopes, input, target, loss, valid), _numbers(*rest))
    return loss, valid > 0, slopes


def _value(input: Tensor, target: Tensor, *rest: Any) -> Elements:
    loss, valid, _ = _with_slopes(input, target, *rest)
    return loss, valid


def _gradient(upstream: Tensor, slopes: Tensor, input: Tensor, target: Tensor, *rest: Any) -> Tensor:
    gradient = torch.empty_like(input)
    _chain(slopes, upstream, input, target, rest, gradient)
    return gradient


def _gradient_in_place(slopes: Tensor, upstream: Tensor, input: Tensor, target: Tensor, *rest: Any) -> None:
    _chain(slopes, upstream, input, target, rest, slopes)


def _chain(
    slopes: Tensor, upstream: Tensor, input: Tensor, target: Tensor, rest: tuple[Any, ...], gradient: Tensor
) -> None:
    run("lovasz_chain", (slopes, input, target, upstream.contiguous(), gradient), _numbers(*rest))


class _Lovasz(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, *rest: Any) -> Elements:
        ctx.save_for_backward(input, target)
        ctx.rest = rest
        loss, valid, ctx.slopes = _value_with_slopes(input, target, *rest)
        ctx.mark_non_differentiable(valid)
        return loss, valid

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        input, target = ctx.saved_tensors
        rest = ctx.rest
        slopes, ctx.slopes = ctx.slopes, None
        if torch.is_grad_enabled():
            gradient = gradient_of_twin("lovasz", [upstream, None], input, target, *rest)
            return gradient, None, *(None for _ in rest)
        # Nobody else has the slopes, which become the gradient in place: those of a second call are computed anew.
        own = type(slopes) is Tensor and input.dtype == torch.float32
        if slopes is None:
            slopes = _value_with_slopes(input, target, *rest)[2]
        if rest[0] != "softmax":
            shape = (-1, input.shape[1], *(1 for _ in input.shape[2:]))
            factors = torch.cat((upstream.new_zeros((*upstream.shape[:-1], rest[-1])), upstream), -1).view(shape)
            gradient = slopes.mul_(factors) if own else (slopes * factors).to(input.dtype)
        elif own:
            _chain_in_place(slopes, upstream, input, target, *rest)
            gradient = slopes
        else:
            gradient = _gradient_of(upstream, slopes, input, target, *rest)
        return gradient, None, *(None for _ in rest)


_ARGUMENTS = "Tensor input, Tensor target, str errors, int? ignored, bool per_image, bool absent, int first"
_, _call = define_differentiable(f"lovasz({_ARGUMENTS}) -> (Tensor, Tensor)", _value, _Lovasz.apply)
_value_with_slopes = define(f"lovasz_with_slopes({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)", _with_slopes)
_gradient_of = define(f"lovasz_backward(Tensor upstream, Tensor slopes, {_ARGUMENTS}) -> Tensor", _gradient)
_chain_in_place = define(
    f"lovasz_backward_(Tensor(a!) slopes, Tensor upstream, {_ARGUMENTS}) -> ()", _gradient_in_place
)
