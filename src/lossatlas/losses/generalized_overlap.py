"""Overlap losses that pool the classes of an image, or that count true negatives as well.

`lossatlas.losses.segmentation_targets` says what they take, what their elements are, and what becomes of classes that
are absent from the target. Where the classes of an image are pooled there is one element for each image, ``(N,)``, or
a single one over the batch; one channel then counts as two classes, background and foreground.
"""

import torch
from torch import Tensor

from lossatlas.boxes.geometry import safe_divide
from lossatlas.checks import check_number
from lossatlas.losses.arithmetic import safe_power, safe_sqrt
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.losses.segmentation_targets import Absent, Counts, Overlap, prepare, resolve_absent
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction


def generalized_dice_distance(counts: Counts, power: float, absent: Absent) -> tuple[Tensor, Tensor]:
    """Return the generalized Dice distance of each image from the counts of its classes, and which are valid."""
    present = counts.present
    volume = torch.where(present, counts.actual, 1)
    smallest = torch.where(present, counts.actual, torch.inf).amin(-1, keepdim=True)
    smallest = torch.where(smallest.isinf(), 1, smallest)
    # Relative to the smallest class, because 1 / V² of a large class leaves the range of half the floats.
    class_weight = safe_power(smallest / volume, power)
    if absent == "penalize":
        class_weight = torch.where(present, class_weight, 1)
    elif absent == "skip":
        class_weight = torch.where(present, class_weight, 0)
    error = counts.false_positive + counts.false_negative
    size = 2 * counts.true_positive + error
    loss = safe_divide((class_weight * error).sum(-1), (class_weight * size).sum(-1))
    pooled = Counts(*(part.sum(-1) for part in counts))
    return resolve_absent(loss, pooled, absent)


def generalized_dice_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    power: float = 2.0,
    overlap: Overlap = "product",
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Generalized Dice loss: one Dice for all classes of an image, in which small classes weigh as much as large ones.

    Formula:
        l = 1 - 2 Σ_c w_c Σ m / Σ_c w_c (Σ p + Σ g),  w_c = 1 / (Σ g)^k,  m = p g or min(p, g)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        power: k, at least 0: 2 of the paper, 1, or 0 for equal weights.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image, False a single one over the batch.
        include_background: False leaves out the first class.
        absent: the weight of a class that is absent from the target: ``"penalize"`` gives it the largest weight among
            the classes that are present, ``"skip"`` none, ``"formula"`` that of a class of one pixel. An image with no
            class at all is the mean error, not valid, or 1.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a negative `power`, or a bad `overlap`, `absent`, `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> generalized_dice_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.3237)

    Note:
        One channel counts as background and foreground, as in the paper; MONAI's weight of a single channel cancels.
        MONAI's rule for absent classes is ``"penalize"``, NiftyNet's ``"formula"``. The weights are constants.

    Reference:
        Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations",
        2017, arXiv 1707.03237, section 2.1.
    """
    check_number("power", power, at_least=0)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index, two_classes=True)
    counts = segmentation.regions(include_background).counts(per_image, overlap)
    loss, valid = generalized_dice_distance(counts, power, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def penalty_generalized_dice_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    penalty: float = 2.5,
    power: float = 2.0,
    overlap: Overlap = "product",
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Generalized Dice loss that grows slowly while it is small and fast once it is large.

    Formula:
        l = L / (1 + k (1 - L)),  L the generalized Dice loss

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        penalty: k, at least 0; 0 gives `generalized_dice_loss`.
        power: exponent of the volumes in the weights of the classes, at least 0.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image, False a single one over the batch.
        include_background: False leaves out the first class.
        absent: the weight of a class that is absent from the target, as in `generalized_dice_loss`.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a negative `penalty` or `power`, or a bad `overlap`, `absent`, `reduction`
            or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> penalty_generalized_dice_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.1203)

    Note:
        The formula is for the loss L. A widely copied implementation puts the negative Dice score in its place, and
        becomes negative.

    Reference:
        Yang et al., "Major Vessel Segmentation on X-ray Coronary Angiography using Deep Networks with a Novel Penalty
        Loss Function", 2019 (k = 2.5).
    """
    check_number("penalty", penalty, at_least=0)
    check_number("power", power, at_least=0)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index, two_classes=True)
    counts = segmentation.regions(include_background).counts(per_image, overlap)
    loss, valid = generalized_dice_distance(counts, power, absent)
    return reduce(loss / (1 + penalty * (1 - loss)), weight, reduction, normalizer, valid)


def wasserstein_dice_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    distance: Tensor | None = None,
    smooth: float = 0.0,
    per_image: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Generalized Wasserstein Dice loss: an error between similar classes costs less than one between others.

    Formula:
        W = Σ_c M[c, y] p_c,  T = Σ (1 - W) over the pixels of the foreground,  E = Σ W over all pixels
        l = 1 - (2 T + s) / (2 T + E + s)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
            A soft target averages M over its classes.
        distance: ``(C, C)`` distances M of the classes, from 0 to 1 with zeros on the diagonal; ``(2, 2)`` for one
            channel. None puts all classes 1 apart.
        smooth: s, at least 0. It is not needed for images without foreground, see `absent`.
        per_image: True gives an element for each image, False a single one over the batch.
        absent: the element of an image whose target is background (class 0) everywhere: ``"penalize"`` is the mean of
            W, ``"skip"`` leaves it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a negative `smooth`, or a bad `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> wasserstein_dice_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.3453)

    Note:
        For two classes 1 apart it is the Dice loss of the foreground. MONAI divides `distance` by its largest entry
        and adds ``smooth=1e-5``; before its version 1.6 a batch of two gave wrong numbers.

    Reference:
        Fidon et al., "Generalised Wasserstein Dice Score for Imbalanced Multi-class Segmentation using Holistic
        Convolutional Networks", 2017, arXiv 1707.00478, section 2.2, with all foreground classes 1 from the background
        in T.
    """
    check_number("smooth", smooth, at_least=0)
    segmentation = prepare(input, target, ignore_index=ignore_index, two_classes=True)
    p, g = segmentation.probability(), segmentation.target
    classes = p.shape[1]
    if distance is None:
        apart = 1 - torch.eye(classes, dtype=p.dtype, device=p.device)
    elif distance.shape != (classes, classes):
        raise ValueError(f"`distance` must have shape {(classes, classes)}, but got {tuple(distance.shape)}")
    else:
        apart = distance.to(p.dtype)
    moved = (p * torch.einsum("ck,nk...->nc...", apart, g)).sum(1)
    foreground = g[:, 1:].sum(1)
    axes = tuple(range(1 if per_image else 0, moved.ndim))
    hit, error = (foreground * (1 - moved)).sum(axes), moved.sum(axes)
    counts = Counts(
        true_positive=hit,
        false_positive=error,
        false_negative=torch.zeros_like(error),
        actual=foreground.sum(axes),
        pixels=segmentation.valid_pixels.to(p.dtype).sum(axes),
    )
    loss, valid = resolve_absent(safe_divide(error, 2 * hit + error + smooth), counts, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def mcc_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Matthews correlation loss: 1 - the correlation of prediction and target, which counts true negatives too.

    Formula:
        l = 1 - (TP TN - FP FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN))

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target or fills it, for which no correlation exists:
            ``"penalize"`` is the mean error, ``"skip"`` leaves it out, ``"formula"`` is 1.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` from 0 to 2 with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> mcc_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.4434)

    Note:
        smp adds 1e-5 to each count and takes one number over batch and classes; MONAI adds 1e-5 under the root.

    Reference:
        Abhishek and Hamarneh, "Matthews Correlation Coefficient Loss for Deep Convolutional Networks: Application to
        Skin Lesion Segmentation", 2021, arXiv 2010.13454, equations 3 to 5.
    """
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    regions = segmentation.regions(include_background)
    counts = regions.counts(per_image)
    # Shares of the pixels: products of four counts of a volume would leave the range of float32.
    tp, fp, fn, actual, pixels = (part / counts.pixels.clamp(min=1) for part in counts)
    tn = regions.mean((1 - regions.probability) * (1 - regions.target), per_image)
    scale = safe_sqrt(tp + fp) * safe_sqrt(tp + fn) * safe_sqrt(tn + fp) * safe_sqrt(tn + fn)
    loss = 1 - safe_divide(tp * tn - fp * fn, scale)
    loss, valid = resolve_absent(loss, counts, absent, defined=(actual > 0) & (actual < pixels))
    return reduce(loss, weight, reduction, normalizer, valid)


