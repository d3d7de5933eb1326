"""k-means anchors: what they find, that they are a fixed point of their rule, and when they are ill-posed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.boxes.clustering import kmeans_anchors


def sizes_around(shapes: list[tuple[float, float]], each: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    centers = torch.tensor(shapes, dtype=torch.float64).repeat_interleave(each, 0)
    return centers * (0.9 + 0.2 * torch.rand(len(centers), 2, generator=generator, dtype=torch.float64))


def far(a: list[float], b: list[float], distance: str) -> float:
    if distance == "ratio":
        return max(a[0] / b[0], b[0] / a[0], a[1] / b[1], b[1] / a[1])
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return 1 - shared / (a[0] * a[1] + b[0] * b[1] - shared)


def geometric_mean(values: list[float]) -> float:
    product = 1.0
    for value in values:
        product *= value ** (1 / len(values))
    return product


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("distance", ["iou", "ratio"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_anchors_are_the_means_of_what_is_nearest_to_them(distance: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = 5 + 100 * torch.rand(200, 2, generator=generator, dtype=torch.float64)
    anchors = kmeans_anchors(sizes, 5, distance=distance, seed=seed).tolist()
    clusters: list[list[list[float]]] = [[] for _ in anchors]
    for size in sizes.tolist():
        distances = [far(size, anchor, distance) for anchor in anchors]
        clusters[distances.index(min(distances))].append(size)
    average = mean if distance == "iou" else geometric_mean
    for anchor, members in zip(anchors, clusters, strict=True):
        assert anchor == pytest.approx([average([size[axis] for size in members]) for axis in (0, 1)])
    areas = [w * h for w, h in anchors]
    assert areas == sorted(areas)


@pytest.mark.parametrize("distance", ["iou", "ratio"])
def test_separate_clusters_are_found(distance: Any) -> None:
    shapes = [(10.0, 12.0), (40.0, 15.0), (30.0, 90.0), (200.0, 180.0)]
    sizes = sizes_around(shapes, 50)
    anchors = kmeans_anchors(sizes, 4, distance=distance)
    torch.testing.assert_close(anchors, torch.tensor(shapes, dtype=torch.float64), rtol=0.05, atol=0)


def test_the_order_of_the_sizes_does_not_matter_and_the_seed_decides() -> None:
    sizes = sizes_around([(10.0, 12.0), (40.0, 15.0), (30.0, 90.0)], 40)
    shuffled = sizes[torch.randperm(len(sizes), generator=torch.Generator().manual_seed(1))]
    assert torch.equal(kmeans_anchors(sizes, 5), kmeans_anchors(shuffled, 5))
    assert any(not torch.equal(kmeans_anchors(sizes, 5), kmeans_anchors(sizes, 5, seed=seed)) for seed in range(1, 6))


def test_equal_sizes_leave_no_cluster_empty() -> None:
    sizes = torch.tensor([[8.0, 4.0]] * 6 + [[20.0, 20.0]])
    for seed in range(5):
        anchors = kmeans_anchors(sizes, 4, seed=seed)
        assert anchors.tolist() == [[8.0, 4.0]] * 3 + [[20.0, 20.0]]


def test_as_many_anchors_as_objects_are_the_objects() -> None:
    sizes = torch.tensor([[20.0, 20.0], [8.0, 4.0], [0.0, 7.0], [9.0, 30.0]])  # one of them has no area
    assert kmeans_anchors(sizes, 3).tolist() == [[8.0, 4.0], [9.0, 30.0], [20.0, 20.0]]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`sizes` must hold at least 3 objects with an area, but has 2"):
        kmeans_anchors(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 0.0]]), 3)
    with pytest.raises(ValueError, match=r"`sizes` must have shape \(\.\.\., 2\)"):
        kmeans_anchors(torch.ones(3, 4))
    with pytest.raises(ValueError, match="`distance` must be one of 'iou', 'ratio'"):
        kmeans_anchors(torch.ones(9, 2), distance="l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`count` must be finite and at least 1"):
        kmeans_anchors(torch.ones(9, 2), 0)
