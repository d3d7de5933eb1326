"""Hungarian matching against a search through all matchings, and its costs worked by hand."""

import itertools
import math
import random
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import ClassCost, FocalCost, GIoUCost, Hungarian, L1Cost, MatchCost, Pairing
from tests.assign.predictions import CLASSES, center, float_iou, float_target, sigmoid
from tests.assign.scenes import answer_by_content, empty_target, float_boxes, shuffled, visiting_order

SIZE = (120, 160)


def pair_costs(logits: list[float], box: list[float], label: int, object_: list[float]) -> dict[str, float]:
    """Every cost of one pair from its formula, with the default weights."""
    p = sigmoid(logits[label])
    height, width = SIZE
    (x, y), (object_x, object_y) = center(box), center(object_)
    sides = abs(box[2] - box[0] - object_[2] + object_[0]), abs(box[3] - box[1] - object_[3] + object_[1])
    enclosing = (max(box[2], object_[2]) - min(box[0], object_[0])) * (
        max(box[3], object_[3]) - min(box[1], object_[1])
    )
    iou = float_iou(box, object_)
    areas = [(a[2] - a[0]) * (a[3] - a[1]) for a in (box, object_)]
    union = sum(areas) / (1 + iou)
    return {
        "class": -math.exp(logits[label]) / sum(math.exp(logit) for logit in logits),
        "focal": 2 * (-0.25 * (1 - p) ** 2 * math.log(p) + 0.75 * p**2 * math.log(1 - p)),
        "l1": 5 * ((abs(x - object_x) + sides[0]) / width + (abs(y - object_y) + sides[1]) / height),
        "giou": -2 * (iou - (enclosing - union) / enclosing),
    }


COSTS: dict[str, MatchCost] = {"class": ClassCost(), "focal": FocalCost(), "l1": L1Cost(), "giou": GIoUCost()}


def scene(seed: int, queries: int, objects: int, crowd: float = 0.0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(queries, CLASSES + 1, generator=generator) * 2
    return logits, float_boxes(queries, seed), float_target(random.Random(seed), objects, 80, crowd)


@pytest.mark.parametrize("name", COSTS)
def test_costs(name: str) -> None:
    logits, boxes, target = scene(0, 6, 4)
    got = COSTS[name](Pairing(logits, boxes, target["labels"], target["boxes"], SIZE))
    expected = [
        [
            pair_costs(logit, box, label, object_)[name]
            for label, object_ in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)
        ]
        for logit, box in zip(logits.tolist(), boxes.tolist(), strict=True)
    ]
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [["class", "l1", "giou"], ["focal", "l1", "giou"], ["l1"]])
@pytest.mark.parametrize(("queries", "objects"), [(5, 3), (3, 5), (4, 4), (6, 1)])
def test_no_matching_costs_less(names: list[str], queries: int, objects: int) -> None:
    for seed in range(6):
        logits, boxes, target = scene(seed, queries, objects, crowd=0.2)
        rows = visiting_order(target)
        assignment = Hungarian([COSTS[name] for name in names])(logits, boxes, target, SIZE)

        def cost(query: int, row: int) -> float:
            label, object_ = target["labels"].tolist()[row], target["boxes"].tolist()[row]  # noqa: B023
            terms = pair_costs(logits.tolist()[query], boxes.tolist()[query], label, object_)  # noqa: B023
            return sum(terms[name] for name in names)

        table = {(query, row): cost(query, row) for query in range(queries) for row in rows}
        few, many = min(len(rows), queries), max(len(rows), queries)
        least = math.inf
        for choice in itertools.permutations(range(many), few):
            pairs = (
                [(q, rows[i]) for i, q in enumerate(choice)]
                if few == len(rows)
                else [(q, rows[i]) for q, i in enumerate(choice)]
            )
            least = min(least, sum(table[pair] for pair in pairs))
        got = [(query, row) for query, row in enumerate(assignment.matched.tolist()) if row >= 0]
        assert len(got) == few
        assert len({row for _, row in got}) == few
        assert sum(table[pair] for pair in got) == pytest.approx(least, rel=1e-4, abs=1e-5)


