"""The dtype that arithmetic runs in."""

import torch
from torch import Tensor


def upcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in one floating-point dtype, float32 at least, that holds all of them.

    Integers and booleans follow the floating-point tensors; they do not widen the result.
    """
    dtype = torch.float32
    for tensor in tensors:
        if tensor.dtype == torch.float64:
            dtype = torch.float64
    return tuple(tensor.to(dtype) for tensor in tensors)
