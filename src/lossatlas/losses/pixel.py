"""Pixel-wise cross entropies of segmentation that choose or weigh their pixels.

`lossatlas.losses.segmentation_targets` says what they take. The cross entropy of a pixel is that of its classes
(softmax), or of yes and no for one channel; with ``multilabel=True`` each channel of a pixel is an element.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lossatlas.checks import check_integer, check_number
from lossatlas.losses.distance_maps import border_weights, own_inverse_distances, pixel_size
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import broadcastable, reduce
from lossatlas.losses.segmentation_targets import pixel_cross_entropy, prepare
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction


def topk_cross_entropy(
    input: ClassLogits,
    target: Tensor,
    *,
    percent: float = 10.0,
    per_image: bool = False,
    multilabel: bool = False,
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy of the hardest pixels: the given share with the largest loss.

    Formula:
        l = -ln p_y of the k % of the pixels where it is largest

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        percent: k, above 0 and at most 100; the number of pixels is rounded down, but not to 0.
        per_image: whether the share is that of each image, or of the batch.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors of the pixels, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, with 0 for the pixels left out, ``"mean"`` over the chosen pixels, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the number of chosen pixels.

    Returns:
        ``(N, *spatial)`` with ``"none"``, ``(N, C, *spatial)`` for several labels, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `percent` outside (0, 100], or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[0.9, 0.5, 0.8, 0.7]]]).logit()
        >>> topk_cross_entropy(x, torch.ones(1, 4, dtype=torch.long), percent=50)
        tensor(0.5249)

    Note:
        The choice is held constant; of equal losses the first pixels are chosen. The pixels are sorted. nnU-Net counts
        ignored pixels in the share, here k % of those that are not ignored are taken.

    Reference:
        Wu et al., "Bridging Category-level and Instance-level Semantic Image Segmentation", 2016, arXiv 1605.06885,
        section 3.1.
    """
    check_number("percent", percent, above=0, at_most=100)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    loss = pixel_cross_entropy(segmentation)
    chosen = largest_share(loss, segmentation.valid_pixels, percent, per_image)
    return reduce(loss, weight, reduction, normalizer, chosen)


def largest_share(loss: Tensor, valid: Tensor, percent: float, per_image: bool) -> Tensor:
    """Return the mask of the `percent` of the valid pixels with the largest loss, at least one if there are any."""
    pixels = valid.flatten(1) if per_image else valid.flatten().unsqueeze(0)
    number = (pixels.sum(-1, keepdim=True) * percent / 100).floor().clamp(min=1)
    return (loss_rank(loss, valid, per_image) < number).view(loss.shape) & valid


def loss_rank(loss: Tensor, valid: Tensor, per_image: bool) -> Tensor:
    """Return the place of each pixel, 0 for the largest loss, as ``(N, pixels)`` or ``(1, pixels)`` over the batch."""
    key = torch.where(valid, loss.detach(), -torch.inf)
    key = key.flatten(1) if per_image else key.flatten().unsqueeze(0)
    order = key.sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(key.shape[1], device=key.device).expand_as(order)
    return torch.zeros_like(order).scatter(1, order, places)


