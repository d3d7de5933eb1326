"""DETR: one prediction for each object, so that all pairs together cost least."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, ordered_objects
from lossatlas.assign.regions import boxes_in_crowd, check_class_logits, check_rows
from lossatlas.assign.selection import to_rows
from lossatlas.boxes.formats import convert, normalize
from lossatlas.boxes.geometry import overlap, safe_divide
from lossatlas.checks import check_number
from lossatlas.dtypes import upcast
from lossatlas.matching import least_cost_pairs


class Pairing(NamedTuple):
    """The predictions (P of them) and objects (G of them) of an image that a cost compares."""

    class_logits: Tensor
    """``(P, C)``."""
    boxes: Tensor
    """``(P, 4)`` xyxy pixels."""
    labels: Tensor
    """``(G,)`` int64."""
    objects: Tensor
    """``(G, 4)`` xyxy pixels."""
    image_size: tuple[int, int]
    """Height and width in pixels."""


MatchCost: TypeAlias = Callable[[Pairing], Tensor]
"""A cost: from a `Pairing` to ``(P, G)``; any callable will do."""


@dataclass(frozen=True)
class ClassCost:
    """What a softmax classifier makes a pair cost: -weight · softmax(logits)[label].

    Args:
        weight: finite factor.

    Example:
        >>> logits, boxes = torch.zeros(1, 4), torch.zeros(1, 4)
        >>> ClassCost()(Pairing(logits, boxes, torch.tensor([2]), boxes, (8, 8)))
        tensor([[-0.2500]])

    Reference:
        Carion et al., "DETR", 2020, arXiv 2005.12872, section 3.1: the probability, not its logarithm.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)

    def __call__(self, pairing: Pairing) -> Tensor:
        """Return the ``(P, G)`` costs."""
        return -self.weight * pairing.class_logits.softmax(1)[:, pairing.labels]


@dataclass(frozen=True)
class FocalCost:
    """What a sigmoid classifier makes a pair cost: the focal loss as a positive minus the one as a negative.

    Formula:
        weight · (-α (1 - p)^γ ln p + (1 - α) p^γ ln(1 - p)),  p = σ(logit of the label)

    Args:
        weight: finite factor.
        alpha: balance α of positives and negatives, from 0 to 1.
        gamma: focus γ, at least 0.

    Example:
        >>> logits, boxes = torch.zeros(1, 4), torch.zeros(1, 4)
        >>> FocalCost(weight=1, alpha=0.5)(Pairing(logits, boxes, torch.tensor([2]), boxes, (8, 8)))
        tensor([[0.]])

    Reference:
        Zhu et al., "Deformable DETR", 2020, arXiv 2010.04159, appendix A.4, whose code has the factor 2.
    """

    weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)
        check_number("alpha", self.alpha, at_least=0, at_most=1)
        check_number("gamma", self.gamma, at_least=0)

    def __call__(self, pairing: Pairing) -> Tensor:
        """Return the ``(P, G)`` costs."""
        logits = pairing.class_logits
        positive = self.alpha * logits.neg().sigmoid() ** self.gamma * F.softplus(-logits)
        negative = (1 - self.alpha) * logits.sigmoid() ** self.gamma * F.softplus(logits)
        return self.weight * (positive - negative)[:, pairing.labels]


@dataclass(frozen=True)
class L1Cost:
    """What the coordinates make a pair cost: weight · Σ |difference| of x, y, w, h in fractions of the image.

    Args:
        weight: finite factor.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4]])
        >>> L1Cost(weight=1)(Pairing(torch.zeros(1, 1), boxes, torch.tensor([0]), boxes + 2, (8, 8)))
        tensor([[0.5000]])

    Reference:
        Carion et al., "DETR", 2020, arXiv 2005.12872, section 3.1; x, y: centre.
    """

    weight: float = 5.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)

    def __call__(self, pairing: Pairing) -> Tensor:
        """Return the ``(P, G)`` costs."""
        boxes, objects = (
            convert(normalize(corners, pairing.image_size), "xyxy", "cxcywh")
            for corners in (pairing.boxes, pairing.objects)
        )
        return self.weight * (boxes[:, None] - objects).abs().sum(-1)


