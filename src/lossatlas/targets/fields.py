"""Part affinity fields: on every limb of every person the unit vector from its first keypoint to its second."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.kernels import maps as map_kernels
from lossatlas.targets.gaussians import window_cells
from lossatlas.targets.grid import Convention, line, to_cells
from lossatlas.targets.skeletons import Skeleton

Region: TypeAlias = Literal["limb", "capsule", "box", "box_floor", "box_inclusive"]
"""Which cells can lie on a limb from a to b, besides not being too far from its line:

* capsule: those at most `width` from the segment itself, so that the limb has round ends. It is the paper's limb with
  its ends on it: the cells nearest to the keypoints, which decoding reads, always lie on it.
* limb: those beside the segment, 0 ≤ v · (g - a) ≤ |b - a| (the paper).
* box: those from round(min(a, b) - width) to round(max(a, b) + width), the last one left out (OpenPose's codes).
* box_floor: from ⌊min(a, b) - width⌋ to ⌊max(a, b) + width⌋, the last one left out (the lightweight port).
* box_inclusive: from ⌊min(a, b) - width⌋ to ⌈max(a, b) + width⌉ (mmpose 0.x).
"""

FieldOverlap: TypeAlias = Literal["mean", "last"]
"""What a cell holds that lies on the limbs of several people: the mean of their vectors, or that of the last person."""


@dataclass(frozen=True)
class PartAffinityFields:
    """Draw the limbs of all people as fields of unit vectors, two maps for each kind of limb.

    Formula:
        v = (b - a) / |b - a| on the cells g of a limb from a to b, |v⊥ · (g - a)| ≤ width, in `region`; 0 elsewhere
        mean: Σ over people of their vectors / number of people on whose limb the cell lies

    Args:
        skeleton: its limbs.
        width: half the width of a limb, in cells.
        region: see `Region`.
        open_edge: whether cells at exactly `width` from the line are left out.
        overlap: see `FieldOverlap`.
        convention: where the cells lie in the image, see `lossatlas.targets.grid.Convention`.

    Raises:
        ValueError: a `width` that is not above 0 or an unknown name.

    Example:
        >>> arm = Skeleton("arm", ("elbow", "wrist"), ((0, 1),))
        >>> people = torch.tensor([[[1.0, 1.0, 2.0], [3.0, 1.0, 2.0]]])
        >>> PartAffinityFields(arm, convention="index")(people, (2, 5), 1)[0]
        tensor([[0., 1., 1., 1., 0.],
                [1., 1., 1., 1., 1.]])

    Note:
        A limb is drawn if both its keypoints are labelled, also where they are outside the map. A limb without a
        length has no direction and is left out; mmpose counts it in the mean. What the codes do: OpenPose
        ``region="box"``; that of 2017 ``overlap="last"`` too, because it never counts, against the paper; the
        lightweight port ``region="box_floor", overlap="last"``; tensorboy's ``region="box", open_edge=True``; mmpose
        0.x ``region="box_inclusive", open_edge=True``; all with ``convention="index"``, also where their heatmaps
        have ``"center"``.

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        section 2.3.
    """

    skeleton: Skeleton
    width: float = 1.0
    region: Region = "capsule"
    open_edge: bool = False
    overlap: FieldOverlap = "mean"
    convention: Convention = "center"

    def __post_init__(self) -> None:
        check_number("width", self.width, above=0)
        for name, choices in (("region", Region), ("overlap", FieldOverlap), ("convention", Convention)):
            check_choice(name, getattr(self, name), get_args(choices))

    def __call__(
        self, keypoints: Float[Tensor, "*batch n k 3"], size: tuple[int, int], stride: float
    ) -> Float[Tensor, "*batch fields h w"]:
        """Return the fields of one image or of a batch.

        Args:
            keypoints: ``(*batch, N, K, 3)`` x, y in pixels and a visibility, 0 for those that are not labelled, whose
                coordinates may be anything.
            size: height H and width W of the maps in cells.
            stride: pixels between two cells.

        Returns:
            ``(*batch, 2 L, H, W)``, for each of the L limbs the map of x and then that of y.

        Raises:
            ValueError: shapes that do not fit the skeleton.
            TypeError: keypoints that are not floating point.
        """
        check_floating("keypoints", keypoints)
        kinds = len(self.skeleton)
        if keypoints.ndim < 3 or keypoints.shape[-2:] != (kinds, 3):
            raise ValueError(f"`keypoints` must have shape (*batch, N, {kinds}, 3), but got {tuple(keypoints.shape)}")
        *batch, people, _, _ = keypoints.shape
        points = keypoints.reshape(math.prod(batch), people, kinds, 3)
        ends = self.skeleton.limb_tensor(keypoints.device)
        if map_kernels.usable(points, ends):
            fields = map_kernels.fields(
                points,
                ends,
                size,
                line(size, stride, self.convention),
                region=self.region,
                width=self.width,
                open_edge=self.open_edge,
                last=self.overlap == "last",
            )
        else:
            fields = self._draw(self._limbs(points, ends, size, stride), len(points) * len(ends), size)
        return fields.view(*batch, 2 * len(ends), *size)

    def _limbs(self, points: Tensor, ends: Tensor, size: tuple[int, int], stride: float) -> "_Limbs":
        """Return the limbs of all people."""
        labelled = points[..., 2] > 0
        cells = to_cells(torch.where(labelled[..., None], points[..., :2], 0), size, stride, self.convention)
        start, end = cells[:, :, ends[:, 0]], cells[:, :, ends[:, 1]]
        squared = (end - start)[..., 0] ** 2 + (end - start)[..., 1] ** 2
        drawn = labelled[:, :, ends].all(-1) & (squared.sqrt() > 1e-7)
        image, _, limb = drawn.nonzero().unbind(1)
        start, end, length = start[drawn], end[drawn], squared[drawn].sqrt()
        vector = (end - start) / length[:, None]
        return _Limbs(image * len(ends) + limb, start, vector, length, *self._box(start, end))

    def _box(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and the last cell of each axis that can lie on limbs, all ``(*limbs, 2)``."""
        low, high = torch.minimum(start, end) - self.width, torch.maximum(start, end) + self.width
        if self.region == "box":
            return (low + 0.5).floor(), (high + 0.5).floor() - 1
        if self.region == "box_floor":
            return low.floor(), high.floor() - 1
        return low.floor(), high.ceil()

    def _draw(self, limbs: "_Limbs", number: int, size: tuple[int, int]) -> Tensor:
        """Draw by PyTorch, ``(number, 2, H, W)``."""
        planes, plane = number * size[0] * size[1], size[0] * size[1]
        cell, which = self._cells(limbs, size)
        if self.overlap == "last":
            last = cell.new_zeros(planes).scatter_reduce(0, cell, which + 1, "amax")
            kept = last[cell] == which + 1
            cell, which = cell[kept], which[kept]
        count = limbs.start.new_zeros(planes).index_add(0, cell, torch.ones_like(limbs.length[which]))
        share = limbs.vector[which] / count[cell][:, None]
        place = cell + cell // max(plane, 1) * plane  # in the map of x, which that of y follows
        fields = limbs.start.new_zeros(2 * planes).index_add(0, torch.cat((place, place + plane)), share.T.flatten())
        return fields.view(number, 2, *size)

    def _cells(self, limbs: "_Limbs", size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the places ``(S,)`` of the cells that lie on limbs, and ``(S,)`` the limb that each lies on."""
        # Limbs of about the same size together, so that no window is much larger than its limb.
        sides = (limbs.high - limbs.low + 1).amax(-1).clamp(1, 2 * max(*size, 1))
        bucket = sides.log2().ceil()
        cells, which = [limbs.plane[:0]], [limbs.plane[:0]]
        for level in bucket.unique().tolist():
            row = (bucket == level).nonzero().squeeze(1)
            first = limbs.low[row].clamp(-(2**30), 2**30).long()
            x = window_cells(first[:, 0], int(2**level), size[1])[:, None, :]
            y = window_cells(first[:, 1], int(2**level), size[0])[:, :, None]
            on_limb = self._on_limb(x, y, _Limbs._make(each[row][..., None, None] for each in limbs))
            index = ((limbs.plane[row, None, None] * size[0] + y) * size[1] + x).expand_as(on_limb)
            cells.append(index[on_limb])
            which.append(row[:, None, None].expand_as(on_limb)[on_limb])
        return torch.cat(cells), torch.cat(which)

    def _on_limb(self, x: Tensor, y: Tensor, limbs: "_Limbs") -> Tensor:
        """Return which cells x ``(M, 1, X)``, y ``(M, Y, 1)`` lie on limbs, whose tensors have two axes more."""
        vx, vy = limbs.vector.unbind(1)
        dx, dy = x - limbs.start[:, 0], y - limbs.start[:, 1]
        along, distance2 = dx * vx + dy * vy, (dx * vy - dy * vx) ** 2
        if self.region == "capsule":
            distance2 = distance2 + torch.maximum(-along, along - limbs.length).clamp(min=0) ** 2
        on_limb: Tensor = distance2 < self.width**2 if self.open_edge else distance2 <= self.width**2
        if self.region == "capsule":
            return on_limb
        if self.region == "limb":
            return on_limb & (along >= 0) & (along <= limbs.length)
        for axis, cell in enumerate((x, y)):
            on_limb = on_limb & (cell >= limbs.low[:, axis]) & (cell <= limbs.high[:, axis])
        return on_limb


class _Limbs(NamedTuple):
    """M limbs that are drawn."""

    plane: Int[Tensor, " m"]
    """Field of each."""
    start: Float[Tensor, "m 2"]
    """In cells."""
    vector: Float[Tensor, "m 2"]
    """Of length 1."""
    length: Float[Tensor, " m"]
    low: Float[Tensor, "m 2"]
    """First cell that may lie on it."""
    high: Float[Tensor, "m 2"]
    """Last cell that may lie on it."""
