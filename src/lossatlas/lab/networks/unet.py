"""A small U-Net to compare segmentation losses with.

The network is made to be trained from scratch in minutes on two CPU cores: few channels where pixels are many, and less
than a million parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lossatlas.lab.facts import Facts
from lossatlas.objectives import SegmentationOutputs

CHANNELS = (16, 24, 48, 64, 96)
"""Channels at strides 1, 2, 4, ..."""

COARSEST_STRIDE = 2 ** (len(CHANNELS) - 1)
"""Height and width of the input are multiples of this."""


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            layer
            for channels in (inputs, outputs)
            for layer in (
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )
        )
    )


def _head(channels: int, classes: int) -> nn.Conv2d:
    """Return a layer whose classes are about equally probable at first, for every loss alike.

    Its weights are large beside the first updates of AdamW. Ones of 0.01 would soon all have the sign that favours the
    commonest class; features that are never negative could then only speak for it, and the others be never found.
    """
    head = nn.Conv2d(channels, classes, 1)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head


class UNet(nn.Module):
    """Features at every stride on the way down, put together with what the coarser ones know on the way up.

    Args:
        facts: of the data; the number of classes is taken from it.
        auxiliary_strides: strides at which the network puts out logits for deep supervision as well.

    Reference:
        Ronneberger, Fischer and Brox, "U-Net", 2015, arXiv 1505.04597, figure 1; with padding and batch normalisation.
    """

    def __init__(self, facts: Facts, auxiliary_strides: Sequence[int] = ()) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _two_convolutions(before, after) for before, after in zip((3, *CHANNELS), CHANNELS, strict=False)
        )
        upwards = list(zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(before, after, 2, stride=2) for before, after in upwards)
        self.merge = nn.ModuleList(_two_convolutions(2 * after, after) for _, after in upwards)
        self.head = _head(CHANNELS[0], facts.num_classes)
        self.auxiliary = nn.ModuleDict(
            {str(stride): _head(CHANNELS[stride.bit_length() - 1], facts.num_classes) for stride in auxiliary_strides}
        )

    def forward(self, images: Tensor) -> SegmentationOutputs:
        """Return logits of every class at every pixel.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(extent % COARSEST_STRIDE for extent in images.shape[2:]):
            raise ValueError(
                f"`images` must have shape (B, 3, H, W) with H and W multiples of {COARSEST_STRIDE}, "
                f"but got {tuple(images.shape)}"
            )
        x, levels = images, []
        for place, stage in enumerate(self.down):
            x = stage(x if not place else nn.functional.max_pool2d(x, 2))
            levels.append(x)
        found = {COARSEST_STRIDE: levels.pop()}
        for up, merge in zip(self.up, self.merge, strict=True):
            level = levels.pop()
            x = merge(torch.cat((level, up(x)), dim=1))
            found[images.shape[-1] // x.shape[-1]] = x
        return SegmentationOutputs(
            self.head(x), tuple(head(found[int(stride)]) for stride, head in self.auxiliary.items())
        )
