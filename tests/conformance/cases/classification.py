"""Cross entropies: oracles from the published formulas and edge inputs."""

import math
from collections.abc import Callable, Sequence
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


def binary_cross_entropy_of_probability(p: float, y: float, **options: Any) -> float:
    return binary_cross_entropy(math.log(p / (1 - p)), y, **options)


def softmax(logits: Sequence[float]) -> list[float]:
    powers = [math.exp(z - max(logits)) for z in logits]
    return [power / sum(powers) for power in powers]


def over_classes(
    cost: Callable[..., float], probabilities: Callable[[Sequence[float]], list[float]] = softmax
) -> Callable[..., Array]:
    """Apply ``cost(p, c, **options)``, what class c costs if it is the right one, to logits (N, C, *spatial)."""

    def oracle(
        input: Array,
        target: Array,
        frozen: Array,
        label_smoothing: float = 0.0,
        class_weight: torch.Tensor | None = None,
        **options: Any,
    ) -> Array:
        classes = input.shape[1]
        weights = np.ones(classes) if class_weight is None else class_weight.double().numpy()
        loss = np.zeros((input.shape[0], *input.shape[2:]))
        for index in np.ndindex(loss.shape):
            p = probabilities(input[index[0], :, *index[1:]].tolist())
            for c in range(classes):
                hard = float(target[index] == c) if target.ndim < input.ndim else target[index[0], c, *index[1:]]
                share = hard * (1 - label_smoothing) + label_smoothing / classes
                loss[index] += weights[c] * share * cost(p[c], c, **options)
        return loss

    return oracle


def class_edges(**options: Any) -> tuple[Edge, ...]:
    logits = torch.zeros(2, 3, dtype=torch.float64)
    logits[0, 1], logits[1, 2] = 1e4, -1e4
    index = torch.tensor([0, 2])
    soft = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    return (
        *index_edges(logits, index, **options),
        Edge("logits of 1e4, smoothed", logits, index, {"label_smoothing": 0.1} | options),
        Edge("probabilities", logits, soft, options),
    )


def index_edges(logits: torch.Tensor, index: torch.Tensor, **options: Any) -> tuple[Edge, ...]:
    return (
        Edge("logits of 1e4", logits, index, options),
        Edge("all ignored", logits, torch.full_like(index, -100), options),
        Edge("one class", logits[:, :1], torch.zeros_like(index), options),
        Edge("equal logits", torch.zeros_like(logits), index, options),
    )


X, Y = HUGE / 2000, SIDES
WEIGHTS: dict[str, Any] = {"class_weight": torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0]), "label_smoothing": 0.1}

PROBABILITIES = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.5, 6e-8, 1e-3], dtype=torch.float64)
OUTCOMES = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.3, 1.0, 1.0], dtype=torch.float64)
CERTAIN = torch.eye(3, dtype=torch.float64).log()


def sample_probability(generator: torch.Generator) -> Pair:
    input, target = sample_quality(generator)
    return (input / 2).sigmoid(), target


def sample_log_probabilities(generator: torch.Generator) -> Pair:
    input, target = sample_classes(generator)
    target[0, 0] = 0  # of one element only its own log-probability is read
    return input.log_softmax(1), target


CASES = (
    Case(
        "binary_cross_entropy",
        sample_probability,
        per_element(binary_cross_entropy_of_probability),
        (
            Edge("0 and 1", PROBABILITIES, OUTCOMES),
            Edge("0 and 1, smoothed", PROBABILITIES, OUTCOMES, {"label_smoothing": 0.1}),
            Edge("boolean target", PROBABILITIES, OUTCOMES > 0.5, {"pos_weight": torch.tensor(3.0)}),
        ),
        options=({}, {"label_smoothing": 0.2}, {"pos_weight": torch.tensor(3.0)}),
        identities=(
            Identity(
                "an impossible outcome costs 100",
                lambda: losses.binary_cross_entropy(PROBABILITIES[[0, 3]], OUTCOMES[[0, 3]], reduction="none"),
                lambda: 100.0,
            ),
            Identity(
                "a certain one nothing",
                lambda: losses.binary_cross_entropy(PROBABILITIES[[1, 2]], OUTCOMES[[1, 2]], reduction="none"),
                lambda: 0.0,
            ),
        ),
    ),
    Case(
        "nll_loss",
        sample_log_probabilities,
        over_classes(lambda p, c: -math.log(p), lambda x: [math.exp(z) for z in x]),
        class_edges(),
        options=({}, WEIGHTS),
        identities=(
            Identity(
                "cross entropy of log-probabilities",
                lambda: losses.nll_loss(X.view(2, 3).log_softmax(1), torch.tensor([2, 0])),
                lambda: losses.cross_entropy(X.view(2, 3), torch.tensor([2, 0])),
            ),
            Identity(
                "0 ln 0 is 0",
                lambda: losses.nll_loss(CERTAIN, CERTAIN.exp(), reduction="none"),
                lambda: 0.0,
            ),
        ),
        empty=lambda: (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ),
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
        over_classes(lambda p, c: -math.log(p)),
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
)
