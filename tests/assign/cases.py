"""Every assigner in one form, so that what is true of all of them is tested, and measured, once.

To add an assigner, add a `Case`: only the tests of its rule are its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossatlas.assign import (
    ATSS,
    Assignment,
    Bipartite,
    CenterHeatmap,
    DynamicSoftLabel,
    FCOSPoints,
    Hungarian,
    MaxIoU,
    SimOTA,
    TaskAligned,
    Uniform,
    YOLOv1Cell,
    YOLOv3BestAnchor,
    YOLOv4,
    YOLOv5Ratio,
)

Target = dict[str, Tensor]


class Grid(NamedTuple):
    """Priors of a grid and what a network predicts at each of them."""

    image_size: tuple[int, int]
    priors: Tensor
    """``(P, 4)`` around the middles of their cells, level by level, the finest first."""
    points: Tensor
    strides: Tensor
    level_sizes: list[int]
    class_logits: Tensor
    objectness_logits: Tensor
    boxes: Tensor


def grid(image_size: tuple[int, int], strides: list[int], seed: int, dtype: torch.dtype = torch.float32) -> Grid:
    """Return a grid with one prior of 2.5 strides for each cell, and predictions around it."""
    height, width = image_size
    points, steps = [], []
    for stride in strides:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        points.append((torch.stack((x, y), dim=-1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((len(points[-1]),), float(stride)))
    centers, step = torch.cat(points), torch.cat(steps)
    generator = torch.Generator().manual_seed(seed)
    half = 1.25 * step[:, None]
    distances = torch.rand(len(centers), 4, generator=generator) * 3 * step[:, None]
    logits = torch.randn(len(centers), 4, generator=generator) * 2
    return Grid(
        image_size,
        torch.cat((centers - half, centers + half), dim=1),
        centers,
        step,
        [len(level) for level in points],
        logits[:, :3].to(dtype),
        logits[:, 3].to(dtype),
        torch.cat((centers - distances[:, :2], centers + distances[:, 2:]), dim=1).to(dtype),
    )


def crowded_scene(predictions: int, objects: int) -> tuple[Grid, Target]:
    """Return a grid of about so many predictions on three levels, and objects of all sizes all over it."""
    side = 8 * math.ceil((predictions / (1 + 1 / 4 + 1 / 16)) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(objects, 2, generator=generator) * side
    sides = 10 + torch.rand(objects, 2, generator=generator) * 90
    labels = torch.randint(3, (objects,), generator=generator)
    return grid((side, side), [8, 16, 32], 0), {"boxes": torch.cat((start, start + sides), dim=1), "labels": labels}


@dataclass(frozen=True)
class Case:
    """An assigner as a function of a grid, a target and the size of the blocks that it works in."""

    run: Callable[[Grid, Target, int | None], Assignment]
    in_blocks: bool = True
    """Whether it has a ``block_size``."""
    forced: bool = False
    """Whether an object gets a prediction wherever it lies, by the rule."""
    borrows: bool = False
    """Whether an object without candidates may take those of others: what it was asked for."""
    pairwise: bool = False
    """Whether it holds all pairs of predictions and objects in memory."""
    one_level: bool = False
    """Whether it takes the finest level alone."""


def _first_level(grid: Grid) -> Grid:
    count = grid.level_sizes[0]
    rows: Any = {name: value[:count] for name, value in grid._asdict().items() if isinstance(value, Tensor)}
    return grid._replace(level_sizes=[count], **rows)


def _yolo_v1(grid: Grid, target: Target, block: int | None) -> Assignment:
    height, width = grid.image_size
    stride = int(grid.strides[0])
    return YOLOv1Cell((height // stride, width // stride))(_first_level(grid).boxes, grid.image_size, target)


def _center_heatmap(grid: Grid, target: Target, block: int | None) -> Assignment:
    height, width = grid.image_size
    stride = int(grid.strides[0])
    return CenterHeatmap(3)((height // stride, width // stride), stride, target).to_assignment()


CASES = {
    "MaxIoU.retinanet": Case(lambda g, t, b: MaxIoU(0.5, 0.4, "keep", block_size=b)(g.priors, t)),
    "MaxIoU.rpn, reassigned": Case(lambda g, t, b: MaxIoU(0.7, 0.3, "reassign", block_size=b)(g.priors, t)),
    "MaxIoU.roi": Case(lambda g, t, b: MaxIoU(0.5, 0.5, "none", block_size=b)(g.priors, t)),
    "Bipartite": Case(lambda g, t, b: Bipartite(block_size=b)(g.priors, t)),
    "YOLOv1Cell": Case(_yolo_v1, in_blocks=False, one_level=True),
    "YOLOv3BestAnchor": Case(lambda g, t, b: YOLOv3BestAnchor(block_size=b)(g.priors, g.strides, t)),
    "YOLOv3BestAnchor, predictions": Case(
        lambda g, t, b: YOLOv3BestAnchor("prediction", 0.7, block_size=b)(g.priors, g.strides, t, g.boxes)
    ),
    "YOLOv4": Case(lambda g, t, b: YOLOv4(block_size=b)(g.priors, g.strides, t, g.boxes, g.class_logits.sigmoid())),
    "YOLOv5Ratio": Case(lambda g, t, b: YOLOv5Ratio(block_size=b)(g.priors, g.strides, t)),
    "FCOSPoints": Case(lambda g, t, b: FCOSPoints(block_size=b)(g.points, g.strides, t)),
    "CenterHeatmap": Case(_center_heatmap, in_blocks=False, one_level=True),
    "ATSS": Case(lambda g, t, b: ATSS(block_size=b)(g.priors, g.level_sizes, t)),
    "SimOTA": Case(
        lambda g, t, b: SimOTA(block_size=b)(g.points, g.strides, g.class_logits, g.boxes, t, g.objectness_logits)
    ),
    "SimOTA, any pool": Case(
        lambda g, t, b: SimOTA("box_or_center", pool="any", block_size=b)(
            g.points, g.strides, g.class_logits, g.boxes, t
        ),
        borrows=True,
    ),
    "TaskAligned": Case(lambda g, t, b: TaskAligned(block_size=b)(g.points, g.class_logits, g.boxes, t)),
    "TaskAligned.yolov8": Case(
        lambda g, t, b: TaskAligned(
            10, 0.5, order="mask_first", conflict="all", measure="ciou", margin=0.0, min_side=16.0, block_size=b
        )(g.points, g.class_logits, g.boxes, t)
    ),
    "DynamicSoftLabel": Case(
        lambda g, t, b: DynamicSoftLabel(block_size=b)(g.points, g.strides, g.class_logits, g.boxes, t)
    ),
    "Uniform": Case(lambda g, t, b: Uniform(block_size=b)(g.priors, g.boxes, t)),
    "Hungarian": Case(
        lambda g, t, b: Hungarian()(g.class_logits, g.boxes, t, g.image_size),
        in_blocks=False,
        forced=True,
        pairwise=True,
    ),
}
