"""The objectives that promise the same, each with outputs of a small network: what is true of all is tested once.

To add an objective, add a `Case`: its tests of formula and decoding are its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.objectives import FCOS, SSD, FCOSOutputs, RetinaNet, RetinaNetOutputs, SSDOutputs
from tests.objectives.scenes import CLASSES, SIZES, STRIDES, leaf

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An objective that takes ``normalizer=``, and what a network gives it."""

    objective: Callable[..., nn.Module]
    leaves: Callable[[int], Leaves]
    """Raw outputs for so many images, all with the images along axis 0; float64."""
    outputs: Callable[[Leaves], Any]
    trains_background: bool = True
    """Whether an image without objects has something to learn from."""


def dtype_of(raw: Leaves) -> torch.dtype:
    """Dtype of the priors beside such outputs."""
    return torch.promote_types(next(iter(raw.values())).dtype, torch.float32)


def points(raw: Leaves) -> dict[str, Tensor]:
    return dict(zip(("points", "strides"), point_grid(SIZES, STRIDES, dtype=dtype_of(raw)), strict=True))


def anchors(raw: Leaves) -> dict[str, Tensor]:
    return {"anchors": anchor_grid(SIZES, STRIDES, base_size=2, octave_scales=(1,), dtype=dtype_of(raw))}


P_POINTS = sum(height * width for height, width in SIZES)
P_ANCHORS = 3 * P_POINTS

CASES = {
    "fcos": Case(
        FCOS,
        lambda images: {
            "class_logits": leaf(images, P_POINTS, CLASSES, seed=0),
            "distances": leaf(images, P_POINTS, 4, seed=1, positive=True),
            "centerness": leaf(images, P_POINTS, seed=2),
        },
        lambda raw: FCOSOutputs(**raw, **points(raw)),
    ),
    "retinanet": Case(
        RetinaNet,
        lambda images: {
            "class_logits": leaf(images, P_ANCHORS, CLASSES, seed=0),
            "deltas": leaf(images, P_ANCHORS, 4, seed=1),
        },
        lambda raw: RetinaNetOutputs(**raw, **anchors(raw)),
    ),
    "ssd": Case(
        SSD,
        lambda images: {
            "class_logits": leaf(images, P_ANCHORS, CLASSES + 1, seed=0),
            "deltas": leaf(images, P_ANCHORS, 4, seed=1),
        },
        lambda raw: SSDOutputs(**raw, **anchors(raw)),
        trains_background=False,
    ),
}
