"""How a network writes boxes: as numbers relative to an anchor box or to a point.

A coder turns boxes into what the network is trained to output (`encode`) and back (`decode`). Both are differentiable,
compute in float32 at least, and are finite for every finite box; their arguments broadcast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.boxes.formats import AnyBoxes, Points, convert, ltrb_to_xyxy, xyxy_to_ltrb
from lossatlas.checks import check_boxes, check_floating, check_number
from lossatlas.dtypes import upcast

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest dw or dh that is decoded: a box 62.5 times its anchor, as in Detectron."""


@dataclass(frozen=True)
class DeltaCoder:
    """Boxes as offsets from anchors: the coder of Faster R-CNN, RetinaNet and SSD.

    Formula:
        dx = w_x (x - xₐ) / wₐ      dw = w_w ln(w / wₐ)
        dy = w_y (y - yₐ) / hₐ      dh = w_h ln(h / hₐ)      x, y: centre; w, h: sides; index a: anchor

    Args:
        weights: factors (w_x, w_y, w_w, w_h) of the encoded values, above 0.
        clip: largest dw and dh, before its factor, that `decode` raises e to; there is no gradient beyond it.

    Raises:
        ValueError: not four weights, or a weight or `clip` that is not above 0.

    Example:
        >>> import torch
        >>> coder = DeltaCoder()
        >>> anchors, boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 20]])
        >>> coder.encode(boxes, anchors)
        tensor([[0.5000, 0.5000, 0.0000, 0.6931]])
        >>> coder.decode(coder.encode(boxes, anchors), anchors)
        tensor([[ 5.,  0., 15., 20.]])

    Note:
        A side that is shorter than the dtype's epsilon, of a box or of an anchor, is encoded as if it had that
        length. The weights are those of torchvision and detectron2; SSD's variances and mmdetection's standard
        deviations are their inverses, see `from_variances`.

    Reference:
        Girshick et al., "R-CNN", 2013, arXiv 1311.2524, appendix C; Ren et al., "Faster R-CNN", 2015,
        arXiv 1506.01497, equation 2.
    """

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    clip: float = MAX_LOG_SCALE

    def __post_init__(self) -> None:
        if len(self.weights) != 4:
            raise ValueError(f"`weights` must be four numbers, but got {self.weights!r}")
        for weight in self.weights:
            check_number("weights", weight, above=0)
        check_number("clip", self.clip, above=0)

    @classmethod
    def from_variances(cls, variances: Sequence[float], clip: float = MAX_LOG_SCALE) -> Self:
        """Return the coder whose encoded values are divided by `variances`, such as SSD's (0.1, 0.1, 0.2, 0.2)."""
        if len(variances) != 4:
            raise ValueError(f"`variances` must be four numbers, but got {variances!r}")
        for variance in variances:
            check_number("variances", variance, above=0)
        x, y, w, h = (1 / variance for variance in variances)
        return cls((x, y, w, h), clip)

    def encode(self, boxes: AnyBoxes, anchors: AnyBoxes) -> AnyBoxes:
        """Return the offsets of boxes from their anchors.

        Args:
            boxes: ``(*batch, 4)`` xyxy.
            anchors: ``(*batch, 4)`` xyxy in the same unit.

        Returns:
            ``(*batch, 4)`` dx, dy, dw, dh, without unit.
        """
        check_boxes("boxes", boxes)
        check_boxes("anchors", anchors)
        center, size = _center_and_size(boxes, anchors)
        anchor_center, anchor_size = _center_and_size(anchors, boxes)
        deltas = torch.cat(((center - anchor_center) / anchor_size, (size / anchor_size).log()), dim=-1)
        return deltas * deltas.new_tensor(self.weights)

    def decode(self, deltas: AnyBoxes, anchors: AnyBoxes) -> AnyBoxes:
        """Return the boxes at the given offsets from their anchors.

        Args:
            deltas: ``(*batch, 4)`` dx, dy, dw, dh.
            anchors: ``(*batch, 4)`` xyxy.

        Returns:
            ``(*batch, 4)`` xyxy boxes in the unit of the anchors.
        """
        check_boxes("deltas", deltas)
        check_boxes("anchors", anchors)
        anchor_center, anchor_size = _center_and_size(anchors, deltas)
        (deltas,) = upcast(deltas)
        shift, log_scale = (deltas / deltas.new_tensor(self.weights)).split(2, dim=-1)
        center = anchor_center + shift * anchor_size
        size = anchor_size * log_scale.clamp(max=self.clip).exp()
        return convert(torch.cat((center, size), dim=-1), "cxcywh", "xyxy")


def _center_and_size(boxes: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    boxes, _ = upcast(boxes, partner)
    center, size = convert(boxes, "xyxy", "cxcywh").split(2, dim=-1)
    return center, size.clamp(min=torch.finfo(size.dtype).eps)


@dataclass(frozen=True)
class PointDistanceCoder:
    """Boxes as distances from a point to their four edges, in strides: the coder of FCOS.

    Formula:
        (l, t, r, b) = (x - x1, y - y1, x2 - x, y2 - y) / stride

    Args:
        normalize: whether distances are in units of the stride; otherwise they are in pixels.

    Example:
        >>> import torch
        >>> coder = PointDistanceCoder()
        >>> points, strides = torch.tensor([[20.0, 20.0]]), torch.tensor([8.0])
        >>> coder.encode(torch.tensor([[4.0, 12.0, 44.0, 20.0]]), points, strides)
        tensor([[2., 1., 3., 0.]])
        >>> coder.decode(torch.tensor([[2.0, 1.0, 3.0, 0.0]]), points, strides)
        tensor([[ 4., 12., 44., 20.]])

    Note:
        Nothing is clamped: a point outside the box has a negative distance, and decoding is the exact inverse. The
        first version of FCOS regressed ln of the distance in pixels; its authors' improved version, torchvision and
        mmdetection regress what is described here.

    Reference:
        Tian et al., "FCOS", 2019, arXiv 1904.01355, equation 1.
    """

    normalize: bool = True

    def encode(self, boxes: AnyBoxes, points: Points, strides: Float[Tensor, "*#batch"]) -> AnyBoxes:
        """Return the distances of points from the edges of boxes.

        Args:
            boxes: ``(*batch, 4)`` xyxy pixels.
            points: ``(*batch, 2)`` x, y pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` left, top, right, bottom.
        """
        check_boxes("boxes", boxes)
        check_floating("points", points)
        boxes, points, strides = upcast(boxes, points, strides)
        distances = xyxy_to_ltrb(boxes, points)
        return distances / strides[..., None] if self.normalize else distances

    def decode(self, distances: AnyBoxes, points: Points, strides: Float[Tensor, "*#batch"]) -> AnyBoxes:
        """Return the boxes whose edges are at the given distances from points.

        Args:
            distances: ``(*batch, 4)`` left, top, right, bottom.
            points: ``(*batch, 2)`` x, y pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` xyxy pixels.
        """
        check_boxes("distances", distances)
        check_floating("points", points)
        distances, points, strides = upcast(distances, points, strides)
        return ltrb_to_xyxy(distances * strides[..., None] if self.normalize else distances, points)
