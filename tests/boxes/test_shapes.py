"""The annotated shapes hold at run time, broadcasting included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from lossatlas.assign import FCOSPoints, MaxIoU, canonical_order
from lossatlas.boxes.coders import DeltaCoder, PointDistanceCoder
from lossatlas.boxes.formats import ltrb_to_xyxy, xyxy_to_ltrb
from lossatlas.boxes.nms import batched_nms
from lossatlas.boxes.priors import anchor_grid, point_grid

ROW, GRID = torch.rand(3, 4), torch.rand(5, 1, 4)
TARGET = {"boxes": ROW, "labels": torch.zeros(3, dtype=torch.int64)}

CALLS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (ltrb_to_xyxy, (ROW, GRID[..., :2])),
    (xyxy_to_ltrb, (GRID, ROW[:, :2])),
    (DeltaCoder.encode, (DeltaCoder(), ROW, GRID)),
    (DeltaCoder.decode, (DeltaCoder(), GRID, ROW)),
    (PointDistanceCoder.encode, (PointDistanceCoder(), GRID, ROW[:, :2], torch.ones(3))),
    (PointDistanceCoder.decode, (PointDistanceCoder(), ROW, ROW[:, :2], torch.ones(3))),
    (batched_nms, (ROW, torch.rand(3), TARGET["labels"], 0.5)),
    (point_grid, ([(2, 2)], [8.0])),
    (anchor_grid, ([(2, 2)], [8.0])),
    (canonical_order, (ROW, TARGET["labels"])),
    (MaxIoU.__call__, (MaxIoU(), ROW, TARGET)),
    (MaxIoU.match, (MaxIoU(), ROW)),
    (FCOSPoints.__call__, (FCOSPoints(), ROW[:, :2], torch.ones(3), TARGET)),
]


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=[call[0].__qualname__ for call in CALLS])
def test_annotations_hold(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = jaxtyped(typechecker=beartype)(function)(*arguments)
    assert result is not None
