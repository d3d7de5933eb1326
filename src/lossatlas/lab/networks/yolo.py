"""Networks of the YOLO family: with anchors that fit the data and an objectness, or with points and neither."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.boxes.clustering import kmeans_anchors
from lossatlas.boxes.priors import YOLOV3_ANCHORS, point_grid, yolo_anchors
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, STRIDES, Head, Pyramid, check_images, flatten_levels, level_sizes
from lossatlas.losses import prior_probability_bias
from lossatlas.objectives import GFLOutputs, YOLOv8Outputs, YOLOXOutputs
from lossatlas.objectives.yolo import YOLOAnchorOutputs
from lossatlas.objectives.yolo_darknet import DarknetOutputs

ANCHORS = 3
"""Of a cell."""

BINS = 16
"""Distances that the distributions of YOLOv8 and GFL are over, from 0 strides."""

_PUBLISHED_FOR = 416  # pixels

Shapes = Sequence[Sequence[tuple[float, float]]]


def anchor_shapes(facts: Facts) -> Shapes:
    """Return the shapes that the objects of the training images cluster around, the smallest for the finest level.

    Args:
        facts: of the data; with fewer objects than anchors, the published anchors for COCO are scaled to its images.

    Returns:
        For each level width and height of its anchors, in pixels.

    Example:
        >>> anchor_shapes(Facts(3, image_size=416))[0]
        [(10.0, 13.0), (16.0, 30.0), (33.0, 23.0)]
    """
    count = ANCHORS * len(STRIDES)
    usable = facts.box_sizes[(facts.box_sizes > 0).all(1)]
    if len(usable) < count:
        sizes = torch.tensor(YOLOV3_ANCHORS).reshape(-1, 2) * (facts.image_size / _PUBLISHED_FOR)
    else:
        sizes = kmeans_anchors(usable, count)
    return [[(w, h) for w, h in level] for level in sizes.view(len(STRIDES), ANCHORS, 2).tolist()]


def _box_head(anchors: int) -> Head:
    """Return a head of box and objectness for each anchor of a cell; objects are rare at first."""
    head = Head(anchors * 5)
    assert head.last.bias is not None
    with torch.no_grad():
        head.last.bias.view(anchors, 5)[:, 4] = prior_probability_bias(PRIOR)
    return head


class YOLOAnchorDetector(nn.Module):
    """A network for `lossatlas.objectives.YOLOv2` to `YOLOv5`: class, objectness and box at every anchor of every cell.

    Args:
        facts: of the data.
        outputs: what the objective takes.
    """

    def __init__(self, facts: Facts, outputs: type[YOLOAnchorOutputs]) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        self.outputs = outputs
        self.shapes = anchor_shapes(facts)
        self.pyramid = Pyramid()
        self.classes = Head(ANCHORS * facts.num_classes)
        self.boxes = _box_head(ANCHORS)

    def forward(self, images: Tensor) -> YOLOAnchorOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        anchors = [
            yolo_anchors([size], [stride], [shapes], device=images.device)
            for size, stride, shapes in zip(level_sizes(levels), STRIDES, self.shapes, strict=True)
        ]
        strides = [boxes.new_full((len(boxes),), stride) for boxes, stride in zip(anchors, STRIDES, strict=True)]
        boxes = flatten_levels([self.boxes(level) for level in levels], 5)
        size: dict[str, Any] = {}
        if issubclass(self.outputs, DarknetOutputs):
            size["image_size"] = (images.shape[2], images.shape[3])
        return self.outputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_classes),
            objectness_logits=boxes[..., 4],
            box_logits=boxes[..., :4],
            anchors=torch.cat(anchors),
            strides=torch.cat(strides),
            **size,
        )


class YOLOXDetector(nn.Module):
    """A network for `lossatlas.objectives.YOLOX`: class, objectness and box at every cell.

    Args:
        facts: of the data.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        self.pyramid = Pyramid()
        self.classes = Head(facts.num_classes, prior_probability_bias(PRIOR))
        self.boxes = _box_head(1)

    def forward(self, images: Tensor) -> YOLOXOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        boxes = flatten_levels([self.boxes(level) for level in levels], 5)
        points, strides = point_grid(level_sizes(levels), STRIDES, device=images.device)
        return YOLOXOutputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_classes),
            objectness_logits=boxes[..., 4],
            box_numbers=boxes[..., :4],
            points=points,
            strides=strides,
        )


class YOLOv8Detector(nn.Module):
    """A network for `lossatlas.objectives.YOLOv8` or `GFL`: class and four distributions of distances at every cell.

    Args:
        facts: of the data.
        outputs: what the objective takes.
    """

    def __init__(self, facts: Facts, outputs: type[YOLOv8Outputs] | type[GFLOutputs] = YOLOv8Outputs) -> None:
        super().__init__()
        self.num_classes = facts.num_classes
        self.outputs = outputs
        self.pyramid = Pyramid()
        self.classes = Head(facts.num_classes, prior_probability_bias(PRIOR))
        self.boxes = Head(4 * BINS)

    def forward(self, images: Tensor) -> YOLOv8Outputs | GFLOutputs:
        """Return what the objective takes.

        Args:
            images: (B, 3, H, W), normalised, H and W multiples of `COARSEST_STRIDE`.

        Raises:
            ValueError: another shape.
        """
        check_images(images)
        levels = self.pyramid(images)
        points, strides = point_grid(level_sizes(levels), STRIDES, device=images.device)
        return self.outputs(
            class_logits=flatten_levels([self.classes(level) for level in levels], self.num_classes),
            distributions=flatten_levels([self.boxes(level) for level in levels], 4 * BINS).unflatten(-1, (4, BINS)),
            points=points,
            strides=strides,
        )
