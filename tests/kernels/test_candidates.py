"""Candidates of objects by kernels against the PyTorch code that defines them: the same to the last bit."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import kernels
from lossatlas.assign.candidates import Pairs, Reach, best_pairs, pairs, reached
from lossatlas.assign.nearest import nearest
from lossatlas.kernels.native import usable_float32
from tests.assign.cases import CASES, Case, crowded_scene, grid
from tests.assign.predictions import float_target
from tests.assign.scenes import assert_same, float_boxes, random_target
from tests.assign.test_properties import quality
from tests.kernels.case import needs_kernels
from tests.memory import PeakMemory

pytestmark = needs_kernels

ASSIGNERS = ("ATSS", "SimOTA", "TaskAligned", "DynamicSoftLabel", "Uniform", "Bipartite")

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
    assert usable_float32(predictions, objects)
    for most in (1, 9, 81, 2000):
        place, distance = nearest(predictions, objects, most, metric, None)
        with kernels.disabled():
            expected_place, expected_distance = nearest(predictions, objects, most, metric, None)
        assert torch.equal(place, expected_place)
        assert torch.equal(distance, expected_distance)


POINTS: dict[str, Callable[[torch.Generator], Tensor]] = {
    "scattered": lambda g: 100 * torch.rand(500, 2, generator=g),
    "in order": lambda g: torch.cartesian_prod(torch.arange(40.0), torch.arange(70.0)) * 2,
    "odd": lambda g: torch.cat((ODD[:, :2], 100 * torch.rand(90, 2, generator=g), ODD[:, :2], ODD[:, 2:])),
    "one": lambda g: torch.full((1, 2), 50.0),
}


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS.keys())
@pytest.mark.parametrize("rule", ["inside", "near", "either", "boxes"])
def test_what_objects_reach_is_that_of_the_twin(points: Any, rule: Any, instruction_set: str) -> None:
    generator = torch.Generator().manual_seed(0)
    places = points(generator)
    objects = torch.cat((float_boxes(30, seed=1), float_boxes(3, seed=2).flip(1), ODD.sort(1).values))
    objects[:9] = objects[:9].round()  # edges on points
    radius = torch.randint(10, (len(places),), generator=generator).float()
    for margin in (0.0, 3.0):
        if rule == "boxes":
            sides = 20 * torch.rand(len(places), 2, generator=generator) - 2
            reach = Reach(objects, torch.cat((places, places + sides), dim=1), "inside", margin)
        else:
            reach = Reach(objects, places, rule, margin, None if rule == "inside" else radius)
        assert reach.fused
        found, any_ = list(pairs(reach)), reached(reach)
        with kernels.disabled():
            expected = list(pairs(reach))
            assert torch.equal(any_, reached(reach))
        for field in ("objects", "predictions"):
            fused, twin = ([i for some in both for i in getattr(some, field).tolist()] for both in (found, expected))
            assert fused == twin
        assert sum(int(some.counts.sum()) for some in found) == len(fused)
        assert any_.any() or len(places) == 1


def test_pairs_come_few_at_a_time() -> None:
    reach = Reach(torch.tensor([[0.0, 0, 9, 9]]).repeat(50, 1), torch.ones(5000, 2), "inside")
    found = list(pairs(reach))
    assert [len(some.objects) for some in found] == [30_000] * 8 + [10_000]
    assert [int(some.objects[0]) for some in found] == list(range(0, 50, 6))


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_best_pairs_are_those_of_the_twin(dynamic: bool, instruction_set: str) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([0, 1, 40, 0, 7, 300, 90, 0])
    count = int(counts.sum())
    objects = torch.arange(len(counts)).repeat_interleave(counts)
    some = Pairs(objects, torch.arange(count), counts, fused=True)
    iou = (1.3 * torch.rand(count, generator=generator) - 0.3).clamp(min=0)
    iou[::17] = torch.nan
    scores = (
        torch.randn(count, generator=generator),
        torch.randint(-2, 3, (count,), generator=generator) * 0.5 * torch.tensor([1.0, -1.0]).repeat(count // 2),
        torch.full((count,), -torch.inf),
        torch.where(torch.rand(count, generator=generator) < 0.3, torch.nan, torch.finfo(torch.float32).min),
        torch.where(torch.rand(count, generator=generator) < 0.3, torch.inf, 1e-40),
    )
    for score in scores:
        for most in (1, 10, 13, 1000):
            arguments = (score, most, iou if dynamic else None)
            assert torch.equal(best_pairs(some, *arguments), best_pairs(some._replace(fused=False), *arguments))
    assert not len(best_pairs(some._replace(counts=counts[:1]), torch.empty(0), 3))


FUSED = {name: case for name, case in CASES.items() if name.startswith(ASSIGNERS)}

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


@pytest.mark.parametrize("name", [name for name in FUSED if "any pool" not in name])  # which is long
def test_memory_is_a_few_megabytes(name: str) -> None:
    case, (predictions, target) = FUSED[name], crowded_scene(120_000, 1000)
    with PeakMemory() as memory:
        assert case.run(predictions, target, None).positive.any()
    assert memory.peak < 16_000_000  # 480 MB for one number of each pair


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_operators_are_registered_in_full() -> None:
    operators = torch.ops.lossatlas
    points, objects = 100 * torch.rand(40, 2), float_boxes(3, seed=0)
    places = torch.cat((points, torch.full((40, 1), 20.0)), dim=1)
    counts, _ = operators.reachable(objects, places, "either", 1.0)
    total = int(counts.sum())
    pairs_of = torch.rand(total), torch.cat((counts.new_zeros(1), counts.cumsum(0)))
    torch.library.opcheck(operators.nearest.default, (points, objects[:, :2].contiguous(), 5, True))
    torch.library.opcheck(operators.reachable.default, (objects, places, "either", 1.0))
    torch.library.opcheck(operators.list_reachable.default, (objects, places, counts, total, "either", 1.0))
    torch.library.opcheck(operators.choose.default, (*pairs_of, torch.rand(total), 4))
