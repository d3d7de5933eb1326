"""Gaussians on the cells of a map: the one place where they are drawn, for keypoints and for objects."""

import math
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.checks import check_choice, check_number
from lossatlas.kernels import maps as map_kernels

Overlap: TypeAlias = Literal["max", "sum"]
"""What a cell holds that several Gaussians reach: the highest of them, or their sum, but at most 1."""


def draw_gaussians(
    planes: int,
    size: tuple[int, int],
    plane: Int[Tensor, " m"],
    center: Float[Tensor, "m 2"],
    sigma: Float[Tensor, " m"],
    *,
    anchor: Int[Tensor, "m 2"],
    reach: Int[Tensor, " m"],
    least: float = 0.0,
    overlap: Overlap = "max",
) -> Float[Tensor, "planes h w"]:
    """Draw Gaussians of height 1 into maps of zeros.

    Formula:
        g(x, y) = exp(-((x - x₀)² + (y - y₀)²) / (2 σ²)) for cells with |x - a| ≤ r, |y - b| ≤ r and g ≥ `least`, else 0

    Args:
        planes: number of maps.
        size: height H and width W of each.
        plane: ``(M,)`` map of each Gaussian, -1 for one that is not drawn.
        center: ``(M, 2)`` x₀, y₀ in cells.
        sigma: ``(M,)`` σ in cells, above 0.
        anchor: ``(M, 2)`` the cell a, b that the window lies around; it may be outside the map.
        reach: ``(M,)`` r, half the side of the window.
        least: values below it are 0.
        overlap: see `Overlap`.

    Returns:
        ``(planes, H, W)`` of the dtype of `center`.

    Raises:
        ValueError: a bad `overlap` or `least`.

    Example:
        >>> center = torch.tensor([[1.0, 0.0]])
        >>> one = torch.tensor([1])
        >>> draw_gaussians(1, (1, 4), one - 1, center, one.float(), anchor=center.long(), reach=one)
        tensor([[[0.6065, 1.0000, 0.6065, 0.0000]]])

    Note:
        Work and memory are those of the windows: M times the largest, at most a map's.
    """
    check_choice("overlap", overlap, get_args(Overlap))
    check_number("least", least, at_least=0, below=1)
    limit = -math.log(least) if least else math.inf
    if map_kernels.usable(center, sigma, plane, anchor, reach):
        drawn = (plane, center, sigma, anchor, reach)
        return map_kernels.gaussians((planes, *size), drawn, limit, overlap == "sum")
    return _draw(planes, size, plane, center, sigma, anchor, reach, limit, overlap)


def _draw(
    planes: int,
    size: tuple[int, int],
    plane: Tensor,
    center: Tensor,
    sigma: Tensor,
    anchor: Tensor,
    reach: Tensor,
    limit: float,
    overlap: Overlap,
) -> Tensor:
    """Draw by PyTorch, with the highest exponent that is drawn."""
    height, width = size
    kept = plane >= 0
    plane, center, sigma, anchor, reach = (each[kept] for each in (plane, center, sigma, anchor, reach))
    maps = center.new_zeros(planes, height * width)
    if not len(center) or not height or not width:
        return maps.view(planes, height, width)
    side = 2 * int(reach.max()) + 1
    places, exponents, factors = [], [], []
    for axis, length in enumerate((width, height)):
        cell = window_cells(anchor[:, axis] - reach, side, length)
        exponent = (cell - center[:, axis, None]) ** 2 / (2 * sigma[:, None] ** 2)
        inside = (cell - anchor[:, axis, None]).abs() <= reach[:, None]
        places.append(cell)
        exponents.append(exponent)
        factors.append(torch.where(inside, torch.exp(-exponent), 0))
    values = factors[0][:, None, :] * factors[1][:, :, None]
    if limit < math.inf:
        values = torch.where(exponents[0][:, None, :] + exponents[1][:, :, None] <= limit, values, 0)
    reduce = "amax" if overlap == "max" else "sum"
    if side >= max(size):  # all are as large as a map
        maps = maps.scatter_reduce(0, plane[:, None].expand(-1, height * width), values.flatten(1), reduce)
    else:
        index = (plane[:, None, None] * height + places[1][:, :, None]) * width + places[0][:, None, :]
        maps = maps.flatten().scatter_reduce(0, index.flatten(), values.flatten(), reduce)
    return maps.clamp(max=1).view(planes, height, width)


def window_cells(start: Int[Tensor, " m"], side: int, length: int) -> Int[Tensor, "m span"]:
    """Return the cells along an axis of windows that begin at the given ones.

    Windows are moved, not cut: all have the same number of cells, and all of these are on the map.

    Args:
        start: ``(M,)`` first cell of each window; it may be outside the map.
        side: cells of a window.
        length: cells of the map along the axis.
    """
    span = min(side, length)
    return start.clamp(0, length - span)[:, None] + torch.arange(span, device=start.device)
