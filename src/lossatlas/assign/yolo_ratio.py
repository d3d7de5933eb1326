"""YOLOv5: every anchor whose sides are within a factor of the object's, on its cell and the two nearest ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, check_block_size, ordered_objects
from lossatlas.assign.cells import Level, levels_of
from lossatlas.assign.regions import boxes_in_crowd
from lossatlas.assign.selection import settle, to_rows
from lossatlas.assign.yolo_anchors import check_anchors
from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import shape_iou
from lossatlas.checks import check_number
from lossatlas.dtypes import upcast


@dataclass(frozen=True)
class YOLOv5Ratio:
    """Assign each object to all anchors of similar sides, on every level, in its cell and the two nearest cells.

    Formula:
        cells: the one that holds the object's centre, the left or right neighbour and the upper or lower one, whichever
               is nearer to the centre; none of the two if the centre lies in the middle
        positive: the anchors on these cells with max(w / wₐ, wₐ / w, h / hₐ, hₐ / h) < ratio
        negative: the rest

    Args:
        ratio: above 1.
        neighbors: whether the two neighbours count; otherwise only the cell that holds the centre does.
        crowd_threshold: an anchor that is not positive is ignored if a crowd region covers this share of its area;
            None leaves it negative. Nothing is ever assigned to a crowd region.
        block_size: anchors that are held against all crowd regions at a time; it changes memory, never the result.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> from lossatlas.boxes.priors import yolo_anchors
        >>> anchors = yolo_anchors([(1, 3)], [8], [[(8, 8)]])
        >>> target = {"boxes": torch.tensor([[6.0, 0, 14, 8]]), "labels": torch.tensor([0])}
        >>> YOLOv5Ratio()(anchors, torch.full((3,), 8.0), target).matched
        tensor([ 0,  0, -1])

    Note:
        If several objects claim one anchor, the one whose shape has the highest IoU with it has it, of equal ones the
        first in `canonical_order`. YOLOv5 trains the box and the class of all of them and lets the last one of the
        target set the objectness. It has no neighbour in the first or last column or row for a centre exactly on that
        cell's inner border; here it has. An object without an area has no anchor.

    Reference:
        There is no paper; the rule is that of YOLOv5's loss, release 2.0 and later (2020).
    """

    ratio: float = 4.0
    neighbors: bool = True
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio, above=1)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    def __call__(
        self, anchors: Float[Tensor, "p 4"], strides: Float[Tensor, " p"], target: Mapping[str, Tensor]
    ) -> Assignment:
        """Return which object of one image each anchor answers for.

        Args:
            anchors: ``(P, 4)`` xyxy pixels, each in the middle of its cell, as of `yolo_anchors`.
            strides: ``(P,)`` pixels, which tell the cell.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).
        """
        check_anchors(anchors, strides)
        anchors, strides = upcast(anchors, strides)
        objects = ordered_objects(target, anchors.dtype)
        centers, sides = convert(anchors, "xyxy", "cxcywh").split(2, dim=1)
        object_centers, object_sides = convert(objects.boxes, "xyxy", "cxcywh").split(2, dim=1)
        claims = [(strides.new_zeros(0, dtype=torch.int64),) * 2]
        claims += [self._on_cells(level, object_centers) for level in levels_of(centers, strides)]
        owner, prediction = (torch.cat(column) for column in zip(*claims, strict=True))
        ratio = object_sides[owner] / sides[prediction]
        similar = (torch.maximum(ratio, 1 / ratio) < self.ratio).all(1)
        owner, prediction = owner[similar], prediction[similar]
        fit = shape_iou(object_sides[owner], sides[prediction])
        matched = to_rows(objects.rows, settle(owner, prediction, fit, len(anchors)))
        return Assignment.build(matched, boxes_in_crowd(anchors, objects.crowd, self.crowd_threshold, self.block_size))

    def _on_cells(self, level: Level, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs of objects and predictions on the objects' cells of one level."""
        place = centers / level.stride
        cell = place.floor()
        column, row = cell.to(torch.int64).unbind(1)
        objects = torch.arange(len(centers), device=centers.device)
        cells = [(objects, column, row)]
        if self.neighbors:
            step_x, step_y = (place - cell - 0.5).sign().to(torch.int64).unbind(1)
            aside, above = step_x != 0, step_y != 0
            cells.append((objects[aside], (column + step_x)[aside], row[aside]))
            cells.append((objects[above], column[above], (row + step_y)[above]))
        owner, columns, rows = (torch.cat(parts) for parts in zip(*cells, strict=True))
        question, prediction = level.pairs(columns, rows)
        return owner[question], prediction
