"""Regression losses: oracles from the published formulas and edge inputs."""

import math

import torch

from lossatlas import losses
from tests.conformance.case import Case, Edge, Identity, Pair, per_element


def sample(generator: torch.Generator) -> Pair:
    input = torch.randn(3, 4, generator=generator, dtype=torch.float64) * 2
    return input, torch.randn(3, 4, generator=generator, dtype=torch.float64)


ZEROS = torch.zeros(3, dtype=torch.float64)
ELEMENTWISE_EDGES = (
    Edge("no error", ZEROS, ZEROS),
    Edge("at the threshold", torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64), ZEROS),
    Edge("huge", torch.tensor([6e4, -6e4, 1e4], dtype=torch.float64), ZEROS),
    Edge("tiny", torch.tensor([6e-8, -6e-8, 1e-7], dtype=torch.float64), ZEROS),
)


def smooth_l1(x: float, y: float, beta: float = 1.0) -> float:
    d = abs(x - y)
    return d * d / (2 * beta) if d < beta else d - beta / 2


def balanced_l1(x: float, y: float, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> float:
    # The integral of the published gradient, by Simpson's rule: no closed form is shared with the library.
    b = math.exp(gamma / alpha) - 1
    end = min(abs(x - y), beta)
    steps = 2000
    points = [alpha * math.log(b * (end * k / steps) / beta + 1) for k in range(steps + 1)]
    inner = points[0] + points[-1] + 4 * sum(points[1:-1:2]) + 2 * sum(points[2:-1:2])
    return inner * end / steps / 3 + gamma * (abs(x - y) - end)


OUTLIER = torch.tensor([3.0, -5.0], dtype=torch.float64)

CASES = (
    Case("l1_loss", sample, per_element(lambda x, y: abs(x - y)), ELEMENTWISE_EDGES),
    Case(
        "smooth_l1_loss",
        sample,
        per_element(smooth_l1),
        (
            *ELEMENTWISE_EDGES,
            Edge("small beta", ZEROS, ZEROS + 0.0001, {"beta": 1e-06}),
            Edge("beta 0", torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), ZEROS, {"beta": 0}),
        ),
        options=({}, {"beta": 1 / 9}, {"beta": 2.5}),
        identities=(
            Identity(
                "beta 0 is L1",
                lambda: losses.smooth_l1_loss(OUTLIER, OUTLIER * 0, beta=0),
                lambda: losses.l1_loss(OUTLIER, OUTLIER * 0),
            ),
        ),
    ),
    Case(
        "balanced_l1_loss",
        sample,
        per_element(balanced_l1),
        ELEMENTWISE_EDGES,
        options=({}, {"beta": 0.5}, {"alpha": 0.8, "gamma": 2.0, "beta": 2.0}),
        identities=(
            # Constants of the paper's defaults: the value at |x| = 1 and the offset beyond it.
            Identity(
                "value at 1 and slope 1.5 beyond",
                lambda: losses.balanced_l1_loss(OUTLIER.abs(), OUTLIER * 0, reduction="none"),
                lambda: 1.5 * OUTLIER.abs() - 0.4214064553,
            ),
        ),
    ),
)
