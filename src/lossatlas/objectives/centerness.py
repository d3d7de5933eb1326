"""How central a place lies in its object: a target of its own, a factor of the score, a weight of the box term."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment
from lossatlas.boxes.geometry import safe_divide
from lossatlas.checks import check_boxes, check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.objectives.dense import DenseObjective, Positives
from lossatlas.objectives.slots import BoxPairs
from lossatlas.objectives.terms import LEAST_WEIGHT, LossTerms
from lossatlas.typing import Boxes, PerBox

BoxWeighting = Literal["centerness", "none"]


def centerness_target(distances: Boxes) -> PerBox:
    """Return how central points lie in their boxes.

    Formula:
        √(min(l, r) / max(l, r) · min(t, b) / max(t, b))

    Args:
        distances: ``(*batch, 4)`` left, top, right, bottom, in any unit.

    Returns:
        ``(*batch)`` from 0 at an edge, or outside, to 1 at the centre.

    Example:
        >>> centerness_target(torch.tensor([[1.0, 2.0, 4.0, 2.0]]))
        tensor([0.5000])

    Reference:
        Tian et al., "FCOS", 2019, arXiv 1904.01355, equation 3.
    """
    check_boxes("distances", distances)
    (distances,) = upcast(distances.clamp(min=0))
    before, after = distances.split(2, dim=-1)
    return safe_divide(torch.minimum(before, after), torch.maximum(before, after)).prod(-1).sqrt()


def centered_scores(class_logits: Float[Tensor, "b p c"], centerness: Float[Tensor, "b p"]) -> Float[Tensor, "b p c"]:
    """Return √(σ(class logit) · σ(centerness logit))."""
    class_logits, centerness = upcast(class_logits, centerness)
    return (class_logits.sigmoid() * centerness.sigmoid()[..., None]).sqrt()


class CenternessObjective(DenseObjective):
    """Slots, normalisers and terms of a detector with a centerness at every place of a grid."""

    def __init__(self, *, centerness_weight: float, box_weighting: BoxWeighting, **options: Any) -> None:
        super().__init__(**options)
        check_number("centerness_weight", centerness_weight, at_least=0)
        check_choice("box_weighting", box_weighting, get_args(BoxWeighting))
        self.centerness_weight = centerness_weight
        self.box_weighting: BoxWeighting = box_weighting
        self.box_normalizer = self.normalizer.with_floor(LEAST_WEIGHT)

    def centered_terms(
        self,
        class_logits: Tensor,
        centerness: Tensor,
        assignments: Sequence[Assignment],
        positives: Positives,
        pairs: BoxPairs,
        target: Tensor,
    ) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``centerness``.

        Args:
            class_logits: ``(B, P, C)``.
            centerness: ``(B, P)`` logits.
            assignments: one for each image.
            positives: the N positives of the batch.
            pairs: their boxes.
            target: ``(N,)`` their centerness.
        """
        scale = self.normalizer(positives.counts)
        if self.box_weighting == "centerness":
            box = self.box_term(pairs, positives, self.box_normalizer(positives.sums(target)), target)
        else:
            box = self.box_term(pairs, positives, scale)
        centerness_loss = binary_cross_entropy_with_logits(
            centerness[positives.image, positives.prediction],
            target,
            weight=scale.weight_of(positives.image),
            normalizer=scale.denominator,
        )
        return LossTerms(
            {
                "class": self.class_term(class_logits, assignments, positives, pairs, scale),
                "box": box,
                "centerness": self.centerness_weight * centerness_loss,
            }
        )
