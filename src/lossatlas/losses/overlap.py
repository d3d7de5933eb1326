"""Segmentation losses that are ratios of true positives, false positives and false negatives.

`lossatlas.losses.segmentation_targets` says what they take, what their elements are, and what becomes of classes that
are absent from the target.

All are written as errors / (TP + errors), which is 1 - ratio without the cancellation of that difference.
"""

from torch import Tensor

from lossatlas.boxes.geometry import safe_divide
from lossatlas.checks import check_number
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.modules import module_form
from lossatlas.losses.overlap_statistics import statistics
from lossatlas.losses.reduction import reduce
from lossatlas.losses.segmentation_targets import Absent, Counts, Overlap, Regions, prepare, resolve_absent
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction


def tversky_distance(counts: Counts, alpha: float, beta: float, smooth: float = 0.0) -> Tensor:
    """Return 1 - (TP + s) / (TP + α FP + β FN + s), 0 where nothing is predicted and nothing is there."""
    error = alpha * counts.false_positive + beta * counts.false_negative
    return safe_divide(error, counts.true_positive + error + smooth)


def squared_dice_distance(regions: Regions, per_image: bool, smooth: float = 0.0) -> Tensor:
    """Return Σ (p - g)² / (Σ p² + Σ g² + s), which is 1 - (2 Σ p g + s) / (Σ p² + Σ g² + s)."""
    p, g = regions.probability, regions.target
    error = regions.total((p - g) ** 2, per_image)
    return safe_divide(error, regions.total(p**2, per_image) + regions.total(g**2, per_image) + smooth)


def dice_distance(counts: Counts, smooth: float) -> Tensor:
    """Return 1 - Dice, with a linear denominator."""
    return tversky_distance(counts, 0.5, 0.5, smooth / 2)


