"""Classification losses: from logits to cross entropy and its focal relatives."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.checks import check_elementwise, check_floating, check_integer, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce, split_ignored
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def binary_cross_entropy_with_logits(
    input: Values,
    target: Targets,
    *,
    label_smoothing: float = 0.0,
    pos_weight: Tensor | None = None,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Binary cross entropy of logits with targets from 0 to 1.

    Formula:
        l = -[y ln σ(x) + (1 - y) ln(1 - σ(x))]

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` probabilities y from 0 to 1; any dtype.
        label_smoothing: ε in [0, 1); targets become y (1 - ε) + ε / 2.
        pos_weight: factor of the first term, -y ln σ(x); it broadcasts to ``(*shape)``.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a `label_smoothing` outside [0, 1), or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> binary_cross_entropy_with_logits(torch.tensor([0.0, 2.0]), torch.tensor([1, 0]), reduction="none")
        tensor([0.6931, 2.1269])

    Note:
        The gradient is σ(x) - y.

    Reference:
        I. J. Good, "Rational Decisions", 1952 (logarithmic score).
    """
    check_elementwise(input, target)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    y = y * (1 - label_smoothing) + label_smoothing / 2
    loss = _binary_cross_entropy(x, y)
    if pos_weight is not None:
        loss = loss - (pos_weight.to(x.dtype) - 1) * y * F.logsigmoid(x)
    return reduce(loss, weight, reduction, normalizer, valid)


def _binary_cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    # Both logarithms, and not x (1 - y) - ln σ(x), which cancels to nothing for confident negatives.
    return -y * F.logsigmoid(x) - (1 - y) * F.logsigmoid(-x)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Softmax cross entropy of class logits with class indices or class probabilities.

    Formula:
        l = -Σ_c w_c p_c ln softmax(x)_c,  p = (1 - ε) target + ε / C

    Args:
        input: ``(N, C, *spatial)`` logits, or ``(C,)``.
        target: ``(N, *spatial)`` class indices from 0 to C - 1 (an integer dtype), or probabilities of the shape of
            `input` (a floating dtype).
        label_smoothing: ε in [0, 1).
        class_weight: ``(C,)`` factors w of the classes.
        ignore_index: class index of elements that are left out. It has no meaning for probabilities.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `label_smoothing` outside [0, 1), a `class_weight` that is not ``(C,)``,
            or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> cross_entropy(torch.zeros(2, 4), torch.tensor([3, -100]))
        tensor(1.3863)

    Note:
        ``"mean"`` divides by the number of elements also when `class_weight` is given. torch divides by the sum of
        the weights of the targets; ``normalizer=class_weight[target].sum()`` gives that.

    Reference:
        J. S. Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990. Label
        smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2016, arXiv 1512.00567, section 7.
    """
    check_floating("input", input)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    if input.ndim == 0:
        raise ValueError("`input` must have a class axis, but got shape ()")
    axis = min(input.ndim - 1, 1)
    classes = input.shape[axis]
    if class_weight is not None and class_weight.shape != (classes,):
        raise ValueError(f"`class_weight` must have shape ({classes},), but got {tuple(class_weight.shape)}")
    (x,) = upcast(input)
    valid = None
    if target.is_floating_point():
        if target.shape != input.shape:
            raise ValueError(
                f"`target` of probabilities must have the shape of `input`, {tuple(input.shape)}, "
                f"but got {tuple(target.shape)}"
            )
        probability = target.to(x.dtype) * (1 - label_smoothing) + label_smoothing / classes
        if class_weight is not None:
            probability = probability * _along(class_weight.to(x.dtype), axis, x.ndim)
        return reduce(-_weighted_log(probability, x, axis), weight, reduction, normalizer)
    index, x, valid = index_target(x, target, ignore_index, axis)
    log_probability = x.log_softmax(axis)
    picked = -log_probability.gather(axis, index.unsqueeze(axis)).squeeze(axis)
    if class_weight is not None:
        picked = picked * class_weight.to(x.dtype)[index]
    if label_smoothing:
        factor = 1 if class_weight is None else _along(class_weight.to(x.dtype), axis, x.ndim)
        picked = (1 - label_smoothing) * picked - label_smoothing * (log_probability * factor).mean(axis)
    return reduce(picked, weight, reduction, normalizer, valid)


def index_target(input: Tensor, target: Tensor, ignore_index: int, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Check a target of class indices and take the ignored elements out of both tensors.

    Args:
        input: logits whose axis `axis` holds the classes.
        target: class indices with the shape of `input` without that axis.
        ignore_index: class index of ignored elements.
        axis: 0 or 1.

    Returns:
        Indices and logits, both zero where ignored, and the mask of valid elements.
    """
    check_integer("target", target)
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    if target.shape != expected:
        raise ValueError(f"`target` of class indices must have shape {tuple(expected)}, but got {tuple(target.shape)}")
    valid = target != ignore_index
    index = torch.where(valid, target, 0).long()
    return index, torch.where(valid.unsqueeze(axis), input, 0), valid


def _along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    shape = [1] * ndim
    shape[axis] = -1
    return vector.view(shape)


def _weighted_log(probability: Tensor, logits: Tensor, axis: int) -> Tensor:
    return (probability * logits.log_softmax(axis)).sum(axis)


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
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    # Each tail by its own sigmoid: 1 - σ(x) would round to 0 for a confident logit.
    miss = torch.sigmoid(-x) * y + torch.sigmoid(x) * (1 - y)
    loss = safe_power(miss, gamma) * _binary_cross_entropy(x, y)
    if alpha is not None:
        loss = loss * (alpha * y + (1 - alpha) * (1 - y))
    return reduce(loss, weight, reduction, normalizer, valid)


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
    x, q = upcast(input, target)
    x, q, valid = split_ignored(x, q, ignore_index)
    # |σ(x) - q| with the tail written out, so that it stays exact for a confident logit and a quality of 1.
    distance = (torch.sigmoid(x) * (1 - q) - torch.sigmoid(-x) * q).abs()
    loss = safe_power(distance, beta) * _binary_cross_entropy(x, q)
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


BinaryCrossEntropyWithLogits = module_form("BinaryCrossEntropyWithLogits", binary_cross_entropy_with_logits)
CrossEntropy = module_form("CrossEntropy", cross_entropy)
SigmoidFocalLoss = module_form("SigmoidFocalLoss", sigmoid_focal_loss)
QualityFocalLoss = module_form("QualityFocalLoss", quality_focal_loss)