@dataclass(frozen=True)
class GIoUCost:
    """What the overlap makes a pair cost: -weight · GIoU, the IoU minus the empty share of the enclosing box.

    Args:
        weight: finite factor.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4]])
        >>> GIoUCost()(Pairing(torch.zeros(1, 1), boxes, torch.tensor([0]), boxes, (8, 8)))
        tensor([[-2.]])

    Reference:
        Carion et al., "DETR", 2020, arXiv 2005.12872, section 3.1; Rezatofighi et al., "GIoU", 2019,
        arXiv 1902.09630.
    """

    weight: float = 2.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)

    def __call__(self, pairing: Pairing) -> Tensor:
        """Return the ``(P, G)`` costs."""
        pair = overlap(pairing.boxes[:, None], pairing.objects)
        enclosing = pair.enclosing_area
        return -self.weight * (pair.iou - safe_divide(enclosing - pair.union, enclosing))


@dataclass(frozen=True)
class Hungarian:
    """Assign to each object one prediction of its own so that the sum of the costs of all pairs is least.

    Formula:
        σ = argmin Σᵢ cost(prediction σ(i), object i) over all injections σ

    Args:
        costs: what a pair costs: the sum of these. DETR's are the default;
            ``(FocalCost(), L1Cost(), GIoUCost())`` are those of Deformable DETR.
        crowd_threshold: a prediction that is not matched is ignored if a crowd region covers this share of its
            predicted box; None leaves such predictions negative, as DETR does. No prediction is ever assigned to a
            crowd region.

    Raises:
        ValueError: no cost, or a threshold out of its range.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 4, 4], [4.0, 4, 8, 8], [0.0, 0, 8, 8]])
        >>> target = {"boxes": torch.tensor([[4.0, 4, 8, 8], [0.0, 0, 8, 7]]), "labels": torch.tensor([0, 1])}
        >>> Hungarian()(torch.zeros(3, 3), boxes, target, (8, 8)).matched
        tensor([-1,  0,  1])

    Note:
        Every object gets a prediction, also one that it does not overlap, as long as there are predictions left. Of
        equally good matchings scipy's solver decides, which sees the objects in `canonical_order`. It needs the whole
        predictions x objects matrix, on the CPU: this is meant for some hundred queries. Everything is detached.

    Reference:
        Carion et al., "End-to-End Object Detection with Transformers", 2020, arXiv 2005.12872, equation 1.
    """

    costs: Sequence[MatchCost] = (ClassCost(), L1Cost(), GIoUCost())
    crowd_threshold: float | None = 0.5

    def __post_init__(self) -> None:
        if not self.costs:
            raise ValueError("`costs` must list at least one cost, but is empty")
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)

    def __call__(
        self,
        class_logits: Float[Tensor, "p c"],
        boxes: Float[Tensor, "p 4"],
        target: Mapping[str, Tensor],
        image_size: tuple[int, int],
    ) -> Assignment:
        """Return which object of one image each prediction answers for.

        Args:
            class_logits: ``(P, C)``, with the background as a column for `ClassCost` and without for `FocalCost`.
            boxes: ``(P, 4)`` predicted boxes, xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) below C, optionally ``iscrowd`` (G,).
            image_size: height and width in pixels, the unit of `L1Cost`.

        Raises:
            ValueError: shapes that do not fit, or a cost that is not finite.
            ImportError: scipy is not installed.
        """
        check_rows("boxes", boxes)
        (boxes,) = upcast(boxes.detach())
        objects = ordered_objects(target, boxes.dtype)
        labels = target["labels"][objects.rows].long()
        check_class_logits(class_logits, labels, len(boxes))
        matched = torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
        if len(labels) and len(boxes):
            logits = class_logits.detach().to(boxes.dtype)
            cost = self._total(Pairing(logits, boxes, labels, objects.boxes, image_size), objects.rows)
            predictions, places = least_cost_pairs(cost, "Hungarian")
            matched[predictions.to(matched.device)] = places.to(matched.device)
        crowded = boxes_in_crowd(boxes, objects.crowd, self.crowd_threshold)
        return Assignment.build(to_rows(objects.rows, matched), crowded)

    def _total(self, pairing: Pairing, rows: Tensor) -> Tensor:
        total = pairing.boxes.new_zeros(len(pairing.boxes), len(pairing.labels))
        for index, cost in enumerate(self.costs):
            part = cost(pairing)
            if part.shape != total.shape:
                raise ValueError(
                    f"`costs[{index}]` must return shape {tuple(total.shape)}, but got {tuple(part.shape)}"
                )
            total = total + part.detach()
            if not total.isfinite().all():
                prediction, place = (~total.isfinite()).nonzero()[0].tolist()
                raise ValueError(
                    f"`costs[{index}]` ({cost}) must be finite, but makes the cost of prediction {prediction} and "
                    f"object {rows[place].item()} {total[prediction, place].item()}: predicted box "
                    f"{pairing.boxes[prediction].tolist()}, object {pairing.objects[place].tolist()}"
                )
        return total
