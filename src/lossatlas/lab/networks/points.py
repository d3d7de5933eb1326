"""A network of points: class, box and centerness at every cell of a pyramid."""

import torch
from torch import Tensor, nn

from lossatlas.boxes.priors import point_grid
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
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import FCOSOutputs


class PointDetector(nn.Module):
    """A network for `lossatlas.objectives.FCOS`: class, box and centerness at every cell.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        self.pyramid = Pyramid()
        self.classes = Head(facts.num_classes, prior_probability_bias(PRIOR))
        self.boxes = Head(5)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, images: Tensor) -> FCOSOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        boxes = [self.boxes(level) for level in levels]
        distances = [
            (output[:, :4] * scale).clamp(max=MAX_LOG_DISTANCE).exp()
            for output, scale in zip(boxes, self.scales, strict=True)
        ]
        points, strides = point_grid(level_sizes(levels), STRIDES, device=images.device)
        return FCOSOutputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_classes),
            distances=flatten_levels(distances, 4),
            centerness=torch.cat([output[:, 4].flatten(1) for output in boxes], dim=1),
            points=points,
            strides=strides,
        )
