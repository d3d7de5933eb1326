"""SSD: each object first gets a prior of its own, then every prior that overlaps enough is positive."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, blocks, check_block_size, ordered_objects
from lossatlas.assign.max_iou import MaxIoU
from lossatlas.assign.regions import boxes_in_crowd, check_rows
from lossatlas.assign.selection import to_rows
from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.checks import check_number
from lossatlas.dtypes import upcast


@dataclass(frozen=True)
class Bipartite:
    """Give each object a prior of its own, by the highest overlap of all first; then apply a threshold.

    Formula:
        while an object and a prior are left whose IoU is above min_iou:
            the pair of them with the highest IoU is matched and taken out
        prior without a match: positive for the object that it overlaps most, if their IoU ≥ positive_threshold

    Args:
        positive_threshold: above 0, at most 1; None leaves it at one prior for each object.
        min_iou: overlap that does not count, from 0 to below 1. An object that overlaps nothing gets no prior.
        crowd_threshold: a prior that is not positive is ignored if a crowd region covers this share of its area;
            None leaves such priors negative. No prior is ever assigned to a crowd region.
        block_size: objects or priors that are held against all others at a time; it changes memory, never the result.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> priors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 14], [40.0, 0, 50, 10]])
        >>> boxes = torch.tensor([[0.0, 0, 10, 9], [0.0, 0, 10, 8]])
        >>> Bipartite()(priors, {"boxes": boxes, "labels": torch.tensor([0, 0])}).matched
        tensor([ 0,  1, -1])

    Note:
        Of equal pairs the one whose object comes first in `canonical_order` wins, then the one whose prior does.
        This is the matching of the authors' code. ssd.pytorch, torchvision and mmdetection force the best prior of
        each object instead: two objects with one best prior leave one of them with nothing.
        ``MaxIoU(0.5, 0.5, "reassign")`` does that, with a rule for who wins. Memory grows with priors + objects.

    Reference:
        Liu et al., "SSD: Single Shot MultiBox Detector", 2015, arXiv 1512.02325, section 2.2 (matching strategy).
    """

    positive_threshold: float | None = 0.5
    min_iou: float = 1e-6
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        if self.positive_threshold is not None:
            check_number("positive_threshold", self.positive_threshold, above=0, at_most=1)
        check_number("min_iou", self.min_iou, at_least=0, below=1)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    def __call__(self, priors: Float[Tensor, "p 4"], target: Mapping[str, Tensor]) -> Assignment:
        """Return which object of one image each prior answers for.

        Args:
            priors: ``(P, 4)`` xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_rows("priors", priors)
        (priors,) = upcast(priors)
        objects = ordered_objects(target, priors.dtype)
        matched = to_rows(objects.rows, self._greedy(priors, objects.boxes))
        if self.positive_threshold is not None:
            by_threshold = MaxIoU(
                self.positive_threshold,
                self.positive_threshold,
                "none",
                crowd_threshold=None,
                block_size=self.block_size,
            )
            matched = torch.where(matched >= 0, matched, by_threshold(priors, target).matched)
        return Assignment.build(matched, boxes_in_crowd(priors, objects.crowd, self.crowd_threshold, self.block_size))

    def _greedy(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Return the object of each prior that is some object's own, -1 for the other priors."""
        matched = torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
        best = boxes.new_zeros(len(boxes))
        choice = torch.zeros_like(best, dtype=torch.int64)
        stale = torch.ones_like(best, dtype=torch.bool)
        for _ in range(min(len(priors), len(boxes))):
            # Only the objects whose best prior has just been taken look for another one.
            rows = stale.nonzero().squeeze(1)
            best[rows], choice[rows] = self._best_free(priors, boxes[rows], matched < 0)
            overlap, winner = best.max(dim=0)  # the first maximum
            if not overlap > self.min_iou:
                break
            prior = choice[winner]
            matched[prior] = winner
            stale = (choice == prior) & (best > 0)
            best[winner], stale[winner] = 0, False
        return matched

    def _best_free(self, priors: Tensor, boxes: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest IoU that each box has with a free prior, and the first prior that has it."""
        best = boxes.new_zeros(len(boxes))
        choice = torch.zeros_like(best, dtype=torch.int64)
        for block in blocks(len(boxes), len(priors), self.block_size):
            best[block], choice[block] = torch.where(free, pairwise_iou(boxes[block], priors), 0).max(dim=1)
        return best, choice
