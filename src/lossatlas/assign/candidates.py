"""Which predictions each object reaches, pair by pair, and the best few of them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lossatlas.assign.assignment import PAIRS_IN_MEMORY, blocks
from lossatlas.assign.regions import edge_distances
from lossatlas.assign.selection import top_mask
from lossatlas.kernels import candidates
from lossatlas.kernels.native import usable_float32

Rule = Literal["inside", "near", "either"]


class Reach(NamedTuple):
    """What objects reach of an image's predictions."""

    boxes: Tensor
    """``(G, 4)`` xyxy of the objects."""
    places: Tensor
    """``(P, 2)`` points of the predictions, or their boxes ``(P, 4)`` xyxy."""
    rule: Rule
    """``"inside"``: points that are further than `margin` from all edges of the object's box within it, boxes that
    overlap it by more than that; ``"near"``: points less than their `radius` away from its centre in x and in y;
    ``"either"``."""
    margin: float = 0.0
    radius: Tensor | None = None
    """``(P,)`` for the rules that look at it."""
    block_size: int | None = None
    """Objects that are held against all predictions at a time; None takes kernels where they can be used."""

    @property
    def fused(self) -> bool:
        """Whether kernels are used."""
        return self.block_size is None and usable_float32(self.boxes, self.places)

    def of(self, predictions: Tensor) -> "Reach":
        """Return the same for the predictions in these rows."""
        radius = None if self.radius is None else self.radius[predictions]
        return self._replace(places=self.places[predictions], radius=radius)


class Pairs(NamedTuple):
    """Some objects and the predictions that each of them may take: N pairs, object by object, both in order."""

    objects: Tensor
    """``(N,)`` int64."""
    predictions: Tensor
    """``(N,)`` int64."""
    counts: Tensor
    """``(M,)`` int64, the number of pairs of each of some objects that follow each other, N together."""
    fused: bool
    """Whether kernels choose among them."""


def reached(reach: Reach) -> Tensor:
    """Return the ``(P,)`` mask of predictions that any object reaches."""
    if reach.fused:
        return candidates.reachable(*_contiguous(reach), reach.rule, reach.margin)[1]
    found = torch.zeros(len(reach.places), dtype=torch.bool, device=reach.places.device)
    for block in blocks(len(reach.boxes), len(reach.places), reach.block_size):
        found |= _mask(reach, block).any(0)
    return found


def pairs(reach: Reach) -> Iterator[Pairs]:
    """Yield all pairs of objects and predictions that they reach, as many at a time as fit into a fixed memory."""
    if reach.fused:
        boxes, places = _contiguous(reach)
        counts, _ = candidates.reachable(boxes, places, reach.rule, reach.margin)
        objects = torch.arange(len(boxes))
        for block, size in _blocks_of_pairs(counts.tolist()):
            own = counts[block]
            found = candidates.list_reachable(boxes[block], places, own, size, reach.rule, reach.margin)
            yield Pairs(objects[block].repeat_interleave(own, output_size=size), found, own, fused=True)
        return
    for block in blocks(len(reach.boxes), len(reach.places), reach.block_size):
        mask = _mask(reach, block)
        objects, predictions = mask.nonzero().unbind(1)
        yield Pairs(objects + block.start, predictions, mask.sum(1), fused=False)


def all_pairs(objects: int, predictions: Tensor, block_size: int | None) -> Iterator[Pairs]:
    """Yield the pairs of every object and every prediction.

    Args:
        objects: their number.
        predictions: ``(P, ...)`` of which the number counts.
        block_size: objects at a time.
    """
    device = predictions.device
    for block in blocks(objects, len(predictions), block_size):
        rows = torch.arange(block.start, block.stop, device=device)
        counts = torch.full_like(rows, len(predictions))
        columns = torch.arange(len(predictions), device=device)
        fused = block_size is None and usable_float32(predictions)
        yield Pairs(rows.repeat_interleave(len(predictions)), columns.repeat(len(rows)), counts, fused)


