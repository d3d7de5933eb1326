"""The annotated shapes of targets hold at run time, for one image and for batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped

from lossatlas import targets as t

PEOPLE = torch.rand(3, 17, 3) * 20
BATCH = PEOPLE.expand(2, 3, 17, 3)
MAPS = torch.rand(17, 6, 8)
PEAKS = t.find_peaks(MAPS)
SIZE = (6, 8)
TARGETS = [{"keypoints": PEOPLE}, {"keypoints": PEOPLE[:0]}]
FIELDS = torch.rand(38, 6, 8)
PLACES = PEAKS.cells.float()
SCORES = t.limb_scores(FIELDS[:2], PLACES[0], PLACES[1])
LIMBS = [t.match_limbs(SCORES)] + [[] for _ in range(18)]
TAGS = t.peak_tags(MAPS, PEAKS)

CALLS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (t.to_cells, (BATCH[..., :2], SIZE, 4.0)),
    (t.to_pixels, (PLACES, SIZE, 4.0, "ends")),
    (t.cell_centers, (SIZE, 4.0)),
    (t.KeypointHeatmaps.__call__, (t.KeypointHeatmaps(), PEOPLE, SIZE, 4.0)),
    (t.KeypointHeatmaps.__call__, (t.KeypointHeatmaps(scale_aware=True), BATCH, SIZE, 4.0, torch.rand(2, 3, 4))),
    (t.embedding_indices, (BATCH, SIZE, 4.0)),
    (t.PartAffinityFields.__call__, (t.PartAffinityFields(t.COCO), BATCH, SIZE, 4.0)),
    (t.coco_to_openpose, (BATCH,)),
    (t.Skeleton.limb_tensor, (t.COCO,)),
    (t.stack_people, (TARGETS,)),
    (t.people_mask, (TARGETS, SIZE, 4.0)),
    (t.find_peaks, (MAPS.expand(2, 17, 6, 8),)),
    (t.refine_peaks, (MAPS, PEAKS.cells)),
    (t.peak_tags, (MAPS, PEAKS)),
    (t.group_by_tags, (PEAKS, TAGS)),
    (t.fill_missing, (MAPS, MAPS, torch.rand(2, 1))),
    (t.limb_scores, (FIELDS[:2], PLACES[0], PLACES[1])),
    (t.match_limbs, (SCORES,)),
    (t.assemble_people, (LIMBS, PEAKS.scores, t.COCO)),
    (t.group_by_fields, (PEAKS, PLACES, FIELDS, t.COCO)),
]


@pytest.mark.parametrize(("function", "args"), CALLS, ids=[function.__qualname__ for function, _ in CALLS])
def test_annotated_shapes(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    assert jaxtyped(typechecker=beartype)(function)(*args) is not None
