"""RTMDet's assignment against its rule written as loops, and worked by hand."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import DynamicSoftLabel
from tests.assign.predictions import (
    CLASSES,
    Predictions,
    arguments,
    center,
    cheapest,
    float_iou,
    float_target,
    inside,
    random_predictions,
    sigmoid,
    states,
)
from tests.assign.scenes import assert_same, assert_same_objects, empty_target, random_target, shuffled, visiting_order

SIZES, STRIDES = [(8, 8), (4, 4), (2, 2)], [8.0, 16.0, 32.0]


def class_cost(logits: list[float], label: int, overlap: float) -> float:
    cost = 0.0
    for index, logit in enumerate(logits):
        p, y = sigmoid(logit), overlap if index == label else 0.0
        cost += -(y * math.log(p) + (1 - y) * math.log(1 - p)) * abs(y - p) ** 2
    return cost


def by_the_rule(assigner: DynamicSoftLabel, predictions: Predictions, target: dict[str, Tensor]) -> list[int]:
    points, strides = predictions.points.tolist(), predictions.strides.tolist()
    logits, boxes = predictions.class_logits.tolist(), predictions.boxes.tolist()
    objects, labels = target["boxes"].tolist(), target["labels"].tolist()
    order = visiting_order(target)
    costs: dict[int, dict[int, float]] = {}
    ious: dict[int, dict[int, float]] = {}
    for row in order:
        costs[row], ious[row] = {}, {}
        for index, point in enumerate(points):
            rivals = order if assigner.pool == "any" else [row]
            if any(inside(point, objects[rival]) for rival in rivals):
                overlap = float_iou(boxes[index], objects[row])
                away = math.dist(point, center(objects[row])) / strides[index]
                ious[row][index] = overlap
                costs[row][index] = (
                    assigner.class_weight * class_cost(logits[index], labels[row], overlap)
                    - assigner.iou_weight * math.log(overlap + 1e-7)
                    + 10 ** (away - assigner.center_radius)
                )
    return cheapest(costs, ious, len(points), assigner.topk)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"pool": "any"},
    {"center_radius": 1, "topk": 5, "class_weight": 2, "iou_weight": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rule(options: dict[str, Any]) -> None:
    seen, several = set(), 0
    for seed in range(20):
        source = random.Random(seed)
        predictions = random_predictions(seed, SIZES, STRIDES)
        target = float_target(source, source.choice([0, 1, 4, 9]), 64, crowd=0.2)
        assigner = DynamicSoftLabel(**options, block_size=source.choice([None, 1, 4]))
        assignment = assigner(*arguments(predictions), target)
        matched = by_the_rule(assigner, predictions, target)
        objects = target["boxes"].tolist()
        quality = [
            float_iou(box, objects[row]) if row >= 0 else 0.0
            for box, row in zip(predictions.boxes.tolist(), matched, strict=True)
        ]
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == states(predictions, matched, target)
        torch.testing.assert_close(assignment.quality, torch.tensor(quality))
        seen |= set(assignment.state.tolist())
        several += any(matched.count(row) > 1 for row in matched if row >= 0)
    assert seen == {-1, 0, 1}
    assert several > 0


def test_the_centre_is_preferred_softly() -> None:
    points, strides = torch.tensor([[36.0, 8.0], [44.0, 8.0], [76.0, 8.0]]), torch.full((3,), 8.0)
    target = {"boxes": torch.tensor([[0.0, 0, 80, 16]]), "labels": torch.tensor([0])}
    boxes = target["boxes"] * torch.tensor([0.5, 0.6, 0.62])[:, None]  # IoU 0.25, 0.36, 0.38
    logits = torch.zeros(3, 1)
    # The last point fits best, but lies 4.5 strides from the centre, which costs 10^1.5; the others half a stride.
    assert DynamicSoftLabel(topk=1)(points, strides, logits, boxes, target).state.tolist() == [0, 1, 0]
    lenient = DynamicSoftLabel(center_radius=6, topk=1)
    assert lenient(points, strides, logits, boxes, target).state.tolist() == [0, 0, 1]


def test_an_object_without_a_point_inside_gets_nothing_unless_asked() -> None:
    predictions = random_predictions(0, SIZES, STRIDES)
    target = {"boxes": torch.tensor([[5.0, 5, 7, 7], [20.0, 20, 60, 60]]), "labels": torch.tensor([0, 1])}
    assert 0 not in DynamicSoftLabel()(*arguments(predictions), target).matched.tolist()
    assert 0 in DynamicSoftLabel(pool="any")(*arguments(predictions), target).matched.tolist()


def test_extreme_and_invalid_predictions() -> None:
    predictions = random_predictions(0, [(4, 4)], [8.0])
    target = {"boxes": torch.tensor([[4.0, 4, 24, 24]]), "labels": torch.tensor([1])}
    sure = torch.where(predictions.class_logits > 0, 1e4, -1e4)
    assigner = DynamicSoftLabel()
    assert assigner(predictions.points, predictions.strides, sure, predictions.boxes, target).positive.any()
    tiny_strides = torch.full((16,), 1e-3)  # thousands of strides from the centre
    assert assigner(predictions.points, tiny_strides, sure, predictions.boxes, target).positive.any()
    logits, boxes = predictions.class_logits.clone(), predictions.boxes.clone()
    logits[5], boxes[6] = math.nan, math.nan
    assignment = assigner(predictions.points, predictions.strides, logits, boxes, target)
    assert assignment.positive.any()
    assert not assignment.positive[5:7].any()


def test_blocks_of_any_size_give_the_same_answer() -> None:
    predictions = random_predictions(3, [(13, 11), (7, 6)], [8.0, 16.0])
    target = float_target(random.Random(3), 37, 90, crowd=0.1)
    for options in OPTIONS:
        answers = [
            DynamicSoftLabel(**options, block_size=size)(*arguments(predictions), target)
            for size in (None, 1, 2, 17, 36, 500)
        ]
        assert answers[0].positive.any()
        for answer in answers[1:]:
            assert_same(answers[0], answer)
            assert torch.equal(answers[0].quality, answer.quality)


def test_the_order_of_objects_does_not_matter() -> None:
    predictions = random_predictions(0, [(4, 4), (2, 2)], [4.0, 8.0])
    for seed in range(20):
        source = random.Random(seed)
        target = random_target(source, 6, 14, 10, crowd=0.2)
        other = shuffled(target, source)
        first = DynamicSoftLabel()(*arguments(predictions), target)
        assert_same_objects(first, target, DynamicSoftLabel()(*arguments(predictions), other), other)


@pytest.mark.parametrize(("count", "objects"), [(0, 0), (0, 2), (3, 0)])
@pytest.mark.parametrize("pool", ["own", "any"])
def test_nothing_to_assign(pool: Any, count: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    assignment = DynamicSoftLabel(pool=pool)(
        torch.rand(count, 2), torch.ones(count), torch.zeros(count, CLASSES), torch.rand(count, 4), target
    )
    assert assignment.state.tolist() == [0] * count


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`pool` must be one of 'own', 'any', but got 'all'"):
        DynamicSoftLabel(pool="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`topk` must be finite and at least 1"):
        DynamicSoftLabel(topk=0)
    with pytest.raises(ValueError, match="`iou_weight` must be finite and at least 0"):
        DynamicSoftLabel(iou_weight=-1)
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(2, C\), but got \(2,\)"):
        DynamicSoftLabel()(torch.zeros(2, 2), torch.ones(2), torch.zeros(2), torch.zeros(2, 4), empty_target())
