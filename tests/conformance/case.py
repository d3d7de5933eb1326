"""What the conformance suite needs to know of a loss: how to sample it, and an independent computation of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Edge:
    """An input at the edge of what is ordinary; the loss and its gradient must be finite on it."""

    name: str
    input: Tensor
    target: Tensor
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """Two computations that must give the same number, such as a focal loss without focus and cross entropy."""

    name: str
    left: Callable[[], Tensor]
    right: Callable[[], Tensor | float]


@dataclass(frozen=True)
class Case:
    """One loss of the catalogue.

    `oracle` takes float64 arrays ``(input, target, frozen, **options)`` and returns the elements of the loss
    (``reduction="none"``), computed from the published formula without any code of the library. `frozen` is the input
    once more: what the formula holds constant (detached) is computed from it and not from `input`, so that central
    differences of the oracle in `input` are the gradient the loss must have.

    `gradient_oracle`, ``(input, target, **options)``, replaces those differences where the published gradient is not
    the derivative of the value (error-driven updates). `combine` makes one tensor of a loss that returns several
    terms. `eager_only` says why a loss cannot be captured as one graph, where that is so. `required` are the arguments
    that have no default; the oracle knows them as its own defaults.
    """

    name: str
    sample: Callable[[torch.Generator], Pair]
    oracle: Callable[..., Array]
    edges: tuple[Edge, ...]
    options: tuple[dict[str, Any], ...] = ({},)
    identities: tuple[Identity, ...] = ()
    detached: bool = False
    empty: Callable[[], Pair] = lambda: (torch.zeros(0), torch.zeros(0))
    gradient_oracle: Callable[..., Array] | None = None
    combine: Callable[[Any], Tensor] | None = None
    count: Callable[..., int] | None = None
    eager_only: str = ""
    required: dict[str, Any] = field(default_factory=dict)


def per_element(formula: Callable[..., float]) -> Callable[..., Array]:
    """Apply a formula for one element, ``formula(x, y, **options)``, to arrays of any shape."""

    def oracle(input: Array, target: Array, frozen: Array, **options: Any) -> Array:
        elements = [formula(float(x), float(y), **options) for x, y in zip(input.flat, target.flat, strict=True)]
        return np.array(elements, dtype=np.float64).reshape(input.shape)

    return oracle


def per_row(formula: Callable[..., float]) -> Callable[..., Array]:
    """Apply a formula for one row of the last axis, ``formula(row, target_row, frozen_row, **options)``."""

    def oracle(input: Array, target: Array, frozen: Array, **options: Any) -> Array:
        width = input.shape[-1]
        rows = zip(input.reshape(-1, width), target.reshape(-1, width), frozen.reshape(-1, width), strict=True)
        elements = [formula(row.tolist(), other.tolist(), fixed.tolist(), **options) for row, other, fixed in rows]
        return np.array(elements, dtype=np.float64).reshape(input.shape[:-1])

    return oracle


def central_difference(function: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    """Return the gradient of `function` by central differences, one element of `at` after the other."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[index] = step * max(1.0, abs(float(at[index])))
        gradient[index] = (function(at + shift) - function(at - shift)) / (2 * shift[index])
    return gradient
