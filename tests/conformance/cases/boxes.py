"""Box losses: oracles from the published formulas in plain Python, and edge boxes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair, per_row

Row = list[float]


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def sample(generator: torch.Generator) -> Pair:
    """Overlapping and disjoint pairs in general position: at coincident edges a gradient is a matter of taste."""
    start = torch.rand(6, 2, generator=generator, dtype=torch.float64) * 10
    target = torch.cat((start, start + 3 + 5 * torch.rand(6, 2, generator=generator, dtype=torch.float64)), dim=1)
    input = target + torch.randn(6, 4, generator=generator, dtype=torch.float64)
    input[0] += 30
    return input, target


UNIT = boxes((0, 0, 1, 1), (2, 3, 7, 5))
BOX_EDGES = (
    Edge("identical", UNIT, UNIT),
    Edge("zero area prediction", boxes((1, 1, 1, 1), (1, 1, 4, 1), (3, 1, 3, 9)), boxes(*3 * [(0, 0, 5, 5)])),
    Edge("zero area target", boxes(*3 * [(0, 0, 5, 5)]), boxes((1, 1, 1, 1), (1, 1, 4, 1), (3, 1, 3, 9))),
    Edge(
        "both empty", boxes((1, 1, 1, 1), (1, 1, 4, 1), (0, 0, 0, 0)), boxes((1, 1, 1, 1), (1, 1, 4, 1), (5, 5, 5, 5))
    ),
    Edge("inverted", boxes((5, 1, 1, 5), (1, 5, 5, 1), (5, 5, 1, 1)), boxes(*3 * [(0, 0, 6, 6)])),
    Edge("both inverted", boxes((5, 5, 1, 1)), boxes((9, 9, 2, 2))),
    Edge("disjoint", boxes((0, 0, 1, 1), (0, 0, 1, 1)), boxes((8, 8, 9, 9), (0, 5, 1, 6))),
    Edge("touching", boxes((0, 0, 1, 1)), boxes((1, 0, 2, 1))),
    Edge("same centre", boxes((2, 2, 4, 8), (0, 0, 2, 2)), boxes((1, 3, 5, 7), (0.5, 0.5, 1.5, 1.5))),
    Edge("large", boxes((0, 0, 3e4, 3e4)), boxes((1e4, 1e4, 6e4, 5e4))),
    Edge("small fractions", UNIT / 1024, UNIT / 1000),
)


def intersection(b: Row, t: Row) -> float:
    return max(0.0, min(b[2], t[2]) - max(b[0], t[0])) * max(0.0, min(b[3], t[3]) - max(b[1], t[1]))


def size(b: Row) -> tuple[float, float]:
    return b[2] - b[0], b[3] - b[1]


def union(b: Row, t: Row) -> float:
    return math.prod(size(b)) + math.prod(size(t)) - intersection(b, t)


def iou(b: Row, t: Row) -> float:
    return intersection(b, t) / union(b, t)


def enclosing(b: Row, t: Row) -> tuple[float, float]:
    return max(b[2], t[2]) - min(b[0], t[0]), max(b[3], t[3]) - min(b[1], t[1])


def distance_term(b: Row, t: Row) -> float:
    dx, dy = (b[0] + b[2] - t[0] - t[2]) / 2, (b[1] + b[3] - t[1] - t[3]) / 2
    return (dx**2 + dy**2) / sum(side**2 for side in enclosing(b, t))


def iou_formula(b: Row, t: Row, frozen: Row, mode: str = "log") -> float:
    value = iou(b, t)
    return {"linear": 1 - value, "square": 1 - value**2, "log": -math.log(max(value, 1e-6))}[mode]


def giou_formula(b: Row, t: Row, frozen: Row) -> float:
    c = math.prod(enclosing(b, t))
    return 1 - iou(b, t) + (c - union(b, t)) / c


def diou_formula(b: Row, t: Row, frozen: Row) -> float:
    return 1 - iou(b, t) + distance_term(b, t)


def aspect_term(b: Row, t: Row) -> float:
    (w, h), (tw, th) = size(b), size(t)
    return 4 / math.pi**2 * (math.atan(tw / th) - math.atan(w / h)) ** 2


def ciou_formula(b: Row, t: Row, frozen: Row, gradient: str = "exact", alpha: str = "always") -> float:
    fixed, v = aspect_term(frozen, t), aspect_term(b, t)
    trade_off = fixed / (1 - iou(frozen, t) + fixed)
    if alpha == "gated" and iou(frozen, t) <= 0.5:
        trade_off = 0.0
    if gradient == "unscaled":
        v = fixed + sum(side**2 for side in size(frozen)) * (v - fixed)
    return diou_formula(b, t, frozen) + trade_off * v


def eiou_formula(b: Row, t: Row, frozen: Row) -> float:
    sides = zip(size(b), size(t), enclosing(b, t), strict=True)
    return diou_formula(b, t, frozen) + sum((side - other) ** 2 / c**2 for side, other, c in sides)


def focal_eiou_formula(
    input: Array, target: Array, frozen: Array, gamma: float = 0.5, normalize_weights: bool = False
) -> Array:
    weights = per_row(lambda b, t, f: iou(f, t) ** gamma)(input, target, frozen)
    loss: Array = weights * per_row(eiou_formula)(input, target, frozen)
    return loss / weights.mean() if normalize_weights else loss


def zero_for_identical(loss: Callable[..., Tensor]) -> Identity:
    return Identity("identical boxes cost nothing", lambda: loss(UNIT, UNIT, reduction="none"), lambda: UNIT[:, 0] * 0)


def scale_invariant(loss: Callable[..., Tensor]) -> Identity:
    first, second = sample(torch.Generator().manual_seed(1))
    return Identity("does not depend on the unit", lambda: loss(first, second), lambda: loss(first / 640, second / 640))


# The object of half the size inside the prediction, in the middle and in a corner: a figure of the DIoU paper.
LARGE, MIDDLE, CORNER = boxes((0, 0, 2, 2)), boxes((0.5, 0.5, 1.5, 1.5)), boxes((0, 0, 1, 1))
TOUCHING = boxes((0, 0, 1, 1)), boxes((1, 0, 2, 1))


def box_case(
    name: str,
    oracle: Callable[..., Array],
    *identities: Identity,
    options: tuple[dict[str, Any], ...] = ({},),
    required: dict[str, Any] | None = None,
    depends_on_unit: bool = False,
    detached: bool = False,
) -> Case:
    loss = partial(losses.CATALOG[name].function, **(required or {}))
    edges = [
        Edge(f"{edge.name} {' '.join(map(str, choice.values()))}".strip(), edge.input, edge.target, choice)
        for edge in BOX_EDGES
        for choice in options
    ]
    return Case(
        name,
        sample,
        oracle,
        tuple(edges),
        options=options,
        identities=(zero_for_identical(loss), *(() if depends_on_unit else (scale_invariant(loss),)), *identities),
        detached=detached,
        empty=lambda: (torch.zeros(0, 4), torch.zeros(0, 4)),
        required=required or {},
    )


CASES = (
    box_case(
        "iou_loss",
        per_row(iou_formula),
        Identity("touching boxes cost 1", lambda: losses.iou_loss(*TOUCHING, mode="linear"), lambda: 1.0),
        options=({}, {"mode": "linear"}, {"mode": "square"}),
    ),
    box_case(
        "giou_loss",
        per_row(giou_formula),
        Identity("touching boxes without a gap cost 1", lambda: losses.giou_loss(*TOUCHING), lambda: 1.0),
        Identity(
            "a doubly inverted box costs at least 1",
            lambda: losses.giou_loss(boxes((5, 5, 1, 1)), boxes((1, 1, 5, 5))).clamp(max=1),
            lambda: 1.0,
        ),
    ),
    box_case(
        "diou_loss",
        per_row(diou_formula),
        Identity("an object in the corner", lambda: losses.diou_loss(LARGE, CORNER), lambda: 0.8125),
        Identity("an object in the middle", lambda: losses.diou_loss(LARGE, MIDDLE), lambda: 0.75),
        Identity("GIoU cannot tell them apart", lambda: losses.giou_loss(LARGE, CORNER), lambda: 0.75),
    ),
    box_case(
        "ciou_loss",
        per_row(ciou_formula),
        Identity(
            "the gate leaves DIoU where boxes overlap little",
            lambda: losses.ciou_loss(boxes((0, 0, 4, 1)), boxes((0, 0, 2, 2)), alpha="gated"),
            lambda: losses.diou_loss(boxes((0, 0, 4, 1)), boxes((0, 0, 2, 2))),
        ),
        options=({}, {"gradient": "unscaled"}, {"alpha": "gated"}),
        detached=True,
    ),
    box_case("eiou_loss", per_row(eiou_formula)),
    box_case(
        "focal_eiou_loss",
        focal_eiou_formula,
        Identity(
            "gamma 0 is EIoU",
            lambda: losses.focal_eiou_loss(*TOUCHING, gamma=0),
            lambda: losses.eiou_loss(*TOUCHING),
        ),
        options=({}, {"gamma": 1.5}, {"normalize_weights": True}),
        detached=True,
    ),
)
