"""Peaks of heatmaps, and where between the cells they lie."""

import math
import random

import pytest
import torch

from lossatlas.targets.heatmaps import KeypointHeatmaps
from lossatlas.targets.peaks import find_peaks, refine_peaks


def test_rule() -> None:
    source = random.Random(0)
    for kernel in (1, 3, 5):
        # Few heights, so that plateaus are common.
        grid = [[source.randrange(6) / 5 for _ in range(9)] for _ in range(7)]
        expected = []
        for y in range(7):
            for x in range(9):
                r = kernel // 2
                window = [(b, a) for b in range(y - r, y + r + 1) for a in range(x - r, x + r + 1)]
                window = [(b, a) for b, a in window if 0 <= b < 7 and 0 <= a < 9]
                top = max(grid[b][a] for b, a in window)
                first = min(place for place in window if grid[place[0]][place[1]] == top)
                if first == (y, x) and grid[y][x] > 0.3:
                    expected.append((-grid[y][x], y, x))
        peaks = find_peaks(torch.tensor(grid), threshold=0.3, kernel=kernel, max_peaks=12)
        count = min(len(expected), 12)
        best = sorted(expected)[:count]
        assert peaks.found.tolist() == [True] * count + [False] * (12 - count)
        assert peaks.cells[:count].tolist() == [[x, y] for _, y, x in best]
        assert peaks.scores[:count].tolist() == pytest.approx([-height for height, _, _ in best])


def test_a_keypoint_between_cells_is_found_once() -> None:
    for x, y in ((17.5, 21.5), (19.5, 21.5), (17.5, 23.5), (19.5, 23.5)):  # on a cell, an edge, an edge, a corner
        heatmap = KeypointHeatmaps(sigma=2.0)(torch.tensor([[[x, y, 1.0]]], dtype=torch.float64), (12, 12), 4).heatmaps
        peaks = find_peaks(heatmap)
        assert peaks.found.sum() == 1
        place = refine_peaks(heatmap, peaks.cells[:, :1])
        assert place.flatten().tolist() == pytest.approx([(x - 1.5) / 4, (y - 1.5) / 4])


def test_the_quarter_by_hand() -> None:
    heatmap = torch.tensor([[0.0, 0.2, 0.0, 0.0], [0.5, 1.0, 0.6, 0.0], [0.0, 0.2, 0.0, 0.9]])
    place = refine_peaks(heatmap, torch.tensor([[1, 1], [3, 2]]), "quarter")
    assert place.tolist() == [[1.25, 1.0], [3.0, 2.0]]
    assert refine_peaks(heatmap, torch.tensor([[1, 1]]), "none").tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.5])
def test_dark_finds_the_centre_of_a_gaussian(sigma: float) -> None:
    source = random.Random(1)
    points = torch.tensor([[[source.uniform(0, 119), source.uniform(0, 99), 1.0] for _ in range(40)]]).double()
    heatmaps = KeypointHeatmaps(sigma=sigma, window="full")(points, (25, 30), 4).heatmaps
    peaks = find_peaks(heatmaps, max_peaks=1)
    place = refine_peaks(heatmaps, peaks.cells)[:, 0]
    inner = ((peaks.cells >= 1) & (peaks.cells < torch.tensor([29, 24])))[:, 0]
    assert 4 < (~inner).sum() < 20
    torch.testing.assert_close(place[inner], ((points[0, :, :2] - 1.5) / 4)[inner], rtol=0, atol=1e-6)
    assert torch.equal(place[~inner], peaks.cells[:, 0][~inner].double())
    quarter = refine_peaks(heatmaps, peaks.cells, "quarter")[:, 0]
    error = (quarter - (points[0, :, :2] - 1.5) / 4).abs()[inner].max()
    assert 0.1 < error <= 0.26


def test_dark_by_the_newton_step() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.rand(7, 7, generator=generator, dtype=torch.float64)
    h[3, 3] = 1.5
    log = [[math.log(value) for value in line] for line in h.tolist()]
    dx, dy = (log[3][4] - log[3][2]) / 2, (log[4][3] - log[2][3]) / 2
    dxx, dyy = (log[3][5] - 2 * log[3][3] + log[3][1]) / 4, (log[5][3] - 2 * log[3][3] + log[1][3]) / 4
    dxy = (log[4][4] - log[2][4] - log[4][2] + log[2][2]) / 4
    det = dxx * dyy - dxy * dxy
    assert det > 0 > dxx
    steps = [-(dyy * dx - dxy * dy) / det, -(dxx * dy - dxy * dx) / det]
    expected = [3 + min(max(step, -0.5), 0.5) for step in steps]
    assert refine_peaks(h, torch.tensor([[3, 3]]))[0].tolist() == pytest.approx(expected)


def test_dark_stays_where_the_map_has_no_top() -> None:
    flat = torch.ones(9, 9)
    saddle = torch.exp(torch.arange(-4.0, 5) ** 2 - torch.arange(-4.0, 5)[:, None] ** 2)
    for heatmap in (flat, saddle, torch.zeros(9, 9)):
        assert refine_peaks(heatmap, torch.tensor([[4, 4]])).tolist() == [[4.0, 4.0]]


def test_blurring_keeps_the_place_of_a_gaussian_and_calms_noise() -> None:
    point = torch.tensor([[[60.0, 50.0, 1.0]]]).double()
    true = (point[0, 0, :2] - 1.5) / 4
    heatmap = KeypointHeatmaps(sigma=2.0, window="full")(point, (25, 30), 4).heatmaps
    place = refine_peaks(heatmap, find_peaks(heatmap, max_peaks=1).cells, blur=11)
    torch.testing.assert_close(place[0, 0], true, rtol=0, atol=1e-3)
    errors = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        noisy = heatmap + 0.05 * torch.rand(heatmap.shape, generator=generator, dtype=torch.float64)
        cells = find_peaks(noisy, max_peaks=1).cells
        errors.append([(refine_peaks(noisy, cells, blur=blur)[0, 0] - true).norm() for blur in (None, 11)])
    plain, blurred = torch.tensor(errors).mean(0).tolist()
    assert blurred < plain / 2


def test_no_peaks() -> None:
    for shape in ((2, 3, 4, 5), (0, 3, 4, 5), (2, 3, 0, 5)):
        peaks = find_peaks(torch.zeros(shape))
        assert not peaks.found.any()
        assert peaks.cells.shape == (*peaks.found.shape, 2)
        assert refine_peaks(torch.zeros(shape), peaks.cells).shape == peaks.cells.shape
    assert find_peaks(torch.full((4, 4), 0.1)).found.sum() == 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`kernel` must be odd, but got 4"):
        find_peaks(torch.zeros(4, 4), kernel=4)
    with pytest.raises(ValueError, match="`refinement` must be one of 'none', 'quarter', 'dark'"):
        refine_peaks(torch.zeros(4, 4), torch.zeros(1, 2, dtype=torch.int64), "udp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`blur` must be odd, but got 2"):
        refine_peaks(torch.zeros(4, 4), torch.zeros(1, 2, dtype=torch.int64), blur=2)
