"""Every ranking loss that has a kernel."""

from typing import Any

import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.typing import Reduction
from tests.kernels.case import Case, Pair


def ranked(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    """Draw logits, some of them equal, of which the qualities of one in ten are above 0."""
    x = 4 * torch.randn(shape, generator=generator)
    x = torch.where(torch.rand(shape, generator=generator) < 0.3, x.round(), x)
    quality = 0.05 + 0.95 * torch.rand(shape, generator=generator)
    return x, quality * (torch.rand(shape, generator=generator) < 0.1)


def alrp(
    input: Tensor, target: Tensor, *, ignore_index: float | None = -1, reduction: Reduction = "mean", **options: Any
) -> Tensor:
    """Return the sum of both terms for boxes that are more wrong the lower their quality."""
    terms = losses.alrp_loss(
        input,
        target,
        localization_error=2 * (1 - target.detach().float()),
        ignore_index=ignore_index,
        reduction=reduction,
        **options,
    )
    return terms.classification + terms.localization


def rank_sort(
    input: Tensor, target: Tensor, *, ignore_index: float | None = -1, reduction: Reduction = "mean", **options: Any
) -> Tensor:
    """Return the sum of both terms."""
    terms = losses.rank_sort_loss(input, target, ignore_index=ignore_index, reduction=reduction, **options)
    return terms.ranking + terms.sorting


def _edges() -> tuple[Pair, ...]:
    x = torch.tensor([1.0, -0.5, 0.25, 0.0, -2.0, -0.0])
    targets = ([0] * 6, [1] * 6, [0, 1, 0, 0, 0, 0], [1, 0, 0.5, 0, 0.25, 0], [-1, 1, -1, 0, 1, -1], [-1] * 6)
    scales = (1.0, 1e-30, 0.0, 1e4, 1e30)
    return tuple((x * scale, torch.tensor(target, dtype=torch.float32)) for target in targets for scale in scales)


RANKINGS: dict[str, Any] = {
    "sample": ranked,
    "shapes": ((3, 5, 7), (1,), (511,), (513,), (2, 3000), (2, 17_000)),
    "weights": ((), (7,), (5, 1), (3, 1, 1), (3, 5, 7)),
    "edges": _edges(),
    "derived": False,
}

CASES = (
    Case("ap", losses.ap_loss, options=({}, {"interpolated": False}, {"delta": 0.1}), **RANKINGS),
    # Each of two terms has a gradient, and what they are added up to is one more; here the errors of boxes are too.
    Case("alrp", alrp, options=({}, {"delta": 0.3}), memory=4.1, **RANKINGS),
    Case("rank_sort", rank_sort, options=({}, {"delta": 2.0}), memory=3.1, one_graph=False, **RANKINGS),
)
