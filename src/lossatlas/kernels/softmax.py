"""Cross entropy and focal loss of class logits with class indices."""

from typing import Any

import torch
from torch import Tensor

from lossatlas.kernels.loss import REDUCTIONS, FusedLoss, Results
from lossatlas.kernels.native import ignored_number, run


def class_costs(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor,
    gamma: float,
    label_smoothing: float,
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
) -> Tensor:
    """Return the softmax focal loss, which is cross entropy for gamma 0, of class indices.

    Args:
        input: ``(N, C, *spatial)`` logits, or ``(C,)``, which `lossatlas.kernels.usable` has accepted.
        target: ``(N, *spatial)`` indices.
        weight: factors that broadcast to ``(N, *spatial)``.
        class_weight: ``(C,)`` float32.
        gamma: of the focal loss.
        label_smoothing: for gamma 0 only.
        ignored: index of elements that are left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        normalizer: 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` for ``"none"``, a scalar otherwise; float32.

    Raises:
        ValueError: an index that is no class.
    """
    return CLASS_COSTS(input, target, weight, class_weight, gamma, label_smoothing, ignored, reduction, normalizer)


def _axis(input: Tensor) -> int:
    return min(input.ndim - 1, 1)


def _elements(input: Tensor, *_: Any) -> torch.Size:
    axis = _axis(input)
    return input.shape[:axis] + input.shape[axis + 1 :]


def _launch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor,
    gamma: float,
    label_smoothing: float,
    ignored: float | None,
    reduction: str,
    normalizer: Tensor | None,
    *,
    results: Results,
) -> None:
    if weight is not None:
        weight = weight.expand(target.shape)
    tensors = (input, target, weight, *results, normalizer, class_weight.contiguous())
    run("class_costs", tensors, (REDUCTIONS[reduction], ignored_number(ignored), _axis(input), gamma, label_smoothing))


CLASS_COSTS = FusedLoss(
    name="class_costs",
    launch=_launch,
    value_shape=_elements,
    reduction=6,
)
CLASS_COSTS.register(
    "Tensor target, Tensor? weight, Tensor class_weight, float gamma, float label_smoothing, float? ignored, "
    "str reduction, Tensor? normalizer"
)
