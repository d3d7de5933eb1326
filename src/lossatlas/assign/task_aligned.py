"""TaskAligned: an object takes the predictions that classify and localise it best at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import check_block_size, ordered_objects
from lossatlas.assign.candidates import Reach, best_pairs, inside, pairs
from lossatlas.assign.regions import check_class_logits, check_points, check_rows, points_in_crowd
from lossatlas.assign.selection import settle, to_rows
from lossatlas.assign.soft_assignment import SoftAssignment
from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import overlap, safe_divide
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast

Order = Literal["topk_first", "mask_first"]
Conflict = Literal["candidates", "all"]
Measure = Literal["iou", "ciou"]


class _Scene(NamedTuple):
    """Predictions (P of them) and objects in canonical order (G of them) of an image."""

    points: Tensor
    class_logits: Tensor
    boxes: Tensor
    angles: Tensor
    """``(P,)`` atan(w / h) of the predicted boxes, empty where no measure asks for it; likewise `object_angles`."""
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
        block_size: objects that are held against all predictions at a time; it changes memory, never the result. None
            takes kernels where they can be used.

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
            class_logits.detach(),
            boxes,
            self._angles(boxes),
            objects.boxes,
            labels,
            self._angles(objects.boxes),
            self._reach(objects.boxes),
        )
        matched = self._match(scene)
        return SoftAssignment.build(
            to_rows(objects.rows, matched),
            points_in_crowd(points, objects.crowd, self.block_size),
            self._quality(scene, matched),
        )

    def _angles(self, boxes: Tensor) -> Tensor:
        return _angle(boxes) if self.measure == "ciou" else boxes.new_empty(0)

    def _reach(self, objects: Tensor) -> Tensor:
        if self.min_side is None:
            return objects
        center, side = convert(objects, "xyxy", "cxcywh").split(2, dim=-1)
        return convert(torch.cat((center, side.clamp(min=self.min_side)), dim=-1), "cxcywh", "xyxy")

    def _match(self, scene: _Scene) -> Tensor:
        nothing = torch.empty(0, dtype=torch.int64, device=scene.boxes.device)
        claimants, claimed, strength = [nothing], [nothing], [scene.boxes.new_empty(0)]
        for some in pairs(self._candidates(scene)):
            u = self._overlap(scene, some.objects, some.predictions)
            chosen = best_pairs(some, self._log_t(scene, some.objects, some.predictions, u), self.topk)
            if self.order == "topk_first":
                points, reach = scene.points[some.predictions[chosen]], scene.reach[some.objects[chosen]]
                chosen = chosen[inside(points, reach, self.margin)]
            claimants.append(some.objects[chosen])
            claimed.append(some.predictions[chosen])
            strength.append(u[chosen])
        predictions = torch.cat(claimed)
        matched = settle(torch.cat(claimants), predictions, torch.cat(strength), len(scene.boxes))
        if self.conflict == "all":
            contested = (predictions.bincount(minlength=len(matched)) > 1).nonzero().squeeze(1)
            matched[contested] = self._most_overlapped(scene, contested)
        return matched

    def _candidates(self, scene: _Scene) -> Reach:
        """Return what may have t > 0 for an object: what is around it, or what it overlaps, wherever its point is."""
        if self.order == "mask_first":
            return Reach(scene.reach, scene.points, "inside", self.margin, block_size=self.block_size)
        return Reach(scene.objects, scene.boxes, "inside", block_size=self.block_size)

    def _most_overlapped(self, scene: _Scene, predictions: Tensor) -> Tensor:
        """Return the object around each of the predictions that it overlaps most."""
        around = Reach(scene.reach, scene.points[predictions], "inside", self.margin, block_size=self.block_size)
        best = scene.boxes.new_full((len(predictions),), -1.0)
        winner = torch.full_like(predictions, -1)
        for some in pairs(around):
            u = self._overlap(scene, some.objects, predictions[some.predictions]).nan_to_num()
            first = settle(some.objects, some.predictions, u, len(predictions))
            highest = best.new_full(best.shape, -1.0).scatter_reduce(0, some.predictions, u, "amax")
            winner = torch.where(highest > best, first, winner)
            best = torch.maximum(best, highest)
        return winner

    def _overlap(self, scene: _Scene, objects: Tensor, predictions: Tensor) -> Tensor:
        """Return u of pairs, ``(N,)``."""
        boxes, own = scene.objects[objects], scene.boxes[predictions]
        if self.measure == "iou":
            return overlap(boxes, own).iou
        return _positive_ciou(boxes, own, scene.object_angles[objects], scene.angles[predictions])

    def _log_t(self, scene: _Scene, objects: Tensor, predictions: Tensor, u: Tensor) -> Tensor:
        """Return ln t of pairs, ``(N,)``."""
        logits = scene.class_logits[predictions, scene.labels[objects]].to(u.dtype)
        return self.alpha * F.logsigmoid(logits) + self.beta * u.log()

    def _quality(self, scene: _Scene, matched: Tensor) -> Tensor:
        rows = (matched >= 0).nonzero().squeeze(1)
        objects = matched[rows]
        u = self._overlap(scene, objects, rows)
        log_t = self._log_t(scene, objects, rows, u)
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
