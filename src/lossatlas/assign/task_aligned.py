"""TaskAligned: an object takes the predictions that classify and localise it best at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import blocks, check_block_size, ordered_objects
from lossatlas.assign.regions import check_class_logits, check_points, check_rows, edge_distances, points_in_crowd
from lossatlas.assign.selection import settle, to_rows, top_mask
from lossatlas.assign.soft_assignment import SoftAssignment
from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import overlap, pairwise_iou, safe_divide
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast

Order = Literal["topk_first", "mask_first"]
Conflict = Literal["candidates", "all"]
Measure = Literal["iou", "ciou"]


class _Scene(NamedTuple):
    """Predictions (P of them) and objects in canonical order (G of them) of an image."""

    points: Tensor
    log_scores: Tensor
    """``(P, C)`` ln σ of the class logits."""
    boxes: Tensor
    angles: Tensor
    """``(P,)`` atan(w / h) of the predicted boxes."""
    objects: Tensor
    labels: Tensor
    object_angles: Tensor
    reach: Tensor
    """``(G, 4)`` boxes that a point must be inside to answer for an object."""


@dataclass(frozen=True)
class TaskAligned:
    """Assign to each object the predictions inside it that are best in score and overlap together.

    Formula:
        t = sᵅ uᵝ,  s = σ(logit of the object's class),  u = IoU of the predicted box with the object
        positive: the `topk` predictions with the highest t > 0 of each object whose points are inside its box
        A prediction that is positive for several objects answers for the one that it overlaps most.
        quality of a positive = t / max t · max u, the maxima over the positives of its object

    Args:
        topk: predictions for each object, at least 1.
        alpha: exponent α of the score, at least 0.
        beta: exponent β of the overlap, above 0.
        order: ``"topk_first"``, the best of all predictions are chosen and then those outside are dropped (the
            authors' code and mmdetection), or ``"mask_first"``, the best of those inside are chosen (ultralytics,
            PaddleDetection, mmyolo), which gives small objects more positives.
        conflict: ``"candidates"``, an object must have chosen a prediction to win it; or ``"all"``, a prediction that
            several objects have chosen goes to the object it overlaps most of all around its point, chosen or not
            (ultralytics).
        measure: u is the ``"iou"``, or the ``"ciou"`` with negative values as 0 (ultralytics).
        margin: pixels that a point must be away from the box's edges, more than; at least 0.
        min_side: sides of objects that are shorter, in pixels, are enlarged to it about the centre for the test of
            what is inside; None leaves them. ultralytics has the second stride, 16: without it an object between the
            points of the grid gets no positives.
        block_size: objects that are held against all predictions at a time; it changes memory, never the result.

    Raises:
        ValueError: a number out of its range, or an unknown `order`, `conflict` or `measure`.

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [60.0, 4.0]])
        >>> boxes = torch.tensor([[0.0, 0, 8, 8], [0.0, 0, 12, 8], [0.0, 0, 16, 8]])
        >>> target = {"boxes": torch.tensor([[0.0, 0, 16, 8]]), "labels": torch.tensor([0])}
        >>> assignment = TaskAligned(beta=1)(points, torch.zeros(3, 1), boxes, target)
        >>> assignment.matched, assignment.quality
        (tensor([ 0,  0, -1]), tensor([0.5000, 0.7500, 0.0000]))

    Note:
        Logits and boxes are detached: neither the choice nor `quality` has a gradient. t is compared as its logarithm,
        so that u⁶ of a small overlap does not vanish in single precision. Of equal t the first prediction wins, of
        equal overlaps the first object in `canonical_order`; a prediction with NaN is never positive. Fewer
        predictions than `topk` are no error, as they are in ultralytics. Points inside a crowd region that are not
        positive are ignored; no other implementation has this. TOOD trains its first four epochs with
        `lossatlas.assign.ATSS` instead. Besides the logits, memory grows with predictions + objects.

    Reference:
        Feng et al., "TOOD: Task-aligned One-stage Object Detection", 2021, arXiv 2108.07755, equation 4 (t) and
        section 3.2.2 (the normalised t).
    """

    topk: int = 13
    alpha: float = 1.0
    beta: float = 6.0
    order: Order = "topk_first"
    conflict: Conflict = "candidates"
    measure: Measure = "iou"
    margin: float = 0.01
    min_side: float | None = None
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_number("topk", self.topk, at_least=1)
        check_number("alpha", self.alpha, at_least=0)
        check_number("beta", self.beta, above=0)
        check_choice("order", self.order, get_args(Order))
        check_choice("conflict", self.conflict, get_args(Conflict))
        check_choice("measure", self.measure, get_args(Measure))
        check_number("margin", self.margin, at_least=0)
        if self.min_side is not None:
            check_number("min_side", self.min_side, above=0)
        check_block_size(self.block_size)

    @classmethod
    def yolov8(cls) -> Self:
        """Return the assigner that YOLOv8 is trained with, but for its ``conflict="all"``."""
        return cls(topk=10, alpha=0.5, order="mask_first", measure="ciou", margin=0.0, min_side=16.0)

    def __call__(
        self,
        points: Float[Tensor, "p 2"],
        class_logits: Float[Tensor, "p c"],
        boxes: Float[Tensor, "p 4"],
        target: Mapping[str, Tensor],
    ) -> SoftAssignment:
        """Return which object of one image each prediction answers for, and the normalised t.

        Args:
            points: ``(P, 2)`` x, y in pixels.
            class_logits: ``(P, C)``.
            boxes: ``(P, 4)`` predicted boxes, xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) below C, optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_points(points)
        check_rows("boxes", boxes, len(points))
        points, boxes = upcast(points, boxes.detach())
        objects = ordered_objects(target, boxes.dtype)
        labels = target["labels"][objects.rows].long()
        check_class_logits(class_logits, labels, len(points))
        scene = _Scene(
            points,
            F.logsigmoid(class_logits.detach().to(boxes.dtype)),
            boxes,
            _angle(boxes),
            objects.boxes,
            labels,
            _angle(objects.boxes),
            self._reach(objects.boxes),
        )
        matched = self._match(scene)
        return SoftAssignment.build(
            to_rows(objects.rows, matched),
            points_in_crowd(points, objects.crowd, self.block_size),
            self._quality(scene, matched),
        )

    def _reach(self, objects: Tensor) -> Tensor:
        if self.min_side is None:
            return objects
        center, side = convert(objects, "xyxy", "cxcywh").split(2, dim=-1)
        return convert(torch.cat((center, side.clamp(min=self.min_side)), dim=-1), "cxcywh", "xyxy")

    def _match(self, scene: _Scene) -> Tensor:
        nothing = torch.empty(0, dtype=torch.int64, device=scene.boxes.device)
        claimants, claimed, strength = [nothing], [nothing], [scene.boxes.new_empty(0)]
        for block in blocks(len(scene.objects), len(scene.boxes), self.block_size):
            u = self._pairwise(scene, block)
            inside = edge_distances(scene.points, scene.reach[block, None])[0] > self.margin
            log_t = self.alpha * scene.log_scores[:, scene.labels[block]].T + self.beta * u.log()
            if self.order == "mask_first":
                chosen = top_mask(torch.where(inside, log_t, -torch.inf), self.topk)
            else:
                chosen = top_mask(log_t, self.topk) & inside
            rows, predictions = chosen.nonzero().unbind(1)
            claimants.append(rows + block.start)
            claimed.append(predictions)
            strength.append(u[chosen])
        predictions = torch.cat(claimed)
        matched = settle(torch.cat(claimants), predictions, torch.cat(strength), len(scene.boxes))
        if self.conflict == "all":
            contested = (predictions.bincount(minlength=len(matched)) > 1).nonzero().squeeze(1)
            matched[contested] = self._most_overlapped(scene, contested)
        return matched

    def _most_overlapped(self, scene: _Scene, predictions: Tensor) -> Tensor:
        """Return the object around each of the predictions that it overlaps most."""
        some = scene._replace(
            points=scene.points[predictions], boxes=scene.boxes[predictions], angles=scene.angles[predictions]
        )
        best = some.boxes.new_full((len(predictions),), -1.0)
        winner = torch.full_like(predictions, -1)
        for block in blocks(len(scene.objects), len(predictions), self.block_size):
            inside = edge_distances(some.points, some.reach[block, None])[0] > self.margin
            highest, first = torch.where(inside, self._pairwise(some, block), -1.0).max(dim=0)  # the first maximum
            winner = torch.where(highest > best, first + block.start, winner)
            best = torch.maximum(best, highest)
        return winner

    def _pairwise(self, scene: _Scene, block: slice) -> Tensor:
        """Return u of some objects and all predictions, ``(N, P)``."""
        if self.measure == "iou":
            return pairwise_iou(scene.objects[block], scene.boxes)
        return _positive_ciou(scene.objects[block, None], scene.boxes, scene.object_angles[block, None], scene.angles)

    def _quality(self, scene: _Scene, matched: Tensor) -> Tensor:
        rows = (matched >= 0).nonzero().squeeze(1)
        objects = matched[rows]
        boxes, own = scene.objects[objects], scene.boxes[rows]
        if self.measure == "iou":
            u = overlap(boxes, own).iou
        else:
            u = _positive_ciou(boxes, own, scene.object_angles[objects], scene.angles[rows])
        log_t = self.alpha * scene.log_scores[rows, scene.labels[objects]] + self.beta * u.log()
        best_t = log_t.new_full((len(scene.objects),), -torch.inf).scatter_reduce(0, objects, log_t, "amax")
        best_u = u.new_zeros(len(scene.objects)).scatter_reduce(0, objects, u, "amax")
        quality = u.new_zeros(len(matched))
        quality[rows] = (log_t - best_t[objects]).exp() * best_u[objects]
        return quality


def _angle(boxes: Tensor) -> Tensor:
    width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(1)
    return torch.atan2(width, height)


def _positive_ciou(input: Tensor, target: Tensor, angle: Tensor, target_angle: Tensor) -> Tensor:
    """Return the complete IoU of boxes ``(*batch, 4)`` that broadcast, 0 where it is negative."""
    pair = overlap(input, target)
    v = 4 / math.pi**2 * (angle - target_angle) ** 2
    aspect = safe_divide(v, 1 - pair.iou + v) * v
    return (pair.iou - safe_divide(pair.center_distance2, pair.enclosing_diagonal2) - aspect).clamp(min=0)
