"""Training objectives: raw network outputs and ground truth to named loss terms, without a network inside."""

from lossatlas.objectives.centernet import CenterNet, CenterNetOutputs
from lossatlas.objectives.detr import DETR, DETROutputs
from lossatlas.objectives.fcos import FCOS, FCOSOutputs
from lossatlas.objectives.heatmap import Heatmap, HeatmapOutputs
from lossatlas.objectives.retinanet import RetinaNet, RetinaNetOutputs
from lossatlas.objectives.segmentation import Segmentation, SegmentationOutputs
from lossatlas.objectives.ssd import SSD, SSDOutputs
from lossatlas.objectives.terms import LossTerms, PositiveNormalizer

__all__ = [
    "DETR",
    "FCOS",
    "SSD",
    "CenterNet",
    "CenterNetOutputs",
    "DETROutputs",
    "FCOSOutputs",
    "Heatmap",
    "HeatmapOutputs",
    "LossTerms",
    "PositiveNormalizer",
    "RetinaNet",
    "RetinaNetOutputs",
    "SSDOutputs",
    "Segmentation",
    "SegmentationOutputs",
]