def test_the_sum_is_least_not_each_pair() -> None:
    # Both objects are nearest to the first query; the second object has further to go to the other one.
    boxes = torch.tensor([[10.0, 0, 20, 10], [0.0, 0, 10, 10]])
    target = {"boxes": torch.tensor([[9.0, 0, 19, 10], [12.0, 0, 22, 10]]), "labels": torch.tensor([0, 0])}
    assert Hungarian([L1Cost()])(torch.zeros(2, 1), boxes, target, (100, 100)).matched.tolist() == [1, 0]


def test_extreme_logits_and_boxes_without_extent_have_a_cost() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    boxes = torch.tensor([[5.0, 5, 5, 5], [9.0, 9, 1, 1]])
    target = {"boxes": torch.tensor([[5.0, 5, 5, 5], [0.0, 0, 4, 4]]), "labels": torch.tensor([0, 1])}
    for classes in (ClassCost(), FocalCost(), FocalCost(gamma=0.5)):
        assert Hungarian([classes, L1Cost(), GIoUCost()])(logits, boxes, target, SIZE).matched.tolist() == [0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_is_named(value: float) -> None:
    logits, boxes, target = scene(0, 4, 2)
    boxes[2, 1] = value
    with pytest.raises(
        ValueError, match=r"`costs\[1\]` \(L1Cost\(weight=5.0\)\) must be finite, .* prediction 2 and obj"
    ):
        Hungarian()(logits, boxes, target, SIZE)
    logits, boxes, target = scene(0, 4, 2)
    logits[3, 0] = value
    with pytest.raises(ValueError, match=r"`costs\[0\]` \(ClassCost\(weight=1.0\)\) must be finite, .* prediction 3"):
        Hungarian()(logits, boxes, target, SIZE)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    logits, boxes, target = scene(0, 4, 2)
    with pytest.raises(ImportError, match=r"`Hungarian` needs scipy.*lossatlas\[lab\]"):
        Hungarian()(logits, boxes, target, SIZE)


def test_crowd_regions_are_ignored_not_matched() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [52.0, 52, 60, 60], [80.0, 80, 90, 90]])
    target = {
        "boxes": torch.tensor([[50.0, 50, 70, 70], [0.0, 0, 10, 9]]),
        "labels": torch.tensor([0, 0]),
        "iscrowd": torch.tensor([True, False]),
    }
    assignment = Hungarian()(torch.zeros(3, 2), boxes, target, SIZE)
    assert assignment.matched.tolist() == [1, -1, -1]
    assert assignment.state.tolist() == [1, -1, 0]
    as_published = Hungarian(crowd_threshold=None)(torch.zeros(3, 2), boxes, target, SIZE)
    assert as_published.state.tolist() == [1, 0, 0]


def test_the_order_of_objects_does_not_matter() -> None:
    for seed in range(20):
        logits, boxes, target = scene(seed, 9, 6, crowd=0.2)
        target["boxes"][2], target["labels"][2] = target["boxes"][3], target["labels"][3]
        other = shuffled(target, random.Random(seed))
        first, second = Hungarian()(logits, boxes, target, SIZE), Hungarian()(logits, boxes, other, SIZE)
        assert torch.equal(first.state, second.state)
        assert answer_by_content(first, target) == answer_by_content(second, other)


@pytest.mark.parametrize(("queries", "objects"), [(0, 0), (0, 3), (4, 0)])
def test_nothing_to_assign(queries: int, objects: int) -> None:
    logits, boxes, target = scene(0, queries, objects)
    assert Hungarian()(logits, boxes, target, SIZE).state.tolist() == [0] * queries


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hungarian(()), "`costs` must list at least one cost"),
        (lambda: Hungarian(crowd_threshold=0), "`crowd_threshold` must be finite and above 0"),
        (lambda: FocalCost(gamma=-1), "`gamma` must be finite and at least 0"),
        (lambda: L1Cost(weight=math.nan), "`weight` must be finite"),
        (lambda: Hungarian([lambda pairing: torch.zeros(1)])(*scene(0, 4, 2), SIZE), r"`costs\[0\]` must return shape"),
        (lambda: Hungarian()(torch.zeros(2, 3), torch.zeros(3, 4), empty_target(), SIZE), r"must have shape \(3, C\)"),
    ],
)
def test_wrong_arguments_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
