"""Sums of an overlap loss and a pixel-wise loss.

`lossatlas.losses.segmentation_targets` says what they take and what becomes of classes that are absent from the target.
There is one element for each image, ``(N,)``, or a single one over the batch: the mean of the overlap loss over the
image's classes plus the mean of the pixel-wise loss over its pixels, each times its weight. An image of which all is
ignored is not valid. A `weight` has one factor for each image.
"""

import torch
from torch import Tensor

from lossatlas.checks import check_number
from lossatlas.kernels.overlap import PixelLoss
from lossatlas.losses.generalized_overlap import generalized_dice_distance
from lossatlas.losses.modules import module_form
from lossatlas.losses.overlap import dice_distance, squared_dice_distance
from lossatlas.losses.overlap_statistics import CROSS_ENTROPY, NO_PIXELS, focal, pixel_focal, statistics
from lossatlas.losses.pixel import largest_share
from lossatlas.losses.reduction import reduce
from lossatlas.losses.segmentation_targets import (
    Absent,
    Overlap,
    Segmentation,
    pixel_cross_entropy,
    prepare,
    resolve_absent,
)
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction


def mean_of_classes(loss: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of the valid elements along the last axis, 0 where there are none."""
    return torch.where(valid, loss, 0).sum(-1) / valid.sum(-1).clamp(min=1)


def mean_of_pixels(loss: Tensor, valid: Tensor, per_image: bool) -> Tensor:
    """Return the mean of the valid elements of each image, or of the batch, 0 where there are none."""
    axes = tuple(range(1 if per_image else 0, loss.ndim))
    return torch.where(valid, loss, 0).sum(axes) / valid.sum(axes).clamp(min=1)


def valid_images(segmentation: Segmentation, per_image: bool) -> Tensor:
    """Return the mask of the images, or of the batch, of which not all is ignored."""
    valid = segmentation.valid
    return valid.flatten(1).any(-1) if per_image else valid.any()


def mean_dice(
    input: Tensor,
    target: Tensor,
    pixel: PixelLoss = NO_PIXELS,
    *,
    squared: bool,
    smooth: float,
    overlap: Overlap,
    multilabel: bool,
    per_image: bool,
    include_background: bool,
    absent: Absent,
    ignore_index: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean Dice distance of the classes of each image, or of the batch, and what goes with it.

    Returns:
        The distance, the mean of the pixel-wise loss, and the mask of what is not ignored as a whole.
    """
    found = statistics(
        input,
        target,
        pixel,
        multilabel=multilabel,
        ignore_index=ignore_index,
        per_image=per_image,
        include_background=include_background,
        overlap=overlap,
    )
    if squared:
        regions = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index).regions(include_background)
        distance = squared_dice_distance(regions, per_image, smooth)
    else:
        distance = dice_distance(found.counts, smooth)
    dice = mean_of_classes(*resolve_absent(distance, found.counts, absent))
    return dice, found.pixel_loss, found.valid


def _check(**weights: float) -> None:
    for name, value in weights.items():
        check_number(name, value, at_least=0)


def dice_cross_entropy_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
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
    """Dice loss plus cross entropy.

    Formula:
        l = w_d mean_c (1 - Dice_c) + w_e mean_i (-ln p_y)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        dice_weight: w_d, at least 0.
        ce_weight: w_e, at least 0.
        squared: whether the denominator of Dice holds squares.
        smooth: of Dice, at least 0.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
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
        ValueError: shapes that do not fit, a negative weight or `smooth`, or a bad `overlap`, `absent`, `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> dice_cross_entropy_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(1.3635)

    Note:
        The cross entropy is that of each image, so that an image with many ignored pixels counts like any other. MONAI
        has the mean over the batch; nnU-Net leaves the background out of Dice, and pools by its flag ``batch_dice``.

    Reference:
        Isensee et al., "nnU-Net", 2018, arXiv 1809.10486, section 2.2.
    """
    _check(dice_weight=dice_weight, ce_weight=ce_weight, smooth=smooth)
    dice, pixels, valid = mean_dice(
        input,
        target,
        CROSS_ENTROPY,
        squared=squared,
        smooth=smooth,
        overlap=overlap,
        multilabel=multilabel,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        ignore_index=ignore_index,
    )
    return reduce(dice_weight * dice + ce_weight * pixels, weight, reduction, normalizer, valid)


def dice_focal_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    focal_weight: float = 0.5,
    gamma: float = 2.0,
    alpha: float | None = None,
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
    """Dice loss plus focal loss.

    Formula:
        l = w_d mean_c (1 - Dice_c) + w_f mean_i (-α_y (1 - p_y)^γ ln p_y)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        dice_weight: w_d, at least 0.
        focal_weight: w_f, at least 0.
        gamma: γ, at least 0.
        alpha: factor of the foreground, from 0 to 1; the background gets 1 - alpha. None leaves both at 1.
        squared: whether the denominator of Dice holds squares.
        smooth: of Dice, at least 0.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image, False a single one over the batch.
        include_background: False leaves out the first class of Dice; the focal loss has all.
        absent: the Dice of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"`` leaves
            it out, ``"formula"`` computes the formula.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a negative weight, `gamma` or `smooth`, an `alpha` outside [0, 1], or a bad
            `overlap`, `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> dice_focal_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(0.8297)

    Note:
        The focal loss has the same activation as Dice. MONAI's is that of sigmoids, averaged over the channels, also
        where its Dice is that of a softmax.

    Reference:
        Zhu et al., "AnatomyNet", 2018, arXiv 1808.05238, section 2.3 (w_f = 0.5).
    """
    _check(dice_weight=dice_weight, focal_weight=focal_weight, gamma=gamma, smooth=smooth)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
    dice, pixels, valid = mean_dice(
        input,
        target,
        focal(gamma, alpha),
        squared=squared,
        smooth=smooth,
        overlap=overlap,
        multilabel=multilabel,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        ignore_index=ignore_index,
    )
    return reduce(dice_weight * dice + focal_weight * pixels, weight, reduction, normalizer, valid)