def ohem_cross_entropy(
    input: ClassLogits,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    multilabel: bool = False,
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy with online hard example mining: pixels that are not yet sure, and at least a given number.

    Formula:
        l = -ln p_y of the pixels with p_y < t, and of the `min_kept` pixels with the smallest p_y

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        threshold: t, above 0 and at most 1; pixels whose true class has a smaller probability are kept.
        min_kept: number of pixels of the batch that are kept in any case, at least 0.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors of the pixels, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, with 0 for the pixels left out, ``"mean"`` over the kept pixels, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the number of kept pixels.

    Returns:
        ``(N, *spatial)`` with ``"none"``, ``(N, C, *spatial)`` for several labels, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `threshold` outside (0, 1], a negative `min_kept`, or a bad `reduction`
            or `normalizer`.
        TypeError: an `input` that is not floating point, class indices that are not integers, or a `min_kept` that is
            not an integer.

    Example:
        >>> x = torch.tensor([[[0.9, 0.5, 0.8, 0.6]]]).logit()
        >>> ohem_cross_entropy(x, torch.ones(1, 4, dtype=torch.long), min_kept=1)
        tensor(0.6020)

    Note:
        The choice is held constant; of equal losses the first pixels are kept. The pixels are sorted. In mmsegmentation
        `min_kept` is a number per image, multiplied by the number of images.

    Reference:
        Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", 2016, arXiv
        1604.03540 (regions); for pixels Xu et al., "PIDNet", 2022, arXiv 2206.02066, in its code.
    """
    check_number("threshold", threshold, above=0, at_most=1)
    check_number("min_kept", min_kept, at_least=0)
    if not isinstance(min_kept, int):
        raise TypeError(f"`min_kept` must be an integer, but got {type(min_kept).__name__}")
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    loss, valid = pixel_cross_entropy(segmentation), segmentation.valid_pixels
    hard = ~(loss <= -math.log(threshold))
    kept = valid & (hard | (loss_rank(loss, valid, per_image=False) < min_kept).view(loss.shape))
    return reduce(loss, weight, reduction, normalizer, kept)


def distance_penalized_cross_entropy(
    input: ClassLogits,
    target: Tensor,
    *,
    distance_map: Tensor | None = None,
    spacing: Sequence[float] | None = None,
    multilabel: bool = False,
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy that weighs pixels near the border of their region up to twice as much.

    Formula:
        l = -(1 + φ) ln p_y,  φ = (max d - d) / max d within each region

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        distance_map: φ, ``(N, *spatial)`` (``(N, C, *spatial)`` for several labels), such as `inverse_distance_map`
            makes. None computes it from the target: d is the distance to the nearest pixel of another class, and max d
            the largest of the class in the image; 0 for a class that fills the image.
        spacing: size of a pixel along each spatial axis, for a map that is computed; None is 1.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors of the pixels, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the pixels that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, ``(N, C, *spatial)`` for several labels, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `spacing`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.
        ImportError: a map must be computed and scipy is not installed.

    Example:
        >>> x = torch.zeros(1, 2, 6)
        >>> distance_penalized_cross_entropy(x, torch.tensor([[0, 0, 0, 0, 1, 1]]), reduction="none")
        tensor([[0.6931, 0.8664, 1.0397, 1.2130, 1.0397, 0.6931]])

    Note:
        The map is computed on the CPU, from hard decisions of a soft target. A widely copied implementation computes
        the weighted loss and returns the unweighted one.

    Reference:
        Caliva et al., "Distance Map Loss Penalty Term for Semantic Segmentation", 2019, arXiv 1908.03679, equation 1.
    """
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    loss = pixel_cross_entropy(segmentation)
    if distance_map is None:
        inside = segmentation.valid & (segmentation.target > 0.5)
        outside = segmentation.valid & ~inside
        size = pixel_size(spacing, inside.ndim - 2)
        distance_map = own_inverse_distances(inside, outside, segmentation.exclusive, size, loss.dtype)
    loss = loss * (1 + broadcastable("distance_map", distance_map, loss))
    return reduce(loss, weight, reduction, normalizer, segmentation.valid_pixels)


def border_weighted_cross_entropy(
    input: ClassLogits,
    target: Tensor,
    *,
    border_map: Tensor | None = None,
    border_weight: float = 10.0,
    sigma: float = 5.0,
    class_weight: Tensor | None = None,
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Cross entropy of U-Net, in which the narrow gaps between objects weigh most.

    Formula:
        l = -(w_y + w₀ exp(-(d₁ + d₂)² / (2 σ²))) ln p_y      the second weight for pixels of the background only

    Args:
        input: ``(N, C, *spatial)`` logits of classes, the first of them background; one channel is binary
            segmentation.
        target: ``(N, *spatial)`` class indices.
        border_map: ``(N, *spatial)`` second weights, such as `border_weight_map` makes (it can tell touching objects
            apart by their numbers). None computes them from the target, whose objects are the connected parts of what
            is not background; d₁ and d₂ are the distances in pixels to the two nearest of them.
        border_weight: w₀, at least 0, for a map that is computed.
        sigma: σ > 0 in pixels, for a map that is computed.
        class_weight: ``(C,)`` weights w of the classes, ``(2,)`` for one channel, which in the paper balance their
            frequencies; None is 1.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors of the pixels, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the pixels that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative `border_weight`, a `sigma` that is not above 0, or a bad
            `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or a `target` that does not hold integers.
        ImportError: a map must be computed and scipy is not installed.

    Example:
        >>> x = torch.zeros(1, 1, 6)
        >>> border_weighted_cross_entropy(x, torch.tensor([[1, 1, 0, 1, 0, 0]]), reduction="none")
        tensor([[0.6931, 0.6931, 7.0917, 0.6931, 5.7264, 4.0671]])

    Note:
        The map is computed on the CPU. The weights do not change the denominator.

    Reference:
        Ronneberger et al., "U-Net", 2015, arXiv 1505.04597, equations 1 and 2 (w₀ = 10, σ about 5 pixels).
    """
    check_number("border_weight", border_weight, at_least=0)
    check_number("sigma", sigma, above=0)
    check_integer("target", target)
    segmentation = prepare(input, target, ignore_index=ignore_index, two_classes=True)
    classes = segmentation.logits.shape[1]
    if target.ndim != input.ndim - 1:
        raise ValueError(f"`target` must be an index map, but got {tuple(target.shape)}")
    loss = pixel_cross_entropy(segmentation)
    if border_map is None:
        border_map = border_weights(target, border_weight, sigma, False, ignore_index, loss.dtype)
    factor: Tensor | float = 1.0
    if class_weight is not None:
        if class_weight.shape != (classes,):
            raise ValueError(f"`class_weight` must have shape ({classes},), but got {tuple(class_weight.shape)}")
        factor = torch.einsum("c,nc...->n...", class_weight.to(loss.dtype), segmentation.target)
    loss = loss * (factor + broadcastable("border_map", border_map, loss))
    return reduce(loss, weight, reduction, normalizer, segmentation.valid_pixels)


TopkCrossEntropy = module_form("TopkCrossEntropy", topk_cross_entropy)
OHEMCrossEntropy = module_form("OHEMCrossEntropy", ohem_cross_entropy)
DistancePenalizedCrossEntropy = module_form("DistancePenalizedCrossEntropy", distance_penalized_cross_entropy)
BorderWeightedCrossEntropy = module_form("BorderWeightedCrossEntropy", border_weighted_cross_entropy)
