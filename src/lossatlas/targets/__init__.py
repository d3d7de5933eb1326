"""Training targets on maps, and what is decoded from maps: heatmaps, tags and part affinity fields of people."""

from lossatlas.targets.assembly import Grouping, assemble_people, group_by_fields
from lossatlas.targets.distance import (
    border_weight_map,
    distance_across_map,
    inverse_distance_map,
    signed_distance_map,
)
from lossatlas.targets.embedding import embedding_indices
from lossatlas.targets.fields import PartAffinityFields
from lossatlas.targets.gaussians import draw_gaussians
from lossatlas.targets.grid import cell_centers, to_cells, to_pixels
from lossatlas.targets.grouping import fill_missing, group_by_tags, peak_tags
from lossatlas.targets.heatmaps import HeatmapTargets, KeypointHeatmaps
from lossatlas.targets.limbs import LIMB_RULES, Limb, LimbRule, LimbScores, limb_scores, match_limbs
from lossatlas.targets.peaks import Peaks, find_peaks, refine_peaks
from lossatlas.targets.people import People, people_mask, stack_people
from lossatlas.targets.skeletons import (
    BODY_25,
    COCO,
    MPII,
    OPENPOSE_18,
    OPENPOSE_18_CHANNELS,
    SKELETONS,
    Skeleton,
    coco_to_openpose,
)

__all__ = [
    "BODY_25",
    "COCO",
    "LIMB_RULES",
    "MPII",
    "OPENPOSE_18",
    "OPENPOSE_18_CHANNELS",
    "SKELETONS",
    "Grouping",
    "HeatmapTargets",
    "KeypointHeatmaps",
    "Limb",
    "LimbRule",
    "LimbScores",
    "PartAffinityFields",
    "Peaks",
    "People",
    "Skeleton",
    "assemble_people",
    "border_weight_map",
    "cell_centers",
    "coco_to_openpose",
    "distance_across_map",
    "draw_gaussians",
    "embedding_indices",
    "fill_missing",
    "find_peaks",
    "group_by_fields",
    "group_by_tags",
    "inverse_distance_map",
    "limb_scores",
    "match_limbs",
    "peak_tags",
    "people_mask",
    "refine_peaks",
    "signed_distance_map",
    "stack_people",
    "to_cells",
    "to_pixels",
]
