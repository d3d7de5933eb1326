"""YOLOF: as many positives for every object, the nearest ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, check_block_size, ordered_objects
from lossatlas.assign.nearest import nearest
from lossatlas.assign.regions import boxes_in_crowd, check_rows, highest_iou
from lossatlas.assign.selection import settle, to_rows
from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast

Nearest = Literal["priors_and_boxes", "priors"]


@dataclass(frozen=True)
class Uniform:
    """Assign to each object its `topk` nearest priors and the priors of its `topk` nearest predicted boxes.

    Formula:
        distance = |Δx| + |Δy| + |Δw| + |Δh| of centres and sides, in pixels
        chosen by an object: the `topk` nearest priors, and the priors of the `topk` nearest predicted boxes
        A prior that several objects have chosen answers for the one at the smallest of the distances it was chosen by.
        chosen, IoU of the prior with the object ≥ positive_iou: positive; below: ignored
        not chosen, IoU of its predicted box with any object > negative_iou: ignored; otherwise: negative

    Args:
        topk: how many of each kind an object chooses, at least 1.
        nearest: ``"priors_and_boxes"`` of the authors' code and mmdetection, or ``"priors"`` alone, what the paper
            describes.
        positive_iou: from 0 to 1; 0 keeps priors that do not touch their object as positives.
        negative_iou: from 0 to 1.
        crowd_threshold: a prior that is not positive is ignored if a crowd region covers this share of its area;
            None leaves such priors as they are. No prior is ever assigned to a crowd region.
        block_size: objects or priors that are held against all others at a time; it changes memory, never the result.
            None takes kernels where they can be used.

    Raises:
        ValueError: a number out of its range, or an unknown `nearest`.

    Example:
        >>> priors = torch.tensor([[0.0, 0, 8, 8], [8.0, 0, 16, 8], [24.0, 0, 32, 8]])
        >>> target = {"boxes": torch.tensor([[2.0, 0, 10, 8]]), "labels": torch.tensor([0])}
        >>> Uniform(topk=1)(priors, priors, target).matched
        tensor([ 0, -1, -1])

    Note:
        Of equal distances the first prior wins, then the first object in `canonical_order`. In the authors' code and
        mmdetection the object that comes last in the target takes a prior that several have chosen. Boxes are
        detached; a predicted box with NaN is chosen by nobody. Memory grows with priors + objects.

    Reference:
        Chen et al., "You Only Look One-level Feature", 2021, arXiv 2103.09460, section 4.2 (uniform matching).
    """

    topk: int = 4
    nearest: Nearest = "priors_and_boxes"
    positive_iou: float = 0.15
    negative_iou: float = 0.7
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_number("topk", self.topk, at_least=1)
        check_choice("nearest", self.nearest, get_args(Nearest))
        check_number("positive_iou", self.positive_iou, at_least=0, at_most=1)
        check_number("negative_iou", self.negative_iou, at_least=0, at_most=1)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    def __call__(
        self, priors: Float[Tensor, "p 4"], boxes: Float[Tensor, "p 4"], target: Mapping[str, Tensor]
    ) -> Assignment:
        """Return which object of one image each prior answers for.

        Args:
            priors: ``(P, 4)`` xyxy in pixels.
            boxes: ``(P, 4)`` predicted boxes, xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_rows("priors", priors)
        check_rows("boxes", boxes, len(priors))
        priors, boxes = upcast(priors, boxes.detach())
        objects = ordered_objects(target, priors.dtype)
        matched = self._chosen(priors, boxes, objects.boxes)
        chosen = (matched >= 0).nonzero().squeeze(1)
        far = overlap(priors[chosen], objects.boxes[matched[chosen]]).iou < self.positive_iou
        ignored = highest_iou(boxes, objects.boxes, self.block_size) > self.negative_iou
        ignored |= boxes_in_crowd(priors, objects.crowd, self.crowd_threshold, self.block_size)
        ignored[chosen[far]] = True
        matched[chosen[far]] = -1
        return Assignment.build(to_rows(objects.rows, matched), ignored)

    def _chosen(self, priors: Tensor, boxes: Tensor, objects: Tensor) -> Tensor:
        """Return the object of each prior that some object has chosen, -1 for the others."""
        claimed, distances = [], []
        for source in (priors, boxes) if self.nearest == "priors_and_boxes" else (priors,):
            numbers, wanted = (convert(rows, "xyxy", "cxcywh") for rows in (source, objects))
            place, distance = nearest(numbers, wanted, self.topk, "absolute", self.block_size)
            claimed.append(place)
            distances.append(distance)
        predictions = torch.cat(claimed, dim=1)
        claimants, column = (predictions >= 0).nonzero().unbind(1)
        strength = -torch.cat(distances, dim=1)[claimants, column]
        return settle(claimants, predictions[claimants, column], strength, len(priors))
