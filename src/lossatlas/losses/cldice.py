"""Centreline Dice: overlap losses for thin, connected structures such as vessels and roads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.boxes.geometry import safe_divide
from lossatlas.checks import check_number
from lossatlas.losses.modules import module_form
from lossatlas.losses.overlap import tversky_distance
from lossatlas.losses.reduction import reduce
from lossatlas.losses.segmentation_targets import Absent, prepare, resolve_absent
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def soft_cldice_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    alpha: float = 1.0,
    iterations: int = 3,
    smooth: float = 1.0,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Soft clDice loss: the share of each centreline that lies within the other's area.

    Formula:
        T_p = (Σ S(p) g + s) / (Σ S(p) + s),  T_s = (Σ S(g) p + s) / (Σ S(g) + s),  S: soft skeleton
        l = α (1 - 2 T_p T_s / (T_p + T_s)) + (1 - α) (1 - Dice)

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        alpha: share α of clDice, from 0 to 1; the paper mixes it with Dice, with α up to 0.5.
        iterations: number of erosions of the skeleton, at least 0 and about half the width of the structures.
        smooth: s, at least 0, in the three ratios.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` computes the formula, which shortens the predicted skeleton, also by filling
            its gaps.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, an `alpha` outside [0, 1], negative `iterations` or `smooth`, or a bad
            `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, class indices that are not integers, or `iterations` that are
            not an integer.

    Example:
        >>> x = torch.tensor([[[0.1, 0.9, 0.8, 0.7, 0.1]]]).logit()
        >>> soft_cldice_loss(x, torch.tensor([[0, 1, 1, 1, 0]]))
        tensor(0.0526)

    Note:
        The minimum of the skeleton runs over the neighbours along each axis, the maximum over all neighbours, as in the
        authors' code. MONAI forms one ratio for all classes of an image; the authors' code, for the batch.

    Reference:
        Shit et al., "clDice", 2021, arXiv 2003.07311, equations 1 to 3 and algorithms 1 and 2.
    """
    check_number("alpha", alpha, at_least=0, at_most=1)
    check_number("iterations", iterations, at_least=0)
    if not isinstance(iterations, int):
        raise TypeError(f"`iterations` must be an integer, but got {type(iterations).__name__}")
    check_number("smooth", smooth, at_least=0)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    regions = segmentation.regions(include_background)
    p, g, valid = regions
    counts = regions.counts(per_image)

    def share(skeleton: Tensor, area: Tensor) -> Tensor:
        inside, length = regions.total(skeleton * area, per_image), regions.total(skeleton, per_image)
        return safe_divide(inside + smooth, length + smooth)

    precision, sensitivity = share(_skeleton(p, valid, iterations), g), share(_skeleton(g, valid, iterations), p)
    loss = 1 - safe_divide(2 * precision * sensitivity, precision + sensitivity)
    if alpha < 1:
        loss = alpha * loss + (1 - alpha) * tversky_distance(counts, 0.5, 0.5, smooth / 2)
    loss, kept = resolve_absent(loss, counts, absent)
    return reduce(loss, weight, reduction, normalizer, kept)


def _skeleton(maps: Tensor, valid: Tensor, iterations: int) -> Tensor:
    """Return the soft skeleton: what each opening of the eroded maps takes away."""
    skeleton = torch.zeros_like(maps)
    if maps.numel() == 0:  # Pooling refuses images without pixels.
        return maps
    for step in range(iterations + 1):
        maps = _erode(maps, valid) if step else maps
        peak = (maps - _dilate(_erode(maps, valid), valid)).relu()
        skeleton = skeleton + (1 - skeleton) * peak
    return torch.where(valid, skeleton, 0)


def _erode(maps: Tensor, valid: Tensor) -> Tensor:
    """Return the minimum of each pixel and its neighbours along the axes; ignored pixels count for nothing."""
    axes = maps.ndim - 2
    negative = -torch.where(valid, maps, 1)
    along = [tuple(3 if axis == other else 1 for other in range(axes)) for axis in range(axes)]
    pooled = [_MAX_POOL[axes](negative, kernel, 1, tuple(k // 2 for k in kernel)) for kernel in along]
    return -torch.stack(pooled).amax(0)


def _dilate(maps: Tensor, valid: Tensor) -> Tensor:
    """Return the maximum of each pixel and all its neighbours; ignored pixels count for nothing."""
    return _MAX_POOL[maps.ndim - 2](torch.where(valid, maps, 0), 3, 1, 1)


SoftClDiceLoss = module_form("SoftClDiceLoss", soft_cldice_loss)
