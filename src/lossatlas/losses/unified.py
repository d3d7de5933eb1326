"""Compound segmentation losses that change both of their parts: combo, exponential logarithmic and unified focal.

Their elements are those of `lossatlas.losses.compound`: one for each image, or a single one over the batch.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.checks import check_choice, check_number
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.classification import binary_costs
from lossatlas.losses.compound import mean_dice, mean_of_classes, mean_of_pixels, valid_images
from lossatlas.losses.modules import module_form
from lossatlas.losses.overlap import tversky_distance
from lossatlas.losses.reduction import reduce
from lossatlas.losses.segmentation_targets import Absent, Segmentation, pixel_cross_entropy, prepare, resolve_absent
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction

UnifiedVariant = Literal["asymmetric", "symmetric"]


def combo_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 0.0,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Combo loss: a weighed binary cross entropy of each channel plus Dice.

    Formula:
        l = α mean (-β g ln p - (1 - β)(1 - g) ln(1 - p)) + (1 - α) mean_c (1 - Dice_c)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        alpha: share α of the cross entropy, from 0 to 1.
        beta: β from 0 to 1; above 1/2 false negatives cost more than false positives.
        smooth: of Dice, at least 0.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image, False a single one over the batch.
        include_background: False leaves out the first class of Dice; the cross entropy has all.
        absent: the Dice of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"`` leaves
            it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, an `alpha` or `beta` outside [0, 1], a negative `smooth`, or a bad `absent`,
            `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> combo_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.4272)

    Note:
        The paper subtracts (1 - α) Dice; here (1 - α)(1 - Dice) is added, which is 1 - α more and has the same
        gradient. The cross entropy is the mean over pixels and channels.

    Reference:
        Taghanaki et al., "Combo Loss", 2018, arXiv 1805.02798, equation 3.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        check_number(name, value, at_least=0, at_most=1)
    check_number("smooth", smooth, at_least=0)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    dice, _, valid = mean_dice(
        input,
        target,
        squared=False,
        smooth=smooth,
        overlap="product",
        multilabel=multilabel,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        ignore_index=ignore_index,
    )
    x, g = segmentation.logits, segmentation.target
    if segmentation.exclusive:
        hit, miss = -g * x.log_softmax(1), -(1 - g) * _log_complement(x)
    else:
        hit, miss = binary_costs(x, g)
    pixels = mean_of_pixels(beta * hit + (1 - beta) * miss, segmentation.valid, per_image)
    loss = alpha * pixels + (1 - alpha) * dice
    return reduce(loss, weight, reduction, normalizer, valid)


def _log_complement(x: Tensor) -> Tensor:
    """Return ln(1 - softmax(x)) along axis 1, also where the softmax rounds to 1."""
    largest = F.one_hot(x.argmax(1), x.shape[1]).movedim(-1, 1).bool()
    # Only the largest probability can be near 1, and its complement is the sum of all others.
    others = torch.where(largest, -torch.inf, x).logsumexp(1, keepdim=True) - x.logsumexp(1, keepdim=True)
    return torch.where(largest, others, torch.log1p(-torch.where(largest, 0, x.softmax(1))))


def exponential_logarithmic_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    dice_weight: float = 0.8,
    ce_weight: float = 0.2,
    dice_gamma: float = 0.3,
    ce_gamma: float = 0.3,
    smooth: float = 1.0,
    class_weight: Tensor | None = None,
    per_image: bool = True,
    include_background: bool = True,
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Exponential logarithmic loss: powers of the logarithms of Dice and of the true class's probability.

    Formula:
        l = w_d mean_c (-ln Dice_c)^γ_d + w_e mean_i v_y (-ln p_y)^γ_e,  v_c = √(Σ_k f_k / f_c)
        Dice_c = (2 Σ p g + s) / (Σ p + Σ g + s),  f_c: number of pixels of class c

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        dice_weight: w_d, at least 0.
        ce_weight: w_e, at least 0.
        dice_gamma: γ_d > 0.
        ce_gamma: γ_e > 0.
        smooth: s > 0; with it a class that is absent from the target has a finite logarithm, which grows with its false
            positives.
        class_weight: ``(C,)`` weights v of the classes, ``(2,)`` for one channel; the paper's come from the frequencies
            in the training data. None takes the frequencies in the batch.
        per_image: True gives an element for each image, False a single one over the batch.
        include_background: False leaves out the first class of Dice; the cross entropy has all.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a negative weight, a `dice_gamma`, `ce_gamma` or `smooth` that is not above
            0, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> exponential_logarithmic_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.6739)

    Note:
        One channel counts as two classes, background and foreground. The gradient of a power below 1 is cut at
        exactly 0, where it would be infinite. A widely copied implementation leaves the cross entropy without its
        power.

    Reference:
        Wong et al., "3D Segmentation with Exponential Logarithmic Loss for Highly Unbalanced Object Sizes", 2018, arXiv
        1809.00076, equations 1 to 4.
    """
    for name, value in (("dice_weight", dice_weight), ("ce_weight", ce_weight)):
        check_number(name, value, at_least=0)
    for name, value in (("dice_gamma", dice_gamma), ("ce_gamma", ce_gamma), ("smooth", smooth)):
        check_number(name, value, above=0)
    segmentation = prepare(input, target, ignore_index=ignore_index, two_classes=True)
    counts = segmentation.regions(include_background).counts(per_image)
    # -ln Dice, written as the logarithm of 1 + errors / hits.
    error = counts.false_positive + counts.false_negative
    dice = safe_power(torch.log1p(error / (2 * counts.true_positive + smooth)), dice_gamma)
    class_factor = _frequency_weight(segmentation) if class_weight is None else class_weight
    if class_factor.shape != segmentation.logits.shape[1:2]:
        expected = tuple(segmentation.logits.shape[1:2])
        raise ValueError(f"`class_weight` must have shape {expected}, but got {tuple(class_factor.shape)}")
    factor = torch.einsum("c,nc...->n...", class_factor.to(error.dtype), segmentation.target)
    pixels = factor * safe_power(pixel_cross_entropy(segmentation), ce_gamma)
    loss = dice_weight * mean_of_classes(dice, counts.pixels > 0)
    loss = loss + ce_weight * mean_of_pixels(pixels, segmentation.valid_pixels, per_image)
    return reduce(loss, weight, reduction, normalizer, valid_images(segmentation, per_image))


