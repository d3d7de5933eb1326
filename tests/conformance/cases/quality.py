"""Focal losses of numbers: oracles from the published formulas and edge inputs."""

import math

import numpy as np
import torch

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair, per_element
from tests.conformance.cases.classification import (
    BINARY_EDGES,
    HUGE,
    SIDES,
    X,
    Y,
    binary_cross_entropy,
    log_sigmoid,
    sample_quality,
    softmax,
)


def quality_focal(x: float, y: float, beta: float = 2.0) -> float:
    return float(abs(y - 1 / (1 + math.exp(-x))) ** beta * binary_cross_entropy(x, y))


def varifocal(x: float, q: float, alpha: float = 0.75, gamma: float = 2.0) -> float:
    if q > 0:
        return q * binary_cross_entropy(x, q)
    return float(-alpha * (1 / (1 + math.exp(-x))) ** gamma * log_sigmoid(-x))


def gaussian_focal(x: float, y: float, alpha: float = 2.0, beta: float = 4.0) -> float:
    p = 1 / (1 + math.exp(-x))
    if y == 1:
        return float(-((1 - p) ** alpha) * math.log(p))
    return float(-((1 - y) ** beta) * p**alpha * math.log(1 - p))


def distribution_focal(input: Array, target: Array, frozen: Array) -> Array:
    loss = np.zeros(target.shape)
    last = input.shape[-1] - 1
    for index in np.ndindex(target.shape):
        y = min(max(float(target[index]), 0.0), last)
        s = softmax(input[index].tolist())
        left = min(math.floor(y), last - 1)
        loss[index] = -((left + 1 - y) * math.log(s[left]) + (y - left) * math.log(s[left + 1]))
    return loss


def sample_heatmap(generator: torch.Generator) -> Pair:
    input = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) * 2 - 1
    target = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64) ** 2
    target[0, 1, 2] = target[1, 0, 0] = 1
    return input, target


def sample_bins(generator: torch.Generator) -> Pair:
    input = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64) * 2
    return input, torch.rand(2, 3, generator=generator, dtype=torch.float64) * 6 - 0.5


HEIGHTS = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.5, 0.999], dtype=torch.float64)
HEAT = torch.tensor([1.0, 0.8, 0.2, 0.0, 1.0, 0.5], dtype=torch.float64)
BIN_LOGITS = torch.stack((HUGE, HUGE.flip(0), HUGE * 0))
NUMBERS = torch.tensor([0.0, 5.0, 2.5], dtype=torch.float64)
BEST = torch.tensor([[0.0, 0.25, 0.75, 0.0]], dtype=torch.float64)

CASES = (
    Case(
        "quality_focal_loss",
        sample_quality,
        per_element(quality_focal),
        (
            *BINARY_EDGES,
            Edge("exact quality", torch.zeros(3).double(), torch.full((3,), 0.5).double()),
            Edge("exact quality, beta 0.5", torch.zeros(3).double(), torch.full((3,), 0.5).double(), {"beta": 0.5}),
            Edge("beta 1.5", HUGE, SIDES, {"beta": 1.5}),
        ),
        options=({}, {"beta": 1.0}, {"beta": 2.5}),
        identities=(
            Identity(
                "0/1 quality is focal loss",
                lambda: losses.quality_focal_loss(X, Y),
                lambda: losses.sigmoid_focal_loss(X, Y, alpha=None),
            ),
            Identity(
                "beta 0 is cross entropy",
                lambda: losses.quality_focal_loss(X, Y * 0.3, beta=0),
                lambda: losses.binary_cross_entropy_with_logits(X, Y * 0.3),
            ),
        ),
    ),
    Case(
        "varifocal_loss",
        sample_quality,
        per_element(varifocal),
        (*BINARY_EDGES, *(Edge(f"gamma {g}", HUGE, SIDES * 0.3, {"gamma": g}) for g in (0.0, 0.5, 1.5))),
        options=({}, {"alpha": 1.0, "gamma": 0.5}),
        identities=(
            Identity(
                "quality 1 is cross entropy",
                lambda: losses.varifocal_loss(X, X * 0 + 1),
                lambda: losses.binary_cross_entropy_with_logits(X, X * 0 + 1),
            ),
            Identity(
                "quality 0 is focal loss with its alpha on the negatives",
                lambda: losses.varifocal_loss(X, X * 0),
                lambda: losses.sigmoid_focal_loss(X, X * 0, alpha=0.25),
            ),
        ),
    ),
    Case(
        "gaussian_focal_loss",
        sample_heatmap,
        per_element(gaussian_focal),
        (
            Edge("logits of 1e4", HUGE, HEIGHTS),
            Edge("fractional exponents", HUGE, HEIGHTS, {"alpha": 0.5, "beta": 0.5}),
            Edge("no objects", HUGE, HEIGHTS * 0),
            Edge("integer target", HUGE, SIDES.long()),
        ),
        options=({}, {"alpha": 0.5, "beta": 1.5}, {"alpha": 0, "beta": 0}),
        identities=(
            Identity(
                "without Gaussians it is focal loss",
                lambda: losses.gaussian_focal_loss(X, Y),
                lambda: losses.sigmoid_focal_loss(X, Y, alpha=None),
            ),
            Identity(
                "the sum by the number of objects",
                lambda: losses.gaussian_focal_loss(X, HEAT, normalizer=(HEAT == 1).sum()),
                lambda: losses.gaussian_focal_loss(X, HEAT, reduction="sum") / 2,
            ),
            Identity(
                "no objects divide by one",
                lambda: losses.gaussian_focal_loss(X, HEAT / 2, normalizer=(HEAT / 2 == 1).sum()),
                lambda: losses.gaussian_focal_loss(X, HEAT / 2, reduction="sum"),
            ),
        ),
    ),
    Case(
        "distribution_focal_loss",
        sample_bins,
        distribution_focal,
        (
            Edge("logits of 1e4", BIN_LOGITS, NUMBERS),
            Edge("outside", BIN_LOGITS, NUMBERS * 100 - 1),
            Edge("whole numbers", BIN_LOGITS, NUMBERS.long()),
            Edge("two bins", BIN_LOGITS[:, :2], NUMBERS),
        ),
        identities=(
            Identity(
                "a whole number is cross entropy",
                lambda: losses.distribution_focal_loss(BIN_LOGITS / 1000, torch.tensor([0, 5, 2])),
                lambda: losses.cross_entropy(BIN_LOGITS / 1000, torch.tensor([0, 5, 2])),
            ),
            # The distribution that the paper derives, s_1 = 2 - y and s_2 = y - 1, reaches the entropy of the shares.
            Identity(
                "least at the distribution whose mean is the number",
                lambda: losses.distribution_focal_loss(
                    (BEST + 1e-300).log(), torch.tensor([1.75], dtype=torch.float64)
                ),
                lambda: losses.entropy(BEST),
            ),
            Identity(
                "what lies outside is the first or the last bin",
                lambda: losses.distribution_focal_loss(BIN_LOGITS / 1000, NUMBERS * 100 - 1, reduction="none"),
                lambda: losses.cross_entropy(BIN_LOGITS / 1000, torch.tensor([0, 5, 5]), reduction="none"),
            ),
        ),
        empty=lambda: (torch.zeros(0, 17), torch.zeros(0)),
    ),
)
