"""Wing losses: regression of landmarks, with a gradient that grows towards small errors."""

import math

import torch
from torch import Tensor

from lossatlas.checks import check_elementwise, check_number
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import fused, reduced
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def wing_loss(
    input: Values,
    target: Targets,
    *,
    width: float = 10.0,
    epsilon: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Logarithmic loss for small and medium errors, L1 for large ones.

    Formula:
        d = |x - y|,  C = w - w ln(1 + w / ε)
        l = w ln(1 + d / ε) if d < w, else d - C

    Args:
        input: ``(*shape)`` predicted coordinates x of landmarks, in pixels.
        target: ``(*shape)`` coordinates y in the same unit.
        width: w > 0, the error from which it is L1, in the unit of the input.
        epsilon: ε > 0; the smaller, the steeper near zero. The slope there is w / ε.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a `width` or `epsilon` that is not above 0, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> wing_loss(torch.tensor([0.5, 12.0]), torch.zeros(2), reduction="none")
        tensor([ 2.2314, 19.9176])

    Note:
        The value is continuous at w, the slope is not: it is w / (ε + w) below and 1 above, as published. At no error
        the gradient is 0.

    Reference:
        Feng et al., "Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks", 2018,
        arXiv 1711.06753, section 4.
    """
    check_elementwise(input, target)
    check_number("width", width, above=0)
    check_number("epsilon", epsilon, above=0)
    offset = width - width * math.log1p(width / epsilon)
    return reduced(
        wing, input, target, width, epsilon, offset, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused("wing")
def wing(x: Tensor, y: Tensor, width: float, epsilon: float, offset: float) -> Tensor:
    """Return the elements of `wing_loss`; the offset is C."""
    distance = (x - y).abs()
    near = width * torch.log1p(distance.clamp(max=width) / epsilon)
    return torch.where(distance < width, near, distance - offset)


def adaptive_wing_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Wing loss for heatmaps: logarithmic near the peaks of the target, quadratic in its background.

    Formula:
        d = |x - y|
        l = ω ln(1 + (d / ε)^(α - y))   if d < θ, else A d - C
        A = ω (α - y) (θ / ε)^(α - y - 1) / (ε (1 + (θ / ε)^(α - y))),  C = θ A - ω ln(1 + (θ / ε)^(α - y))

    Args:
        input: ``(*shape)`` predicted heatmap x, values and not logits.
        target: ``(*shape)`` heatmap y from 0 to 1.
        alpha: α > 1; above 2 the loss is smooth at a peak.
        omega: ω > 0, a factor.
        epsilon: ε > 0; the smaller, the steeper near zero.
        theta: θ > 0, the error from which it is linear.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, an `alpha` that is not above 1, an `omega`, `epsilon` or `theta` that is not
            above 0, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> adaptive_wing_loss(torch.tensor([0.2, 0.2]), torch.tensor([0.0, 1.0]), reduction="none")
        tensor([0.4688, 8.2998])

    Note:
        Value and slope are continuous at θ. A reimplementation that is often used divides by ω where this divides
        by ε, and is not. The paper weighs the pixels near a peak 11 times: with heatmaps y of ``(N, K, H, W)``,
        ``weight=1 + 10 * (F.max_pool2d(y, 3, stride=1, padding=1) >= 0.2)``.

    Reference:
        Wang et al., "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression", 2019, arXiv 1904.07399.
    """
    check_elementwise(input, target)
    check_number("alpha", alpha, above=1)
    for name, value in (("omega", omega), ("epsilon", epsilon), ("theta", theta)):
        check_number(name, value, above=0)
    return reduced(
        adaptive_wing,
        input,
        target,
        alpha,
        omega,
        epsilon,
        theta,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused("adaptive_wing")
def adaptive_wing(x: Tensor, y: Tensor, alpha: float, omega: float, epsilon: float, theta: float) -> Tensor:
    """Return the elements of `adaptive_wing_loss`."""
    distance = (x - y).abs()
    power = alpha - y
    edge = (theta / epsilon) ** power
    slope = omega * power * (theta / epsilon) ** (power - 1) / (epsilon * (1 + edge))
    near = omega * torch.log1p(safe_power(distance.clamp(max=theta) / epsilon, power))
    far = slope * (distance - theta) + omega * torch.log1p(edge)
    return torch.where(distance < theta, near, far)


WingLoss = module_form("WingLoss", wing_loss)
AdaptiveWingLoss = module_form("AdaptiveWingLoss", adaptive_wing_loss)
