"""Detectors without anchors whose points are assigned as if each had one: a square around it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import ATSS, Assignment
from lossatlas.checks import check_floating, check_number
from lossatlas.objectives.dense import DenseObjective, Target, check_predictions, check_targets

LevelAssigner: TypeAlias = Callable[[Tensor, Sequence[int], Mapping[str, Tensor]], Assignment]
"""Called as ``assigner(anchors, level_sizes, target)``, such as `lossatlas.assign.ATSS`."""


def squares_around(
    points: Float[Tensor, "p 2"], strides: Float[Tensor, " p"], scale: float
) -> tuple[Float[Tensor, "p 4"], list[int]]:
    """Return squares of `scale` strides around the points, and how many there are on each level.

    Args:
        points: ``(P, 2)`` x, y pixels, level by level.
        strides: ``(P,)`` pixels; a level is a run of equal strides.
        scale: side of a square in strides.
    """
    half = scale / 2 * strides[:, None]
    sizes = torch.unique_consecutive(strides, return_counts=True)[1].tolist() or [0]
    return torch.cat((points - half, points + half), dim=1), sizes


def check_points_of(points: Tensor, strides: Tensor, predictions: int) -> None:
    """Raise unless there are a point and a stride for each prediction."""
    check_floating("points", points)
    check_floating("strides", strides)
    check_predictions("points", points, (predictions, 2), "P 2")
    check_predictions("strides", strides, (predictions,), "P")


class PointSquaresObjective(DenseObjective):
    """Slots, normaliser and assigner of a detector whose points are assigned by squares around them."""

    def __init__(self, *, assigner: LevelAssigner | None, anchor_scale: float, **options: Any) -> None:
        super().__init__(**options)
        check_number("anchor_scale", anchor_scale, above=0)
        self.assigner = assigner or ATSS()
        self.anchor_scale = anchor_scale

    def assign_points(
        self, points: Tensor, strides: Tensor, targets: Sequence[Target], images: int
    ) -> list[Assignment]:
        """Return, for each of the images, which object each point answers for."""
        check_targets(targets, images)
        anchors, level_sizes = squares_around(points, strides, self.anchor_scale)
        return [self.assigner(anchors, level_sizes, target) for target in targets]
