"""A network of two stages: anchors that propose regions, and a classifier of what is cut out of the pyramid there."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.boxes.priors import anchor_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.anchors import ANCHOR_BASE, ANCHOR_RATIOS, ANCHOR_SCALES
from lossatlas.lab.networks.backbone import STRIDES, Head, Pyramid, check_images, flatten_levels, level_sizes
from lossatlas.objectives import Regions, RoIOutputs, RPNOutputs

POOLED = 7
"""Side of what is cut out of a level, in bins."""
_SAMPLING = 1  # samples of a bin along each axis: a bin is about a cell
_FINEST_SIDE = 112.0  # pixels; regions up to this are cut out of the finest level, up to its double of the next, ...
_WIDTH = 128  # of the classifier


class TwoStageDetector(nn.Module):
    """A network for `lossatlas.objectives.FasterRCNN`. Between its stages the learner asks the objective for regions.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        anchors = len(ANCHOR_SCALES) * len(ANCHOR_RATIOS)
        self.pyramid = Pyramid()
        self.objectness = Head(anchors)
        self.boxes = Head(anchors * 4)
        channels = self.objectness.last.in_channels
        self.classifier = nn.Linear(channels * POOLED**2, _WIDTH)
        self.region_classes = nn.Linear(_WIDTH, facts.num_classes + 1)
        self.region_boxes = nn.Linear(_WIDTH, 4 * facts.num_classes)
        for layer in (self.region_classes, self.region_boxes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> tuple[list[Tensor], RPNOutputs]:
        """Return the features of every level and what the first stage puts out.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        objectness = [self.objectness(level) for level in levels]
        anchors = anchor_grid(
            level_sizes(levels),
            STRIDES,
            base_size=ANCHOR_BASE,
            octave_scales=ANCHOR_SCALES,
            aspect_ratios=ANCHOR_RATIOS,
            device=images.device,
        )
        return levels, RPNOutputs(
            objectness=flatten_levels(objectness, 1).squeeze(2),
            deltas=flatten_levels([self.boxes(level) for level in levels], 4),
            anchors=anchors,
            level_sizes=[logits[0].numel() for logits in objectness],
        )

    def classify(self, levels: Sequence[Tensor], regions: Regions) -> RoIOutputs:
        """Return what the second stage puts out.

        Args:
            levels: features, as `forward` returns them.
            regions: of the same images.
        """
        hidden = F.relu(self.classifier(pool_regions(levels, regions.boxes).flatten(1)))
        return RoIOutputs(self.region_classes(hidden), self.region_boxes(hidden).unflatten(1, (-1, 4)), regions)


def pool_regions(levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
    """Return the features of regions, (R, F, `POOLED`, `POOLED`), each from the level that fits its size.

    Args:
        levels: (B, F, H, W) features of every level.
        boxes: of each image (R_b, 4) xyxy pixels.
    """
    from torchvision.ops import roi_align

    flat = torch.cat(list(boxes)).to(levels[0].dtype)
    image = torch.arange(len(boxes), device=flat.device).repeat_interleave(
        torch.tensor([len(one) for one in boxes], device=flat.device)
    )
    side = (flat[:, 2:] - flat[:, :2]).clamp(min=1e-3).prod(1).sqrt()
    level_of = (side / _FINEST_SIDE).log2().floor().add(1).clamp(0, len(levels) - 1)
    pooled = flat.new_zeros((len(flat), levels[0].shape[1], POOLED, POOLED))
    for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        rows = (level_of == number).nonzero().squeeze(1)
        places = torch.cat((image[rows, None].to(flat.dtype), flat[rows]), dim=1)
        found = roi_align(level.contiguous(), places, POOLED, 1 / stride, _SAMPLING, aligned=True)
        pooled = pooled.index_copy(0, rows, found)
    return pooled
