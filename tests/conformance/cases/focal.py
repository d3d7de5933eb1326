"""Focal losses: oracles from the published formulas, edge inputs and the numbers of the papers."""

import math

import torch

from lossatlas import losses
from tests.conformance.case import Case, Edge, Identity, per_element
from tests.conformance.cases.classification import (
    BINARY_EDGES,
    HUGE,
    SIDES,
    WEIGHTS,
    X,
    Y,
    class_edges,
    log_sigmoid,
    over_classes,
    sample_binary,
    sample_classes,
)


def sigmoid_focal(x: float, y: float, alpha: float | None = 0.25, gamma: float = 2.0) -> float:
    p = 1 / (1 + math.exp(-x))
    p_t = p if y == 1 else 1 - p
    alpha_t = 1.0 if alpha is None else alpha if y == 1 else 1 - alpha
    return float(-alpha_t * (1 - p_t) ** gamma * math.log(p_t))


def softmax_focal(p: float, c: int, alpha: float | None = None, gamma: float = 2.0) -> float:
    alpha_c = 1.0 if alpha is None else 1 - alpha if c == 0 else alpha
    return float(-alpha_c * (1 - p) ** gamma * math.log(p))


def focal_star(x: float, y: float, alpha: float | None = None, gamma: float = 2.0, beta: float = 1.0) -> float:
    alpha_t = 1.0 if alpha is None else alpha if y == 1 else 1 - alpha
    return -alpha_t * log_sigmoid(gamma * (x if y == 1 else -x) + beta) / gamma


def asymmetric(x: float, y: float, gamma_neg: float = 4.0, gamma_pos: float = 0.0, clip: float = 0.05) -> float:
    p = 1 / (1 + math.exp(-x))
    if y == 1:
        return float(-((1 - p) ** gamma_pos) * math.log(p))
    shifted = max(p - clip, 0.0)
    return float(-(shifted**gamma_neg) * math.log(1 - shifted))


def focal_logits(p_t: float) -> torch.Tensor:
    return torch.tensor([p_t], dtype=torch.float64).logit()


def cross_entropy_by_focal(p_t: float) -> torch.Tensor:
    x = focal_logits(p_t)
    one = torch.ones(1)
    return losses.binary_cross_entropy_with_logits(x, one) / losses.sigmoid_focal_loss(x, one, alpha=None)


def focal_gradient(x: torch.Tensor, sign: torch.Tensor, gamma: float) -> torch.Tensor:
    """The derivative in the logit that appendix B of the paper gives."""
    p_t = (x * sign).sigmoid()
    return sign * (1 - p_t) ** gamma * (gamma * p_t * p_t.log() + p_t - 1)


def gradient_of_focal(x: torch.Tensor, y: torch.Tensor, gamma: float) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    losses.sigmoid_focal_loss(leaf, y, alpha=None, gamma=gamma, reduction="sum").backward()
    assert leaf.grad is not None
    return leaf.grad


FRACTIONAL = tuple(Edge(f"gamma {g}", HUGE, SIDES, {"gamma": g}) for g in (0.0, 0.5, 1.5))
LOGITS, CLASSES = X.view(2, 3), torch.tensor([2, 0])

CASES = (
    Case(
        "sigmoid_focal_loss",
        sample_binary,
        per_element(sigmoid_focal),
        BINARY_EDGES + FRACTIONAL,
        options=({}, {"gamma": 0.5}, {"alpha": None, "gamma": 5.0}, {"alpha": 0.75, "gamma": 0}),
        identities=(
            Identity(
                "gamma 0 without alpha is cross entropy",
                lambda: losses.sigmoid_focal_loss(X, Y, alpha=None, gamma=0),
                lambda: losses.binary_cross_entropy_with_logits(X, Y),
            ),
            # The paper's own numbers (section 3.2), how many times less an easy example counts with gamma 2; those
            # at 0.968 it rounds to 1000.
            Identity("100 times less at pt = 0.9", lambda: cross_entropy_by_focal(0.9), lambda: 100.0),
            Identity("977 times less at pt = 0.968", lambda: cross_entropy_by_focal(0.968), lambda: 976.5625),
            Identity("4 times less at pt = 0.5", lambda: cross_entropy_by_focal(0.5), lambda: 4.0),
            Identity(
                "gradient of appendix B",
                lambda: gradient_of_focal(X, Y, 2.0),
                lambda: focal_gradient(X, 2 * Y - 1, 2.0),
            ),
        ),
    ),
    Case(
        "softmax_focal_loss",
        sample_classes,
        over_classes(softmax_focal),
        class_edges()
        + tuple(
            Edge(f"{edge.name}, gamma 0.5", edge.input, edge.target, edge.options | {"gamma": 0.5})
            for edge in class_edges()
        ),
        options=({}, {"alpha": 0.25, "gamma": 0.5}, {"alpha": 0.3, "gamma": 0} | WEIGHTS),
        identities=(
            Identity(
                "gamma 0 is cross entropy",
                lambda: losses.softmax_focal_loss(LOGITS, CLASSES, gamma=0, label_smoothing=0.1),
                lambda: losses.cross_entropy(LOGITS, CLASSES, label_smoothing=0.1),
            ),
            Identity(
                "two classes are a sigmoid",
                lambda: losses.softmax_focal_loss(torch.stack((X * 0, X), 1), Y.long(), alpha=0.25),
                lambda: losses.sigmoid_focal_loss(X, Y, alpha=0.25),
            ),
        ),
        empty=lambda: (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ),
    Case(
        "sigmoid_focal_star_loss",
        sample_binary,
        per_element(focal_star),
        (*BINARY_EDGES, Edge("gamma 1e-3", HUGE, SIDES, {"gamma": 1e-3})),
        options=({}, {"gamma": 4.0, "beta": 0.0}, {"alpha": 0.25, "gamma": 1.0}),
        identities=(
            Identity(
                "gamma 1 and beta 0 are cross entropy",
                lambda: losses.sigmoid_focal_star_loss(X, Y, gamma=1, beta=0),
                lambda: losses.binary_cross_entropy_with_logits(X, Y),
            ),
        ),
    ),
    Case(
        "asymmetric_loss",
        sample_binary,
        per_element(asymmetric),
        (
            *BINARY_EDGES,
            Edge("no margin", HUGE, SIDES, {"clip": 0.0, "gamma_pos": 0.5, "gamma_neg": 0.5}),
            Edge("margin of nearly 1", HUGE, SIDES, {"clip": 0.99}),
        ),
        options=({}, {"gamma_pos": 1.0, "clip": 0.0}, {"gamma_neg": 0.0, "clip": 0.3}),
        identities=(
            Identity(
                "no focus and no margin are cross entropy",
                lambda: losses.asymmetric_loss(X, Y, gamma_neg=0, clip=0),
                lambda: losses.binary_cross_entropy_with_logits(X, Y),
            ),
            Identity(
                "equal focus is focal loss",
                lambda: losses.asymmetric_loss(X, Y, gamma_neg=2, gamma_pos=2, clip=0),
                lambda: losses.sigmoid_focal_loss(X, Y, alpha=None),
            ),
            Identity(
                "negatives within the margin cost nothing",
                lambda: losses.asymmetric_loss(focal_logits(0.049), torch.zeros(1)),
                lambda: 0.0,
            ),
        ),
    ),
)
