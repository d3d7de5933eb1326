"""A network of queries: a small transformer decoder in which every query answers for one object or for none."""

import math

import torch
from torch import Tensor, nn

from lossatlas.boxes.priors import point_grid
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import (
    MAX_LOG_DISTANCE,
    PRIOR,
    PYRAMID,
    STRIDES,
    Pyramid,
    by_place,
    check_images,
    level_sizes,
)
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import DETROutputs

LAYERS = 2
"""Decoder layers."""

_HEADS = 4
_HIDDEN = 128
_LEVEL = 1  # of the pyramid: the cells that the queries start from


class DecoderLayer(nn.Module):
    """Queries look at each other and at the image; what they are is normalised before every step.

    Args:
        channels: of queries and image.
    """

    def __init__(self, channels: int = PYRAMID) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.queries = nn.MultiheadAttention(channels, _HEADS, batch_first=True)
        self.image = nn.MultiheadAttention(channels, _HEADS, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(channels, _HIDDEN), nn.ReLU(inplace=True), nn.Linear(_HIDDEN, channels))

    def forward(self, queries: Tensor, places: Tensor, image: Tensor, image_places: Tensor) -> Tensor:
        """Return the queries after the layer.

        Args:
            queries: (B, Q, channels).
            places: (Q, channels) where the queries are.
            image: (B, T, channels) features.
            image_places: (T, channels) where they are.
        """
        x = self.norms[0](queries)
        queries = queries + self.queries(x + places, x + places, x, need_weights=False)[0]
        x = self.norms[1](queries)
        queries = queries + self.image(x + places, image + image_places, image, need_weights=False)[0]
        mixed: Tensor = self.mix(self.norms[2](queries))
        return queries + mixed


class QueryHead(nn.Module):
    """What a query says: logits of its classes and of "no object", and how its box changes.

    Args:
        num_classes: number of classes.
        channels: of the queries.
    """

    def __init__(self, num_classes: int, channels: int = PYRAMID) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, num_classes + 1)
        self.hidden = nn.Linear(channels, channels)
        self.boxes = nn.Linear(channels, 4)
        for layer in (self.classes, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.classes.bias[:num_classes], prior_probability_bias(PRIOR))

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, Q, C + 1) logits and (B, Q, 4) numbers."""
        x = self.norm(queries)
        return self.classes(x), self.boxes(self.hidden(x).relu())


class QueryDetector(nn.Module):
    """A network for `lossatlas.objectives.DETR`: each cell of the pyramid's middle level starts a query.

    A query knows its cell and its features; each layer, and what comes before them, says class and box, the box by
    what is to be added to the one before. The first box is the cell's, of the data's mean size, the geometric one.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.log_side = facts.mean_log_side()
        self.pyramid = Pyramid(levels=_LEVEL + 1)
        self.place = nn.Linear(PYRAMID, PYRAMID)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(LAYERS))
        self.heads = nn.ModuleList(QueryHead(facts.num_classes) for _ in range(LAYERS + 1))

    def forward(self, images: Tensor) -> DETROutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        height, width = images.shape[2:]
        levels = self.pyramid(images)
        fine, coarse = levels[0], levels[_LEVEL]
        points = _middles(coarse, STRIDES[_LEVEL])
        image, queries = by_place(fine, PYRAMID), by_place(coarse, PYRAMID)
        places, image_places = (self.place(_waves(at)) for at in (points, _middles(fine, STRIDES[0])))
        numbers = torch.zeros(4, device=images.device)
        class_logits, boxes = [], []
        for step in range(LAYERS + 1):
            if step:
                queries = self.layers[step - 1](queries, places, image, image_places)
            logits, change = self.heads[step](queries)
            numbers = numbers + change
            class_logits.append(logits)
            boxes.append(self._decode(numbers, points) / images.new_tensor([width, height, width, height]))
        sizes = torch.tensor([[height, width]], device=images.device).expand(len(images), 2)
        return DETROutputs(torch.stack(class_logits), torch.stack(boxes), sizes)

    def _decode(self, numbers: Tensor, points: Tensor) -> Tensor:
        shift, log_scale = numbers.split(2, dim=-1)
        sides = (log_scale + self.log_side).clamp(max=MAX_LOG_DISTANCE).exp()
        return torch.cat((points + shift * STRIDES[_LEVEL], sides), dim=-1)


def _middles(level: Tensor, stride: int) -> Tensor:
    """Return the pixels in the middle of each cell of a map, (H * W, 2)."""
    points, _ = point_grid(level_sizes([level]), [stride], device=level.device)
    return points


def _waves(points: Tensor) -> Tensor:
    """Return sines and cosines of both coordinates, of wavelengths from 32 to 3200 pixels: (N, `PYRAMID`)."""
    frequency = 2 * math.pi / torch.logspace(1.5, 3.5, PYRAMID // 4, device=points.device)
    phase = (points[:, :, None] * frequency).flatten(1)
    return torch.cat((phase.sin(), phase.cos()), dim=1)
