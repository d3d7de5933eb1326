"""Focal losses: cross entropies in which what is well classified counts little."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.checks import check_elementwise, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.classification import binary_costs, class_axis, class_vector, reduced_class_costs
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import fused, reduce, reduced, split_ignored
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def sigmoid_focal_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Focal loss: binary cross entropy in which well classified elements count little.

    Formula:
        l = -αₜ (1 - pₜ)^γ ln pₜ,  pₜ = p y + (1 - p)(1 - y),  αₜ = α y + (1 - α)(1 - y),  p = σ(x)

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` y, 1 for positives and 0 for negatives; any dtype.
        alpha: weight of the positives, from 0 to 1; negatives get 1 - alpha. None leaves both at 1.
        gamma: how strongly easy elements are turned down, at least 0; 0 gives weighted cross entropy.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count; in detection the number of
            positive predictions.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, an `alpha` outside [0, 1], a negative `gamma`, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> x = torch.tensor([0.9, 0.1]).logit()
        >>> sigmoid_focal_loss(x, torch.tensor([1, 0]), alpha=None, reduction="none")
        tensor([0.0011, 0.0011])

    Note:
        The modulating factor (1 - pₜ)^γ is part of the graph. torchvision switches alpha off by -1, which is also
        the default of fvcore; torchvision gives NaN for the mean of an empty input and a NaN gradient for gamma < 1
        at saturated logits.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, equation 5.
    """
    check_elementwise(input, target)
    check_number("gamma", gamma, at_least=0)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
    positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    return reduced(
        focal_costs,
        input,
        target,
        positive,
        negative,
        gamma,
        ignore_index=ignore_index,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused("sigmoid_focal")
def focal_costs(x: Tensor, y: Tensor, positive: float, negative: float, gamma: float) -> Tensor:
    """Return the elements of `sigmoid_focal_loss`, from the weights of positives and negatives."""
    # Each tail by its own sigmoid: 1 - σ(x) would round to 0 for a confident logit.
    miss = torch.sigmoid(-x) * y + torch.sigmoid(x) * (1 - y)
    hit, false_alarm = binary_costs(x, y)
    return (positive * y + negative * (1 - y)) * safe_power(miss, gamma) * (hit + false_alarm)


def softmax_focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Focal loss of class logits: softmax cross entropy in which well classified elements count little.

    Formula:
        l = -Σ_c α_c w_c y_c (1 - p_c)^γ ln p_c,  p = softmax(x),  y = (1 - ε) target + ε / C
        α_0 = 1 - α,  α_c = α for c ≥ 1

    Args:
        input: ``(N, C, *spatial)`` logits x, or ``(C,)``.
        target: ``(N, *spatial)`` class indices from 0 to C - 1 (an integer dtype), or probabilities of the shape of
            `input` (a floating dtype).
        alpha: weight of the classes from 1 on, from 0 to 1; class 0, the background, gets 1 - alpha. None, for
            classes without a background, leaves all at 1. Detectron uses 0.25.
        gamma: how strongly easy elements are turned down, at least 0; 0 gives weighted cross entropy.
        label_smoothing: ε in [0, 1).
        class_weight: ``(C,)`` factors w of the classes.
        ignore_index: class index of elements that are left out. It has no meaning for probabilities.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count; in detection the number of
            positive predictions.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, an `alpha` outside [0, 1], a negative `gamma`, a `label_smoothing` outside
            [0, 1), a `class_weight` that is not ``(C,)``, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> softmax_focal_loss(torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log(), torch.tensor([0, 0]), reduction="none")
        tensor([0.0011, 0.1733])

    Note:
        The modulating factor (1 - p)^γ is part of the graph. kornia and MONAI take the same alpha; their mean divides
        by the number of elements times the number of classes.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, section 3.2 (the form with
        softmax is the one of the authors' code).
    """
    check_number("gamma", gamma, at_least=0)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
        class_weight = _background_balance(alpha, input, class_weight)

    return reduced_class_costs(
        input,
        target,
        gamma,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        ignore_index=ignore_index,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def _background_balance(alpha: float, input: Tensor, class_weight: Tensor | None) -> Tensor:
    classes = torch.arange(input.shape[class_axis(input)], device=input.device)
    balance = torch.where(classes == 0, 1 - alpha, alpha * upcast(input)[0].new_ones(()))
    return balance if class_weight is None else balance * class_vector("class_weight", class_weight, balance)


def sigmoid_focal_star_loss(
    input: Values,
    target: Targets,
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    beta: float = 1.0,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """The focal loss FL*, which moves and steepens the logit instead of weighing the loss.

    Formula:
        l = -αₜ ln σ(γ xₜ + β) / γ,  xₜ = x if y = 1, -x if y = 0,  αₜ = α y + (1 - α)(1 - y)

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` y, 1 for positives and 0 for negatives; any dtype.
        alpha: weight of the positives, from 0 to 1; negatives get 1 - alpha. None leaves both at 1.
        gamma: how steep the logit is made, above 0.
        beta: how far it is moved; the paper shows (γ, β) = (2, 1) and (4, 0).
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, an `alpha` outside [0, 1], a `gamma` that is not above 0, a `beta` that is not
            finite, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> sigmoid_focal_star_loss(torch.tensor([0.0, 2.0]), torch.tensor([1, 1]), reduction="none")
        tensor([0.1566, 0.0034])

    Note:
        fvcore has no beta, which is beta 0 here, and starts from gamma 1. A target between 0 and 1 mixes the two
        cases.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, appendix A.
    """
    check_elementwise(input, target)
    check_number("gamma", gamma, above=0)
    check_number("beta", beta)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    share = y if alpha is None else alpha * y
    other = 1 - y if alpha is None else (1 - alpha) * (1 - y)
    loss = -(share * F.logsigmoid(gamma * x + beta) + other * F.logsigmoid(-gamma * x + beta)) / gamma
    return reduce(loss, weight, reduction, normalizer, valid)


def asymmetric_loss(
    input: Values,
    target: Targets,
    *,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Focal loss of many labels with a focus of its own for negatives, of which the easiest are dropped.

    Formula:
        l = -y (1 - p)^γ₊ ln p - (1 - y) q^γ₋ ln(1 - q),  p = σ(x),  q = max(p - m, 0)

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` y, 1 for a label that is present and 0 for one that is not; any dtype.
        gamma_neg: γ₋, how strongly easy negatives are turned down, at least 0.
        gamma_pos: γ₊, how strongly easy positives are turned down, at least 0. The paper recommends 0; its code
            starts from 1.
        clip: probability margin m in [0, 1); negatives whose probability is below it cost nothing.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``, which is what the
            authors' code does.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a negative `gamma_neg` or `gamma_pos`, a `clip` outside [0, 1), or a bad
            `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> asymmetric_loss(torch.tensor([0.0, 0.0, -3.0]), torch.tensor([1, 0, 0]), reduction="none")
        tensor([0.6931, 0.0245, 0.0000])

    Note:
        The focusing factors are part of the graph, as in the paper's analysis of the gradient; the authors' code can
        switch that off.

    Reference:
        Ben-Baruch et al., "Asymmetric Loss For Multi-Label Classification", 2020, arXiv 2009.14119, section 2.
    """
    check_elementwise(input, target)
    check_number("gamma_neg", gamma_neg, at_least=0)
    check_number("gamma_pos", gamma_pos, at_least=0)
    check_number("clip", clip, at_least=0, below=1)
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    positive, negative = binary_costs(x, y)
    false_alarm = torch.sigmoid(x)
    if clip > 0:
        false_alarm = F.relu(false_alarm - clip)
        negative = -(1 - y) * torch.log1p(-false_alarm)
    loss = safe_power(torch.sigmoid(-x), gamma_pos) * positive + safe_power(false_alarm, gamma_neg) * negative
    return reduce(loss, weight, reduction, normalizer, valid)


def prior_probability_bias(probability: float = 0.01) -> float:
    """Return the initial bias of a classification layer whose scores shall start at the given probability.

    Formula:
        b = -ln((1 - π) / π)

    Args:
        probability: π, between 0 and 1.

    Returns:
        The bias b.

    Raises:
        ValueError: a `probability` that is not between 0 and 1.

    Example:
        >>> round(prior_probability_bias(), 4)
        -4.5951

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv 1708.02002, section 4.1.
    """
    check_number("probability", probability, above=0, below=1)
    return -math.log((1 - probability) / probability)


SigmoidFocalLoss = module_form("SigmoidFocalLoss", sigmoid_focal_loss)
SoftmaxFocalLoss = module_form("SoftmaxFocalLoss", softmax_focal_loss)
SigmoidFocalStarLoss = module_form("SigmoidFocalStarLoss", sigmoid_focal_star_loss)
AsymmetricLoss = module_form("AsymmetricLoss", asymmetric_loss)
