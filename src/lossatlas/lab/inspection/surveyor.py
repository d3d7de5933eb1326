"""Assigns the objects of single images to the predictions of an untrained network."""

from typing import Any, TypeAlias

import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.lab.augmentation import fitted
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
        height, width = fitted((record.height, record.width), self.image_size)
        return torch.tensor([width / record.width, height / record.height])

    def target(self, record: ImageRecord) -> Target:
        """Return the objects of an image in the pixels that the network sees."""
        boxes = record.boxes * self.zoom(record).repeat(2)
        return {"boxes": boxes, "labels": record.labels, "iscrowd": record.iscrowd}

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
