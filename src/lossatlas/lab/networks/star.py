"""Convolutions that look at nine places of a box: its centre point, its corners and the middles of its edges."""

import torch
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
        from torchvision.ops import deform_conv2d

        last = self.head.last
        output: Tensor = deform_conv2d(
            self.head.tower(level), star_offsets(distances), last.weight, last.bias, padding=1
        )
        return output


def star_offsets(distances: Tensor) -> Tensor:
    """Return how far the nine taps of a 3 x 3 convolution move to lie on the box: (B, 18, H, W), y before x.

    Args:
        distances: (B, 4, H, W) from each cell to left, top, right and bottom, in cells.

    Example:
        >>> star_offsets(torch.tensor([3.0, 1.0, 1.0, 2.0]).view(1, 4, 1, 1)).view(9, 2)[[0, 4, 8]]
        tensor([[ 0., -2.],
                [ 0.,  0.],
                [ 1.,  0.]])
    """
    left, top, right, bottom = distances.unbind(1)
    nothing = torch.zeros_like(left)
    taps = []
    for row, y in ((-1, -top), (0, nothing), (1, bottom)):
        for column, x in ((-1, -left), (0, nothing), (1, right)):
            taps += [y - row, x - column]
    return torch.stack(taps, dim=1)
