"""Pixel-wise and boundary losses of segmentation: oracles from the published formulas and edge inputs."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair
from tests.conformance.dense import (
    binary_edges,
    edges,
    empty,
    empty_binary,
    indicators,
    one_hot,
    probabilities,
    sample,
    sample_binary,
)

X, INDEX = sample(torch.Generator().manual_seed(21))
B, MASK = sample_binary(torch.Generator().manual_seed(22))
Spot = tuple[int, ...]
Flags = NDArray[np.bool_]


def sample_wrong(generator: torch.Generator) -> Pair:
    """Return logits that are wrong over large regions, as an erosion needs them."""
    input, target = sample(generator)
    return input - 4 * one_hot(target), target


# Cross entropies.


def cross_entropies(input: Array, target: Array, multilabel: bool = False) -> Array:
    p = probabilities(input, multilabel)
    if not multilabel and input.shape[1] > 1:
        loss = np.zeros_like(target, dtype=np.float64)
        for n, *spot in np.ndindex(target.shape):
            loss[n, *spot] = -math.log(p[n, int(target[n, *spot]), *spot])
        return loss
    g = indicators(target, input.shape[1]) if input.shape[1] > 1 else (target == 1)[:, None].astype(np.float64)
    loss = -np.log(np.where(g == 1, p, 1 - p))
    return loss if multilabel else loss[:, 0]


def largest(values: Array, number: int) -> Flags:
    chosen = np.zeros(values.size, dtype=bool)
    for i in sorted(range(values.size), key=lambda i: -values.flat[i])[:number]:
        chosen[i] = True
    return chosen.reshape(values.shape)


def topk_mask(values: Array, percent: float = 10.0, per_image: bool = False) -> Flags:
    parts = values if per_image else values[None]
    masks = [largest(part, max(math.floor(part.size * percent / 100), 1)) for part in parts]
    return np.stack(masks) if per_image else masks[0]


def topk(input: Array, target: Array, frozen: Array, multilabel: bool = False, **options: Any) -> Array:
    chosen = topk_mask(cross_entropies(frozen, target, multilabel), **options)
    return np.where(chosen, cross_entropies(input, target, multilabel), 0)


def ohem_mask(values: Array, threshold: float = 0.7, min_kept: int = 100_000) -> Flags:
    unsure: Flags = np.exp(-values) < threshold
    return unsure | largest(values, min_kept)


def ohem(input: Array, target: Array, frozen: Array, multilabel: bool = False, **options: Any) -> Array:
    kept = ohem_mask(cross_entropies(frozen, target, multilabel), **options)
    return np.where(kept, cross_entropies(input, target, multilabel), 0)


# Distances, by looking at every pair of pixels.


@functools.cache
def distances(shape: Spot, spacing: tuple[float, ...]) -> Array:
    """Return the distance of every two pixels."""
    spots = [np.multiply(spot, spacing) for spot in np.ndindex(shape)]
    return np.array([[math.dist(a, b) for b in spots] for a in spots])


def nearest(spot: Spot, others: Iterator[Spot], spacing: tuple[float, ...]) -> float:
    return min(
        (math.sqrt(sum((s * (a - b)) ** 2 for a, b, s in zip(spot, o, spacing, strict=True))) for o in others),
        default=math.inf,
    )


def across(mask: Flags, spacing: tuple[float, ...] | None = None) -> Array:
    """Return the distance of each pixel to the nearest one on the other side of the mask, 0 if there is none."""
    apart = distances(mask.shape, spacing or (1.0,) * mask.ndim)
    found = np.where(mask.ravel() != mask.reshape(-1, 1), apart, np.inf).min(1).reshape(mask.shape)
    return np.where(np.isfinite(found), found, 0)


def inverse(mask: Flags, spacing: tuple[float, ...] | None = None) -> Array:
    """Return (max - d) / max within the True region of the mask."""
    distance = np.where(mask, across(mask, spacing), 0)
    return np.where(mask, (distance.max() - distance) / distance.max(), 0) if distance.any() else distance


def distance_penalized(
    input: Array,
    target: Array,
    frozen: Array,
    multilabel: bool = False,
    spacing: tuple[float, ...] | None = None,
) -> Array:
    loss = cross_entropies(input, target, multilabel)
    factor = np.ones_like(loss)
    for n, image in enumerate(target):
        for c in range(input.shape[1]):
            own = inverse(image == c, spacing)
            if multilabel:
                factor[n, c] += own + inverse(image != c, spacing)
            else:
                factor[n] += own
    return loss * factor


def objects(mask: Flags) -> list[set[Spot]]:
    """Return the connected parts of a mask, diagonal neighbours included, by flooding."""
    left = {spot for spot in np.ndindex(mask.shape) if mask[spot]}
    parts = []
    while left:
        part, front = set(), [left.pop()]
        while front:
            spot = front.pop()
            part.add(spot)
            near = {o for o in left if max(abs(a - b) for a, b in zip(spot, o, strict=True)) == 1}
            left -= near
            front.extend(near)
        parts.append(part)
    return parts


@functools.cache
def object_distances(mask: bytes, shape: Spot) -> Array:
    """Return the sum of the distances of each pixel to the two nearest objects of a mask, infinity if there is one."""
    parts = objects(np.frombuffer(mask, dtype=np.bool_).reshape(shape))
    both = np.full(shape, np.inf)
    for spot in np.ndindex(shape):
        if len(parts) > 1:
            both[spot] = sum(sorted(nearest(spot, iter(part), (1.0,) * len(shape)) for part in parts)[:2])
    return both


def border_weighted(
    input: Array,
    target: Array,
    frozen: Array,
    border_weight: float = 10.0,
    sigma: float = 5.0,
    class_weight: Tensor | None = None,
) -> Array:
    loss = cross_entropies(input, target)
    for n, *spot in np.ndindex(target.shape):
        label = int(target[n, *spot])
        factor = 1.0 if class_weight is None else float(class_weight[label])
        if label == 0:
            both = object_distances((target[n] > 0).tobytes(), target[n].shape)[*spot]
            factor += border_weight * math.exp(-(both**2) / (2 * sigma**2))
        loss[n, *spot] *= factor
    return loss


def sample_objects(generator: torch.Generator) -> Pair:
    """Return one logit for each pixel and a mask with several objects."""
    target = torch.zeros(2, 5, 7, dtype=torch.long)
    target[0, :2, :2], target[0, 3:, 5:], target[0, 0, 4], target[1, 1, 1], target[1, 3, 4] = 1, 1, 1, 1, 1
    target[0, 2, 4] = 1
    return torch.randn(2, 1, 5, 7, generator=generator, dtype=torch.float64), target


# Boundary losses: a map of each image and class, times something of the probability.


def per_map(
    formula: Callable[..., Array],
) -> Callable[..., Array]:
    """Average ``formula(p, g, frozen_p, **options)``, a map, over the pixels of each image and class."""

    def oracle(
        input: Array,
        target: Array,
        frozen: Array,
        *,
        multilabel: bool = False,
        per_image: bool = True,
        include_background: bool = True,
        **options: Any,
    ) -> Array:
        p, fixed = probabilities(input, multilabel), probabilities(frozen, multilabel)
        g = indicators(target, input.shape[1])
        maps = [
            [formula(p[n, c], g[n, c], fixed[n, c], **options).mean() for c in range(p.shape[1])] for n in range(len(p))
        ]
        elements = np.array(maps)[:, 0 if include_background else 1 :]
        return elements if per_image else elements.mean(0)

    return oracle


def boundary(p: Array, g: Array, fixed: Array, spacing: tuple[float, ...] | None = None) -> Array:
    distance = across(g == 1, spacing)
    return p * np.where(g == 1, min(spacing or (1.0,)) - distance, distance)


def hausdorff_dt(
    p: Array, g: Array, fixed: Array, alpha: float = 2.0, spacing: tuple[float, ...] | None = None
) -> Array:
    result: Array = (p - g) ** 2 * (across(fixed > 0.5, spacing) ** alpha + across(g == 1, spacing) ** alpha)
    return result


@functools.cache
def neighbours(shape: Spot, diagonal: bool) -> NDArray[np.int64]:
    """Return the places of each pixel's neighbours and of itself, -1 where there is none."""
    spots = list(np.ndindex(shape))
    width = 3 ** len(shape) if diagonal else 2 * len(shape) + 1
    places = np.full((len(spots), width), -1)
    for i, spot in enumerate(spots):
        steps = [[abs(a - b) for a, b in zip(spot, other, strict=True)] for other in spots]
        near = [j for j, step in enumerate(steps) if (max(step) if diagonal else sum(step)) <= 1]
        places[i, : len(near)] = near
    return places


