"""CenterNet: an object is a gaussian peak in the heatmap of its class, and the cell under the peak answers for it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossatlas.assign.assignment import Assignment, ordered_objects
from lossatlas.assign.regions import points_in_crowd
from lossatlas.assign.selection import to_rows
from lossatlas.boxes.formats import convert
from lossatlas.boxes.priors import point_grid
from lossatlas.checks import check_choice, check_number
from lossatlas.targets.gaussians import draw_gaussians

Radius: TypeAlias = Literal["fixed", "cornernet"]
SharedCell: TypeAlias = Literal["both", "smallest", "last"]


class CenterTargets(NamedTuple):
    """What CenterNet is trained on for one image; N objects are regressed."""

    heatmap: Float[Tensor, "c h w"]
    """0 to 1 for each class; 1 exactly at the centres of its objects."""
    cells: Int[Tensor, " n"]
    """Cell of each object's centre, row · W + column. Two objects may share one, see `CenterHeatmap`."""
    matched: Int[Tensor, " n"]
    """Row of each object in the target."""
    ignored: Bool[Tensor, "h w"]
    """Cells in a crowd region; there the heatmap's loss should not count, except at centres."""

    def to_assignment(self) -> Assignment:
        """Return which object each of the H · W cells answers for; of two that share a cell, the one listed first."""
        none = len(self.cells)
        listed = torch.arange(none, device=self.cells.device)
        first = listed.new_full((self.ignored.numel(),), none).scatter_reduce(0, self.cells, listed, "amin")
        return Assignment.build(to_rows(self.matched, torch.where(first < none, first, -1)), self.ignored.flatten())


def gaussian_radius(width: float, height: float, min_overlap: float = 0.7, radius: Radius = "fixed") -> float:
    """Return how far the corners of a box may be off, so that its IoU with the true box is still `min_overlap`.

    Formula:
        the least of three roots r, with o = min_overlap, b = w + h:
        both corners shifted alike: r² - b r + w h (1 - o) / (1 + o) = 0
        both inside:               4 r² - 2 b r + (1 - o) w h = 0
        both outside:              4 o r² + 2 o b r - (1 - o) w h = 0

    Args:
        width: above 0.
        height: above 0, in the same unit.
        min_overlap: IoU from above 0 to below 1.
        radius: ``"fixed"`` solves the equations; ``"cornernet"`` is the published code of CornerNet and CenterNet,
            which takes (β + √(β² - 4 α γ)) / 2 of α r² + β r + γ for all three, and so radii about three times as
            large, with β the factors b, 2 b and -2 o b.

    Returns:
        The radius in the unit of the sides.

    Raises:
        ValueError: a number out of its range or an unknown `radius`.

    Example:
        >>> round(gaussian_radius(10, 10), 3), round(gaussian_radius(10, 10, radius="cornernet"), 3)
        (0.817, 2.733)

    Reference:
        Law and Deng, "CornerNet", 2018, arXiv 1808.01244, section 3.2; Zhou et al., "Objects as Points", 2019,
        arXiv 1904.07850, section 3.
    """
    check_number("width", width, above=0)
    check_number("height", height, above=0)
    check_number("min_overlap", min_overlap, above=0, below=1)
    check_choice("radius", radius, get_args(Radius))
    total, area, o = width + height, width * height, min_overlap
    shifted = total**2 - 4 * area * (1 - o) / (1 + o)
    inside = 4 * total**2 - 16 * (1 - o) * area
    outside = 4 * (o * total) ** 2 + 16 * o * (1 - o) * area
    if radius == "cornernet":
        roots = [
            (total + math.sqrt(shifted)) / 2,
            (2 * total + math.sqrt(inside)) / 2,
            (-2 * o * total + math.sqrt(outside)) / 2,
        ]
    else:
        roots = [
            (total - math.sqrt(shifted)) / 2,
            (2 * total - math.sqrt(inside)) / 8,
            (-2 * o * total + math.sqrt(outside)) / (8 * o),
        ]
    return min(roots)


