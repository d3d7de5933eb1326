"""The objectives that promise the same, each with outputs of a small network: what is true of all is tested once.

To add an objective, add a `Case`: its tests of formula and decoding are its own.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.boxes.coders import DistributionCoder
from lossatlas.boxes.priors import anchor_grid, point_grid, yolo_anchors
from lossatlas.losses import sigmoid_focal_loss
from lossatlas.objectives import (
    ATSS,
    DETR,
    FCOS,
    GFL,
    RPN,
    SSD,
    YOLOX,
    ATSSOutputs,
    CenterNet,
    CenterNetOutputs,
    DETROutputs,
    FasterRCNN,
    FasterRCNNOutputs,
    FCOSOutputs,
    GFLOutputs,
    Regions,
    RetinaNet,
    RetinaNetOutputs,
    RoIHead,
    RoIOutputs,
    RPNOutputs,
    SSDOutputs,
    VarifocalNet,
    VarifocalNetOutputs,
    YOLOv1,
    YOLOv1Outputs,
    YOLOv2,
    YOLOv2Outputs,
    YOLOv3,
    YOLOv3Outputs,
    YOLOv4,
    YOLOv4Outputs,
    YOLOv5,
    YOLOv5Outputs,
    YOLOv8,
    YOLOv8Outputs,
    YOLOXOutputs,
)
from tests.objectives.scenes import CLASSES, SIZES, STRIDES, leaf

Leaves = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An objective that takes ``normalizer=``, and what a network gives it."""

    objective: Callable[..., nn.Module]
    leaves: Callable[[int], Leaves]
    """Raw outputs for so many images, all with the images along axis 0; float64."""
    outputs: Callable[[Leaves], Any]
    trains_background: bool = True
    """Whether an image without objects has something to learn from."""


def beside(raw: Leaves) -> dict[str, Any]:
    """Dtype and device of the priors beside such outputs."""
    first = next(iter(raw.values()))
    return {"dtype": torch.promote_types(first.dtype, torch.float32), "device": first.device}


def points(raw: Leaves) -> dict[str, Tensor]:
    return dict(zip(("points", "strides"), point_grid(SIZES, STRIDES, **beside(raw)), strict=True))


def anchors(raw: Leaves) -> Tensor:
    return anchor_grid(SIZES, STRIDES, base_size=2, octave_scales=(1,), **beside(raw))


def detr_outputs(raw: Leaves) -> DETROutputs:
    """Layers come first in the outputs; boxes lie mostly within images of 48 x 48 pixels."""
    sizes = torch.full((len(raw["boxes"]), 2), 48, device=raw["boxes"].device)
    return DETROutputs(raw["class_logits"].transpose(0, 1), raw["boxes"].transpose(0, 1) / 4, sizes)


def yolo_places(raw: Leaves) -> dict[str, Tensor]:
    """Anchors of two shapes on the cells of the fine level and of one on those of the coarse one."""
    shapes = [[(11.0, 12.0), (20.0, 16.0)], [(24.0, 30.0)]]
    strides = torch.tensor([8.0] * 72 + [16.0] * 9, **beside(raw))
    return {"anchors": yolo_anchors(SIZES, STRIDES, shapes, **beside(raw)), "strides": strides}


def yolo_leaves(images: int) -> Leaves:
    return {
        "class_logits": leaf(images, P_YOLO, CLASSES, seed=0),
        "objectness_logits": leaf(images, P_YOLO, seed=1),
        "box_logits": leaf(images, P_YOLO, 4, seed=2),
    }


def short_distances(images: int) -> Tensor:
    """Logits of distances of a stride or two, of objects that are there."""
    return (leaf(images, P_POINTS, 4, 16, seed=1).detach() - 0.7 * torch.arange(16)).requires_grad_()


IMAGE_SIZE = (48, 48)
P_YOLO = 81
P_POINTS = sum(height * width for height, width in SIZES)
P_ANCHORS = 3 * P_POINTS

QUERIES, LAYERS = 7, 2


def rpn_leaves(images: int) -> Leaves:
    return {"objectness_logits": leaf(images, P_ANCHORS, seed=0), "deltas": leaf(images, P_ANCHORS, 4, seed=1)}


def rpn_outputs(raw: Leaves) -> RPNOutputs:
    return RPNOutputs(raw["objectness_logits"], raw["deltas"], anchors=anchors(raw))


def roi_leaves(images: int) -> Leaves:
    """Of the anchors as regions, with boxes for each class."""
    return {
        "class_logits": leaf(images, P_ANCHORS, CLASSES + 1, seed=2),
        "deltas": leaf(images, P_ANCHORS, CLASSES, 4, seed=3),
    }


def roi_outputs(raw: Leaves) -> RoIOutputs:
    regions = Regions([anchors(raw)] * len(raw["deltas"]))
    return RoIOutputs(raw["class_logits"].flatten(0, 1), raw["deltas"].flatten(0, 1), regions)


