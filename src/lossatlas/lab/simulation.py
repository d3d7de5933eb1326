"""The regression simulation of the DIoU paper: boxes descend a loss towards a target, one step after the other.

1,715,000 cases: seven targets of area 1 at (10, 10) with aspect ratios from 1:4 to 4:1, and anchors at 5000 points
spread evenly over the disc of radius 3 around them, with seven areas and seven aspect ratios each. A case is moved for
200 iterations along G, the descent direction of the loss in centre, width and height,

    B ← B + η (2 - IoU) G        η = 0.1 to iteration 160, 0.01 to 180, 0.001 to 200,

and the error of an iteration is the sum over all cases of |Δx| + |Δy| + |Δw| + |Δh|.

Two directions can be followed: the exact gradient of the losses of this library, and the hand-written one of the
authors' published procedure, which is not the gradient of the losses that it is named after (`reference_direction`).

Reference: Zheng et al., "Distance-IoU Loss", 2020, arXiv 1911.08287, section 3.2 and algorithm 1.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_choice, check_number

Gradient: TypeAlias = Literal["exact", "reference"]
Direction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Boxes and targets ``(N, 4)``, cxcywh, to the direction ``(N, 4)`` in which the boxes move."""

ASPECTS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
AREAS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
CENTER, RADIUS = 10.0, 3.0
REFERENCE_LOSSES = ("iou", "giou", "diou", "ciou")
_CASES_AT_ONCE = 24_500
"""Cases that go through all iterations together: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class SimulationResult:
    """How the error of one loss fell."""

    name: str
    errors: Tensor
    """``(iterations + 1,)`` sum over all cases after each iteration, the start first."""
    points: Tensor
    """``(P, 2)`` centres of the anchors."""
    final_errors: Tensor
    """``(P,)`` mean final error of the cases that started at each point."""


def simulate(
    losses: Mapping[str, Callable[..., Tensor]],
    *,
    gradient: Gradient = "exact",
    points: int = 5000,
    iterations: int = 200,
    seed: int = 0,
    on_progress: Callable[[str, float], None] = lambda _name, _share: None,
) -> Iterator[SimulationResult]:
    """Run the simulation for one loss after the other.

    Args:
        losses: box losses by name; with ``gradient="reference"`` only the names count, which must be among
            `REFERENCE_LOSSES`.
        gradient: ``"exact"`` descends the loss that is given, ``"reference"`` follows the authors' published code.
        points: starting points; every one stands for 343 cases.
        iterations: steps of the descent; the learning rate falls at 80 % and 90 % of them.
        seed: of the starting points, which are the same for every loss.
        on_progress: is called with the name of the loss and the share of its cases that are done.

    Yields:
        One result for each loss.

    Raises:
        ValueError: an unknown `gradient`, a loss without a reference procedure, or counts below 1.
    """
    check_choice("gradient", gradient, ("exact", "reference"))
    check_number("points", points, at_least=1)
    check_number("iterations", iterations, at_least=1)
    if gradient == "reference":
        for name in losses:
            check_choice("losses", name, REFERENCE_LOSSES)
    centers = starting_points(points, seed)
    for name, loss in losses.items():
        direction = reference_direction(name) if gradient == "reference" else exact_direction(loss)
        errors = torch.zeros(iterations + 1, dtype=torch.float64)
        final = []
        block = max(1, _CASES_AT_ONCE // len(_shapes()))
        for start in range(0, points, block):
            on_progress(name, start / points)
            history, last = _descend(centers[start : start + block], direction, iterations)
            errors += history
            final.append(last)
        on_progress(name, 1.0)
        yield SimulationResult(name, errors, centers, torch.cat(final))


def starting_points(count: int, seed: int) -> Tensor:
    """Return ``(count, 2)`` points spread evenly over the disc of radius 3 around (10, 10)."""
    u1, u2 = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    radius, angle = RADIUS * u1.sqrt(), 2 * math.pi * u2
    return CENTER + torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1)


def _shapes() -> list[tuple[float, float, float, float]]:
    """Width and height of the anchor and of its target, for each of the 343 cases of a point."""
    return [
        (math.sqrt(area * aspect), math.sqrt(area / aspect), math.sqrt(goal), math.sqrt(1 / goal))
        for area in AREAS
        for aspect in ASPECTS
        for goal in ASPECTS
    ]


def _descend(centers: Tensor, direction: Direction, iterations: int) -> tuple[Tensor, Tensor]:
    shapes = torch.tensor(_shapes(), dtype=centers.dtype)
    boxes = torch.cat((centers.repeat_interleave(len(shapes), dim=0), shapes[:, :2].repeat(len(centers), 1)), dim=1)
    targets = torch.cat((torch.full_like(boxes[:, :2], CENTER), shapes[:, 2:].repeat(len(centers), 1)), dim=1)
    corners = convert(targets, "cxcywh", "xyxy")
    errors = [(boxes - targets).abs().sum(dtype=torch.float64)]
    for iteration in range(iterations):
        rate = 0.1 if iteration < 0.8 * iterations else 0.01 if iteration < 0.9 * iterations else 0.001
        iou = overlap(convert(boxes, "cxcywh", "xyxy"), corners).iou
        boxes = boxes + rate * (2 - iou)[:, None] * direction(boxes, targets)
        errors.append((boxes - targets).abs().sum(dtype=torch.float64))
    last = (boxes - targets).abs().sum(dim=1).view(len(centers), -1).mean(dim=1)
    return torch.stack(errors), last


def exact_direction(loss: Callable[..., Tensor]) -> Direction:
    """Return the descent direction of a box loss: minus its gradient in centre, width and height."""

    def direction(boxes: Tensor, targets: Tensor) -> Tensor:
        leaf = boxes.detach().requires_grad_()
        with torch.enable_grad():
            value = loss(convert(leaf, "cxcywh", "xyxy"), convert(targets, "cxcywh", "xyxy"), reduction="sum")
        return -torch.autograd.grad(value, leaf)[0]

    return direction


def reference_direction(name: str) -> Direction:
    """Return the direction that the authors' simulation code follows, facts and faults alike.

    It differs from the descent direction of the loss in four ways. Without overlap the intersection of GIoU, and its
    derivative, is the product of two lengths that may both be negative. The derivative of c² in the centre has the
    wrong sign. The derivatives of the enclosing box's width and height are mixed, and are set to -1 in the width or the
    height where the prediction is wider or higher than the target on both sides. The derivatives in width and height
    are twice the true ones.

    Args:
        name: one of `REFERENCE_LOSSES`.

    Raises:
        ValueError: another name.
    """
    check_choice("name", name, REFERENCE_LOSSES)

    def direction(boxes: Tensor, targets: Tensor) -> Tensor:
        pair = _Edges(convert(boxes, "cxcywh", "xyxy"), convert(targets, "cxcywh", "xyxy"))
        moved = _to_center(pair.giou() if name == "giou" else pair.iou())
        if name in ("diou", "ciou"):
            moved = moved + pair.distance(boxes, targets)
        if name == "ciou":
            moved = moved + pair.aspect(boxes, targets)
        return moved

    return direction


def _to_center(edges: Tensor) -> Tensor:
    """Turn derivatives in left, top, right and bottom into those in centre, width and height, without the 1/2."""
    left, top, right, bottom = edges.unbind(1)
    return torch.stack((left + right, top + bottom, right - left, bottom - top), dim=1)


class _Edges:
    """Derivatives in left, top, right and bottom of the areas that two boxes share, as the authors' code takes them."""

    def __init__(self, boxes: Tensor, targets: Tensor) -> None:
        start, end = boxes[:, :2], boxes[:, 2:]
        target_start, target_end = targets[:, :2], targets[:, 2:]
        inner = torch.minimum(end, target_end) - torch.maximum(start, target_start)
        outer = torch.maximum(end, target_end) - torch.minimum(start, target_start)
        size, target_size = end - start, target_end - target_start
        self.touching = (inner > 0).all(dim=1, keepdim=True)
        self.outer = outer
        self.outward = torch.cat((start < target_start, end > target_end), dim=1).to(boxes.dtype)
        """1 where an edge of the box is an edge of the enclosing box; left, top, right, bottom."""
        inward = torch.cat((start > target_start, end < target_end), dim=1).to(boxes.dtype)
        self.intersection = inner.prod(dim=1, keepdim=True)
        self.union = size.prod(1, keepdim=True) + target_size.prod(1, keepdim=True) - self.intersection
        self.enclosing = outer.prod(dim=1, keepdim=True)
        self.d_intersection = self._edge_derivative(inner) * inward
        self.d_union = self._edge_derivative(size) - self.d_intersection
        self.d_enclosing = self._edge_derivative(outer) * self.outward

    @staticmethod
    def _edge_derivative(sides: Tensor) -> Tensor:
        """Return how an area grows as its left, top, right and bottom edge move right or down."""
        width, height = sides.unbind(1)
        return torch.stack((-height, -width, height, width), dim=1)

    def iou(self) -> Tensor:
        ratio = (self.union * self.d_intersection - self.intersection * self.d_union) / self.union**2
        return torch.where(self.touching, ratio, 0)

    def giou(self) -> Tensor:
        return self.iou() + (self.enclosing * self.d_union - self.union * self.d_enclosing) / self.enclosing**2

    def distance(self, boxes: Tensor, targets: Tensor) -> Tensor:
        offset = targets[:, :2] - boxes[:, :2]
        distance2, diagonal2 = (values.pow(2).sum(1, keepdim=True) for values in (offset, self.outer))
        begins, ends = self.outward[:, :2], self.outward[:, 2:]
        by_center = 2 * self.outer.sum(1, keepdim=True) * (ends - begins)
        by_size = self.outer.sum(1, keepdim=True) * (ends + begins)
        # Where both edges lie outside, one of the two derivatives in the size, 1, is overwritten by -1.
        by_size = torch.where((ends + begins) == 2, 2 * (self.outer.flip(1) - self.outer), by_size)
        centers = (2 * offset * diagonal2 - by_center * distance2) / diagonal2**2
        return torch.cat((centers, by_size * distance2 / diagonal2**2), dim=1)

    def aspect(self, boxes: Tensor, targets: Tensor) -> Tensor:
        width, height = boxes[:, 2], boxes[:, 3]
        difference = torch.atan(targets[:, 2] / targets[:, 3]) - torch.atan(width / height)
        v = 4 / math.pi**2 * difference**2
        iou = torch.where(self.touching, self.intersection / self.union, 0)[:, 0]
        scale = v / (1 - iou + v + 1e-7) * 8 / math.pi**2 * difference
        zero = torch.zeros_like(width)
        return torch.stack((zero, zero, scale * height, -scale * width), dim=1)
