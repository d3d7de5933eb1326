"""Regression of a number together with how sure of it the network is."""

import torch
from torch import Tensor

from lossatlas.checks import check_elementwise, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import broadcastable, reduce
from lossatlas.losses.regression import smooth_l1
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def kl_box_loss(
    input: Values,
    target: Targets,
    *,
    log_variance: Tensor,
    min_log_variance: float = -10.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Distance of a predicted Gaussian from the true coordinate: a wrong coordinate costs less if it is unsure.

    Formula:
        α = ln σ²,  d = |x - y|,  S = d² / 2 if d < 1, else d - 1/2
        l = exp(-α) S + α / 2
        below `min_log_variance` exp(-α) continues as its tangent

    Args:
        input: ``(*shape)`` predicted coordinates x, as offsets in units of the anchor's sides.
        target: ``(*shape)`` coordinates y in the same unit.
        log_variance: predicted α, the logarithm of the variance σ² of x in the square of the unit, broadcasting to
            ``(*shape)``.
        min_log_variance: from -80 to 0. exp(-α) overflows for a very negative α; below this number it goes on as
            a straight line, which still pulls α up, and the gradient of x grows no further.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar. It is negative for small errors that are sure.

    Raises:
        ValueError: shapes that differ or do not broadcast, a `min_log_variance` outside [-80, 0], or a bad `reduction`
            or `normalizer`.
        TypeError: an `input` or `log_variance` that is not floating point.

    Example:
        >>> sure, unsure = torch.full((1,), -2.0), torch.full((1,), 2.0)
        >>> wrong, right = torch.ones(1), torch.zeros(1)
        >>> kl_box_loss(wrong, right, log_variance=sure), kl_box_loss(wrong, right, log_variance=unsure)
        (tensor(2.6945), tensor(1.0677))

    Note:
        Both x and α learn. In what the straight line adds below `min_log_variance` S is detached. For a given error the
        loss is smallest at exp(α) = d² (d < 1) or 2 d - 1. The default floor, a standard deviation of 0.007 sides of an
        anchor, keeps the gradient of x within float16. The authors' code averages over the boxes and adds up over their
        coordinates: ``normalizer=number of boxes``. What to do with the variances at inference is
        `lossatlas.boxes.voting.variance_voting`.

    Reference:
        He et al., "Bounding Box Regression with Uncertainty for Accurate Object Detection", 2019, arXiv 1809.08545,
        section 3.2.
    """
    check_elementwise(input, target)
    check_floating("log_variance", log_variance)
    check_number("min_log_variance", min_log_variance, at_least=-80, at_most=0)
    x, y = upcast(input, target)
    alpha = broadcastable("log_variance", log_variance, x)
    distance = smooth_l1(x - y)
    sure = alpha < min_log_variance
    below = torch.where(sure, min_log_variance - alpha, 0)
    precision = torch.exp(-torch.where(sure, min_log_variance, alpha))
    return reduce(precision * (distance + below * distance.detach()) + alpha / 2, weight, reduction, normalizer)


KLBoxLoss = module_form("KLBoxLoss", kl_box_loss)
