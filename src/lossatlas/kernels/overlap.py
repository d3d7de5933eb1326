"""What overlap losses count, and the pixel-wise loss that is added to them, in one pass each way."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossatlas.kernels.loss import define_differentiable, gradient_of_twin
from lossatlas.kernels.native import define, ignored_number, run

Statistics = tuple[Tensor, Tensor]
"""Counts ``(N, 5, C)`` (true positives, false positives, false negatives, Σ g, pixels that are not ignored), and
``(N, 2)``, the sum of the pixel-wise loss and how many elements it has; float32."""

_PIXEL = {"none": 0, "cross_entropy": 1, "focal": 2}


class PixelLoss(NamedTuple):
    """The pixel-wise loss."""

    kind: str
    """``"none"``, ``"cross_entropy"`` or ``"focal"``."""
    gamma: float = 0.0
    background: float = 1.0
    """Factor of the first class, or of the answer no."""
    foreground: float = 1.0


def overlap_statistics(
    input: Tensor, target: Tensor, exclusive: bool, ignored: int | None, minimum: bool, pixel: PixelLoss
) -> Statistics:
    """Return what an overlap loss and a pixel-wise loss sum over each image.

    Args:
        input: ``(N, C, *spatial)`` logits, which `lossatlas.kernels.usable` has accepted.
        target: ``(N, *spatial)`` class indices, or for independent channels ``(N, C, *spatial)`` from 0 to 1.
        exclusive: whether the channels exclude each other.
        ignored: target value of what is left out.
        minimum: whether the agreement of p and g is their minimum, not their product.
        pixel: the pixel-wise loss.

    Returns:
        Counts and sums.

    Raises:
        ValueError: an index that is no class.
    """
    result: Statistics = _call(input, target, exclusive, ignored, minimum, *pixel)
    return result


def _run(
    input: Tensor,
    target: Tensor,
    rest: tuple[Any, ...],
    results: tuple[Tensor | None, Tensor | None],
    upstream: tuple[Tensor | None, Tensor | None],
    gradient: Tensor | None,
) -> None:
    exclusive, ignored, minimum, kind, gamma, background, foreground = rest
    numbers = (ignored_number(ignored), minimum, _PIXEL[kind], gamma, background, foreground)
    kernel = "overlap_exclusive" if exclusive else "overlap_independent"
    run(kernel, (input, target, *results, *upstream, gradient), numbers)


def _statistics(input: Tensor, target: Tensor, *rest: Any) -> Statistics:
    counts = input.new_empty((input.shape[0], 5, input.shape[1]), dtype=torch.float32)
    pixels = input.new_empty((input.shape[0], 2), dtype=torch.float32)
    _run(input, target, rest, (counts, pixels), (None, None), None)
    return counts, pixels


def _gradient(upstream: Tensor, upstream_pixels: Tensor, input: Tensor, target: Tensor, *rest: Any) -> Tensor:
    gradient = torch.empty_like(input)
    slopes = upstream.contiguous(), upstream_pixels.contiguous()
    _run(input, target, rest, (None, None), slopes, gradient)
    return gradient


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, *rest: Any) -> Statistics:
        ctx.save_for_backward(input, target)
        ctx.rest = rest
        result: Statistics = _value_of(input, target, *rest)
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, upstream_pixels: Tensor) -> tuple[Tensor | None, ...]:
        input, target = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = gradient_of_twin("overlap_statistics", [upstream, upstream_pixels], input, target, *ctx.rest)
        else:
            gradient = _gradient_of(upstream, upstream_pixels, input, target, *ctx.rest)
        return gradient, None, *(None for _ in ctx.rest)


_ARGUMENTS = (
    "Tensor input, Tensor target, bool exclusive, int? ignored, bool minimum, str pixel, float gamma, "
    "float background, float foreground"
)
_value_of, _call = define_differentiable(
    f"overlap_statistics({_ARGUMENTS}) -> (Tensor, Tensor)", _statistics, _Statistics.apply
)
_gradient_of = define(
    f"overlap_statistics_backward(Tensor upstream, Tensor upstream_pixels, {_ARGUMENTS}) -> Tensor", _gradient
)
