"""Losses for rare classes and rare gradients: oracles from the published formulas and edge inputs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair
from tests.conformance.cases.classification import (
    BINARY_EDGES,
    HUGE,
    SIDES,
    X,
    Y,
    binary_cross_entropy,
    index_edges,
    log_sigmoid,
    sample_binary,
    sample_classes,
    softmax,
)


def balanced(input: Array, target: Array, frozen: Array, alpha: float | None = None, per_image: bool = False) -> Array:
    loss = np.zeros(input.shape)
    for index in np.ndindex(input.shape):
        among = target[index[0]] if per_image else target
        share = float((among == 0).sum()) / among.size if alpha is None else alpha
        x = float(input[index])
        loss[index] = -share * log_sigmoid(x) if target[index] == 1 else -(1 - share) * log_sigmoid(-x)
    return loss


def seesaw(
    input: Array,
    target: Array,
    frozen: Array,
    counts: torch.Tensor | None = None,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
) -> Array:
    classes = input.shape[1]
    number = [1.0] * classes if counts is None else [max(float(n), 1.0) for n in counts]
    loss = np.zeros(target.shape)
    for index in np.ndindex(target.shape):
        z = input[index[0], :, *index[1:]].tolist()
        s = softmax(frozen[index[0], :, *index[1:]].tolist())
        t = int(target[index])
        below = math.exp(z[t])
        for j in range(classes):
            if j != t:
                mitigation = min(1.0, (number[j] / number[t]) ** p)
                compensation = max(1.0, (s[j] / max(s[t], eps)) ** q)
                below += mitigation * compensation * math.exp(z[j])
        loss[index] = math.log(below) - z[t]
    return loss


def equalized(
    input: Array,
    target: Array,
    frozen: Array,
    ratios: torch.Tensor | None = None,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    scale: float = 8.0,
) -> Array:
    loss = np.zeros(input.shape)
    for index in np.ndindex(input.shape):
        ratio = 1.0 if ratios is None else min(max(float(ratios[index[-1]]), 0.0), 1.0)
        focus = gamma + scale * (1 - ratio)
        p = 1 / (1 + math.exp(-input[index]))
        p_t, alpha_t = (p, alpha) if target[index] == 1 else (1 - p, None if alpha is None else 1 - alpha)
        factor = (1.0 if alpha_t is None else alpha_t) * focus / gamma
        loss[index] = -factor * (1 - p_t) ** focus * math.log(p_t)
    return loss


def harmony(norm: Sequence[float], bins: int, normalization: str, counts: torch.Tensor | None) -> list[float]:
    """Return N / (M R) of each element, by comparison with the edges of the bins."""
    edges = [j / bins for j in range(bins)]
    member = [max(j for j in range(bins) if edges[j] <= g) for g in norm]
    here = [member.count(j) for j in range(bins)]
    number = [float(n) for n in (here if counts is None else counts.tolist())]
    parts = bins if normalization == "paper" else sum(n > 0 for n in here)
    return [len(norm) / (parts * (number[j] if number[j] > 0 else 1.0)) for j in member]


def harmonized_classification(
    input: Array,
    target: Array,
    frozen: Array,
    bins: int = 30,
    normalization: str = "paper",
    counts: torch.Tensor | None = None,
) -> Array:
    norm = [abs(1 / (1 + math.exp(-x)) - y) for x, y in zip(frozen.flat, target.flat, strict=True)]
    plain = [binary_cross_entropy(x, y) for x, y in zip(input.flat, target.flat, strict=True)]
    return np.multiply(harmony(norm, bins, normalization, counts), plain).reshape(input.shape)


def harmonized_regression(
    input: Array,
    target: Array,
    frozen: Array,
    mu: float = 0.02,
    bins: int = 10,
    normalization: str = "paper",
    counts: torch.Tensor | None = None,
) -> Array:
    norm = [abs(d) / math.sqrt(d * d + mu * mu) for d in (frozen - target).flat]
    plain = [math.sqrt(d * d + mu * mu) - mu for d in (input - target).flat]
    return np.multiply(harmony(norm, bins, normalization, counts), plain).reshape(input.shape)


def sample_offsets(generator: torch.Generator) -> Pair:
    input = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    return input * torch.tensor([0.003, 0.02, 0.1, 1.0]), torch.zeros(4, 4, dtype=torch.float64)


def spread(bins: int) -> torch.Tensor:
    """Gradient norms of which one lies in the middle of each bin."""
    return (torch.arange(bins, dtype=torch.float64) + 0.5) / bins


COUNTS: dict[str, Any] = {"counts": torch.tensor([1000, 0, 10, 3, 1])}
AVERAGED: dict[str, Any] = {"bins": 4, "counts": torch.tensor([4.5, 0.25, 0.0, 7.0])}
LOGITS, INDEX = torch.tensor([[0.0, 1e4, 0.0], [0.0, 0.0, -1e4]], dtype=torch.float64), torch.tensor([0, 2])
ZEROS = torch.zeros(6, dtype=torch.float64)
OFFSETS = torch.tensor([0.0, 6e-8, -0.02, 1.0, 6e4, -6e4], dtype=torch.float64)
NORMS = spread(30)


CASES = (
    Case(
        "balanced_binary_cross_entropy_with_logits",
        sample_binary,
        balanced,
        (
            *BINARY_EDGES,
            Edge("only negatives", HUGE, SIDES * 0),
            Edge("only positives", HUGE, SIDES * 0 + 1),
            Edge("an image of negatives", HUGE.view(2, 3), SIDES.view(2, 3) * ZEROS.view(2, 3), {"per_image": True}),
            Edge(
                "all ignored, per image", HUGE.view(2, 3), HUGE.view(2, 3) * 0, {"per_image": True, "ignore_index": 0}
            ),
        ),
        options=({}, {"per_image": True}, {"alpha": 0.75}),
        identities=(
            Identity(
                "alpha 1/2 is half of cross entropy",
                lambda: losses.balanced_binary_cross_entropy_with_logits(X, Y, alpha=0.5),
                lambda: losses.binary_cross_entropy_with_logits(X, Y) / 2,
            ),
            Identity(
                "positives and negatives weigh the same",
                lambda: losses.balanced_binary_cross_entropy_with_logits(
                    torch.zeros(10).double(), torch.arange(10) < 2, reduction="sum"
                ),
                lambda: 2 * 2 * 0.8 * math.log(2),
            ),
            Identity(
                "each image is a batch of its own",
                lambda: losses.balanced_binary_cross_entropy_with_logits(
                    X.view(2, 3), Y.view(2, 3), per_image=True, reduction="none"
                )[0],
                lambda: losses.balanced_binary_cross_entropy_with_logits(X[:3], Y[:3], reduction="none"),
            ),
        ),
    ),
    Case(
        "seesaw_loss",
        sample_classes,
        seesaw,
        index_edges(LOGITS, INDEX) + index_edges(LOGITS[:, :1], INDEX * 0, counts=torch.tensor([0]), q=0.0)[:1],
        options=({}, COUNTS, COUNTS | {"p": 2.0, "q": 0.5, "eps": 0.5}),
        identities=(
            Identity(
                "without mitigation and compensation it is cross entropy",
                lambda: losses.seesaw_loss(LOGITS / 1e4, INDEX, counts=torch.tensor([1, 9, 5]), p=0, q=0),
                lambda: losses.cross_entropy(LOGITS / 1e4, INDEX),
            ),
            Identity(
                "equal counts do not mitigate",
                lambda: losses.seesaw_loss(LOGITS / 1e4, INDEX, counts=torch.tensor([7, 7, 7]), q=0),
                lambda: losses.cross_entropy(LOGITS / 1e4, INDEX),
            ),
        ),
        detached=True,
        empty=lambda: (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ),
    Case(
        "equalized_focal_loss",
        sample_binary,
        equalized,
        (
            *BINARY_EDGES,
            Edge("no positives so far", HUGE, SIDES, {"ratios": torch.zeros(6)}),
            Edge("gamma 0.1", HUGE, SIDES, {"gamma": 0.1, "ratios": SIDES}),
        ),
        options=(
            {},
            {"ratios": torch.tensor([0.0, 0.3, 0.9, 5.0])},
            {"ratios": torch.tensor([0.0, 0.3, 0.9, 1.0]), "alpha": None, "gamma": 0.5, "scale": 4.0},
        ),
        identities=(
            Identity(
                "balanced classes have the focal loss",
                lambda: losses.equalized_focal_loss(X, Y, ratios=torch.ones(6)),
                lambda: losses.sigmoid_focal_loss(X, Y),
            ),
            Identity(
                "without scale it is the focal loss",
                lambda: losses.equalized_focal_loss(X, Y, ratios=torch.zeros(6), scale=0),
                lambda: losses.sigmoid_focal_loss(X, Y),
            ),
        ),
    ),
    Case(
        "ghmc_loss",
        sample_binary,
        harmonized_classification,
        (
            *BINARY_EDGES,
            Edge("all ignored", HUGE, HUGE * 0, {"ignore_index": 0, "normalization": "reference"}),
            Edge("an average of nothing", HUGE, SIDES, {"counts": torch.zeros(30)}),
        ),
        options=({}, {"bins": 5, "normalization": "reference"}, AVERAGED),
        identities=(
            # The paper: gradients of uniform density are left as they are.
            Identity(
                "uniform gradients leave cross entropy",
                lambda: losses.ghmc_loss(NORMS.logit(), NORMS * 0, reduction="none"),
                lambda: losses.binary_cross_entropy_with_logits(NORMS.logit(), NORMS * 0, reduction="none"),
            ),
            Identity(
                "one bin is cross entropy",
                lambda: losses.ghmc_loss(X, Y, bins=1),
                lambda: losses.binary_cross_entropy_with_logits(X, Y),
            ),
        ),
    ),
    Case(
        "ghmr_loss",
        sample_offsets,
        harmonized_regression,
        (
            Edge("from none to huge", OFFSETS, ZEROS),
            Edge("no error", ZEROS, ZEROS, {"normalization": "reference"}),
            Edge("an average of nothing", OFFSETS, ZEROS, {"counts": torch.zeros(10)}),
        ),
        options=({}, {"mu": 0.5, "bins": 5, "normalization": "reference"}, AVERAGED),
        identities=(
            Identity(
                "uniform gradients leave the smooth absolute error",
                lambda: losses.ghmr_loss(0.02 * NORMS / (1 - NORMS**2).sqrt(), NORMS * 0, bins=30, reduction="none"),
                lambda: 0.02 / (1 - NORMS**2).sqrt() - 0.02,
            ),
        ),
    ),
)