def around(values: Array, diagonal: bool, outside: float) -> Array:
    """Return ``(pixels, neighbours)`` values, `outside` for those that lie outside the image."""
    result: Array = np.append(values.ravel(), outside)[neighbours(values.shape, diagonal)]
    return result


def cross_mean(error: Array) -> Array:
    mean: Array = around(error, False, 0.0).mean(1).reshape(error.shape)
    return mean


def hausdorff_erosion(p: Array, g: Array, fixed: Array, alpha: float = 2.0, erosions: int = 10) -> Array:
    error, total = (p - g) ** 2, np.zeros_like(p)
    for k in range(erosions):
        error = np.maximum(cross_mean(error) - 0.5, 0)
        if error.max() > error.min():
            error = (error - error.min()) / (error.max() - error.min())
        total += error * (k + 1) ** alpha
    return total


def eroded(values: Array) -> Array:
    smallest: Array = around(values, False, np.inf).min(1).reshape(values.shape)
    return smallest


def dilated(values: Array) -> Array:
    largest_value: Array = around(values, True, -np.inf).max(1).reshape(values.shape)
    return largest_value


def skeleton(values: Array, iterations: int) -> Array:
    bones = np.maximum(values - dilated(eroded(values)), 0)
    for _ in range(iterations):
        values = eroded(values)
        bones = bones + (1 - bones) * np.maximum(values - dilated(eroded(values)), 0)
    return bones


