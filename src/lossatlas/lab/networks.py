"""A small detector to compare losses with: a residual backbone, a feature pyramid, one head for all its levels.

The network is made to be trained from scratch in minutes on two CPU cores: dense 3 x 3 convolutions, which CPUs
compute fastest, few layers at high resolution, and less than a million parameters.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import FCOSOutputs, RetinaNetOutputs

STRIDES = (8, 16, 32)
"""Pixels between two cells of each level of the pyramid."""

COARSEST_STRIDE = STRIDES[-1]
"""Height and width of the input are multiples of this."""

PRIOR = 0.01
"""Probability of every class at every place before training."""

ANCHOR_BASE = 2.0
"""Side of the smallest anchor in strides."""
ANCHOR_SCALES = (1.0, math.sqrt(2.0))
"""Sizes of the anchors of a cell, as factors of the smallest."""
ANCHOR_RATIOS = (1.0,)
"""Height over width of the anchors of a cell."""

_STEM, _QUARTER = 16, 32  # channels at strides 2 and 4
_CHANNELS = (64, 64, 64)  # of each level of the backbone
_BLOCKS = (3, 1, 1)
_PYRAMID = 64
_TOWER = 1  # convolutions of the head before the last ones
_GROUPS = 8
_MAX_LOG_DISTANCE = math.log(1000.0)

Outputs: TypeAlias = FCOSOutputs | RetinaNetOutputs


def _convolve(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
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
        self.first = _convolve(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))))


class Pyramid(nn.Module):
    """Features of an image at every stride, each level with what the coarser ones know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolve(3, _STEM, stride=2), _convolve(_STEM, _QUARTER, stride=2))
        inputs = (_QUARTER, *_CHANNELS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(_convolve(before, after, stride=2), *(ResidualBlock(after) for _ in range(blocks)))
            for before, after, blocks in zip(inputs, _CHANNELS, _BLOCKS, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(channels, _PYRAMID, 1) for channels in _CHANNELS)
        self.smooth = nn.ModuleList(_convolve(_PYRAMID, _PYRAMID) for _ in _CHANNELS)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return a feature map of each level, the finest first.

        Args:
            images: (B, 3, H, W), H and W multiples of `COARSEST_STRIDE`.
        """
        x = self.stem(images)
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for finer in range(len(levels) - 2, -1, -1):
            levels[finer] = levels[finer] + F.interpolate(levels[finer + 1], scale_factor=2.0, mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]


class Head(nn.Module):
    """Convolutions that turn the features of any level into numbers for each of its places.

    Args:
        outputs: numbers for each cell.
        bias: the first value of all of them.
    """

    def __init__(self, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        # Statistics of one map: levels differ, and share no running mean.
        self.tower = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(_PYRAMID, _PYRAMID, 3, padding=1, bias=False),
                    nn.GroupNorm(_GROUPS, _PYRAMID),
                    nn.ReLU(inplace=True),
                )
                for _ in range(_TOWER)
            )
        )
        self.last = nn.Conv2d(_PYRAMID, outputs, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.constant_(_bias(self.last), bias)

    def forward(self, level: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        output: Tensor = self.last(self.tower(level))
        return output


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _by_place(output: Tensor, numbers: int) -> Tensor:
    """Return (B, A * numbers, H, W) as (B, H * W * A, numbers), in the order of `lossatlas.boxes.priors`."""
    return output.permute(0, 2, 3, 1).reshape(len(output), -1, numbers)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or any(extent % COARSEST_STRIDE for extent in images.shape[2:]):
        raise ValueError(
            f"`images` must have shape (B, 3, H, W) with H and W multiples of {COARSEST_STRIDE}, "
            f"but got {tuple(images.shape)}"
        )


def _sizes(levels: Sequence[Tensor]) -> list[tuple[int, int]]:
    return [(level.shape[2], level.shape[3]) for level in levels]


class PointDetector(nn.Module):
    """A network for `lossatlas.objectives.FCOS`: class, box and centerness at every cell.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pyramid = Pyramid()
        self.classes = Head(num_classes, prior_probability_bias(PRIOR))
        self.boxes = Head(5)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, images: Tensor) -> FCOSOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        _check_images(images)
        levels = self.pyramid(images)
        boxes = [self.boxes(level) for level in levels]
        distances = [
            (output[:, :4] * scale).clamp(max=_MAX_LOG_DISTANCE).exp()
            for output, scale in zip(boxes, self.scales, strict=True)
        ]
        points, strides = point_grid(_sizes(levels), STRIDES, device=images.device)
        return FCOSOutputs(
            class_logits=torch.cat([_by_place(self.classes(level), self.num_classes) for level in levels], dim=1),
            distances=torch.cat([_by_place(output, 4) for output in distances], dim=1),
            centerness=torch.cat([output[:, 4].flatten(1) for output in boxes], dim=1),
            points=points,
            strides=strides,
        )


class AnchorDetector(nn.Module):
    """A network for `lossatlas.objectives.RetinaNet`: class and box at every anchor of every cell.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        anchors = len(ANCHOR_SCALES) * len(ANCHOR_RATIOS)
        self.pyramid = Pyramid()
        self.classes = Head(anchors * num_classes, prior_probability_bias(PRIOR))
        self.boxes = Head(anchors * 4)

    def forward(self, images: Tensor) -> RetinaNetOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        _check_images(images)
        levels = self.pyramid(images)
        return RetinaNetOutputs(
            class_logits=torch.cat([_by_place(self.classes(level), self.num_classes) for level in levels], dim=1),
            deltas=torch.cat([_by_place(self.boxes(level), 4) for level in levels], dim=1),
            anchors=anchor_grid(
                _sizes(levels),
                STRIDES,
                base_size=ANCHOR_BASE,
                octave_scales=ANCHOR_SCALES,
                aspect_ratios=ANCHOR_RATIOS,
                device=images.device,
            ),
        )


def build_network(objective: str, num_classes: int, *, seed: int) -> nn.Module:
    """Return the network of an objective with weights drawn from a seed.

    Args:
        objective: ``"fcos"`` or ``"retinanet"``.
        num_classes: number of classes.
        seed: of the weights; the global random numbers are left as they are.

    Returns:
        A module from (B, 3, H, W) images to `FCOSOutputs` or `RetinaNetOutputs`, on the CPU.

    Raises:
        ValueError: an unknown objective, or no classes.

    Example:
        >>> outputs = build_network("fcos", 3, seed=0)(torch.zeros(1, 3, 32, 64))
        >>> outputs.class_logits.shape, outputs.points.shape
        (torch.Size([1, 42, 3]), torch.Size([42, 2]))
    """
    networks = {"fcos": PointDetector, "retinanet": AnchorDetector}
    if objective not in networks:
        raise ValueError(f"`objective` must be one of {', '.join(map(repr, networks))}, but got {objective!r}")
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1, but got {num_classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = networks[objective](num_classes)
    return network.to(memory_format=torch.channels_last)


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers of a network are trained.

    Example:
        >>> count_parameters(build_network("retinanet", 80, seed=0)) < 1_000_000
        True
    """
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
