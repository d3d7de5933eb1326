"""Losses that are one number for each predicted box and its object, weighed and reduced in the same pass."""

from torch import Tensor

from lossatlas.kernels.loss import REDUCTIONS, FusedLoss, Results, twin_of_kernel
from lossatlas.kernels.native import run


def box_pairs(
    kernel: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    parameters: tuple[float, ...],
    reduction: str,
    normalizer: Tensor | None,
) -> Tensor:
    """Return a loss of boxes, reduced.

    Args:
        kernel: its name.
        input: ``(*batch, 4)`` predicted boxes, which `lossatlas.kernels.usable` has accepted with the other tensors.
        target: ``(*batch, 4)``.
        weight: factors that broadcast to ``(*batch)``.
        parameters: of the loss.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        normalizer: 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` for ``"none"``, a scalar otherwise; float32.
    """
    return BOX_PAIRS(input, target, weight, kernel, parameters, reduction, normalizer)


def _launch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kernel: str,
    parameters: tuple[float, ...],
    reduction: str,
    normalizer: Tensor | None,
    *,
    results: Results,
) -> None:
    if weight is not None:
        weight = weight.expand(input.shape[:-1])
    run(
        kernel,
        (input, target, weight, *results, normalizer),
        (REDUCTIONS[reduction], *parameters),
    )


BOX_PAIRS = FusedLoss(
    name="box_pairs",
    launch=_launch,
    value_shape=lambda input, *_: input.shape[:-1],
    reduction=4,
    twin=twin_of_kernel,
)
BOX_PAIRS.register("Tensor target, Tensor? weight, str kernel, float[] parameters, str reduction, Tensor? normalizer")
