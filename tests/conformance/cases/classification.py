"""Classification losses: oracles from the published formulas and edge inputs."""

import math
from typing import Any

import numpy as np
import torch

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair, per_element


def sample_binary(generator: torch.Generator) -> Pair:
    input = torch.randn(3, 4, generator=generator, dtype=torch.float64) * 3
    return input, (torch.rand(3, 4, generator=generator) < 0.4).double()


def sample_quality(generator: torch.Generator) -> Pair:
    input, target = sample_binary(generator)
    return input, target * torch.rand(3, 4, generator=generator, dtype=torch.float64)


def sample_classes(generator: torch.Generator) -> Pair:
    input = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64) * 3
    return input, torch.randint(0, 5, (2, 3), generator=generator)


HUGE = torch.tensor([1e4, -1e4, 1e4, -1e4, 0.0, 0.0], dtype=torch.float64)
SIDES = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
BINARY_EDGES = (
    Edge("logits of 1e4", HUGE, SIDES),
    Edge("saturated", HUGE / 500, SIDES),
    Edge("integer target", HUGE, SIDES.long()),
    Edge("boolean target", HUGE, SIDES.bool()),
)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > -30 else x - math.log1p(math.exp(x))


def binary_cross_entropy(
    x: float, y: float, label_smoothing: float = 0.0, pos_weight: torch.Tensor | None = None
) -> float:
    y = y * (1 - label_smoothing) + label_smoothing / 2
    factor = 1.0 if pos_weight is None else float(pos_weight)
    return -(factor * y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x))


def sigmoid_focal(x: float, y: float, alpha: float | None = 0.25, gamma: float = 2.0) -> float:
    p = 1 / (1 + math.exp(-x))
    p_t = p if y == 1 else 1 - p
    alpha_t = 1.0 if alpha is None else alpha if y == 1 else 1 - alpha
    return float(-alpha_t * (1 - p_t) ** gamma * math.log(p_t))


def quality_focal(x: float, y: float, beta: float = 2.0) -> float:
    return float(abs(y - 1 / (1 + math.exp(-x))) ** beta * binary_cross_entropy(x, y))


def cross_entropy(
    input: Array,
    target: Array,
    frozen: Array,
    label_smoothing: float = 0.0,
    class_weight: torch.Tensor | None = None,
) -> Array:
    classes = input.shape[1]
    weights = np.ones(classes) if class_weight is None else class_weight.double().numpy()
    loss = np.zeros((input.shape[0], *input.shape[2:]))
    for index in np.ndindex(loss.shape):
        logits = input[index[0], :, *index[1:]]
        log_p = [z - math.log(sum(math.exp(other - max(logits)) for other in logits)) - max(logits) for z in logits]
        for c in range(classes):
            hard = float(target[index] == c) if target.ndim < input.ndim else target[index[0], c, *index[1:]]
            loss[index] -= weights[c] * (hard * (1 - label_smoothing) + label_smoothing / classes) * log_p[c]
    return loss


def class_edges() -> tuple[Edge, ...]:
    logits = torch.zeros(2, 3, dtype=torch.float64)
    logits[0, 1], logits[1, 2] = 1e4, -1e4
    index = torch.tensor([0, 2])
    return (
        Edge("logits of 1e4", logits, index),
        Edge("logits of 1e4, smoothed", logits, index, {"label_smoothing": 0.1}),
        Edge("probabilities", logits, torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]], dtype=torch.float64)),
        Edge("all ignored", logits, torch.tensor([-100, -100])),
        Edge("one class", logits[:, :1], torch.zeros(2, dtype=torch.long)),
    )


X, Y = HUGE / 2000, SIDES
WEIGHTS: dict[str, Any] = {"class_weight": torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0]), "label_smoothing": 0.1}

CASES = (
    Case(
        "binary_cross_entropy_with_logits",
        sample_binary,
        per_element(binary_cross_entropy),
        BINARY_EDGES,
        options=({}, {"label_smoothing": 0.2}, {"pos_weight": torch.tensor(3.0)}),
    ),
    Case(
        "cross_entropy",
        sample_classes,
        cross_entropy,
        class_edges(),
        options=({}, WEIGHTS),
        identities=(
            Identity(
                "one-hot probabilities are indices",
                lambda: losses.cross_entropy(X.view(2, 3), torch.eye(3).double()[:2], label_smoothing=0.1),
                lambda: losses.cross_entropy(X.view(2, 3), torch.tensor([0, 1]), label_smoothing=0.1),
            ),
            Identity(
                "a vector is one sample",
                lambda: losses.cross_entropy(X, torch.tensor(2)),
                lambda: losses.cross_entropy(X[None], torch.tensor([2])),
            ),
        ),
        empty=lambda: (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ),
    Case(
        "sigmoid_focal_loss",
        sample_binary,
        per_element(sigmoid_focal),
        BINARY_EDGES + tuple(Edge(f"gamma {g}", HUGE, SIDES, {"gamma": g}) for g in (0.0, 0.5, 1.5)),
        options=({}, {"gamma": 0.5}, {"alpha": None, "gamma": 5.0}, {"alpha": 0.75, "gamma": 0}),
        identities=(
            Identity(
                "gamma 0 without alpha is cross entropy",
                lambda: losses.sigmoid_focal_loss(X, Y, alpha=None, gamma=0),
                lambda: losses.binary_cross_entropy_with_logits(X, Y),
            ),
            # The paper's own numbers (section 3.2): with gamma 2 an example of pt 0.9 counts 100 times less.
            Identity(
                "100 times less at pt = 0.9",
                lambda: (
                    losses.cross_entropy(torch.tensor([[0.9, 0.1]], dtype=torch.float64).log(), torch.tensor([0]))
                    / losses.sigmoid_focal_loss(
                        torch.tensor([0.9], dtype=torch.float64).logit(), torch.ones(1), alpha=None
                    )
                ),
                lambda: 100.0,
            ),
        ),
    ),
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
)
