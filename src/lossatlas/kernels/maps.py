"""What is drawn on the cells of maps: Gaussians."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossatlas.kernels import native
from lossatlas.kernels.native import define, run


def usable(*drawn: Tensor) -> bool:
    """Whether kernels draw what these tensors describe: float32, the first of them, and int64 on the CPU.

    They have no gradients: the twin draws what needs one, and what is nothing.
    """
    fitting = all(each.dtype in (torch.float32, torch.int64) and each.numel() > 0 for each in drawn)
    return fitting and native.usable(drawn[0], *drawn)


def gaussians(size: tuple[int, int, int], drawn: Sequence[Tensor], limit: float, add: bool) -> Tensor:
    """Return maps with Gaussians of height 1, see `lossatlas.targets.draw_gaussians`.

    Args:
        size: number, height and width of the maps.
        drawn: of M Gaussians the map ``(M,)``, -1 for one that is not drawn, the centre ``(M, 2)`` and σ ``(M,)`` in
            cells, the cell in the middle of the window ``(M, 2)``, and half the side of the window ``(M,)``.
        limit: the highest exponent that is drawn, infinite for all.
        add: whether a cell holds their sum, at most 1, or the highest.

    Returns:
        ``size`` float32.
    """
    maps: Tensor = torch.ops.lossatlas.gaussians(size, *(each.contiguous() for each in drawn), limit, add)
    return maps


def _gaussians(
    size: tuple[int, int, int],
    plane: Tensor,
    center: Tensor,
    sigma: Tensor,
    anchor: Tensor,
    reach: Tensor,
    limit: float,
    add: bool,
) -> Tensor:
    maps = center.new_empty(size)
    run("gaussians", (plane, center, sigma, anchor, reach, maps), (limit, add))
    return maps


define(
    "gaussians(SymInt[] size, Tensor plane, Tensor center, Tensor sigma, Tensor anchor, Tensor reach, float limit, "
    "bool add) -> Tensor",
    _gaussians,
)
