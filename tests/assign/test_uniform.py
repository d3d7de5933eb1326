"""YOLOF's assignment against its rule written as loops, and worked by hand."""

import math
import random
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import Uniform
from tests.assign.scenes import (
    Box,
    claimed_by_crowd,
    empty_target,
    float_boxes,
    iou,
    random_box,
    random_target,
    visiting_order,
)


def distance(a: Box, b: Box) -> float:
    centers = abs(a[0] + a[2] - b[0] - b[2]) / 2 + abs(a[1] + a[3] - b[1] - b[3]) / 2
    return centers + abs((a[2] - a[0]) - (b[2] - b[0])) + abs((a[3] - a[1]) - (b[3] - b[1]))


def by_the_rule(
    assigner: Uniform, priors: list[Box], predicted: list[Box], target: dict[str, Tensor]
) -> tuple[list[int], list[int]]:
    boxes: list[Box] = [tuple(box) for box in target["boxes"].tolist()]
    order = visiting_order(target)
    claims: list[list[tuple[float, int]]] = [[] for _ in priors]
    for place, row in enumerate(order):
        for candidates in [priors, predicted] if assigner.nearest == "priors_and_boxes" else [priors]:
            away = [distance(box, boxes[row]) for box in candidates]
            for index in sorted(range(len(priors)), key=lambda index: (away[index], index))[: assigner.topk]:
                claims[index].append((away[index], place))
    matched, state = [], []
    for index, prior in enumerate(priors):
        owner = order[min(claims[index])[1]] if claims[index] else -1
        best = max((iou(predicted[index], boxes[row]) for row in order), default=Fraction(0))
        if owner >= 0 and iou(prior, boxes[owner]) >= Fraction(str(assigner.positive_iou)):
            matched.append(owner)
            state.append(1)
        else:
            matched.append(-1)
            unclear = best > Fraction(str(assigner.negative_iou)) or claimed_by_crowd(prior, target)
            state.append(-1 if owner >= 0 or unclear else 0)
    return matched, state


OPTIONS: list[dict[str, Any]] = [
    {},
    {"topk": 1},
    {"nearest": "priors", "topk": 2},
    {"positive_iou": 0, "negative_iou": 1},
    {"positive_iou": 0.5, "negative_iou": 0.25},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rule(options: dict[str, Any]) -> None:
    seen = set()
    for seed in range(40):
        source = random.Random(seed)
        count = source.choice([1, 5, 30])
        priors, predicted = ([random_box(source, 9, 6) for _ in range(count)] for _ in range(2))
        target = random_target(source, source.choice([0, 1, 3, 6]), 9, 6, crowd=0.15)
        assigner = Uniform(**options, block_size=source.choice([None, 1, 3]))
        assignment = assigner(torch.tensor(priors).float(), torch.tensor(predicted).float(), target)
        matched, state = by_the_rule(assigner, priors, predicted, target)
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == state
        seen |= set(state)
    assert seen == {-1, 0, 1}


def test_large_and_small_objects_get_equally_many() -> None:
    steps = torch.arange(10.0)
    x, y = (axis.flatten() * 32 for axis in torch.meshgrid(steps, steps, indexing="ij"))
    priors = torch.stack((x, y, x + 32, y + 32), dim=1)
    target = {
        "boxes": torch.tensor([[10.0, 10, 300, 150], [200.0, 250, 220, 270]]),
        "labels": torch.tensor([0, 1]),
    }
    assignment = Uniform(nearest="priors", positive_iou=0)(priors, priors, target)
    assert [(assignment.matched == row).sum().item() for row in (0, 1)] == [4, 4]


def test_positives_and_negatives_that_are_unclear() -> None:
    priors = torch.tensor([[0.0, 0, 8, 8], [7.0, 0, 15, 8], [100.0, 0, 108, 8], [200.0, 0, 208, 8]])
    target = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([0])}
    boxes = torch.tensor([[50.0, 0, 58, 8], [50.0, 0, 58, 8], [0.0, 0, 8, 7], [0.0, 0, 8, 5]])
    # The second prior is chosen, but its IoU is 1/15; the third prior's box is a good one, the fourth's is 0.625.
    assigner = Uniform(topk=2, nearest="priors")
    assert assigner(priors, boxes, target).state.tolist() == [1, -1, -1, 0]
    # By predicted boxes the last two are chosen as well, and lie too far away to be positive.
    assert Uniform(topk=2)(priors, boxes, target).state.tolist() == [1, -1, -1, -1]


def test_the_nearest_object_wins() -> None:
    prior = torch.tensor([[0.0, 0, 8, 8]])
    target = {"boxes": torch.tensor([[0.0, 0, 8, 6], [0.0, 0, 8, 7]]), "labels": torch.tensor([0, 0])}
    assert Uniform()(prior, prior, target).matched.tolist() == [1]


def test_an_object_that_overlaps_nothing_gets_nothing_unless_asked() -> None:
    priors = float_boxes(20, 0)
    target = {"boxes": torch.tensor([[500.0, 500, 510, 510]]), "labels": torch.tensor([0])}
    assert not Uniform()(priors, priors, target).positive.any()
    assert Uniform(positive_iou=0)(priors, priors, target).positive.sum() == 4


def test_boxes_that_are_not_numbers_are_chosen_by_nobody() -> None:
    priors = float_boxes(6, 0)
    target = {"boxes": priors[:1], "labels": torch.tensor([0])}
    assert Uniform(topk=1)(priors, torch.full_like(priors, math.nan), target).matched.tolist() == [0] + [-1] * 5


@pytest.mark.parametrize(("priors", "objects"), [(0, 0), (0, 3), (4, 0)])
def test_nothing_to_assign(priors: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    assert Uniform()(torch.rand(priors, 4), torch.rand(priors, 4), target).state.tolist() == [0] * priors


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`topk` must be finite and at least 1"):
        Uniform(topk=0)
    with pytest.raises(ValueError, match="`nearest` must be one of 'priors_and_boxes', 'priors', but got 'boxes'"):
        Uniform(nearest="boxes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`positive_iou` must be finite and at least 0 and at most 1"):
        Uniform(positive_iou=2)
    with pytest.raises(ValueError, match=r"`boxes` must have shape \(2, 4\), but got \(3, 4\)"):
        Uniform()(torch.zeros(2, 4), torch.zeros(3, 4), empty_target())
