"""Convolutions that look at nine places of a box: its centre point, its corners and the middles of its edges."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.lab.networks.backbone import Head


class StarConvolution(nn.Module):
    """A head whose last convolution looks where the box of each cell is, as VarifocalNet's.

    Args:
        outputs: numbers for each cell.
        bias: the first value of all of them.
    """

    def __init__(self, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.head = Head(outputs, bias)

    def forward(self, level: Tensor, distances: Tensor) -> Tensor:
        """Return (B, outputs, H, W).

        Args:
            level: (B, F, H, W) features.
            distances: (B, 4, H, W) from each cell to left, top, right and bottom of its box, in cells.
        """
        last = self.head.last
        outputs, channels = last.weight.shape[:2]
        # What a tap reads is linear in what it samples: weigh first, and few channels are sampled instead of many.
        taps = last.weight.permute(2, 3, 0, 1).reshape(9 * outputs, channels, 1, 1)
        weighed = F.conv2d(self.head.tower(level), taps).unflatten(1, (9, outputs)).flatten(0, 1)
        read = F.grid_sample(weighed, star_grid(distances), align_corners=False)
        assert last.bias is not None
        output: Tensor = read.unflatten(0, (-1, 9)).sum(1) + last.bias[:, None, None]
        return output


def star_grid(distances: Tensor) -> Tensor:
    """Return where nine places of the box of every cell lie, as `torch.nn.functional.grid_sample` takes it.

    Args:
        distances: (B, 4, H, W) from each cell to left, top, right and bottom, in cells.

    Returns:
        (9 B, H, W, 2), the places of an image side by side.
    """
    left, top, right, bottom = distances.unbind(1)
    height, width = distances.shape[2:]
    nothing = torch.zeros_like(left)
    row = torch.arange(height, dtype=left.dtype, device=left.device)[:, None] + 0.5
    column = torch.arange(width, dtype=left.dtype, device=left.device) + 0.5
    places = [
        torch.stack((2 * (column + x) / width - 1, 2 * (row + y) / height - 1), dim=-1)
        for y in (-top, nothing, bottom)
        for x in (-left, nothing, right)
    ]
    return torch.stack(places, dim=1).flatten(0, 1)
