"""SSD: each object first gets a prior of its own, then every prior that overlaps enough is positive."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, check_block_size, ordered_objects
from lossatlas.assign.candidates import Reach, best_pairs, pairs, reached
from lossatlas.assign.max_iou import MaxIoU
from lossatlas.assign.regions import boxes_in_crowd, check_rows
from lossatlas.assign.selection import settle, to_rows
from lossatlas.boxes.geometry import overlap
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
            None takes kernels where they can be used.

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
        (priors,) = upcast(priors.detach())
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
        """Return the object of each prior that is some object's own, -1 for the other priors.

        All objects ask at once for the prior that they overlap most, a prior keeps the one that it overlaps most, and
        those that it turns away, now or later, ask for their next. Since objects and priors rank each other by the
        same number, with ties in one order, this ends with the pairs that are found by taking the best one of all
        again and again, after a few rounds instead of one for each object.
        """
        matched = torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
        reach = Reach(boxes, priors, "inside", block_size=self.block_size)
        rows = reached(reach).nonzero().squeeze(1)
        reach = reach.of(rows)
        owner, best = matched[rows], priors.new_full((len(rows),), self.min_iou)
        asking = torch.arange(len(boxes), device=boxes.device)
        while len(asking):
            objects, wanted, iou = self._ask(reach, asking, owner, best)
            first = settle(objects, wanted, iou, len(rows))
            won = first[wanted] == objects
            left = owner[wanted[won]]
            owner[wanted[won]], best[wanted[won]] = objects[won], iou[won]
            asking = torch.cat((objects[~won], left[left >= 0])).sort().values
        matched[rows] = owner
        return matched

    def _ask(self, reach: Reach, asking: Tensor, owner: Tensor, best: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which objects find a prior that would rather have them, the best one of each, and their IoU.

        Args:
            reach: all objects and priors.
            asking: ``(N,)`` objects that have no prior.
            owner: ``(P,)`` object of each prior, or -1.
            best: ``(P,)`` IoU of each prior with its object.
        """
        objects, wanted, overlaps = [asking[:0]], [asking[:0]], [best[:0]]
        for some in pairs(reach._replace(boxes=reach.boxes[asking])):
            own, prior = asking[some.objects], some.predictions
            iou = overlap(reach.boxes[own], reach.places[prior]).iou
            welcome = (iou > best[prior]) | ((iou == best[prior]) & (own < owner[prior]))
            chosen = best_pairs(some, torch.where(welcome, iou, -torch.inf), 1)
            objects.append(own[chosen])
            wanted.append(prior[chosen])
            overlaps.append(iou[chosen])
        return torch.cat(objects), torch.cat(wanted), torch.cat(overlaps)
