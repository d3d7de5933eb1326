"""Overlap losses of segmentation: oracles from the published formulas, identities and edge inputs."""

import math
from typing import Any

import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Identity
from tests.conformance.dense import binary_edges, by_class, by_image, edges, empty, one_hot, sample, sample_binary

X, INDEX = sample(torch.Generator().manual_seed(11))
B, MASK = sample_binary(torch.Generator().manual_seed(12))
SOFT = X.flip(1).softmax(1)
ABSENT = INDEX.clamp(max=1)
DISTANCE = torch.tensor([[0.0, 1.0, 0.8], [1.0, 0.0, 0.4], [0.8, 0.4, 0.0]], dtype=torch.float64)


def shares(p: Array, g: Array) -> tuple[float, float, float, float]:
    tp = fp = fn = tn = 0.0
    for p_i, g_i in zip(p, g, strict=True):
        tp += p_i * g_i
        fp += p_i * (1 - g_i)
        fn += (1 - p_i) * g_i
        tn += (1 - p_i) * (1 - g_i)
    return tp, fp, fn, tn


def dice(p: Array, g: Array, squared: bool = False, smooth: float = 0.0) -> float:
    power = 2 if squared else 1
    return 1 - (2 * float((p * g).sum()) + smooth) / (float((p**power).sum() + (g**power).sum()) + smooth)


def jaccard(p: Array, g: Array, smooth: float = 0.0) -> float:
    intersection = float((p * g).sum())
    return 1 - (intersection + smooth) / (float(p.sum() + g.sum()) - intersection + smooth)


def tversky(p: Array, g: Array, alpha: float = 0.3, beta: float = 0.7, smooth: float = 0.0) -> float:
    tp, fp, fn, _ = shares(p, g)
    return 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)


def focal_tversky(p: Array, g: Array, gamma: float = 4 / 3, **options: float) -> float:
    return float(tversky(p, g, **options) ** (1 / gamma))


def asymmetric_similarity(p: Array, g: Array, beta: float = 1.5, smooth: float = 0.0) -> float:
    tp, fp, fn, _ = shares(p, g)
    recall_price = beta**2
    return 1 - ((1 + recall_price) * tp + smooth) / ((1 + recall_price) * tp + recall_price * fn + fp + smooth)


def generalized_dice(p: Array, g: Array, power: float = 2.0) -> float:
    weights = [math.pow(float(g_c.sum()), -power) for g_c in g]
    hit = sum(w * float((p_c * g_c).sum()) for w, p_c, g_c in zip(weights, p, g, strict=True))
    size = sum(w * float(p_c.sum() + g_c.sum()) for w, p_c, g_c in zip(weights, p, g, strict=True))
    return 1 - 2 * hit / size


def penalty_generalized_dice(p: Array, g: Array, penalty: float = 2.5, power: float = 2.0) -> float:
    loss = generalized_dice(p, g, power)
    return loss / (1 + penalty * (1 - loss))


def wasserstein_dice(p: Array, g: Array, distance: Tensor | None = None, smooth: float = 0.0) -> float:
    hit = error = 0.0
    for i in range(p.shape[1]):
        (own,) = [c for c in range(len(g)) if g[c, i] == 1]
        moved = 0.0
        for c in range(len(p)):
            apart = float(c != own) if distance is None else float(distance[c, own])
            moved += apart * p[c, i]
        error += moved
        hit += (1 - moved) * (own != 0)
    return 1 - (2 * hit + smooth) / (2 * hit + error + smooth)


