"""Box formats, geometry, coders, priors and suppression."""

from lossatlas.boxes.coders import DeltaCoder, PointDistanceCoder
from lossatlas.boxes.formats import convert, denormalize, ltrb_to_xyxy, normalize, xyxy_to_ltrb
from lossatlas.boxes.geometry import Overlap, area, overlap, pairwise_coverage, pairwise_intersection, pairwise_iou
from lossatlas.boxes.nms import batched_nms
from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.boxes.voting import variance_voting

__all__ = [
    "DeltaCoder",
    "Overlap",
    "PointDistanceCoder",
    "anchor_grid",
    "area",
    "batched_nms",
    "convert",
    "denormalize",
    "ltrb_to_xyxy",
    "normalize",
    "overlap",
    "pairwise_coverage",
    "pairwise_intersection",
    "pairwise_iou",
    "point_grid",
    "variance_voting",
    "xyxy_to_ltrb",
]
