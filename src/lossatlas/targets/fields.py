"""Part affinity fields: on every limb of every person the unit vector from its first keypoint to its second."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.targets.grid import Convention, to_cells
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
        equations 8 and 9.
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
        labelled = keypoints[..., 2] > 0
        cells = to_cells(torch.where(labelled[..., None], keypoints[..., :2], 0), size, stride, self.convention)
        ends = self.skeleton.limb_tensor(keypoints.device)
        total = cells.new_zeros(*keypoints.shape[:-3], len(ends), 2, *size)
        count = cells.new_zeros(*keypoints.shape[:-3], len(ends), 1, *size)
        # One person after the other, so that memory is that of the fields.
        for person in range(keypoints.shape[-3]):
            start, end = cells[..., person, ends[:, 0], :], cells[..., person, ends[:, 1], :]
            both = labelled[..., person, ends].all(-1)
            vector, on_limb = self._limbs(start, end, size)
            on_limb = on_limb & both[..., None, None, None]
            if self.overlap == "last":
                total = torch.where(on_limb, vector, total)
            else:
                total, count = total + torch.where(on_limb, vector, 0), count + on_limb
        return (total / count.clamp(min=1)).flatten(-4, -3)

    def _limbs(self, start: Tensor, end: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the unit vectors ``(..., L, 2, 1, 1)`` and which cells ``(..., L, 1, H, W)`` lie on the limbs."""
        length = (end - start).norm(dim=-1)[..., None, None]
        present = length > 1e-7
        vector = (end - start)[..., None, None] / torch.where(present, length, 1)[..., None, :, :]
        x = torch.arange(size[1], dtype=start.dtype, device=start.device)
        y = torch.arange(size[0], dtype=start.dtype, device=start.device)[:, None]
        vx, vy = vector.unbind(-3)
        dx, dy = x - start[..., 0, None, None], y - start[..., 1, None, None]
        along, distance = dx * vx + dy * vy, (dx * vy - dy * vx).abs()
        if self.region == "capsule":
            distance = torch.hypot(distance, torch.maximum(-along, along - length).clamp(min=0))
        on_limb = present & (distance < self.width if self.open_edge else distance <= self.width)
        if self.region == "capsule":
            return vector, on_limb.unsqueeze(-3)
        if self.region == "limb":
            return vector, (on_limb & (along >= 0) & (along <= length)).unsqueeze(-3)
        low, high = torch.minimum(start, end) - self.width, torch.maximum(start, end) + self.width
        if self.region == "box":
            low, high = (low + 0.5).floor(), (high + 0.5).floor() - 1
        elif self.region == "box_floor":
            low, high = low.floor(), high.floor() - 1
        else:
            low, high = low.floor(), high.ceil()
        for axis, cell in enumerate((x, y)):
            on_limb = on_limb & (cell >= low[..., axis, None, None]) & (cell <= high[..., axis, None, None])
        return vector, on_limb.unsqueeze(-3)