def mcc(p: Array, g: Array) -> float:
    tp, fp, fn, tn = shares(p, g)
    return 1 - (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def sensitivity_specificity(p: Array, g: Array, ratio: float = 0.05) -> float:
    inside = [(g_i - p_i) ** 2 for p_i, g_i in zip(p, g, strict=True) if g_i == 1]
    outside = [(g_i - p_i) ** 2 for p_i, g_i in zip(p, g, strict=True) if g_i == 0]
    sensitivity = sum(inside) / len(inside) if inside else 0.0
    return ratio * sensitivity + (1 - ratio) * (sum(outside) / len(outside) if outside else 0.0)


FORMS: tuple[dict[str, Any], ...] = (
    {"multilabel": True, "per_image": False},
    {"include_background": False},
)


def ratio_of(left: Tensor) -> Tensor:
    return 2 * left / (1 + left)


CASES = (
    Case(
        "dice_loss",
        sample,
        by_class(dice),
        edges()
        + binary_edges(large=8, squared=True)
        + binary_edges(large=8, smooth=1.0, absent="formula")
        + binary_edges(large=8, absent="skip"),
        options=({}, {"squared": True}, {"smooth": 1.0, "absent": "formula"}, *FORMS),
        identities=(
            Identity(
                "one-hot targets are indices",
                lambda: losses.dice_loss(X, one_hot(INDEX)),
                lambda: losses.dice_loss(X, INDEX),
            ),
            Identity(
                "soft targets equal to the prediction, minimum",
                lambda: losses.dice_loss(SOFT.log(), SOFT, overlap="minimum"),
                lambda: 0.0,
            ),
            Identity(
                "soft targets equal to the prediction, squared",
                lambda: losses.dice_loss(SOFT.log(), SOFT, squared=True),
                lambda: 0.0,
            ),
            Identity(
                "the minimum is the product for targets of 0 and 1",
                lambda: losses.dice_loss(X, INDEX, overlap="minimum"),
                lambda: losses.dice_loss(X, INDEX),
            ),
            # A measured figure: p = g = 0.5365 everywhere, so that the plain form is 1 - 0.5365.
            Identity(
                "plain Dice of a soft target that is met is not 0",
                lambda: losses.dice_loss(
                    torch.full((1, 1, 4), 0.5365, dtype=torch.float64).logit(),
                    torch.full((1, 1, 4), 0.5365, dtype=torch.float64),
                ),
                lambda: 0.4635,
            ),
            Identity(
                "an absent class costs its mean probability",
                lambda: losses.dice_loss(X, ABSENT, reduction="none")[:, 2],
                lambda: X.softmax(1)[:, 2].mean((1, 2)),
            ),
            Identity(
                "an absent class that is skipped",
                lambda: losses.dice_loss(X, ABSENT, absent="skip"),
                lambda: losses.dice_loss(X, ABSENT, reduction="none")[:, :2].mean(dim=(0, 1)),
            ),
            Identity(
                "an absent class by the formula is 1 without smoothing",
                lambda: losses.dice_loss(X, ABSENT, reduction="none", absent="formula")[:, 2],
                lambda: 1.0,
            ),
        ),
        empty=empty,
    ),
    Case(
        "jaccard_loss",
        sample,
        by_class(jaccard),
        edges() + binary_edges(large=8, overlap="minimum"),
        options=({}, {"smooth": 1.0}, *FORMS),
        identities=(
            Identity(
                "2 d / (1 + d) of Dice",
                lambda: losses.jaccard_loss(X, INDEX, reduction="none"),
                lambda: ratio_of(losses.dice_loss(X, INDEX, reduction="none")),
            ),
            Identity(
                "soft targets equal to the prediction, minimum",
                lambda: losses.jaccard_loss(SOFT.log(), SOFT, overlap="minimum"),
                lambda: 0.0,
            ),
        ),
        empty=empty,
    ),
    Case(
        "tversky_loss",
        sample,
        by_class(tversky),
        edges() + binary_edges(large=8, alpha=1.0, beta=0.0, absent="formula"),
        options=({}, {"alpha": 0.9, "beta": 0.1, "smooth": 0.5}, *FORMS),
        identities=(
            Identity(
                "1/2 and 1/2 is Dice",
                lambda: losses.tversky_loss(X, INDEX, alpha=0.5, beta=0.5),
                lambda: losses.dice_loss(X, INDEX),
            ),
            Identity(
                "1 and 1 is Jaccard",
                lambda: losses.tversky_loss(X, INDEX, alpha=1, beta=1, smooth=0.25),
                lambda: losses.jaccard_loss(X, INDEX, smooth=0.25),
            ),
        ),
        empty=empty,
    ),
    Case(
        "focal_tversky_loss",
        sample,
        by_class(focal_tversky),
        edges() + binary_edges(large=8, gamma=3.0, absent="formula"),
        options=({}, {"gamma": 3.0, "alpha": 0.5, "beta": 0.5}, *FORMS),
        identities=(
            Identity(
                "gamma 1 is Tversky",
                lambda: losses.focal_tversky_loss(X, INDEX, gamma=1.0),
                lambda: losses.tversky_loss(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "asymmetric_similarity_loss",
        sample,
        by_class(asymmetric_similarity),
        edges(),
        options=({}, {"beta": 2.0, "smooth": 1.0}, *FORMS),
        identities=(
            Identity(
                "beta 1 is Dice",
                lambda: losses.asymmetric_similarity_loss(X, INDEX, beta=1.0),
                lambda: losses.dice_loss(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "generalized_dice_loss",
        sample,
        by_image(generalized_dice),
        edges() + binary_edges(large=8, absent="skip") + binary_edges(large=8, absent="formula", power=0.5),
        options=({}, {"power": 1.0}, *FORMS),
        identities=(
            Identity(
                "one class is Dice",
                lambda: losses.generalized_dice_loss(B, MASK, include_background=False),
                lambda: losses.dice_loss(B, MASK),
            ),
            Identity(
                "one logit is two classes",
                lambda: losses.generalized_dice_loss(B, MASK),
                lambda: losses.generalized_dice_loss(torch.cat((torch.zeros_like(B), B), 1), MASK),
            ),
            Identity(
                "an absent class weighs as much as the smallest",
                lambda: losses.generalized_dice_loss(X[:, :2], torch.zeros_like(INDEX), power=3.0),
                lambda: losses.generalized_dice_loss(X[:, :2], torch.zeros_like(INDEX), power=0.0),
            ),
            Identity(
                "a class that is skipped",
                lambda: losses.generalized_dice_loss(B, torch.zeros_like(MASK), absent="skip"),
                lambda: losses.dice_loss(-B, torch.ones_like(MASK)),
            ),
            # Classes of 1 and 3 pixels; errors 0.6 each, sizes 1.8 and 6.2: 1 - Dice = (0.6 + 0.6/9) / (1.8 + 6.2/9).
            Identity(
                "by hand",
                lambda: losses.generalized_dice_loss(
                    torch.tensor([[[0.6, 0.1, 0.1, 0.0]]], dtype=torch.float64).logit(eps=1e-12),
                    torch.tensor([[1, 0, 0, 0]]),
                ),
                lambda: (0.6 + 0.6 / 9) / (1.8 + 6.2 / 9),
            ),
        ),
        empty=empty,
    ),
    Case(
        "penalty_generalized_dice_loss",
        sample,
        by_image(penalty_generalized_dice),
        edges(),
        options=({}, {"penalty": 0.5, "power": 1.0}, *FORMS),
        identities=(
            Identity(
                "penalty 0 is the generalized Dice loss",
                lambda: losses.penalty_generalized_dice_loss(X, INDEX, penalty=0),
                lambda: losses.generalized_dice_loss(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "wasserstein_dice_loss",
        sample,
        by_image(wasserstein_dice),
        edges() + binary_edges(large=8, absent="formula"),
        options=({}, {"distance": DISTANCE}, {"smooth": 1.0, "per_image": False}),
        identities=(
            Identity(
                "two classes 1 apart are Dice of the foreground",
                lambda: losses.wasserstein_dice_loss(B, MASK),
                lambda: losses.dice_loss(B, MASK),
            ),
            Identity(
                "classes at distance 0 are one class",
                lambda: losses.wasserstein_dice_loss(
                    X, INDEX, distance=torch.tensor([[0.0, 1, 1], [1, 0, 0], [1, 0, 0]])
                ),
                lambda: losses.wasserstein_dice_loss(
                    torch.stack((X[:, 0], X[:, 1:].logsumexp(1)), 1), INDEX.clamp(max=1)
                ),
            ),
        ),
        empty=empty,
    ),
    Case(
        "mcc_loss",
        sample,
        by_class(mcc),
        edges() + binary_edges(large=8, absent="formula"),
        options=({}, *FORMS),
        identities=(
            Identity(
                "positive and negative change places",
                lambda: losses.mcc_loss(-B, 1 - MASK),
                lambda: losses.mcc_loss(B, MASK),
            ),
            Identity("the opposite", lambda: losses.mcc_loss((0.5 - MASK).unsqueeze(1) * 1e4, MASK), lambda: 2.0),
        ),
        empty=empty,
    ),
    Case(
        "sensitivity_specificity_loss",
        sample,
        by_class(sensitivity_specificity, "formula"),
        edges(),
        options=({}, {"ratio": 0.7}, *FORMS),
        identities=(
            Identity(
                "an absent class costs its squared probability",
                lambda: losses.sensitivity_specificity_loss(B, torch.zeros_like(MASK), ratio=0.1),
                lambda: 0.9 * B.sigmoid().square().mean(),
            ),
        ),
        empty=empty,
    ),
)
