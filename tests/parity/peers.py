"""What the comparisons with other libraries share."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
Sample = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def peer(name: str) -> Any:
    """Import a module of a peer, whose own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def value_and_gradient(loss: Loss, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = input.clone().requires_grad_()
    value = loss(leaf, target)
    (grad,) = torch.autograd.grad(value, leaf)
    return value.detach(), grad


def assert_same(sample: Sample, ours: Loss, theirs: Loss, tolerance: float = 1e-9) -> None:
    """Check that values and gradients agree on several samples."""
    for seed in range(4):
        input, target = sample(torch.Generator().manual_seed(seed))
        value, grad = value_and_gradient(ours, input, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, expected_grad = value_and_gradient(theirs, input, target)
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance, check_dtype=False)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=tolerance)
