"""The assignment of RTMDet: SimOTA's choice by a cost with soft labels and a soft preference for the centre."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import check_block_size, ordered_objects
from lossatlas.assign.candidates import Pairs, Reach
from lossatlas.assign.dynamic_k import PairCosts, Pool, dynamic_k_matching, matched_iou
from lossatlas.assign.regions import check_class_logits, check_points, check_rows, points_in_crowd
from lossatlas.assign.selection import to_rows
from lossatlas.assign.soft_assignment import SoftAssignment
from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast

_FURTHEST = 30.0
"""Exponent of ten beyond which a point is as far from the centre as can be: float32 ends at 38."""


@dataclass(frozen=True)
class DynamicSoftLabel:
    """Assign to each object its cheapest predictions inside it, as many as its best IoUs add up to.

    Formula:
        cost of a pair = class_weight · Σ_c BCE(p_c, y_c) |y_c - p_c|² - iou_weight · ln(IoU + 1e-7)
                         + 10^(d - center_radius)
        p = σ(class logits), y: the IoU at the object's class and 0 at the others
        d: distance of the point from the object's centre in strides
        k of an object = ⌊sum of its `topk` highest IoUs⌋, at least 1
        positive: the k cheapest candidates of each object; of two objects the one that pays less keeps a prediction

    Args:
        center_radius: distance in strides at which it costs 1; any finite number.
        pool: whether the candidates of an object are the points inside its box, ``"own"``, or the points inside any
            object's box, ``"any"`` (mmdetection), where an object may get predictions far away from it.
        topk: how many IoUs add up to k, at least 1.
        class_weight: factor of the class cost, at least 0.
        iou_weight: factor of the box cost, at least 0.
        block_size: objects that are held against all predictions at a time; it changes memory, never the result. None
            takes kernels where they can be used.

    Raises:
        ValueError: a number out of its range, or an unknown `pool`.

    Example:
        >>> import torch
        >>> points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [60.0, 4.0]]), torch.full((3,), 8.0)
        >>> boxes = torch.tensor([[0.0, 0, 10, 8], [0.0, 0, 16, 8], [0.0, 0, 16, 8]])
        >>> target = {"boxes": torch.tensor([[0.0, 0, 16, 8]]), "labels": torch.tensor([0])}
        >>> assignment = DynamicSoftLabel()(points, strides, torch.zeros(3, 1), boxes, target)
        >>> assignment.matched, assignment.quality
        (tensor([-1,  0, -1]), tensor([0., 1., 0.]))

    Note:
        `quality` is the IoU of a positive's box with its object: RTMDet's class target. Logits and boxes are detached:
        the choice has no gradient. Of equal costs the first prediction and the first object in `canonical_order` win;
        a prediction with NaN is never positive. An object without a point inside gets nothing. Points inside a crowd
        region that are not positive are ignored; no other implementation has this. Besides the logits, memory grows
        with predictions + objects.

    Reference:
        Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", 2022, arXiv 2212.07784,
        section 3.3 (dynamic soft label assignment).
    """

    center_radius: float = 3.0
    pool: Pool = "own"
    topk: int = 13
    class_weight: float = 1.0
    iou_weight: float = 3.0
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_number("center_radius", self.center_radius)
        check_choice("pool", self.pool, get_args(Pool))
        check_number("topk", self.topk, at_least=1)
        check_number("class_weight", self.class_weight, at_least=0)
        check_number("iou_weight", self.iou_weight, at_least=0)
        check_block_size(self.block_size)

    def __call__(
        self,
        points: Float[Tensor, "p 2"],
        strides: Float[Tensor, " p"],
        class_logits: Float[Tensor, "p c"],
        boxes: Float[Tensor, "p 4"],
        target: Mapping[str, Tensor],
    ) -> SoftAssignment:
        """Return which object of one image each prediction answers for, and its IoU with it.

        Args:
            points: ``(P, 2)`` x, y in pixels.
            strides: ``(P,)`` pixels.
            class_logits: ``(P, C)``.
            boxes: ``(P, 4)`` predicted boxes, xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) below C, optionally ``iscrowd`` (G,).

        Raises:
            ValueError: shapes that do not fit.
        """
        check_points(points, strides)
        check_rows("boxes", boxes, len(points))
        points, strides, boxes = upcast(points, strides, boxes.detach())
        objects = ordered_objects(target, boxes.dtype)
        labels = target["labels"][objects.rows].long()
        check_class_logits(class_logits, labels, len(points))
        reach = Reach(objects.boxes, points, "inside", block_size=self.block_size)

        def costs(rows: Tensor) -> Callable[[Pairs], PairCosts]:
            logits = class_logits[rows].detach().to(boxes.dtype)
            probability, background = logits.sigmoid(), F.softplus(logits)
            others = background * probability**2
            others = others.sum(1, keepdim=True) - others

            def costs_of(pairs: Pairs) -> PairCosts:
                own, prediction, label = objects.boxes[pairs.objects], rows[pairs.predictions], labels[pairs.objects]
                iou = overlap(own, boxes[prediction]).iou
                tables = logits, probability, background, others
                x, p, zero, other = (table[pairs.predictions, label] for table in tables)
                class_cost = (zero - iou * x) * (iou - p) ** 2 + other
                cost = self.class_weight * class_cost - self.iou_weight * (iou + 1e-7).log()
                return PairCosts(cost + self._center_cost(points[prediction], strides[prediction], own), iou)

            return costs_of

        matched = dynamic_k_matching(reach, self.pool, costs, self.topk)
        return SoftAssignment.build(
            to_rows(objects.rows, matched),
            points_in_crowd(points, objects.crowd, self.block_size),
            matched_iou(boxes, objects.boxes, matched),
        )

    def _center_cost(self, points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
        (x, y), (x1, y1, x2, y2) = points.unbind(1), boxes.unbind(1)
        distance = ((x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2).sqrt() / strides
        # Not `pow`, whose last bit depends on where in memory an element lies.
        exponent: Tensor = (distance - self.center_radius).clamp(max=_FURTHEST)
        return (exponent * math.log(10)).exp()
