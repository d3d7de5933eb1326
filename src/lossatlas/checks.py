"""Checks of arguments: shapes, dtypes and Python numbers, never the values inside a tensor.

Every message names the argument, says what was expected and what came.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        expected = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {expected}, but got {value!r}")


def check_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise `TypeError` unless `value` is a real Python number, `ValueError` unless it is finite and in range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`{name}` must be a number, but got {type(value).__name__}")
    if not (math.isfinite(value) and value > above and at_least <= value <= at_most and value < below):
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("above", above), ("at least", at_least), ("at most", at_most), ("below", below))
            if math.isfinite(limit)
        ]
        expected = " and ".join(["finite", *limits])
        raise ValueError(f"`{name}` must be {expected}, but got {value!r}")


def check_floating(name: str, tensor: object) -> None:
    """Raise `TypeError` unless `tensor` is a floating-point tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"`{name}` must be a tensor, but got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"`{name}` must have a floating-point dtype, but got {tensor.dtype}")


def check_integer(name: str, tensor: object) -> None:
    """Raise `TypeError` unless `tensor` is a tensor of integers."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"`{name}` must be a tensor, but got {type(tensor).__name__}")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"`{name}` must have an integer dtype, but got {tensor.dtype}")


def check_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise `ValueError` unless both tensors have the same shape."""
    if tensor.shape != other.shape:
        raise ValueError(f"`{other_name}` must have the shape of `{name}`, {_shape(tensor)}, but got {_shape(other)}")


def check_boxes(name: str, boxes: object, numbers: int = 4) -> None:
    """Raise unless `boxes` is a floating-point tensor whose last axis has length `numbers`, 5 for rotated boxes."""
    check_floating(name, boxes)
    assert isinstance(boxes, Tensor)
    if boxes.ndim == 0 or boxes.shape[-1] != numbers:
        raise ValueError(f"`{name}` must have shape (..., {numbers}), but got {_shape(boxes)}")


def check_box_pair(input: object, target: object, numbers: int = 4) -> None:
    """Raise unless `input` and `target` are floating-point boxes of the same shape, `numbers` for each box."""
    check_boxes("input", input, numbers)
    check_boxes("target", target, numbers)
    assert isinstance(input, Tensor)
    assert isinstance(target, Tensor)
    check_same_shape("input", input, "target", target)


def check_elementwise(input: object, target: object) -> None:
    """Raise unless `input` is floating point and `target` is a real tensor of the same shape."""
    check_floating("input", input)
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` must be a tensor, but got {type(target).__name__}")
    if target.is_complex():
        raise TypeError(f"`target` must be real, but got {target.dtype}")
    assert isinstance(input, Tensor)
    check_same_shape("input", input, "target", target)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