@dataclass(frozen=True)
class CenterHeatmap:
    """Draw each object as a gaussian around the cell of its centre, into the heatmap of its class.

    Formula:
        Y(x, y) = max over objects of exp(-((x - x₀)² + (y - y₀)²) / (2 σ²)) for |x - x₀| ≤ r and |y - y₀| ≤ r, else 0
        r = ⌊gaussian radius of the sides, rounded up to whole cells⌋,  σ = (2 r + 1) / 6,
        (x₀, y₀) = ⌊centre / stride⌋

    Args:
        num_classes: C.
        radius: ``"fixed"`` or ``"cornernet"``, see `gaussian_radius`. The published weights were trained with the
            latter, by mistake.
        min_overlap: see `gaussian_radius`.
        shared_cell: which of several objects with their centres in one cell is regressed there; all of them have their
            peak in the heatmap. ``"both"``, all of them, with contradictory targets, as in the authors' code;
            ``"smallest"``, the first in `canonical_order`; or ``"last"``, the last one in the target, whatever the
            order says, as in mmdetection.

    Raises:
        ValueError: a number out of its range, an unknown `radius` or `shared_cell`.

    Example:
        >>> target = {"boxes": torch.tensor([[0.0, 0, 12, 12]]), "labels": torch.tensor([0])}
        >>> targets = CenterHeatmap(1, radius="cornernet", min_overlap=0.3)((3, 4), 4, target)
        >>> targets.cells
        tensor([5])
        >>> targets.heatmap[0, 1]
        tensor([0.1353, 1.0000, 0.1353, 0.0000])

    Note:
        An object without an area, or with its centre outside the grid, is left out. Objects are listed in
        `canonical_order`.

    Reference:
        Zhou et al., "Objects as Points", 2019, arXiv 1904.07850, section 3.
    """

    num_classes: int
    radius: Radius = "fixed"
    min_overlap: float = 0.7
    shared_cell: SharedCell = "both"

    def __post_init__(self) -> None:
        check_number("num_classes", self.num_classes, at_least=1)
        check_choice("radius", self.radius, get_args(Radius))
        check_number("min_overlap", self.min_overlap, above=0, below=1)
        check_choice("shared_cell", self.shared_cell, get_args(SharedCell))

    def __call__(self, size: tuple[int, int], stride: float, target: Mapping[str, Tensor]) -> CenterTargets:
        """Return the heatmaps of one image and the cells of its objects.

        Args:
            size: height and width of the heatmap, in cells.
            stride: pixels between two cells.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) below C, optionally ``iscrowd`` (G,).
        """
        check_number("stride", stride, above=0)
        objects = ordered_objects(target, torch.float32)
        height, width = size
        centers: list[tuple[int, int]] = []
        drawn: list[tuple[int, int, int, int]] = []
        shapes = (convert(objects.boxes, "xyxy", "cxcywh") / stride).tolist()
        labels = target["labels"][objects.rows].tolist()
        for row, label, (x, y, w, h) in zip(objects.rows.tolist(), labels, shapes, strict=True):
            column, line = math.floor(x), math.floor(y)
            if w <= 0 or h <= 0 or not (0 <= column < width and 0 <= line < height):
                continue
            radius = int(gaussian_radius(math.ceil(w), math.ceil(h), self.min_overlap, self.radius))
            drawn.append((label, column, line, radius))
            centers.append((line * width + column, row))
        plane, *cells, reach = objects.rows.new_tensor(drawn).view(-1, 4).unbind(1)
        anchor = torch.stack(cells, 1)
        heatmap = draw_gaussians(
            self.num_classes, size, plane, anchor.float(), (2 * reach + 1) / 6, anchor=anchor, reach=reach
        )
        centers = self._regressed(centers)
        points, _ = point_grid([size], [stride], device=heatmap.device)
        return CenterTargets(
            heatmap,
            objects.rows.new_tensor([cell for cell, _ in centers]),
            objects.rows.new_tensor([row for _, row in centers]),
            points_in_crowd(points, objects.crowd).view(size),
        )

    def _regressed(self, centers: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return those of the pairs of cell and row, in canonical order, that answer for their cell."""
        if self.shared_cell == "both":
            return centers
        # Of a key that comes twice a dict keeps the value that came last, at the place of the first.
        last_wins = reversed(centers) if self.shared_cell == "smallest" else sorted(centers, key=lambda pair: pair[1])
        owner = dict(last_wins)
        return [(cell, row) for cell, row in centers if owner[cell] == row]
