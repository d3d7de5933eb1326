"""Lovász losses of segmentation: oracles from the set function, and edge inputs."""

from typing import Any

import numpy as np
import torch

from lossatlas import losses
from tests.conformance.case import Array, Case, Identity
from tests.conformance.dense import binary_edges, by_class, edges, empty, empty_binary, sample, sample_binary

B, MASK = sample_binary(torch.Generator().manual_seed(22))


# From the set function: the Jaccard loss of a prediction that is wrong on the pixels in `wrong`.


def jaccard_of(wrong: list[int], g: Array) -> float:
    actual = {i for i in range(len(g)) if g[i] == 1}
    predicted = actual.symmetric_difference(wrong)
    union = actual | predicted
    return 1 - len(actual & predicted) / len(union) if union else 0.0


def lovasz_extension(errors: list[float], g: Array) -> float:
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    return sum(errors[order[i]] * (jaccard_of(order[: i + 1], g) - jaccard_of(order[:i], g)) for i in range(len(order)))


def lovasz_softmax(p: Array, g: Array) -> float:
    return lovasz_extension([abs(g_i - p_i) for p_i, g_i in zip(p, g, strict=True)], g)


def lovasz_hinge(input: Array, target: Array, frozen: Array, per_image: bool = True, absent: str = "formula") -> Array:
    assert target.any() or absent == "formula"
    logits, g = input.reshape(len(input), -1), (target == 1).reshape(len(input), -1).astype(np.float64)
    if not per_image:
        logits, g = logits.reshape(1, -1), g.reshape(1, -1)
    elements = [
        lovasz_extension([max(1 - x * (2 * y - 1), 0.0) for x, y in zip(*pair, strict=True)], pair[1])
        for pair in zip(logits, g, strict=True)
    ]
    return np.array(elements)[:, None] if per_image else np.array(elements)


def lovasz_softmax_oracle(input: Array, target: Array, frozen: Array, per_image: bool = False, **options: Any) -> Array:
    return by_class(lovasz_softmax, "formula")(input, target, frozen, per_image=per_image, **options)


CASES = (
    Case(
        "lovasz_softmax_loss",
        sample,
        lovasz_softmax_oracle,
        edges() + binary_edges(large=8, absent="formula"),
        options=({}, {"multilabel": True}, {"per_image": True, "absent": "formula"}, {"include_background": False}),
        identities=(
            # Of three errors 0.6 (the class), 0.5 and 0.2 (others): J rises to 1, and stays.
            Identity(
                "by hand",
                lambda: losses.lovasz_softmax_loss(
                    torch.tensor([[[0.4, 0.5, 0.2]]], dtype=torch.float64).logit(), torch.tensor([[1, 0, 0]])
                ),
                lambda: 0.6,
            ),
            Identity(
                "hard decisions have the Jaccard loss",
                lambda: losses.lovasz_softmax_loss(1e4 * B.sign(), MASK, per_image=True, reduction="none"),
                lambda: losses.jaccard_loss(1e4 * B.sign(), MASK, reduction="none"),
            ),
            Identity(
                "an absent class by the formula is its largest probability",
                lambda: losses.lovasz_softmax_loss(B, torch.zeros_like(MASK), absent="formula"),
                lambda: B.sigmoid().max(),
            ),
        ),
        empty=empty,
    ),
    Case(
        "lovasz_hinge_loss",
        sample_binary,
        lovasz_hinge,
        edges() + binary_edges(large=8, absent="skip"),
        options=({}, {"per_image": False}, {"absent": "skip"}),
        identities=(
            Identity(
                "one wrong pixel of one",
                lambda: losses.lovasz_hinge_loss(torch.full((1, 1, 1), -2.0), torch.ones(1, 1)),
                lambda: 3.0,
            ),
            Identity(
                "beyond the margin",
                lambda: losses.lovasz_hinge_loss((2.0 * MASK - 1).unsqueeze(1) * 1.5, MASK),
                lambda: 0.0,
            ),
        ),
        empty=empty_binary,
    ),
)
