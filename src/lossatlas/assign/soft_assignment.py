"""An assignment that also says how well each positive prediction fits its object."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment
from lossatlas.checks import check_floating


@dataclass(frozen=True, eq=False)
class SoftAssignment(Assignment):
    """Which object each prediction of an image answers for, and the target of its score.

    Args:
        matched: ``(P,)`` int64, the 0-based row of a positive's object in the target, -1 for every other prediction.
        state: ``(P,)`` int8, 1 positive, 0 negative, -1 ignored.
        quality: ``(P,)`` from 0 to 1, outside the graph: what a quality-aware class loss takes as target at the class
            of a positive's object; 0 for every other prediction. The assigner says what it measures.

    Raises:
        ValueError: shapes that are not ``(P,)`` for all.
        TypeError: another dtype than int64 and int8, or a quality that is not floating point.

    Example:
        >>> matched, state = torch.tensor([2, -1]), torch.tensor([1, 0], dtype=torch.int8)
        >>> SoftAssignment(matched, state, torch.tensor([0.75, 0.0])).quality
        tensor([0.7500, 0.0000])
    """

    quality: Float[Tensor, " p"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_floating("quality", self.quality)
        if self.quality.shape != self.state.shape:
            raise ValueError(
                f"`quality` must have shape {tuple(self.state.shape)}, but got {tuple(self.quality.shape)}"
            )

    @classmethod
    def build(cls, matched: Tensor, ignored: Tensor, quality: Tensor | None = None) -> Self:
        """Return the assignment in which what is matched is positive, what is not is negative or ignored.

        Args:
            matched: ``(P,)`` 0-based object; any negative number for none.
            ignored: ``(P,)`` mask; it counts only where nothing is matched.
            quality: ``(P,)``; it counts only where something is matched. None gives every positive 1.
        """
        hard = Assignment.build(matched, ignored)
        quality = torch.ones(len(matched), device=matched.device) if quality is None else quality.detach()
        return cls(hard.matched, hard.state, torch.where(hard.positive, quality, 0))
