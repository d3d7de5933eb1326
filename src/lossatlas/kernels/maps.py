"""What is drawn on the cells of maps: Gaussians, and the fields of limbs."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lossatlas.kernels import native
from lossatlas.kernels.native import define, run

CENTERS = ("exact", "round", "floor")
"""Where a Gaussian stands, as in `KeypointHeatmaps`; the kernel knows the order."""

REGIONS = ("capsule", "limb", "box", "box_floor", "box_inclusive")
"""Which cells can lie on a limb, as in `PartAffinityFields`; the kernel knows the order."""

Line: TypeAlias = tuple[tuple[float, float], float]


def usable(*drawn: Tensor) -> bool:
    """Whether kernels draw what these tensors describe: float32, the first of them, and int64 on the CPU.

    They have no gradients: the twin draws what needs one, and what is nothing.
    """
    fitting = all(each.dtype in (torch.float32, torch.int64) and each.numel() > 0 for each in drawn)
    return fitting and native.usable(drawn[0], *drawn)


def gaussians(size: tuple[int, int, int], drawn: Sequence[Tensor], limit: float, add: bool) -> Tensor:
    """Return maps with Gaussians of height 1, see `lossatlas.targets.draw_gaussians`.

    Args:
        size: number, height and width of the maps.
        drawn: of M Gaussians the map ``(M,)``, -1 for one that is not drawn, the centre ``(M, 2)`` and σ ``(M,)`` in
            cells, the cell in the middle of the window ``(M, 2)``, and half the side of the window ``(M,)``.
        limit: the highest exponent that is drawn, infinite for all.
        add: whether a cell holds their sum, at most 1, or the highest.

    Returns:
        ``size`` float32.
    """
    maps: Tensor = torch.ops.lossatlas.gaussians(size, *(each.contiguous() for each in drawn), limit, add)
    return maps


def heatmaps(
    keypoints: Tensor,
    sigma: Tensor,
    reach: Tensor,
    size: tuple[int, int],
    line: Line,
    *,
    limit: float,
    add: bool,
    center: str,
    outside: bool,
    unit_peaks: bool,
) -> tuple[Tensor, Tensor]:
    """Return the heatmaps of keypoints, see `lossatlas.targets.KeypointHeatmaps`.

    Args:
        keypoints: ``(B, N, K, 3)``.
        sigma: ``(B, N)`` or the same number in another shape, in cells.
        reach: the same, half the side of the window.
        size: height and width of the maps.
        line: factors of x and y and shift from cells to pixels.
        limit: the highest exponent that is drawn, infinite for all.
        add: whether a cell holds the sum of several, at most 1, or the highest.
        center: see `CENTERS`.
        outside: whether keypoints outside the map are drawn whose window reaches it.
        unit_peaks: whether the cell that a Gaussian peaks in is 1.

    Returns:
        ``(B K, H, W)`` float32, and the map of each keypoint, ``(B, N, K)``, -1 for one that is not drawn.
    """
    (factor_x, factor_y), shift = line
    numbers = (limit, float(add), factor_x, factor_y, shift, CENTERS.index(center), outside, unit_peaks)
    drawn = (each.contiguous() for each in (keypoints, sigma, reach))
    maps, plane = torch.ops.lossatlas.heatmaps(*drawn, size, [float(number) for number in numbers])
    return maps, plane


def _heatmaps(
    keypoints: Tensor, sigma: Tensor, reach: Tensor, size: tuple[int, int], numbers: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    images, people, kinds, _ = keypoints.shape
    plane = keypoints.new_empty((images, people, kinds), dtype=torch.int64)
    maps = keypoints.new_empty((images * kinds, *size))
    run("heatmaps", (keypoints, sigma, reach, plane, maps), tuple(numbers))
    return maps, plane


define(
    "heatmaps(Tensor keypoints, Tensor sigma, Tensor reach, SymInt[] size, float[] numbers) -> (Tensor, Tensor)",
    _heatmaps,
)


def fields(
    keypoints: Tensor,
    limbs: Tensor,
    size: tuple[int, int],
    line: Line,
    *,
    region: str,
    width: float,
    open_edge: bool,
    last: bool,
) -> Tensor:
    """Return fields of unit vectors along limbs, see `lossatlas.targets.PartAffinityFields`.

    Args:
        keypoints: ``(B, N, K, 3)``.
        limbs: ``(L, 2)`` keypoints that each lies between.
        size: height and width of the maps.
        line: factors of x and y and shift from cells to pixels.
        region: see `REGIONS`.
        width: half the width of a limb.
        open_edge: whether cells at exactly `width` are left out.
        last: whether a cell holds the vector of the last person, or the mean.

    Returns:
        ``(B, L, 2, H, W)`` float32: x and y.
    """
    (factor_x, factor_y), shift = line
    numbers = (factor_x, factor_y, shift, REGIONS.index(region), width, width**2, open_edge, last)
    maps: Tensor = torch.ops.lossatlas.fields(
        keypoints.contiguous(), limbs.contiguous(), size, [float(number) for number in numbers]
    )
    return maps


def _gaussians(
    size: tuple[int, int, int],
    plane: Tensor,
    center: Tensor,
    sigma: Tensor,
    anchor: Tensor,
    reach: Tensor,
    limit: float,
    add: bool,
) -> Tensor:
    maps = center.new_empty(size)
    run("gaussians", (plane, center, sigma, anchor, reach, maps), (limit, add))
    return maps


define(
    "gaussians(SymInt[] size, Tensor plane, Tensor center, Tensor sigma, Tensor anchor, Tensor reach, float limit, "
    "bool add) -> Tensor",
    _gaussians,
)


def _fields(keypoints: Tensor, limbs: Tensor, size: tuple[int, int], numbers: tuple[float, ...]) -> Tensor:
    maps = keypoints.new_empty((keypoints.shape[0], limbs.shape[0], 2, *size))
    run("fields", (keypoints, limbs, maps), tuple(numbers))
    return maps


define("fields(Tensor keypoints, Tensor limbs, SymInt[] size, float[] numbers) -> Tensor", _fields)
