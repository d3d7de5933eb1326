"""Training targets on maps, and what is decoded from maps: heatmaps, tags and part affinity fields of people."""

from lossatlas.targets.gaussians import draw_gaussians
from lossatlas.targets.grid import cell_centers, to_cells, to_pixels
from lossatlas.targets.heatmaps import HeatmapTargets, KeypointHeatmaps
from lossatlas.targets.peaks import Peaks, find_peaks, refine_peaks
from lossatlas.targets.people import People, people_mask, stack_people

__all__ = [
    "HeatmapTargets",
    "KeypointHeatmaps",
    "Peaks",
    "People",
    "cell_centers",
    "draw_gaussians",
    "find_peaks",
    "people_mask",
    "refine_peaks",
    "stack_people",
    "to_cells",
    "to_pixels",
]
