"""FCOS: a point answers for the smallest object around it whose size belongs to the point's level."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, blocks, check_block_size, given_objects, in_order
from lossatlas.assign.regions import check_points, edge_distances, points_in_crowd
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.kernels import matching
from lossatlas.kernels.native import usable_float32

Bounds = Literal["inclusive", "strict"]


@dataclass(frozen=True)
class FCOSPoints:
    """Assign points to objects by size range and distance from the centre.

    Formula:
        A point is a candidate for an object if
            it lies inside the object's box, and within `center_radius` strides of its centre in x and in y, and
            low ≤ max(l, t, r, b) ≤ high for the point's stride; l, t, r, b: pixels to the edges of the box.
        It answers for the smallest object that it is a candidate for.

    Args:
        ranges: pixels (low, high) for each stride that occurs; infinity is a valid bound. None gives
            (4 · stride, 8 · stride), from 0 at the smallest stride and without upper bound at the largest: the
            paper's 0, 64, 128, 256, 512, ∞ for strides 8 to 128.
        center_radius: in strides; None takes all points inside the box, as the first version of FCOS did.
        bounds: ``"inclusive"`` of the paper's code, where a size on the border belongs to two levels, or
            ``"strict"`` of torchvision and detectron2, where it belongs to none.
        block_size: points that are held against all objects at a time; it changes memory, never the result. None takes
            kernels where they can be used.

    Raises:
        ValueError: a range, radius, block size or `bounds` out of its range.

    Example:
        >>> points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [8.0, 8.0]]), torch.tensor([8.0, 8.0, 16.0])
        >>> target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}
        >>> FCOSPoints()(points, strides, target).state
        tensor([1, 0, 0], dtype=torch.int8)

    Note:
        Objects of equal area are ordered by `canonical_order`. torchvision and detectron2 compare 1e8 - area in
        float32, so that areas that differ by less than about 8 px² tie there. Points inside a crowd region that
        answer for no object are ignored; no other implementation has this.

    Reference:
        Tian et al., "FCOS", 2019, arXiv 1904.01355, section 3.2; centre sampling: section 3.3 of "FCOS: A Simple and
        Strong Anchor-free Object Detector", 2020, arXiv 2006.09214.
    """

    ranges: Mapping[float, tuple[float, float]] | None = None
    center_radius: float | None = 1.5
    bounds: Bounds = "inclusive"
    block_size: int | None = None

    def __post_init__(self) -> None:
        for stride, (low, high) in (self.ranges or {}).items():
            if not low < high:
                raise ValueError(f"`ranges[{stride:g}]` must be (low, high) with low < high, but got ({low}, {high})")
        if self.center_radius is not None:
            check_number("center_radius", self.center_radius, above=0)
        check_choice("bounds", self.bounds, get_args(Bounds))
        check_block_size(self.block_size)

    def __call__(
        self, points: Float[Tensor, "p 2"], strides: Float[Tensor, " p"], target: Mapping[str, Tensor]
    ) -> Assignment:
        """Return which object of one image each point answers for.

        Args:
            points: ``(P, 2)`` x, y in pixels.
            strides: ``(P,)`` pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit, or a stride without an entry in `ranges`.
        """
        check_points(points, strides)
        points, strides = upcast(points.detach(), strides.detach())
        given = given_objects(target)
        crowded = None
        if given.crowd is not None:
            crowded = points_in_crowd(points, given.regions.to(points.dtype), self.block_size)
        if self.block_size is None and usable_float32(points, given.boxes, strides):
            verdicts = matching.fcos_points(
                points,
                strides,
                None if self.ranges is None else self._limits(strides),
                *given,
                crowded,
                radius=self.center_radius,
                strict=self.bounds == "strict",
            )
            return Assignment(*verdicts)
        objects = in_order(given, points.dtype)
        low, high = self._limits(strides)
        matched = strides.new_full((len(points),), -1, dtype=torch.int64)
        for block in blocks(len(points), len(objects.boxes), self.block_size) if len(objects.rows) else ():
            candidate = self._candidates(points[block], strides[block], low[block], high[block], objects.boxes)
            found, first = candidate.to(torch.uint8).max(dim=1)  # the first maximum: the smallest object
            matched[block] = torch.where(found > 0, objects.rows[first], -1)
        return Assignment.build(matched, torch.zeros_like(matched, dtype=torch.bool) if crowded is None else crowded)

    def _limits(self, strides: Tensor) -> tuple[Tensor, Tensor]:
        low, high = 4 * strides, 8 * strides
        if not len(strides):
            return low, high
        if self.ranges is None:
            return torch.where(strides == strides.min(), 0, low), torch.where(strides == strides.max(), math.inf, high)
        known = torch.zeros_like(strides, dtype=torch.bool)
        for stride, (least, most) in self.ranges.items():
            level = strides == stride
            low, high, known = torch.where(level, least, low), torch.where(level, most, high), known | level
        if not known.all():
            missing = sorted(set(strides[~known].tolist()))
            raise ValueError(f"`ranges` must have an entry for every stride, but has none for {missing}")
        return low, high

    def _candidates(self, points: Tensor, strides: Tensor, low: Tensor, high: Tensor, boxes: Tensor) -> Tensor:
        least, size = edge_distances(points[:, None], boxes)
        candidate = least > 0
        if self.bounds == "inclusive":
            candidate &= (size >= low[:, None]) & (size <= high[:, None])
        else:
            candidate &= (size > low[:, None]) & (size < high[:, None])
        if self.center_radius is not None:
            offset = ((boxes[:, 0] + boxes[:, 2]) / 2 - points[:, :1]).abs()
            offset = torch.maximum(offset, ((boxes[:, 1] + boxes[:, 3]) / 2 - points[:, 1:]).abs())
            candidate &= offset < self.center_radius * strides[:, None]
        return candidate
