"""Focal losses whose target is a number: a quality, a height of a heatmap, a distance."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.checks import check_elementwise, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.classification import binary_costs
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import fused, reduce, reduced
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def quality_focal_loss(
    input: Values,
    target: Targets,
    *,
    beta: float = 2.0,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Focal loss whose target is a quality from 0 to 1, such as the IoU of the predicted box.

    Formula:
        l = |q - σ(x)|^β · BCE(x, q)

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` qualities q from 0 to 1: the IoU of the decoded box with its object for a positive
            prediction's class, 0 elsewhere. Detach it from the graph.
        beta: how strongly well estimated elements are turned down, at least 0; 0 gives binary cross entropy.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a negative `beta`, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> quality_focal_loss(torch.tensor([0.0]), torch.tensor([0.8]), reduction="none")
        tensor([0.0624])

    Note:
        The factor |q - σ(x)|^β is part of the graph. The authors' first code left out the absolute value, which
        gives NaN for a beta that is not an even number.

    Reference:
        Li et al., "Generalized Focal Loss", 2020, arXiv 2006.04388, equation 5.
    """
    check_elementwise(input, target)
    check_number("beta", beta, at_least=0)
    return reduced(
        quality_costs,
        input,
        target,
        beta,
        ignore_index=ignore_index,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused("quality_focal")
def quality_costs(x: Tensor, q: Tensor, beta: float) -> Tensor:
    """Return the elements of `quality_focal_loss`."""
    # |σ(x) - q| with the tail written out, so that it stays exact for a confident logit and a quality of 1.
    distance = (torch.sigmoid(x) * (1 - q) - torch.sigmoid(-x) * q).abs()
    hit, miss = binary_costs(x, q)
    return safe_power(distance, beta) * (hit + miss)


def varifocal_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy with a quality that weighs positives by it and turns down easy negatives only.

    Formula:
        l = q · BCE(x, q) if q > 0,  α p^γ · BCE(x, 0) otherwise;  p = σ(x)

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` qualities q from 0 to 1: the IoU of the decoded box with its object for a positive
            prediction's class, 0 elsewhere. Detach it from the graph.
        alpha: weight of the negatives, at least 0; of the positives in the other focal losses.
        gamma: how strongly easy negatives are turned down, at least 0.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count; in the paper the number of
            positive predictions.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a negative `alpha` or `gamma`, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> varifocal_loss(torch.tensor([0.0, 0.0]), torch.tensor([0.8, 0.0]), reduction="none")
        tensor([0.5545, 0.1300])

    Note:
        The factor p^γ is part of the graph. A positive whose quality is exactly 0 counts as a negative.

    Reference:
        Zhang et al., "VarifocalNet", 2020, arXiv 2008.13367, equation 2.
    """
    check_elementwise(input, target)
    check_number("alpha", alpha, at_least=0)
    check_number("gamma", gamma, at_least=0)
    return reduced(
        varifocal_costs,
        input,
        target,
        alpha,
        gamma,
        ignore_index=ignore_index,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused("varifocal")
def varifocal_costs(x: Tensor, q: Tensor, alpha: float, gamma: float) -> Tensor:
    """Return the elements of `varifocal_loss`."""
    hit, miss = binary_costs(x, q)
    return torch.where(q > 0, q, alpha * safe_power(torch.sigmoid(x), gamma)) * (hit + miss)


def gaussian_focal_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float = 2.0,
    beta: float = 4.0,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Focal loss of a heatmap with a Gaussian around the centre of each object.

    Formula:
        l = -(1 - p)^α ln p if y = 1,  -(1 - y)^β p^α ln(1 - p) otherwise;  p = σ(x)

    Args:
        input: ``(*shape)`` logits x of the heatmaps.
        target: ``(*shape)`` heights y from 0 to 1 of the Gaussians; exactly 1 at the centres and nowhere else.
        alpha: how strongly easy pixels are turned down, at least 0.
        beta: how strongly the pixels around a centre are turned down, at least 0.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors of the pixels, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the pixels that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count. The papers divide by the
            number of objects, ``(target == 1).sum()``; 0 objects divide by 1.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a negative `alpha` or `beta`, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> heatmap = torch.tensor([1.0, 0.5, 0.0])
        >>> gaussian_focal_loss(torch.zeros(3), heatmap, normalizer=(heatmap == 1).sum())
        tensor(0.3574)

    Note:
        CenterNet's code takes probabilities, cut to [1e-4, 1 - 1e-4]; logits need no cut, so that a pixel that is
        confidently wrong keeps its gradient.

    Reference:
        Law and Deng, "CornerNet", 2018, arXiv 1808.01244, equation 1; Zhou et al., "Objects as Points", 2019,
        arXiv 1904.07850, equation 1.
    """
    check_elementwise(input, target)
    check_number("alpha", alpha, at_least=0)
    check_number("beta", beta, at_least=0)
    return reduced(
        heatmap_costs,
        input,
        target,
        alpha,
        beta,
        ignore_index=ignore_index,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused("gaussian_focal")
def heatmap_costs(x: Tensor, y: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the elements of `gaussian_focal_loss`."""
    centre = -safe_power(torch.sigmoid(-x), alpha) * F.logsigmoid(x)
    around = -safe_power(1 - y, beta) * safe_power(torch.sigmoid(x), alpha) * F.logsigmoid(-x)
    return torch.where(y == 1, centre, around)


def distribution_focal_loss(
    input: Float[Tensor, "*shape bins"],
    target: Targets,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy of a distribution over the numbers 0 to n with a number between two of them.

    Formula:
        l = -[(i + 1 - y) ln s_i + (y - i) ln s_{i+1}],  i = ⌊y⌋,  s = softmax(x)

    Args:
        input: ``(*shape, n + 1)`` logits x of the numbers 0 to n.
        target: ``(*shape)`` y; what lies outside [0, n] counts as 0 or n. In detection the distance to one side of
            the box in units of the stride, with n = 16.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, fewer than two bins, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> distribution_focal_loss(torch.zeros(2, 17), torch.tensor([3.25, 99.0]))
        tensor(2.8332)

    Note:
        The distribution with the least loss is s_i = i + 1 - y, s_{i+1} = y - i, whose mean is y. Other codes cut y
        to n - 0.1 or n - 0.01, because they look up bin i + 1; here y = n is the last bin.

    Reference:
        Li et al., "Generalized Focal Loss", 2020, arXiv 2006.04388, equation 6.
    """
    check_floating("input", input)
    if input.ndim == 0 or input.shape[-1] < 2:
        raise ValueError(f"`input` must have shape (..., bins) with at least 2 bins, but got {tuple(input.shape)}")
    if target.shape != input.shape[:-1]:
        raise ValueError(f"`target` must have shape {tuple(input.shape[:-1])}, but got {tuple(target.shape)}")
    x, y = upcast(input, target)
    bins = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    distance = (y.clamp(0, x.shape[-1] - 1).unsqueeze(-1) - bins).abs()
    # The shares of the two bins around y: 1 at no distance, falling to 0 at the neighbours.
    share = F.relu(1 - distance)
    return reduce(-(share * x.log_softmax(-1)).sum(-1), weight, reduction, normalizer)


QualityFocalLoss = module_form("QualityFocalLoss", quality_focal_loss)
VarifocalLoss = module_form("VarifocalLoss", varifocal_loss)
GaussianFocalLoss = module_form("GaussianFocalLoss", gaussian_focal_loss)
DistributionFocalLoss = module_form("DistributionFocalLoss", distribution_focal_loss)
