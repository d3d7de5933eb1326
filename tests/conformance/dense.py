"""Samples, edges and plain computations that the cases of segmentation losses share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.conformance.case import Array, Edge, Pair

CLASSES = 3
IGNORED = -100


def sample(generator: torch.Generator) -> Pair:
    """Return logits of three classes and an index map in which every image has each class."""
    input = torch.randn(2, CLASSES, 4, 5, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(0, CLASSES, (2, 4, 5), generator=generator)
    target[:, 1, :3] = torch.arange(CLASSES)
    return input, target


def sample_binary(generator: torch.Generator) -> Pair:
    """Return one logit for each pixel and a map of 0 and 1 that holds both in every image."""
    input, target = sample(generator)
    return input[:, :1].contiguous(), target.clamp(max=1)


def empty() -> Pair:
    return torch.zeros(0, CLASSES, 4, 5), torch.zeros(0, 4, 5, dtype=torch.long)


def empty_binary() -> Pair:
    return torch.zeros(0, 1, 4, 5), torch.zeros(0, 4, 5, dtype=torch.long)


def one_hot(index: Tensor, classes: int = CLASSES) -> Tensor:
    return torch.nn.functional.one_hot(index, classes).movedim(-1, 1).double()


def binary_edges(large: int = 512, **options: Any) -> tuple[Edge, ...]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 1, 4, 5, generator=generator, dtype=torch.float64)
    mask = torch.zeros(2, 4, 5, dtype=torch.long)
    mask[:, 1:3, 1:4] = 1
    sure = (mask.double() * 2e4 - 1e4).unsqueeze(1)
    wide = torch.zeros(1, large, large, dtype=torch.long)
    wide[:, 9:-70, 50:-5] = 1
    pairs = {
        "one channel": (x, mask),
        "one channel, with its axis": (x, mask.unsqueeze(1).double()),
        "one channel, boolean": (x, mask.bool()),
        "empty mask": (x, torch.zeros_like(mask)),
        "full mask": (x, torch.ones_like(mask)),
        "empty mask, nothing predicted": (-sure.abs(), torch.zeros_like(mask)),
        "all ignored": (x, torch.full_like(mask, IGNORED)),
        "logits of 1e4, right": (sure, mask),
        "logits of 1e4, wrong": (-sure, mask),
        "logits of 60, right": (sure * 6e-3, mask),
        "equal logits": (torch.zeros_like(x), mask),
        "1 x 1": (x[..., :1, :1], mask[:, :1, :1]),
        "one dimension": (x[:, :, 1], mask[:, 1]),
        "three dimensions": (x.unsqueeze(2).repeat(1, 1, 2, 1, 1), mask.unsqueeze(1).repeat(1, 2, 1, 1)),
        "large": (torch.randn(1, 1, large, large, generator=generator, dtype=torch.float64) * 4, wide),
    }
    return tuple(Edge(name, *pair, options) for name, pair in pairs.items())


def class_edges(large: int = 512, **options: Any) -> tuple[Edge, ...]:
    generator = torch.Generator().manual_seed(6)
    x, index = sample(generator)
    sure = one_hot(index) * 2e4 - 1e4
    wide = torch.zeros(1, large, large, dtype=torch.long)
    wide[:, 9:-70, 50:-5] = 2
    soft = torch.rand(2, CLASSES, 4, 5, generator=generator, dtype=torch.float64).softmax(1)
    pairs = {
        "background only": (x, torch.zeros_like(index)),
        "foreground only": (x, torch.ones_like(index)),
        "all ignored": (x, torch.full_like(index, IGNORED)),
        "one image ignored": (x, torch.stack((index[0], torch.full_like(index[1], IGNORED)))),
        "logits of 1e4, right": (sure, index),
        "logits of 1e4, wrong": (-sure, index),
        "logits of 60, right": (sure * 6e-3, index),
        "equal logits": (torch.zeros_like(x), index),
        "1 x 1": (x[..., :1, :1], index[:, :1, :1]),
        "one dimension": (x[:, :, 1], index[:, 1]),
        "three dimensions": (x.unsqueeze(2).repeat(1, 1, 2, 1, 1), index.unsqueeze(1).repeat(1, 2, 1, 1)),
        "bytes": (x, index.byte()),
        "one-hot": (x, one_hot(index)),
        "soft": (x, soft),
        "soft, met": (soft.log(), soft),
        "no pixels": (x[..., :0], index[..., :0]),
        "large": (torch.randn(1, CLASSES, large, large, generator=generator, dtype=torch.float64) * 4, wide),
    }
    return tuple(Edge(name, *pair, options) for name, pair in pairs.items())


def edges(**options: Any) -> tuple[Edge, ...]:
    """Return the edges of a loss that takes one channel or several."""
    return class_edges(**options) + tuple(
        Edge(
            edge.name if edge.name.startswith("one channel") else f"one channel, {edge.name}",
            edge.input,
            edge.target,
            edge.options,
        )
        for edge in binary_edges(**options)
    )


def probabilities(input: Array, multilabel: bool = False, two_classes: bool = False) -> Array:
    if two_classes and input.shape[1] == 1:
        input = np.concatenate((np.zeros_like(input), input), 1)
    if multilabel or input.shape[1] == 1:
        return 1 / (1 + np.exp(-input))
    exponential = np.exp(input - input.max(1, keepdims=True))
    result: Array = exponential / exponential.sum(1, keepdims=True)
    return result


def indicators(target: Array, classes: int) -> Array:
    """Return the target of an index map, 1 in the channel of each pixel's class."""
    return np.stack([(target == c).astype(np.float64) for c in range(classes)], 1)


def targets(input: Array, target: Array, two_classes: bool = False) -> Array:
    if input.shape[1] > 1:
        return indicators(target, input.shape[1])
    return indicators(target, 2)[:, 0 if two_classes else 1 :]


def groups(maps: Array, per_image: bool) -> list[Array]:
    """Return ``(C, pixels)`` for each image, or once for the batch."""
    rows = [image.reshape(image.shape[0], -1) for image in maps]
    return rows if per_image else [np.concatenate(rows, 1)]


def by_class(formula: Callable[..., float], default: str = "penalize") -> Callable[..., Array]:
    """Apply ``formula(p, g, **options)`` to the pixels of each image and class."""

    def oracle(
        input: Array,
        target: Array,
        frozen: Array,
        *,
        multilabel: bool = False,
        per_image: bool = True,
        include_background: bool = True,
        absent: str = default,
        **options: Any,
    ) -> Array:
        first = 0 if include_background else 1
        p = groups(probabilities(input, multilabel)[:, first:], per_image)
        g = groups(targets(input, target)[:, first:], per_image)

        def element(p: Array, g: Array) -> float:
            if g.sum() == 0 and absent == "penalize":
                return float(p.mean())
            return formula(p, g, **options)

        elements = [[element(*pair) for pair in zip(*group, strict=True)] for group in zip(p, g, strict=True)]
        return np.array(elements if per_image else elements[0], dtype=np.float64)

    return oracle


def by_image(formula: Callable[..., float]) -> Callable[..., Array]:
    """Apply ``formula(p, g, **options)`` to the classes and pixels of each image."""

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
        first = 0 if include_background else 1
        p = groups(probabilities(input, multilabel, True)[:, first:], per_image)
        g = groups(targets(input, target, True)[:, first:], per_image)
        elements = [formula(*pair, **options) for pair in zip(p, g, strict=True)]
        return np.array(elements if per_image else elements[0], dtype=np.float64)

    return oracle
