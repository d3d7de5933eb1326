"""Every loss that has a kernel."""

from typing import Any

import torch
from torch import Tensor

from lossatlas import losses
from tests.kernels.case import Case, Pair


def questions(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    return 4 * torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) < 0.3).to(torch.int64)


def qualities(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    quality = torch.rand(shape, generator=generator)
    return 4 * torch.randn(shape, generator=generator), quality * (torch.rand(shape, generator=generator) < 0.5)


def heights(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    x, height = qualities(generator, shape)
    return x, torch.where(torch.rand(shape, generator=generator) < 0.1, 1, height)


def extremes(*targets: float) -> tuple[Pair, ...]:
    """Logits up to the largest, each with every target."""
    x = torch.tensor([0.0, -0.0, 1e-30, 1e-3, 1.0, 16.0, 17.5, 30.0, 80.0, 87.0, 88.0, 89.0, 100.0, 104.0, 1e4, 1e30])
    x = torch.cat((x, -x))
    return tuple((x, torch.full_like(x, target)) for target in targets)


ELEMENTWISE: dict[str, Any] = {
    "shapes": ((3, 5, 7), (1,), (511,), (512,), (513,), (2, 17_000)),
    "weights": ((), (7,), (5, 1), (3, 1, 1), (3, 5, 7)),
}

CASES = (
    Case(
        "binary_cross_entropy",
        losses.binary_cross_entropy_with_logits,
        questions,
        options=({}, {"label_smoothing": 0.1}),
        edges=extremes(0, 1, 0.25),
        **ELEMENTWISE,
    ),
    Case(
        "sigmoid_focal",
        losses.sigmoid_focal_loss,
        questions,
        options=({}, {"alpha": None}, {"gamma": 0.0}, {"gamma": 1.0}, {"gamma": 0.5}, {"gamma": 2.5}),
        edges=extremes(0, 1, 0.25),
        **ELEMENTWISE,
    ),
    Case(
        "quality_focal",
        losses.quality_focal_loss,
        qualities,
        options=({}, {"beta": 0.0}, {"beta": 1.0}, {"beta": 1.5}),
        edges=extremes(0, 1, 0.25, 0.5),
        **ELEMENTWISE,
    ),
    Case(
        "varifocal",
        losses.varifocal_loss,
        qualities,
        options=({}, {"gamma": 0.0}, {"gamma": 1.0, "alpha": 0.5}, {"gamma": 1.5}),
        edges=extremes(0, 1, 0.25),
        **ELEMENTWISE,
    ),
    Case(
        "gaussian_focal",
        losses.gaussian_focal_loss,
        heights,
        options=({}, {"alpha": 1.5}, {"beta": 3.0}, {"alpha": 0.0, "beta": 0.0}),
        edges=extremes(0, 1, 0.25),
        **ELEMENTWISE,
    ),
)


def layouts(tensor: Tensor) -> list[Tensor]:
    """Return the same numbers in other layouts of memory: gaps, another order of axes, both, one number for all."""
    strided = torch.stack((tensor, tensor), dim=-1)[..., 0]
    permuted = tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return [strided, permuted, torch.stack((permuted, permuted), dim=0)[1]]