def sensitivity_specificity_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    ratio: float = 0.05,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "formula",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Sensitivity-specificity loss: mean squared errors of a class's own pixels and of all others, weighed.

    Formula:
        l = r Σ (g - p)² g / Σ g + (1 - r) Σ (g - p)² (1 - g) / Σ (1 - g)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        ratio: weight r of the sensitivity, from 0 to 1.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"formula"`` is the second term alone, which
            pushes false positives down, ``"penalize"`` the mean error, ``"skip"`` leaves it out.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `ratio` outside [0, 1], or a bad `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> sensitivity_specificity_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.3056)

    Note:
        NiftyNet sums over the classes, here they are averaged. A term without pixels is 0.

    Reference:
        Brosch et al., "Deep Convolutional Encoder Networks for Multiple Sclerosis Lesion Segmentation", 2015,
        equation 3.
    """
    check_number("ratio", ratio, at_least=0, at_most=1)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    regions = segmentation.regions(include_background)
    g, rest = regions.target, torch.where(regions.valid, 1 - regions.target, 0)
    error = (g - regions.probability) ** 2
    sensitivity = safe_divide(regions.total(error * g, per_image), regions.total(g, per_image))
    specificity = safe_divide(regions.total(error * rest, per_image), regions.total(rest, per_image))
    loss = ratio * sensitivity + (1 - ratio) * specificity
    loss, valid = resolve_absent(loss, regions.counts(per_image), absent)
    return reduce(loss, weight, reduction, normalizer, valid)


GeneralizedDiceLoss = module_form("GeneralizedDiceLoss", generalized_dice_loss)
PenaltyGeneralizedDiceLoss = module_form("PenaltyGeneralizedDiceLoss", penalty_generalized_dice_loss)
WassersteinDiceLoss = module_form("WassersteinDiceLoss", wasserstein_dice_loss)
MCCLoss = module_form("MCCLoss", mcc_loss)
SensitivitySpecificityLoss = module_form("SensitivitySpecificityLoss", sensitivity_specificity_loss)
