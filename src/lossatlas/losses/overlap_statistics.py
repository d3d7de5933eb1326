"""The counts of an overlap and the pixel-wise loss beside them, by a kernel in one pass, or step by step."""

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from lossatlas import kernels
from lossatlas.checks import check_choice
from lossatlas.kernels import overlap as overlap_kernels
from lossatlas.kernels.loss import register_twin
from lossatlas.kernels.overlap import PixelLoss
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.classification import binary_costs
from lossatlas.losses.segmentation_targets import (
    Counts,
    Overlap,
    Segmentation,
    check_forms,
    first_class,
    pixel_cross_entropy,
    prepare,
)

NO_PIXELS = PixelLoss("none")
CROSS_ENTROPY = PixelLoss("cross_entropy")


def focal(gamma: float, alpha: float | None) -> PixelLoss:
    """Return the focal loss, with a factor of the foreground and one less it of the background."""
    background, foreground = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)
    return PixelLoss("focal", gamma, background, foreground)


class Statistics(NamedTuple):
    """What an overlap loss and a pixel-wise loss need to know of each image, or of the batch."""

    counts: Counts
    """``(N, C)``, or ``(C,)`` over the batch."""
    sums: Tensor
    """``(N, 2)`` or ``(2,)``: the sum of the pixel-wise loss, and the number of elements that are not ignored."""

    @property
    def pixel_loss(self) -> Tensor:
        """``(N,)`` or scalar: the mean of the loss over the elements that are not ignored, 0 where there are none."""
        loss, number = self.sums.unbind(-1)
        return loss / number.clamp(min=1)

    @property
    def valid(self) -> Tensor:
        """``(N,)`` or scalar mask: whether any element is not ignored."""
        return self.sums[..., 1] > 0


def statistics(
    input: Tensor,
    target: Tensor,
    pixel: PixelLoss = NO_PIXELS,
    *,
    multilabel: bool,
    ignore_index: int | None,
    per_image: bool,
    include_background: bool,
    overlap: Overlap,
) -> Statistics:
    """Return the soft counts of an overlap and the mean of a pixel-wise loss.

    Args:
        input: ``(N, C, *spatial)`` logits.
        target: as in `prepare`.
        pixel: the pixel-wise loss.
        multilabel: whether the channels are independent.
        ignore_index: target value of what is left out; None leaves out nothing.
        per_image: whether to count in each image, or over the batch.
        include_background: False leaves the first class out of the counts.
        overlap: the agreement of p and g.

    Returns:
        Counts and sums.

    Raises:
        ValueError: shapes that do not fit, or a bad `overlap` or `include_background`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.
    """
    check_choice("overlap", overlap, get_args(Overlap))
    target = check_forms(input, target)
    first = first_class(include_background, input.shape[1])
    exclusive = not multilabel
    if input.shape[1] == 1:  # not an expression, which would be a symbol where a compiler traces the shape
        exclusive = False
    of_indices = target.ndim < input.ndim
    by_kernel = exclusive == of_indices and kernels.usable(input, target)
    compute = overlap_kernels.overlap_statistics if by_kernel else _step_by_step
    counts, sums = compute(input, target, exclusive, ignore_index, overlap == "minimum", pixel)
    if first:
        counts = counts[:, :, first:]
    if not per_image:
        counts, sums = counts.sum(0), sums.sum(0)
    return Statistics(Counts(*counts.unbind(-2)), sums)


def _step_by_step(
    input: Tensor, target: Tensor, exclusive: bool, ignored: int | None, minimum: bool, pixel: PixelLoss
) -> tuple[Tensor, Tensor]:
    segmentation = prepare(input, target, multilabel=not exclusive, ignore_index=ignored)
    counts = segmentation.regions().counts(True, "minimum" if minimum else "product")
    valid = segmentation.valid_pixels.flatten(1)
    sums = torch.stack((_pixel_sum(segmentation, pixel), valid.sum(1).to(segmentation.logits.dtype)), 1)
    return torch.stack(tuple(counts), 1), sums


def _pixel_sum(segmentation: Segmentation, pixel: PixelLoss) -> Tensor:
    if pixel.kind == "none":
        return segmentation.logits.flatten(1).new_zeros(segmentation.logits.shape[0])
    if pixel.kind == "cross_entropy":
        loss = pixel_cross_entropy(segmentation)
    else:
        loss = pixel_focal(segmentation, pixel)
    return torch.where(segmentation.valid_pixels, loss, 0).flatten(1).sum(1)


def pixel_focal(segmentation: Segmentation, pixel: PixelLoss) -> Tensor:
    """Return the focal loss of each pixel, ``(N, *spatial)``, or ``(N, C, *spatial)`` for several labels."""
    x, g = segmentation.logits, segmentation.target
    if segmentation.exclusive:
        log_probability = x.log_softmax(1)
        loss = -g * log_probability * safe_power(-torch.expm1(log_probability), pixel.gamma)
        return torch.cat((pixel.background * loss[:, :1], pixel.foreground * loss[:, 1:]), 1).sum(1)
    hit, miss = binary_costs(x, g)
    hit = pixel.foreground * safe_power(torch.sigmoid(-x), pixel.gamma) * hit
    return segmentation.pixels(hit + pixel.background * safe_power(torch.sigmoid(x), pixel.gamma) * miss)


def _twin(
    input: Tensor, target: Tensor, exclusive: bool, ignored: int | None, minimum: bool, *pixel: object
) -> tuple[Tensor, Tensor]:
    return _step_by_step(input, target, exclusive, ignored, minimum, PixelLoss(*pixel))  # type: ignore[arg-type]


register_twin("overlap_statistics", _twin)
