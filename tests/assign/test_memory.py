"""The memory of matching grows with predictions + objects, not with their product."""

import pytest

from lossatlas.boxes.geometry import pairwise_iou
from tests.assign.cases import CASES, Case, crowded_scene
from tests.memory import PeakMemory

PREDICTIONS, OBJECTS = 6000, 500


def test_the_measure_sees_a_dense_matrix() -> None:
    predictions, target = crowded_scene(1000, 500)
    priors = predictions.priors.clone()
    with PeakMemory() as memory:
        pairwise_iou(priors, target["boxes"])
    pairs = len(priors) * 500
    assert pairs * 4 < memory.peak < pairs * 4 * 20
    assert memory.now == (len(priors) + 500) * 16  # the inputs, whose views it has met


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if not case.pairwise], ids=[n for n, c in CASES.items() if not c.pairwise]
)
def test_memory_grows_with_the_sum(case: Case) -> None:
    predictions, target = crowded_scene(PREDICTIONS, OBJECTS)
    with PeakMemory() as memory:
        assignment = case.run(predictions, target, None)
    assert assignment.positive.any()
    # One float32 for each pair would be 12 MB; a block of pairs and what is computed of them is up to 5 MB.
    assert memory.peak < 150 * (len(predictions.points) + OBJECTS) + 5_000_000
