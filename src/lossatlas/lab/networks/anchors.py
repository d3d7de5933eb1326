"""A network of anchors: class and box at every anchor of every cell of a pyramid."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lossatlas.boxes.priors import anchor_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, STRIDES, Head, Pyramid, check_images, flatten_levels, level_sizes
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import RetinaNetOutputs
from lossatlas.objectives.dense import AnchorOutputs

ANCHOR_BASE = 2.0
"""Side of the smallest anchor in strides."""
ANCHOR_SCALES = (1.0, math.sqrt(2.0))
"""Sizes of the anchors of a cell, as factors of the smallest."""
ANCHOR_RATIOS = (1.0,)
"""Height over width of the anchors of a cell."""


class AnchorDetector(nn.Module):
    """A network for `lossatlas.objectives.RetinaNet` or `SSD`: class and box at every anchor of every cell.

    Args:
        facts: of the data.
        outputs: what the objective takes.
        background: whether there is a logit for the background too, for a softmax.
        aspect_ratios: height over width of the anchors of a cell.
    """

    def __init__(
        self,
        facts: Facts,
        outputs: type[AnchorOutputs] = RetinaNetOutputs,
        background: bool = False,
        aspect_ratios: Sequence[float] = ANCHOR_RATIOS,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.num_logits = facts.num_classes + background
        self.aspect_ratios = aspect_ratios
        anchors = len(ANCHOR_SCALES) * len(aspect_ratios)
        self.pyramid = Pyramid()
        self.classes = Head(anchors * self.num_logits, 0.0 if background else prior_probability_bias(PRIOR))
        self.boxes = Head(anchors * 4)

    def forward(self, images: Tensor) -> AnchorOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        return self.outputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_logits),
            deltas=flatten_levels([self.boxes(level) for level in levels], 4),
            anchors=anchor_grid(
                level_sizes(levels),
                STRIDES,
                base_size=ANCHOR_BASE,
                octave_scales=ANCHOR_SCALES,
                aspect_ratios=self.aspect_ratios,
                device=images.device,
            ),
        )
