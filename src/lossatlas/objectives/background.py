"""Classifiers with a class of their own for the background: their targets and their scores."""

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from lossatlas.assign.assignment import Assignment
from lossatlas.dtypes import upcast
from lossatlas.objectives.slots import IGNORE

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
