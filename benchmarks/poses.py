"""What is measured of pose: drawing targets, against a plain numpy loop over keypoints and limbs."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.case import Case, Inputs
from lossatlas.targets import COCO, KeypointHeatmaps, PartAffinityFields

CELLS, STRIDE = 64, 4
SIGMA, WIDTH = 2.0, 1.0

Maps = NDArray[np.float32]


def people(generator: torch.Generator, size: int) -> Inputs:
    """Draw five people in each of some images."""
    keypoints = torch.rand(size, 5, 17, 3, generator=generator) * CELLS * STRIDE
    keypoints[..., 2] = 2
    return (keypoints,)


def _heatmaps(keypoints: Tensor) -> Tensor:
    return KeypointHeatmaps(sigma=SIGMA, window="full", outside="draw")(keypoints, (CELLS, CELLS), STRIDE).heatmaps


def _fields(keypoints: Tensor) -> Tensor:
    return PartAffinityFields(COCO, width=WIDTH, region="limb")(keypoints, (CELLS, CELLS), STRIDE)


def _in_cells(keypoints: Tensor) -> Maps:
    cells: Maps = (keypoints[..., :2].numpy() - (STRIDE - 1) / 2) / STRIDE
    return cells


def _heatmaps_by_loop(keypoints: Tensor) -> Maps:
    images, persons, joints, _ = keypoints.shape
    places, axis = _in_cells(keypoints), np.arange(CELLS, dtype=np.float32)
    maps = np.zeros((images, joints, CELLS, CELLS), dtype=np.float32)
    for image in range(images):
        for person in range(persons):
            for joint in range(joints):
                x, y = places[image, person, joint]
                height = np.exp(-((axis - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * SIGMA**2))
                np.maximum(maps[image, joint], height, out=maps[image, joint])
    return maps


def _fields_by_loop(keypoints: Tensor) -> Maps:
    images, persons = keypoints.shape[:2]
    places, limbs = _in_cells(keypoints), COCO.limbs
    y, x = np.mgrid[0:CELLS, 0:CELLS].astype(np.float32)
    fields = np.zeros((images, len(limbs), 2, CELLS, CELLS), dtype=np.float32)
    for image in range(images):
        for index, (start, end) in enumerate(limbs):
            count = np.zeros((CELLS, CELLS), dtype=np.float32)
            for person in range(persons):
                a, b = places[image, person, start], places[image, person, end]
                length = np.linalg.norm(b - a)
                if length == 0:
                    continue
                unit = (b - a) / length
                along = unit[0] * (x - a[0]) + unit[1] * (y - a[1])
                across = np.abs(unit[0] * (y - a[1]) - unit[1] * (x - a[0]))
                inside = (along >= 0) & (along <= length) & (across <= WIDTH)
                fields[image, index, :, inside] += unit
                count += inside
            fields[image, index] /= np.maximum(count, 1)
    return fields


def _loop(function: Any) -> Any:
    return lambda: function


CASES = tuple(
    Case(f"{name}, 32 images", people, (4, 32), ours, {"numpy loop": _loop(by_loop)}, lead=20, backward=False)
    for name, ours, by_loop in (
        ("Gaussian heatmaps", _heatmaps, _heatmaps_by_loop),
        ("part affinity fields", _fields, _fields_by_loop),
    )
)
