"""Candidates of objects by kernels against the PyTorch code that defines them: the same to the last bit."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import kernels
from lossatlas.assign.nearest import nearest
from lossatlas.kernels import candidates
from tests.assign.cases import CASES, Case, crowded_scene, grid
from tests.assign.predictions import float_target
from tests.assign.scenes import assert_same, random_target
from tests.assign.test_properties import quality
from tests.kernels.case import needs_kernels
from tests.memory import PeakMemory

pytestmark = needs_kernels

ODD = torch.tensor([[torch.nan, 1, 2, 3], [torch.inf, 1, 2, 3], [1, -torch.inf, 2, 3], [1e30, -1e30, 1e30, 5]])

NUMBERS: dict[str, Callable[[torch.Generator], tuple[Tensor, Tensor]]] = {
    "scattered": lambda g: (100 * torch.rand(1000, 4, generator=g), 100 * torch.rand(37, 4, generator=g)),
    "in order": lambda g: (
        torch.cartesian_prod(torch.arange(30.0), torch.arange(50.0), torch.ones(1), torch.ones(1)),
        60 * torch.rand(37, 4, generator=g) - 5,
    ),
    "ties": lambda g: (
        torch.randint(4, (700, 4), generator=g).float(),
        torch.randint(4, (9, 4), generator=g).float(),
    ),
    "all equal": lambda g: (torch.ones(300, 4), torch.zeros(2, 4)),
    "odd": lambda g: (
        torch.cat((ODD, 100 * torch.rand(130, 4, generator=g), ODD)),
        torch.cat((ODD, 100 * torch.rand(5, 4, generator=g))),
    ),
    "odd alone": lambda g: (ODD.repeat(40, 1), torch.cat((ODD, torch.ones(1, 4)))),
    "one": lambda g: (torch.rand(1, 4, generator=g), torch.rand(1, 4, generator=g)),
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS.keys())
@pytest.mark.parametrize("metric", ["squared", "absolute"])
def test_the_nearest_are_those_of_the_twin(numbers: Any, metric: Any, instruction_set: str) -> None:
    predictions, objects = numbers(torch.Generator().manual_seed(0))
    if metric == "squared":
        predictions, objects = predictions[:, :2], objects[:, :2]
    assert candidates.usable(predictions, objects)
    for most in (1, 9, 81, 2000):
        place, distance = nearest(predictions, objects, most, metric, None)
        with kernels.disabled():
            expected_place, expected_distance = nearest(predictions, objects, most, metric, None)
        assert torch.equal(place, expected_place)
        assert torch.equal(distance, expected_distance)


FUSED = {name: CASES[name] for name in ("ATSS", "Uniform")}

every_assigner = pytest.mark.parametrize("case", FUSED.values(), ids=FUSED.keys())


def same_as_twin(case: Case, predictions: Any, target: dict[str, Tensor]) -> int:
    """Return the number of positives."""
    found = case.run(predictions, target, None)
    with kernels.disabled():
        expected = case.run(predictions, target, None)
    assert_same(found, expected)
    assert torch.equal(quality(found), quality(expected))
    return int(found.positive.sum())


@every_assigner
def test_assigners_equal_their_twins(case: Case, instruction_set: str) -> None:
    positives = 0
    for seed in range(4):
        source = random.Random(seed)
        target = random_target(source, 9, 30, 12, 0.2) if seed % 2 else float_target(source, 40, 200, 0.2)
        target["boxes"] *= 4 if seed % 2 else 1
        positives += same_as_twin(case, grid((240, 208), [8, 16, 32], seed), target)
    assert positives > 0


@every_assigner
def test_broken_predictions_and_objects(case: Case) -> None:
    predictions = grid((104, 136), [8, 16], 0)
    target = float_target(random.Random(0), 12, 100)
    boxes, logits, priors = predictions.boxes.clone(), predictions.class_logits.clone(), predictions.priors.clone()
    for row, value in enumerate((torch.nan, torch.inf, -torch.inf, 1e30, -1e30)):
        boxes[7 * row, row % 4] = value
        priors[7 * row + 1, row % 4] = value
        logits[7 * row + 2] = value
        target["boxes"][2 * row, (row + 1) % 4] = value
    broken = predictions._replace(boxes=boxes, class_logits=logits, priors=priors)
    assert same_as_twin(case, broken, target) > 0


@every_assigner
def test_the_number_of_threads_changes_nothing(case: Case, threads: Callable[[int], None]) -> None:
    predictions, target = crowded_scene(4000, 60)
    threads(1)
    expected = case.run(predictions, target, None)
    for number in (2, 5):
        threads(number)
        assert_same(case.run(predictions, target, None), expected)


@every_assigner
def test_memory_is_a_few_megabytes(case: Case) -> None:
    predictions, target = crowded_scene(120_000, 1000)
    with PeakMemory() as memory:
        assert case.run(predictions, target, None).positive.any()
    assert memory.peak < 12_000_000
