"""Segmentation losses that look at distances to the boundary.

`lossatlas.losses.segmentation_targets` says what they take, what their elements are, and what becomes of classes that
are absent from the target; `lossatlas.losses.distance_maps` makes the maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.boxes.geometry import safe_divide
from lossatlas.checks import check_number
from lossatlas.losses.distance_maps import distance_across, pixel_size, signed_distances
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import broadcastable, reduce
from lossatlas.losses.segmentation_targets import Absent, Regions, prepare, resolve_absent
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction


def boundary_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    distance_map: Tensor | None = None,
    spacing: Sequence[float] | None = None,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Boundary loss: the mean signed distance to the target of what is predicted.

    Formula:
        l = mean of p φ,  φ the distance to the class outside it, 1 - the distance to the outside inside it

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        distance_map: φ, ``(N, C, *spatial)`` for all classes, such as `signed_distance_map` makes. None computes it
            from the target.
        spacing: size of a pixel along each spatial axis, for a map that is computed; None is 1. Inside, φ is the
            smallest of these sizes minus the distance.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` is 0.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `spacing`, `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.
        ImportError: a map must be computed and scipy is not installed.

    Example:
        >>> x = torch.full((1, 1, 6), 1e4)
        >>> boundary_loss(x, torch.tensor([[0, 1, 1, 1, 0, 0]]))
        tensor(0.5000)

    Note:
        The value is negative for a good prediction. It is meant to be added to an overlap loss, with a weight that
        grows during training. The map is constant, is computed on the CPU, from hard decisions of a soft target, and
        is 0 for a class that fills the image. The pixel that is taken off inside is that of the authors' code.

    Reference:
        Kervadec et al., "Boundary loss for highly unbalanced segmentation", 2018, arXiv 1812.07032, equation 5.
    """
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    regions = segmentation.regions(include_background)
    if distance_map is None:
        inside, outside = _sides(regions, regions.target)
        phi = signed_distances(inside, outside, pixel_size(spacing, inside.ndim - 2), regions.target.dtype)
    else:
        phi = _chosen(distance_map, segmentation.logits, regions)
    loss = regions.mean(regions.probability * phi, per_image)
    loss, valid = resolve_absent(loss, regions.counts(per_image), absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def hausdorff_dt_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    alpha: float = 2.0,
    distance_map: Tensor | None = None,
    spacing: Sequence[float] | None = None,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Hausdorff loss by distance transforms: squared errors, weighed by their distance to both boundaries.

    Formula:
        l = mean of (p - g)² (d_p^α + d_g^α),  d_p, d_g: distances to the boundary of p > 0.5 and of the target

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        alpha: α > 0.
        distance_map: d_g, ``(N, C, *spatial)`` for all classes, such as `distance_across_map` makes. None computes it
            from the target. d_p is computed in any case.
        spacing: size of a pixel along each spatial axis; None is 1.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"penalize"`` is the mean error, ``"skip"``
            leaves it out, ``"formula"`` has d_g = 0.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, an `alpha` that is not above 0, or a bad `spacing`, `absent`, `reduction`
            or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.
        ImportError: scipy is not installed.

    Example:
        >>> x = torch.tensor([[[0.1, 0.9, 0.9, 0.1]]]).logit()
        >>> hausdorff_dt_loss(x, torch.tensor([[0, 1, 0, 0]]))
        tensor(0.4275)

    Note:
        Both distances are constants, and are computed on the CPU. The distance of a pixel is that to the nearest pixel
        on the other side; a class that is nowhere or everywhere has none, and counts as 0. By the formula alone an
        empty target costs nothing where nothing or all is predicted. MONAI leaves out the background by default.

    Reference:
        Karimi and Salcudean, "Reducing the Hausdorff Distance in Medical Image Segmentation with Convolutional Neural
        Networks", 2019, arXiv 1904.10030, equation 8.
    """
    check_number("alpha", alpha, above=0)
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    regions = segmentation.regions(include_background)
    p, g = regions.probability, regions.target
    size = pixel_size(spacing, p.ndim - 2)
    predicted = distance_across(*_sides(regions, p.detach()), size, p.dtype)
    if distance_map is None:
        actual = distance_across(*_sides(regions, g), size, p.dtype)
    else:
        actual = _chosen(distance_map, segmentation.logits, regions)
    loss = regions.mean((p - g) ** 2 * (predicted**alpha + actual**alpha), per_image)
    loss, valid = resolve_absent(loss, regions.counts(per_image), absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def hausdorff_erosion_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    alpha: float = 2.0,
    erosions: int = 10,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    absent: Absent = "penalize",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Hausdorff loss by erosion: squared errors count more the more erosions they survive.

    Formula:
        l = mean of Σ_k E_k k^α,  E_0 = (p - g)²,  E_k = stretch(max(mean of E_{k-1} over a cross - 1/2, 0))

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        alpha: α, at least 0.
        erosions: number of erosions, at least 1.
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
        ValueError: shapes that do not fit, a negative `alpha`, `erosions` below 1, or a bad `absent`, `reduction` or
            `normalizer`.
        TypeError: an `input` that is not floating point, class indices that are not integers, or `erosions` that are
            not an integer.

    Example:
        >>> x = torch.full((1, 1, 7), 1e4)
        >>> hausdorff_erosion_loss(x, torch.tensor([[1, 1, 0, 0, 0, 0, 0]]), erosions=2)
        tensor(1.7302)

    Note:
        The cross is a pixel and its 2, 4 or 6 neighbours; outside the image and where ignored the error is 0. `stretch`
        maps the values of an image and class to 0 to 1, as the published implementations do. Without a large region of
        error there is no gradient. ``absent="formula"`` computes the formula, which ignores weak false positives.

    Reference:
        Karimi and Salcudean, "Reducing the Hausdorff Distance in Medical Image Segmentation with Convolutional Neural
        Networks", 2019, arXiv 1904.10030, equation 9.
    """
    check_number("alpha", alpha, at_least=0)
    check_number("erosions", erosions, at_least=1)
    if not isinstance(erosions, int):
        raise TypeError(f"`erosions` must be an integer, but got {type(erosions).__name__}")
    segmentation = prepare(input, target, multilabel=multilabel, ignore_index=ignore_index)
    regions = segmentation.regions(include_background)
    error = (regions.probability - regions.target) ** 2
    total = torch.zeros_like(error)
    for k in range(1, erosions + 1):
        error = _stretch((_cross_mean(error) - 0.5).relu(), regions.valid)
        total = total + error * k**alpha
    loss, valid = resolve_absent(regions.mean(total, per_image), regions.counts(per_image), absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def _cross_mean(maps: Tensor) -> Tensor:
    """Return the mean of each pixel and its neighbours along the spatial axes, with zeros around the image."""
    total = maps
    for axis in range(2, maps.ndim):
        size = maps.shape[axis]
        padded = F.pad(maps, [0, 0] * (maps.ndim - 1 - axis) + [1, 1])
        total = total + padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)
    return total / (2 * (maps.ndim - 2) + 1)


def _stretch(maps: Tensor, valid: Tensor) -> Tensor:
    """Map the valid pixels of each image and class to 0 to 1, unless they are all the same; the others become 0."""
    # One more value, which is no extreme, gives an image without pixels its extremes.
    largest = F.pad(torch.where(valid, maps, 0).flatten(2), (0, 1)).amax(-1)
    smallest = F.pad(torch.where(valid, maps, torch.inf).flatten(2), (0, 1), value=torch.inf).amin(-1)
    shape = (*largest.shape, *[1] * (maps.ndim - 2))
    smallest, span = smallest.view(shape), (largest - smallest).view(shape)
    stretched = safe_divide(torch.where(valid, maps - smallest, 0), torch.where(span > 0, span, 1).expand_as(maps))
    return torch.where(valid, torch.where(span == 0, maps, stretched), 0)


def _sides(regions: Regions, values: Tensor) -> tuple[Tensor, Tensor]:
    inside = regions.valid & (values > 0.5)
    return inside, regions.valid & ~inside


def _chosen(distance_map: Tensor, logits: Tensor, regions: Regions) -> Tensor:
    """Return the channels of a map of all classes that belong to the classes that count."""
    distances = broadcastable("distance_map", distance_map, logits)
    return distances.expand_as(logits)[:, -regions.target.shape[1] :]


BoundaryLoss = module_form("BoundaryLoss", boundary_loss)
HausdorffDTLoss = module_form("HausdorffDTLoss", hausdorff_dt_loss)
HausdorffErosionLoss = module_form("HausdorffErosionLoss", hausdorff_erosion_loss)
