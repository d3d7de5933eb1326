"""YOLOv1: the cell that holds an object's centre answers for it, by the one of its boxes that is nearest to it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, ordered_objects
from lossatlas.assign.regions import boxes_in_crowd, check_rows
from lossatlas.assign.selection import settle, to_rows
from lossatlas.boxes.formats import convert, normalize
from lossatlas.boxes.geometry import area, overlap
from lossatlas.checks import check_number
from lossatlas.dtypes import upcast


@dataclass(frozen=True)
class YOLOv1Cell:
    """Assign each object to one of the boxes that the cell with its centre predicts, at most one object to a cell.

    Formula:
        responsible: of the cell's boxes the one with the highest IoU with the object; if all are 0, the one with the
                     least sum of squared differences of x, y, w, h in fractions of the image (x, y: centre)
        positive: the responsible boxes; negative: the rest

    Args:
        grid: rows and columns of cells that the image is divided into.
        crowd_threshold: a predicted box that is not positive is ignored if a crowd region covers this share of it;
            None leaves it negative. Nothing is ever assigned to a crowd region.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> predicted = torch.tensor([[0.0, 0, 9, 9], [0.0, 0, 4, 4], [50.0, 0, 99, 9], [50.0, 0, 99, 99]])
        >>> target = {"boxes": torch.tensor([[60.0, 20, 90, 90]]), "labels": torch.tensor([0])}
        >>> YOLOv1Cell(grid=(1, 2))(predicted, (100, 100), target).matched
        tensor([-1, -1, -1,  0])

    Note:
        Of several objects in one cell the first in `canonical_order` has it, the smallest one; darknet shuffles the
        objects and takes the first. Of equal boxes the first one is responsible. An object without an area, or whose
        centre is outside the image or on its right or lower edge, has no cell.

    Reference:
        Redmon et al., "You Only Look Once", 2015, arXiv 1506.02640, section 2; boxes without an overlap: darknet.
    """

    grid: tuple[int, int] = (7, 7)
    crowd_threshold: float | None = 0.5

    def __post_init__(self) -> None:
        for cells in self.grid:
            check_number("grid", cells, at_least=1)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)

    def __call__(
        self, predictions: Float[Tensor, "p 4"], image_size: tuple[int, int], target: Mapping[str, Tensor]
    ) -> Assignment:
        """Return which object of one image each predicted box answers for.

        Args:
            predictions: ``(P, 4)`` predicted boxes, xyxy pixels: row by row, the boxes of a cell side by side.
            image_size: height and width of the image in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit; P must be a multiple of the number of cells.
        """
        check_rows("predictions", predictions)
        rows, columns = self.grid
        if len(predictions) % (rows * columns):
            raise ValueError(
                f"`predictions` must have as many boxes for each of the {rows * columns} cells, but has "
                f"{len(predictions)}"
            )
        (boxes,) = upcast(predictions.detach())
        objects = ordered_objects(target, boxes.dtype)
        matched = torch.full_like(boxes[:, 0], -1, dtype=torch.int64)
        if len(boxes):
            matched = to_rows(objects.rows, self._match(boxes, image_size, objects.boxes))
        return Assignment.build(matched, boxes_in_crowd(boxes, objects.crowd, self.crowd_threshold))

    def _match(self, predictions: Tensor, image_size: tuple[int, int], boxes: Tensor) -> Tensor:
        rows, columns = self.grid
        height, width = image_size
        center = convert(boxes, "xyxy", "cxcywh")[:, :2]
        cell = (center * center.new_tensor([columns, rows]) / center.new_tensor([width, height])).floor()
        column, row = cell.to(torch.int64).unbind(1)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        inside = (inside & (area(boxes) > 0)).nonzero().squeeze(1)
        owner = settle(inside, (row * columns + column)[inside], torch.zeros_like(center[inside, 0]), rows * columns)
        taken = (owner >= 0).nonzero().squeeze(1)
        responsible = _nearest(predictions.view(rows * columns, -1, 4)[taken], boxes[owner[taken]], image_size)
        matched = torch.full_like(predictions[:, 0], -1, dtype=torch.int64)
        matched[taken * (len(predictions) // (rows * columns)) + responsible] = owner[taken]
        return matched


def _nearest(predictions: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return the ``(N,)`` index of the responsible one of each cell's boxes ``(N, B, 4)`` for the object ``(N, 4)``."""
    boxes = boxes[:, None].expand_as(predictions)
    iou = overlap(predictions, boxes).iou
    difference = convert(normalize(predictions - boxes, image_size), "xyxy", "cxcywh")
    apart = difference.square().sum(-1)
    score = torch.where((iou > 0).any(1, keepdim=True), iou, -apart)
    return score.max(dim=1).indices  # the first maximum
