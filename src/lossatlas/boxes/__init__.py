"""Box formats, geometry, coders, priors and suppression."""

from lossatlas.boxes.clustering import kmeans_anchors
from lossatlas.boxes.coders import DeltaCoder, DistributionCoder, PointDistanceCoder
from lossatlas.boxes.formats import convert, denormalize, ltrb_to_xyxy, normalize, xyxy_to_ltrb
from lossatlas.boxes.geometry import (
    Overlap,
    area,
    overlap,
    pairwise_coverage,
    pairwise_intersection,
    pairwise_iou,
    shape_iou,
)
from lossatlas.boxes.nms import Kept, batched_nms, diou_nms, soft_nms
from lossatlas.boxes.priors import anchor_grid, faster_rcnn_anchors, point_grid, ssd_anchors, yolo_anchors
from lossatlas.boxes.voting import decoded_variance, variance_voting, vote_boxes
from lossatlas.boxes.yolo_coders import YOLOCoder, YOLOv1Coder, YOLOv5Coder, YOLOXCoder

__all__ = [
    "DeltaCoder",
    "DistributionCoder",
    "Kept",
    "Overlap",
    "PointDistanceCoder",
    "YOLOCoder",
    "YOLOXCoder",
    "YOLOv1Coder",
    "YOLOv5Coder",
    "anchor_grid",
    "area",
    "batched_nms",
    "convert",
    "decoded_variance",
    "denormalize",
    "diou_nms",
    "faster_rcnn_anchors",
    "kmeans_anchors",
    "ltrb_to_xyxy",
    "normalize",
    "overlap",
    "pairwise_coverage",
    "pairwise_intersection",
    "pairwise_iou",
    "point_grid",
    "shape_iou",
    "soft_nms",
    "ssd_anchors",
    "variance_voting",
    "vote_boxes",
    "xyxy_to_ltrb",
    "yolo_anchors",
]
