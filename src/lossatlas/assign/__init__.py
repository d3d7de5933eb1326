"""Target assignment: which prediction answers for which object."""

from lossatlas.assign.assignment import Assignment, canonical_order
from lossatlas.assign.atss import ATSS
from lossatlas.assign.bipartite import Bipartite
from lossatlas.assign.center_heatmap import CenterHeatmap, CenterTargets, gaussian_radius
from lossatlas.assign.dynamic_soft_label import DynamicSoftLabel
from lossatlas.assign.fcos_points import FCOSPoints
from lossatlas.assign.hungarian import ClassCost, FocalCost, GIoUCost, Hungarian, L1Cost, MatchCost, Pairing
from lossatlas.assign.max_iou import MaxIoU
from lossatlas.assign.sampling import HardNegativeSampler, IoUBalancedSampler, OHEMSampler, RandomSampler
from lossatlas.assign.sim_ota import SimOTA
from lossatlas.assign.soft_assignment import SoftAssignment
from lossatlas.assign.task_aligned import TaskAligned
from lossatlas.assign.uniform import Uniform
from lossatlas.assign.yolo_anchors import YOLOv3BestAnchor, YOLOv4
from lossatlas.assign.yolo_ratio import YOLOv5Ratio
from lossatlas.assign.yolo_v1 import YOLOv1Cell

__all__ = [
    "ATSS",
    "Assignment",
    "Bipartite",
    "CenterHeatmap",
    "CenterTargets",
    "ClassCost",
    "DynamicSoftLabel",
    "FCOSPoints",
    "FocalCost",
    "GIoUCost",
    "HardNegativeSampler",
    "Hungarian",
    "IoUBalancedSampler",
    "L1Cost",
    "MatchCost",
    "MaxIoU",
    "OHEMSampler",
    "Pairing",
    "RandomSampler",
    "SimOTA",
    "SoftAssignment",
    "TaskAligned",
    "Uniform",
    "YOLOv1Cell",
    "YOLOv3BestAnchor",
    "YOLOv4",
    "YOLOv5Ratio",
    "canonical_order",
    "gaussian_radius",
]
