"""A network and its objective as one module: from a batch to the terms of the loss, and to predictions."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.lab.data.segmentation import VOID

MAX_DETECTIONS = 100
"""Detections of an image that are kept, highest score first."""

Prediction: TypeAlias = dict[str, Tensor]
"""What is predicted for one image; the learner makes it, and the task that it belongs to reads it."""


class Learner(nn.Module):
    """What is trained: a network with the objective that judges it.

    An objective that needs more than one pass through the network, such as the proposals of a two-stage detector, has
    a learner of its own; most are content with `forward` as it is here.

    What `forward` draws at random, as samplers do, it draws from PyTorch's global generator, which the trainer seeds
    before each step: a trial stays a function of its seed, and goes on after an interruption as if there had been none.

    Args:
        network: from (B, 3, H, W) images to outputs.
        objective: from outputs and targets to terms. Its state, a moving average or that of a loss, is saved with it.
    """

    def __init__(self, network: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.objective: Any = objective

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the terms of the loss by name, already weighted; their sum is trained.

        Args:
            images: (B, 3, H, W); smaller ones lie in the upper left corner.
            targets: one dict for each image, as the task's data gives them.
        """
        return dict(self.objective(self.network(images), targets))

    def predict(self, network: nn.Module, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return what a network predicts for each image, in pixels of the images.

        Args:
            network: of the same kind as the learner's, with the averaged weights, in evaluation mode.
            images: (B, 3, H, W).
            sizes: height and width of each image, without what was added to fill the batch.
        """
        raise NotImplementedError


class DetectionLearner(Learner):
    """The learner of every detector whose objective decodes the outputs of one pass.

    The objective has ``decode(outputs, image_sizes, *, max_detections, nms)``.
    """

    def survey(self, images: Tensor) -> Any:
        """Return the outputs that `assigning` takes; what tells of their places are ``anchors`` or ``points``."""
        return self.network(images)

    @property
    def assigning(self) -> Any:
        """The objective, or the part of it, that assigns objects to predictions, for ``lossatlas inspect``."""
        return self.objective

    @torch.no_grad()
    def predict(self, network: nn.Module, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return ``boxes`` (D, 4) xyxy, ``scores`` (D,) and ``labels`` (D,) of each image."""
        from torchvision.ops import batched_nms

        found: list[Prediction] = self.objective.decode(
            network(images), sizes, max_detections=MAX_DETECTIONS, nms=batched_nms
        )
        return found


class SetLearner(DetectionLearner):
    """The learner of detectors that find every object once and suppress nothing, as their papers have it."""

    @torch.no_grad()
    def predict(self, network: nn.Module, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return ``boxes`` (D, 4) xyxy, ``scores`` (D,) and ``labels`` (D,) of each image."""
        found: list[Prediction] = self.objective.decode(network(images), sizes, max_detections=MAX_DETECTIONS)
        return found


class SegmentationLearner(Learner):
    """The learner of a network that says of every pixel which class it belongs to."""

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the terms of the loss; what was added to an image to fill the batch is void.

        Args:
            images: (B, 3, H, W); smaller ones lie in the upper left corner.
            targets: one dict for each image, with ``mask`` (h, w) in pixels of the image.
        """
        height, width = images.shape[2:]
        masks = [
            F.pad(mask, (0, width - mask.shape[1], 0, height - mask.shape[0]), value=VOID)
            for mask in (target["mask"] for target in targets)
        ]
        return super().forward(images, [{"mask": mask.long()} for mask in masks])

    @torch.no_grad()
    def predict(self, network: nn.Module, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return ``logits`` (C, h, w) of each image."""
        found = network(images).logits
        return [{"logits": logits[:, :height, :width]} for logits, (height, width) in zip(found, sizes, strict=True)]


class PoseLearner(Learner):
    """The learner of every objective of pose: it has ``decode(outputs)``."""

    @torch.no_grad()
    def predict(self, network: nn.Module, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return ``keypoints`` (P, K, 3), x, y and score, 0 for what was not found, and ``scores`` (P,) of each image.

        Keypoints in what was added to fill the batch are moved to the edge of the image.
        """
        found: list[Prediction] = self.objective.decode(network(images))
        for person, (height, width) in zip(found, sizes, strict=True):
            points = person["keypoints"]
            limit = points.new_tensor([width, height, torch.inf])
            person["keypoints"] = points.clamp(min=0).minimum(limit)
        return found
