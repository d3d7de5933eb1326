"""Matching by kernels against the PyTorch code that defines it: the same to the last bit."""

import random
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from lossatlas import kernels
from lossatlas.assign import Assignment, FCOSPoints, MaxIoU
from lossatlas.assign.fcos_points import Bounds
from lossatlas.assign.regions import highest_iou
from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.kernels.native import usable_float32
from tests.assign.scenes import assert_same, float_boxes, random_target
from tests.kernels.case import needs_kernels
from tests.memory import PeakMemory

pytestmark = needs_kernels

Scene = tuple[Tensor, dict[str, Tensor]]


def target_of(boxes: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64)}


def ties() -> Scene:
    """Whole coordinates: many equal overlaps, flat and equal boxes."""
    source = random.Random(0)
    priors = random_target(source, 300, 30, 12, 0.0)["boxes"]
    return priors, random_target(source, 40, 30, 12, 0.2)


def anchors() -> Scene:
    """Priors in the order of a grid, of which a few lie beside each other."""
    return anchor_grid([(40, 40), (20, 20), (10, 10)], [8, 16, 32]), target_of(float_boxes(150, seed=1) * 2)


def scattered() -> Scene:
    return float_boxes(1000, seed=2), target_of(float_boxes(70, seed=3))


def broken() -> Scene:
    """Inverted, infinite, huge and undefined boxes among ordinary ones."""
    odd = torch.tensor(
        [
            [30.0, 30, 10, 10],
            [-torch.inf, -torch.inf, torch.inf, torch.inf],
            [10.0, 10, torch.nan, 40],
            [torch.nan, 10, 30, 40],
            [-1e30, -1e30, 1e30, 1e30],
            [0.0, 0, 1e-30, 1e-30],
        ]
    )
    return torch.cat((odd, float_boxes(90, seed=4))), target_of(torch.cat((float_boxes(20, seed=5), odd)))


SCENES: dict[str, Callable[[], Scene]] = {
    "ties": ties,
    "anchors": anchors,
    "scattered": scattered,
    "broken": broken,
    "one prior": lambda: (float_boxes(1, seed=6), target_of(float_boxes(65, seed=7))),
    "one object": lambda: (float_boxes(65, seed=8), target_of(float_boxes(1, seed=9))),
}

every_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())


def by_twin(assigner: MaxIoU, priors: Tensor, target: dict[str, Tensor]) -> Assignment:
    with kernels.disabled():
        return assigner(priors, target)


@every_scene
@pytest.mark.parametrize("low_quality", ["none", "keep", "reassign"])
def test_equals_the_twin(scene: Callable[[], Scene], low_quality: str, instruction_set: str) -> None:
    priors, target = scene()
    assert usable_float32(priors, target["boxes"])
    for least in (0.0, 0.3):
        assigner = MaxIoU(0.5, 0.0, low_quality, min_low_quality_iou=least)  # type: ignore[arg-type]
        found = assigner(priors, target)
        assert_same(found, by_twin(assigner, priors, target))
    assert found.positive.any() or scene is not anchors


@every_scene
def test_the_highest_iou_is_that_of_the_twin(scene: Callable[[], Scene], instruction_set: str) -> None:
    priors, target = scene()
    found = highest_iou(priors, target["boxes"])
    with kernels.disabled():
        assert torch.equal(found, highest_iou(priors, target["boxes"]))
    assert found.any()


def test_priors_in_other_layouts() -> None:
    priors, target = anchors()
    strided = torch.stack((priors, priors), dim=-1)[..., 0]
    assert_same(MaxIoU()(strided, target), by_twin(MaxIoU(), priors, target))


def test_the_number_of_threads_changes_nothing(threads: Callable[[int], None]) -> None:
    priors, target = anchors()
    expected = by_twin(MaxIoU(), priors, target)
    for number in (1, 2, 5):
        threads(number)
        assert_same(MaxIoU()(priors, target), expected)


POINTS = point_grid([(40, 40), (20, 20), (10, 10)], [8, 16, 32])
RANGES = {8.0: (1.0, 30.0), 16.0: (20.0, 100.0), 32.0: (0.0, float("inf"))}


@every_scene
@pytest.mark.parametrize("bounds", ["inclusive", "strict"])
@pytest.mark.parametrize("radius", [None, 1.3])
def test_points_as_the_twin(
    scene: Callable[[], Scene], bounds: Bounds, radius: float | None, instruction_set: str
) -> None:
    target = scene()[1]
    points, strides = POINTS
    for ranges in (None, RANGES):
        assigner = FCOSPoints(ranges, radius, bounds)
        found = assigner(points, strides, target)
        with kernels.disabled():
            assert_same(found, assigner(points, strides, target))
    assert found.positive.any()


def test_points_on_the_edge_as_the_twin() -> None:
    """Points on a grid of whole numbers, on borders and centres of objects; some are infinite or undefined."""
    target = ties()[1]
    points = torch.cartesian_prod(torch.arange(40.0), torch.arange(40.0))
    points[::97] = torch.tensor([torch.inf, 3.0])
    points[5::97] = torch.tensor([3.0, torch.nan])
    for bounds in get_args(Bounds):
        assigner = FCOSPoints(center_radius=1.0, bounds=bounds)
        found = assigner(points, torch.full((len(points),), 4.0), target)
        with kernels.disabled():
            assert_same(found, assigner(points, torch.full((len(points),), 4.0), target))
    assert found.positive.any()


def test_points_in_other_layouts_by_any_number_of_threads(threads: Callable[[int], None]) -> None:
    target = anchors()[1]
    points, strides = POINTS
    with kernels.disabled():
        expected = FCOSPoints()(points, strides, target)
    for number in (1, 5):
        threads(number)
        assert_same(FCOSPoints()(points.T.contiguous().T, strides, target), expected)


def test_memory_is_that_of_the_results() -> None:
    priors = float_boxes(120_000, seed=0)
    target = target_of(float_boxes(1000, seed=1))
    with PeakMemory() as memory:
        assert MaxIoU.retinanet()(priors, target).positive.any()
    assert memory.peak < 60 * len(priors)
