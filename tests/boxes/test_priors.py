"""Grids of points and anchors: their order and their numbers."""

import pytest
import torch

from lossatlas.boxes.priors import anchor_grid, point_grid

SIZES, STRIDES = [(2, 3), (1, 2), (0, 4)], [8, 16, 32]


def test_points_go_level_by_level_and_row_by_row() -> None:
    points, strides = point_grid(SIZES, STRIDES)
    expected = []
    for (height, width), stride in zip(SIZES, STRIDES, strict=True):
        expected += [[(x + 0.5) * stride, (y + 0.5) * stride, stride] for y in range(height) for x in range(width)]
    assert torch.cat((points, strides[:, None]), dim=1).tolist() == expected


def test_points_follow_a_flattened_feature_map() -> None:
    height, width = 3, 5
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points, _ = point_grid([(height, width)], [1])
    assert torch.equal(points, torch.stack((column, row), dim=-1).flatten(0, 1) + 0.5)


def test_anchors_of_a_cell_lie_side_by_side_ratio_by_ratio() -> None:
    scales, ratios = [1.0, 1.5], [0.5, 1.0, 2.0]
    boxes = anchor_grid(SIZES, STRIDES, octave_scales=scales, aspect_ratios=ratios)
    expected = []
    for (height, width), stride in zip(SIZES, STRIDES, strict=True):
        for y in range(height):
            for x in range(width):
                for ratio in ratios:
                    for scale in scales:
                        half_w, half_h = 2 * stride * scale / ratio**0.5, 2 * stride * scale * ratio**0.5
                        cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                        expected.append([cx - half_w, cy - half_h, cx + half_w, cy + half_h])
    torch.testing.assert_close(boxes, torch.tensor(expected))


def test_default_anchors_are_those_of_retinanet() -> None:
    boxes = anchor_grid([(1, 1)], [8])
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(1)
    expected = [32.0**2 * factor for _ in range(3) for factor in (1, 2 ** (2 / 3), 2 ** (4 / 3))]
    assert areas.tolist() == pytest.approx(expected, rel=1e-5)
    assert (sides[:, 1] / sides[:, 0]).tolist() == pytest.approx([0.5] * 3 + [1.0] * 3 + [2.0] * 3, rel=1e-5)


def test_dtype_and_empty_levels() -> None:
    points, strides = point_grid([(0, 0)], [8], dtype=torch.float64)
    assert points.shape == (0, 2)
    assert strides.dtype == torch.float64
    assert anchor_grid([(0, 3)], [8]).shape == (0, 4)
    assert anchor_grid([(1, 1)], [8], dtype=torch.float64).dtype == torch.float64


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`strides` must have one entry for each of the 2 `sizes`"):
        point_grid([(1, 1), (1, 1)], [8])
    with pytest.raises(ValueError, match="`strides` must be finite and above 0"):
        point_grid([(1, 1)], [0])
    with pytest.raises(ValueError, match="`aspect_ratios` must be finite and above 0"):
        anchor_grid([(1, 1)], [8], aspect_ratios=[-1])
