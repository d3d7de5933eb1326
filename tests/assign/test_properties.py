"""What is true of every assigner."""

import random

import pytest
import torch

from lossatlas.assign import Assignment, SoftAssignment
from tests.assign.cases import CASES, Case, Grid, Target, grid
from tests.assign.predictions import float_target
from tests.assign.scenes import assert_same, assert_same_objects, empty_target, random_target, shuffled

every_assigner = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())

SIZE, STRIDES = (48, 64), [8, 16]


def scenes(count: int = 12) -> list[tuple[Grid, Target, random.Random]]:
    """Grids with targets of two kinds: on every fourth pixel, so that much ties, some in one place; and anywhere."""
    found = []
    for seed in range(count):
        source = random.Random(seed)
        objects = source.choice([1, 4, 9])
        if seed % 2:
            target = random_target(source, objects, 12, 8, 0.2)
            target["boxes"] *= 4
        else:
            target = float_target(source, objects, 50, 0.2)
        found.append((grid(SIZE, STRIDES, seed), target, source))
    return found


def quality(assignment: Assignment) -> torch.Tensor:
    return assignment.quality if isinstance(assignment, SoftAssignment) else torch.zeros(len(assignment))


@every_assigner
def test_an_assignment_is_well_formed(case: Case) -> None:
    positives = 0
    for predictions, target, _ in scenes():
        assignment = case.run(predictions, target, None)
        assert len(assignment) == (predictions.level_sizes[0] if case.one_level else len(predictions.points))
        assert set(assignment.state.tolist()) <= {-1, 0, 1}
        assert torch.equal(assignment.matched >= 0, assignment.positive)
        assert (assignment.matched[~assignment.positive] == -1).all()
        assert not target["iscrowd"][assignment.matched[assignment.positive]].any()
        assert ((quality(assignment) >= 0) & (quality(assignment) <= 1)).all()
        assert (quality(assignment)[~assignment.positive] == 0).all()
        positives += int(assignment.positive.sum())
    assert positives > 0


@every_assigner
def test_the_order_of_objects_does_not_matter(case: Case) -> None:
    for predictions, target, source in scenes():
        first = case.run(predictions, target, None)
        other = shuffled(target, source)
        second = case.run(predictions, other, None)
        assert_same_objects(first, target, second, other)
        assert torch.equal(quality(first), quality(second))


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.in_blocks], ids=[n for n, case in CASES.items() if case.in_blocks]
)
def test_blocks_give_the_dense_answer_bit_for_bit(case: Case) -> None:
    large = (grid((104, 136), STRIDES, 0), float_target(random.Random(0), 37, 130, 0.2))
    for predictions, target in (large, *(scene[:2] for scene in scenes(2))):
        dense = case.run(predictions, target, 100_000)
        for block_size in (1, 2, 17, 36, None):
            blocked = case.run(predictions, target, block_size)
            assert_same(dense, blocked)
            assert torch.equal(quality(dense), quality(blocked))


@every_assigner
def test_without_objects_all_is_background(case: Case) -> None:
    predictions = grid(SIZE, STRIDES, 0)
    assert case.run(predictions, empty_target(), None).negative.all()
    half = grid(SIZE, STRIDES, 0, torch.bfloat16)
    assert case.run(half, empty_target(), 3).negative.all()


@every_assigner
def test_without_predictions_nothing_is_assigned(case: Case) -> None:
    if case.one_level:
        pytest.skip("a grid has at least one cell")
    _, target, _ = scenes(2)[1]
    nothing = grid((0, 0), STRIDES, 0)
    assert len(case.run(nothing, target, None)) == 0
    assert len(case.run(nothing, empty_target(), None)) == 0


@every_assigner
def test_an_object_that_overlaps_nothing_gets_nothing(case: Case) -> None:
    predictions = grid(SIZE, STRIDES, 0)
    far = {"boxes": torch.tensor([[500.0, 500, 520, 530]]), "labels": torch.tensor([1])}
    assignment = case.run(predictions, far, None)
    assert int(assignment.positive.sum()) == case.forced
    near = {"boxes": torch.tensor([[10.0, 10, 30, 30], [500.0, 500, 520, 530]]), "labels": torch.tensor([1, 1])}
    assignment = case.run(predictions, near, None)
    assert (assignment.matched == 0).any()
    assert (assignment.matched == 1).any() == (case.forced or case.borrows)


@every_assigner
def test_nothing_answers_for_a_crowd_region_and_nothing_inside_is_background(case: Case) -> None:
    predictions = grid(SIZE, STRIDES, 0)
    whole = {
        "boxes": torch.tensor([[-99.0, -99, 199, 199], [10.0, 10, 30, 30]]),
        "labels": torch.tensor([0, 1]),
        "iscrowd": torch.tensor([1, 0]),
    }
    assignment = case.run(predictions, whole, None)
    assert not assignment.negative.any()
    assert set(assignment.matched.tolist()) == {-1, 1}
    alone = {key: value[:1] for key, value in whole.items()}
    assert case.run(predictions, alone, None).ignored.all()


@every_assigner
def test_half_precision_predictions_are_assigned_as_their_float_values(case: Case) -> None:
    for predictions, target, _ in scenes(3):
        half = predictions._replace(
            class_logits=predictions.class_logits.bfloat16(),
            objectness_logits=predictions.objectness_logits.bfloat16(),
            boxes=predictions.boxes.bfloat16(),
        )
        exact = half._replace(
            class_logits=half.class_logits.float(),
            objectness_logits=half.objectness_logits.float(),
            boxes=half.boxes.float(),
        )
        assert_same(case.run(half, target, None), case.run(exact, target, None))


@every_assigner
def test_the_choice_is_outside_the_graph(case: Case) -> None:
    predictions, target, _ = scenes(1)[0]
    attached = predictions._replace(
        class_logits=predictions.class_logits.requires_grad_(), boxes=predictions.boxes.requires_grad_()
    )
    assert not quality(case.run(attached, target, None)).requires_grad


@every_assigner
def test_objects_without_an_area_are_no_error(case: Case) -> None:
    predictions = grid(SIZE, STRIDES, 3)
    flat = {
        "boxes": torch.tensor([[20.0, 20, 20, 20], [20.0, 20, 20, 30], [9.0, 9, 31, 31]]),
        "labels": torch.tensor([0, 1, 2]),
    }
    assignment = case.run(predictions, flat, None)
    assert (assignment.matched == 2).any()
    assert quality(assignment).isfinite().all()
