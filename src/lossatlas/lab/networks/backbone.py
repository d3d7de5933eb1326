"""What the small networks are made of: a residual backbone, a feature pyramid, one head for all its levels.

They are made to be trained from scratch in minutes on two CPU cores: dense 3 x 3 convolutions, which CPUs
compute fastest, few layers at high resolution, and less than a million parameters.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
"""Pixels between two cells of each level of the pyramid."""

COARSEST_STRIDE = STRIDES[-1]
"""Height and width of the input are multiples of this."""

PRIOR = 0.01
"""Probability of every class at every place before training."""

_STEM = 16  # channels at stride 2
QUARTER = 32
"""Channels at stride 4."""
_CHANNELS = (64, 64, 64)  # of each level of the backbone
_BLOCKS = (3, 1, 1)
PYRAMID = 64
"""Channels of each level of the pyramid."""
_TOWER = 1  # convolutions of the head before the last ones
_GROUPS = 8
MAX_LOG_DISTANCE = math.log(1000.0)
"""Exponents of distances are cut here, so that none is infinite."""


def convolve(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with all that belongs to it."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class ResidualBlock(nn.Module):
    """Two convolutions around which the input passes unchanged; at first they add nothing to it.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolve(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))))


class Pyramid(nn.Module):
    """Features of an image at every stride, each level with what the coarser ones know.

    Args:
        levels: how many levels it returns, the finest first.
    """

    def __init__(self, levels: int = len(STRIDES)) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolve(3, _STEM, stride=2), convolve(_STEM, QUARTER, stride=2))
        inputs = (QUARTER, *_CHANNELS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(convolve(before, after, stride=2), *(ResidualBlock(after) for _ in range(blocks)))
            for before, after, blocks in zip(inputs, _CHANNELS, _BLOCKS, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(channels, PYRAMID, 1) for channels in _CHANNELS)
        self.smooth = nn.ModuleList(convolve(PYRAMID, PYRAMID) for _ in range(levels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return a feature map of each level, the finest first.

        Args:
            images: (B, 3, H, W), H and W multiples of `COARSEST_STRIDE`.
        """
        return self.from_quarter(self.stem(images))

    def from_quarter(self, x: Tensor) -> list[Tensor]:
        """Return the levels of what the stem returns, `QUARTER` channels at stride 4."""
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for finer in range(len(levels) - 2, -1, -1):
            levels[finer] = levels[finer] + F.interpolate(levels[finer + 1], scale_factor=2.0, mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=False)]


class Head(nn.Module):
    """Convolutions that turn the features of any level into numbers for each of its places.

    Args:
        outputs: numbers for each cell.
        bias: the first value of all of them.
        channels: of the features.
    """

    def __init__(self, outputs: int, bias: float = 0.0, channels: int = PYRAMID) -> None:
        super().__init__()
        # Statistics of one map: levels differ, and share no running mean.
        self.tower = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                    nn.GroupNorm(_GROUPS, channels),
                    nn.ReLU(inplace=True),
                )
                for _ in range(_TOWER)
            )
        )
        self.last = nn.Conv2d(channels, outputs, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.constant_(_bias(self.last), bias)

    def forward(self, level: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        output: Tensor = self.last(self.tower(level))
        return output


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def by_place(output: Tensor, numbers: int) -> Tensor:
    """Return (B, A * numbers, H, W) as (B, H * W * A, numbers), in the order of `lossatlas.boxes.priors`."""
    return output.permute(0, 2, 3, 1).reshape(len(output), -1, numbers)


def check_images(images: Tensor) -> None:
    """Raise `ValueError` unless the images are what the pyramid takes."""
    if images.ndim != 4 or images.shape[1] != 3 or any(extent % COARSEST_STRIDE for extent in images.shape[2:]):
        raise ValueError(
            f"`images` must have shape (B, 3, H, W) with H and W multiples of {COARSEST_STRIDE}, "
            f"but got {tuple(images.shape)}"
        )


def level_sizes(levels: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return height and width of each map of a pyramid."""
    return [(level.shape[2], level.shape[3]) for level in levels]


def flatten_levels(maps: Sequence[Tensor], numbers: int) -> Tensor:
    """Return the maps of all levels as (B, P, numbers), in the order of `lossatlas.boxes.priors`."""
    return torch.cat([by_place(output, numbers) for output in maps], dim=1)


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers of a network are trained.

    Example:
        >>> count_parameters(nn.Linear(2, 3))
        9
    """
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