def _frequency_weight(segmentation: Segmentation) -> Tensor:
    """Return √(Σ f / f_c) for each class, 1 for one without pixels."""
    frequency = segmentation.target.transpose(0, 1).flatten(1).sum(1)
    return torch.where(frequency > 0, frequency.sum() / torch.where(frequency > 0, frequency, 1), 1).sqrt()


def unified_focal_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    balance: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    variant: UnifiedVariant = "asymmetric",
    smooth: float = 0.0,
    per_image: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Unified focal loss: a focal cross entropy plus a focal Tversky loss with shared parameters.

    Formula:
        l = λ mean_i F + (1 - λ) Σ_c T_c,  t_c = 1 - (TP + s) / (TP + δ FN + (1 - δ) FP + s)
        asymmetric: F = -(1 - δ)(1 - p₀)^γ g₀ ln p₀ - Σ_{c>0} δ g_c ln p_c,   T₀ = t₀,  T_c = t_c^(1 - γ)
        symmetric:  F = -(1 - δ)(1 - p₀)^γ g₀ ln p₀ - Σ_{c>0} δ (1 - p_c)^γ g_c ln p_c,   T_c = t_c^(1 - γ)

    Args:
        input: ``(N, C, *spatial)`` logits of classes, the first of them background; one channel is binary
            segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        balance: share λ of the cross entropy, from 0 to 1.
        delta: δ from 0 to 1; above 1/2 the foreground weighs more, and false negatives more than false positives.
        gamma: γ, at least 0 and below 1: turns down easy pixels of the background, and turns up classes that are
            nearly right.
        variant: whether the powers spare the rare classes (``"asymmetric"``) or apply to all (``"symmetric"``).
        smooth: s, at least 0. It is not needed for empty classes, see `absent`.
        per_image: True gives an element for each image, False a single one over the batch.
        absent: T_c of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"`` leaves it
            out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a `balance` or `delta` outside [0, 1], a `gamma` outside [0, 1), a negative
            `smooth`, or a bad `variant`, `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> unified_focal_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.5927)

    Note:
        One channel counts as two classes, background and foreground; the classes after the first are the rare ones.
        Both parts are sums over the classes, as in the paper; MONAI, which has the asymmetric form for two classes
        from probabilities, takes means over the two, half of this.

    Reference:
        Yeung et al., "Unified Focal loss", 2021, arXiv 2102.04525, section 3.3, with the exponents of the authors'
        code.
    """
    for name, value in (("balance", balance), ("delta", delta)):
        check_number(name, value, at_least=0, at_most=1)
    check_number("gamma", gamma, at_least=0, below=1)
    check_number("smooth", smooth, at_least=0)
    check_choice("variant", variant, get_args(UnifiedVariant))
    segmentation = prepare(input, target, ignore_index=ignore_index, two_classes=True)
    log_probability = segmentation.logits.log_softmax(1)
    costs = -segmentation.target * log_probability
    easy = safe_power(-torch.expm1(log_probability), gamma)
    common, rare = costs[:, :1] * easy[:, :1], costs[:, 1:]
    if variant == "symmetric":
        rare = rare * easy[:, 1:]
    pixels = (1 - delta) * common.sum(1) + delta * rare.sum(1)
    counts = segmentation.regions().counts(per_image)
    distance = tversky_distance(counts, 1 - delta, delta, smooth)
    bent = safe_power(distance, 1 - gamma)
    if variant == "asymmetric":
        bent = torch.cat((distance[..., :1], bent[..., 1:]), -1)
    bent, valid = resolve_absent(bent, counts, absent)
    loss = balance * mean_of_pixels(pixels, segmentation.valid_pixels, per_image)
    loss = loss + (1 - balance) * torch.where(valid, bent, 0).sum(-1)
    return reduce(loss, weight, reduction, normalizer, valid_images(segmentation, per_image))


ComboLoss = module_form("ComboLoss", combo_loss)
ExponentialLogarithmicLoss = module_form("ExponentialLogarithmicLoss", exponential_logarithmic_loss)
UnifiedFocalLoss = module_form("UnifiedFocalLoss", unified_focal_loss)
