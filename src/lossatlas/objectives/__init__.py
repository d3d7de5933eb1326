"""Training objectives: raw network outputs and ground truth to named loss terms, without a network inside."""

from lossatlas.objectives.centernet import CenterNet, CenterNetOutputs
from lossatlas.objectives.detr import DETR, DETROutputs
from lossatlas.objectives.faster_rcnn import FasterRCNN, FasterRCNNOutputs
from lossatlas.objectives.fcos import FCOS, FCOSOutputs
from lossatlas.objectives.heatmap import Heatmap, HeatmapOutputs
from lossatlas.objectives.retinanet import RetinaNet, RetinaNetOutputs
from lossatlas.objectives.roi_head import Regions, RoIHead, RoIOutputs
from lossatlas.objectives.rpn import RPN, RPNOutputs
from lossatlas.objectives.segmentation import Segmentation, SegmentationOutputs
from lossatlas.objectives.ssd import SSD, SSDOutputs
from lossatlas.objectives.terms import LossTerms, PositiveNormalizer

__all__ = [
    "DETR",
    "FCOS",
    "RPN",
    "SSD",
    "CenterNet",
    "CenterNetOutputs",
    "DETROutputs",
    "FCOSOutputs",
    "FasterRCNN",
    "FasterRCNNOutputs",
    "Heatmap",
    "HeatmapOutputs",
    "LossTerms",
    "PositiveNormalizer",
    "RPNOutputs",
    "Regions",
    "RetinaNet",
    "RetinaNetOutputs",
    "RoIHead",
    "RoIOutputs",
    "SSDOutputs",
    "Segmentation",
    "SegmentationOutputs",
]
