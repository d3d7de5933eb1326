"""The places of objectives that `--vary` puts a loss into, and how it is tried out there before anything is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from lossatlas.objectives.map_slots import (
    COORDINATE_KINDS,
    FIELD_KINDS,
    MAP_KINDS,
    TAG_KINDS,
    CoordinateLoss,
    MapLoss,
    TagLoss,
)
from lossatlas.objectives.pixel_slots import SEGMENTATION_KINDS, SegmentationLoss
from lossatlas.objectives.slots import (
    BIN_KINDS,
    BOX_KINDS,
    HEATMAP_KINDS,
    SIGMOID_KINDS,
    SOFTMAX_KINDS,
    BinLoss,
    BoxLoss,
    BoxPairs,
    HeatmapLoss,
    SigmoidLoss,
    SoftmaxLoss,
)

Loss: TypeAlias = Callable[..., Any]

TRIAL_CLASSES = 2
"""Classes of what a loss is tried out on."""
TRIAL_KEYPOINTS = 17
"""Keypoints of what a loss is tried out on; more than any loss takes of them as hard ones."""


@dataclass(frozen=True)
class Slot:
    """A place of an objective that a loss is put into.

    Args:
        argument: of the objective.
        kinds: the kinds of input, as the catalogue names them, of losses that may fit.
        try_out: calls a loss as the objective does, on a few numbers with `TRIAL_CLASSES` classes; a loss or an option
            that does not fit raises `ValueError` or `TypeError`.
        extra_classes: classes beside those of the data that the loss sees, such as the background of a softmax.
        classes: how many classes the loss sees whatever the data; None is those of the data and `extra_classes`.
    """

    argument: str
    kinds: frozenset[str]
    try_out: Callable[[Loss], object]
    extra_classes: int = 0
    classes: int | None = None

    def count_classes(self, num_classes: int) -> int:
        """Return how many classes the loss sees if the data have so many."""
        return num_classes + self.extra_classes if self.classes is None else self.classes


def _try_boxes(loss: Loss) -> object:
    box, target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])
    pairs = BoxPairs(box, target, torch.full((1, 4), 0.5), torch.zeros(1, 4))
    return BoxLoss(loss)(pairs, weight=torch.ones(1), normalizer=torch.ones(()))


def _try_logits(loss: Loss) -> object:
    target = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    weight, error = torch.ones(1, 1, 1), torch.full(target.shape, 0.5)
    logits, one = torch.zeros(1, 3, TRIAL_CLASSES), torch.ones(())
    return SigmoidLoss(loss)(logits, target, weight=weight, normalizer=one, localization_error=error)


def _try_centers(loss: Loss) -> object:
    logits, target = torch.zeros(1, TRIAL_CLASSES, 3, 3), torch.zeros(1, TRIAL_CLASSES, 3, 3)
    target[0, 0, 1, 1] = 1
    error, one = torch.full(target.shape, 0.5), torch.ones(())
    return HeatmapLoss(loss)(logits, target, weight=torch.ones(1, 1, 1, 1), normalizer=one, localization_error=error)


def _try_softmax(loss: Loss) -> object:
    logits, target = torch.zeros(2, TRIAL_CLASSES), torch.tensor([0, 1])
    return SoftmaxLoss(loss)(logits, target, weight=torch.ones(2), normalizer=1.0)


def _try_bins(loss: Loss) -> object:
    logits, target = torch.zeros(1, 4, 3), torch.full((1, 4), 0.5)
    return BinLoss(loss)(logits, target, weight=torch.ones(1), normalizer=torch.ones(()))


def _try_masks(loss: Loss) -> object:
    mask = torch.tensor([[[0, 1], [1, 255]]])
    return SegmentationLoss(loss)(torch.zeros(1, TRIAL_CLASSES, 2, 2), mask, ignore_index=255)


def _try_heatmaps(loss: Loss) -> object:
    maps, target = torch.zeros(1, TRIAL_KEYPOINTS, 2, 2), torch.eye(2).expand(1, TRIAL_KEYPOINTS, 2, 2)
    return MapLoss(loss)(maps, target, torch.ones_like(maps, dtype=torch.bool), torch.ones(()))


def _try_fields(loss: Loss) -> object:
    fields = torch.zeros(1, 2, 2, 2)
    valid = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    return MapLoss(loss, fields=True)(fields, torch.ones_like(fields), valid, torch.ones(()))


def _try_tags(loss: Loss) -> object:
    return TagLoss(loss)(torch.zeros(1, TRIAL_KEYPOINTS, 2, 2), torch.zeros(1, 1, TRIAL_KEYPOINTS, dtype=torch.int64))


def _try_coordinates(loss: Loss) -> object:
    logits, target = torch.zeros(1, TRIAL_KEYPOINTS, 2, 2), torch.full((1, TRIAL_KEYPOINTS, 2), 0.5)
    visible = torch.ones(1, TRIAL_KEYPOINTS, dtype=torch.bool)
    return CoordinateLoss(loss)(logits, target, visible, torch.ones(1))


BOX = Slot("box_loss", BOX_KINDS, _try_boxes)
SIGMOID = Slot("class_loss", SIGMOID_KINDS, _try_logits)
HEATMAP = Slot("class_loss", HEATMAP_KINDS, _try_centers)
OBJECTNESS = Slot("objectness_loss", SIGMOID_KINDS, _try_logits, classes=1)
SOFTMAX = Slot("class_loss", SOFTMAX_KINDS, _try_softmax, extra_classes=1)
BINS = Slot("distribution_loss", BIN_KINDS, _try_bins)
MASKS = Slot("loss", SEGMENTATION_KINDS, _try_masks)

HEATMAPS = Slot("heatmap_loss", MAP_KINDS, _try_heatmaps)
COORDINATES = Slot("coordinate_loss", COORDINATE_KINDS, _try_coordinates)
FIELDS = Slot("field_loss", FIELD_KINDS, _try_fields)
TAGS = Slot("tag_loss", TAG_KINDS, _try_tags)

SLOTS = (BOX, SIGMOID, SOFTMAX, BINS, MASKS, HEATMAP, HEATMAPS, COORDINATES, FIELDS, TAGS)
"""One of each sort; an objective may have several of a sort, under the names of its own arguments."""
