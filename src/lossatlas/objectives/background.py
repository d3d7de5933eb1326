"""Classifiers with a class of their own for the background: their slot, their targets and their scores."""

from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from lossatlas.assign.assignment import Assignment
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.objectives.dense import BoxObjective
from lossatlas.objectives.slots import IGNORE, LossFunction, Regression, SoftmaxLoss
from lossatlas.objectives.terms import NormalizerMode, PositiveNormalizer, Scale

Background = Literal["first", "last"]
"""Index of the background: 0 (Caffe, torchvision), or the number of classes (detectron2, mmdetection)."""


def background_index(logits: Tensor, background: Background) -> int:
    """Return the index of the background among the classes of the last axis."""
    return 0 if background == "first" else logits.shape[-1] - 1


def class_indices(assignment: Assignment, labels: Tensor, logits: Tensor, background: Background) -> Int[Tensor, " p"]:
    """Return the target of each prediction of an image.

    Args:
        assignment: of P predictions.
        labels: ``(G,)`` from 0 without the background.
        logits: ``(..., C + 1)``, for the number of classes.
        background: index of the background.

    Returns:
        ``(P,)`` class of the object for positives, background for negatives, `IGNORE` for the rest.
    """
    nothing = torch.where(assignment.negative, background_index(logits, background), IGNORE)
    if not len(labels):
        return nothing
    own = labels.long()[assignment.matched.clamp(min=0)] + (background == "first")
    return torch.where(assignment.positive, own, nothing)


def foreground_scores(logits: Tensor, background: Background) -> Tensor:
    """Return the softmax without the background.

    Args:
        logits: ``(*shape, C + 1)``.
        background: index of the background.

    Returns:
        ``(*shape, C)`` from 0 to 1.
    """
    (logits,) = upcast(logits)
    scores = logits.softmax(-1)
    return scores[..., 1:] if background == "first" else scores[..., :-1]


class SoftmaxObjective(BoxObjective):
    """Slots and normaliser of a detector whose classes exclude each other and the background."""

    def __init__(
        self,
        *,
        class_loss: LossFunction,
        box_loss: LossFunction,
        regression: Regression | None,
        class_weight: float,
        box_weight: float,
        background: Background,
        normalizer: NormalizerMode | PositiveNormalizer,
    ) -> None:
        super().__init__(box_loss=box_loss, regression=regression, box_weight=box_weight, normalizer=normalizer)
        check_number("class_weight", class_weight, at_least=0)
        check_choice("background", background, get_args(Background))
        self.class_loss = SoftmaxLoss(class_loss)
        self.class_weight = class_weight
        self.background: Background = background

    def class_term(self, logits: Tensor, index: Tensor, scale: Scale, weight: Tensor | None) -> Tensor:
        """Return the weighted classification term.

        Args:
            logits: ``(*shape, C + 1)``.
            index: ``(*shape)`` classes, `IGNORE` for what is not trained.
            scale: what the sum is divided by.
            weight: factors that broadcast to ``(*shape)``, None for all 1.
        """
        loss: Tensor = self.class_loss(logits, index, weight=weight, normalizer=scale.denominator)
        return self.class_weight * loss
