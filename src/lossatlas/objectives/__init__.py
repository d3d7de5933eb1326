"""Training objectives: raw network outputs and ground truth to named loss terms, without a network inside."""

from lossatlas.objectives.associative_embedding import AssociativeEmbedding, AssociativeEmbeddingOutputs
from lossatlas.objectives.atss import ATSS, ATSSOutputs
from lossatlas.objectives.centernet import CenterNet, CenterNetOutputs
from lossatlas.objectives.detr import DETR, DETROutputs
from lossatlas.objectives.faster_rcnn import FasterRCNN, FasterRCNNOutputs
from lossatlas.objectives.fcos import FCOS, FCOSOutputs
from lossatlas.objectives.gfl import GFL, GFLOutputs
from lossatlas.objectives.heatmap import Heatmap, HeatmapOutputs
from lossatlas.objectives.part_affinity import PartAffinity, PartAffinityOutputs
from lossatlas.objectives.retinanet import RetinaNet, RetinaNetOutputs
from lossatlas.objectives.roi_head import Regions, RoIHead, RoIOutputs
from lossatlas.objectives.rpn import RPN, RPNOutputs
from lossatlas.objectives.segmentation import Segmentation, SegmentationOutputs
from lossatlas.objectives.ssd import SSD, SSDOutputs
from lossatlas.objectives.terms import LossTerms, PositiveNormalizer
from lossatlas.objectives.varifocalnet import VarifocalNet, VarifocalNetOutputs
from lossatlas.objectives.yolo_v1 import YOLOv1, YOLOv1Outputs
from lossatlas.objectives.yolo_v2 import YOLOv2, YOLOv2Outputs
from lossatlas.objectives.yolo_v3 import YOLOv3, YOLOv3Outputs
from lossatlas.objectives.yolo_v4 import YOLOv4, YOLOv4Outputs
from lossatlas.objectives.yolo_v5 import YOLOv5, YOLOv5Outputs
from lossatlas.objectives.yolo_v8 import YOLOv8, YOLOv8Outputs
from lossatlas.objectives.yolox import YOLOX, YOLOXOutputs

__all__ = [
    "ATSS",
    "DETR",
    "FCOS",
    "GFL",
    "RPN",
    "SSD",
    "YOLOX",
    "ATSSOutputs",
    "AssociativeEmbedding",
    "AssociativeEmbeddingOutputs",
    "CenterNet",
    "CenterNetOutputs",
    "DETROutputs",
    "FCOSOutputs",
    "FasterRCNN",
    "FasterRCNNOutputs",
    "GFLOutputs",
    "Heatmap",
    "HeatmapOutputs",
    "LossTerms",
    "PartAffinity",
    "PartAffinityOutputs",
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
    "VarifocalNet",
    "VarifocalNetOutputs",
    "YOLOXOutputs",
    "YOLOv1",
    "YOLOv1Outputs",
    "YOLOv2",
    "YOLOv2Outputs",
    "YOLOv3",
    "YOLOv3Outputs",
    "YOLOv4",
    "YOLOv4Outputs",
    "YOLOv5",
    "YOLOv5Outputs",
    "YOLOv8",
    "YOLOv8Outputs",
]
