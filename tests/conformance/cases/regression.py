"""Regression losses: oracles from the published formulas and edge inputs."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair, per_element


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


def huber(x: float, y: float, delta: float = 1.0) -> float:
    # Its definition as the smallest of quadratic and absolute cost that two summands of the error can have.
    d = abs(x - y)
    return min((d - v) ** 2 / 2 + delta * v for v in (0.0, max(d - delta, 0.0)))


def smooth_l1_sigma(
    input: Array,
    target: Array,
    frozen: Array,
    sigma: float = 3.0,
    inside_weight: Tensor | None = None,
    outside_weight: Tensor | None = None,
) -> Array:
    loss = np.zeros_like(input)
    for index in np.ndindex(input.shape):
        inside, outside = (
            1.0 if w is None else float(w.expand(input.shape)[index]) for w in (inside_weight, outside_weight)
        )
        d = inside * (input[index] - target[index])
        loss[index] = outside * (0.5 * (sigma * d) ** 2 if abs(d) < 1 / sigma**2 else abs(d) - 0.5 / sigma**2)
    return loss


def focal_l1(x: float, y: float, alpha: float | None = None, beta: float = 0.8) -> float:
    # The integral of the published gradient, by Simpson's rule in t with d = t³, which flattens the end at 0.
    alpha = math.e * beta if alpha is None else alpha
    end = min(abs(x - y), 1.0) ** (1 / 3)
    steps = 2000
    points = [(end * k / steps) for k in range(steps + 1)]
    slopes = [0.0, *(-alpha * t**3 * math.log(beta * t**3) * 3 * t**2 for t in points[1:])]
    inner = slopes[0] + slopes[-1] + 4 * sum(slopes[1:-1:2]) + 2 * sum(slopes[2:-1:2])
    return float(inner * end / steps / 3 - alpha * math.log(beta) * max(abs(x - y) - 1, 0.0))


UNSURE = torch.tensor(0.5, dtype=torch.float64)


def kl_box(
    input: Array, target: Array, frozen: Array, log_variance: Tensor = UNSURE, min_log_variance: float = -10.0
) -> Array:
    loss = np.zeros_like(input)
    for index in np.ndindex(input.shape):
        alpha = float(log_variance.expand(input.shape)[index])
        distance, fixed = (smooth_l1(float(x[index]), float(target[index])) for x in (input, frozen))
        if alpha >= min_log_variance:
            loss[index] = distance / math.exp(alpha) + alpha / 2
        else:
            loss[index] = (distance + (min_log_variance - alpha) * fixed) / math.exp(min_log_variance) + alpha / 2
    return loss


def wing(x: float, y: float, width: float = 10.0, epsilon: float = 2.0) -> float:
    d = abs(x - y)
    return width * math.log(1 + min(d, width) / epsilon) + max(d - width, 0.0)


def adaptive_wing(
    x: float, y: float, alpha: float = 2.1, omega: float = 14.0, epsilon: float = 1.0, theta: float = 0.5
) -> float:
    d = abs(x - y)
    if d < theta:
        return float(omega * math.log(1 + (d / epsilon) ** (alpha - y)))
    ratio = (theta / epsilon) ** (alpha - y)
    a = omega * (1 / (1 + ratio)) * (alpha - y) * (theta / epsilon) ** (alpha - y - 1) * (1 / epsilon)
    return float(a * d - (theta * a - omega * math.log(1 + ratio)))


def rmse(input: Array, target: Array, frozen: Array, dim: int | None = None) -> Array:
    squared = (input - target) ** 2
    return np.asarray(np.sqrt(squared.mean() if dim is None else squared.mean(axis=dim)))


def sample_heatmap(generator: torch.Generator) -> Pair:
    target = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    return target + torch.randn(3, 4, generator=generator, dtype=torch.float64) * 0.5, target


OUTLIER = torch.tensor([3.0, -5.0], dtype=torch.float64)
# Four errors whose squares and absolute values have the means 1.183125 and 0.7875.
EXAMPLE = torch.tensor([0.05, -0.3, 0.8, -2.0], dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
WING = torch.tensor([0.5, -3.0, 9.999, 12.0], dtype=torch.float64)


def slope(loss: Callable[..., Tensor], at: float) -> Tensor:
    """Return the gradient of a loss at an error from 0."""
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(loss(x, torch.zeros_like(x)), x)
    return grad[0]


def optimal_variance(error: float) -> Tensor:
    """Return the variance that the gradient of the KL loss leads to, by Newton's method."""
    alpha = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(30):
        loss = losses.kl_box_loss(alpha.new_tensor([error]), alpha.new_zeros(1), log_variance=alpha)
        (first,) = torch.autograd.grad(loss, alpha, create_graph=True)
        (second,) = torch.autograd.grad(first, alpha)
        alpha = (alpha - first / second).detach().requires_grad_()
    return alpha.detach().exp()


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
    Case(
        "mse_loss",
        sample,
        per_element(lambda x, y: (x - y) ** 2),
        # Twice an error of 6e4 has no float16: the largest here is half of it.
        (*ELEMENTWISE_EDGES[:2], Edge("huge", torch.tensor([3e4, -3e4], dtype=torch.float64), ZEROS[:2])),
        identities=(Identity("published example", lambda: losses.mse_loss(*EXAMPLE), lambda: 1.183125),),
    ),
    Case(
        "rmse_loss",
        sample,
        rmse,
        (
            *ELEMENTWISE_EDGES,
            Edge("no error in one row", torch.eye(3, dtype=torch.float64)[:2], ZEROS.new_zeros(2, 3), {"dim": 1}),
            Edge("no error, by rows", ZEROS.view(1, 3), ZEROS.view(1, 3), {"dim": 1}),
            Edge("one number", ZEROS[0], ZEROS[0]),
        ),
        options=({}, {"dim": 1}, {"dim": -2}),
        identities=(
            Identity("published example", lambda: losses.rmse_loss(*EXAMPLE), lambda: 1.0877154959),
            Identity("one number", lambda: losses.rmse_loss(OUTLIER[1], ZEROS[0]), lambda: 5.0),
            Identity(
                "axes of no length",
                lambda: losses.rmse_loss(ZEROS.new_zeros(4, 0), ZEROS.new_zeros(4, 0), dim=1, reduction="none"),
                lambda: ZEROS.new_zeros(4),
            ),
        ),
    ),
    Case(
        "l2_loss",
        sample,
        per_element(lambda x, y: (x - y) ** 2 / 2),
        ELEMENTWISE_EDGES,
        identities=(Identity("published example", lambda: losses.l2_loss(*EXAMPLE, reduction="sum"), lambda: 2.36625),),
    ),
    Case(
        "smooth_l1_sigma_loss",
        sample,
        smooth_l1_sigma,
        (*ELEMENTWISE_EDGES, Edge("nothing inside", ZEROS + 6e4, ZEROS, {"inside_weight": torch.zeros(3)})),
        options=(
            {},
            {"sigma": 1.0},
            {"inside_weight": torch.tensor([1.0, 0, 1, 1]), "outside_weight": torch.tensor([[0.5], [2.0], [0.0]])},
        ),
        identities=(
            Identity(
                "sigma 3 is beta 1/9",
                lambda: losses.smooth_l1_sigma_loss(*EXAMPLE, reduction="none"),
                lambda: losses.smooth_l1_loss(*EXAMPLE, beta=1 / 9, reduction="none"),
            ),
        ),
    ),
    Case("huber_loss", sample, per_element(huber), ELEMENTWISE_EDGES, options=({}, {"delta": 0.3}, {"delta": 2.5})),
    Case(
        "focal_l1_loss",
        sample,
        per_element(focal_l1),
        (*ELEMENTWISE_EDGES, Edge("beta 1", OUTLIER, ZEROS[:2], {"beta": 1.0})),
        options=({}, {"beta": 1.0}, {"alpha": 0.7, "beta": 0.4}),
        identities=(
            Identity(
                "the largest gradient is 1",
                lambda: slope(losses.focal_l1_loss, 1 / (0.8 * math.e)),
                lambda: 1.0,
            ),
            Identity(
                "both formulas meet at 1",
                lambda: losses.focal_l1_loss(ZEROS[:1] + 1, ZEROS[:1]),
                lambda: math.e * 0.8 * (1 - 2 * math.log(0.8)) / 4,
            ),
        ),
    ),
    Case(
        "kl_box_loss",
        sample,
        kl_box,
        (
            *ELEMENTWISE_EDGES,
            Edge("too sure", torch.tensor([1e4, 0.5, 0], dtype=torch.float64), ZEROS, {"log_variance": ZEROS - 1e4}),
            Edge("unsure", torch.tensor([6e4, 0.5, 0], dtype=torch.float64), ZEROS, {"log_variance": ZEROS + 1e4}),
        ),
        options=(
            {},
            {"log_variance": torch.linspace(-3, 3, 12, dtype=torch.float64).view(3, 4)},
            {"log_variance": torch.tensor([-3.0, -2.0, 0.0, 1.0], dtype=torch.float64), "min_log_variance": -2.5},
        ),
        identities=(
            Identity(
                "optimum at d² inside",
                lambda: optimal_variance(0.6),
                lambda: 0.36,
            ),
            Identity(
                "optimum at 2 d - 1 outside",
                lambda: optimal_variance(3.0),
                lambda: 5.0,
            ),
            Identity(
                "a variance of 1 is smooth L1",
                lambda: losses.kl_box_loss(*EXAMPLE, log_variance=ZEROS[0]),
                lambda: losses.smooth_l1_loss(*EXAMPLE),
            ),
        ),
        required={"log_variance": UNSURE},
    ),
    Case(
        "wing_loss",
        sample,
        per_element(wing),
        (*ELEMENTWISE_EDGES, Edge("at its width", ZEROS + 10, ZEROS)),
        options=({}, {"width": 1.5, "epsilon": 0.5}),
        identities=(
            Identity(
                "published values",
                lambda: losses.wing_loss(WING, WING * 0, reduction="none").round(decimals=7),
                lambda: torch.tensor([2.2314355, 9.1629073, 17.9167613, 19.9175947], dtype=torch.float64),
            ),
            Identity(
                "published gradients",
                lambda: torch.stack([slope(losses.wing_loss, d) for d in WING.tolist()]),
                lambda: torch.tensor([4, -2, 10 / 11.999, 1], dtype=torch.float64),
            ),
        ),
    ),
    Case(
        "adaptive_wing_loss",
        sample_heatmap,
        per_element(adaptive_wing),
        (
            *ELEMENTWISE_EDGES,
            Edge("peaks", torch.tensor([1.0, 0.5, 6e4], dtype=torch.float64), ZEROS + 1),
        ),
        options=({}, {"alpha": 1.5, "omega": 8.0, "epsilon": 0.7, "theta": 0.3}),
        identities=(
            Identity(
                "the slope is continuous at theta",
                lambda: slope(losses.adaptive_wing_loss, 0.5 - 1e-12),
                lambda: slope(losses.adaptive_wing_loss, 0.5),
            ),
        ),
    ),
)
