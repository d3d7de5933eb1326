"""Networks with one square for each cell of a pyramid, from which objects find their positives: ATSS and its heirs."""

import torch
from torch import Tensor, nn

from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import (
    MAX_LOG_DISTANCE,
    PRIOR,
    STRIDES,
    Head,
    Pyramid,
    check_images,
    flatten_levels,
    level_sizes,
)
from lossatlas.lab.networks.star import StarConvolution
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import ATSSOutputs, VarifocalNetOutputs

SQUARE_SCALE = 4.0
"""Side of the squares in strides. The papers' 8 is for pyramids with finer and coarser levels."""


class SquareDetector(nn.Module):
    """A network for `lossatlas.objectives.ATSS`: class, box and centerness at the square of every cell.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        self.pyramid = Pyramid()
        self.classes = Head(facts.num_classes, prior_probability_bias(PRIOR))
        self.boxes = Head(5)

    def forward(self, images: Tensor) -> ATSSOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        boxes = flatten_levels([self.boxes(level) for level in levels], 5)
        sizes = level_sizes(levels)
        return ATSSOutputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_classes),
            deltas=boxes[..., :4],
            anchors=anchor_grid(
                sizes,
                STRIDES,
                base_size=SQUARE_SCALE,
                octave_scales=(1.0,),
                aspect_ratios=(1.0,),
                device=images.device,
            ),
            centerness=boxes[..., 4],
            level_sizes=[height * width for height, width in sizes],
        )


class StarDetector(nn.Module):
    """A network for `lossatlas.objectives.VarifocalNet`: a first box, from whose star the rest is read.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        self.pyramid = Pyramid()
        self.boxes = Head(4)
        self.refinement = StarConvolution(4)
        self.classes = StarConvolution(facts.num_classes, prior_probability_bias(PRIOR))
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, images: Tensor) -> VarifocalNetOutputs:
        """Return what the objective takes; arguments and errors as in `SquareDetector`."""
        check_images(images)
        levels = self.pyramid(images)
        first = [
            (self.boxes(level) * scale).clamp(max=MAX_LOG_DISTANCE).exp()
            for level, scale in zip(levels, self.scales, strict=True)
        ]
        refined = [
            distances.detach() * self.refinement(level, distances.detach()).clamp(max=MAX_LOG_DISTANCE).exp()
            for level, distances in zip(levels, first, strict=True)
        ]
        classes = [self.classes(level, distances.detach()) for level, distances in zip(levels, first, strict=True)]
        points, strides = point_grid(level_sizes(levels), STRIDES, device=images.device)
        return VarifocalNetOutputs(
            class_logits=flatten_levels(classes, self.num_classes),
            distances=flatten_levels(first, 4),
            refined_distances=flatten_levels(refined, 4),
            points=points,
            strides=strides,
        )
