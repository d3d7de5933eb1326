"""Box formats and the conversions between them.

Every format is four numbers on the last axis. `XYXY` is what the losses and assigners take.

=========  =======================================  ==========================================
format     numbers                                  meaning
=========  =======================================  ==========================================
xyxy       x1, y1, x2, y2                           left, top, right and bottom edge
xywh       x1, y1, w, h                             left and top edge, width, height (COCO)
cxcywh     cx, cy, w, h                             centre, width, height (YOLO, DETR)
ltrb       left, top, right, bottom                 distances from a point to the four edges
=========  =======================================  ==========================================

Coordinates are continuous: a box from pixel column 0 to column 9 inclusive has x1 = 0, x2 = 10 and width 10; nothing
adds one. A conversion keeps the unit, pixels or fractions of the image; `normalize` and `denormalize` change it.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.checks import check_boxes, check_choice, check_number
from lossatlas.typing import Boxes

BoxFormat: TypeAlias = Literal["xyxy", "xywh", "cxcywh"]
"""The formats that need no reference point."""

AnyBoxes: TypeAlias = Float[Tensor, "*#batch 4"]
"""Boxes, or four numbers for each box, that broadcast with the other arguments of the call."""

Points: TypeAlias = Float[Tensor, "*#batch 2"]
"""Points x, y that broadcast with the other arguments of the call."""


def _xywh_to_xyxy(boxes: Tensor) -> Tensor:
    start, size = boxes.split(2, dim=-1)
    return torch.cat((start, start + size), dim=-1)


def _xyxy_to_xywh(boxes: Tensor) -> Tensor:
    start, end = boxes.split(2, dim=-1)
    return torch.cat((start, end - start), dim=-1)


def _cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    center, size = boxes.split(2, dim=-1)
    return torch.cat((center - size / 2, center + size / 2), dim=-1)


def _xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    start, end = boxes.split(2, dim=-1)
    return torch.cat(((start + end) / 2, end - start), dim=-1)


def _identity(boxes: Tensor) -> Tensor:
    return boxes


_TO_XYXY: dict[str, Callable[[Tensor], Tensor]] = {
    "xyxy": _identity,
    "xywh": _xywh_to_xyxy,
    "cxcywh": _cxcywh_to_xyxy,
}
_FROM_XYXY: dict[str, Callable[[Tensor], Tensor]] = {
    "xyxy": _identity,
    "xywh": _xyxy_to_xywh,
    "cxcywh": _xyxy_to_cxcywh,
}


def convert(boxes: Boxes, source: BoxFormat, target: BoxFormat) -> Boxes:
    """Convert boxes from one format to another, in the unit they are in.

    Args:
        boxes: ``(*batch, 4)`` boxes in the format `source`.
        source: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        target: the same choice.

    Returns:
        ``(*batch, 4)`` the same boxes in the format `target`.

    Raises:
        ValueError: an unknown format or a shape that does not end in 4.
        TypeError: boxes that are not floating point.

    Example:
        >>> import torch
        >>> convert(torch.tensor([10.0, 20.0, 30.0, 60.0]), "xyxy", "cxcywh")
        tensor([20., 40., 20., 40.])
    """
    check_boxes("boxes", boxes)
    check_choice("source", source, get_args(BoxFormat))
    check_choice("target", target, get_args(BoxFormat))
    if source == target:
        return boxes
    return _FROM_XYXY[target](_TO_XYXY[source](boxes))


def ltrb_to_xyxy(distances: AnyBoxes, points: Points) -> AnyBoxes:
    """Return the boxes whose edges lie at the given distances from the points.

    Formula:
        (x - left, y - top, x + right, y + bottom)

    Args:
        distances: ``(*batch, 4)`` left, top, right, bottom, in the unit of the points.
        points: ``(*batch, 2)`` x, y; the two broadcast.

    Returns:
        ``(*batch, 4)`` xyxy boxes.

    Example:
        >>> import torch
        >>> ltrb_to_xyxy(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([10.0, 10.0]))
        tensor([ 9.,  8., 13., 14.])
    """
    before, after = distances.split(2, dim=-1)
    return torch.cat((points - before, points + after), dim=-1)


def xyxy_to_ltrb(boxes: AnyBoxes, points: Points) -> AnyBoxes:
    """Return the distances from the points to the edges of the boxes, negative for a point outside.

    Formula:
        (x - x1, y - y1, x2 - x, y2 - y)

    Args:
        boxes: ``(*batch, 4)`` xyxy.
        points: ``(*batch, 2)`` x, y in the unit of the boxes; the two broadcast.

    Returns:
        ``(*batch, 4)`` left, top, right, bottom.

    Example:
        >>> import torch
        >>> xyxy_to_ltrb(torch.tensor([9.0, 8.0, 13.0, 14.0]), torch.tensor([10.0, 10.0]))
        tensor([1., 2., 3., 4.])
    """
    start, end = boxes.split(2, dim=-1)
    return torch.cat((points - start, end - points), dim=-1)


def normalize(boxes: Boxes, image_size: tuple[int, int]) -> Boxes:
    """Turn pixels into fractions of the image, in any format.

    Args:
        boxes: ``(*batch, 4)`` in pixels.
        image_size: height and width of the image in pixels.

    Returns:
        ``(*batch, 4)`` boxes of the same format; the whole image is 0, 0, 1, 1 in xyxy.
    """
    return boxes / _extent(boxes, image_size)


def denormalize(boxes: Boxes, image_size: tuple[int, int]) -> Boxes:
    """Turn fractions of the image into pixels, in any format: the inverse of `normalize`."""
    return boxes * _extent(boxes, image_size)


def _extent(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    check_boxes("boxes", boxes)
    height, width = image_size
    check_number("image_size[0]", height, above=0)
    check_number("image_size[1]", width, above=0)
    return boxes.new_tensor([width, height, width, height])
