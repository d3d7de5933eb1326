"""Target assignment: which prediction answers for which object."""

from lossatlas.assign.assignment import Assignment, canonical_order
from lossatlas.assign.atss import ATSS
from lossatlas.assign.bipartite import Bipartite
from lossatlas.assign.dynamic_soft_label import DynamicSoftLabel
from lossatlas.assign.fcos_points import FCOSPoints
from lossatlas.assign.hungarian import ClassCost, FocalCost, GIoUCost, Hungarian, L1Cost, MatchCost, Pairing
from lossatlas.assign.max_iou import MaxIoU
from lossatlas.assign.sim_ota import SimOTA
from lossatlas.assign.soft_assignment import SoftAssignment
from lossatlas.assign.task_aligned import TaskAligned
from lossatlas.assign.uniform import Uniform

__all__ = [
    "ATSS",
    "Assignment",
    "Bipartite",
    "ClassCost",
    "DynamicSoftLabel",
    "FCOSPoints",
    "FocalCost",
    "GIoUCost",
    "Hungarian",
    "L1Cost",
    "MatchCost",
    "MaxIoU",
    "Pairing",
    "SimOTA",
    "SoftAssignment",
    "TaskAligned",
    "Uniform",
    "canonical_order",
]
