"""The places that predictions stand for: grids of points and of anchor boxes.

Predictions are in one order everywhere: level by level as the feature maps are listed, row by row within a level, and
the anchors of a cell side by side. A head's ``(B, A * C, H, W)`` output gets into it by
``output.view(B, A, C, H, W).permute(0, 3, 4, 1, 2).reshape(B, -1, C)`` and concatenation over the levels.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.checks import check_choice, check_number
from lossatlas.typing import Boxes

Pyramid: TypeAlias = Literal["fpn", "c4"]

OCTAVE_SCALES = (1.0, 2.0 ** (1 / 3), 2.0 ** (2 / 3))
"""The three sizes per octave of RetinaNet."""

ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height over width of RetinaNet's anchors."""

SSD_ASPECT_RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
"""Long over short side of the default boxes of SSD300's six levels, besides the squares."""

YOLOV2_ANCHORS = (
    (
        (18.32736, 21.67632),
        (59.98272, 66.00096),
        (106.82976, 175.17888),
        (252.25024, 112.88896),
        (312.65664, 293.38496),
    ),
)
"""Width and height in pixels at stride 32 of YOLOv2's anchors for COCO: its configuration's, in cells, times 32."""

YOLOV3_ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
"""Width and height in pixels at strides 8, 16 and 32 of YOLOv3's anchors: k-means on COCO at 416 pixels."""

YOLOV4_ANCHORS = (
    ((12.0, 16.0), (19.0, 36.0), (40.0, 28.0)),
    ((36.0, 75.0), (76.0, 55.0), (72.0, 146.0)),
    ((142.0, 110.0), (192.0, 243.0), (459.0, 401.0)),
)
"""Width and height in pixels at strides 8, 16 and 32 of YOLOv4's anchors for COCO, from its configuration."""

YOLOV5_ANCHORS = YOLOV3_ANCHORS
"""YOLOv5's P5 models take the numbers of YOLOv3, although they train at 640 pixels."""


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


