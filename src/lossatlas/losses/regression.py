"""Regression losses on numbers: L1 and its relatives with another slope near zero."""

import math

import torch
from torch import Tensor

from lossatlas.checks import check_elementwise, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import broadcastable, fused, reduce, reduced
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
    return reduced(scaled_smooth_l1, input, target, 0.0, 1.0, weight=weight, reduction=reduction, normalizer=normalizer)


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
    return reduced(
        scaled_smooth_l1, input, target, beta, 1.0, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused("smooth_l1")
def scaled_smooth_l1(x: Tensor, y: Tensor, beta: float, factor: float) -> Tensor:
    """Return the elements of `smooth_l1_loss`, times a factor."""
    return factor * smooth_l1(x - y, beta)


def smooth_l1(error: Tensor, beta: float = 1.0) -> Tensor:
    """Return the elements of `smooth_l1_loss` of an error x - y."""
    distance = error.abs()
    if beta == 0:
        return distance
    # In the quadratic branch the distance is bounded first: the square of a huge one would overflow unused.
    quadratic = distance.clamp(max=beta) ** 2 / (2 * beta)
    return torch.where(distance < beta, quadratic, distance - beta / 2)


def smooth_l1_sigma_loss(
    input: Values,
    target: Targets,
    *,
    sigma: float = 3.0,
    inside_weight: Tensor | None = None,
    outside_weight: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Smooth L1 as Faster R-CNN's code writes it, with a weight on the error and one on the loss.

    Formula:
        d = |w_in (x - y)|
        l = w_out σ² d² / 2 if d < 1 / σ², else w_out (d - 1 / (2 σ²))

    Args:
        input: ``(*shape)`` predicted offsets x.
        target: ``(*shape)`` offsets y.
        sigma: σ > 0. The proposals of Faster R-CNN use 3, its second stage 1.
        inside_weight: factors w_in of the errors, broadcasting to ``(*shape)``: 1 for the offsets of positives, else 0.
        outside_weight: factors w_out of the elements, broadcasting to ``(*shape)``; they do not change the
            denominator.
        weight: further factors of the elements, as in every loss.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not broadcast, a `sigma` that is not above 0, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> smooth_l1_sigma_loss(torch.tensor([0.1, 1.0]), torch.zeros(2), reduction="none")
        tensor([0.0450, 0.9444])

    Note:
        It is `smooth_l1_loss` of the weighted error with β = 1 / σ². The original layer sums over the elements and
        divides by the length of the first axis: ``normalizer=len(input)``. An `inside_weight` w multiplies the gradient
        once more by w, so that 0 and 1 are the values that make sense.

    Reference:
        S. Ren et al., "Faster R-CNN", 2015, arXiv 1506.01497, and the SmoothL1Loss layer of its code.
    """
    check_elementwise(input, target)
    check_number("sigma", sigma, above=0)
    if outside_weight is not None:
        outside_weight = broadcastable("outside_weight", outside_weight, input)
        weight = outside_weight if weight is None else outside_weight * broadcastable("weight", weight, input)
    beta = 1 / sigma**2
    if inside_weight is None:
        return reduced(
            scaled_smooth_l1, input, target, beta, 1.0, weight=weight, reduction=reduction, normalizer=normalizer
        )
    x, y = upcast(input, target)
    error = (x - y) * broadcastable("inside_weight", inside_weight, x)
    return reduce(smooth_l1(error, beta), weight, reduction, normalizer)


def huber_loss(
    input: Values,
    target: Targets,
    *,
    delta: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Half the squared error up to a threshold, linear beyond it.

    Formula:
        d = |x - y|,  l = d² / 2 if d < δ, else δ (d - δ / 2)

    Args:
        input: ``(*shape)`` predictions x, in any unit.
        target: ``(*shape)`` y in the same unit.
        delta: threshold δ > 0 in the unit of the input, and the slope beyond it.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a `delta` that is not above 0, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> huber_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), delta=2.0, reduction="none")
        tensor([0.1250, 4.0000])

    Note:
        It is δ times `smooth_l1_loss` with β = δ: near zero its curvature is 1, where that of smooth L1 is 1 / β.

    Reference:
        P. J. Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    check_elementwise(input, target)
    check_number("delta", delta, above=0)
    return reduced(
        scaled_smooth_l1, input, target, delta, delta, weight=weight, reduction=reduction, normalizer=normalizer
    )


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
    b = math.expm1(gamma / alpha)
    return reduced(
        balanced_l1, input, target, alpha, gamma, beta, b, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused("balanced_l1")
def balanced_l1(x: Tensor, y: Tensor, alpha: float, gamma: float, beta: float, b: float) -> Tensor:
    """Return the elements of `balanced_l1_loss`; b is exp(γ / α) - 1."""
    distance = (x - y).abs()
    inlier = distance.clamp(max=beta)
    near = alpha * (inlier + beta / b) * torch.log1p(b / beta * inlier) - alpha * inlier
    far = gamma * distance + gamma * beta / b - alpha * beta
    return torch.where(distance < beta, near, far)


def focal_l1_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float | None = None,
    beta: float = 0.8,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """L1 whose gradient is largest for moderate errors and smaller for outliers and for what is nearly right.

    Formula:
        d = |x - y|
        l = -α d² (2 ln(β d) - 1) / 4            if d < 1
        l = -α ln(β) d + α (2 ln β + 1) / 4      otherwise
        so that the gradient is -α d ln(β d) up to 1 and -α ln β beyond

    Args:
        input: ``(*shape)`` predicted offsets x, in units in which 1 is a large error.
        target: ``(*shape)`` offsets y in the same unit.
        alpha: α > 0, a factor. None takes e β, with which the largest gradient, at d = 1 / (e β), is 1.
        beta: β from 1 / e to 1. The larger, the smaller the gradient of the outliers; 1 gives them none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, an `alpha` that is not above 0, a `beta` outside [1 / e, 1], or a bad
            `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> focal_l1_loss(torch.tensor([0.5, 3.0]), torch.zeros(2), reduction="none")
        tensor([0.3850, 1.7568])

    Note:
        Value and gradient are continuous at d = 1. The paper adds the loss up over the four offsets of a box.

    Reference:
        Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box Regression", 2021, arXiv 2101.08158,
        section 4.
    """
    check_elementwise(input, target)
    check_number("beta", beta, at_least=1 / math.e, at_most=1)
    if alpha is None:
        alpha = math.e * beta
    check_number("alpha", alpha, above=0)
    return reduced(
        focal_l1, input, target, alpha, math.log(beta), weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused("focal_l1")
def focal_l1(x: Tensor, y: Tensor, alpha: float, log_beta: float) -> Tensor:
    """Return the elements of `focal_l1_loss`."""
    distance = (x - y).abs()
    inlier = distance.clamp(max=1)
    # The square vanishes faster than the logarithm grows; at 0 itself it needs a finite one.
    log_inlier = inlier.clamp(min=torch.finfo(inlier.dtype).tiny).log()
    near = -alpha * inlier**2 * (2 * (log_inlier + log_beta) - 1) / 4
    far = -alpha * log_beta * distance + alpha * (2 * log_beta + 1) / 4
    return torch.where(distance < 1, near, far)


L1Loss = module_form("L1Loss", l1_loss)
SmoothL1Loss = module_form("SmoothL1Loss", smooth_l1_loss)
SmoothL1SigmaLoss = module_form("SmoothL1SigmaLoss", smooth_l1_sigma_loss)
HuberLoss = module_form("HuberLoss", huber_loss)
FocalL1Loss = module_form("FocalL1Loss", focal_l1_loss)
BalancedL1Loss = module_form("BalancedL1Loss", balanced_l1_loss)