def cldice(
    input: Array,
    target: Array,
    frozen: Array,
    *,
    multilabel: bool = False,
    per_image: bool = True,
    include_background: bool = True,
    alpha: float = 1.0,
    iterations: int = 3,
    smooth: float = 1.0,
) -> Array:
    p, g = probabilities(input, multilabel), indicators(target, input.shape[1])
    first, images = 0 if include_background else 1, range(len(input))
    groups = [[n] for n in images] if per_image else [list(images)]
    rows = []
    for group in groups:
        row = []
        for c in range(first, p.shape[1]):
            bones_p = [skeleton(p[n, c], iterations) for n in group]
            bones_g = [skeleton(g[n, c], iterations) for n in group]
            hit_p = sum((b * g[n, c]).sum() for b, n in zip(bones_p, group, strict=True)) + smooth
            hit_g = sum((b * p[n, c]).sum() for b, n in zip(bones_g, group, strict=True)) + smooth
            precision = hit_p / (sum(b.sum() for b in bones_p) + smooth)
            sensitivity = hit_g / (sum(b.sum() for b in bones_g) + smooth)
            loss = 1 - 2 * precision * sensitivity / (precision + sensitivity)
            both = sum((p[n, c] * g[n, c]).sum() for n in group)
            size = sum((p[n, c] + g[n, c]).sum() for n in group)
            row.append(alpha * loss + (1 - alpha) * (1 - (2 * both + smooth) / (size + smooth)))
        rows.append(row)
    return np.array(rows if per_image else rows[0])


def chosen_by(mask: Callable[..., Flags]) -> Callable[..., int]:
    """Return how many elements a loss that chooses its pixels takes the mean of."""

    def count(input: Tensor, target: Tensor, multilabel: bool = False, **options: Any) -> int:
        losses_of_pixels = cross_entropies(input.double().numpy(), target.numpy(), multilabel)
        return int(mask(losses_of_pixels, **options).sum())

    return count


def is_index_map(edge: Edge) -> bool:
    return edge.target.ndim < edge.input.ndim and edge.target.dtype in (torch.int64, torch.uint8)


