"""Heatmaps of keypoints as loops over cells, their named variants, and their edges."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.targets.grid import Convention, cell_centers, to_cells, to_pixels
from lossatlas.targets.heatmaps import KeypointHeatmaps
from tests.targets.scenes import random_people

SIZE, STRIDE = (11, 14), 4


def in_cells(x: float, y: float, convention: str) -> tuple[float, float]:
    if convention == "ends":
        height, width = SIZE
        return x * (width - 1) / (width * STRIDE - 1), y * (height - 1) / (height * STRIDE - 1)
    shift = {"center": STRIDE / 2 - 0.5, "index": 0.0, "area": STRIDE / 2}[convention]
    return (x - shift) / STRIDE, (y - shift) / STRIDE


def by_the_rule(people: list[Any], sizes: list[float], options: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Heatmaps of one image and which keypoints are on them, cell by cell."""
    height, width = SIZE
    base = options.get("sigma") or math.sqrt(height * width) / 64
    maps = [[[0.0] * width for _ in range(height)] for _ in people[0]]
    drawn = [[False] * len(people[0]) for _ in people]
    for n, person in enumerate(people):
        sigma = max(base * sizes[n] / 256, 0.5) if options.get("scale_aware") else base
        for k, (x, y, visibility) in enumerate(person):
            if not visibility:
                continue
            cx, cy = in_cells(x, y, options.get("convention", "center"))
            down = options.get("center") == "floor"
            a, b = (math.floor(c if down else c + 0.5) for c in (cx, cy))
            if options.get("center", "exact") != "exact":
                cx, cy = a, b
            window = options.get("window", "3sigma")
            reach = math.floor(3 * sigma + 1e-4) + (window == "3sigma+1")
            if window == "percent":
                reach = math.ceil(math.sqrt(2 * math.log(100)) * sigma + 0.5)
            elif window == "full":
                reach = 10**9
            margin = reach if options.get("outside") == "draw" else 0
            if not (-margin <= a < width + margin and -margin <= b < height + margin):
                continue
            drawn[n][k] = True
            for row in range(height):
                for column in range(width):
                    value = math.exp(-((column - cx) ** 2 + (row - cy) ** 2) / (2 * sigma**2))
                    if max(abs(column - a), abs(row - b)) > reach or (window == "percent" and value < 0.01):
                        continue
                    old = maps[k][row][column]
                    maps[k][row][column] = old + value if options.get("overlap") == "sum" else max(old, value)
    for plane in maps:
        for line in plane:
            line[:] = [min(value, 1.0) for value in line]
    if options.get("background"):
        maps.append([[1 - max(m[r][c] for m in maps) for c in range(width)] for r in range(height)])
    return maps, drawn


