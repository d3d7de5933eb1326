"""Robust cross entropies: oracles from the published formulas and edge inputs."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity
from tests.conformance.cases.classification import WEIGHTS, X, class_edges, over_classes, sample_classes


def tempered_log(u: float, t: float) -> float:
    return math.log(u) if t == 1 else (u ** (1 - t) - 1) / (1 - t)


def tempered_exp(x: float, t: float) -> float:
    return math.exp(x) if t == 1 else max(1 + (1 - t) * x, 0) ** (1 / (1 - t))


def tempered_softmax(logits: Sequence[float], t: float) -> list[float]:
    """Find the normalisation by bisection."""
    low, high = max(logits), max(logits) - tempered_log(1 / len(logits), t) + 1
    for _ in range(200):
        middle = (low + high) / 2
        if sum(tempered_exp(z - middle, t) for z in logits) > 1:
            low = middle
        else:
            high = middle
    return [tempered_exp(z - low, t) for z in logits]


def bi_tempered(
    input: Array, target: Array, frozen: Array, t1: float = 0.8, t2: float = 1.2, label_smoothing: float = 0.0
) -> Array:
    classes = input.shape[1]
    loss = np.zeros(target.shape)
    for index in np.ndindex(target.shape):
        p = tempered_softmax(input[index[0], :, *index[1:]].tolist(), t2)
        for c in range(classes):
            y = float(target[index] == c) * (1 - label_smoothing) + label_smoothing / classes
            if y > 0:
                loss[index] += y * (tempered_log(y, t1) - tempered_log(p[c], t1))
            loss[index] -= (y ** (2 - t1) - p[c] ** (2 - t1)) / (2 - t1)
    return loss


LOGITS, INDEX = X.view(2, 3), torch.tensor([2, 0])
OUTLIER = torch.tensor([[0.0, 1e300]], dtype=torch.float64)

CASES = (
    Case(
        "poly_loss",
        sample_classes,
        over_classes(lambda p, c, epsilon=2.0: -math.log(p) + epsilon * (1 - p)),
        (*class_edges(), Edge("epsilon -1", LOGITS * 2000, INDEX, {"epsilon": -1.0})),
        options=({}, {"epsilon": -1.0}, WEIGHTS),
        identities=(
            Identity(
                "epsilon 0 is cross entropy",
                lambda: losses.poly_loss(LOGITS, INDEX, epsilon=0),
                lambda: losses.cross_entropy(LOGITS, INDEX),
            ),
        ),
        empty=lambda: (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ),
    Case(
        "bi_tempered_loss",
        sample_classes,
        bi_tempered,
        (
            *class_edges(),
            *class_edges(t1=0.0, t2=4.0),
            *class_edges(t1=1.0, t2=1.0),
            *class_edges(t1=1.0, t2=1.0001),
        ),
        options=(
            {},
            {"t1": 1.0, "t2": 1.0},
            {"t1": 0.0, "t2": 4.0},
            {"t1": 0.3, "t2": 2.0, "label_smoothing": 0.2},
            {"t1": 1.0, "t2": 1.5},
        ),
        identities=(
            Identity(
                "temperatures of 1 are cross entropy",
                lambda: losses.bi_tempered_loss(LOGITS, INDEX, t1=1, t2=1),
                lambda: losses.cross_entropy(LOGITS, INDEX),
            ),
            Identity(
                "temperatures of 1 are the divergence of probabilities",
                lambda: losses.bi_tempered_loss(LOGITS, LOGITS.roll(1).softmax(1), t1=1, t2=1),
                lambda: losses.kl_divergence(LOGITS.softmax(1), LOGITS.roll(1).softmax(1)),
            ),
            Identity(
                "an outlier costs 1 / (1 - t1)",
                lambda: losses.bi_tempered_loss(OUTLIER, torch.tensor([0]), t1=0.5, t2=1.0),
                lambda: 2.0,
            ),
        ),
        empty=lambda: (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ),
)
