"""How the losses of boxes are computed: by a kernel where there is one that can be used, else step by step."""

from collections.abc import Callable

from torch import Tensor

from lossatlas.checks import check_box_pair
from lossatlas.dtypes import upcast
from lossatlas.kernels import box_pairs as box_kernels
from lossatlas.losses.reduction import FusedFormula, fused, kernel_factors, reduce, takes_kernel
from lossatlas.typing import Normalizer, Reduction


def fused_boxes(kernel: str) -> Callable[[Callable[..., Tensor]], FusedFormula]:
    """Say that a kernel computes a formula of boxes, ``formula(input, target, *parameters)``, and its derivative.

    The formula stays the definition: the kernel is checked against it, and `reduced_boxes` takes it where a kernel
    cannot be.
    """
    return fused(kernel, _by_formula)


def reduced_boxes(
    formula: FusedFormula,
    input: Tensor,
    target: Tensor,
    *parameters: float,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Tensor:
    """Apply a formula of boxes in float32 at least, and reduce.

    Args:
        formula: ``formula(input, target, *parameters)``, ``(*batch)``, marked with `fused_boxes`.
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        parameters: of the formula.
        weight: see `reduce`.
        reduction: see `reduce`.
        normalizer: see `reduce`.

    Returns:
        See `reduce`.
    """
    check_box_pair(input, target)
    if not takes_kernel(input, target, weight, normalizer=normalizer):
        return _by_formula(formula, input, target, weight, parameters, reduction, normalizer)
    elements = input if weight is None else input[..., 0]
    weight, divisor = kernel_factors(elements, weight, reduction, normalizer)
    return box_kernels.box_pairs(formula.kernel, input, target, weight, parameters, reduction, divisor)


def _by_formula(
    formula: Callable[..., Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: tuple[float, ...],
    reduction: Reduction,
    normalizer: Normalizer | None,
) -> Tensor:
    return reduce(formula(*upcast(input, target), *parameters), weight, reduction, normalizer)
