"""Assigns the objects of single images to the predictions of an untrained network."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.assign.assignment import POSITIVE
from lossatlas.lab.augmentation import fitted, zooms
from lossatlas.lab.data import Data, DetectionSplit, ImageRecord
from lossatlas.lab.inspection.priors import Priors
from lossatlas.lab.registry import build_network, find_objective
from lossatlas.lab.tasks import default_recipe, task_of
from lossatlas.lab.trial import TrialConfig

Target: TypeAlias = dict[str, Tensor]


class Surveyor:
    """Assigns images of a split one by one; those of one size share the outputs of the network.

    Args:
        objective: name of the objective.
        data: name, classes and images.
        image_size: longest side of an image; larger images are made smaller. None: as `compare` trains them.
    """

    def __init__(self, objective: str, data: Data[DetectionSplit], image_size: int | None = None) -> None:
        self.spec = find_objective(objective)
        default: int = default_recipe(objective).get("image_size", TrialConfig.image_size)
        self.image_size = default if image_size is None else image_size
        facts = task_of(objective).facts(data, self.image_size)
        network = build_network(objective, facts, seed=0)
        self.learner: Any = self.spec.learner(network, self.spec.build(facts)).eval()
        self._size: tuple[int, int] | None = None
        self._outputs: Any = None
        self._priors: Priors | None = None

    def zoom(self, record: ImageRecord) -> Tensor:
        """Return by which factors width and height of an image change before the network sees it."""
        return zooms([(record.height, record.width)], self.image_size)[0]

    def target(self, record: ImageRecord) -> Target:
        """Return the objects of an image in the pixels that the network sees."""
        return self.targets([record])[0]

    def targets(self, records: Sequence[ImageRecord]) -> list[Target]:
        """Return the objects of some images in the pixels that the network sees."""
        counts = [len(record.labels) for record in records]
        factors = zooms(((record.height, record.width) for record in records), self.image_size).repeat(1, 2)
        factors = factors.repeat_interleave(torch.tensor(counts), dim=0)
        boxes = (torch.cat([record.boxes for record in records]) * factors).split(counts)
        return [
            {"boxes": mine, "labels": record.labels, "iscrowd": record.iscrowd}
            for mine, record in zip(boxes, records, strict=True)
        ]

    def size(self, record: ImageRecord) -> tuple[int, int]:
        """Return height and width of the input of the network for an image."""
        height, width = fitted((record.height, record.width), self.image_size)
        multiple = self.spec.multiple
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    @torch.no_grad()
    def assign(self, size: tuple[int, int], target: Target) -> Assignment:
        """Return the assignment of one image."""
        if size != self._size:
            self._size, self._priors = size, None
            self._outputs = self.learner.survey(torch.zeros(1, 3, *size))
        assignment: Assignment = self.learner.assigning.assign(self._outputs, [target])[0]
        return assignment

    def priors(self, size: tuple[int, int], predictions: int) -> Priors:
        """Return the places of the predictions of the size that was assigned last."""
        if self._priors is None:
            self._priors = Priors.of(self._outputs, size, predictions)
        return self._priors


def positives_of(assignment: Assignment) -> Tensor:
    """Return the ``(N,)`` predictions that answer for an object."""
    # By numpy, which looks for ones among very many zeros faster.
    return torch.from_numpy(np.flatnonzero(assignment.state.numpy() == POSITIVE))
