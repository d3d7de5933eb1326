"""A small batch for both objectives: images with several, no, crowded and tiny objects."""

import torch
from torch import Tensor

from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.objectives import CenterNetOutputs, FCOSOutputs, RetinaNetOutputs

SIZES, STRIDES, CLASSES = [(6, 6), (3, 3)], [8, 16], 3

TARGETS = [
    {
        "boxes": torch.tensor([[1.0, 2.0, 27.0, 30.0], [20.0, 20.0, 47.0, 44.0], [3.0, 30.0, 15.0, 41.0]]),
        "labels": torch.tensor([2, 0, 1]),
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    {
        "boxes": torch.tensor([[4.0, 4.0, 20.0, 18.0], [24.0, 0.0, 48.0, 48.0]]),
        "labels": torch.tensor([1, 1]),
        "iscrowd": torch.tensor([False, True]),
    },
]
EMPTY = [TARGETS[1]] * 3


def leaf(*shape: int, seed: int, positive: bool = False) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values.abs() + 0.1 if positive else values).requires_grad_()


def fcos_outputs(images: int = 3) -> FCOSOutputs:
    points, strides = point_grid(SIZES, STRIDES, dtype=torch.float64)
    count = len(points)
    return FCOSOutputs(
        leaf(images, count, CLASSES, seed=0),
        leaf(images, count, 4, seed=1, positive=True),
        leaf(images, count, seed=2),
        points,
        strides,
    )


def retinanet_outputs(images: int = 3) -> RetinaNetOutputs:
    anchors = anchor_grid(SIZES, STRIDES, dtype=torch.float64)
    return RetinaNetOutputs(leaf(images, len(anchors), CLASSES, seed=0), leaf(images, len(anchors), 4, seed=1), anchors)


def centernet_outputs(images: int = 3) -> CenterNetOutputs:
    maps = [leaf(images, numbers, 6, 6, seed=seed) for seed, numbers in enumerate((CLASSES, 2, 2))]
    return CenterNetOutputs(maps[0], maps[1], maps[2], stride=8)


def gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
