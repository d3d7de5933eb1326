"""The memory of matching grows with priors + objects, not with their product."""

import pytest
import torch
from torch import Tensor

from lossatlas.assign import FCOSPoints, MaxIoU
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
