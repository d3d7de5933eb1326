"""Maps of distances for the losses that look at boundaries, from the Euclidean distance transform of scipy.

The losses compute them from the target on every call, on the CPU; a data loader's workers can do so once, with the
functions here, and hand the maps over. scipy comes with the extra ``lossatlas[lab]``.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.checks import check_integer, check_number
from lossatlas.losses.segmentation_targets import prepare


def scipy_ndimage() -> Any:
    """Import `scipy.ndimage`.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("distance maps need scipy: install the extra, pip install 'lossatlas[lab]'") from error
    return ndimage


@torch.library.custom_op("lossatlas::distance_to", mutates_args=())
def distance_to(mask: Tensor, spacing: list[float], dtype: torch.dtype) -> Tensor:
    """Return the distance of each pixel to the nearest pixel of the mask of its image and channel.

    Args:
        mask: ``(N, C, *spatial)`` booleans.
        spacing: size of a pixel along each spatial axis.
        dtype: of the result.

    Returns:
        ``(N, C, *spatial)`` distances in the unit of `spacing`; infinity where the mask is empty.
    """
    ndimage = scipy_ndimage()
    distance = torch.full(mask.shape, torch.inf, dtype=dtype)
    for plane, found in zip(distance.flatten(0, 1), mask.flatten(0, 1).cpu(), strict=True):
        if found.any():
            plane.copy_(torch.from_numpy(ndimage.distance_transform_edt(~found.numpy(), sampling=spacing)))
    return distance.to(mask.device)


