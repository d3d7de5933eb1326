"""What is drawn on the cells of maps: Gaussians, and the fields of limbs."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lossatlas.kernels import native
from lossatlas.kernels.native import define, run

CENTERS = ("exact", "round", "floor")
"""Where a Gaussian stands, as in `KeypointHeatmaps`; the kernel knows the order."""

Limit: TypeAlias = Literal["box", "straight", "round"]
"""What limits a limb along its direction: its box, straight ends or round ones. The kernel knows the order."""


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
    line: tuple[tuple[float, float], float],
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
    size: tuple[int, int, int], limbs: Sequence[Tensor], limit: Limit, width: float, open_edge: bool, last: bool
) -> Tensor:
    """Return fields of unit vectors along limbs, see `lossatlas.targets.PartAffinityFields`.

    Args:
        size: number, height and width of the fields.
        limbs: of M limbs the field ``(M,)``, -1 for one that is not drawn, the start ``(M, 2)``, the unit vector
            ``(M, 2)``, the length ``(M,)``, and the box of cells that it may lie on, first and last, both ``(M, 2)``.
        limit: see `Limit`.
        width: half the width.
        open_edge: whether cells at exactly `width` are left out.
        last: whether a cell holds the vector of the last limb of its field, or the mean.

    Returns:
        ``(*size[:1], 2, *size[1:])`` float32: x and y.
    """
    shape = (size[0], 2, *size[1:])
    drawn = (each.contiguous() for each in limbs)
    maps: Tensor = torch.ops.lossatlas.fields(shape, *drawn, get_args(Limit).index(limit), width, open_edge, last)
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


def _fields(
    size: tuple[int, ...],
    plane: Tensor,
    start: Tensor,
    vector: Tensor,
    length: Tensor,
    low: Tensor,
    high: Tensor,
    limit: int,
    width: float,
    open_edge: bool,
    last: bool,
) -> Tensor:
    maps = start.new_empty(size)
    run("fields", (plane, start, vector, length, low, high, maps), (limit, width, width**2, open_edge, last))
    return maps


define(
    "fields(SymInt[] size, Tensor plane, Tensor start, Tensor vector, Tensor length, Tensor low, Tensor high, "
    "int limit, float width, bool open_edge, bool last) -> Tensor",
    _fields,
)
