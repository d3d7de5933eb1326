"""SimOTA, the assignment of YOLOX: a cost for each pair, and as many predictions for an object as fit it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import check_block_size, ordered_objects
from lossatlas.assign.candidates import Pairs, Reach, Rule, inside, near
from lossatlas.assign.dynamic_k import PairCosts, Pool, dynamic_k_matching, matched_iou
from lossatlas.assign.regions import check_class_logits, check_points, check_rows, points_in_crowd
from lossatlas.assign.selection import to_rows
from lossatlas.assign.soft_assignment import SoftAssignment
from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast

Region = Literal["center", "box_or_center"]

_LOWEST_LOG = -100.0
"""Of a probability in a cross entropy, as in torch."""


@dataclass(frozen=True)
class SimOTA:
    """Assign to each object its cheapest predictions, as many as its best IoUs add up to.

    Formula:
        cost of a pair = class_weight · BCE(p, one-hot label) - iou_weight · ln(IoU + 1e-8) + penalty · [outside]
        p = √(σ(class) σ(objectness)), σ(class) where there is no objectness; BCE summed over the classes
        k of an object = ⌊sum of its `topk` highest IoUs⌋, at least 1
        positive: the k cheapest candidates of each object; of two objects the one that pays less keeps a prediction

    Args:
        region: where a prediction's point must be to be a candidate for an object:

            * ``"center"``: within `center_radius` strides of its centre in x and in y (YOLOX since January 2023);
            * ``"box_or_center"``: so, or inside its box; only what is both is not outside (YOLOX before, and
              mmdetection).
        center_radius: in strides; None takes 1.5 for ``"center"`` and 2.5 for ``"box_or_center"``.
        pool: ``"own"``, an object takes its own candidates only; or ``"any"``, it also takes candidates of other
            objects as outside ones where its own are fewer than k (YOLOX and mmdetection). With ``"any"`` an object
            may get predictions far away from it.
        topk: how many IoUs add up to k, at least 1.
        class_weight: factor of the class cost, at least 0.
        iou_weight: factor of the box cost, at least 0.
        penalty: what an outside prediction costs more, at least 0. Far above other costs it takes their precision:
            100 000 leaves steps of 0.008 in float32.
        block_size: objects that are held against all predictions at a time; it changes memory, never the result. None
            takes kernels where they can be used.

    Raises:
        ValueError: a number out of its range, or an unknown `region` or `pool`.

    Example:
        >>> points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [60.0, 4.0]]), torch.full((3,), 8.0)
        >>> boxes = torch.tensor([[0.0, 0, 10, 8], [0.0, 0, 16, 8], [0.0, 0, 16, 8]])
        >>> target = {"boxes": torch.tensor([[0.0, 0, 16, 8]]), "labels": torch.tensor([0])}
        >>> assignment = SimOTA()(points, strides, torch.zeros(3, 1), boxes, target)
        >>> assignment.matched, assignment.quality
        (tensor([-1,  0, -1]), tensor([0., 1., 0.]))

    Note:
        `quality` is the IoU of a positive's box with its object: YOLOX's class target. Logits and boxes are detached:
        the choice has no gradient. Of equal costs the first prediction and the first object in `canonical_order` win;
        a prediction with NaN is never positive. k never exceeds the number of candidates; an object without
        candidates gets nothing. Points inside a crowd region that are not positive are ignored; no other
        implementation has this. Besides the logits, memory grows with predictions + objects.

    Reference:
        Ge et al., "YOLOX: Exceeding YOLO Series in 2021", 2021, arXiv 2107.08430, section 2.1 (SimOTA); Ge et al.,
        "OTA: Optimal Transport Assignment for Object Detection", 2021, arXiv 2103.14259, section 3.3 (dynamic k).
    """

    region: Region = "center"
    center_radius: float | None = None
    pool: Pool = "own"
    topk: int = 10
    class_weight: float = 1.0
    iou_weight: float = 3.0
    penalty: float = 1e5
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_choice("region", self.region, get_args(Region))
        if self.center_radius is not None:
            check_number("center_radius", self.center_radius, above=0)
        check_choice("pool", self.pool, get_args(Pool))
        check_number("topk", self.topk, at_least=1)
        check_number("class_weight", self.class_weight, at_least=0)
        check_number("iou_weight", self.iou_weight, at_least=0)
        check_number("penalty", self.penalty, at_least=0)
        check_block_size(self.block_size)

    def __call__(
        self,
        points: Float[Tensor, "p 2"],
        strides: Float[Tensor, " p"],
        class_logits: Float[Tensor, "p c"],
        boxes: Float[Tensor, "p 4"],
        target: Mapping[str, Tensor],
        objectness_logits: Float[Tensor, " p"] | None = None,
    ) -> SoftAssignment:
        """Return which object of one image each prediction answers for, and its IoU with it.

        Args:
            points: ``(P, 2)`` x, y in pixels.
            strides: ``(P,)`` pixels.
            class_logits: ``(P, C)``.
            boxes: ``(P, 4)`` predicted boxes, xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) below C, optionally ``iscrowd`` (G,).
            objectness_logits: ``(P,)``; None for a detector without objectness.

        Raises:
            ValueError: shapes that do not fit.
        """
        check_points(points, strides)
        check_rows("boxes", boxes, len(points))
        points, strides, boxes = upcast(points, strides, boxes.detach())
        objects = ordered_objects(target, boxes.dtype)
        labels = target["labels"][objects.rows].long()
        check_class_logits(class_logits, labels, len(points))
        _check_objectness(objectness_logits, len(points))
        reach = self._reach(points, strides, objects.boxes)

        def costs(rows: Tensor) -> Callable[[Pairs], PairCosts]:
            objectness = None if objectness_logits is None else objectness_logits[rows]
            class_costs, some = _class_costs(class_logits[rows], objectness, boxes), reach.of(rows)

            def costs_of(pairs: Pairs) -> PairCosts:
                iou = overlap(objects.boxes[pairs.objects], boxes[rows[pairs.predictions]]).iou
                class_cost = class_costs[pairs.predictions, labels[pairs.objects]]
                cost = self.class_weight * class_cost - self.iou_weight * (iou + 1e-8).log()
                return PairCosts(cost + self._penalty(some, pairs), iou)

            return costs_of

        matched = dynamic_k_matching(reach, self.pool, costs, self.topk)
        return SoftAssignment.build(
            to_rows(objects.rows, matched),
            points_in_crowd(points, objects.crowd, self.block_size),
            matched_iou(boxes, objects.boxes, matched),
        )

    def _reach(self, points: Tensor, strides: Tensor, boxes: Tensor) -> Reach:
        radius = self.center_radius or (1.5 if self.region == "center" else 2.5)
        rule: Rule = "near" if self.region == "center" else "either"
        return Reach(boxes, points, rule, radius=radius * strides, block_size=self.block_size)

    def _penalty(self, reach: Reach, pairs: Pairs) -> Tensor | float:
        """Return what pairs cost more whose point is outside."""
        if self.region == "center" and self.pool == "own":
            return 0.0
        points, boxes = reach.places[pairs.predictions], reach.boxes[pairs.objects]
        assert reach.radius is not None
        within = near(points, boxes, reach.radius[pairs.predictions])
        if self.region == "box_or_center":
            within &= inside(points, boxes)
        return torch.where(within, 0.0, self.penalty).to(boxes.dtype)


def _check_objectness(objectness_logits: Tensor | None, predictions: int) -> None:
    if objectness_logits is not None and objectness_logits.shape != (predictions,):
        raise ValueError(
            f"`objectness_logits` must have shape ({predictions},), but got {tuple(objectness_logits.shape)}"
        )


def _class_costs(class_logits: Tensor, objectness_logits: Tensor | None, like: Tensor) -> Tensor:
    """Return the ``(P, C)`` binary cross entropy of each prediction with each class as the only right one."""
    logits = class_logits.detach().to(torch.promote_types(class_logits.dtype, like.dtype))
    if objectness_logits is None:
        hit, miss = F.logsigmoid(logits), F.logsigmoid(-logits)
    else:
        objectness = F.logsigmoid(objectness_logits.detach().to(logits.dtype))
        hit = (F.logsigmoid(logits) + objectness[:, None]) / 2
        miss = (-hit.expm1()).log()
    hit, miss = hit.clamp(min=_LOWEST_LOG).to(like.dtype), miss.clamp(min=_LOWEST_LOG).to(like.dtype)
    return miss - hit - miss.sum(1, keepdim=True)