def dice_topk_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    topk_weight: float = 1.0,
    percent: float = 10.0,
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
    """Dice loss plus the cross entropy of the hardest pixels.

    Formula:
        l = w_d mean_c (1 - Dice_c) + w_k mean (-ln p_y) over the k % of the pixels where it is largest

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        dice_weight: w_d, at least 0.
        topk_weight: w_k, at least 0.
        percent: k, above 0 and at most 100; the number of pixels is rounded down, but not to 0.
        squared: whether the denominator of Dice holds squares.
        smooth: of Dice, at least 0.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image, with its own hardest pixels, False one over the batch.
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
        ValueError: shapes that do not fit, a negative weight or `smooth`, a `percent` outside (0, 100], or a bad
            `overlap`, `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> dice_topk_loss(x, torch.tensor([[1, 0, 0, 0]]), percent=50)
        tensor(2.3635)

    Note:
        The choice of the pixels is held constant. nnU-Net takes the share of the batch.

    Reference:
        Ma et al., "Loss odyssey in medical image segmentation", 2021, section 3.4; for the choice of the pixels Wu et
        al., 2016, arXiv 1605.06885.
    """
    _check(dice_weight=dice_weight, topk_weight=topk_weight, smooth=smooth)
    check_number("percent", percent, above=0, at_most=100)
    dice, _, valid = mean_dice(
        input,
        target,
        NO_PIXELS,
        squared=squared,
        smooth=smooth,
        overlap=overlap,
        multilabel=multilabel,
        per_image=per_image,
        include_background=include_background,
        absent=absent,
        ignore_index=ignore_index,
    )
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    pixels = pixel_cross_entropy(segmentation)
    hardest = largest_share(pixels, segmentation.valid_pixels, percent, per_image)
    loss = dice_weight * dice + topk_weight * mean_of_pixels(pixels, hardest, per_image)
    return reduce(loss, weight, reduction, normalizer, valid)


def generalized_dice_focal_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    focal_weight: float = 1.0,
    gamma: float = 2.0,
    alpha: float | None = None,
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
    """Generalized Dice loss plus focal loss.

    Formula:
        l = w_d L_GD + w_f mean_i (-α_y (1 - p_y)^γ ln p_y)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        dice_weight: w_d, at least 0.
        focal_weight: w_f, at least 0.
        gamma: γ, at least 0.
        alpha: factor of the foreground, from 0 to 1; the background gets 1 - alpha. None leaves both at 1.
        power: exponent of the volumes in the weights of the classes, at least 0.
        overlap: agreement m of p and g, ``"product"`` p g or ``"minimum"`` min(p, g). They are the same for targets of
            0 and 1; for soft targets only the minimum is a perfect match where p = g.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image, False a single one over the batch.
        include_background: False leaves out the first class of the Dice loss; the focal loss has all.
        absent: the weight of a class that is absent from the target, as in `generalized_dice_loss`.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: ``(N,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, a scalar over the batch and otherwise.

    Raises:
        ValueError: shapes that do not fit, a negative weight, `gamma` or `power`, an `alpha` outside [0, 1], or a bad
            `overlap`, `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[4.0, 4.0, -4.0, -4.0]]])
        >>> generalized_dice_focal_loss(x, torch.tensor([[1, 0, 0, 0]]))
        tensor(1.2925)

    Note:
        The focal loss has the same activation as the Dice loss; MONAI's is that of sigmoids.

    Reference:
        Sudre et al., 2017, arXiv 1707.03237, section 2.1; Lin et al., 2017, arXiv 1708.02002, equation 5.
    """
    _check(dice_weight=dice_weight, focal_weight=focal_weight, gamma=gamma, power=power)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index, two_classes=True)
    counts = segmentation.regions(include_background).counts(per_image, overlap)
    dice, valid = generalized_dice_distance(counts, power, absent)
    pixels = mean_of_pixels(pixel_focal(segmentation, focal(gamma, alpha)), segmentation.valid_pixels, per_image)
    loss = dice_weight * torch.where(valid, dice, 0) + focal_weight * pixels
    return reduce(loss, weight, reduction, normalizer, valid_images(segmentation, per_image))


DiceCrossEntropyLoss = module_form("DiceCrossEntropyLoss", dice_cross_entropy_loss)
DiceFocalLoss = module_form("DiceFocalLoss", dice_focal_loss)
DiceTopkLoss = module_form("DiceTopkLoss", dice_topk_loss)
GeneralizedDiceFocalLoss = module_form("GeneralizedDiceFocalLoss", generalized_dice_focal_loss)
