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

    @classmethod
    def ssd(cls) -> Self:
        """Return SSD's coder: variances (0.1, 0.1, 0.2, 0.2), the same deltas times (10, 10, 5, 5).

        They are no variances of anything: the authors' code divides the encoded values by them. It does not clip the
        exponential.
        """
        return cls.from_variances((0.1, 0.1, 0.2, 0.2))

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


@dataclass(frozen=True)
class DistributionCoder:
    """Boxes as four distributions over distances from a point: the coder of GFL, PP-YOLOE and YOLOv8.

    Formula:
        distance in strides = Σᵢ i · softmax(logits)ᵢ,  i = 0, ..., reg_max      for each of left, top, right, bottom

    Args:
        reg_max: the last bin, in strides; there are reg_max + 1 bins.
        margin: by how much less than `reg_max` the targets of `encode` are at most, from 0 to below `reg_max`. 0.1 in
            GFL, 0.01 in YOLOv8. The library's `distribution_focal_loss` needs none.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> import torch
        >>> coder, points, strides = DistributionCoder(reg_max=4), torch.tensor([[20.0, 20.0]]), torch.tensor([8.0])
        >>> coder.decode(torch.zeros(1, 4, 5), points, strides)
        tensor([[ 4.,  4., 36., 36.]])
        >>> coder.encode(torch.tensor([[16.0, 20.0, 28.0, 80.0]]), points, strides)
        tensor([[0.5000, 0.0000, 1.0000, 4.0000]])

    Note:
        `encode` returns what the distribution's mean shall be, not a distribution: many have the same mean. It is
        the inverse of `decode` for distances from 0 to reg_max - margin strides. YOLOv8's ``reg_max=16`` counts bins;
        here it is 15.

    Reference:
        Li et al., "Generalized Focal Loss", 2020, arXiv 2006.04388, equations 3 to 5.
    """

    reg_max: int = 16
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_number("reg_max", self.reg_max, at_least=1)
        check_number("margin", self.margin, at_least=0, below=self.reg_max)

    def encode(self, boxes: AnyBoxes, points: Points, strides: Float[Tensor, "*#batch"]) -> AnyBoxes:
        """Return the distances of points from the edges of boxes, cut to the range of the bins.

        Args:
            boxes: ``(*batch, 4)`` xyxy pixels.
            points: ``(*batch, 2)`` x, y pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` left, top, right, bottom in strides, from 0 to reg_max - margin.
        """
        return PointDistanceCoder().encode(boxes, points, strides).clamp(0, self.reg_max - self.margin)

    def distances(self, logits: Float[Tensor, "*#batch 4 bins"]) -> AnyBoxes:
        """Return the mean of each distribution.

        Args:
            logits: ``(*batch, 4, reg_max + 1)``.

        Returns:
            ``(*batch, 4)`` left, top, right, bottom in strides.
        """
        check_floating("logits", logits)
        if logits.ndim < 2 or logits.shape[-2:] != (4, self.reg_max + 1):
            raise ValueError(f"`logits` must have shape (..., 4, {self.reg_max + 1}), but got {tuple(logits.shape)}")
        (logits,) = upcast(logits)
        bins = torch.arange(self.reg_max + 1, dtype=logits.dtype, device=logits.device)
        return logits.softmax(-1) @ bins

    def decode(
        self, logits: Float[Tensor, "*#batch 4 bins"], points: Points, strides: Float[Tensor, "*#batch"]
    ) -> AnyBoxes:
        """Return the boxes at the mean distances.

        Args:
            logits: ``(*batch, 4, reg_max + 1)``.
            points: ``(*batch, 2)`` x, y pixels.
            strides: ``(*batch)`` pixels.

        Returns:
            ``(*batch, 4)`` xyxy pixels.
        """
        return PointDistanceCoder().decode(self.distances(logits), points, strides)
