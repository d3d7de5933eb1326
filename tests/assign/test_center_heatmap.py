"""CenterNet's targets: the radius against its definition, the heatmap as loops."""

import math
import random
from typing import Any

import pytest
import torch

from lossatlas.assign.center_heatmap import CenterHeatmap, gaussian_radius
from tests.assign.scenes import empty_target, random_target, shuffled, visiting_order


@pytest.mark.parametrize(
    ("width", "height", "published", "fixed"),
    [(10, 10, 2.733, 0.817), (32, 32, 8.746, 2.613), (20, 60, 8.374, 2.393), (128, 128, 34.985, 10.454)],
)
def test_known_radii(width: int, height: int, published: float, fixed: float) -> None:
    assert gaussian_radius(width, height, radius="cornernet") == pytest.approx(published, abs=6e-4)
    assert gaussian_radius(width, height) == pytest.approx(fixed, abs=6e-4)


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7, 0.95])
@pytest.mark.parametrize(("w", "h"), [(10, 10), (3, 40), (77, 20)])
def test_a_box_that_is_off_by_the_fixed_radius_has_the_overlap_at_worst(w: float, h: float, overlap: float) -> None:
    r = gaussian_radius(w, h, overlap)
    shifted = (w - r) * (h - r) / (2 * w * h - (w - r) * (h - r))
    inside = (w - 2 * r) * (h - 2 * r) / (w * h)
    outside = w * h / ((w + 2 * r) * (h + 2 * r))
    assert min(shifted, inside, outside) == pytest.approx(overlap)


@pytest.mark.parametrize("radius", ["fixed", "cornernet"])
def test_rule(radius: Any) -> None:
    height, width, stride = 4, 6, 4
    for seed in range(12):
        source = random.Random(seed)
        target = random_target(source, source.choice([0, 1, 4, 9]), 22, 24, crowd=0.2)
        boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
        heatmap = [[[0.0] * width for _ in range(height)] for _ in range(3)]
        cells, rows = [], []
        for row in visiting_order(target):
            x1, y1, x2, y2 = boxes[row]
            x0, y0 = math.floor((x1 + x2) / 2 / stride), math.floor((y1 + y2) / 2 / stride)
            if x1 == x2 or y1 == y2 or not (0 <= x0 < width and 0 <= y0 < height):
                continue
            sides = math.ceil((x2 - x1) / stride), math.ceil((y2 - y1) / stride)
            r = math.floor(gaussian_radius(*sides, 0.4, radius))
            sigma = (2 * r + 1) / 6
            for y in range(max(0, y0 - r), min(height, y0 + r + 1)):
                for x in range(max(0, x0 - r), min(width, x0 + r + 1)):
                    value = math.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
                    heatmap[labels[row]][y][x] = max(heatmap[labels[row]][y][x], value)
            cells.append(y0 * width + x0)
            rows.append(row)
        result = CenterHeatmap(3, radius, 0.4)((height, width), stride, target)
        torch.testing.assert_close(result.heatmap, torch.tensor(heatmap))
        assert (result.cells.tolist(), result.matched.tolist()) == (cells, rows)
        assert [int(result.heatmap[:, c // width, c % width].eq(1).any()) for c in cells] == [1] * len(cells)
        crowds = target["boxes"][target["iscrowd"]].tolist()
        for y in range(height):
            for x in range(width):
                px, py = (x + 0.5) * stride, (y + 0.5) * stride
                inside = any(x1 < px < x2 and y1 < py < y2 for x1, y1, x2, y2 in crowds)
                assert bool(result.ignored[y, x]) == inside
        other = CenterHeatmap(3, radius, 0.4)((height, width), stride, shuffled(target, source))
        assert torch.equal(other.heatmap, result.heatmap)
        assert torch.equal(other.cells, result.cells)


def test_two_objects_in_one_cell_are_both_listed() -> None:
    boxes = torch.tensor([[0.0, 0, 8, 8], [2.0, 2, 6, 6]])
    result = CenterHeatmap(2)((4, 4), 4, {"boxes": boxes, "labels": torch.tensor([0, 1])})
    assert result.cells.tolist() == [5, 5]
    assert result.matched.tolist() == [1, 0]
    assert result.heatmap[:, 1, 1].tolist() == [1, 1]


def test_no_objects() -> None:
    result = CenterHeatmap(2)((3, 5), 4, empty_target())
    assert result.heatmap.shape == (2, 3, 5)
    assert not result.heatmap.any()
    assert (result.cells.dtype, result.matched.dtype) == (torch.int64, torch.int64)
    assert len(result.cells) == 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`radius` must be one of 'fixed', 'cornernet'"):
        CenterHeatmap(2, "published")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`min_overlap` must be finite and above 0 and below 1"):
        gaussian_radius(4, 4, 1)
    with pytest.raises(ValueError, match="`width` must be finite and above 0"):
        gaussian_radius(0, 4)
