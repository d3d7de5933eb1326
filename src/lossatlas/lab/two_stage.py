"""How a detector of two stages is trained: its objective, and the learner that goes back and forth between the two."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.assign import RandomSampler
from lossatlas.lab.learner import MAX_DETECTIONS, Learner, Prediction
from lossatlas.losses import SmoothL1Loss
from lossatlas.objectives import RPN, FasterRCNN, FasterRCNNOutputs, Regions, RoIHead, RPNOutputs

CANDIDATES = 200
"""Anchors of each level that are looked at as proposals."""
PROPOSALS = 100
"""Proposals of an image."""
SAMPLED = 64
"""Regions of an image that the second stage is trained on; a small part of the published 512, as images are small."""


def build_faster_rcnn(**losses: Any) -> FasterRCNN:
    """Return Faster R-CNN's objective for small images.

    Args:
        losses: of the slots: ``class_loss`` and ``box_loss`` of the second stage, ``rpn_objectness_loss`` and
            ``rpn_box_loss`` of the first.
    """
    first = {"box_loss": SmoothL1Loss(beta=1 / 9)} | _named(losses, "rpn_")
    second = {name: loss for name, loss in losses.items() if not name.startswith("rpn_")}
    return FasterRCNN(
        rpn=RPN(normalization="sampled", **first), head=RoIHead(sampler=RandomSampler(SAMPLED, 0.25), **second)
    )


def _named(losses: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): loss for name, loss in losses.items() if name.startswith(prefix)}


class TwoStageLearner(Learner):
    """The learner of a `TwoStageDetector` and `lossatlas.objectives.FasterRCNN`."""

    def survey(self, images: Tensor) -> Any:
        """Return the outputs of the first stage."""
        return self.network(images)[1]

    @property
    def assigning(self) -> Any:
        """The first stage; what the second is trained on are regions that the first proposes as it learns."""
        return self.objective.rpn

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the terms of both stages, see `Learner.forward`."""
        detector: Any = self.network
        levels, first = detector(images)
        size = (images.shape[2], images.shape[3])
        regions = self.objective.sample(self._propose(first, [size] * len(images)), targets)
        outputs = FasterRCNNOutputs(first, detector.classify(levels, regions))
        return dict(self.objective(outputs, targets))

    @torch.no_grad()
    def predict(self, network: nn.Module, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """Return ``boxes`` (D, 4) xyxy, ``scores`` (D,) and ``labels`` (D,) of each image."""
        from torchvision.ops import batched_nms

        detector: Any = network
        levels, first = detector(images)
        outputs = FasterRCNNOutputs(first, detector.classify(levels, Regions(self._propose(first, sizes))))
        found: list[Prediction] = self.objective.decode(outputs, sizes, max_detections=MAX_DETECTIONS, nms=batched_nms)
        return found

    def _propose(self, first: RPNOutputs, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        from torchvision.ops import batched_nms

        proposals: list[Tensor] = self.objective.propose(
            first, sizes, max_candidates=CANDIDATES, max_detections=PROPOSALS, nms=batched_nms
        )
        return proposals
