"""A network of centres: for each class a map of object centres at a quarter of the image, and their boxes."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import (
    MAX_LOG_DISTANCE,
    PRIOR,
    PYRAMID,
    QUARTER,
    Head,
    Pyramid,
    check_images,
    convolve,
)
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import CenterNetOutputs

STRIDE = 4
"""Pixels between two cells."""


class CenterDetector(nn.Module):
    """A network for `lossatlas.objectives.CenterNet`: a heatmap of each class, size and offset at every cell.

    Sizes start at the mean of the data's, the geometric one.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.log_side = facts.mean_log_side() - math.log(STRIDE)
        self.pyramid = Pyramid(levels=1)
        self.lateral = nn.Conv2d(PYRAMID, QUARTER, 1)
        self.smooth = convolve(QUARTER, QUARTER)
        self.classes = Head(facts.num_classes, prior_probability_bias(PRIOR), QUARTER)
        self.boxes = Head(4, channels=QUARTER)

    def forward(self, images: Tensor) -> CenterNetOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        quarter = self.pyramid.stem(images)
        (eighth,) = self.pyramid.from_quarter(quarter)
        features = self.smooth(quarter + F.interpolate(self.lateral(eighth), scale_factor=2.0, mode="nearest"))
        log_sizes, offsets = self.boxes(features).split(2, dim=1)
        return CenterNetOutputs(
            heatmap_logits=self.classes(features),
            sizes=(log_sizes + self.log_side).clamp(max=MAX_LOG_DISTANCE).exp(),
            offsets=offsets + 0.5,
            stride=STRIDE,
        )
