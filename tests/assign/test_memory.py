"""The memory of matching grows with priors + objects, not with their product."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lossatlas.assign import (
    ATSS,
    Assignment,
    Bipartite,
    DynamicSoftLabel,
    FCOSPoints,
    MaxIoU,
    SimOTA,
    TaskAligned,
    Uniform,
)
from lossatlas.boxes.geometry import pairwise_iou
from tests.memory import PeakMemory

OBJECTS = 1000


def scene(priors: int, objects: int) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(priors + objects, 2, generator=generator) * 1000
    boxes = torch.cat((start, start + 10 + torch.rand(priors + objects, 2, generator=generator) * 90), dim=1)
    return boxes[:priors], {"boxes": boxes[priors:], "labels": torch.zeros(objects, dtype=torch.int64)}


def test_the_measure_sees_a_dense_matrix() -> None:
    priors, target = scene(1000, 500)
    with PeakMemory() as memory:
        pairwise_iou(priors, target["boxes"])
    assert 1000 * 500 * 4 < memory.peak < 1000 * 500 * 4 * 20
    assert memory.now == (1000 + 500) * 16  # the inputs, whose views it has met


@pytest.mark.parametrize(
    ("kind", "count"), [("boxes", 12_000), ("points", 12_000), pytest.param("boxes", 120_000, marks=pytest.mark.slow)]
)
def test_memory_grows_with_the_sum(kind: str, count: int) -> None:
    priors, target = scene(count, OBJECTS)
    with PeakMemory() as memory:
        if kind == "boxes":
            assignment = MaxIoU(low_quality="reassign")(priors, target)
        else:
            assignment = FCOSPoints()(priors[:, :2], torch.full((count,), 8.0), target)
    assert assignment.positive.any()
    # One float32 for each pair would be 48 MB, or 480 MB.
    assert memory.peak < 100 * (count + OBJECTS) + 15_000_000


ASSIGNERS: dict[str, Callable[[Tensor, Tensor, dict[str, Tensor]], Assignment]] = {
    "Bipartite": lambda boxes, logits, target: Bipartite()(boxes, target),
    "ATSS": lambda boxes, logits, target: ATSS()(boxes, [len(boxes)], target),
    "SimOTA": lambda boxes, logits, target: SimOTA("box_or_center", pool="any")(
        boxes[:, :2], torch.full((len(boxes),), 8.0), logits, boxes, target
    ),
    "DynamicSoftLabel": lambda boxes, logits, target: DynamicSoftLabel()(
        boxes[:, :2], torch.full((len(boxes),), 8.0), logits, boxes, target
    ),
    "TaskAligned": lambda boxes, logits, target: TaskAligned(conflict="all")(boxes[:, :2], logits, boxes, target),
    "TaskAligned.yolov8": lambda boxes, logits, target: TaskAligned.yolov8()(boxes[:, :2], logits, boxes, target),
    "Uniform": lambda boxes, logits, target: Uniform()(boxes, boxes, target),
}


@pytest.mark.parametrize("name", ASSIGNERS)
def test_memory_of_choosing_grows_with_the_sum(name: str) -> None:
    count = 12_000
    boxes, target = scene(count, OBJECTS)
    logits = torch.zeros(count, 2)
    with PeakMemory() as memory:
        assignment = ASSIGNERS[name](boxes, logits, target)
    assert assignment.positive.any()
    # One float32 for each pair would be 48 MB; a block of pairs and what is computed of them is up to 20 MB.
    assert memory.peak < 100 * (count + OBJECTS) + 20_000_000
