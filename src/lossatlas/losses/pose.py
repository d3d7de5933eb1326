"""Pose losses on maps: heatmaps of keypoints, hard keypoints, part affinity fields and associative embedding.

Losses on coordinates of keypoints are in `lossatlas.losses.keypoints`.
"""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.checks import check_choice, check_elementwise, check_floating, check_integer, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.keypoints import Variant, visible_keypoints
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.typing import Loss, Normalizer, Reduction

Maps: TypeAlias = Float[Tensor, "images maps *spatial"]
"""Maps of images: one for each keypoint, or two for each limb."""

MapReduction: TypeAlias = Literal["none", "mean", "sum", "half_batch"]
"""`Reduction`, or the sum divided by twice the number of images, as Caffe's Euclidean loss does."""


def heatmap_mse_loss(
    input: Maps,
    target: Maps,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: MapReduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Squared error of heatmaps of keypoints, without the pixels where people are not labelled.

    Formula:
        l = (x - y)²,  half_batch: Σ l / (2 B)

    Args:
        input: ``(B, K, *spatial)`` predicted heatmaps x, one for each keypoint.
        target: ``(B, K, *spatial)`` heatmaps y, Gaussians of height 1 at the keypoints.
        mask: ``(B, *spatial)``, ``(B, 1, *spatial)`` or ``(B, K, *spatial)``; pixels where it is 0 are left out, such
            as those of crowds and of people without keypoints. Any other number counts the pixel in full.
        weight: factors of the elements, broadcasting to ``(B, K, *spatial)``, for keypoints ``(B, K, 1, 1)``; they do
            not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not left out, ``"sum"``, or ``"half_batch"``, the
            sum divided by 2 B: what OpenPose's code trains with. The mean is smaller by 10³ to 10⁴, and learning
            rates differ accordingly.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count; ``normalizer=x.numel()``
            also counts the pixels that are left out, as HigherHRNet's code does.

    Returns:
        ``(B, K, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> x, y = torch.zeros(2, 17, 4, 4), torch.ones(2, 17, 4, 4)
        >>> heatmap_mse_loss(x, y), heatmap_mse_loss(x, y, reduction="half_batch")
        (tensor(1.), tensor(136.))

    Note:
        Codes differ in three silent ways: half of the square (HRNet) or all of it, a weight that multiplies both maps
        and so counts squared (HRNet) or the error (mmpose, and here), and a mean or a sum (``"half_batch"``).

    Reference:
        Tompson et al., "Joint Training of a Convolutional Network and a Graphical Model for Human Pose Estimation",
        2014, arXiv 1406.2984. With a mask: Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity
        Fields", 2017, arXiv 1611.08050, section 2.1.
    """
    _check_maps(input, target)
    valid = _pixel_mask(mask, tuple(input.shape))
    return _reduce_maps(_squared_error(input, target, valid), weight, reduction, normalizer, valid)


def part_affinity_loss(
    input: Maps,
    target: Maps,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: MapReduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Squared error of part affinity fields: of the vectors along the limbs, without the pixels of unlabelled people.

    Formula:
        l = |x - y|² = (x_u - y_u)² + (x_v - y_v)²,  half_batch: Σ l / (2 B)

    Args:
        input: ``(B, 2 L, *spatial)`` predicted fields, for each of L limbs the map of u and then that of v.
        target: ``(B, 2 L, *spatial)`` unit vectors from one joint to the other on the limb, 0 elsewhere.
        mask: ``(B, *spatial)``, ``(B, 1, *spatial)`` or ``(B, L, *spatial)``; pixels where it is 0 are left out. Any
            other number counts the pixel in full.
        weight: factors of the elements, broadcasting to ``(B, L, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the vectors that are not left out, ``"sum"``, or ``"half_batch"``, the
            sum divided by 2 B.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(B, L, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, an odd number of maps, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> x, y = torch.zeros(1, 2, 1, 2), torch.tensor([[[[0.6, 1.0]], [[0.8, 0.0]]]])
        >>> part_affinity_loss(x, y, reduction="none")
        tensor([[[[1., 1.]]]])

    Note:
        An element is a vector, so the mean is twice that of an MSE over the maps; the sums are the same.

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        section 2.1. ``"half_batch"`` is the authors' code.
    """
    _check_maps(input, target)
    if input.shape[1] % 2:
        raise ValueError(f"`input` must have two maps for each limb, but got {input.shape[1]} maps")
    limbs = input.shape[1] // 2
    valid = _pixel_mask(mask, (input.shape[0], limbs, *input.shape[2:]))
    both = None if valid is None else valid.repeat_interleave(2, dim=1)
    loss = _squared_error(input, target, both).unflatten(1, (limbs, 2)).sum(2)
    return _reduce_maps(loss, weight, reduction, normalizer, valid)


def joint_ohkm_loss(
    input: Maps,
    target: Maps,
    *,
    topk: int = 8,
    visibility: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Online hard keypoint mining: squared error of the heatmaps of each person's worst keypoints alone.

    Formula:
        e_k = mean over the pixels of (x_k - y_k)²
        l = mean of the largest min(topk, K') of e_k,  over the K' labelled keypoints of a person

    Args:
        input: ``(N, K, *spatial)`` predicted heatmaps x of N people, one for each keypoint.
        target: ``(N, K, *spatial)`` heatmaps y.
        topk: number of keypoints that count, from 1 to K.
        visibility: ``(N, K)`` flags, 0 for keypoints that are not labelled; None if all are.
        weight: ``(N,)`` factors of the people; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the people with a labelled keypoint, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N,)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `topk` that is not from 1 to K, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or a `topk` that is not an integer.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        >>> joint_ohkm_loss(x, torch.zeros_like(x), topk=2)
        tensor(6.5000)

    Note:
        The choice of the keypoints has no gradient; of equal errors any may be chosen. The published codes divide by
        `topk` also for a person with fewer labelled keypoints; HRNet's has half of the square.

    Reference:
        Chen et al., "Cascaded Pyramid Network for Multi-Person Pose Estimation", 2018, arXiv 1711.07319, section 3.2.
    """
    _check_maps(input, target)
    check_number("topk", topk, at_least=1, at_most=input.shape[1])
    if not isinstance(topk, int):
        raise TypeError(f"`topk` must be an integer, but got {topk!r}")
    x, y = upcast(input, target)
    visible = visible_keypoints(visibility, x.shape[:2], x.device)
    x, y = (torch.where(visible.unsqueeze(-1), maps.flatten(2), 0) for maps in (x, y))
    error = (x - y).square().sum(2) / max(x.shape[2], 1)
    hardest = torch.where(visible, error, -1).topk(topk, dim=1).values
    counts = ~(hardest < 0)  # of NaN as well, which stays NaN
    number = counts.sum(1)
    loss = torch.where(counts, hardest, 0).sum(1) / number.clamp(min=1)
    return reduce(loss, weight, reduction, normalizer, number > 0)


class PullPush(NamedTuple):
    """The two terms of `associative_embedding_loss`."""

    pull: Tensor
    """How far the tags of a person lie from their mean."""
    push: Tensor
    """How close the mean tags of different people are."""


def associative_embedding_loss(
    input: Maps,
    target: Int[Tensor, "images people keypoints"],
    *,
    variant: Variant = "paper",
    sigma: float = math.sqrt(0.5),
    dimensions: int = 1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> PullPush:
    """Associative embedding: pulls the tags of a person's keypoints together and pushes those of people apart.

    Formula:
        h_nk tag of keypoint k of person n, m_n mean over the K_n labelled keypoints, N people with one, D dimensions
        paper:     pull = Σ_n Σ_k |h_nk - m_n|² / N,  push = Σ_n Σ_n' exp(-|m_n - m_n'|² / (2 σ²)) / N²
        reference: pull = Σ_n [Σ_k |h_nk - m_n|² / (K_n D)] / N
                   push = Σ_n Σ_{n' ≠ n} exp(-|m_n - m_n'|² / (2 σ²)) / (2 N (N - 1))

    Args:
        input: ``(B, D K, *spatial)`` tag maps of each keypoint, all maps of a dimension of the tag together; or
            ``(B, D, *spatial)``, one tag map for all keypoints.
        target: ``(B, people, K)`` where each keypoint is: its index among the pixels of all maps of a dimension,
            k · height · width + y · width + x, or y · width + x in a single tag map. A negative number, such as -1,
            is a keypoint that is not labelled; people with none are padding.
        variant: ``"paper"``, or ``"reference"``, the authors' code.
        sigma: σ > 0 in units of a tag. The paper names none; the default, √½, is that of the authors' code.
        dimensions: D, the number of dimensions of a tag.
        weight: ``(B,)`` factors of the images; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the images, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        Named tuple of `pull` and `push`, each ``(B,)`` with ``"none"``, else a scalar. An image without people has 0
        for both, one with a single person no reference push.

    Raises:
        ValueError: shapes that do not fit, a `sigma` that is not above 0, `dimensions` that do not divide the number
            of maps, or a bad `variant`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or a `target` that is not of integers.

    Example:
        >>> tags = torch.tensor([[[[1.0, 1.2, 3.0, 5.0]]]])
        >>> associative_embedding_loss(tags, torch.tensor([[[0, 1], [2, -1]]]), variant="reference")
        PullPush(pull=tensor(0.0050), push=tensor(0.0135))

    Note:
        Nothing is detached: people move by their means. The push of the paper pairs each person with itself, which
        adds 1 / N without a gradient. The authors weigh both terms by 0.001 against the heatmaps. mmpose adds up over
        the batch and leaves the pairs of a person with itself in the sum.

    Reference:
        Newell et al., "Associative Embedding", 2017, arXiv 1611.05424, section 3.
    """
    check_choice("variant", variant, get_args(Variant))
    check_number("sigma", sigma, above=0)
    tags, visible = _tags_of_people(input, target, dimensions)
    labelled = visible.sum(2)
    person = labelled > 0
    people = person.sum(1)
    mean = tags.sum(2) / labelled.clamp(min=1).unsqueeze(-1)
    spread = torch.where(visible, (tags - mean.unsqueeze(2)).square().sum(-1), 0).sum(2)
    squared_distance = (mean.unsqueeze(1) - mean.unsqueeze(2)).square().sum(-1)
    closeness = torch.exp(-squared_distance / (2 * sigma**2))
    pair = person.unsqueeze(1) & person.unsqueeze(2)
    pairs = people**2
    if variant == "reference":
        spread = spread / (labelled.clamp(min=1) * dimensions)
        pair = pair & ~torch.eye(pair.shape[1], dtype=torch.bool, device=pair.device)
        pairs = 2 * people * (people - 1)
    pull = spread.sum(1) / people.clamp(min=1)
    push = torch.where(pair, closeness, 0).sum((1, 2)) / pairs.clamp(min=1)
    return PullPush(reduce(pull, weight, reduction, normalizer), reduce(push, weight, reduction, normalizer))


def _tags_of_people(input: Tensor, target: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Return the tags ``(B, people, K, D)`` at the keypoints, 0 where not labelled, and the mask of those that are."""
    check_floating("input", input)
    if input.ndim < 2:
        raise ValueError(f"`input` must have shape (images, maps, *spatial), but got {tuple(input.shape)}")
    check_number("dimensions", dimensions, at_least=1)
    if not isinstance(dimensions, int) or input.shape[1] % dimensions:
        raise ValueError(f"`dimensions` must divide the {input.shape[1]} maps of `input`, but got {dimensions!r}")
    check_integer("target", target)
    if target.ndim != 3 or target.shape[0] != input.shape[0]:
        got = tuple(target.shape)
        raise ValueError(f"`target` must have shape ({input.shape[0]}, people, keypoints), but got {got}")
    (maps,) = upcast(input)
    maps = maps.unflatten(1, (dimensions, input.shape[1] // dimensions)).flatten(2)
    visible = target >= 0
    index = torch.where(visible, target, 0).long().flatten(1)
    tags = maps.gather(2, index.unsqueeze(1).expand(-1, dimensions, -1))
    tags = tags.unflatten(2, target.shape[1:]).movedim(1, -1)
    return torch.where(visible.unsqueeze(-1), tags, 0), visible


def _check_maps(input: Tensor, target: Tensor) -> None:
    check_elementwise(input, target)
    if input.ndim < 2:
        raise ValueError(f"`input` must have shape (images, maps, *spatial), but got {tuple(input.shape)}")


def _pixel_mask(mask: object, shape: tuple[int, ...]) -> Tensor | None:
    """Return which elements of maps of shape ``(B, K, *spatial)`` count; None if all do."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` must be a tensor, but got {type(mask).__name__}")
    pixels = mask if mask.ndim == len(shape) else mask.unsqueeze(1)
    if pixels.shape not in (shape, (shape[0], 1, *shape[2:])):
        expected = f"{(shape[0], *shape[2:])}, or {shape} with 1 or {shape[1]} maps"
        raise ValueError(f"`mask` must have shape {expected}, but got {tuple(mask.shape)}")
    return (pixels != 0).expand(shape)


def _squared_error(input: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Return the squared difference of maps, 0 where they do not count."""
    x, y = upcast(input, target)
    if valid is not None:
        x, y = torch.where(valid, x, 0), torch.where(valid, y, 0)
    return (x - y).square()


def _reduce_maps(
    loss: Tensor,
    weight: Tensor | None,
    reduction: MapReduction,
    normalizer: Normalizer | None,
    valid: Tensor | None,
) -> Tensor:
    check_choice("reduction", reduction, get_args(MapReduction))
    if reduction != "half_batch":
        return reduce(loss, weight, reduction, normalizer, valid)
    if normalizer is not None:
        raise ValueError("`normalizer` replaces the count of reduction 'mean', but `reduction` is 'half_batch'")
    return reduce(loss, weight, "sum", None, valid) / (2 * max(loss.shape[0], 1))


HeatmapMSELoss = module_form("HeatmapMSELoss", heatmap_mse_loss)
PartAffinityLoss = module_form("PartAffinityLoss", part_affinity_loss)
JointOHKMLoss = module_form("JointOHKMLoss", joint_ohkm_loss)
AssociativeEmbeddingLoss = module_form("AssociativeEmbeddingLoss", associative_embedding_loss)
