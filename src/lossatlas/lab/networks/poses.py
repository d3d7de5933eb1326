"""Small networks for keypoints: a residual U-Net with maps at a quarter or half of the resolution.

They are made to be trained from scratch in minutes on two CPU cores: nothing is computed at full resolution, and most
of the weights are where pixels are few and each of them sees the whole of a person.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.lab.facts import PoseFacts
from lossatlas.lab.networks.backbone import ResidualBlock, convolve
from lossatlas.objectives import AssociativeEmbeddingOutputs, HeatmapOutputs, PartAffinityOutputs

CHANNELS = (16, 24, 48, 64, 96)
"""Channels at strides 2, 4, 8, 16 and 32."""
COARSEST_STRIDE = 2 ** len(CHANNELS)
"""Height and width of the input are multiples of this."""
FINEST = 24
"""Channels of the features that maps are made of, at least."""
TAG_DIMENSIONS = 2
"""Numbers of a tag, one for each axis of the image."""
TAG_UNIT = 32.0
"""Pixels in which tags count the place in the image."""
_BLOCKS = (0, 1, 1, 2, 2)


class PoseFeatures(nn.Module):
    """Features of an image at every stride on the way down, with those of the coarser ones added on the way up.

    Args:
        stride: of the features, 2 or 4.

    Attributes:
        channels: of the features.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        first = stride.bit_length() - 2  # place of the finest level that is needed
        self.stride, self.channels = stride, max(FINEST, CHANNELS[first])
        self.down = nn.ModuleList(
            nn.Sequential(convolve(before, after, stride=2), *(ResidualBlock(after) for _ in range(blocks)))
            for before, after, blocks in zip((3, *CHANNELS), CHANNELS, _BLOCKS, strict=False)
        )
        widths = [self.channels if place == first else CHANNELS[place] for place in range(len(CHANNELS))]
        self.first = first
        self.lateral = nn.ModuleList(nn.Conv2d(CHANNELS[place], widths[place], 1) for place in range(first, 4))
        self.reduce = nn.ModuleList(nn.Conv2d(widths[place + 1], widths[place], 1) for place in range(first, 4))
        self.merge = nn.ModuleList(convolve(widths[place], widths[place]) for place in range(first, 4))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, channels, H / stride, W / stride).

        Args:
            images: (B, 3, H, W), H and W multiples of `COARSEST_STRIDE`.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(extent % COARSEST_STRIDE for extent in images.shape[2:]):
            raise ValueError(
                f"`images` must have shape (B, 3, H, W) with H and W multiples of {COARSEST_STRIDE}, "
                f"but got {tuple(images.shape)}"
            )
        levels, x = [], images
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        steps = list(zip(levels[self.first : 4], self.lateral, self.reduce, self.merge, strict=True))
        for level, lateral, reduce, merge in reversed(steps):
            coarse = F.interpolate(reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = merge(lateral(level) + coarse)
        return x


def maps_head(inputs: int, outputs: int) -> nn.Conv2d:
    """Return the layer from features to maps, which are about 0 everywhere at first."""
    last = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(last.weight, std=0.01)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return last


class HeatmapNetwork(nn.Module):
    """A network for `lossatlas.objectives.Heatmap`: a map for each keypoint, at half of the resolution.

    Args:
        facts: of the data; the number of keypoints is taken from it.
    """

    def __init__(self, facts: PoseFacts) -> None:
        super().__init__()
        self.features = PoseFeatures(stride=2)
        self.heatmaps = maps_head(self.features.channels, len(facts.skeleton))

    def forward(self, images: Tensor) -> HeatmapOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        return HeatmapOutputs(self.heatmaps(self.features(images)), self.features.stride)


class TagNetwork(nn.Module):
    """A network for `lossatlas.objectives.AssociativeEmbedding`: heatmaps and tags, at a quarter of the resolution.

    A tag has two numbers, to which the place in the image is added. So the tags of people at different places differ
    from the first step on; of people whose tags are alike, the loss pushes none away.

    Args:
        facts: of the data; the number of keypoints is taken from it.
    """

    def __init__(self, facts: PoseFacts) -> None:
        super().__init__()
        keypoints = len(facts.skeleton)
        self.features = PoseFeatures(stride=4)
        self.heatmaps = maps_head(self.features.channels, keypoints)
        self.tags = nn.Sequential(
            convolve(self.features.channels, self.features.channels),
            maps_head(self.features.channels, TAG_DIMENSIONS * keypoints),
        )

    def forward(self, images: Tensor) -> AssociativeEmbeddingOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        x = self.features(images)
        height, width = x.shape[2:]
        unit = self.features.stride / TAG_UNIT
        column = torch.arange(width, device=x.device, dtype=x.dtype).mul(unit).expand(height, width)
        row = torch.arange(height, device=x.device, dtype=x.dtype).mul(unit)[:, None].expand(height, width)
        place = torch.stack((column, row))[:, None]
        tags = self.tags(x).unflatten(1, (TAG_DIMENSIONS, -1)) + place
        return AssociativeEmbeddingOutputs(self.heatmaps(x), tags.flatten(1, 2), self.features.stride)


class FieldNetwork(nn.Module):
    """A network for `lossatlas.objectives.PartAffinity`: heatmaps and fields, and a second stage that corrects both.

    The second stage sees what the first one found together with the features, as in the paper, and adds to it.

    Args:
        facts: of the data; the keypoints and limbs are taken from it.

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        figure 3.
    """

    def __init__(self, facts: PoseFacts) -> None:
        super().__init__()
        self.counts = [len(facts.skeleton), 2 * len(facts.skeleton.limbs)]
        self.features = PoseFeatures(stride=4)
        channels = self.features.channels
        self.first = maps_head(channels, sum(self.counts))
        self.again = nn.Sequential(convolve(channels + sum(self.counts), channels), ResidualBlock(channels))
        self.second = maps_head(channels, sum(self.counts))

    def forward(self, images: Tensor) -> PartAffinityOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        x = self.features(images)
        first = self.first(x)
        second = first + self.second(self.again(torch.cat((x, first), dim=1)))
        (maps_before, fields_before), (maps, fields) = (found.split(self.counts, dim=1) for found in (first, second))
        return PartAffinityOutputs(maps, fields, self.features.stride, (maps_before,), (fields_before,))
