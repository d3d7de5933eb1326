"""FCOS's assignment against its rule written as loops, and worked by hand."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import FCOSPoints
from lossatlas.boxes.priors import point_grid
from tests.assign.scenes import random_target, visiting_order


def target_of(*boxes: list[float], crowd: int = 0) -> dict[str, Tensor]:
    """Boxes as objects; the last `crowd` of them are crowd regions."""
    count = len(boxes)
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.arange(count),
        "iscrowd": torch.arange(count) >= count - crowd,
    }


def by_the_rule(
    points: list[list[float]], strides: list[float], target: dict[str, Tensor], radius: float | None, strict: bool
) -> tuple[list[int], list[int]]:
    boxes, crowd = target["boxes"].tolist(), target["iscrowd"].tolist()
    matched, state = [], []
    for (x, y), stride in zip(points, strides, strict=True):
        low = 0 if stride == min(strides) else 4 * stride
        high = math.inf if stride == max(strides) else 8 * stride
        winner, in_crowd = -1, False
        for x1, y1, x2, y2 in (box for box, is_crowd in zip(boxes, crowd, strict=True) if is_crowd):
            in_crowd |= x1 < x < x2 and y1 < y < y2
        for row in reversed(visiting_order(target)):  # the first in the order is the last to write
            x1, y1, x2, y2 = boxes[row]
            left, top, right, bottom = x1, y1, x2, y2
            if radius is not None:
                cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
                left, right = max(x1, cx - radius * stride), min(x2, cx + radius * stride)
                top, bottom = max(y1, cy - radius * stride), min(y2, cy + radius * stride)
            size = max(x - x1, y - y1, x2 - x, y2 - y)
            in_range = low < size < high if strict else low <= size <= high
            if left < x < right and top < y < bottom and in_range:
                winner = row
        matched.append(winner)
        state.append(1 if winner >= 0 else -1 if in_crowd else 0)
    return matched, state


@pytest.mark.parametrize("bounds", ["inclusive", "strict"])
@pytest.mark.parametrize("radius", [None, 0.5, 1, 1.5])
def test_rule(bounds: Any, radius: float | None) -> None:
    points, strides = point_grid([(8, 8), (4, 4), (2, 2)], [2, 4, 8])
    seen = set()
    for seed in range(40):
        source = random.Random(seed)
        target = random_target(source, source.choice([0, 1, 4, 9]), 14, 32, crowd=0.15)
        assigner = FCOSPoints(center_radius=radius, bounds=bounds, block_size=source.choice([None, 1, 10]))
        assignment = assigner(points, strides, target)
        matched, state = by_the_rule(points.tolist(), strides.tolist(), target, radius, bounds == "strict")
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == state
        seen |= set(state)
    assert seen == {-1, 0, 1}


def test_default_ranges_are_the_papers() -> None:
    # A point in the middle of a square of half-side m, at strides 8 to 128.
    strides = torch.tensor([8.0, 16.0, 32.0, 64.0, 128.0])
    points = torch.full((5, 2), 1000.0)
    levels = {20.0: [0], 63.0: [0], 65.0: [1], 127.0: [1], 200.0: [2], 300.0: [3], 513.0: [4], 900.0: [4]}
    for half, expected in levels.items():
        square = target_of([1000 - half, 1000 - half, 1000 + half, 1000 + half])
        assignment = FCOSPoints()(points, strides, square)
        assert assignment.positive.nonzero().squeeze(1).tolist() == expected


def test_a_size_on_the_border_belongs_to_both_levels_or_to_none() -> None:
    points, strides = torch.tensor([[64.0, 64.0], [64.0, 64.0]]), torch.tensor([8.0, 16.0])
    square = target_of([0.0, 0.0, 128.0, 128.0])
    assert FCOSPoints()(points, strides, square).state.tolist() == [1, 1]
    assert FCOSPoints(bounds="strict")(points, strides, square).state.tolist() == [0, 0]


def test_given_ranges() -> None:
    points, strides = torch.tensor([[8.0, 8.0], [8.0, 8.0]]), torch.tensor([8.0, 16.0])
    square = target_of([0.0, 0.0, 16.0, 16.0])  # max distance 8
    assert FCOSPoints({8: (0, 7), 16: (7, math.inf)})(points, strides, square).state.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"`ranges` must have an entry for every stride, but has none for \[16.0\]"):
        FCOSPoints({8: (0, 7)})(points, strides, square)


def test_center_sampling_is_clipped_to_the_box() -> None:
    # A box 4 pixels wide: within 1.5 strides of its centre, but points beside it stay outside.
    points, strides = torch.tensor([[10.0, 10.0], [13.0, 10.0], [10.0, 23.0], [10.0, 21.0]]), torch.full((4,), 8.0)
    narrow = target_of([8.0, -30.0, 12.0, 50.0])
    assert FCOSPoints()(points, strides, narrow).state.tolist() == [1, 0, 0, 1]
    assert FCOSPoints(center_radius=None)(points, strides, narrow).state.tolist() == [1, 0, 1, 1]


def test_the_smallest_object_wins_even_by_one_square_pixel() -> None:
    # torchvision's float32 comparison of 1e8 - area cannot tell 103 from 107 square pixels.
    points, strides = torch.tensor([[5.0, 5.0]]), torch.tensor([8.0])
    large, small = [0.0, 0.0, 10.0, 10.4], [0.0, 0.0, 10.0, 10.3]
    assert FCOSPoints()(points, strides, target_of(large, small)).matched.tolist() == [1]
    assert FCOSPoints()(points, strides, target_of(small, large)).matched.tolist() == [0]
    huge = [-2e4, -2e4, 2e4, 2e4]  # 1.6e9 square pixels
    assert FCOSPoints()(points, strides, target_of(huge)).matched.tolist() == [0]


def test_points_in_a_crowd_region_are_ignored_unless_they_answer_for_an_object() -> None:
    points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [36.0, 4.0]]), torch.full((3,), 8.0)
    target = target_of([0.0, 0.0, 8.0, 8.0], [-10.0, -10.0, 30.0, 30.0], crowd=1)
    assignment = FCOSPoints()(points, strides, target)
    assert assignment.state.tolist() == [1, -1, 0]
    assert assignment.matched.tolist() == [0, -1, -1]


@pytest.mark.parametrize(("count", "objects"), [(0, 0), (0, 2), (3, 0)])
def test_nothing_to_assign(count: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    ranges: list[Any] = [None, {8: (0, 100)}]
    for given in ranges:
        assignment = FCOSPoints(given)(torch.rand(count, 2) + 5, torch.full((count,), 8.0), target)
        assert assignment.state.tolist() == [0] * count


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`ranges\[8\]` must be \(low, high\) with low < high"):
        FCOSPoints({8: (4, 4)})
    with pytest.raises(ValueError, match="`center_radius` must be finite and above 0"):
        FCOSPoints(center_radius=0)
    with pytest.raises(ValueError, match="`bounds` must be one of"):
        FCOSPoints(bounds="closed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`strides` must have shape \(2,\)"):
        FCOSPoints()(torch.zeros(2, 2), torch.ones(3), target_of())
