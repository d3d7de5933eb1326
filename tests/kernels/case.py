"""What the tests of kernels need to know of a loss that has one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import kernels

REQUIRED = os.environ.get("LOSSATLAS_REQUIRE_KERNELS") == "1"
"""Whether missing kernels are a failure (``make test``) or a reason to skip."""

needs_kernels = pytest.mark.skipif(
    not kernels.status().kernels,
    reason=f"the kernels are not used: {kernels.status().reason}; CONTRIBUTING.md says how to build them",
)

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """A public loss of which a kernel computes value and gradient.

    `sample` draws ordinary float32 inputs of several shapes, by the seed. `edges` are inputs at the edge of what is
    ordinary. `options` are the hyper-parameters that the kernel treats differently.
    """

    name: str
    loss: Callable[..., Tensor]
    sample: Callable[[torch.Generator, tuple[int, ...]], Pair]
    shapes: tuple[tuple[int, ...], ...]
    options: tuple[dict[str, Any], ...] = ({},)
    edges: tuple[Pair, ...] = ()
    ignored: float = -7
    weights: tuple[tuple[int, ...], ...] = ()
    """Shapes of weights that broadcast to the elements of the first shape."""
    rtol: float = 4e-6
    atol: float = 1e-6
    derived: bool = True
    """Whether the gradient is the derivative of the value, which has a derivative of its own."""
    one_graph: bool = True
    """Whether the PyTorch form can be exported, whose shapes do not depend on what tensors hold."""
    memory: float = 1.2
    """Bytes over the inputs, forward and backward, in units of the logits."""

    def draw(self, seed: int = 0, shape: tuple[int, ...] | None = None) -> Pair:
        """Draw inputs of the first shape, or of another."""
        return self.sample(torch.Generator().manual_seed(seed), shape or self.shapes[0])


def evaluate(loss: Callable[..., Tensor], input: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Return value and gradient; for several elements the gradient is that of a sum with different factors."""
    leaf = input.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(leaf, target, **options)
    upstream = torch.linspace(1.0, 2.0, value.numel(), dtype=value.dtype).view(value.shape)
    (gradient,) = torch.autograd.grad(value, leaf, upstream)
    return value.detach(), gradient


def exact(case: Case, input: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Return value and gradient by the twin, in double precision."""
    options = {name: option.double() if isinstance(option, Tensor) else option for name, option in options.items()}
    with kernels.disabled():
        return evaluate(case.loss, input.double(), target, **options)


def close(case: Case, actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], half: float = 0.0) -> None:
    """Check value and gradient; what rounds to half precision has its relative error in the gradient."""
    value, gradient = actual
    exact_value, exact_gradient = expected
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact_value, rtol=case.rtol, atol=case.atol, equal_nan=True)
    largest = float(exact_gradient.abs().nan_to_num(posinf=0).max())
    rtol = max(case.rtol, half)
    torch.testing.assert_close(
        gradient.double(), exact_gradient, rtol=rtol, atol=max(case.atol, half / 8) * largest, equal_nan=True
    )