@distance_to.register_fake
def _(mask: Tensor, spacing: list[float], dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    return torch.empty_like(mask, dtype=dtype, memory_format=torch.contiguous_format)


def pixel_size(spacing: Sequence[float] | None, axes: int) -> list[float]:
    """Return the size of a pixel along each spatial axis.

    Raises:
        ValueError: a `spacing` of another length, or one that is not above 0.
    """
    if spacing is None:
        return [1.0] * axes
    if len(spacing) != axes:
        raise ValueError(f"`spacing` must have {axes} numbers, one for each spatial axis, but got {len(spacing)}")
    for size in spacing:
        check_number("spacing", size, above=0)
    return [float(size) for size in spacing]


def distance_across(inside: Tensor, outside: Tensor, spacing: list[float], dtype: torch.dtype) -> Tensor:
    """Return the distance of each pixel to the nearest one on the other side, 0 where there is none.

    Args:
        inside: ``(N, C, *spatial)`` mask of a region.
        outside: mask of what is not in it; what is in neither mask, an ignored pixel, is on no side.
        spacing: size of a pixel along each spatial axis.
        dtype: of the result.

    Returns:
        ``(N, C, *spatial)`` distances, at least the size of a pixel; 0 in a region that fills its image or is empty.
    """
    distance = torch.where(inside, distance_to(outside, spacing, dtype), distance_to(inside, spacing, dtype))
    return torch.where(distance.isinf(), 0, distance)


def signed_distances(inside: Tensor, outside: Tensor, spacing: list[float], dtype: torch.dtype) -> Tensor:
    """Return the distance of each pixel to a region, at most 0 inside it: 0 at its innermost border, then negative."""
    distance = distance_across(inside, outside, spacing, dtype)
    return torch.where(inside, (min(spacing) - distance).clamp(max=0), distance)


def inverse_distances(inside: Tensor, outside: Tensor, spacing: list[float], dtype: torch.dtype) -> Tensor:
    """Return (max d - d) / max d within each region, d the distance to its outside; 0 outside it."""
    distance = torch.where(inside, distance_across(inside, outside, spacing, dtype), 0)
    # A zero more changes no largest distance, and gives an image without pixels one.
    largest = F.pad(distance.flatten(2), (0, 1)).amax(-1).view(*distance.shape[:2], *[1] * (distance.ndim - 2))
    share = torch.where(largest > 0, distance / torch.where(largest > 0, largest, 1), 1)
    return torch.where(inside, 1 - share, 0)


def signed_distance_map(
    target: Tensor,
    classes: int,
    *,
    spacing: Sequence[float] | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """Return the signed distance of each pixel to each class, the `distance_map` of `boundary_loss`.

    Args:
        target: ``(N, *spatial)`` class indices of an integer dtype, or ``(N, C, *spatial)`` one-hot values, floating
            point or boolean.
        classes: C, the number of channels of the network.
        spacing: size of a pixel along each spatial axis; None is 1.
        ignore_index: target value of pixels that belong to no class.

    Returns:
        ``(N, C, *spatial)`` float32: the distance to the class outside it, minus the distance to the outside plus one
        pixel inside it; 0 everywhere for a class that is absent or fills the image.

    Raises:
        ValueError: shapes or a `spacing` that do not fit.
        ImportError: scipy is not installed.

    Example:
        >>> signed_distance_map(torch.tensor([[0, 1, 1, 1, 0, 0]]), 1)
        tensor([[[ 1.,  0., -1.,  0.,  1.,  2.]]])
    """
    inside, outside = _sides(target, classes, ignore_index)
    return signed_distances(inside, outside, pixel_size(spacing, inside.ndim - 2), torch.float32)


def distance_across_map(
    target: Tensor,
    classes: int,
    *,
    spacing: Sequence[float] | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """Return the distance of each pixel to the other side of each class, the `distance_map` of `hausdorff_dt_loss`.

    Args:
        target: ``(N, *spatial)`` class indices of an integer dtype, or ``(N, C, *spatial)`` one-hot values, floating
            point or boolean.
        classes: C, the number of channels of the network.
        spacing: size of a pixel along each spatial axis; None is 1.
        ignore_index: target value of pixels that belong to no class.

    Returns:
        ``(N, C, *spatial)`` float32; 0 everywhere for a class that is absent or fills the image.

    Raises:
        ValueError: shapes or a `spacing` that do not fit.
        ImportError: scipy is not installed.

    Example:
        >>> distance_across_map(torch.tensor([[0, 1, 1, 1, 0, 0]]), 1)
        tensor([[[1., 1., 2., 1., 1., 2.]]])
    """
    inside, outside = _sides(target, classes, ignore_index)
    return distance_across(inside, outside, pixel_size(spacing, inside.ndim - 2), torch.float32)


def inverse_distance_map(
    target: Tensor,
    classes: int,
    *,
    multilabel: bool = False,
    spacing: Sequence[float] | None = None,
    ignore_index: int | None = -100,
) -> Tensor:
    """Return how near each pixel is to the border of its region, `distance_map` of `distance_penalized_cross_entropy`.

    Args:
        target: ``(N, *spatial)`` class indices of an integer dtype, or ``(N, C, *spatial)`` one-hot values, floating
            point or boolean.
        classes: C, the number of channels of the network.
        multilabel: whether the channels are independent.
        spacing: size of a pixel along each spatial axis; None is 1.
        ignore_index: target value of pixels that belong to no class.

    Returns:
        ``(N, *spatial)`` float32, ``(N, C, *spatial)`` for several labels: (max d - d) / max d from 0 to 1, d the
        distance to the nearest pixel of another class and max d the largest of the class in the image.

    Raises:
        ValueError: shapes or a `spacing` that do not fit.
        ImportError: scipy is not installed.

    Example:
        >>> inverse_distance_map(torch.tensor([[0, 0, 0, 0, 1, 1]]), 2)
        tensor([[0.0000, 0.2500, 0.5000, 0.7500, 0.5000, 0.0000]])
    """
    inside, outside = _sides(target, classes, ignore_index, multilabel)
    size = pixel_size(spacing, inside.ndim - 2)
    return own_inverse_distances(inside, outside, not multilabel and classes > 1, size, torch.float32)


def own_inverse_distances(
    inside: Tensor, outside: Tensor, exclusive: bool, spacing: list[float], dtype: torch.dtype
) -> Tensor:
    """Return `inverse_distances` of the region that each pixel lies in: its class, or each channel's 1 or 0."""
    own = inverse_distances(inside, outside, spacing, dtype)
    if not exclusive:
        own = own + inverse_distances(outside, inside, spacing, dtype)
    return own.sum(1) if exclusive or own.shape[1] == 1 else own


def border_weight_map(
    target: Tensor,
    *,
    border_weight: float = 10.0,
    sigma: float = 5.0,
    instances: bool = False,
    ignore_index: int | None = -100,
) -> Tensor:
    """Return the weight of narrow gaps between objects, the `border_map` of `border_weighted_cross_entropy`.

    Formula:
        w₀ exp(-(d₁ + d₂)² / (2 σ²)) in the background, 0 in objects; d₁, d₂: distances to the two nearest objects

    Args:
        target: ``(N, *spatial)`` integers, 0 for background. Objects are the connected parts (with diagonals) of what
            is not background, or with `instances` the pixels of each number.
        border_weight: w₀, at least 0.
        sigma: σ > 0 in pixels.
        instances: whether `target` numbers the objects.
        ignore_index: target value of pixels that belong to nothing.

    Returns:
        ``(N, *spatial)`` float32; 0 with fewer than two objects.

    Raises:
        ValueError: a negative `border_weight`, or a `sigma` that is not above 0.
        TypeError: a `target` that does not hold integers.
        ImportError: scipy is not installed.

    Example:
        >>> border_weight_map(torch.tensor([[1, 1, 0, 1, 0, 0]]))
        tensor([[0.0000, 0.0000, 9.2312, 0.0000, 7.2615, 4.8675]])
    """
    check_integer("target", target)
    check_number("border_weight", border_weight, at_least=0)
    check_number("sigma", sigma, above=0)
    return border_weights(target, border_weight, sigma, instances, ignore_index, torch.float32)


def border_weights(
    target: Tensor,
    border_weight: float,
    sigma: float,
    instances: bool,
    ignore_index: int | None,
    dtype: torch.dtype,
) -> Tensor:
    """Return `border_weight_map` in another dtype, its arguments checked."""
    background = target == 0
    if ignore_index is not None:
        background = background | (target == ignore_index)
    numbers = torch.where(background, 0, target.long())
    both = two_nearest(numbers if instances else numbers.clamp(0, 1), instances, dtype)
    return torch.where(background, border_weight * torch.exp(-(both**2) / (2 * sigma**2)), 0)


@torch.library.custom_op("lossatlas::two_nearest", mutates_args=())
def two_nearest(target: Tensor, instances: bool, dtype: torch.dtype) -> Tensor:
    """Return the sum of the distances of each pixel to the two nearest objects; infinity with fewer than two.

    Args:
        target: ``(N, *spatial)`` int64, 0 for background.
        instances: whether `target` numbers the objects; else they are its connected parts.
        dtype: of the result.
    """
    ndimage = scipy_ndimage()
    structure = ndimage.generate_binary_structure(target.ndim - 1, target.ndim - 1)
    total = torch.full(target.shape, torch.inf, dtype=dtype)
    for plane, image in zip(total, target.cpu(), strict=True):
        numbers = image if instances else torch.from_numpy(ndimage.label(image.numpy(), structure)[0])
        first, second = plane.clone(), plane.clone()
        for number in numbers.unique():
            if number == 0:
                continue
            distance = torch.from_numpy(ndimage.distance_transform_edt((numbers != number).numpy())).to(dtype)
            second = torch.minimum(second, torch.maximum(first, distance))
            first = torch.minimum(first, distance)
        plane.copy_(first + second)
    return total.to(target.device)


@two_nearest.register_fake
def _(target: Tensor, instances: bool, dtype: torch.dtype) -> Tensor:  # noqa: ARG001
    return torch.empty_like(target, dtype=dtype, memory_format=torch.contiguous_format)


def _sides(target: Tensor, classes: int, ignore_index: int | None, multilabel: bool = False) -> tuple[Tensor, Tensor]:
    """Return the masks of what is inside and outside each class, from a target without logits."""
    axes = 2 if target.is_floating_point() or target.dtype == torch.bool else 1
    logits = torch.zeros(len(target), classes, *target.shape[axes:], device=target.device)
    segmentation = prepare(logits, target, multilabel=multilabel, ignore_index=ignore_index)
    inside = segmentation.valid & (segmentation.target > 0.5)
    return inside, segmentation.valid & ~inside
