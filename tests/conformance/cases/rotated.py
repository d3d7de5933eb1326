"""Losses of rotated boxes: oracles from the covariance matrices, and the invariances that the papers name."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair, per_row

Row = list[float]


def boxes(*rows: tuple[float, float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def sample(generator: torch.Generator) -> Pair:
    """Pairs near and far, at all angles to each other."""
    center = 4 * torch.randn(8, 2, generator=generator, dtype=torch.float64)
    sides = 1 + 6 * torch.rand(8, 2, generator=generator, dtype=torch.float64)
    target = torch.cat((center, sides, 7 * torch.rand(8, 1, generator=generator, dtype=torch.float64) - 3.5), dim=1)
    input = target + 0.6 * torch.randn(8, 5, generator=generator, dtype=torch.float64)
    input[0, :2] += 15
    input[1:4, 4] += torch.tensor([1.5, 3.0, -1.0], dtype=torch.float64)
    return input, target


def gaussian(box: Row, divisor: float) -> tuple[Array, Array]:
    cx, cy, w, h, angle = box
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.array([cx, cy]), turn @ np.diag([w**2 / divisor, h**2 / divisor]) @ turn.T


def root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T)


def bounded(distance: float, transform: str, tau: float) -> float:
    distance = {
        "sqrt": math.sqrt(distance),
        "log1p": math.log(1 + distance),
        "log1p_sqrt": math.log(1 + math.sqrt(distance)),
    }[transform]
    return 1 - 1 / (tau + distance)


def gwd_formula(
    b: Row, t: Row, frozen: Row, transform: str = "sqrt", tau: float = 2.0, normalized: bool = False
) -> float:
    (m, s), (tm, ts) = gaussian(b, 4), gaussian(t, 4)
    distance = float((m - tm) @ (m - tm) + np.trace(s + ts - 2 * root(root(s) @ ts @ root(s))))
    if normalized:
        distance /= math.sqrt(b[2] * b[3] * t[2] * t[3])
    return bounded(distance, transform, tau)


def kld_formula(
    b: Row, t: Row, frozen: Row, direction: str = "input_target", transform: str = "sqrt", tau: float = 2.0
) -> float:
    (m, s), (tm, ts) = gaussian(b, 4), gaussian(t, 4)
    if direction == "target_input":
        (m, s), (tm, ts) = (tm, ts), (m, s)
    inverse = np.linalg.inv(ts)
    divergence = (m - tm) @ inverse @ (m - tm) + np.trace(inverse @ s) + math.log(np.linalg.det(ts) / np.linalg.det(s))
    return bounded(float(divergence) / 2 - 1, transform, tau)


def probiou_formula(b: Row, t: Row, frozen: Row, mode: str = "l1") -> float:
    (m, s), (tm, ts) = gaussian(b, 12), gaussian(t, 12)
    mean = (s + ts) / 2
    spread = math.log(np.linalg.det(mean) / math.sqrt(np.linalg.det(s) * np.linalg.det(ts)))
    distance = float((m - tm) @ np.linalg.inv(mean) @ (m - tm)) / 8 + spread / 2
    return distance if mode == "l2" else math.sqrt(1 - math.exp(-distance))


ONE = boxes((3, 4, 6, 2, 0.4), (0, 0, 0.5, 5, -2.0))
FAR = boxes((0, 0, 4, 2, 0.3), (50, -40, 3, 3, 1.0))
SAME = boxes((3, 4, 2, 6, 0.4 + math.pi / 2), (0, 0, 5, 0.5, -2.0 - math.pi / 2))

EDGES = {
    "identical": (ONE, ONE),
    "sides swapped": (ONE, SAME),
    "no width": (boxes((1, 2, 0, 3, 0.2), (0, 0, 0, 3, 0)), boxes((0, 0, 4, 2, 0.3), (0, 0, 4, 2, 0))),
    "no height": (boxes((1, 2, 3, 0, 0.2)), boxes((0, 0, 4, 2, 0.3))),
    "a point": (boxes((1, 2, 0, 0, 0.2)), boxes((0, 0, 4, 2, 0.3))),
    "target without area": (FAR, boxes((0, 0, 0, 0, 0), (0, 0, 3, 0, 1.0))),
    "both points": (boxes((0, 0, 0, 0, 0), (1, 1, 0, 0, 0)), boxes((5, 9, 0, 0, 0.5), (1, 1, 0, 0, 0))),
    "negative sides": (boxes((0, 0, -4, 2, 0.3), (0, 0, -4, -2, 0.3)), boxes((0, 0, 4, 2, 0.3), (1, 0, 4, 2, 0.3))),
    "huge": (
        boxes((0, 0, 6e4, 6e4, 0.5), (6e4, -6e4, 1, 6e4, 0)),
        boxes((3e4, 0, 5e4, 1e4, 1), (-6e4, 6e4, 6e4, 1, 0)),
    ),
    "far away": (FAR, FAR.flip(0) * torch.tensor([100, 100, 1, 1, 1])),
    "squares": (boxes((0, 0, 3, 3, 0.1)), boxes((0, 0, 3, 3, 1.0))),
    "at 45 degrees": (boxes((0, 0, 4, 2, math.pi / 4)), boxes((0, 0, 4, 2, 0))),
    "many turns": (boxes((0, 0, 4, 2, 1e4)), boxes((1, 0, 4, 2, -1e4))),
    "needle": (boxes((0, 0, 1000, 0.01, 0.3)), boxes((0, 0, 1000, 0.01, 0.4))),
    "small fractions": (ONE * torch.tensor([1e-3, 1e-3, 1e-3, 1e-3, 1]), SAME * torch.tensor([1e-3] * 4 + [2])),
}

FIRST, SECOND = sample(torch.Generator().manual_seed(5))
SCALE = torch.tensor([3.0, 3, 3, 3, 1], dtype=torch.float64)
SWAPPED = torch.cat((FIRST[:, :2], FIRST[:, 2:4].flip(1), FIRST[:, 4:] + math.pi / 2), dim=1)
SQUARES = torch.cat((FIRST[:, :2], FIRST[:, 2:3], FIRST[:, 2:3], FIRST[:, 4:]), dim=1)
TURNED = SQUARES + torch.tensor([0, 0, 0, 0, 0.7], dtype=torch.float64)


def wasserstein(input: Tensor, target: Tensor) -> Tensor:
    """W, from the loss with its default τ = 2 and f = √."""
    return 1 / (1 - losses.gwd_loss(input, target, reduction="none")) - 2


def rotated_case(name: str, oracle: Any, options: tuple[dict[str, Any], ...], same: float, *more: Identity) -> Case:
    loss = losses.CATALOG[name].function
    edges = [
        Edge(f"{edge} {' '.join(map(str, choice.values()))}".strip(), input, target, choice)
        for edge, (input, target) in EDGES.items()
        for choice in options
    ]
    identities = (
        Identity("identical boxes cost the least", lambda: loss(FIRST, FIRST, reduction="none"), lambda: same),
        Identity("sides and angle have two names", lambda: loss(SWAPPED, SECOND), lambda: loss(FIRST, SECOND)),
        Identity("a box under its other name is the same", lambda: loss(FIRST, SWAPPED), lambda: same),
        Identity("the angle of a square does not matter", lambda: loss(TURNED, SECOND), lambda: loss(SQUARES, SECOND)),
        *more,
    )
    return Case(
        name,
        sample,
        per_row(oracle),
        tuple(edges),
        options=options,
        identities=identities,
        empty=lambda: (torch.zeros(0, 5), torch.zeros(0, 5)),
    )


def scale_invariant(name: str, **options: Any) -> Identity:
    loss = losses.CATALOG[name].function
    return Identity(
        f"does not depend on the unit {options}".removesuffix(" {}"),
        lambda: loss(FIRST * SCALE, SECOND * SCALE, reduction="none", **options),
        lambda: loss(FIRST, SECOND, reduction="none", **options),
    )


CASES = (
    rotated_case(
        "gwd_loss",
        gwd_formula,
        ({}, {"transform": "log1p"}, {"transform": "log1p_sqrt", "tau": 1.0, "normalized": True}),
        0.5,
        Identity(
            "three times the size is nine times the squared distance",
            lambda: wasserstein(FIRST * SCALE, SECOND * SCALE) ** 2,
            lambda: 9 * wasserstein(FIRST, SECOND) ** 2,
        ),
        scale_invariant("gwd_loss", normalized=True),
    ),
    rotated_case(
        "kld_loss",
        kld_formula,
        ({}, {"direction": "target_input", "transform": "log1p_sqrt"}, {"transform": "log1p", "tau": 1.0}),
        0.5,
        scale_invariant("kld_loss"),
        Identity(
            "the two directions exchange input and target",
            lambda: losses.kld_loss(FIRST, SECOND, direction="target_input"),
            lambda: losses.kld_loss(SECOND, FIRST),
        ),
    ),
    rotated_case(
        "probiou_loss",
        probiou_formula,
        ({}, {"mode": "l2"}),
        0.0,
        scale_invariant("probiou_loss"),
        Identity(
            "l1 is the Hellinger distance of l2",
            lambda: losses.probiou_loss(FIRST, SECOND, reduction="none") ** 2,
            lambda: 1 - (-losses.probiou_loss(FIRST, SECOND, mode="l2", reduction="none")).exp(),
        ),
    ),
)
