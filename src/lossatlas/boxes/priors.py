"""The places that predictions stand for: grids of points and of anchor boxes.

Predictions are in one order everywhere: level by level as the feature maps are listed, row by row within a level, and
the anchors of a cell side by side. A head's ``(B, A * C, H, W)`` output gets into it by
``output.view(B, A, C, H, W).permute(0, 3, 4, 1, 2).reshape(B, -1, C)`` and concatenation over the levels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.checks import check_number
from lossatlas.typing import Boxes

OCTAVE_SCALES = (1.0, 2.0 ** (1 / 3), 2.0 ** (2 / 3))
"""The three sizes per octave of RetinaNet."""

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height over width of RetinaNet's anchors."""


def point_grid(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "p 2"], Float[Tensor, " p"]]:
    """Return the centres of the cells of several feature maps.

    Formula:
        (x, y) = ((column + 1/2) · stride, (row + 1/2) · stride)

    Args:
        sizes: height and width of each feature map, in cells.
        strides: pixels between two cells of each feature map.
        device: where the tensors shall be.
        dtype: floating-point dtype of both tensors.

    Returns:
        Points ``(P, 2)``, x and y in pixels, and strides ``(P,)`` in pixels: level by level, row by row.

    Raises:
        ValueError: as many strides as sizes are needed; strides are above 0 and sizes not negative.

    Example:
        >>> points, strides = point_grid([(1, 2), (1, 1)], [8, 16])
        >>> points
        tensor([[ 4.,  4.],
                [12.,  4.],
                [ 8.,  8.]])
        >>> strides
        tensor([ 8.,  8., 16.])

    Reference:
        Tian et al., "FCOS", 2019, arXiv 1904.01355, section 3.1 (which rounds half a stride down; the same for every
        even stride).
    """
    _check_levels(sizes, strides)
    points, steps = [], []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) * stride
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) * stride
        points.append(torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1))
        steps.append(torch.full((height * width,), stride, device=device, dtype=dtype))
    return torch.cat(points), torch.cat(steps)


def anchor_grid(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    base_size: float = 4.0,
    octave_scales: Sequence[float] = OCTAVE_SCALES,
    aspect_ratios: Sequence[float] = ASPECT_RATIOS,
    offset: float = 0.5,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Boxes:
    """Return the anchor boxes of several feature maps.

    Formula:
        side = base_size · stride · scale,  width = side / √ratio,  height = side · √ratio
        centre = ((column + offset) · stride, (row + offset) · stride)

    Args:
        sizes: height and width of each feature map, in cells.
        strides: pixels between two cells of each feature map.
        base_size: side of a square anchor of scale 1, in strides.
        octave_scales: factors of the side.
        aspect_ratios: height over width; the area stays the same.
        offset: place of the centre within its cell, from 0 to 1.
        device: where the tensor shall be.
        dtype: floating-point dtype.

    Returns:
        ``(P, 4)`` xyxy boxes in pixels: level by level, row by row; in a cell, for each aspect ratio in turn, the
        scales in turn.

    Raises:
        ValueError: as many strides as sizes are needed; all lengths, scales and ratios are above 0.

    Example:
        >>> anchor_grid([(1, 1)], [8], octave_scales=[1], aspect_ratios=[1, 4])
        tensor([[-12., -12.,  20.,  20.],
                [ -4., -28.,  12.,  36.]])

    Note:
        Sizes are not rounded. torchvision rounds half the sides to whole pixels, and it and detectron2 put the centre
        into the corner of the cell (``offset=0``), half a stride off the centre of what the cell sees.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, section 4 (anchors).
    """
    _check_levels(sizes, strides)
    check_number("base_size", base_size, above=0)
    check_number("offset", offset, at_least=0, at_most=1)
    for name, values in (("octave_scales", octave_scales), ("aspect_ratios", aspect_ratios)):
        for value in values:
            check_number(name, value, above=0)
    shapes = torch.tensor(
        [(scale / ratio**0.5, scale * ratio**0.5) for ratio in aspect_ratios for scale in octave_scales],
        device=device,
        dtype=dtype,
    ).reshape(-1, 2)
    points, steps = point_grid(sizes, strides, device=device, dtype=dtype)
    centers = points + (offset - 0.5) * steps[:, None]
    sides = base_size * steps[:, None, None] * shapes
    boxes = torch.cat((centers[:, None].expand_as(sides), sides), dim=-1)
    return convert(boxes.reshape(-1, 4), "cxcywh", "xyxy")


def _check_levels(sizes: Sequence[tuple[int, int]], strides: Sequence[float]) -> None:
    if len(sizes) != len(strides):
        raise ValueError(f"`strides` must have one entry for each of the {len(sizes)} `sizes`, but has {len(strides)}")
    if not sizes:
        raise ValueError("`sizes` must list at least one feature map, but is empty")
    for height, width in sizes:
        check_number("sizes", height, at_least=0)
        check_number("sizes", width, at_least=0)
    for stride in strides:
        check_number("strides", stride, above=0)
