"""Heatmaps of keypoints: a Gaussian of height 1 at every keypoint of every person."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.kernels import maps as map_kernels
from lossatlas.targets.gaussians import Overlap, draw_gaussians
from lossatlas.targets.grid import Convention, line, to_cells

Center: TypeAlias = Literal["exact", "round", "floor"]
"""Where the Gaussian stands: at the keypoint, at the nearest cell, or at the cell below (left and up) of it."""

Window: TypeAlias = Literal["3sigma", "3sigma+1", "percent", "full"]
"""Which cells a Gaussian reaches:

* 3sigma: those at most 3 σ from the cell of the keypoint along each axis, 13 x 13 for σ = 2 (mmpose).
* 3sigma+1: one more on each side, 15 x 15 for σ = 2 (associative embedding, HigherHRNet).
* percent: those with a value of 1 % at least, a disk of 3.03 σ (OpenPose).
* full: all (DARK).
"""

Outside: TypeAlias = Literal["drop", "draw"]
"""What becomes of a keypoint outside the map: it is left out, or the part of its Gaussian on the map is drawn."""

BASE_SIZE = 256.0
"""Pixels of a person for whom a scale-aware σ is what it says."""


class HeatmapTargets(NamedTuple):
    """Heatmaps, and which keypoints are on them."""

    heatmaps: Float[Tensor, "*batch maps h w"]
    """0 to 1, one map for each keypoint, then the background's if there is one."""
    drawn: Bool[Tensor, "*batch n k"]
    """Keypoints that are labelled and reach the map."""


