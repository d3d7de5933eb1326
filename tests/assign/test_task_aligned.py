"""Task-aligned assignment against its rule written as loops, and worked by hand."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import TaskAligned
from tests.assign.predictions import (
    CLASSES,
    Predictions,
    center,
    float_iou,
    float_target,
    inside,
    random_predictions,
    sigmoid,
    states,
)
from tests.assign.scenes import assert_same, assert_same_objects, empty_target, random_target, shuffled, visiting_order

SIZES, STRIDES = [(8, 8), (4, 4), (2, 2)], [8.0, 16.0, 32.0]


def arguments(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    return predictions.points, predictions.class_logits, predictions.boxes


def complete_iou(a: list[float], b: list[float]) -> float:
    iou = float_iou(a, b)
    enclosing = math.dist((min(a[0], b[0]), min(a[1], b[1])), (max(a[2], b[2]), max(a[3], b[3])))
    angle, other = (math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b))
    v = 4 / math.pi**2 * (angle - other) ** 2
    alpha = v / (1 - iou + v) if v else 0.0
    return max(iou - math.dist(center(a), center(b)) ** 2 / enclosing**2 - alpha * v, 0.0)


def enlarged(box: list[float], side: float | None) -> list[float]:
    if side is None:
        return box
    (x, y), w, h = center(box), max(box[2] - box[0], side), max(box[3] - box[1], side)
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def by_the_rule(
    assigner: TaskAligned, predictions: Predictions, target: dict[str, Tensor]
) -> tuple[list[int], list[float]]:
    points, logits, boxes = (tensor.tolist() for tensor in arguments(predictions))
    objects, labels = target["boxes"].tolist(), target["labels"].tolist()
    order = visiting_order(target)
    measure = complete_iou if assigner.measure == "ciou" else float_iou
    u = {row: [measure(box, objects[row]) for box in boxes] for row in order}
    t = {
        row: [
            sigmoid(logit[labels[row]]) ** assigner.alpha * overlap**assigner.beta
            for logit, overlap in zip(logits, u[row], strict=True)
        ]
        for row in order
    }
    around = {
        row: [inside(point, enlarged(objects[row], assigner.min_side), assigner.margin) for point in points]
        for row in order
    }
    claims: list[list[int]] = [[] for _ in points]
    for row in order:
        best = sorted(range(len(points)), key=lambda index: (-t[row][index], index))
        if assigner.order == "mask_first":
            best = [index for index in best if around[row][index]][: assigner.topk]
        else:
            best = [index for index in best[: assigner.topk] if around[row][index]]
        for index in best:
            if t[row][index] > 0:
                claims[index].append(row)
    matched = []
    for index, claim in enumerate(claims):
        rivals = claim
        if assigner.conflict == "all" and len(claim) > 1:
            rivals = [row for row in order if around[row][index]]
        matched.append(max(rivals, key=lambda row: u[row][index]) if rivals else -1)  # the first maximum
    quality = []
    for index, row in enumerate(matched):
        mine = [other for other, owner in enumerate(matched) if owner == row]
        quality.append(
            t[row][index] / max(t[row][other] for other in mine) * max(u[row][other] for other in mine)
            if row >= 0
            else 0.0
        )
    return matched, quality


OPTIONS: list[dict[str, Any]] = [
    {},
    {"order": "mask_first"},
    {"topk": 10, "alpha": 0.5, "order": "mask_first", "measure": "ciou", "margin": 0.0, "min_side": 16.0},
    {"topk": 3, "beta": 2, "margin": 2.0},
    {"topk": 20, "order": "mask_first", "conflict": "all"},
    {"topk": 200, "alpha": 0, "conflict": "all", "measure": "ciou"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rule(options: dict[str, Any]) -> None:
    seen = set()
    for seed in range(20):
        source = random.Random(seed)
        predictions = random_predictions(seed, SIZES, STRIDES)
        target = float_target(source, source.choice([0, 1, 4, 9]), 64, crowd=0.2)
        assigner = TaskAligned(**options, block_size=source.choice([None, 1, 4]))
        assignment = assigner(*arguments(predictions), target)
        matched, quality = by_the_rule(assigner, predictions, target)
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == states(predictions, matched, target)
        torch.testing.assert_close(assignment.quality, torch.tensor(quality), rtol=1e-4, atol=1e-6)
        seen |= set(assignment.state.tolist())
    assert seen == {-1, 0, 1}


def test_the_best_predictions_may_lie_outside() -> None:
    # Two points outside predict the object exactly; the one inside overlaps it by half.
    points = torch.tensor([[4.0, 4.0], [60.0, 4.0], [60.0, 12.0]])
    target = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([0])}
    boxes = torch.tensor([[0.0, 0, 8, 4], [0.0, 0, 8, 8], [0.0, 0, 8, 8]])
    assert TaskAligned(topk=2)(points, torch.zeros(3, 1), boxes, target).state.tolist() == [0, 0, 0]
    assert TaskAligned(topk=2, order="mask_first")(points, torch.zeros(3, 1), boxes, target).state.tolist() == [1, 0, 0]


def test_score_and_overlap_together() -> None:
    points = torch.tensor([[3.0, 3.0], [5.0, 5.0]])
    target = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([0])}
    boxes = torch.tensor([[0.0, 0, 8, 8], [0.0, 0, 8, 6]])  # u = 1 and 0.75
    logits = torch.tensor([[0.1], [0.9]]).logit()
    # t = 0.1 and 0.16 by β = 6, 0.1 and 0.05 by β = 10.
    assert TaskAligned(topk=1)(points, logits, boxes, target).state.tolist() == [0, 1]
    assert TaskAligned(topk=1, beta=10)(points, logits, boxes, target).state.tolist() == [1, 0]
    both = TaskAligned()(points, logits, boxes, target).quality
    assert both.tolist() == pytest.approx([0.1 / (0.9 * 0.75**6), 1.0])


def test_a_conflict_between_an_object_that_chose_and_one_that_did_not() -> None:
    # One prediction, chosen by the first two objects. It overlaps the third most, which has chosen a better one.
    points = torch.tensor([[8.0, 8.0], [9.0, 9.0]])
    boxes = torch.tensor([[0.0, 0, 16, 14], [0.0, 0, 16, 16]])
    target = {
        "boxes": torch.tensor([[0.0, 0, 16, 10], [0.0, 0, 16, 11], [0.0, 0, 16, 16]]),
        "labels": torch.tensor([0, 0, 1]),
    }
    logits = torch.tensor([[9.0, 0.0], [-9.0, 0.0]])
    own = TaskAligned(topk=1)(points, logits, boxes, target)
    assert own.matched.tolist() == [1, 2]
    assert TaskAligned(topk=1, conflict="all")(points, logits, boxes, target).matched.tolist() == [2, 2]


def test_small_objects_between_the_points() -> None:
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0]])
    target = {"boxes": torch.tensor([[6.0, 2, 9, 5]]), "labels": torch.tensor([0])}
    boxes = target["boxes"].expand(2, 4)
    assert not TaskAligned()(points, torch.zeros(2, 1), boxes, target).positive.any()
    assert TaskAligned(min_side=16)(points, torch.zeros(2, 1), boxes, target).state.tolist() == [1, 1]
    assert TaskAligned.yolov8()(points, torch.zeros(2, 1), boxes, target).state.tolist() == [1, 1]


def test_no_positive_for_an_object_that_no_prediction_overlaps() -> None:
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0]])
    target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "labels": torch.tensor([0])}
    apart = torch.tensor([[30.0, 30, 40, 40], [5.0, 5, 5, 5]])
    assert TaskAligned()(points, torch.zeros(2, 1), apart, target).state.tolist() == [0, 0]


def test_tiny_overlaps_and_saturated_or_invalid_scores() -> None:
    points = torch.full((4, 2), 50.0)
    target = {"boxes": torch.tensor([[0.0, 0, 100, 100]]), "labels": torch.tensor([0])}
    boxes = torch.tensor([[50.0, 50, 50.01, 50.01], [50.0, 50, 50.02, 50.01], [0.0, 0, 100, 100], [0.0, 0, 100, 90]])
    logits = torch.tensor([[-1e4], [-1e4], [math.nan], [math.nan]])
    # u⁶ is 1e-48 and s is 0 in single precision; the larger box is still better.
    assignment = TaskAligned(topk=1)(points, logits, boxes, target)
    assert assignment.state.tolist() == [0, 1, 0, 0]
    assert assignment.quality[1].item() == pytest.approx(2e-8, rel=0.01)
    boxes[3] = math.nan
    assert not TaskAligned()(points, torch.zeros(4, 1), boxes, target).positive[3]


def test_there_is_no_gradient() -> None:
    predictions = random_predictions(0, [(4, 4)], [8.0])
    logits, boxes = predictions.class_logits.requires_grad_(), predictions.boxes.requires_grad_()
    assignment = TaskAligned()(predictions.points, logits, boxes, float_target(random.Random(0), 3, 32))
    assert assignment.positive.any()
    assert not assignment.quality.requires_grad


def test_blocks_of_any_size_give_the_same_answer() -> None:
    predictions = random_predictions(3, [(13, 11), (7, 6)], [8.0, 16.0])
    target = float_target(random.Random(3), 37, 90, crowd=0.1)
    for options in OPTIONS:
        answers = [
            TaskAligned(**options, block_size=size)(*arguments(predictions), target)
            for size in (None, 1, 2, 17, 36, 500)
        ]
        assert answers[0].positive.any()
        for answer in answers[1:]:
            assert_same(answers[0], answer)
            assert torch.equal(answers[0].quality, answer.quality)


@pytest.mark.parametrize("conflict", ["candidates", "all"])
def test_the_order_of_objects_does_not_matter(conflict: Any) -> None:
    predictions = random_predictions(0, [(4, 4), (2, 2)], [4.0, 8.0])
    assigner = TaskAligned(conflict=conflict)
    for seed in range(20):
        source = random.Random(seed)
        target = random_target(source, 6, 14, 10, crowd=0.2)
        other = shuffled(target, source)
        first, second = assigner(*arguments(predictions), target), assigner(*arguments(predictions), other)
        assert_same_objects(first, target, second, other)
        assert torch.equal(first.quality, second.quality)


@pytest.mark.parametrize(("count", "objects"), [(0, 0), (0, 2), (3, 0)])
@pytest.mark.parametrize("conflict", ["candidates", "all"])
def test_nothing_to_assign(conflict: Any, count: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    assigner = TaskAligned(conflict=conflict, measure="ciou")
    assignment = assigner(torch.rand(count, 2), torch.zeros(count, CLASSES), torch.rand(count, 4), target)
    assert assignment.state.tolist() == [0] * count
    assert assignment.quality.tolist() == [0] * count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 0}, "`topk` must be finite and at least 1"),
        ({"beta": 0}, "`beta` must be finite and above 0"),
        ({"order": "random"}, "`order` must be one of 'topk_first', 'mask_first', but got 'random'"),
        ({"conflict": "last"}, "`conflict` must be one of 'candidates', 'all', but got 'last'"),
        ({"measure": "giou"}, "`measure` must be one of 'iou', 'ciou', but got 'giou'"),
        ({"min_side": 0}, "`min_side` must be finite and above 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskAligned(**options)


def test_wrong_predictions_are_named() -> None:
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(2, C\), but got \(3, 3\)"):
        TaskAligned()(torch.zeros(2, 2), torch.zeros(3, 3), torch.zeros(2, 4), empty_target())
    one = {"boxes": torch.zeros(1, 4), "labels": torch.zeros(1, dtype=torch.int64)}
    with pytest.raises(ValueError, match="`class_logits` must have at least one class where there are objects"):
        TaskAligned()(torch.zeros(2, 2), torch.zeros(2, 0), torch.zeros(2, 4), one)
