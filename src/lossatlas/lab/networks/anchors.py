"""A network of anchors: class and box at every anchor of every cell of a pyramid."""

import math

from torch import Tensor, nn

from lossatlas.boxes.priors import anchor_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, STRIDES, Head, Pyramid, check_images, flatten_levels, level_sizes
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import RetinaNetOutputs

ANCHOR_BASE = 2.0
"""Side of the smallest anchor in strides."""
ANCHOR_SCALES = (1.0, math.sqrt(2.0))
"""Sizes of the anchors of a cell, as factors of the smallest."""
ANCHOR_RATIOS = (1.0,)
"""Height over width of the anchors of a cell."""


class AnchorDetector(nn.Module):
    """A network for `lossatlas.objectives.RetinaNet`: class and box at every anchor of every cell.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        anchors = len(ANCHOR_SCALES) * len(ANCHOR_RATIOS)
        self.pyramid = Pyramid()
        self.classes = Head(anchors * facts.num_classes, prior_probability_bias(PRIOR))
        self.boxes = Head(anchors * 4)

    def forward(self, images: Tensor) -> RetinaNetOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        return RetinaNetOutputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_classes),
            deltas=flatten_levels([self.boxes(level) for level in levels], 4),
            anchors=anchor_grid(
                level_sizes(levels),
                STRIDES,
                base_size=ANCHOR_BASE,
                octave_scales=ANCHOR_SCALES,
                aspect_ratios=ANCHOR_RATIOS,
                device=images.device,
            ),
        )