def best_pairs(pairs: Pairs, score: Tensor, most: int, iou: Tensor | None = None) -> Tensor:
    """Return which pairs are among the highest of their object, in order; of equal ones the first.

    Args:
        pairs: N of them.
        score: ``(N,)``. A pair with -infinity or NaN is never chosen.
        most: how many for each object, at least 1.
        iou: ``(N,)``: an object takes only as many as the `most` highest of its own add up to, rounded down, at least
            one; NaN adds nothing. None takes `most`.

    Returns:
        ``(K,)`` int64 of pairs.
    """
    if not len(score):
        return torch.empty(0, dtype=torch.int64, device=score.device)
    ends = pairs.counts.cumsum(0)
    if pairs.fused:
        starts = torch.cat((ends.new_zeros(1), ends))
        return candidates.choose(score, starts, iou, min(most, len(score))).nonzero().squeeze(1)
    row = torch.arange(len(ends), device=ends.device).repeat_interleave(pairs.counts)
    place = row, torch.arange(len(score), device=ends.device) - (ends - pairs.counts)[row]
    table = score.new_full((len(ends), int(pairs.counts.max())), -torch.inf)
    count = None
    if iou is not None:
        overlaps = torch.zeros_like(table)
        overlaps[place] = iou.nan_to_num()
        highest = overlaps.topk(min(most, overlaps.shape[1]), dim=1).values
        # Column by column: the order of a sum over rows may depend on how many rows there are.
        count = sum(highest.unbind(1), highest.new_zeros(len(highest))).long().clamp(min=1)
    table[place] = score
    return top_mask(table, most, count)[place].nonzero().squeeze(1)


def _mask(reach: Reach, block: slice) -> Tensor:
    """Return which predictions some objects reach, ``(N, P)``."""
    boxes, places = reach.boxes[block, None], reach.places
    if reach.rule == "inside":
        return inside(places, boxes, reach.margin)
    assert reach.radius is not None
    close = near(places, boxes, reach.radius)
    return close if reach.rule == "near" else close | inside(places, boxes, reach.margin)


def inside(places: Tensor, boxes: Tensor, margin: float = 0.0) -> Tensor:
    """Return whether points are within boxes, or boxes overlap them, by more than a margin.

    Args:
        places: ``(*batch, 2)`` points, or ``(*batch, 4)`` boxes.
        boxes: ``(*batch, 4)``; the two broadcast.
        margin: pixels.
    """
    if places.shape[-1] == 2:
        return edge_distances(places, boxes)[0] > margin
    left, top, right, bottom = places.unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (right - x1 > margin) & (bottom - y1 > margin) & (x2 - left > margin) & (y2 - top > margin)


def near(points: Tensor, boxes: Tensor, radius: Tensor) -> Tensor:
    """Return whether points are less than a radius away from the centres of boxes, in x and in y.

    Args:
        points: ``(*batch, 2)``.
        boxes: ``(*batch, 4)``; the two broadcast.
        radius: ``(*batch)``.
    """
    (x, y), (x1, y1, x2, y2) = points.unbind(-1), boxes.unbind(-1)
    return torch.maximum((x - (x1 + x2) / 2).abs(), (y - (y1 + y2) / 2).abs()) < radius


def _contiguous(reach: Reach) -> tuple[Tensor, Tensor]:
    """Return the boxes and the places, with their radius if they have one, as kernels take them."""
    places = reach.places if reach.radius is None else torch.cat((reach.places, reach.radius[:, None]), dim=1)
    return reach.boxes.contiguous(), places.contiguous()


def _blocks_of_pairs(counts: list[int]) -> Iterator[tuple[slice, int]]:
    """Cut objects into slices with few pairs, or one object, and say how many pairs there are in each."""
    start = total = 0
    for index, count in enumerate(counts):
        if total and total + count > PAIRS_IN_MEMORY:
            yield slice(start, index), total
            start, total = index, 0
        total += count
    if total:
        yield slice(start, len(counts)), total
