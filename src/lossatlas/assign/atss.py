"""ATSS: each object's IoU threshold follows from the IoUs of the priors nearest to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, check_block_size, ordered_objects
from lossatlas.assign.nearest import nearest
from lossatlas.assign.regions import boxes_in_crowd, check_rows, edge_distances
from lossatlas.assign.selection import settle, to_rows
from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_number
from lossatlas.dtypes import upcast


@dataclass(frozen=True)
class ATSS:
    """Assign the priors near an object whose IoU stands out among their own: adaptive training sample selection.

    Formula:
        candidates of an object: of each level the `topk` · `anchors_per_location` priors whose centres are nearest
        positive: candidates with IoU ≥ m + s and IoU > 0 whose centre is inside the object
        m, s: mean and standard deviation of the IoUs of all candidates of the object, s with divisor n - 1
        A prior that is positive for several objects answers for the one that it overlaps most.

    Args:
        topk: candidates of each level, in locations.
        anchors_per_location: priors that share a centre.
        margin: pixels that a prior's centre must be away from the object's edges, more than; at least 0.
        crowd_threshold: a prior that is not positive is ignored if a crowd region covers this share of its area;
            None leaves such priors negative. No prior is ever assigned to a crowd region.
        block_size: objects that are held against all priors of a level at a time; it changes memory, never the result.
            None takes kernels where they can be used.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> priors = torch.tensor([[0.0, 0, 8, 8], [8.0, 0, 16, 8], [16.0, 0, 24, 8], [0.0, 0, 16, 16]])
        >>> target = {"boxes": torch.tensor([[1.0, 0, 9, 8]]), "labels": torch.tensor([0])}
        >>> ATSS()(priors, [3, 1], target).matched
        tensor([ 0, -1, -1, -1])

    Note:
        Equal distances go to the prior that comes first, equal IoUs to the object that does in `canonical_order`. No
        prior is forced: an object may get none. The standard deviation of a single candidate is 0; it is NaN in the
        authors' code and in mmdetection, so that nothing is positive there. Memory grows with priors + objects.

    Reference:
        Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
        Selection", 2019, arXiv 1912.02424, algorithm 1; `margin` is the 0.01 of the authors' code.
    """

    topk: int = 9
    anchors_per_location: int = 1
    margin: float = 0.01
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_number("topk", self.topk, at_least=1)
        check_number("anchors_per_location", self.anchors_per_location, at_least=1)
        check_number("margin", self.margin, at_least=0)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    def __call__(
        self, priors: Float[Tensor, "p 4"], level_sizes: Sequence[int], target: Mapping[str, Tensor]
    ) -> Assignment:
        """Return which object of one image each prior answers for.

        Args:
            priors: ``(P, 4)`` xyxy in pixels, level by level.
            level_sizes: number of priors of each level.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit, or level sizes that are none or do not add up to P.
        """
        check_rows("priors", priors)
        if not level_sizes:
            raise ValueError("`level_sizes` must list at least one level, but is empty")
        for size in level_sizes:
            check_number("level_sizes", size, at_least=0)
        if sum(level_sizes) != len(priors):
            raise ValueError(f"`level_sizes` must add up to the {len(priors)} priors, but got {list(level_sizes)}")
        (priors,) = upcast(priors.detach())
        objects = ordered_objects(target, priors.dtype)
        matched = to_rows(objects.rows, self._match(priors, level_sizes, objects.boxes))
        return Assignment.build(matched, boxes_in_crowd(priors, objects.crowd, self.crowd_threshold, self.block_size))

    def _match(self, priors: Tensor, level_sizes: Sequence[int], boxes: Tensor) -> Tensor:
        centers = convert(priors, "xyxy", "cxcywh")[:, :2]
        candidates = self._candidates(centers, level_sizes, convert(boxes, "xyxy", "cxcywh")[:, :2])
        objects = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(candidates)
        iou = overlap(priors[candidates], boxes[:, None].expand(*candidates.shape, 4)).iou
        inside = edge_distances(centers[candidates], boxes[:, None])[0] > self.margin
        positive = (iou >= _stands_out(iou)) & (iou > 0) & inside
        return settle(objects[positive], candidates[positive], iou[positive], len(priors))

    def _candidates(self, centers: Tensor, level_sizes: Sequence[int], object_centers: Tensor) -> Tensor:
        """Return the ``(G, K)`` priors nearest to each object: as many for each object."""
        count = self.topk * self.anchors_per_location
        levels, start = [], 0
        for size in level_sizes:
            level = centers[start : start + size]
            levels.append(start + nearest(level, object_centers, count, "squared", self.block_size)[0])
            start += size
        return torch.cat(levels, dim=1)


def _stands_out(iou: Tensor) -> Tensor:
    """Return the mean plus the standard deviation of each row, ``(G, 1)``."""
    if not iou.shape[1]:
        return iou.new_zeros(len(iou), 1)
    # From the first value on, so that equal values give exactly their value, whatever it is.
    first = iou[:, :1]
    offset = iou - first
    mean = offset.mean(1, keepdim=True)
    variance = ((offset - mean) ** 2).sum(1, keepdim=True) / max(iou.shape[1] - 1, 1)
    return first + (mean + variance.sqrt())
