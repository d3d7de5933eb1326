"""Every loss that has a kernel."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossatlas import losses
from tests.kernels import box_cases, ranking_cases
from tests.kernels.case import Case, Pair


def questions(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    return 4 * torch.randn(shape, generator=generator), (torch.rand(shape, generator=generator) < 0.3).to(torch.int64)


def qualities(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    quality = torch.rand(shape, generator=generator)
    return 4 * torch.randn(shape, generator=generator), quality * (torch.rand(shape, generator=generator) < 0.5)


def heights(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    x, height = qualities(generator, shape)
    return x, torch.where(torch.rand(shape, generator=generator) < 0.1, 1, height)


def numbers(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    return 2 * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def rendered(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    """Heatmaps and targets from 0 to 1."""
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def classes(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    index = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    return 4 * torch.randn(shape, generator=generator), index


def answers(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    """Independent channels, with targets of which some are soft."""
    x, target = qualities(generator, shape)
    return x, torch.where(torch.rand(shape, generator=generator) < 0.5, target.round(), target)


def coarse(sample: Callable[[torch.Generator, tuple[int, ...]], Pair]) -> Callable[..., Pair]:
    """Round the logits, so that many errors are equal, in single as in double precision."""

    def rounded(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
        x, target = sample(generator, shape)
        return (x * 16).round() / 16, target

    return rounded


def extreme_maps() -> tuple[Pair, ...]:
    return tuple((x.T[None], target[None]) for x, target in extreme_classes())


def extreme_classes() -> tuple[Pair, ...]:
    """Logits that are equal, far apart, and all huge, with each class the true one."""
    rows = [
        [0, 0, 0, 0],
        [0, 1e-4, 0, 9],
        [20, 0, 0, 0],
        [100, 0, -100, 1],
        [1e4, 0, -1e4, 0],
        [1e30, 1e30, 0, 0],
        [-1e4] * 4,
    ]
    x = torch.tensor(rows, dtype=torch.float32)
    return tuple((x, torch.full((len(rows),), index)) for index in range(4))


def extremes(*targets: float) -> tuple[Pair, ...]:
    """Logits up to the largest, each with every target."""
    x = torch.tensor([0.0, -0.0, 1e-30, 1e-3, 1.0, 16.0, 17.5, 30.0, 80.0, 87.0, 88.0, 89.0, 100.0, 104.0, 1e4, 1e30])
    x = torch.cat((x, -x))
    return tuple((x, torch.full_like(x, target)) for target in targets)


def small_extremes(*targets: float) -> tuple[Pair, ...]:
    """Numbers whose squares are finite."""
    return tuple((x[x.abs() < 1e18], target[x.abs() < 1e18]) for x, target in extremes(*targets))


ELEMENTWISE: dict[str, Any] = {
    "shapes": ((3, 5, 7), (1,), (511,), (512,), (513,), (2, 17_000)),
    "weights": ((), (7,), (5, 1), (3, 1, 1), (3, 5, 7)),
}

CLASSES: dict[str, Any] = {
    "shapes": ((3, 4, 5, 7), (7, 4), (513, 4), (1, 4, 512), (3, 4, 25_000)),
    "weights": ((), (7,), (5, 1), (3, 1, 1), (3, 5, 7)),
}

MAPS: dict[str, Any] = {
    "shapes": ((3, 4, 5, 7), (1, 4, 512), (2, 70, 100), (3, 4, 25_000)),
    "weights": ((), (3, 1)),
    # The gradient of a pixel is the difference of what its classes change; that of the PyTorch form is no nearer.
    "atol": 3e-6,
}

IMAGES: dict[str, Any] = MAPS | {"weights": ((), (3,))}

CASES = (
    Case(
        "binary_cross_entropy",
        losses.binary_cross_entropy_with_logits,
        questions,
        options=({}, {"label_smoothing": 0.1}, {"pos_weight": torch.tensor(3.0), "label_smoothing": 0.1}),
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
    Case("l1", losses.l1_loss, numbers, edges=extremes(0, 1, -100), **ELEMENTWISE),
    Case(
        "smooth_l1",
        losses.smooth_l1_loss,
        numbers,
        options=({}, {"beta": 0.0}, {"beta": 0.1}),
        edges=extremes(0, 1, -100),
        **ELEMENTWISE,
    ),
    Case("smooth_l1_sigma", losses.smooth_l1_sigma_loss, numbers, options=({}, {"sigma": 1.0}), **ELEMENTWISE),
    Case(
        "balanced_l1",
        losses.balanced_l1_loss,
        numbers,
        options=({}, {"alpha": 0.2, "gamma": 1.0, "beta": 0.5}),
        edges=extremes(0, 1, -100),
        **ELEMENTWISE,
    ),
    Case(
        "focal_l1",
        losses.focal_l1_loss,
        numbers,
        options=({}, {"beta": 1.0}, {"alpha": 2.0, "beta": 0.4}),
        # Not 1: where x - y is nearly 1 its rounding is larger than the gradient of a beta of 1.
        edges=extremes(0, -100),
        **ELEMENTWISE,
    ),
    Case("mse", losses.mse_loss, numbers, edges=small_extremes(0, 1, -100), **ELEMENTWISE),
    Case("l2", losses.l2_loss, numbers, edges=small_extremes(0, 1), **ELEMENTWISE),
    Case(
        "wing",
        losses.wing_loss,
        numbers,
        options=({}, {"width": 1.0, "epsilon": 0.5}),
        edges=extremes(0, 1, -100),
        **ELEMENTWISE,
    ),
    Case(
        "adaptive_wing",
        losses.adaptive_wing_loss,
        rendered,
        options=({}, {"alpha": 1.5, "omega": 5.0, "epsilon": 0.3, "theta": 0.2}),
        edges=extremes(0, 1, 0.25),
        **ELEMENTWISE,
    ),
    Case("huber", losses.huber_loss, numbers, options=({}, {"delta": 0.1}), edges=extremes(0, 1), **ELEMENTWISE),
    Case(
        "cross_entropy",
        losses.cross_entropy,
        classes,
        options=(
            {},
            {"label_smoothing": 0.1},
            {"class_weight": torch.tensor([0.5, 2.0, 1.0, 3.0])},
            {"label_smoothing": 0.2, "class_weight": torch.tensor([0.5, 2.0, 1.0, 3.0])},
        ),
        edges=extreme_classes(),
        **CLASSES,
    ),
    Case(
        "softmax_focal",
        losses.softmax_focal_loss,
        classes,
        options=({}, {"gamma": 0.5}, {"alpha": 0.25, "gamma": 1.0}),
        edges=extreme_classes(),
        **CLASSES,
    ),
    Case(
        "dice",
        losses.dice_loss,
        classes,
        options=({}, {"per_image": False}, {"include_background": False, "smooth": 1.0}, {"absent": "skip"}),
        edges=extreme_maps(),
        **MAPS,
    ),
    Case("tversky", losses.tversky_loss, classes, options=({}, {"alpha": 0.6}), edges=extreme_maps(), **MAPS),
    Case(
        "jaccard_of_channels",
        functools.partial(losses.jaccard_loss, multilabel=True),
        answers,
        options=({}, {"overlap": "minimum"}),
        **MAPS,
    ),
    Case("dice_of_one_channel", losses.dice_loss, questions, **(MAPS | {"shapes": ((3, 1, 5, 7), (2, 1, 40_000))})),
    Case(
        "dice_cross_entropy",
        losses.dice_cross_entropy_loss,
        classes,
        options=({}, {"per_image": False}, {"dice_weight": 0.0}),
        edges=extreme_maps(),
        **IMAGES,
    ),
    Case(
        "dice_cross_entropy_of_channels",
        functools.partial(losses.dice_cross_entropy_loss, multilabel=True),
        answers,
        options=({}, {"overlap": "minimum"}),
        **IMAGES,
    ),
    Case(
        "dice_focal",
        losses.dice_focal_loss,
        classes,
        options=({}, {"gamma": 1.5, "alpha": 0.25}, {"dice_weight": 0.0, "gamma": 0.0}),
        edges=extreme_maps(),
        **IMAGES,
    ),
    Case(
        "dice_focal_of_channels",
        functools.partial(losses.dice_focal_loss, multilabel=True),
        answers,
        options=({}, {"gamma": 0.5, "alpha": 0.25}),
        **IMAGES,
    ),
    Case(
        "lovasz_softmax",
        losses.lovasz_softmax_loss,
        classes,
        options=(
            {},
            {"per_image": True},
            {"include_background": False},
            {"per_image": True, "absent": "formula", "include_background": False},
        ),
        edges=extreme_maps(),
        # Errors that are equal but for their rounding change places, and their slopes differ by one of so many pixels.
        **(MAPS | {"weights": ((), (4,)), "atol": 4e-5}),
    ),
    Case(
        "lovasz_of_channels",
        functools.partial(losses.lovasz_softmax_loss, multilabel=True),
        coarse(answers),
        options=({}, {"per_image": True, "include_background": False, "absent": "formula"}),
        **(MAPS | {"weights": ((), (4,))}),
    ),
    Case(
        "lovasz_hinge",
        losses.lovasz_hinge_loss,
        coarse(questions),
        options=({}, {"per_image": False, "absent": "skip"}),
        **(MAPS | {"shapes": ((3, 1, 5, 7), (2, 1, 512), (2, 1, 70_000))}),
    ),
    Case("lovasz_hinge_of_indices", losses.lovasz_hinge_loss, coarse(classes), edges=extreme_maps(), **MAPS),
    *box_cases.CASES,
    *ranking_cases.CASES,
)


def layouts(tensor: Tensor) -> list[Tensor]:
    """Return the same numbers in other layouts of memory: gaps, another order of axes, both, one number for all."""
    strided = torch.stack((tensor, tensor), dim=-1)[..., 0]
    permuted = tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return [strided, permuted, torch.stack((permuted, permuted), dim=0)[1]]
