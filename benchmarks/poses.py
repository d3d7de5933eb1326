"""What is measured of pose: drawing targets, against a plain numpy loop over keypoints and limbs."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.case import Case, Contender, Inputs
from lossatlas.targets import COCO, KeypointHeatmaps, PartAffinityFields
from lossatlas.targets.heatmaps import Window

CELLS, STRIDE = 64, 4
SIGMA, WIDTH = 2, 1.0

Maps = NDArray[np.float32]


def people(generator: torch.Generator, size: int) -> Inputs:
    """Draw five people in each of some images."""
    keypoints = torch.rand(size, 5, 17, 3, generator=generator) * CELLS * STRIDE
    keypoints[..., 2] = 2
    return (keypoints,)


def _heatmaps(window: Window) -> Contender:
    draw = KeypointHeatmaps(sigma=SIGMA, window=window, outside="draw")
    return lambda keypoints: draw(keypoints, (CELLS, CELLS), STRIDE).heatmaps


def _fields(keypoints: Tensor) -> Tensor:
    return PartAffinityFields(COCO, width=WIDTH, region="limb")(keypoints, (CELLS, CELLS), STRIDE)


def _in_cells(keypoints: Tensor) -> Maps:
    cells: Maps = (keypoints[..., :2].numpy() - (STRIDE - 1) / 2) / STRIDE
    return cells


def _heatmaps_by_loop(keypoints: Tensor, reach: int) -> Maps:
    """Draw each keypoint where it reaches: at most so many cells from its own."""
    images, persons, joints, _ = keypoints.shape
    places, axis = _in_cells(keypoints), np.arange(CELLS, dtype=np.float32)
    maps = np.zeros((images, joints, CELLS, CELLS), dtype=np.float32)
    for image in range(images):
        for person in range(persons):
            for joint in range(joints):
                x, y = places[image, person, joint]
                across, down = (_between(math.floor(at + 0.5) - reach, math.floor(at + 0.5) + reach) for at in (x, y))
                height = np.exp(-((axis[across] - x) ** 2 + (axis[down, None] - y) ** 2) / (2 * SIGMA**2))
                window = maps[image, joint, down, across]
                np.maximum(window, height, out=window)
    return maps


def _between(low: int, high: int) -> slice:
    """Return the cells of an axis from one to another."""
    return slice(max(low, 0), max(high + 1, 0))


def _fields_by_loop(keypoints: Tensor, boxed: bool) -> Maps:
    """Draw each limb on the whole map, or within the box around it."""
    images, persons = keypoints.shape[:2]
    places, limbs = _in_cells(keypoints), COCO.limbs
    axis = np.arange(CELLS, dtype=np.float32)
    fields = np.zeros((images, len(limbs), 2, CELLS, CELLS), dtype=np.float32)
    whole = slice(0, CELLS)
    for image in range(images):
        for index, (start, end) in enumerate(limbs):
            count = np.zeros((CELLS, CELLS), dtype=np.float32)
            for person in range(persons):
                a, b = places[image, person, start], places[image, person, end]
                length = np.linalg.norm(b - a)
                if length == 0:
                    continue
                across, down = whole, whole
                if boxed:
                    low, high = np.floor(np.minimum(a, b) - WIDTH), np.ceil(np.maximum(a, b) + WIDTH)
                    across, down = (_between(int(low[k]), int(high[k])) for k in (0, 1))
                unit = (b - a) / length
                dx, dy = axis[across] - a[0], axis[down, None] - a[1]
                along = unit[0] * dx + unit[1] * dy
                inside = (along >= 0) & (along <= length) & (np.abs(unit[0] * dy - unit[1] * dx) <= WIDTH)
                fields[image, index, :, down, across] += unit[:, None, None] * inside
                count[down, across] += inside
            fields[image, index] /= np.maximum(count, 1)
    return fields


def _loop(function: Any, *arguments: Any) -> Any:
    return lambda: lambda keypoints: function(keypoints, *arguments)


CASES = tuple(
    Case(f"{name}, 32 images", people, (4, 32), ours, peers, lead=20, backward=False, drawn=True)
    for name, ours, peers in (
        ("Gaussian heatmaps on whole maps", _heatmaps("full"), {"numpy loop": _loop(_heatmaps_by_loop, CELLS)}),
        ("Gaussian heatmaps within 3 sigma", _heatmaps("3sigma"), {"numpy loop": _loop(_heatmaps_by_loop, 3 * SIGMA)}),
        (
            "part affinity fields",
            _fields,
            {"numpy loop": _loop(_fields_by_loop, False), "numpy loop in boxes": _loop(_fields_by_loop, True)},
        ),
    )
)