CASES = {
    "centernet": Case(
        CenterNet,
        lambda images: {
            "heatmap_logits": leaf(images, CLASSES, 6, 6, seed=0),
            "sizes": leaf(images, 2, 6, 6, seed=1),
            "offsets": leaf(images, 2, 6, 6, seed=2),
        },
        lambda raw: CenterNetOutputs(**raw, stride=8),
    ),
    "detr": Case(
        DETR,
        lambda images: {
            "class_logits": leaf(images, LAYERS, QUERIES, CLASSES + 1, seed=0),
            "boxes": leaf(images, LAYERS, QUERIES, 4, seed=1, positive=True),
        },
        detr_outputs,
    ),
    "detr_sigmoid": Case(
        functools.partial(DETR, class_loss=sigmoid_focal_loss),
        lambda images: {
            "class_logits": leaf(images, LAYERS, QUERIES, CLASSES, seed=0),
            "boxes": leaf(images, LAYERS, QUERIES, 4, seed=1, positive=True),
        },
        detr_outputs,
    ),
    "fcos": Case(
        FCOS,
        lambda images: {
            "class_logits": leaf(images, P_POINTS, CLASSES, seed=0),
            "distances": leaf(images, P_POINTS, 4, seed=1, positive=True),
            "centerness": leaf(images, P_POINTS, seed=2),
        },
        lambda raw: FCOSOutputs(**raw, **points(raw)),
    ),
    "retinanet": Case(
        RetinaNet,
        lambda images: {
            "class_logits": leaf(images, P_ANCHORS, CLASSES, seed=0),
            "deltas": leaf(images, P_ANCHORS, 4, seed=1),
        },
        lambda raw: RetinaNetOutputs(**raw, anchors=anchors(raw)),
    ),
    "ssd": Case(
        SSD,
        lambda images: {
            "class_logits": leaf(images, P_ANCHORS, CLASSES + 1, seed=0),
            "deltas": leaf(images, P_ANCHORS, 4, seed=1),
        },
        lambda raw: SSDOutputs(**raw, anchors=anchors(raw)),
        trains_background=False,
    ),
    "rpn": Case(RPN, rpn_leaves, rpn_outputs),
    "rpn_softmax": Case(
        functools.partial(RPN, objectness="softmax", normalization="sampled"),
        lambda images: {**rpn_leaves(images), "objectness_logits": leaf(images, P_ANCHORS, 2, seed=0)},
        rpn_outputs,
    ),
    "roi_head": Case(RoIHead, roi_leaves, roi_outputs),
    "faster_rcnn": Case(
        lambda normalizer="batch": FasterRCNN(rpn=RPN(normalizer=normalizer), head=RoIHead(normalizer=normalizer)),
        lambda images: rpn_leaves(images) | {f"roi_{name}": raw for name, raw in roi_leaves(images).items()},
        lambda raw: FasterRCNNOutputs(
            rpn_outputs(raw), roi_outputs({name[4:]: one for name, one in raw.items() if name.startswith("roi_")})
        ),
    ),
    "yolov1": Case(
        functools.partial(YOLOv1, grid=(3, 3)),
        lambda images: {
            "class_scores": leaf(images, 9, CLASSES, seed=0),
            "confidence_logits": leaf(images, 18, seed=1),
            "box_numbers": leaf(images, 18, 4, seed=2),
        },
        lambda raw: YOLOv1Outputs(raw["class_scores"], raw["confidence_logits"], raw["box_numbers"], IMAGE_SIZE),
    ),
    "yolov2": Case(YOLOv2, yolo_leaves, lambda raw: YOLOv2Outputs(**raw, **yolo_places(raw), image_size=IMAGE_SIZE)),
    "yolov3": Case(YOLOv3, yolo_leaves, lambda raw: YOLOv3Outputs(**raw, **yolo_places(raw), image_size=IMAGE_SIZE)),
    "yolov4": Case(YOLOv4, yolo_leaves, lambda raw: YOLOv4Outputs(**raw, **yolo_places(raw))),
    "yolov5": Case(
        functools.partial(YOLOv5, balance=(4, 1)),
        yolo_leaves,
        lambda raw: YOLOv5Outputs(**raw, **yolo_places(raw)),
    ),
    "yolox": Case(
        functools.partial(YOLOX, l1_weight=1.0),
        lambda images: {
            "class_logits": leaf(images, P_POINTS, CLASSES, seed=0),
            "objectness_logits": leaf(images, P_POINTS, seed=1),
            "box_numbers": leaf(images, P_POINTS, 4, seed=2),
        },
        lambda raw: YOLOXOutputs(**raw, **points(raw)),
    ),
    "yolov8": Case(
        YOLOv8,
        lambda images: {
            "class_logits": leaf(images, P_POINTS, CLASSES, seed=0),
            "distributions": short_distances(images),
        },
        lambda raw: YOLOv8Outputs(**raw, **points(raw)),
    ),
    "atss": Case(
        ATSS,
        lambda images: {
            "class_logits": leaf(images, P_ANCHORS, CLASSES, seed=0),
            "deltas": leaf(images, P_ANCHORS, 4, seed=1),
            "centerness": leaf(images, P_ANCHORS, seed=2),
        },
        lambda raw: ATSSOutputs(**raw, anchors=anchors(raw), level_sizes=[3 * 36, 3 * 9]),
    ),
    "gfl": Case(
        functools.partial(GFL, anchor_scale=3.0, coder=DistributionCoder(reg_max=5)),
        lambda images: {
            "class_logits": leaf(images, P_POINTS, CLASSES, seed=0),
            "distributions": leaf(images, P_POINTS, 4, 6, seed=1),
        },
        lambda raw: GFLOutputs(**raw, **points(raw)),
    ),
    "varifocalnet": Case(
        functools.partial(VarifocalNet, anchor_scale=3.0),
        lambda images: {
            "class_logits": leaf(images, P_POINTS, CLASSES, seed=0),
            "distances": leaf(images, P_POINTS, 4, seed=1, positive=True),
            "refined_distances": leaf(images, P_POINTS, 4, seed=2, positive=True),
        },
        lambda raw: VarifocalNetOutputs(**raw, **points(raw)),
    ),
}
