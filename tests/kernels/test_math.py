"""The elementary functions that kernels are made of, in every instruction set, against NumPy's in double precision."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lossatlas.kernels import native
from tests.kernels.case import needs_kernels

pytestmark = needs_kernels

Array = NDArray[np.float64]

TINY = 2.0**-126
SETS = native.module.instruction_sets() if native.module else ["none"]


def softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(-x, 0))


def by_kernel(name: str, x: NDArray[np.float32], instruction_set: str) -> NDArray[np.float32]:
    assert native.module is not None
    best = native.module.instruction_set()
    source, result = torch.from_numpy(x), torch.empty(len(x))
    native.module.use_instruction_set(instruction_set)
    native.run(f"function_{name}", (source, result), ())
    native.module.use_instruction_set(best)
    return result.numpy()


def numbers() -> NDArray[np.float32]:
    """Return positive and negative normal numbers of every size, more of them where exponentials are finite."""
    generator = np.random.default_rng(0)
    sizes = np.exp2(generator.uniform(-126, 127.9, 200_000))
    near = generator.uniform(-110, 110, 200_000)
    return np.concatenate((sizes, -sizes, near, generator.uniform(-2, 2, 200_000))).astype(np.float32)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize(
    ("name", "function", "low"),
    [
        ("exp", np.exp, -np.inf),
        ("exp_of_negative", lambda x: np.exp(-np.abs(x)), -np.inf),
        ("log", np.log, 0),
        ("log1p", np.log1p, -1),
        ("softplus", softplus, -np.inf),
        ("sigmoid", sigmoid, -np.inf),
        ("atan", np.arctan, -np.inf),
    ],
)
def test_relative_error(name: str, function: Callable[[Array], Array], low: float, instruction_set: str) -> None:
    x = numbers()
    x = x[x > low]
    with np.errstate(over="ignore", under="ignore"):
        expected = function(x.astype(np.float64))
    found = by_kernel(name, x, instruction_set).astype(np.float64)
    huge = expected > np.finfo(np.float32).max
    assert (found[huge] == np.inf).all()
    vanishing = np.abs(expected) < TINY
    assert (np.abs(found[vanishing]) <= TINY).all()
    ordinary = ~huge & ~vanishing
    error = np.abs(found[ordinary] / expected[ordinary] - 1)
    assert error.max() < 4e-7, x[ordinary][error.argmax()]


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize(
    ("name", "at_infinity", "at_minus_infinity", "at_zero"),
    [
        ("exp", np.inf, 0, 1),
        ("exp_of_negative", 0, 0, 1),
        ("log", np.inf, np.nan, -np.inf),
        ("log1p", np.inf, np.nan, 0),
        ("softplus", np.inf, 0, np.log(2)),
        ("sigmoid", 1, 0, 0.5),
        ("atan", np.pi / 2, -np.pi / 2, 0),
    ],
)
def test_infinities_and_nan(
    name: str, at_infinity: float, at_minus_infinity: float, at_zero: float, instruction_set: str
) -> None:
    x = np.tile(np.array([np.inf, -np.inf, 0, np.nan], np.float32), 16)
    expected = np.tile(np.array([at_infinity, at_minus_infinity, at_zero, np.nan], np.float32), 16)
    np.testing.assert_allclose(by_kernel(name, x, instruction_set), expected, rtol=2e-7)
