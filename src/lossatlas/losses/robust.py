"""Cross entropies of classes with another shape than the logarithm's."""

import torch
from torch import Tensor

from lossatlas.checks import check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import check_probability_target, class_axis, class_costs, index_target
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.typing import Loss, Normalizer, Reduction


def poly_loss(
    input: Tensor,
    target: Tensor,
    *,
    epsilon: float = 2.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Softmax cross entropy with another coefficient of its leading polynomial term (Poly-1).

    Formula:
        l = Σ_c w_c y_c [-ln p_c + ε₁ (1 - p_c)],  p = softmax(x),  y = (1 - ε) target + ε / C

    Args:
        input: ``(N, C, *spatial)`` logits x, or ``(C,)``.
        target: ``(N, *spatial)`` class indices from 0 to C - 1 (an integer dtype), or probabilities of the shape of
            `input` (a floating dtype).
        epsilon: ε₁, at least -1, below which the loss would fall as the prediction gets worse. 0 is cross entropy;
            the paper takes 2 for ImageNet and -1 for instance segmentation.
        label_smoothing: ε in [0, 1).
        class_weight: ``(C,)`` factors w of the classes.
        ignore_index: class index of elements that are left out. It has no meaning for probabilities.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, an `epsilon` below -1, a `label_smoothing` outside [0, 1), a
            `class_weight` that is not ``(C,)``, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> poly_loss(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0]))
        tensor(1.6931)

    Reference:
        Leng et al., "PolyLoss", 2022, arXiv 2204.12511 (Poly-1).
    """
    check_number("epsilon", epsilon, at_least=-1)
    loss, valid = class_costs(
        input,
        target,
        lambda log_probability: -log_probability - epsilon * torch.expm1(log_probability),
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        ignore_index=ignore_index,
    )
    return reduce(loss, weight, reduction, normalizer, valid)


def bi_tempered_loss(
    input: Tensor,
    target: Tensor,
    *,
    t1: float = 0.8,
    t2: float = 1.2,
    label_smoothing: float = 0.0,
    iterations: int = 5,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy with a bounded logarithm and a softmax with heavy tails, for labels that may be wrong.

    Formula:
        l = Σ_c y_c (ln_t₁ y_c - ln_t₁ p_c) - (y_c^(2 - t₁) - p_c^(2 - t₁)) / (2 - t₁)
        p_c = exp_t₂(x_c - λ) with λ so that Σ p_c = 1,  y = (1 - ε) target + ε / C
        ln_t u = (u^(1 - t) - 1) / (1 - t),  exp_t its inverse;  ln_1 = ln, exp_1 = exp

    Args:
        input: ``(N, C, *spatial)`` logits x, or ``(C,)``.
        target: ``(N, *spatial)`` class indices from 0 to C - 1 (an integer dtype), or probabilities of the shape of
            `input` (a floating dtype).
        t1: temperature of the logarithm, from 0 to 1. Below 1 the loss of an element is at most 1 / (1 - t1), so that
            an outlier counts only so much.
        t2: temperature of the softmax, from 1 to 4. Above 1 its tails are heavier.
        label_smoothing: ε in [0, 1).
        iterations: steps of the search for λ, at least 1. Each about doubles the number of exact digits.
        ignore_index: class index of elements that are left out. It has no meaning for probabilities.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `t1` outside [0, 1], a `t2` outside [1, 4], a `label_smoothing` outside
            [0, 1), fewer than 1 `iterations`, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> bi_tempered_loss(torch.tensor([[0.0, 9.0], [0.0, 99.0]]), torch.tensor([0, 0]), reduction="none")
        tensor([3.2110, 4.7596])

    Note:
        With t1 = t2 = 1 and class indices it is softmax cross entropy; probabilities cost their entropy less. The
        gradient is that of the exact λ, by implicit differentiation. The authors' code spreads the smoothing over the
        other classes, which is ε C / (C - 1) here, and seeks λ by a fixed-point iteration. The
        paper tunes both temperatures for each data set; these defaults are moderate.

    Reference:
        Amid et al., "Robust Bi-Tempered Logistic Loss Based on Bregman Divergences", 2019, arXiv 1906.03361.
    """
    check_number("t1", t1, at_least=0, at_most=1)
    check_number("t2", t2, at_least=1, at_most=4)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    check_number("iterations", iterations, at_least=1)
    axis = class_axis(input)
    (x,) = upcast(input)
    x, y, valid = _expected_classes(x, target, ignore_index, axis)
    y = (1 - label_smoothing) * y + label_smoothing / x.shape[axis]
    log_p = _log_tempered_softmax(x, t2, axis, iterations)
    entropy = (_tempered_log(y.log(), t1) * y).where(y > 0, 0)
    divergence = entropy - y * _tempered_log(log_p, t1) - (y ** (2 - t1) - ((2 - t1) * log_p).exp()) / (2 - t1)
    return reduce(divergence.sum(axis), weight, reduction, normalizer, valid)


def _expected_classes(x: Tensor, target: Tensor, ignore_index: int, axis: int) -> tuple[Tensor, Tensor, Tensor | None]:
    if target.is_floating_point():
        check_probability_target(x, target)
        return x, target.to(x.dtype), None
    index, x, valid = index_target(x, target, ignore_index, axis)
    return x, torch.zeros_like(x).scatter(axis, index.unsqueeze(axis), 1.0), valid


def _tempered_log(log: Tensor, t: float) -> Tensor:
    return log if t == 1 else torch.expm1((1 - t) * log) / (1 - t)


def _log_tempered_softmax(x: Tensor, t: float, axis: int, iterations: int) -> Tensor:
    """Return the logarithm of the tempered softmax along an axis.

    λ solves S(λ) = Σ exp_t(x - λ) = 1. In S^(1 - t), which is concave, Newton's steps from λ = max x never go too
    far; one step is λ + ln_t(S) S^t / Σ exp_t(x - λ)^t. A last step, of which S alone is in the graph, has the
    derivative of the exact λ, ∂λ/∂x = exp_t(x - λ)^t / Σ exp_t(x - λ)^t.
    """
    if t == 1 or x.shape[axis] == 0:
        return x.log_softmax(axis)

    def step(x: Tensor, shift: Tensor) -> Tensor:
        log_p = _log_tempered_exp(x - shift, t)
        log_sum = log_p.logsumexp(axis, keepdim=True)
        rate = (t * log_sum - (t * log_p).logsumexp(axis, keepdim=True)).exp()
        return shift + _tempered_log(log_sum, t) * rate.detach()

    fixed = x.detach()
    shift = fixed.amax(axis, keepdim=True)
    for _ in range(iterations):
        shift = step(fixed, shift)
    return _log_tempered_exp(x - step(x, shift), t)


def _log_tempered_exp(x: Tensor, t: float) -> Tensor:
    return torch.log1p((1 - t) * x) / (1 - t)


PolyLoss = module_form("PolyLoss", poly_loss)
BiTemperedLoss = module_form("BiTemperedLoss", bi_tempered_loss)
