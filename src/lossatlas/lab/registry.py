"""Every objective that the lab trains: its network, its slots, and what else is its own.

To add one, write its network in a file of its own below ``networks`` and an entry here. Nothing else asks for the name
of an objective.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from lossatlas.boxes.coders import DistributionCoder
from lossatlas.lab.data.crops import one_person_each
from lossatlas.lab.data.segmentation import VOID
from lossatlas.lab.data.skeleton import sigmas_of
from lossatlas.lab.errors import ArgumentError, unknown
from lossatlas.lab.facts import Facts, PoseFacts
from lossatlas.lab.learner import DetectionLearner, Learner, PoseLearner, SegmentationLearner, SetLearner
from lossatlas.lab.networks.anchors import AnchorDetector
from lossatlas.lab.networks.backbone import COARSEST_STRIDE, STRIDES
from lossatlas.lab.networks.centers import CenterDetector
from lossatlas.lab.networks.points import PointDetector
from lossatlas.lab.networks.poses import COARSEST_STRIDE as POSE_STRIDE
from lossatlas.lab.networks.poses import TAG_DIMENSIONS, FieldNetwork, HeatmapNetwork, TagNetwork
from lossatlas.lab.networks.queries import QueryDetector
from lossatlas.lab.networks.squares import SQUARE_SCALE, SquareDetector, StarDetector
from lossatlas.lab.networks.two_stage import TwoStageDetector
from lossatlas.lab.networks.unet import COARSEST_STRIDE as UNET_STRIDE
from lossatlas.lab.networks.unet import UNet
from lossatlas.lab.networks.yolo import BINS as DISTANCES
from lossatlas.lab.networks.yolo import YOLOAnchorDetector, YOLOv8Detector, YOLOXDetector
from lossatlas.lab.slots import (
    BINS,
    BOX,
    COORDINATES,
    FIELDS,
    HEATMAP,
    HEATMAPS,
    MASKS,
    OBJECTNESS,
    SIGMOID,
    SOFTMAX,
    TAGS,
    Slot,
)
from lossatlas.lab.two_stage import TwoStageLearner, build_faster_rcnn
from lossatlas.losses import AssociativeEmbeddingLoss
from lossatlas.objectives import (
    ATSS,
    DETR,
    FCOS,
    GFL,
    SSD,
    YOLOX,
    AssociativeEmbedding,
    CenterNet,
    GFLOutputs,
    Heatmap,
    PartAffinity,
    RetinaNet,
    Segmentation,
    SSDOutputs,
    VarifocalNet,
    YOLOv2,
    YOLOv2Outputs,
    YOLOv3,
    YOLOv3Outputs,
    YOLOv4,
    YOLOv4Outputs,
    YOLOv5,
    YOLOv5Outputs,
    YOLOv8,
)
from lossatlas.targets import KeypointHeatmaps

HEATMAP_SIGMA = 4.0
"""Standard deviation of the Gaussians of heatmaps at half of the resolution, in cells: a 24th of a map of 96 x 96. Wide
ones are learned in fewer steps."""
COARSE_SIGMA = 1.5
"""The same at a quarter of the resolution."""
TAG_WEIGHTS = (1.0, 0.02, 0.02)
"""Of heatmaps, pull and push: more for the tags than the published 0.001, to learn both within minutes."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """An objective as the lab trains it.

    Args:
        name: what users call it; no other objective, of whatever task, has the same.
        task: name of the task it belongs to.
        description: one line for lists of objectives.
        network: builds its network from what is known of the data.
        objective: builds the objective; it is called with the losses of the slots that a variant fills, by `argument`,
            and with what `settings` returns.
        slots: what ``--vary`` may vary, by name: one of `lossatlas.lab.slots`, with the name of the argument replaced
            where it is another.
        settings: returns further arguments of the objective, which depend on the data.
        learner: joins network and objective.
        recipe: settings of training whose default is another than the task's, by their names in `TrialConfig`.
        multiple: height and width of the network's input are multiples of this many pixels.
        view: what the objective makes of the data before anything is trained or scored on it.
    """

    name: str
    task: str
    description: str
    network: Callable[[Any], nn.Module]
    objective: Callable[..., nn.Module]
    slots: Mapping[str, Slot]
    settings: Callable[[Any], Mapping[str, Any]] | None = None
    learner: Callable[[nn.Module, nn.Module], Learner] = DetectionLearner
    recipe: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = COARSEST_STRIDE
    view: Callable[[Any], Any] | None = None

    def see(self, data: Any) -> Any:
        """Return what the objective makes of the data."""
        return data if self.view is None else self.view(data)

    def build(self, facts: Any, losses: Mapping[str, Any] | None = None) -> nn.Module:
        """Return the objective.

        Args:
            facts: what is known of the data.
            losses: by slot; the slots that are not named keep the objective's own.
        """
        filled = {self.slots[slot].argument: loss for slot, loss in (losses or {}).items()}
        return self.objective(**filled, **(self.settings(facts) if self.settings else {}))


def _yolov5_gains(facts: Facts) -> Mapping[str, float]:
    return YOLOv5.gains(facts.num_classes, facts.image_size, len(STRIDES))


_DENSE = {"box": BOX, "cls": SIGMOID}
_PIXELS = {"loss": MASKS}
_YOLO = {**_DENSE, "obj": OBJECTNESS}
_SOFTMAX = {"box": BOX, "cls": SOFTMAX}


def _heatmap_settings(facts: PoseFacts) -> dict[str, Any]:
    heatmaps = KeypointHeatmaps(sigma=HEATMAP_SIGMA, convention="area")
    return {"heatmaps": heatmaps, "sigmas": torch.tensor(sigmas_of(facts.skeleton))}


def _tag_settings(facts: PoseFacts) -> dict[str, Any]:
    heatmaps = KeypointHeatmaps(sigma=COARSE_SIGMA, convention="area")
    return {"heatmaps": heatmaps, "order": facts.skeleton.grouping_order, "dimensions": TAG_DIMENSIONS}


def _field_settings(facts: PoseFacts) -> dict[str, Any]:
    return {"heatmaps": KeypointHeatmaps(sigma=COARSE_SIGMA, convention="area"), "skeleton": facts.skeleton}


_SPECS = (
    ObjectiveSpec("fcos", "detection", "points and centerness", PointDetector, FCOS, _DENSE),
    ObjectiveSpec("retinanet", "detection", "anchors by IoU", AnchorDetector, RetinaNet, _DENSE),
    ObjectiveSpec(
        "ssd",
        "detection",
        "anchors by IoU, and as much background as is hard",
        functools.partial(AnchorDetector, outputs=SSDOutputs, background=True, aspect_ratios=(1.0, 0.5, 2.0)),
        SSD,
        _SOFTMAX,
    ),
    ObjectiveSpec(
        "faster_rcnn",
        "detection",
        "proposals, and a second look at a sample of them",
        TwoStageDetector,
        build_faster_rcnn,
        {
            **_SOFTMAX,
            "rpn_box": replace(BOX, argument="rpn_box_loss"),
            "rpn_cls": replace(SIGMOID, argument="rpn_objectness_loss", classes=1),
        },
        learner=TwoStageLearner,
    ),
    ObjectiveSpec("atss", "detection", "anchors whose IoU stands out, and centerness", SquareDetector, ATSS, _DENSE),
    ObjectiveSpec(
        "gfl",
        "detection",
        "classes that are qualities, edges that are distributions",
        functools.partial(YOLOv8Detector, outputs=GFLOutputs),
        functools.partial(GFL, anchor_scale=SQUARE_SCALE, coder=DistributionCoder(DISTANCES - 1)),
        {**_DENSE, "distribution": BINS},
    ),
    ObjectiveSpec(
        "varifocalnet",
        "detection",
        "classes that are the IoU of a refined box",
        StarDetector,
        functools.partial(VarifocalNet, anchor_scale=SQUARE_SCALE),
        _DENSE,
    ),
    ObjectiveSpec(
        "yolov2",
        "detection",
        "the anchor of the best shape, an objectness that is its IoU, classes by softmax",
        functools.partial(YOLOAnchorDetector, outputs=YOLOv2Outputs),
        YOLOv2,
        {**_YOLO, "cls": replace(SOFTMAX, extra_classes=0)},
    ),
    ObjectiveSpec(
        "yolov3",
        "detection",
        "the anchor of the best shape, logistic objectness and classes",
        functools.partial(YOLOAnchorDetector, outputs=YOLOv3Outputs),
        YOLOv3,
        _YOLO,
    ),
    ObjectiveSpec(
        "yolov4",
        "detection",
        "every anchor of a similar shape, complete IoU",
        functools.partial(YOLOAnchorDetector, outputs=YOLOv4Outputs),
        YOLOv4,
        _YOLO,
    ),
    ObjectiveSpec(
        "yolov5",
        "detection",
        "every anchor of similar sides on three cells, an objectness that is the box's complete IoU",
        functools.partial(YOLOAnchorDetector, outputs=YOLOv5Outputs),
        YOLOv5,
        _YOLO,
        settings=_yolov5_gains,
    ),
    ObjectiveSpec(
        "yolox", "detection", "points by SimOTA, class scores that are the box's IoU", YOLOXDetector, YOLOX, _YOLO
    ),
    ObjectiveSpec(
        "yolov8",
        "detection",
        "points by task alignment, boxes as distributions",
        YOLOv8Detector,
        YOLOv8,
        {**_DENSE, "distribution": BINS},
    ),
    ObjectiveSpec(
        "centernet",
        "detection",
        "centres as peaks of heatmaps",
        CenterDetector,
        CenterNet,
        {"box": BOX, "cls": HEATMAP},
        learner=SetLearner,
    ),
    ObjectiveSpec(
        "detr",
        "detection",
        "queries matched one to one with the objects",
        QueryDetector,
        DETR,
        {**_SOFTMAX, "iou": replace(BOX, argument="iou_loss")},
        learner=SetLearner,
    ),
    ObjectiveSpec(
        "segmentation",
        "segmentation",
        "a class for every pixel",
        UNet,
        functools.partial(Segmentation, ignore_index=VOID),
        _PIXELS,
        learner=SegmentationLearner,
        multiple=UNET_STRIDE,
    ),
    ObjectiveSpec(
        "deep_segmentation",
        "segmentation",
        "a class for every pixel, with deep supervision at strides 2 and 4",
        functools.partial(UNet, auxiliary_strides=(2, 4)),
        functools.partial(Segmentation, ignore_index=VOID, auxiliary_weights=(0.5, 0.25)),
        _PIXELS,
        learner=SegmentationLearner,
        multiple=UNET_STRIDE,
    ),
    ObjectiveSpec(
        "heatmap",
        "pose",
        "a map for each keypoint of one person; where images show several, they are cut out",
        HeatmapNetwork,
        Heatmap,
        {"loss": HEATMAPS, "coordinate": COORDINATES},
        settings=_heatmap_settings,
        learner=PoseLearner,
        multiple=POSE_STRIDE,
        view=one_person_each,
    ),
    ObjectiveSpec(
        "associative_embedding",
        "pose",
        "maps of the keypoints of all people, and tags that say whose they are",
        TagNetwork,
        functools.partial(
            AssociativeEmbedding, tag_loss=AssociativeEmbeddingLoss(variant="reference"), weights=TAG_WEIGHTS
        ),
        {"loss": HEATMAPS, "tag": TAGS},
        settings=_tag_settings,
        learner=PoseLearner,
        multiple=POSE_STRIDE,
    ),
    ObjectiveSpec(
        "part_affinity",
        "pose",
        "maps of the keypoints of all people, and fields along their limbs",
        FieldNetwork,
        PartAffinity,
        {"loss": HEATMAPS, "field": FIELDS},
        settings=_field_settings,
        learner=PoseLearner,
        multiple=POSE_STRIDE,
    ),
)

OBJECTIVES: Mapping[str, ObjectiveSpec] = {spec.name: spec for spec in _SPECS}
"""Every objective by its name."""


def find_objective(name: str) -> ObjectiveSpec:
    """Return the objective of a name.

    Raises:
        ArgumentError: an unknown name; the message lists the valid ones.
    """
    if name not in OBJECTIVES:
        raise ArgumentError(unknown("objective", name, OBJECTIVES))
    return OBJECTIVES[name]


def build_network(objective: str, facts: Facts, *, seed: int) -> nn.Module:
    """Return the network of an objective with weights drawn from a seed.

    Args:
        objective: its name.
        facts: what is known of the data.
        seed: of the weights; the global random numbers are left as they are.

    Returns:
        A module from (B, 3, H, W) images to the outputs of the objective, on the CPU.

    Raises:
        ArgumentError: an unknown objective.

    Example:
        >>> outputs = build_network("fcos", Facts(num_classes=3), seed=0)(torch.zeros(1, 3, 32, 64))
        >>> outputs.class_logits.shape, outputs.points.shape
        (torch.Size([1, 42, 3]), torch.Size([42, 2]))
    """
    build = find_objective(objective).network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(facts)
    return network.to(memory_format=torch.channels_last)
