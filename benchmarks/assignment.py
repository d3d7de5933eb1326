"""What is measured of assigners that choose candidates for each object; `benchmarks.assigners` runs every assigner."""

import functools

import torch
from torch import Tensor

from benchmarks.case import Case, Inputs
from lossatlas.assign import Assignment
from tests.assign.cases import CASES as ASSIGNERS
from tests.assign.cases import Grid, crowded_scene


def scene(_generator: torch.Generator, size: int, *, objects: int) -> Inputs:
    """Return the tensors of an image with about so many predictions, and its objects; they are always the same."""
    grid, target = crowded_scene(size, objects)
    tensors = (value for value in grid if isinstance(value, Tensor))
    return *tensors, target["boxes"], target["labels"]


def _assign(name: str, *inputs: Tensor) -> Assignment:
    priors, points, strides, class_logits, objectness_logits, boxes, objects, labels = inputs
    level_sizes = strides.unique_consecutive(return_counts=True)[1].tolist()
    grid = Grid((0, 0), priors, points, strides, level_sizes, class_logits, objectness_logits, boxes)
    return ASSIGNERS[name].run(grid, {"boxes": objects, "labels": labels}, None)


CASES = tuple(
    Case(
        f"{name} assignment, 100 objects",
        functools.partial(scene, objects=100),
        (20_000, 120_000),
        functools.partial(_assign, name),
        backward=False,
    )
    for name in ("ATSS", "SimOTA", "TaskAligned", "DynamicSoftLabel", "Uniform", "Bipartite")
)
