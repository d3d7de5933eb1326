"""From heatmaps to keypoints: peaks, and where between the cells they lie."""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast

Refinement: TypeAlias = Literal["none", "quarter", "dark"]
"""Where between the cells a peak lies: on its cell, a quarter of a cell towards the higher neighbour along each axis,
or at the top of the paraboloid through the logarithms around it (DARK)."""


class Peaks(NamedTuple):
    """The highest local maxima of each map, highest first."""

    cells: Int[Tensor, "*maps m 2"]
    """Column and row."""
    scores: Float[Tensor, "*maps m"]
    """Height of the map there."""
    found: Bool[Tensor, "*maps m"]
    """Whether there is such a peak; where not, the rest means nothing."""


def find_peaks(
    heatmaps: Float[Tensor, "*maps h w"], *, threshold: float = 0.1, kernel: int = 3, max_peaks: int = 30
) -> Peaks:
    """Return the local maxima of maps: cells that no other in a window around them exceeds.

    Args:
        heatmaps: ``(*maps, H, W)``.
        threshold: peaks must be above it. Associative embedding and OpenPose have 0.1.
        kernel: side of the window in cells, odd: 3 in the code of associative embedding, 5 in HigherHRNet's
            configuration.
        max_peaks: M, peaks of a map that are returned.

    Returns:
        ``(*maps, M)`` peaks, M less than `max_peaks` for maps with fewer cells.

    Raises:
        ValueError: a `kernel` that is even or below 1, or `max_peaks` below 1.
        TypeError: heatmaps that are not floating point.

    Example:
        >>> peaks = find_peaks(torch.tensor([[0.0, 0.6, 0.6, 0.0, 0.9]]), max_peaks=3)
        >>> peaks.cells[peaks.found].tolist()
        [[4, 0], [1, 0]]

    Note:
        Of neighbours of the same height the first in reading order is the peak. The published codes take all of
        them, and so find a keypoint that lies just between two cells twice.

    Reference:
        Newell et al., "Associative Embedding", 2017, arXiv 1611.05424 (the code).
    """
    check_floating("heatmaps", heatmaps)
    check_number("kernel", kernel, at_least=1)
    check_number("max_peaks", max_peaks, at_least=1)
    if not kernel % 2:
        raise ValueError(f"`kernel` must be odd, but got {kernel}")
    (maps,) = upcast(heatmaps)
    *outer, height, width = maps.shape
    count, number = math.prod(outer), min(max_peaks, height * width)
    score = maps.new_zeros(count, number)
    cell = torch.zeros(count, number, dtype=torch.int64, device=maps.device)
    found = torch.zeros_like(cell, dtype=torch.bool)
    if maps.numel():
        flat = maps.reshape(count, 1, height, width)
        _, first = F.max_pool2d(flat, kernel, stride=1, padding=kernel // 2, return_indices=True)
        peak = (first.flatten(1) == torch.arange(height * width, device=maps.device)) & (flat.flatten(1) > threshold)
        row, place = peak.nonzero().unbind(1)
        order = flat.flatten(1)[row, place].sort(descending=True, stable=True).indices
        order = order[row[order].sort(stable=True).indices]  # by map, and then by height
        row, place = row[order], place[order]
        rank = torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)
        row, place, rank = (each[rank < number] for each in (row, place, rank))
        score[row, rank], cell[row, rank], found[row, rank] = flat.flatten(1)[row, place], place, True
    cells = torch.stack((cell % max(width, 1), cell // max(width, 1)), -1)
    shape = (*outer, number)
    return Peaks(cells.view(*shape, 2), score.view(shape), found.view(shape))


def refine_peaks(
    heatmaps: Float[Tensor, "*maps h w"],
    cells: Int[Tensor, "*maps m 2"],
    refinement: Refinement = "dark",
    *,
    blur: int | None = None,
) -> Float[Tensor, "*maps m 2"]:
    """Return where peaks lie between the cells.

    Formula:
        quarter: g + ¼ sign(h(g + 1) - h(g - 1)) along each axis, where both neighbours are on the map
        dark:    g - D⁻¹ d, d and D the gradient and the Hessian of ln h at g, from central differences over two cells

    Args:
        heatmaps: ``(*maps, H, W)``.
        cells: ``(*maps, M, 2)`` column and row of the peaks.
        refinement: see `Refinement`.
        blur: for ``"dark"``, side in cells of the Gaussian that smooths the maps first, odd; its σ is 0.15 side + 0.35,
            as OpenCV's. The published code has 11 for maps that are drawn with σ = 2. None leaves them as they are,
            right for maps that are Gaussians.

    Returns:
        ``(*maps, M, 2)`` x, y in cells.

    Raises:
        ValueError: a bad `refinement` or `blur`.
        TypeError: heatmaps that are not floating point.

    Example:
        >>> x, y = torch.arange(9.0), torch.arange(9.0)[:, None]
        >>> refine_peaks(torch.exp(-((x - 4.2) ** 2 + (y - 4) ** 2) / 8), torch.tensor([[4, 4]]))
        tensor([[4.2000, 4.0000]])

    Note:
        ``"dark"`` takes differences over one cell for the curvature one cell from the border, and moves peaks on the
        border along it; the published code leaves both where they are. A peak where ln h is not strictly concave stays
        where it is. A step is at most half a cell along each axis, since the top is nearest to the highest cell; the
        published code, without a bound, is far off where another Gaussian begins. Values count as 1e-10 at least.

    Reference:
        The quarter: Newell et al., "Stacked Hourglass Networks", 2016, arXiv 1603.06937. Zhang et al.,
        "Distribution-Aware Coordinate Representation for Human Pose Estimation", 2019, arXiv 1910.06278.
    """
    check_choice("refinement", refinement, get_args(Refinement))
    check_floating("heatmaps", heatmaps)
    (maps,) = upcast(heatmaps)
    place = cells.to(maps.dtype)
    if refinement == "none" or not cells.numel():
        return place
    if blur is not None:
        maps = _blur(maps, blur)
    height, width = maps.shape[-2:]
    x, y = cells.unbind(-1)

    def at(dx: int, dy: int) -> Tensor:
        index = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        return values.flatten(-2).gather(-1, index)

    limit = cells.new_tensor([width, height])
    if refinement == "quarter":
        values = maps
        sign = torch.stack(((at(1, 0) - at(-1, 0)).sign(), (at(0, 1) - at(0, -1)).sign()), -1)
        return place + torch.where((cells >= 1) & (cells < limit - 1), sign / 4, 0)
    values = maps.clamp(min=1e-10).log()
    top = at(0, 0)
    inside, wide = ((cells >= n) & (cells < limit - n) for n in (1, 2))
    gradient = torch.stack((at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)), -1) / 2
    near = torch.stack((at(1, 0) + at(-1, 0), at(0, 1) + at(0, -1)), -1) - 2 * top[..., None]
    far = torch.stack((at(2, 0) + at(-2, 0), at(0, 2) + at(0, -2)), -1) - 2 * top[..., None]
    curvature = torch.where(wide, far / 4, near)
    mixed = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))[..., None] / 4
    concave = inside & (curvature < 0)
    determinant = curvature.prod(-1, keepdim=True) - mixed**2
    both = concave.all(-1, keepdim=True) & (determinant > 0)
    jointly = (mixed * gradient.flip(-1) - curvature.flip(-1) * gradient) / torch.where(both, determinant, 1)
    alone = -gradient / torch.where(concave, curvature, 1)
    border = concave & ~inside.all(-1, keepdim=True)
    step = torch.where(both, jointly, torch.where(border, alone, 0))
    return place + step.clamp(-0.5, 0.5)


def _blur(maps: Tensor, side: int) -> Tensor:
    """Smooth maps, and stretch each to the highest value that it had."""
    check_number("blur", side, at_least=1)
    if not side % 2:
        raise ValueError(f"`blur` must be odd, but got {side}")
    offset = torch.arange(side, dtype=maps.dtype, device=maps.device) - side // 2
    window = torch.exp(-(offset**2) / (2 * (0.15 * side + 0.35) ** 2))
    window = window / window.sum()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    smooth = F.conv2d(flat, window.view(1, 1, 1, side), padding=(0, side // 2))
    smooth = F.conv2d(smooth, window.view(1, 1, side, 1), padding=(side // 2, 0)).view(maps.shape)
    before, after = maps.amax((-2, -1), keepdim=True), smooth.amax((-2, -1), keepdim=True)
    return smooth * before / torch.where(after == 0, 1, after)
