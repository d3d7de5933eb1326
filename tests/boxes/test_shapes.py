"""The annotated shapes hold at run time, broadcasting included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from lossatlas.assign import (
    CenterHeatmap,
    FCOSPoints,
    MaxIoU,
    YOLOv1Cell,
    YOLOv3BestAnchor,
    YOLOv4,
    YOLOv5Ratio,
    canonical_order,
)
from lossatlas.boxes.clustering import kmeans_anchors
from lossatlas.boxes.coders import DeltaCoder, DistributionCoder, PointDistanceCoder
from lossatlas.boxes.formats import ltrb_to_xyxy, xyxy_to_ltrb
from lossatlas.boxes.geometry import shape_iou
from lossatlas.boxes.nms import batched_nms
from lossatlas.boxes.priors import anchor_grid, point_grid, ssd_anchors, yolo_anchors
from lossatlas.boxes.yolo_coders import YOLOCoder, YOLOv1Coder, YOLOv5Coder, YOLOXCoder

ROW, GRID = torch.rand(3, 4), torch.rand(5, 1, 4)
TARGET = {"boxes": ROW, "labels": torch.zeros(3, dtype=torch.int64)}

CALLS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (ltrb_to_xyxy, (ROW, GRID[..., :2])),
    (xyxy_to_ltrb, (GRID, ROW[:, :2])),
    (DeltaCoder.encode, (DeltaCoder(), ROW, GRID)),
    (DeltaCoder.decode, (DeltaCoder(), GRID, ROW)),
    (PointDistanceCoder.encode, (PointDistanceCoder(), GRID, ROW[:, :2], torch.ones(3))),
    (PointDistanceCoder.decode, (PointDistanceCoder(), ROW, ROW[:, :2], torch.ones(3))),
    (DistributionCoder.encode, (DistributionCoder(), GRID, ROW[:, :2], torch.ones(3))),
    (DistributionCoder.decode, (DistributionCoder(2), torch.rand(3, 4, 3), ROW[:, :2], torch.ones(3))),
    (YOLOCoder.encode, (YOLOCoder(), ROW, GRID, torch.ones(3))),
    (YOLOCoder.decode, (YOLOCoder(), GRID, ROW, torch.ones(3))),
    (YOLOv1Coder.encode, (YOLOv1Coder(), ROW, torch.arange(3), (9, 9))),
    (YOLOv1Coder.decode, (YOLOv1Coder(), GRID, torch.arange(3), (9, 9))),
    (YOLOv5Coder.decode, (YOLOv5Coder(), GRID, ROW, torch.ones(3))),
    (YOLOXCoder.decode, (YOLOXCoder(), GRID, ROW[:, :2], torch.ones(3))),
    (shape_iou, (ROW[:, :2], GRID[..., :2])),
    (kmeans_anchors, (ROW[:, :2] + 1, 2)),
    (ssd_anchors, ([(1, 1)] * 6, (30, 30))),
    (yolo_anchors, ([(2, 2)] * 3, [8.0, 16.0, 32.0])),
    (batched_nms, (ROW, torch.rand(3), TARGET["labels"], 0.5)),
    (point_grid, ([(2, 2)], [8.0])),
    (anchor_grid, ([(2, 2)], [8.0])),
    (canonical_order, (ROW, TARGET["labels"])),
    (MaxIoU.__call__, (MaxIoU(), ROW, TARGET)),
    (MaxIoU.match, (MaxIoU(), ROW)),
    (YOLOv1Cell.__call__, (YOLOv1Cell((1, 3)), ROW, (9, 9), TARGET)),
    (YOLOv3BestAnchor.__call__, (YOLOv3BestAnchor(), ROW, torch.ones(3), TARGET)),
    (YOLOv4.__call__, (YOLOv4(), ROW, torch.ones(3), TARGET, ROW, torch.rand(3, 2))),
    (YOLOv5Ratio.__call__, (YOLOv5Ratio(), ROW, torch.ones(3), TARGET)),
    (CenterHeatmap.__call__, (CenterHeatmap(1), (2, 2), 1.0, TARGET)),
    (FCOSPoints.__call__, (FCOSPoints(), ROW[:, :2], torch.ones(3), TARGET)),
]


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=[call[0].__qualname__ for call in CALLS])
def test_annotations_hold(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = jaxtyped(typechecker=beartype)(function)(*arguments)
    assert result is not None