def dice_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    squared: bool = False,
    smooth: float = 0.0,
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
    """Dice loss: 1 - twice the overlap over the sum of both sizes.

    Formula:
        l = 1 - (2 Σ m + s) / (Σ p + Σ g + s),  m = p g or min(p, g)
        l = 1 - (2 Σ p g + s) / (Σ p² + Σ g² + s)     squared

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        squared: whether the denominator holds the squares, as in V-Net. It is 0 for p = g with soft targets too.
        smooth: s, at least 0. It is not needed for empty classes, see `absent`.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative `smooth`, a bad `overlap`, ``"minimum"`` with `squared`, or a
            bad `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> dice_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.3453)

    Note:
        The ratio is formed for each image and class and then averaged, as in MONAI; smp and kornia's "macro" take the
        batch or the present classes, kornia's default pools the classes. MONAI adds ``smooth=1e-5`` and computes the
        formula for absent classes, smp multiplies them by 0, nnU-Net returns -Dice.

    Reference:
        Milletari et al., "V-Net", 2016, arXiv 1606.04797, section 3 (squared); Drozdzal et al., 2016, arXiv
        1608.04117, equation 1 (linear). Soft targets: Wang et al., 2023, arXiv 2303.16296, equation 8 (minimum).
    """
    check_number("smooth", smooth, at_least=0)
    if squared and overlap != "product":
        raise ValueError(f"`overlap` must be 'product' with `squared`, which needs no other, but got {overlap!r}")
    if squared:
        regions = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index).regions(include_background)
        counts = regions.counts(per_image)
        loss = squared_dice_distance(regions, per_image, smooth)
    else:
        counts = statistics(
            input,
            target,
            multilabel=multilabel,
            ignore_index=ignore_index,
            per_image=per_image,
            include_background=include_background,
            overlap=overlap,
        ).counts
        loss = dice_distance(counts, smooth)
    loss, valid = resolve_absent(loss, counts, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def jaccard_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    smooth: float = 0.0,
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
    """Jaccard or IoU loss: 1 - intersection over union.

    Formula:
        l = 1 - (Σ m + s) / (Σ p + Σ g - Σ m + s),  m = p g or min(p, g)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        smooth: s, at least 0. It is not needed for empty classes, see `absent`.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative `smooth`, or a bad `overlap`, `absent`, `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> jaccard_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.5134)

    Note:
        It is 2 d / (1 + d) of the Dice loss d.

    Reference:
        Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", 2016,
        equation 3. Soft targets: Wang et al., 2023, arXiv 2302.05666 (minimum).
    """
    check_number("smooth", smooth, at_least=0)
    counts = statistics(
        input,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        per_image=per_image,
        include_background=include_background,
        overlap=overlap,
    ).counts
    loss, valid = resolve_absent(tversky_distance(counts, 1, 1, smooth), counts, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def tversky_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 0.0,
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
    """Tversky loss: an overlap loss whose false positives and false negatives have their own prices.

    Formula:
        l = 1 - (TP + s) / (TP + α FP + β FN + s),  TP = Σ m,  FP = Σ (p - m),  FN = Σ (g - m)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        alpha: price α of false positives, at least 0.
        beta: price β of false negatives, at least 0.
        smooth: s, at least 0. It is not needed for empty classes, see `absent`.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative `alpha`, `beta` or `smooth`, or a bad `overlap`, `absent`,
            `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> tversky_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.2446)

    Note:
        α = β = 1/2 is the Dice loss, 1 the Jaccard loss. The defaults are the paper's best; MONAI and smp default to
        1/2. In `focal_tversky_loss`'s paper the letters are the other way round.

    Reference:
        Salehi et al., "Tversky loss function for image segmentation", 2017, arXiv 1706.05721, equation 4.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        check_number(name, value, at_least=0)
    counts = statistics(
        input,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        per_image=per_image,
        include_background=include_background,
        overlap=overlap,
    ).counts
    loss, valid = resolve_absent(tversky_distance(counts, alpha, beta, smooth), counts, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def focal_tversky_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    smooth: float = 0.0,
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
    """Focal Tversky loss: a power of the Tversky loss of each class.

    Formula:
        l = (1 - (TP + s) / (TP + α FP + β FN + s))^(1 / γ)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        alpha: price α of false positives, at least 0.
        beta: price β of false negatives, at least 0.
        gamma: γ > 0; above 1 the classes that are nearly right keep a larger gradient.
        smooth: s, at least 0. It is not needed for empty classes, see `absent`.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative `alpha`, `beta` or `smooth`, a `gamma` that is not above 0, or
            a bad `overlap`, `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> focal_tversky_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.3478)

    Note:
        The power is taken for each class, as in the paper; smp takes it after the mean over the classes, and its gamma
        is the exponent. The paper writes α for false negatives. The mean error of an absent class has no power.

    Reference:
        Abraham and Khan, "A Novel Focal Tversky Loss Function", 2018, arXiv 1810.07842, equation 4.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        check_number(name, value, at_least=0)
    check_number("gamma", gamma, above=0)
    counts = statistics(
        input,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        per_image=per_image,
        include_background=include_background,
        overlap=overlap,
    ).counts
    loss = safe_power(tversky_distance(counts, alpha, beta, smooth), 1 / gamma)
    loss, valid = resolve_absent(loss, counts, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def asymmetric_similarity_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    beta: float = 1.5,
    smooth: float = 0.0,
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
    """Asymmetric similarity loss: 1 - F_β, in which recall counts β times as much as precision.

    Formula:
        l = 1 - ((1 + β²) TP + s) / ((1 + β²) TP + β² FN + FP + s)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        beta: β > 0; 1 gives the Dice loss.
        smooth: s, at least 0. It is not needed for empty classes, see `absent`.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `beta` that is not above 0, a negative `smooth`, or a bad `overlap`,
            `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> asymmetric_similarity_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.2490)

    Note:
        It is the Tversky loss with α = 1 / (1 + β²) and β² / (1 + β²).

    Reference:
        Hashemi et al., "Asymmetric Loss Functions and Deep Densely Connected Networks for Highly Imbalanced Medical
        Image Segmentation", 2018, arXiv 1803.11078, equation 4.
    """
    check_number("beta", beta, above=0)
    check_number("smooth", smooth, at_least=0)
    counts = statistics(
        input,
        target,
        multilabel=multilabel,
        ignore_index=ignore_index,
        per_image=per_image,
        include_background=include_background,
        overlap=overlap,
    ).counts
    scale = 1 + beta**2
    distance = tversky_distance(counts, 1 / scale, beta**2 / scale, smooth / scale)
    loss, valid = resolve_absent(distance, counts, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


DiceLoss = module_form("DiceLoss", dice_loss)
JaccardLoss = module_form("JaccardLoss", jaccard_loss)
TverskyLoss = module_form("TverskyLoss", tversky_loss)
FocalTverskyLoss = module_form("FocalTverskyLoss", focal_tversky_loss)
AsymmetricSimilarityLoss = module_form("AsymmetricSimilarityLoss", asymmetric_similarity_loss)
