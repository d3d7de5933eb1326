"""Ranking losses: errors of positives by their places among all logits, and the update that learns from them."""

from torch import Tensor

from lossatlas.kernels.loss import REDUCTIONS, FusedLoss, Results, twin_of_kernel
from lossatlas.kernels.native import ignored_number, run


def ranking(
    kernel: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    other: Tensor | None,
    delta: float,
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
) -> Tensor:
    """Return one term of a ranking loss, reduced.

    Args:
        kernel: its name.
        input: ``(*shape)`` logits, which `lossatlas.kernels.usable` has accepted with the other tensors; errors of
            boxes for ``"alrp_localization"``.
        target: ``(*shape)``.
        weight: factors that broadcast to ``(*shape)``.
        other: ``(*shape)`` errors of boxes for ``"alrp_classification"``, logits for ``"alrp_localization"``.
        delta: half the width of the step.
        ignored: target value of what is left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        normalizer: 0-d tensor that ``"mean"`` divides by instead of the number of positives.

    Returns:
        ``(*shape)`` for ``"none"``, a scalar otherwise; float32.
    """
    return RANKING(input, target, weight, kernel, other, delta, ignored, reduction, normalizer)


def _launch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kernel: str,
    other: Tensor | None,
    delta: float,
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
    *,
    results: Results,
) -> None:
    if weight is not None:
        weight = weight.expand(input.shape)
    numbers = (REDUCTIONS[reduction], ignored_number(ignored), delta)
    run(kernel, (input, target, weight, *results, normalizer, other), numbers)


RANKING = FusedLoss(
    name="ranking",
    launch=_launch,
    value_shape=lambda input, *_: input.shape,
    reduction=6,
    twin=twin_of_kernel,
)
RANKING.register(
    "Tensor target, Tensor? weight, str kernel, Tensor? other, float delta, float? ignored, str reduction, "
    "Tensor? normalizer"
)
