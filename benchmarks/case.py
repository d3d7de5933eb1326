"""What is known of one piece of work that is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

Inputs: TypeAlias = tuple[Tensor, ...]
Contender: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One piece of work."""

    name: str
    sample: Callable[[torch.Generator, int], Inputs]
    """``sample(generator, size)``: the input, whose gradient is computed, and the rest."""
    sizes: tuple[int, ...]
    """Of which the last is the one that the table shows."""
    ours: Contender
    peers: dict[str, Callable[[], Contender]] = field(default_factory=dict)
    """By library: a function that imports it and returns the contender, with the closest settings it has."""
    limit: float | None = None
    """At most this many times the streaming limit."""
    lead: float | None = None
    """At least this many times as fast as the fastest peer."""
    memory: float | None = None
    """At most this many times the memory of the input, over the inputs."""
    backward: bool = True
    """Whether gradients are computed, of the input and of the rest that requires them."""
    drawn: bool = False
    """Whether the result is what is large: the streaming limit is that of writing it, and memory is in units of it."""
