"""SimOTA against its rule written as loops, and worked by hand."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import SimOTA
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


def class_cost(logits: list[float], objectness: float | None, label: int) -> float:
    cost = 0.0
    for index, logit in enumerate(logits):
        p = sigmoid(logit) if objectness is None else math.sqrt(sigmoid(logit) * sigmoid(objectness))
        cost -= math.log(p) if index == label else math.log(1 - p)
    return cost


def by_the_rule(
    assigner: SimOTA, predictions: Predictions, target: dict[str, Tensor], with_objectness: bool
) -> tuple[list[int], list[float]]:
    points, strides = predictions.points.tolist(), predictions.strides.tolist()
    logits, boxes = predictions.class_logits.tolist(), predictions.boxes.tolist()
    objectness = predictions.objectness_logits.tolist()
    objects, labels = target["boxes"].tolist(), target["labels"].tolist()
    order = visiting_order(target)
    radius = assigner.center_radius or {"center": 1.5, "box_or_center": 2.5}[assigner.region]
    candidates: dict[int, set[int]] = {row: set() for row in order}
    outside: dict[int, set[int]] = {row: set() for row in order}
    for row in order:
        x, y = center(objects[row])
        for index, (point, stride) in enumerate(zip(points, strides, strict=True)):
            near = abs(point[0] - x) < radius * stride and abs(point[1] - y) < radius * stride
            within = inside(point, objects[row])
            if near or (assigner.region == "box_or_center" and within):
                candidates[row].add(index)
            if not (near and (assigner.region == "center" or within)):
                outside[row].add(index)
    pool = set().union(*candidates.values())
    costs: dict[int, dict[int, float]] = {}
    ious: dict[int, dict[int, float]] = {}
    for row in order:
        allowed = sorted(pool if assigner.pool == "any" else candidates[row])
        ious[row] = {index: float_iou(boxes[index], objects[row]) for index in allowed}
        costs[row] = {
            index: assigner.class_weight
            * class_cost(logits[index], objectness[index] if with_objectness else None, labels[row])
            - assigner.iou_weight * math.log(ious[row][index] + 1e-8)
            + assigner.penalty * (index in outside[row])
            for index in allowed
        }
    matched = cheapest(costs, ious, len(points), assigner.topk)
    quality = [float_iou(box, objects[row]) if row >= 0 else 0.0 for box, row in zip(boxes, matched, strict=True)]
    return matched, quality


OPTIONS: list[dict[str, Any]] = [
    {},
    {"region": "box_or_center", "penalty": 100.0},
    {"pool": "any", "penalty": 100.0},
    {"region": "box_or_center", "pool": "any", "penalty": 30.0, "center_radius": 1.0},
    {"topk": 6, "class_weight": 0.5, "iou_weight": 1, "center_radius": 1},
]


@pytest.mark.parametrize("with_objectness", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rule(options: dict[str, Any], with_objectness: bool) -> None:
    seen, several = set(), 0
    for seed in range(15):
        source = random.Random(seed)
        predictions = random_predictions(seed, SIZES, STRIDES)
        target = float_target(source, source.choice([0, 1, 4, 9]), 64, crowd=0.2)
        assigner = SimOTA(**options, block_size=source.choice([None, 1, 4]))
        objectness = predictions.objectness_logits if with_objectness else None
        assignment = assigner(*arguments(predictions), target, objectness)
        matched, quality = by_the_rule(assigner, predictions, target, with_objectness)
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == states(predictions, matched, target)
        torch.testing.assert_close(assignment.quality, torch.tensor(quality))
        seen |= set(assignment.state.tolist())
        several += any(matched.count(row) > 1 for row in matched if row >= 0)
    assert seen == {-1, 0, 1}
    assert several > 0


def test_as_many_predictions_as_the_ious_add_up_to() -> None:
    points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]]), torch.full((3,), 8.0)
    target = {"boxes": torch.tensor([[4.0, 0, 20, 8]]), "labels": torch.tensor([0])}
    logits = torch.tensor([[0.0], [2.0], [1.0]])
    exact = target["boxes"].expand(3, 4)
    assert SimOTA()(points, strides, logits, exact, target).state.tolist() == [1, 1, 1]  # k = 3
    half = exact.clone()
    half[:, 2] = 12.0  # an IoU of 0.5 each: k = 1, the prediction that is surest
    assert SimOTA()(points, strides, logits, half, target).state.tolist() == [0, 1, 0]
    half[0] = exact[0]  # k = 2: the exact box and the surer of the other two
    assert SimOTA()(points, strides, logits, half, target).state.tolist() == [1, 1, 0]
    far = half + 1000  # k = 1 even if no predicted box overlaps the object
    assert SimOTA()(points, strides, logits, far, target).state.tolist() == [0, 1, 0]


def test_the_object_that_pays_less_keeps_the_prediction() -> None:
    point, stride, boxes = torch.tensor([[8.0, 8.0]]), torch.tensor([8.0]), torch.tensor([[0.0, 0, 16, 16]])
    target = {"boxes": torch.tensor([[0.0, 0, 16, 15], [0.0, 0, 16, 16]]), "labels": torch.tensor([0, 1])}
    # The second object fits exactly, but a sure classifier is worth more.
    assert SimOTA()(point, stride, torch.tensor([[0.0, 0.0]]), boxes, target).matched.tolist() == [1]
    assert SimOTA()(point, stride, torch.tensor([[1.0, 0.0]]), boxes, target).matched.tolist() == [0]


def test_more_wanted_than_there_is() -> None:
    # Ten predictions hit the object exactly, so k is 10, but one point alone is a candidate for it.
    points = torch.cat((torch.tensor([[8.0, 8.0]]), torch.full((9, 2), 100.0)))
    boxes = torch.tensor([[0.0, 0, 16, 16]]).expand(10, 4)
    target = {"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([0])}
    assignment = SimOTA()(points, torch.full((10,), 8.0), torch.zeros(10, 1), boxes, target)
    assert assignment.positive.nonzero().tolist() == [[0]]
    alone = SimOTA()(points[:1], torch.full((1,), 8.0), torch.zeros(1, 1), boxes[:1], target)
    assert alone.state.tolist() == [1]


def test_an_object_without_candidates_gets_nothing_unless_asked() -> None:
    predictions = random_predictions(0, SIZES, STRIDES)
    target = {
        "boxes": torch.tensor([[500.0, 500, 520, 520], [20.0, 20, 40, 40]]),
        "labels": torch.tensor([0, 1]),
    }
    assert 0 not in SimOTA()(*arguments(predictions), target).matched.tolist()
    assert 0 in SimOTA(pool="any")(*arguments(predictions), target).matched.tolist()


def test_extreme_and_invalid_predictions() -> None:
    predictions = random_predictions(0, [(4, 4)], [8.0])
    target = {"boxes": torch.tensor([[4.0, 4, 24, 24]]), "labels": torch.tensor([1])}
    sure = torch.where(predictions.class_logits > 0, 1e4, -1e4)
    for objectness in (None, torch.full((16,), 1e4), torch.full((16,), -1e4)):
        assignment = SimOTA()(predictions.points, predictions.strides, sure, predictions.boxes, target, objectness)
        assert assignment.positive.any()
    logits, boxes = predictions.class_logits.clone(), predictions.boxes.clone()
    logits[5], boxes[6] = math.nan, math.nan
    assignment = SimOTA()(predictions.points, predictions.strides, logits, boxes, target)
    assert assignment.positive.any()
    assert not assignment.positive[5:7].any()


def test_there_is_no_gradient() -> None:
    predictions = random_predictions(0, [(4, 4)], [8.0])
    target = float_target(random.Random(0), 3, 32)
    logits, boxes = predictions.class_logits.requires_grad_(), predictions.boxes.requires_grad_()
    assert not SimOTA()(predictions.points, predictions.strides, logits, boxes, target).quality.requires_grad


def test_blocks_of_any_size_give_the_same_answer() -> None:
    predictions = random_predictions(3, [(13, 11), (7, 6)], [8.0, 16.0])
    target = float_target(random.Random(3), 37, 90, crowd=0.1)
    for options in OPTIONS:
        answers = [
            SimOTA(**options, block_size=size)(*arguments(predictions), target, predictions.objectness_logits)
            for size in (None, 1, 2, 17, 36, 500)
        ]
        for answer in answers[1:]:
            assert_same(answers[0], answer)
            assert torch.equal(answers[0].quality, answer.quality)


def test_the_order_of_objects_does_not_matter() -> None:
    predictions = random_predictions(0, [(4, 4), (2, 2)], [4.0, 8.0])
    for seed in range(20):
        source = random.Random(seed)
        target = random_target(source, 6, 14, 10, crowd=0.2)
        other = shuffled(target, source)
        first, second = SimOTA()(*arguments(predictions), target), SimOTA()(*arguments(predictions), other)
        assert_same_objects(first, target, second, other)
        assert torch.equal(first.quality, second.quality)


@pytest.mark.parametrize(("count", "objects"), [(0, 0), (0, 2), (3, 0)])
@pytest.mark.parametrize("pool", ["own", "any"])
def test_nothing_to_assign(pool: Any, count: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    assignment = SimOTA(pool=pool)(
        torch.rand(count, 2), torch.ones(count), torch.zeros(count, CLASSES), torch.rand(count, 4), target
    )
    assert assignment.state.tolist() == [0] * count
    assert assignment.quality.tolist() == [0] * count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "circle"}, "`region` must be one of 'center', 'box_or_center', but got 'circle'"),
        ({"pool": "all"}, "`pool` must be one of 'own', 'any', but got 'all'"),
        ({"topk": 0}, "`topk` must be finite and at least 1"),
        ({"center_radius": 0}, "`center_radius` must be finite and above 0"),
        ({"penalty": -1}, "`penalty` must be finite and at least 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimOTA(**options)


def test_wrong_predictions_are_named() -> None:
    points, strides, logits, boxes = torch.zeros(2, 2), torch.ones(2), torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(2, C\), but got \(3, 3\)"):
        SimOTA()(points, strides, torch.zeros(3, 3), boxes, empty_target())
    with pytest.raises(ValueError, match=r"`boxes` must have shape \(2, 4\), but got \(3, 4\)"):
        SimOTA()(points, strides, logits, torch.zeros(3, 4), empty_target())
    with pytest.raises(ValueError, match=r"`objectness_logits` must have shape \(2,\), but got \(3,\)"):
        SimOTA()(points, strides, logits, boxes, empty_target(), torch.zeros(3))
