"""Small functions that are finite, with finite gradients, where the textbook form is not."""

import torch
from torch import Tensor


def safe_power(base: Tensor, exponent: float) -> Tensor:
    """Return ``base ** exponent`` for a base of at least 0, with a finite gradient at 0 for every exponent.

    The derivative of x^γ is unbounded at 0 for γ < 1. Below the smallest normal number the base is held constant.
    """
    if exponent == 0:
        return torch.ones_like(base)
    # Not `clamp`, which hands the full gradient to a base that sits on the bound.
    positive = ~(base < torch.finfo(base.dtype).tiny)
    return torch.where(positive, torch.where(positive, base, 1).pow(exponent), 0)


def safe_sqrt(value: Tensor) -> Tensor:
    """Return the square root with gradient 0, instead of infinity, at 0."""
    return safe_power(value, 0.5)
