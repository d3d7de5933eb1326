"""Losses that are one number for each element of an input and its target, weighed and reduced in the same pass."""

from torch import Tensor

from lossatlas.kernels.loss import REDUCTIONS, FusedLoss, Results, twin_of_kernel
from lossatlas.kernels.native import ignored_number, run


def elementwise(
    kernel: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: tuple[float, ...],
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
    factor: Tensor | None = None,
) -> Tensor:
    """Return an elementwise loss, reduced.

    Args:
        kernel: its name.
        input: ``(*shape)`` predictions, which `lossatlas.kernels.usable` has accepted with the other tensors.
        target: ``(*shape)``.
        weight: factors that broadcast to ``(*shape)``.
        parameters: of the loss.
        ignored: target value of elements that are left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        normalizer: 0-d tensor that ``"mean"`` divides by instead of the count.
        factor: what the loss takes for each element besides its target; it broadcasts to ``(*shape)``.

    Returns:
        ``(*shape)`` for ``"none"``, a scalar otherwise; float32.
    """
    return ELEMENTWISE(input, target, weight, kernel, parameters, ignored, reduction, normalizer, factor)


def _launch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kernel: str,
    parameters: tuple[float, ...],
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
    factor: Tensor | None,
    *,
    results: Results,
) -> None:
    if weight is not None:
        weight = weight.expand(input.shape)
    if factor is not None:
        factor = factor.expand(input.shape)
    numbers = (REDUCTIONS[reduction], ignored_number(ignored), *parameters)
    run(kernel, (input, target, weight, *results, normalizer, factor), numbers)


ELEMENTWISE = FusedLoss(
    name="elementwise",
    launch=_launch,
    value_shape=lambda input, *_: input.shape,
    reduction=5,
    twin=twin_of_kernel,
)
ELEMENTWISE.register(
    "Tensor target, Tensor? weight, str kernel, float[] parameters, float? ignored, str reduction, Tensor? normalizer, "
    "Tensor? factor"
)
