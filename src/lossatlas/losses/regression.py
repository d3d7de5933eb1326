"""Regression losses on numbers: L1 and its smooth and balanced relatives."""

import math

import torch
from torch import Tensor

from lossatlas.checks import check_elementwise, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def l1_loss(
    input: Values,
    target: Targets,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Absolute error.

    Formula:
        l = |x - y|

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> l1_loss(torch.tensor([1.0, -3.0]), torch.zeros(2))
        tensor(2.)

    Note:
        The gradient is sign(x - y), 0 at no error.

    Reference:
        P.-S. Laplace, 1774 (least absolute deviations).
    """
    check_elementwise(input, target)
    x, y = upcast(input, target)
    return reduce((x - y).abs(), weight, reduction, normalizer)


def smooth_l1_loss(
    input: Values,
    target: Targets,
    *,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Absolute error with a quadratic part around zero.

    Formula:
        d = |x - y|,  l = d² / (2 β) if d < β, else d - β / 2

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        beta: width β of the quadratic part in the unit of the input, at least 0; 0 gives `l1_loss`.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a negative `beta`, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), reduction="none")
        tensor([0.1250, 2.5000])

    Note:
        The sigma of Faster R-CNN's code is β = 1 / σ². RetinaNet uses β = 0.11, or 1/9.

    Reference:
        R. Girshick, "Fast R-CNN", 2015, arXiv 1504.08083, equation 3 (β = 1).
    """
    check_elementwise(input, target)
    check_number("beta", beta, at_least=0)
    x, y = upcast(input, target)
    distance = (x - y).abs()
    if beta > 0:
        # In the quadratic branch the distance is bounded first: the square of a huge one would overflow unused.
        quadratic = distance.clamp(max=beta) ** 2 / (2 * beta)
        distance = torch.where(distance < beta, quadratic, distance - beta / 2)
    return reduce(distance, weight, reduction, normalizer)


def balanced_l1_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Smooth L1 whose inliers have a larger gradient.

    Formula:
        d = |x - y|,  b = exp(γ / α) - 1
        l = α (d + β / b) ln(b d / β + 1) - α d     if d < β
        l = γ d + γ β / b - α β                     otherwise
        so that the gradient is α ln(b d / β + 1) below β and γ above

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        alpha: α > 0; smaller values lift the gradient of the inliers more.
        gamma: γ > 0, the gradient of the outliers.
        beta: β > 0, the error from which an element is an outlier, in the unit of the input.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, an `alpha`, `gamma` or `beta` that is not above 0, a gamma / alpha above 80
            (its exponential leaves float32), or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> balanced_l1_loss(torch.tensor([1.0, 2.0]), torch.zeros(2), reduction="none")
        tensor([1.0786, 2.5786])

    Note:
        The paper sets β = 1. For another β this is the integral of the gradient above; the authors' code is that
        only for β = 1, and jumps at β otherwise.

    Reference:
        Pang et al., "Libra R-CNN", 2019, arXiv 1904.02701, equations 6 to 8.
    """
    check_elementwise(input, target)
    for name, value in (("alpha", alpha), ("gamma", gamma), ("beta", beta)):
        check_number(name, value, above=0)
    check_number("gamma / alpha", gamma / alpha, at_most=80)
    x, y = upcast(input, target)
    b = math.expm1(gamma / alpha)
    distance = (x - y).abs()
    inlier = distance.clamp(max=beta)
    near = alpha * (inlier + beta / b) * torch.log1p(b / beta * inlier) - alpha * inlier
    far = gamma * distance + gamma * beta / b - alpha * beta
    return reduce(torch.where(distance < beta, near, far), weight, reduction, normalizer)


L1Loss = module_form("L1Loss", l1_loss)
SmoothL1Loss = module_form("SmoothL1Loss", smooth_l1_loss)
BalancedL1Loss = module_form("BalancedL1Loss", balanced_l1_loss)