def faster_rcnn_anchors(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    *,
    pyramid: Pyramid = "fpn",
    offset: float = 0.5,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Boxes:
    """Return the anchors of Faster R-CNN's region proposal network.

    Formula:
        "fpn": side = 8 · stride; 32 to 512 pixels for strides 4 to 64
        "c4":  side = 8, 16 and 32 · stride; 128, 256 and 512 pixels for stride 16
        each in the shapes height / width = 0.5, 1, 2

    Args:
        sizes: height and width of each feature map, in cells.
        strides: pixels between two cells of each feature map.
        pyramid: ``"fpn"`` for one size on each of several levels, ``"c4"`` for all sizes on one level.
        offset: place of the centre within its cell, from 0 to 1; detectron2 and torchvision have 0.
        device: where the tensor shall be.
        dtype: floating-point dtype.

    Returns:
        ``(P, 4)`` xyxy boxes in pixels, in the order of `anchor_grid`.

    Raises:
        ValueError: as `anchor_grid`, or an unknown `pyramid`.

    Example:
        >>> faster_rcnn_anchors([(1, 1)], [4])[1]
        tensor([-14., -14.,  18.,  18.])

    Reference:
        Ren et al., "Faster R-CNN", 2015, arXiv 1506.01497, section 3.3; Lin et al., "Feature Pyramid Networks", 2016,
        arXiv 1612.03144, section 4.1.
    """
    check_choice("pyramid", pyramid, get_args(Pyramid))
    scales = (1.0,) if pyramid == "fpn" else (1.0, 2.0, 4.0)
    return anchor_grid(sizes, strides, base_size=8.0, octave_scales=scales, offset=offset, device=device, dtype=dtype)


def ssd_anchors(
    sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    *,
    min_scale: float = 0.2,
    max_scale: float = 0.9,
    scales: Sequence[float] | None = None,
    aspect_ratios: Sequence[Sequence[float]] = SSD_ASPECT_RATIOS,
    strides: Sequence[float] | None = None,
    clip: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Boxes:
    """Return SSD's default boxes.

    Formula:
        s_k = min_scale + (k - 1) (max_scale - min_scale) / (m - 1),  k = 1, ..., m + 1      m: number of levels
        on level k: squares of s_k and √(s_k s_{k+1}), and for each ratio a: s_k √a by s_k / √a and the other way round
        sides are fractions of the image's width and height; centre = (column + 1/2, row + 1/2) cells

    Args:
        sizes: height and width of each feature map, in cells.
        image_size: height and width of the image in pixels.
        min_scale: s of the first level.
        max_scale: s of the last level; of a single level, the next s.
        scales: s of all levels and one more, instead of the formula.
        aspect_ratios: of each level, long over short side of the boxes besides the squares.
        strides: pixels between two cells of each level; None divides the image evenly.
        clip: whether sides are cut to those of the image.
        device: where the tensor shall be.
        dtype: floating-point dtype.

    Returns:
        ``(P, 4)`` xyxy boxes in pixels: level by level, row by row; in a cell in the order of the formula.

    Raises:
        ValueError: lists of other lengths than `sizes` asks for, or a number out of its range.

    Example:
        >>> ssd_anchors([(1, 1)], (100, 200), scales=[0.2, 0.8], aspect_ratios=[[4]])
        tensor([[ 80.,  40., 120.,  60.],
                [ 60.,  30., 140.,  70.],
                [ 60.,  45., 140.,  55.],
                [ 90.,  30., 110.,  70.]])

    Note:
        The paper does not say what follows the last s; here the formula goes on, as in the authors' code. torchvision
        takes 1, and clips by default. The authors' SSD300 has s = 0.1 at the first level and the formula from the
        second on (0.2 to 0.88 in steps of 0.17): ``scales=(0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)``.

    Reference:
        Liu et al., "SSD", 2015, arXiv 1512.02325, equation 4 and section 2.2.
    """
    height, width = image_size
    check_number("image_size[0]", height, above=0)
    check_number("image_size[1]", width, above=0)
    if scales is None:
        check_number("min_scale", min_scale, above=0)
        check_number("max_scale", max_scale, above=0)
        step = (max_scale - min_scale) / max(len(sizes) - 1, 1)
        scales = [min_scale + k * step for k in range(len(sizes) + 1)]
    _check_length("scales", scales, len(sizes) + 1)
    _check_length("aspect_ratios", aspect_ratios, len(sizes))
    if strides is not None:
        _check_length("strides", strides, len(sizes))
    extent = torch.tensor([width, height], device=device, dtype=dtype)
    levels = []
    for level, (rows, columns) in enumerate(sizes):
        shapes = extent.new_tensor(_ssd_shapes(scales[level], scales[level + 1], aspect_ratios[level]))
        points, _ = point_grid([(rows, columns)], [1.0], device=device, dtype=dtype)
        even = extent / points.new_tensor([max(columns, 1), max(rows, 1)])
        centers = points * (even if strides is None else strides[level])
        levels.append(_boxes_on(centers, extent * (shapes.clamp(max=1) if clip else shapes)))
    return torch.cat(levels)


def yolo_anchors(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[float],
    anchors: Sequence[Sequence[tuple[float, float]]] = YOLOV3_ANCHORS,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Boxes:
    """Return YOLO's anchors: on each level boxes of given shapes around the centres of the cells.

    Args:
        sizes: height and width of each feature map, in cells.
        strides: pixels between two cells of each feature map.
        anchors: of each level, width and height in pixels of its anchors, such as `YOLOV3_ANCHORS` for the strides 8,
            16 and 32, or what `kmeans_anchors` finds.
        device: where the tensor shall be.
        dtype: floating-point dtype.

    Returns:
        ``(P, 4)`` xyxy boxes in pixels: level by level, row by row, the anchors of a cell in the given order.

    Raises:
        ValueError: lists of different lengths, or a number that is not above 0.

    Example:
        >>> yolo_anchors([(1, 1)], [8], [[(10, 6), (2, 4)]])
        tensor([[-1.,  1.,  9.,  7.],
                [ 3.,  2.,  5.,  6.]])

    Reference:
        Redmon and Farhadi, "YOLOv3", 2018, arXiv 1804.02767, section 2.3.
    """
    _check_levels(sizes, strides)
    _check_length("anchors", anchors, len(sizes))
    levels = []
    for size, stride, shapes in zip(sizes, strides, anchors, strict=True):
        for side in (side for shape in shapes for side in shape):
            check_number("anchors", side, above=0)
        points, _ = point_grid([size], [stride], device=device, dtype=dtype)
        levels.append(_boxes_on(points, torch.tensor(shapes, device=device, dtype=dtype).reshape(-1, 2)))
    return torch.cat(levels)


def _ssd_shapes(scale: float, next_scale: float, aspect_ratios: Sequence[float]) -> list[tuple[float, float]]:
    between = math.sqrt(scale * next_scale)
    shapes = [(scale, scale), (between, between)]
    for ratio in aspect_ratios:
        check_number("aspect_ratios", ratio, above=0)
        long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(long, short), (short, long)]
    return shapes


def _boxes_on(centers: Tensor, sides: Tensor) -> Tensor:
    """Return boxes of all the shapes ``(A, 2)`` around each of the centres ``(N, 2)``, as ``(N · A, 4)`` xyxy."""
    pairs = centers[:, None].expand(-1, len(sides), 2), sides.expand(len(centers), -1, 2)
    return convert(torch.cat(pairs, dim=-1).reshape(-1, 4), "cxcywh", "xyxy")


def _check_length(name: str, values: Sequence[object], length: int) -> None:
    if len(values) != length:
        raise ValueError(f"`{name}` must have {length} entries for these `sizes`, but has {len(values)}")


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
