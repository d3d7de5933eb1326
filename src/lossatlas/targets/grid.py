"""Where the cells of a map lie in the image: which coordinate of a cell is which pixel."""

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast

Convention: TypeAlias = Literal["center", "index", "area", "ends"]
"""Which pixel x a cell g lies at, with s the stride:

* center: x = s g + s/2 - ½. A cell lies in the middle of its s x s pixels, whose middles have whole numbers. It is the
  only one of these under which a flipped image has the flipped map; OpenPose's heatmaps.
* index: x = s g. A cell lies at the first of its pixels: mmpose, HigherHRNet, and OpenPose's part affinity fields,
  which so lie (s - 1) / (2 s) of a cell beside its heatmaps.
* area: x = s g + s/2. A cell lies in the middle of its pixels, whose edges have whole numbers, as for boxes.
* ends: x = g (s W - 1) / (W - 1). The first cell lies at the first pixel and the last at the last: UDP.
"""

Points: TypeAlias = Float[Tensor, "*points 2"]


def to_cells(points: Points, size: tuple[int, int], stride: float, convention: Convention = "center") -> Points:
    """Return where pixels lie among the cells of a map.

    Args:
        points: ``(*points, 2)`` x, y in pixels.
        size: height and width of the map in cells.
        stride: pixels between two cells.
        convention: see `Convention`.

    Returns:
        ``(*points, 2)`` x, y in cells, from 0 for the first.

    Raises:
        ValueError: a `stride` that is not above 0, or a bad `convention`.

    Example:
        >>> to_cells(torch.tensor([[9.5, 13.5]]), (16, 16), 4)
        tensor([[2., 3.]])
    """
    check_floating("points", points)
    (points,) = upcast(points)
    factors, shift = line(size, stride, convention)
    return (points - shift) / points.new_tensor(factors)


def to_pixels(cells: Points, size: tuple[int, int], stride: float, convention: Convention = "center") -> Points:
    """Return which pixels the cells of a map lie at: the inverse of `to_cells`.

    Args:
        cells: ``(*points, 2)`` x, y in cells, from 0 for the first.
        size: height and width of the map in cells.
        stride: pixels between two cells.
        convention: see `Convention`.

    Returns:
        ``(*points, 2)`` x, y in pixels.

    Raises:
        ValueError: a `stride` that is not above 0, or a bad `convention`.

    Example:
        >>> to_pixels(torch.tensor([[2.0, 3.0]]), (16, 16), 4, "index")
        tensor([[ 8., 12.]])
    """
    check_floating("cells", cells)
    (cells,) = upcast(cells)
    factors, shift = line(size, stride, convention)
    return cells * cells.new_tensor(factors) + shift


def cell_centers(
    size: tuple[int, int], stride: float, convention: Convention = "center", *, device: torch.device | None = None
) -> tuple[Float[Tensor, " w"], Float[Tensor, " h"]]:
    """Return the pixels ``(W,)`` and ``(H,)`` at which the columns and the rows of a map lie."""
    longest = torch.arange(max(size), dtype=torch.float32, device=device)
    pixels = to_pixels(torch.stack((longest, longest), 1), size, stride, convention)
    return pixels[: size[1], 0], pixels[: size[0], 1]


def line(size: tuple[int, int], stride: float, convention: Convention) -> tuple[tuple[float, float], float]:
    """Return the factors of x and y and the shift of the line from cells to pixels."""
    check_choice("convention", convention, get_args(Convention))
    check_number("stride", stride, above=0)
    factors = (float(stride), float(stride))
    if convention == "ends":
        height, width = ((stride * cells - 1) / max(cells - 1, 1) for cells in size)
        factors = (width, height)
    return factors, {"center": stride / 2 - 0.5, "area": stride / 2}.get(convention, 0.0)