FORMS: tuple[dict[str, Any], ...] = ({"include_background": False, "multilabel": True, "per_image": False},)
THIN = torch.zeros(1, 1, 5, 9, dtype=torch.float64)
THIN[0, 0, 2, 1:8] = 1

CASES = (
    Case(
        "topk_cross_entropy",
        sample,
        topk,
        edges() + binary_edges(large=8, percent=100.0),
        options=({}, {"percent": 35.0, "per_image": True}, {"percent": 50.0, "multilabel": True}),
        identities=(
            Identity(
                "100 percent is cross entropy",
                lambda: losses.topk_cross_entropy(X, INDEX, percent=100),
                lambda: losses.cross_entropy(X, INDEX),
            ),
        ),
        empty=empty,
        count=chosen_by(topk_mask),
    ),
    Case(
        "ohem_cross_entropy",
        sample,
        ohem,
        edges() + binary_edges(large=8, min_kept=0, threshold=0.5),
        options=({}, {"min_kept": 3}, {"min_kept": 12, "threshold": 0.1}, {"multilabel": True, "min_kept": 0}),
        identities=(
            Identity(
                "to keep all is cross entropy",
                lambda: losses.ohem_cross_entropy(X, INDEX),
                lambda: losses.cross_entropy(X, INDEX),
            ),
        ),
        empty=empty,
        count=chosen_by(ohem_mask),
    ),
    Case(
        "distance_penalized_cross_entropy",
        sample,
        distance_penalized,
        edges(),
        options=({}, {"multilabel": True}, {"spacing": (2.0, 0.5)}),
        identities=(
            Identity(
                "one region is cross entropy",
                lambda: losses.distance_penalized_cross_entropy(B, torch.ones_like(MASK)),
                lambda: losses.binary_cross_entropy_with_logits(B, torch.ones_like(B)),
            ),
        ),
        empty=empty,
    ),
    Case(
        "border_weighted_cross_entropy",
        sample_objects,
        border_weighted,
        tuple(edge for edge in edges() if is_index_map(edge)),
        options=({}, {"border_weight": 3.0, "sigma": 1.5}, {"class_weight": torch.tensor([0.5, 2.0])}),
        identities=(
            Identity(
                "one object is cross entropy",
                lambda: losses.border_weighted_cross_entropy(B, torch.ones_like(MASK)),
                lambda: losses.binary_cross_entropy_with_logits(B, torch.ones_like(B)),
            ),
        ),
        empty=empty_binary,
    ),
    Case(
        "boundary_loss",
        sample,
        per_map(boundary),
        edges() + binary_edges(large=8, absent="formula"),
        options=({}, {"spacing": (2.0, 0.5)}, *FORMS),
        empty=empty,
    ),
    Case(
        "hausdorff_dt_loss",
        sample,
        per_map(hausdorff_dt),
        edges() + binary_edges(large=8, alpha=0.5, absent="formula"),
        options=({}, {"alpha": 1.0, "spacing": (2.0, 0.5)}, *FORMS),
        empty=empty,
    ),
    Case(
        "hausdorff_erosion_loss",
        sample_wrong,
        per_map(hausdorff_erosion),
        edges() + binary_edges(large=8, absent="formula"),
        options=({}, {"alpha": 1.0, "erosions": 3}, *({"erosions": 2, **form} for form in FORMS)),
        empty=empty,
    ),
    Case(
        "soft_cldice_loss",
        sample,
        cldice,
        edges() + binary_edges(large=8, smooth=0.0, alpha=0.5),
        options=({}, {"alpha": 0.5, "iterations": 1, "smooth": 0.5}, *FORMS),
        identities=(
            Identity(
                "a line that is met",
                lambda: losses.soft_cldice_loss(2e4 * THIN - 1e4, THIN, iterations=1),
                lambda: 0.0,
            ),
            Identity(
                "alpha 0 is Dice",
                lambda: losses.soft_cldice_loss(X, INDEX, alpha=0),
                lambda: losses.dice_loss(X, INDEX, smooth=1.0, absent="formula"),
            ),
        ),
        empty=empty,
    ),
)
