"""Shapes and types that the public signatures are written in.

The aliases are read by people and type checkers; the tests also enforce them at run time (jaxtyping with beartype).
Two arguments annotated with the same named axes, such as ``*batch``, must have the same sizes there.
"""

from typing import Literal, TypeAlias

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Boxes: TypeAlias = Float[Tensor, "*batch 4"]
"""Boxes, one in each row of the last axis."""

RotatedBoxes: TypeAlias = Float[Tensor, "*batch 5"]
"""Rotated boxes, one in each row of the last axis: centre, width, height and angle in radians."""

PerBox: TypeAlias = Float[Tensor, "*batch"]
"""One number for each box of a `Boxes` argument."""

Values: TypeAlias = Float[Tensor, "*shape"]
"""Floating-point numbers of any shape, equal for all arguments of a call that are annotated so."""

Targets: TypeAlias = Shaped[Tensor, "*shape"]
"""Elementwise targets of the shape of the input: floating point, integer or boolean."""

ClassLogits: TypeAlias = Float[Tensor, "images classes *spatial"]
"""Dense logits of segmentation, one channel for each class or label."""

Loss: TypeAlias = Float[Tensor, "..."]
"""What a loss returns: the elements with ``reduction="none"``, a scalar otherwise."""

Mask: TypeAlias = Bool[Tensor, "..."]
Indices: TypeAlias = Int[Tensor, "..."]

Reduction: TypeAlias = Literal["none", "mean", "sum"]
"""How the elements of a loss become its value."""

Normalizer: TypeAlias = float | Tensor
"""A positive number or a 0-d tensor that replaces the count that ``reduction="mean"`` divides by."""
