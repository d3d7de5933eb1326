"""How YOLO networks write boxes: the centre within its cell, the sides as factors of an anchor or of the stride.

As the coders of `lossatlas.boxes.coders`, these are differentiable both ways, compute in float32 at least, are finite
for every finite argument, and broadcast. Boxes, anchors and points are in pixels; logits have no unit. The cell of an
anchor or a point is the square of one stride around its centre, as `yolo_anchors` and `point_grid` place them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.boxes.coders import MAX_LOG_SCALE
from lossatlas.boxes.formats import AnyBoxes, Points, convert
from lossatlas.checks import check_boxes, check_floating, check_integer, check_number
from lossatlas.dtypes import upcast

Strides: TypeAlias = Float[Tensor, "*#batch"]


@dataclass(frozen=True)
class YOLOv1Coder:
    """Boxes as YOLOv1 writes them: plain numbers, the centre within its cell and the roots of the sides.

    Formula:
        x = (column + t_x) · W / columns      w = t_w² · W
        y = (row    + t_y) · H / rows         h = t_h² · H      x, y: centre; W, H: width and height of the image

    Args:
        grid: rows and columns of cells that the image is divided into.

    Raises:
        ValueError: fewer than one row or column.

    Example:
        >>> import torch
        >>> coder, cells = YOLOv1Coder(grid=(2, 2)), torch.tensor([1])
        >>> coder.decode(torch.tensor([[0.5, 0.5, 0.5, 1.0]]), cells, (40, 80))
        tensor([[ 50., -10.,  70.,  30.]])
        >>> coder.encode(torch.tensor([[50.0, -10.0, 70.0, 30.0]]), cells, (40, 80))
        tensor([[0.5000, 0.5000, 0.5000, 1.0000]])

    Note:
        Nothing limits the numbers: the network ends in a linear layer. A negative t_w stands for the same side as a
        positive one. A side shorter than the dtype's epsilon is encoded as if it had that length.

    Reference:
        Redmon et al., "You Only Look Once", 2015, arXiv 1506.02640, section 2; that the network puts out the roots is
        only in the authors' code.
    """

    grid: tuple[int, int] = (7, 7)

    def __post_init__(self) -> None:
        for cells in self.grid:
            check_number("grid", cells, at_least=1)

    def encode(self, boxes: AnyBoxes, cells: Int[Tensor, "*#batch"], image_size: tuple[int, int]) -> AnyBoxes:
        """Return the numbers that decode to the boxes.

        Args:
            boxes: ``(*batch, 4)`` xyxy pixels.
            cells: ``(*batch)`` number of each box's cell, row by row.
            image_size: height and width of the image in pixels.

        Returns:
            ``(*batch, 4)`` t_x, t_y, t_w, t_h.
        """
        check_boxes("boxes", boxes)
        (boxes,) = upcast(boxes)
        center, size = _center_and_size(boxes)
        corner, step, extent = self._grid(cells, image_size, boxes)
        return _join(center / step - corner, (size / extent.expand_as(corner)).sqrt())

    def decode(self, numbers: AnyBoxes, cells: Int[Tensor, "*#batch"], image_size: tuple[int, int]) -> AnyBoxes:
        """Return the boxes that the network's numbers stand for.

        Args:
            numbers: ``(*batch, 4)`` t_x, t_y, t_w, t_h.
            cells: ``(*batch)`` number of each box's cell, row by row.
            image_size: height and width of the image in pixels.

        Returns:
            ``(*batch, 4)`` xyxy pixels.
        """
        check_boxes("numbers", numbers)
        (numbers,) = upcast(numbers)
        shift, root = numbers.split(2, dim=-1)
        corner, step, extent = self._grid(cells, image_size, numbers)
        return _to_boxes((corner + shift) * step, root.square() * extent.expand_as(corner))

    def _grid(self, cells: Tensor, image_size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return column and row of each cell, width and height of a cell and of the image."""
        check_integer("cells", cells)
        rows, columns = self.grid
        extent = like.new_tensor([image_size[1], image_size[0]])
        corner = torch.stack((cells % columns, cells // columns), dim=-1).to(like.dtype)
        return corner, extent / like.new_tensor([columns, rows]), extent


@dataclass(frozen=True)
class YOLOCoder:
    """Boxes as YOLOv2, v3 and v4 write them: a sigmoid within the cell and an exponential factor of the anchor.

    Formula:
        x = (column + s σ(t_x) - (s - 1) / 2) · stride      w = wₐ exp(t_w)
        y = (row    + s σ(t_y) - (s - 1) / 2) · stride      h = hₐ exp(t_h)      x, y: centre; a: anchor; s: scale_xy

    Args:
        scale_xy: s ≥ 1, by how much the centre's range is wider than the cell: 1 in v2 and v3. A mapping from stride to
            s sets it for each level; strides that it does not have get 1. In v4 1.2, 1.1 and 1.05 at strides 8, 16
            and 32, see `yolov4`.
        clip: largest t_w and t_h that `decode` raises e to; there is no gradient beyond it.

    Raises:
        ValueError: a `scale_xy` below 1 or a `clip` that is not above 0.

    Example:
        >>> import torch
        >>> coder, anchors, strides = YOLOCoder(), torch.tensor([[-1.0, 1.0, 9.0, 7.0]]), torch.tensor([8.0])
        >>> coder.decode(torch.zeros(1, 4), anchors, strides)
        tensor([[-1.,  1.,  9.,  7.]])
        >>> coder.encode(torch.tensor([[1.0, 1.0, 11.0, 7.0]]), anchors, strides)
        tensor([[1.0986, 0.0000, 0.0000, 0.0000]])

    Note:
        `encode` moves a centre outside the range to the border of the range, short of it by the dtype's epsilon times
        its width, so that the logit is finite. A side shorter than the epsilon is encoded as if it had that length.
        darknet does not clip the exponential.

    Reference:
        Redmon and Farhadi, "YOLO9000", 2016, arXiv 1612.08242, section 2; `scale_xy`: Bochkovskiy et al., "YOLOv4",
        2020, arXiv 2004.10934, section 3.4 (grid sensitivity).
    """

    scale_xy: float | Mapping[float, float] = 1.0
    clip: float = MAX_LOG_SCALE

    def __post_init__(self) -> None:
        for scale in self.scale_xy.values() if isinstance(self.scale_xy, Mapping) else (self.scale_xy,):
            check_number("scale_xy", scale, at_least=1)
        check_number("clip", self.clip, above=0)

    @classmethod
    def yolov4(cls) -> Self:
        """Return the coder of YOLOv4's configuration, with a wider range of the centre the finer the level."""
        return cls({8: 1.2, 16: 1.1, 32: 1.05})

    def encode(self, boxes: AnyBoxes, anchors: AnyBoxes, strides: Strides) -> AnyBoxes:
        """Return the logits that decode to the boxes.

        Args:
            boxes: ``(*batch, 4)`` xyxy pixels.
            anchors: ``(*batch, 4)`` xyxy pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` t_x, t_y, t_w, t_h.
        """
        center, size, cell, anchor_size = _split(boxes, anchors, strides)
        logits = _encode_center(center / strides[..., None] - cell, self._scale(strides))
        return _join(logits, (size / anchor_size).log())

    def decode(self, logits: AnyBoxes, anchors: AnyBoxes, strides: Strides) -> AnyBoxes:
        """Return the boxes that the logits stand for.

        Args:
            logits: ``(*batch, 4)`` t_x, t_y, t_w, t_h.
            anchors: ``(*batch, 4)`` xyxy pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` xyxy pixels.
        """
        shift, scale, cell, anchor_size = _split_logits(logits, anchors, strides)
        center = (cell + _decode_center(shift, self._scale(strides))) * strides[..., None]
        return _to_boxes(center, anchor_size * scale.clamp(max=self.clip).exp())

    def _scale(self, strides: Tensor) -> float | Tensor:
        if not isinstance(self.scale_xy, Mapping):
            return self.scale_xy
        scale = torch.ones_like(strides)
        for stride, value in self.scale_xy.items():
            scale = torch.where(strides == stride, value, scale)
        return scale[..., None]


@dataclass(frozen=True)
class YOLOv5Coder:
    """Boxes as YOLOv5 writes them: sigmoids for the centre and the sides, both of bounded range.

    Formula:
        x = (column + 2 σ(t_x) - 1/2) · stride      w = wₐ (2 σ(t_w))²
        y = (row    + 2 σ(t_y) - 1/2) · stride      h = hₐ (2 σ(t_h))²      x, y: centre; a: anchor

    Example:
        >>> import torch
        >>> coder, anchors, strides = YOLOv5Coder(), torch.tensor([[-1.0, 1.0, 9.0, 7.0]]), torch.tensor([8.0])
        >>> coder.decode(torch.zeros(1, 4), anchors, strides)
        tensor([[-1.,  1.,  9.,  7.]])
        >>> coder.encode(torch.tensor([[-6.0, 1.0, 14.0, 7.0]]), anchors, strides)
        tensor([[0.0000, 0.0000, 0.8814, 0.0000]])

    Note:
        The centre ranges half a cell beyond its cell on every side, a side from 0 to 4 times the anchor's, which is
        what `YOLOv5Ratio` assigns. `encode` moves what is out of range to the border, short of it by the dtype's
        epsilon, so that the logit is finite.

    Reference:
        There is no paper; the formula is that of YOLOv5's model, release 3.0 and later (2020).
    """

    def encode(self, boxes: AnyBoxes, anchors: AnyBoxes, strides: Strides) -> AnyBoxes:
        """Return the logits that decode to the boxes.

        Args:
            boxes: ``(*batch, 4)`` xyxy pixels.
            anchors: ``(*batch, 4)`` xyxy pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` t_x, t_y, t_w, t_h.
        """
        center, size, cell, anchor_size = _split(boxes, anchors, strides)
        logits = _encode_center(center / strides[..., None] - cell, 2.0)
        return _join(logits, _logit((size / anchor_size).sqrt() / 2))

    def decode(self, logits: AnyBoxes, anchors: AnyBoxes, strides: Strides) -> AnyBoxes:
        """Return the boxes that the logits stand for.

        Args:
            logits: ``(*batch, 4)`` t_x, t_y, t_w, t_h.
            anchors: ``(*batch, 4)`` xyxy pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` xyxy pixels.
        """
        shift, scale, cell, anchor_size = _split_logits(logits, anchors, strides)
        center = (cell + _decode_center(shift, 2.0)) * strides[..., None]
        return _to_boxes(center, anchor_size * (2 * scale.sigmoid()) ** 2)


@dataclass(frozen=True)
class YOLOXCoder:
    """Boxes as YOLOX writes them: without anchors, an unbounded offset from the cell's corner and exponential sides.

    Formula:
        x = (column + t_x) · stride      w = exp(t_w) · stride
        y = (row    + t_y) · stride      h = exp(t_h) · stride      x, y: centre; column, row: the cell's corner

    Args:
        clip: largest t_w and t_h that `decode` raises e to; there is no gradient beyond it.

    Raises:
        ValueError: a `clip` that is not above 0.

    Example:
        >>> import torch
        >>> coder, points, strides = YOLOXCoder(), torch.tensor([[12.0, 4.0]]), torch.tensor([8.0])
        >>> coder.decode(torch.tensor([[0.5, 0.5, 0.0, 0.0]]), points, strides)
        tensor([[ 8.,  0., 16.,  8.]])
        >>> coder.encode(torch.tensor([[8.0, 0.0, 24.0, 8.0]]), points, strides)
        tensor([[1.0000, 0.5000, 0.6931, 0.0000]])

    Note:
        The points that both methods take are the centres of the cells, as everywhere; half a stride is taken off them
        here, because YOLOX counts from the corner. A side shorter than the dtype's epsilon is encoded as if it had
        that length. The authors' code does not clip the exponential.

    Reference:
        Ge et al., "YOLOX", 2021, arXiv 2107.08430, section 2.1 (anchor-free).
    """

    clip: float = math.log(10_000)

    def __post_init__(self) -> None:
        check_number("clip", self.clip, above=0)

    def encode(self, boxes: AnyBoxes, points: Points, strides: Strides) -> AnyBoxes:
        """Return the numbers that decode to the boxes.

        Args:
            boxes: ``(*batch, 4)`` xyxy pixels.
            points: ``(*batch, 2)`` x, y of the cells' centres, pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` t_x, t_y, t_w, t_h.
        """
        check_boxes("boxes", boxes)
        check_floating("points", points)
        boxes, points, strides = upcast(boxes, points, strides)
        center, size = _center_and_size(boxes)
        steps = strides[..., None]
        return _join((center - points) / steps + 0.5, (size / steps).log())

    def decode(self, outputs: AnyBoxes, points: Points, strides: Strides) -> AnyBoxes:
        """Return the boxes that the network's numbers stand for.

        Args:
            outputs: ``(*batch, 4)`` t_x, t_y, t_w, t_h.
            points: ``(*batch, 2)`` x, y of the cells' centres, pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` xyxy pixels.
        """
        check_boxes("outputs", outputs)
        check_floating("points", points)
        outputs, points, strides = upcast(outputs, points, strides)
        shift, scale = outputs.split(2, dim=-1)
        steps = strides[..., None]
        return _to_boxes(points + (shift - 0.5) * steps, scale.clamp(max=self.clip).exp() * steps)


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    center, size = convert(boxes, "xyxy", "cxcywh").split(2, dim=-1)
    return center, size.clamp(min=torch.finfo(size.dtype).eps)


def _cell(anchors: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Return column and row of each anchor's cell, ``(*batch, 2)``, and the anchor's sides."""
    center, size = _center_and_size(anchors)
    return center / strides[..., None] - 0.5, size


def _split(boxes: Tensor, anchors: Tensor, strides: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_boxes("boxes", boxes)
    check_boxes("anchors", anchors)
    boxes, anchors, strides = upcast(boxes, anchors, strides)
    return *_center_and_size(boxes), *_cell(anchors, strides)


def _split_logits(logits: Tensor, anchors: Tensor, strides: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_boxes("logits", logits)
    check_boxes("anchors", anchors)
    logits, anchors, strides = upcast(logits, anchors, strides)
    shift, scale = logits.split(2, dim=-1)
    return shift, scale, *_cell(anchors, strides)


def _decode_center(logits: Tensor, scale: float | Tensor) -> Tensor:
    return scale * logits.sigmoid() - (scale - 1) / 2


def _encode_center(offset: Tensor, scale: float | Tensor) -> Tensor:
    return _logit((offset + (scale - 1) / 2) / scale)


def _logit(share: Tensor) -> Tensor:
    return torch.logit(share, eps=torch.finfo(share.dtype).eps)


def _join(center: Tensor, size: Tensor) -> Tensor:
    return torch.cat((center, size), dim=-1)


def _to_boxes(center: Tensor, size: Tensor) -> Tensor:
    return convert(torch.cat((center, size), dim=-1), "cxcywh", "xyxy")