VARIANTS: list[dict[str, Any]] = [
    {},
    {"sigma": 1.5, "window": "3sigma+1", "center": "floor", "convention": "index"},
    {"sigma": 2.0, "center": "round", "convention": "index", "outside": "draw"},
    {"sigma": 1.2, "convention": "ends", "window": "full"},
    {"sigma": 0.875, "window": "percent", "outside": "draw", "background": True},
    {"sigma": 2.3, "window": "percent", "overlap": "sum", "outside": "draw", "background": True},
    {"sigma": 7.0, "scale_aware": True, "convention": "area", "overlap": "sum"},
    {"sigma": 3.0, "scale_aware": True, "window": "3sigma+1", "center": "round"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_rule(options: dict[str, Any]) -> None:
    heatmaps = KeypointHeatmaps(**options)
    for seed in range(4):
        source = random.Random(seed)
        people = random_people(source, 3, 4, SIZE[0] * STRIDE, SIZE[1] * STRIDE)
        sizes = [source.uniform(5, 120) for _ in range(3)]
        boxes = torch.tensor([[3.0, 1.0, 3.0 + side / 2, 1.0 + side] for side in sizes], dtype=torch.float64)
        maps, drawn = by_the_rule(people.tolist(), sizes, options)
        found = heatmaps(people, SIZE, STRIDE, boxes)
        torch.testing.assert_close(found.heatmaps, torch.tensor(maps, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        assert found.drawn.tolist() == drawn
        single = heatmaps(people.float(), SIZE, STRIDE, boxes.float())
        torch.testing.assert_close(single.heatmaps, found.heatmaps.float(), rtol=1e-3, atol=1e-4)


def test_unit_peaks_change_the_nearest_cells_alone() -> None:
    people = torch.stack([random_people(random.Random(seed), 3, 4, 44, 56) for seed in range(3)])
    plain, unit = (
        KeypointHeatmaps(sigma=1.0, outside="draw", unit_peaks=u)(people, SIZE, STRIDE) for u in (False, True)
    )
    peaks = 0
    for b, n, k in plain.drawn.nonzero().tolist():
        column, row = (math.floor((value - 1.5) / 4 + 0.5) for value in people[b, n, k, :2].tolist())
        if 0 <= column < 14 and 0 <= row < 11:
            assert plain.heatmaps[b, k, row, column] < 1
            assert unit.heatmaps[b, k, row, column] == 1
            peaks += 1
    changed = plain.heatmaps != unit.heatmaps
    assert 10 < changed.sum() <= peaks
    assert (unit.heatmaps[changed] == 1).all()


def test_a_batch_is_its_images() -> None:
    people = torch.stack([random_people(random.Random(seed), 3, 4, 44, 56) for seed in range(6)]).view(2, 3, 3, 4, 3)
    heatmaps = KeypointHeatmaps(sigma=1.0, background=True)
    together = heatmaps(people, SIZE, STRIDE)
    assert together.heatmaps.shape == (2, 3, 5, *SIZE)
    for i in range(2):
        for j in range(3):
            alone = heatmaps(people[i, j], SIZE, STRIDE)
            assert torch.equal(together.heatmaps[i, j], alone.heatmaps)
            assert torch.equal(together.drawn[i, j], alone.drawn)


def test_variants_differ_where_they_should() -> None:
    """A keypoint 0.9 of a cell after cell 10, as in the published codes' disagreement."""
    point = torch.tensor([[[4 * 10.9, 4 * 5.0, 2.0]]], dtype=torch.float64)

    def peak(**options: Any) -> tuple[int, float]:
        line = KeypointHeatmaps(sigma=2.0, convention="index", **options)(point, SIZE, STRIDE).heatmaps[0, 5]
        return int(line.argmax()), float(line.max())

    assert peak(center="floor") == (10, 1.0)
    assert peak(center="round") == (11, 1.0)
    column, height = peak(center="exact")
    assert column == 11
    assert height == pytest.approx(math.exp(-0.01 / 8))
    middle = torch.tensor([[[4 * 7.0, 4 * 5.0, 2.0]]], dtype=torch.float64)
    options: list[Any] = ["percent", "3sigma", "3sigma+1", "full"]
    maps = [KeypointHeatmaps(sigma=1.0, window=o, convention="index")(middle, SIZE, STRIDE).heatmaps for o in options]
    assert [int((heatmap > 0).sum()) for heatmap in maps] == [29, 49, 81, SIZE[0] * SIZE[1]]


@pytest.mark.parametrize("place", [(3, 3), (2, 2), (0, 0)])
def test_a_sigma_that_is_not_whole_leaves_peaks_near_the_border_where_they_are(place: tuple[int, int]) -> None:
    point = torch.tensor([[[float(place[0]), float(place[1]), 2.0]]])
    heatmap = KeypointHeatmaps(sigma=1.5, center="round", convention="index")(point, (20, 20), 1).heatmaps[0]
    assert divmod(int(heatmap.argmax()), 20) == (place[1], place[0])
    assert heatmap.max() == 1


def test_a_flipped_image_has_the_flipped_map_unless_cells_lie_at_their_first_pixel() -> None:
    people = random_people(random.Random(3), 2, 3, 44, 56)
    flipped = people.clone()
    flipped[..., 0] = SIZE[1] * STRIDE - 1 - people[..., 0]
    for convention, same in (("center", True), ("ends", True), ("index", False), ("area", False)):
        heatmaps = KeypointHeatmaps(sigma=1.5, convention=convention, window="full")  # type: ignore[arg-type]
        first, second = (heatmaps(points, SIZE, STRIDE).heatmaps for points in (people, flipped))
        assert torch.allclose(first.flip(-1), second, atol=1e-9) == same


@pytest.mark.parametrize("convention", ["center", "index", "area", "ends"])
def test_cells_and_pixels_are_inverse(convention: Convention) -> None:
    points = torch.tensor([[0.0, 0.0], [13.25, 40.5], [-3.0, 70.0]], dtype=torch.float64)
    cells = to_cells(points, SIZE, STRIDE, convention)
    for cell, (px, py) in zip(cells.tolist(), points.tolist(), strict=True):
        assert cell == pytest.approx(in_cells(px, py, convention))
    torch.testing.assert_close(to_pixels(cells, SIZE, STRIDE, convention), points)
    x, y = cell_centers(SIZE, STRIDE, convention)
    grid = to_cells(torch.stack((x, torch.zeros_like(x)), 1), SIZE, STRIDE, convention)[:, 0]
    torch.testing.assert_close(grid, torch.arange(14.0), rtol=0, atol=1e-5)
    assert y.shape == (11,)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 4, 3), (0, 2, 4, 3), (0, 0, 4, 3), (2, 2, 4, 3)])
def test_nothing_to_draw(shape: tuple[int, ...]) -> None:
    found = KeypointHeatmaps()(torch.zeros(shape), SIZE, STRIDE)
    assert found.heatmaps.shape == (*shape[:-3], 4, *SIZE)
    assert not found.heatmaps.any()
    assert not found.drawn.any()
    assert found.drawn.shape == shape[:-1]


def test_half_precision_draws_in_single() -> None:
    people = torch.tensor([[[9.5, 5.5, 2.0]]], dtype=torch.float16)
    assert KeypointHeatmaps()(people, SIZE, STRIDE).heatmaps.dtype == torch.float32


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`window` must be one of '3sigma', '3sigma\\+1', 'percent', 'full'"):
        KeypointHeatmaps(window="4sigma")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`sigma` must be finite and above 0"):
        KeypointHeatmaps(sigma=0)
    points: Tensor = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"`boxes` must have shape \(2, 4\) for a scale-aware σ, but got None"):
        KeypointHeatmaps(scale_aware=True)(points, SIZE, STRIDE)
    with pytest.raises(ValueError, match=r"`keypoints` must have shape \(\*batch, N, K, 3\), but got \(4, 3\)"):
        KeypointHeatmaps()(points[0], SIZE, STRIDE)
    with pytest.raises(TypeError, match="`keypoints` must have a floating-point dtype"):
        KeypointHeatmaps()(points.long(), SIZE, STRIDE)
    with pytest.raises(ValueError, match="`stride` must be finite and above 0"):
        KeypointHeatmaps()(points, SIZE, 0)
