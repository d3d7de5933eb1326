"""Anchors from a data set: the shapes that its objects cluster around."""

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.boxes.geometry import shape_iou
from lossatlas.checks import check_boxes, check_choice, check_number
from lossatlas.dtypes import upcast

ShapeDistance: TypeAlias = Literal["iou", "ratio"]


def kmeans_anchors(
    sizes: Float[Tensor, "n 2"],
    count: int = 9,
    *,
    distance: ShapeDistance = "iou",
    iterations: int = 300,
    seed: int = 0,
) -> Float[Tensor, "k 2"]:
    """Return the anchor shapes that the sizes of a data set's objects cluster around, by k-means.

    Formula:
        "iou":   d = 1 - IoU of the two shapes around one centre; the centre of a cluster is its mean
        "ratio": d = max(w / wₐ, wₐ / w, h / hₐ, hₐ / h) - 1; the centre of a cluster is its geometric mean

    Args:
        sizes: ``(N, 2)`` width and height of objects, in the unit that the anchors shall have. Objects without a width
            or a height are left out.
        count: k, number of anchors.
        distance: ``"iou"`` of YOLOv2 and later, or ``"ratio"``, which is what YOLOv5 matches by.
        iterations: most rounds; it ends as soon as no object changes its cluster.
        seed: of the first centres, which are drawn as by k-means++: with probability d² to the nearest one.

    Returns:
        ``(k, 2)`` width and height, smallest area first; in the sizes' dtype, float32 at least.

    Raises:
        ValueError: another shape, fewer sizes with an area than `count`, or a number or `distance` out of its range.

    Example:
        >>> sizes = torch.tensor([[10.0, 10.0], [40.0, 20.0], [12.0, 10.0], [44.0, 20.0]])
        >>> kmeans_anchors(sizes, 2)
        tensor([[11., 10.],
                [42., 20.]])

    Note:
        The order of the sizes does not matter, and the same seed gives the same anchors. An empty cluster starts anew
        at the object that is farthest from its centre. Equal distances go to the first centre.

    Reference:
        Redmon and Farhadi, "YOLO9000", 2016, arXiv 1612.08242, section 2 (dimension clusters); first centres: Arthur
        and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
    """
    check_boxes("sizes", sizes, 2)
    if sizes.ndim != 2:
        raise ValueError(f"`sizes` must have shape (N, 2), but got {tuple(sizes.shape)}")
    check_number("count", count, at_least=1)
    check_choice("distance", distance, get_args(ShapeDistance))
    check_number("iterations", iterations, at_least=1)
    (sizes,) = upcast(sizes)
    sizes = _sorted(sizes[(sizes > 0).all(1)])
    if len(sizes) < count:
        raise ValueError(f"`sizes` must hold at least {count} objects with an area, but has {len(sizes)}")
    centers = _first_centers(sizes, count, distance, seed)
    members = torch.full_like(sizes[:, 0], -1, dtype=torch.int64)
    for _ in range(iterations):
        nearest, closest = _distances(sizes, centers, distance).min(dim=1)
        closest = _fill_empty(closest, nearest, count)
        if torch.equal(closest, members):
            break
        members = closest
        centers = _centers(sizes, members, count, distance)
    return centers[centers.prod(1).argsort(stable=True)]


def _sorted(sizes: Tensor) -> Tensor:
    sizes = sizes[sizes[:, 1].argsort(stable=True)]
    return sizes[sizes[:, 0].argsort(stable=True)]


def _distances(sizes: Tensor, centers: Tensor, distance: ShapeDistance) -> Float[Tensor, "n k"]:
    if distance == "iou":
        return 1 - shape_iou(sizes[:, None], centers)
    ratio = sizes[:, None] / centers
    return torch.maximum(ratio, 1 / ratio).amax(-1) - 1


def _first_centers(sizes: Tensor, count: int, distance: ShapeDistance, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(sizes), (), generator=generator))]
    while len(chosen) < count:
        chance = _distances(sizes, sizes[chosen], distance).amin(1).double().cpu() ** 2
        chance[chosen] = 0
        if not chance.sum() > 0:  # fewer different sizes than anchors
            chance = torch.ones_like(chance)
            chance[chosen] = 0
        chosen.append(int(torch.multinomial(chance, 1, generator=generator)))
    return sizes[chosen]


def _fill_empty(members: Int[Tensor, " n"], nearest: Tensor, count: int) -> Int[Tensor, " n"]:
    """Give each empty cluster the object that is farthest from its centre, of those that leave no cluster empty."""
    members, nearest = members.clone(), nearest.clone()
    population = members.bincount(minlength=count)
    for empty in (population == 0).nonzero().flatten().tolist():
        spare = torch.where(population[members] > 1, nearest, -1)
        farthest = spare.argmax()
        population[members[farthest]] -= 1
        population[empty] = 1
        members[farthest] = empty
        nearest[farthest] = -1
    return members


def _centers(sizes: Tensor, members: Tensor, count: int, distance: ShapeDistance) -> Tensor:
    values = sizes.log() if distance == "ratio" else sizes
    population = members.bincount(minlength=count)[:, None]
    means = values.new_zeros(count, 2).index_add(0, members, values) / population
    return means.exp() if distance == "ratio" else means
