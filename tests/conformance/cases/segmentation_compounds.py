"""Compound losses of segmentation: oracles from the published formulas, identities and edge inputs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Identity
from tests.conformance.cases.overlap import FORMS, dice, generalized_dice, tversky
from tests.conformance.dense import (
    binary_edges,
    edges,
    empty,
    groups,
    probabilities,
    sample,
    sample_binary,
    targets,
)

X, INDEX = sample(torch.Generator().manual_seed(31))
B, MASK = sample_binary(torch.Generator().manual_seed(32))


def by_image(formula: Callable[..., float], two_classes: bool = False) -> Callable[..., Array]:
    """Apply ``formula(p, g, fixed_p, multilabel, first, **options)`` to the classes and pixels of each image.

    `first` is the first class of the overlap.
    """

    def oracle(
        input: Array,
        target: Array,
        frozen: Array,
        *,
        multilabel: bool = False,
        per_image: bool = True,
        include_background: bool = True,
        **options: Any,
    ) -> Array:
        p = groups(probabilities(input, multilabel, two_classes), per_image)
        fixed = groups(probabilities(frozen, multilabel, two_classes), per_image)
        g = groups(targets(input, target, two_classes), per_image)
        first = 0 if include_background else 1
        elements = [formula(*image, multilabel, first, **options) for image in zip(p, g, fixed, strict=True)]
        return np.array(elements if per_image else elements[0], dtype=np.float64)

    return oracle


def per_pixel(p: Array, g: Array, multilabel: bool, cost: Callable[[float, int], float]) -> list[float]:
    """Return the cost of the true class of each pixel, or of the true answer of each channel of each pixel."""
    classes, pixels = p.shape
    if multilabel:
        return [
            cost(p[c, i] if g[c, i] == 1 else 1 - p[c, i], int(g[c, i])) for c in range(classes) for i in range(pixels)
        ]
    true = [int(np.flatnonzero(g[:, i])[0]) for i in range(pixels)]
    return [cost(p[true[i], i], true[i]) for i in range(pixels)]


def entropies(p: Array, g: Array, multilabel: bool) -> list[float]:
    return per_pixel(p, g, multilabel, lambda probability, _: -math.log(probability))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def mean_dice(p: Array, g: Array, first: int, **options: Any) -> float:
    return mean([dice(p[c], g[c], **options) for c in range(first, len(p))])


def dice_cross_entropy(
    p: Array,
    g: Array,
    fixed: Array,
    multilabel: bool,
    first: int,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    **options: Any,
) -> float:
    return dice_weight * mean_dice(p, g, first, **options) + ce_weight * mean(entropies(p, g, multilabel))


def focal(p: Array, g: Array, multilabel: bool, gamma: float, alpha: float | None) -> float:
    def cost(probability: float, label: int) -> float:
        balance = 1.0 if alpha is None else alpha if label > 0 else 1 - alpha
        return -balance * math.pow(1 - probability, gamma) * math.log(probability)

    return mean(per_pixel(p, g, multilabel, cost))


def dice_focal(
    p: Array,
    g: Array,
    fixed: Array,
    multilabel: bool,
    first: int,
    focal_weight: float = 0.5,
    gamma: float = 2.0,
    alpha: float | None = None,
    **options: Any,
) -> float:
    return mean_dice(p, g, first, **options) + focal_weight * focal(p, g, multilabel, gamma, alpha)


def dice_topk(
    p: Array, g: Array, fixed: Array, multilabel: bool, first: int, topk_weight: float = 1.0, percent: float = 10.0
) -> float:
    order = np.argsort(-np.array(entropies(fixed, g, multilabel)))
    chosen = order[: max(math.floor(len(order) * percent / 100), 1)]
    hardest = [entropies(p, g, multilabel)[i] for i in chosen]
    return mean_dice(p, g, first) + topk_weight * mean(hardest)


def generalized_dice_focal(
    p: Array,
    g: Array,
    fixed: Array,
    multilabel: bool,
    first: int,
    gamma: float = 2.0,
    alpha: float | None = None,
    power: float = 2.0,
) -> float:
    return generalized_dice(p[first:], g[first:], power) + focal(p, g, multilabel, gamma, alpha)


def combo(
    p: Array,
    g: Array,
    fixed: Array,
    multilabel: bool,
    first: int,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 0.0,
) -> float:
    costs = [
        -beta * math.log(p_i) if g_i == 1 else -(1 - beta) * math.log(1 - p_i)
        for p_i, g_i in zip(p.flat, g.flat, strict=True)
    ]
    return alpha * mean(costs) + (1 - alpha) * mean_dice(p, g, first, smooth=smooth)


def exponential_logarithmic(
    input: Array, target: Array, frozen: Array, class_weight: Tensor | None = None, **options: Any
) -> Array:
    g = targets(input, target, True)
    number = [float((g[:, c] == 1).sum()) for c in range(g.shape[1])]
    weights = [math.sqrt(sum(number) / f) for f in number] if class_weight is None else class_weight.tolist()

    def formula(
        p: Array,
        g: Array,
        fixed: Array,
        multilabel: bool,
        first: int,
        dice_weight: float = 0.8,
        ce_weight: float = 0.2,
        dice_gamma: float = 0.3,
        ce_gamma: float = 0.3,
        smooth: float = 1.0,
    ) -> float:
        overlaps = [(-math.log(1 - dice(p[c], g[c], smooth=smooth))) ** dice_gamma for c in range(first, len(p))]
        costs = per_pixel(p, g, False, lambda value, label: float(weights[label] * (-math.log(value)) ** ce_gamma))
        return dice_weight * mean(overlaps) + ce_weight * mean(costs)

    return by_image(formula, True)(input, target, frozen, **options)


def unified_focal(
    p: Array,
    g: Array,
    fixed: Array,
    multilabel: bool,
    first: int,
    balance: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    variant: str = "asymmetric",
    smooth: float = 0.0,
) -> float:
    def cost(probability: float, label: int) -> float:
        easy = (1 - probability) ** gamma if label == 0 or variant == "symmetric" else 1.0
        return -(delta if label > 0 else 1 - delta) * easy * math.log(probability)

    overlaps = [tversky(p[c], g[c], 1 - delta, delta, smooth) for c in range(len(p))]
    bent = [t ** (1 - gamma) if c > 0 or variant == "symmetric" else t for c, t in enumerate(overlaps)]
    return balance * mean(per_pixel(p, g, False, cost)) + (1 - balance) * sum(bent)


CASES = (
    Case(
        "dice_cross_entropy_loss",
        sample,
        by_image(dice_cross_entropy),
        edges() + binary_edges(large=8, squared=True, absent="skip"),
        options=({}, {"dice_weight": 0.3, "ce_weight": 2.0, "squared": True, "smooth": 0.5}, *FORMS),
        identities=(
            Identity(
                "without the cross entropy it is Dice",
                lambda: losses.dice_cross_entropy_loss(X, INDEX, ce_weight=0),
                lambda: losses.dice_loss(X, INDEX),
            ),
            Identity(
                "without Dice it is the cross entropy",
                lambda: losses.dice_cross_entropy_loss(X, INDEX, dice_weight=0),
                lambda: losses.cross_entropy(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "dice_focal_loss",
        sample,
        by_image(dice_focal),
        edges() + binary_edges(large=8, gamma=0.5, alpha=0.25),
        options=({}, {"focal_weight": 2.0, "gamma": 0.5, "alpha": 0.25}, {"alpha": 0.75, "multilabel": True}, *FORMS),
        identities=(
            Identity(
                "without Dice, one channel, it is the focal loss",
                lambda: losses.dice_focal_loss(B, MASK, dice_weight=0, focal_weight=1, alpha=0.25),
                lambda: losses.sigmoid_focal_loss(B, MASK.unsqueeze(1)),
            ),
            Identity(
                "gamma 0 is Dice and cross entropy",
                lambda: losses.dice_focal_loss(X, INDEX, focal_weight=1, gamma=0),
                lambda: losses.dice_cross_entropy_loss(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "dice_topk_loss",
        sample,
        by_image(dice_topk),
        edges(),
        options=({}, {"percent": 40.0, "topk_weight": 0.5}, *FORMS),
        identities=(
            Identity(
                "100 percent is Dice and cross entropy",
                lambda: losses.dice_topk_loss(X, INDEX, percent=100),
                lambda: losses.dice_cross_entropy_loss(X, INDEX),
            ),
            Identity(
                "without Dice, over the batch, it is the hardest pixels",
                lambda: losses.dice_topk_loss(X, INDEX, dice_weight=0, per_image=False),
                lambda: losses.topk_cross_entropy(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "generalized_dice_focal_loss",
        sample,
        by_image(generalized_dice_focal, True),
        edges() + binary_edges(large=8, gamma=0.5, absent="skip"),
        options=({}, {"gamma": 1.0, "alpha": 0.25, "power": 1.0}, *FORMS),
        identities=(
            Identity(
                "without the focal loss it is the generalized Dice loss",
                lambda: losses.generalized_dice_focal_loss(B, MASK, focal_weight=0),
                lambda: losses.generalized_dice_loss(B, MASK),
            ),
            Identity(
                "without the Dice loss it is the focal loss",
                lambda: losses.generalized_dice_focal_loss(B, MASK, dice_weight=0, alpha=0.25),
                lambda: losses.sigmoid_focal_loss(B, MASK.unsqueeze(1)),
            ),
        ),
        empty=empty,
    ),
    Case(
        "combo_loss",
        sample,
        by_image(combo),
        edges(),
        options=({}, {"alpha": 0.8, "beta": 0.3, "smooth": 1.0}, *FORMS),
        identities=(
            Identity(
                "alpha 0 is Dice",
                lambda: losses.combo_loss(X, INDEX, alpha=0),
                lambda: losses.dice_loss(X, INDEX),
            ),
            Identity(
                "alpha 1, one channel, is half the cross entropy",
                lambda: losses.combo_loss(B, MASK, alpha=1),
                lambda: losses.binary_cross_entropy_with_logits(B, MASK.unsqueeze(1)) / 2,
            ),
            # The complement of a probability of 1 - e^-50 is e^-50, also where the softmax rounds to 1.
            Identity(
                "the logarithm of a vanishing complement",
                lambda: losses.combo_loss(
                    torch.tensor([[[50.0], [0.0]]], dtype=torch.float64), torch.tensor([[1]]), alpha=1, beta=0
                ),
                lambda: 25.0,
            ),
        ),
        empty=empty,
    ),
    Case(
        "exponential_logarithmic_loss",
        sample,
        exponential_logarithmic,
        edges() + binary_edges(large=8, dice_gamma=2.0, ce_gamma=1.0),
        options=(
            {},
            {"dice_gamma": 1.0, "ce_gamma": 2.0, "smooth": 0.1, "per_image": False},
            {"class_weight": torch.tensor([0.5, 1.0, 3.0]), "include_background": False},
        ),
        identities=(
            Identity(
                "powers of 1 and no Dice are cross entropy",
                lambda: losses.exponential_logarithmic_loss(
                    X, INDEX, dice_weight=0, ce_weight=1, ce_gamma=1, class_weight=torch.ones(3)
                ),
                lambda: losses.cross_entropy(X, INDEX),
            ),
        ),
        empty=empty,
    ),
    Case(
        "unified_focal_loss",
        sample,
        by_image(unified_focal, True),
        edges() + binary_edges(large=8, variant="symmetric", absent="formula"),
        options=({}, {"variant": "symmetric", "gamma": 0.2}, {"balance": 0.9, "delta": 0.7, "per_image": False}),
        identities=(
            Identity(
                "gamma 0 and delta 1/2 are half the cross entropy and Dice",
                lambda: losses.unified_focal_loss(X, INDEX, gamma=0, delta=0.5),
                lambda: 0.25 * losses.cross_entropy(X, INDEX) + 1.5 * losses.dice_loss(X, INDEX),
            ),
        ),
        empty=empty,
    ),
)