@dataclass(frozen=True)
class KeypointHeatmaps:
    """Draw the keypoints of all people as Gaussians, one map for each kind of keypoint.

    Formula:
        y_k(g) = max over people of exp(-|g - c_k|² / (2 σ²)) in the window around c_k, c_k the keypoint in cells

    Args:
        sigma: σ > 0 in cells; None is √(W H) / 64, which is 2 for maps of 128 x 128.
        scale_aware: whether σ grows with the person, σ max(w, h) / 256, w and h the sides of the box in pixels; then
            it is at least half a cell.
        center: see `Center`.
        window: see `Window`.
        overlap: ``"max"`` of the Gaussians of several people, or ``"sum"``, but at most 1.
        outside: see `Outside`.
        background: whether there is one map more, 1 - the highest of the others.
        convention: where the cells lie in the image, see `lossatlas.targets.grid.Convention`.
        unit_peaks: whether the cell that a Gaussian peaks in is 1, also where its centre lies between cells. Losses
            that tell keypoints from their surroundings by a 1, such as `gaussian_focal_loss`, need it.

    Raises:
        ValueError: a `sigma` that is not above 0 or an unknown name.

    Example:
        >>> person = torch.tensor([[[9.5, 5.5, 2.0], [0.0, 0.0, 0.0]]])
        >>> targets = KeypointHeatmaps(sigma=1.0)(person, (3, 4), 4)
        >>> targets.heatmaps[0, 1]
        tensor([0.1353, 0.6065, 1.0000, 0.6065])
        >>> targets.drawn
        tensor([[ True, False]])

    Note:
        What the published codes do: associative embedding and HigherHRNet ``center="floor", window="3sigma+1",
        convention="index"``; mmpose ``center="round", convention="index", outside="draw"``, its UDP exact centres and
        ``convention="ends"``, its DARK exact centres and ``window="full"``; OpenPose ``sigma=7 / 8, window="percent",
        outside="draw", background=True`` at stride 8, and in 2017 ``overlap="sum"``. mmpose shifts the peaks of a σ
        that is not whole by a cell near the left and upper border; here they are where they should be. The codes that
        truncate also keep keypoints up to one cell left of and above the map.

    Reference:
        Tompson et al., "Joint Training of a Convolutional Network and a Graphical Model for Human Pose Estimation",
        2014, arXiv 1406.2984. Newell et al., 2017, arXiv 1611.05424. Cao et al., 2017, arXiv 1611.08050, section 2.2.
        DARK: Zhang et al., 2019, arXiv 1910.06278. UDP: Huang et al., 2019, arXiv 1911.07524. Scale-aware: the code
        of Cheng et al., "HigherHRNet", 2019, arXiv 1908.10357.
    """

    sigma: float | None = None
    scale_aware: bool = False
    center: Center = "exact"
    window: Window = "3sigma"
    overlap: Overlap = "max"
    outside: Outside = "drop"
    background: bool = False
    convention: Convention = "center"
    unit_peaks: bool = False

    def __post_init__(self) -> None:
        if self.sigma is not None:
            check_number("sigma", self.sigma, above=0)
        for name, choices in (
            ("center", Center),
            ("window", Window),
            ("overlap", Overlap),
            ("outside", Outside),
            ("convention", Convention),
        ):
            check_choice(name, getattr(self, name), get_args(choices))

    @property
    def shift(self) -> float:
        """What to add to the cell of a peak, in cells: the keypoint's mean distance to the cell it was put in."""
        return 0.5 if self.center == "floor" else 0.0

    def __call__(
        self,
        keypoints: Float[Tensor, "*batch n k 3"],
        size: tuple[int, int],
        stride: float,
        boxes: Float[Tensor, "*batch n 4"] | None = None,
    ) -> HeatmapTargets:
        """Return the heatmaps of one image or of a batch.

        Args:
            keypoints: ``(*batch, N, K, 3)`` x, y in pixels and a visibility, 0 for those that are not labelled, whose
                coordinates may be anything.
            size: height H and width W of the maps in cells.
            stride: pixels between two cells.
            boxes: ``(*batch, N, 4)`` xyxy pixels of the people, for a σ that is scale-aware.

        Returns:
            ``(*batch, K, H, W)`` heatmaps, one more with a background, and which keypoints were drawn.

        Raises:
            ValueError: shapes that do not fit, or no `boxes` where they are needed.
            TypeError: keypoints that are not floating point.
        """
        _check_keypoints(keypoints)
        *batch, people, kinds, _ = keypoints.shape
        sigma = self._sigma(keypoints, size, boxes)
        reach = self._reach(sigma)
        if map_kernels.usable(keypoints, sigma, reach):
            maps, plane = map_kernels.heatmaps(
                keypoints.reshape(math.prod(batch), people, kinds, 3),
                sigma,
                reach,
                size,
                line(size, stride, self.convention),
                limit=-math.log(self._least) if self._least else math.inf,
                add=self.overlap == "sum",
                center=self.center,
                outside=self.outside == "draw",
                unit_peaks=self.unit_peaks,
            )
            drawn = plane.view(*batch, people, kinds) >= 0
        else:
            maps, drawn = self._draw(keypoints, size, stride, sigma, reach)
        maps = maps.view(*batch, kinds, *size)
        if self.background:
            maps = torch.cat((maps, 1 - maps.amax(-3, keepdim=True)), -3)
        return HeatmapTargets(maps, drawn)

    def _draw(
        self, keypoints: Tensor, size: tuple[int, int], stride: float, sigma: Tensor, reach: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the heatmaps, but for the background's, by PyTorch."""
        center, cell = center_cells(keypoints, size, stride, self.center, self.convention)
        *batch, _, kinds, _ = keypoints.shape
        margin = reach[..., None, None] if self.outside == "draw" else 0
        limit = cell.new_tensor([size[1], size[0]])
        drawn = (keypoints[..., 2] > 0) & ((cell >= -margin) & (cell < limit + margin)).all(-1)
        maps_of_kinds = torch.arange(math.prod(batch) * kinds, device=drawn.device).view(*batch, 1, kinds)
        plane = torch.where(drawn, maps_of_kinds, -1)
        maps = draw_gaussians(
            math.prod(batch) * kinds,
            size,
            plane.flatten(),
            center.reshape(-1, 2),
            sigma[..., None].expand(drawn.shape).flatten(),
            anchor=cell.reshape(-1, 2),
            reach=reach[..., None].expand(drawn.shape).flatten(),
            least=self._least,
            overlap=self.overlap,
        )
        if self.unit_peaks:
            inside = drawn & ((cell >= 0) & (cell < limit)).all(-1)
            column, row = cell[inside].unbind(1)
            maps[plane[inside], row, column] = 1
        return maps, drawn

    @property
    def _least(self) -> float:
        return 0.01 if self.window == "percent" else 0.0

    def _sigma(self, keypoints: Tensor, size: tuple[int, int], boxes: Tensor | None) -> Tensor:
        """Return σ of each person, ``(*batch, N)``."""
        base = math.sqrt(size[0] * size[1]) / 64 if self.sigma is None else self.sigma
        people, dtype = keypoints.shape[:-2], torch.promote_types(keypoints.dtype, torch.float32)
        if not self.scale_aware:
            return keypoints.new_full(people, base, dtype=dtype)
        if boxes is None or boxes.shape != (*people, 4):
            got = None if boxes is None else tuple(boxes.shape)
            raise ValueError(f"`boxes` must have shape {(*people, 4)} for a scale-aware σ, but got {got}")
        longest = (boxes[..., 2:] - boxes[..., :2]).amax(-1).to(dtype)
        return (base * longest / BASE_SIZE).clamp(min=0.5)

    def _reach(self, sigma: Tensor) -> Tensor:
        """Return half the side of the window of each person, ``(*batch, N)``."""
        if self.window == "full":
            return torch.full_like(sigma, 2**15, dtype=torch.int64)
        if self.window == "percent":
            # √(2 ln 100) = 3.035; the centre is at most half a cell from its cell.
            return (3.035 * sigma + 0.5).ceil().long()
        return (3 * sigma + 1e-4).floor().long() + (1 if self.window == "3sigma+1" else 0)


def center_cells(
    keypoints: Float[Tensor, "*batch k 3"],
    size: tuple[int, int],
    stride: float,
    center: Center,
    convention: Convention,
) -> tuple[Float[Tensor, "*batch k 2"], Int[Tensor, "*batch k 2"]]:
    """Return where the Gaussians of keypoints stand, in cells, and the cell that each of them peaks in.

    Args:
        keypoints: ``(*batch, N, K, 3)``.
        size: height and width of the map in cells.
        stride: pixels between two cells.
        center: see `Center`.
        convention: see `lossatlas.targets.grid.Convention`.

    Raises:
        ValueError: keypoints of another shape.
        TypeError: keypoints that are not floating point.
    """
    _check_keypoints(keypoints)
    exact = to_cells(torch.where(keypoints[..., 2:] > 0, keypoints[..., :2], 0), size, stride, convention)
    cell = exact.floor() if center == "floor" else (exact + 0.5).floor()
    # What is far outside stays outside, and fits into an integer.
    cell = cell.clamp(-(2**30), 2**30)
    return exact if center == "exact" else cell, cell.long()


def _check_keypoints(keypoints: Tensor) -> None:
    check_floating("keypoints", keypoints)
    if keypoints.ndim < 3 or keypoints.shape[-1] != 3:
        raise ValueError(f"`keypoints` must have shape (*batch, N, K, 3), but got {tuple(keypoints.shape)}")
