"""Later box losses: oracles from the published formulas in plain Python, and the numbers that their papers print."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Identity, per_row
from tests.conformance.cases.boxes import (
    Row,
    aspect_term,
    box_case,
    boxes,
    ciou_formula,
    diou_formula,
    distance_term,
    eiou_formula,
    enclosing,
    giou_formula,
    iou,
    iou_formula,
    sample,
    size,
    union,
)

FIRST, SECOND = sample(torch.Generator().manual_seed(4))


def offset(b: Row, t: Row) -> tuple[float, float]:
    return (b[0] + b[2] - t[0] - t[2]) / 2, (b[1] + b[3] - t[1] - t[3]) / 2


def siou_formula(b: Row, t: Row, frozen: Row, theta: float = 4.0) -> float:
    dx, dy = offset(b, t)
    sine = min(abs(dx), abs(dy)) / math.hypot(dx, dy)
    angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
    cw, ch = enclosing(b, t)
    distance = sum(1 - math.exp(-(2 - angle) * (d / c) ** 2) for d, c in ((dx, cw), (dy, ch)))
    shape = sum((1 - math.exp(-abs(s - o) / max(s, o))) ** theta for s, o in zip(size(b), size(t), strict=True))
    return float(1 - iou(b, t) + (distance + shape) / 2)


def shape_iou_formula(b: Row, t: Row, frozen: Row, scale: float = 0.0) -> float:
    (w, h), (tw, th), (dx, dy) = size(b), size(t), offset(b, t)
    ww, hh = (float(2 * side**scale / (tw**scale + th**scale)) for side in (tw, th))
    cw, ch = enclosing(b, t)
    distance = (hh * dx**2 + ww * dy**2) / (cw**2 + ch**2)
    omegas = hh * abs(w - tw) / max(w, tw), ww * abs(h - th) / max(h, th)
    return 1 - iou(b, t) + distance + sum((1 - math.exp(-omega)) ** 4 for omega in omegas) / 2


def mpdiou_formula(b: Row, t: Row, frozen: Row, image_size: tuple[int, int] = (24, 32)) -> float:
    top_left = (b[0] - t[0]) ** 2 + (b[1] - t[1]) ** 2
    bottom_right = (b[2] - t[2]) ** 2 + (b[3] - t[3]) ** 2
    return 1 - iou(b, t) + (top_left + bottom_right) / (image_size[0] ** 2 + image_size[1] ** 2)


def powerful_iou_formula(b: Row, t: Row, frozen: Row, version: int = 1, lambd: float = 1.3) -> float:
    tw, th = size(t)
    gaps = [abs(edge - other) for edge, other in zip(b, t, strict=True)]
    penalty = (gaps[0] / tw + gaps[1] / th + gaps[2] / tw + gaps[3] / th) / 4
    loss = 2 - iou(b, t) - math.exp(-(penalty**2))
    q = lambd * math.exp(-penalty)
    return loss if version == 1 else 3 * q * math.exp(-(q**2)) * loss


def nwd_formula(b: Row, t: Row, frozen: Row, constant: float = 12.8) -> float:
    (w, h), (tw, th), (dx, dy) = size(b), size(t), offset(b, t)
    return 1 - math.exp(-math.sqrt(dx**2 + dy**2 + ((w - tw) / 2) ** 2 + ((h - th) / 2) ** 2) / constant)


def bounded_iou_formula(b: Row, t: Row, frozen: Row, beta: float = 0.2) -> float:
    bounds = [
        max(0.0, (side - 2 * abs(d)) / (side + 2 * abs(d))) for d, side in zip(offset(b, t), size(t), strict=True)
    ]
    bounds += [min(side / other, other / side) for side, other in zip(size(b), size(t), strict=True)]
    return sum((1 - x) ** 2 / (2 * beta) if 1 - x < beta else 1 - x - beta / 2 for x in bounds)


def alpha_iou_formula(b: Row, t: Row, frozen: Row, alpha: float = 3.0, base: str = "iou") -> float:
    loss = 1 - iou(b, t) ** alpha
    c, v = math.prod(enclosing(b, t)), aspect_term(frozen, t)
    beta = v / (1 - iou(frozen, t) + v)
    penalties = {
        "iou": [],
        "giou": [(c - union(b, t)) / c],
        "diou": [distance_term(b, t)],
        "ciou": [distance_term(b, t), beta * aspect_term(b, t)],
    }
    return float(loss + sum(penalty**alpha for penalty in penalties[base]))


def wiou_formula(b: Row, t: Row, frozen: Row) -> float:
    dx, dy = offset(b, t)
    diagonal2 = sum(side**2 for side in enclosing(frozen, t))
    return math.exp((dx**2 + dy**2) / diagonal2) * (1 - iou(b, t))


BASES: dict[str, Callable[..., float]] = {
    "iou": lambda b, t, f: iou_formula(b, t, f, mode="linear"),
    "giou": giou_formula,
    "diou": diou_formula,
    "ciou": ciou_formula,
    "eiou": eiou_formula,
    "siou": siou_formula,
    "shape_iou": shape_iou_formula,
    "wiou": wiou_formula,
}


def scaled(b: Row, ratio: float) -> Row:
    (w, h), cx, cy = size(b), (b[0] + b[2]) / 2, (b[1] + b[3]) / 2
    return [cx - ratio * w / 2, cy - ratio * h / 2, cx + ratio * w / 2, cy + ratio * h / 2]


def inner_iou_formula(b: Row, t: Row, frozen: Row, ratio: float = 0.7, base: str = "iou") -> float:
    return BASES[base](b, t, frozen) + iou(b, t) - iou(scaled(b, ratio), scaled(t, ratio))


def focaler_iou_formula(
    b: Row, t: Row, frozen: Row, lower: float = 0.0, upper: float = 0.95, base: str = "iou"
) -> float:
    focused = min(1.0, max(0.0, (iou(b, t) - lower) / (upper - lower)))
    return BASES[base](b, t, frozen) + iou(b, t) - focused


def printed(name: str, digits: int, value: Callable[[], Tensor], number: float) -> Identity:
    """The number that a paper prints, with the digits it prints."""
    return Identity(name, lambda: value().round(decimals=digits), lambda: number)


def diagonal_shift(side: float, shift: float) -> tuple[Tensor, Tensor]:
    return boxes((0, 0, side, side)), boxes((shift, shift, side + shift, side + shift))


def shifted_iou(side: float, shift: float) -> Tensor:
    return 1 - losses.iou_loss(*diagonal_shift(side, shift), mode="linear")


def shifted_similarity(side: float, shift: float) -> Tensor:
    return 1 - losses.nwd_loss(*diagonal_shift(side, shift))


# The example of the PIoU paper: an anchor that grows although its target is elsewhere.
ANCHOR, GROWN, AWAY = boxes((-2, -1, 2, 1)), boxes((-3, -1.5, 3, 1.5)), boxes((3, 3, 5, 5))


def siou_distance(anchor: Tensor) -> Tensor:
    (w, h), target = (anchor[0, 2:] - anchor[0, :2]).tolist(), 2.0
    shape = sum((1 - math.exp(-abs(side - target) / max(side, target))) ** 4 for side in (w, h))
    return 2 * (losses.siou_loss(anchor, AWAY) - 1) - shape


CASES = (
    box_case(
        "siou_loss",
        per_row(siou_formula),
        # Its rival's paper prints 0.9219 and 0.8531, which the formula gives only with the distance not squared.
        printed("the distance cost falls as the anchor grows", 4, lambda: siou_distance(ANCHOR), 0.6374),
        printed("the distance cost of the grown anchor", 4, lambda: siou_distance(GROWN), 0.5364),
        options=({}, {"theta": 2.5}),
    ),
    box_case(
        "alpha_iou_loss",
        per_row(alpha_iou_formula),
        Identity(
            "alpha 1 is the base",
            lambda: losses.alpha_iou_loss(FIRST, SECOND, alpha=1.0, base="ciou"),
            lambda: losses.ciou_loss(FIRST, SECOND),
        ),
        options=({}, *({"alpha": 1.7, "base": base} for base in ("iou", "giou", "diou", "ciou"))),
    ),
    box_case("wiou_loss", per_row(wiou_formula), detached=True),
    box_case(
        "mpdiou_loss",
        per_row(mpdiou_formula),
        Identity(
            "opposite corners of the image cost 3",
            lambda: losses.mpdiou_loss(boxes((0, 0, 0, 0)), boxes((640, 480, 640, 480)), image_size=(480, 640)),
            lambda: 3.0,
        ),
        options=({}, {"image_size": (5, 40)}),
        required={"image_size": (24, 32)},
        depends_on_unit=True,
    ),
    box_case(
        "inner_iou_loss",
        per_row(inner_iou_formula),
        Identity(
            "ratio 1 is the base",
            lambda: losses.inner_iou_loss(FIRST, SECOND, ratio=1.0, base="siou"),
            lambda: losses.siou_loss(FIRST, SECOND),
        ),
        Identity(
            "the base may be any loss",
            lambda: losses.inner_iou_loss(FIRST, SECOND, ratio=0.8, base=losses.GIoULoss()),
            lambda: losses.inner_iou_loss(FIRST, SECOND, ratio=0.8, base="giou"),
        ),
        options=({}, {"ratio": 1.2, "base": "ciou"}, {"base": "siou"}, {"base": "shape_iou"}),
    ),
    box_case(
        "shape_iou_loss",
        per_row(shape_iou_formula),
        Identity(
            "of a square object no scale matters",
            lambda: losses.shape_iou_loss(FIRST[:1], boxes((0, 0, 3, 3)), scale=5.0),
            lambda: losses.shape_iou_loss(FIRST[:1], boxes((0, 0, 3, 3))),
        ),
        options=({}, {"scale": 1.5}),
    ),
    box_case(
        "focaler_iou_loss",
        per_row(focaler_iou_formula),
        Identity(
            "the whole interval is the base",
            lambda: losses.focaler_iou_loss(FIRST, SECOND, upper=1.0, base="eiou"),
            lambda: losses.eiou_loss(FIRST, SECOND),
        ),
        options=({}, {"lower": 0.3, "upper": 0.8, "base": "diou"}, {"base": "eiou"}, {"base": "wiou"}),
    ),
    box_case(
        "powerful_iou_loss",
        per_row(powerful_iou_formula),
        printed("does not fall as the anchor grows", 4, lambda: losses.powerful_iou_loss(ANCHOR, AWAY) - 1, 0.9817),
        printed("also for the grown anchor", 4, lambda: losses.powerful_iou_loss(GROWN, AWAY) - 1, 0.9817),
        printed("whose GIoU penalty falls from", 4, lambda: losses.giou_loss(ANCHOR, AWAY) - 1, 0.7143),
        printed("whose GIoU penalty falls to", 4, lambda: losses.giou_loss(GROWN, AWAY) - 1, 0.5769),
        printed("whose DIoU penalty falls from", 4, lambda: losses.diou_loss(ANCHOR, AWAY) - 1, 0.3765),
        printed("whose DIoU penalty falls to", 4, lambda: losses.diou_loss(GROWN, AWAY) - 1, 0.3012),
        options=({}, {"version": 2}, {"version": 2, "lambd": 0.8}),
    ),
    box_case(
        "nwd_loss",
        per_row(nwd_formula),
        *(
            printed(f"IoU, {side} pixels shifted by {shift}", 2, partial(shifted_iou, side, shift), number)
            for side, shift, number in ((6, 1, 0.53), (6, 4, 0.06), (36, 1, 0.90), (36, 4, 0.65))
        ),
        *(
            printed(f"{side} pixels shifted by {shift}", 7, partial(shifted_similarity, side, shift), number)
            for side, shift, number in ((6, 1, 0.8953994), (6, 4, 0.6427871), (36, 1, 0.8953994), (36, 4, 0.6427871))
        ),
        options=({}, {"constant": 4.0}),
        depends_on_unit=True,
    ),
    box_case(
        "bounded_iou_loss",
        per_row(bounded_iou_formula),
        Identity(
            "a wrong width alone costs one minus the IoU",
            lambda: losses.bounded_iou_loss(boxes((1, 0, 3, 2)), boxes((0, 0, 4, 2)), beta=0),
            lambda: losses.iou_loss(boxes((1, 0, 3, 2)), boxes((0, 0, 4, 2)), mode="linear"),
        ),
        options=({}, {"beta": 0.6}),
    ),
)
