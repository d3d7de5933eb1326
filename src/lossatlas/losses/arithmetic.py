"""Small functions that are finite, with finite gradients, where the textbook form is not."""

import torch
from torch import Tensor


def safe_power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """Return ``base ** exponent`` for a base of at least 0, with a finite gradient at 0 for every exponent.

    The derivative of x^γ is unbounded at 0 for γ < 1. Below the smallest normal number the base is held constant.
    Exponents in a tensor are above 0.
    """
    if not isinstance(exponent, Tensor) and exponent == 0:
        return torch.ones_like(base)
    # Not `clamp`, which hands the full gradient to a base that sits on the bound.
    positive = ~(base < torch.finfo(base.dtype).tiny)
    return torch.where(positive, torch.where(positive, base, 1).pow(exponent), 0)


def safe_sqrt(value: Tensor) -> Tensor:
    """Return the square root with gradient 0, instead of infinity, at 0."""
    return safe_power(value, 0.5)


def bounded_log(value: Tensor, steepest: float = 1e12) -> Tensor:
    """Return the natural logarithm of a probability, at least -100 and with a slope of at most `steepest`.

    The bound of the value is torch's. What rounding pushed below 0 counts as 0.
    """
    low = value < 1 / steepest
    fixed = value.detach()
    straight = fixed.clamp(min=0).log().clamp(min=-100) + steepest * (value - fixed)
    return torch.where(low, straight, torch.where(low, 1, value).log())
