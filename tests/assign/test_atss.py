"""ATSS against its rule written as loops in exact arithmetic, and worked by hand."""

import random
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import ATSS
from lossatlas.boxes.priors import anchor_grid
from tests.assign.scenes import (
    Box,
    claimed_by_crowd,
    empty_target,
    iou,
    random_box,
    random_target,
    visiting_order,
)


def is_positive(own: Fraction, overlaps: list[Fraction]) -> bool:
    """Whether `own` is at least the mean plus the standard deviation, without a square root."""
    mean = sum(overlaps, Fraction(0)) / len(overlaps)
    squares = sum(((value - mean) ** 2 for value in overlaps), Fraction(0))
    variance = squares / (len(overlaps) - 1) if len(overlaps) > 1 else Fraction(0)
    return own > 0 and own >= mean and (own - mean) ** 2 >= variance


def by_the_rule(
    priors: list[Box], level_sizes: list[int], target: dict[str, Tensor], count: int
) -> tuple[list[int], list[int]]:
    boxes: list[Box] = [tuple(box) for box in target["boxes"].tolist()]
    claims: list[list[tuple[Fraction, int]]] = [[] for _ in priors]
    for row in visiting_order(target):
        x1, y1, x2, y2 = boxes[row]
        candidates, start = [], 0
        for size in level_sizes:
            level = list(range(start, start + size))
            start += size
            level.sort(  # stable: of equal distances the first prior
                key=lambda index: (
                    (priors[index][0] + priors[index][2] - x1 - x2) ** 2
                    + (priors[index][1] + priors[index][3] - y1 - y2) ** 2
                )
            )
            candidates += level[:count]
        overlaps = [iou(priors[index], boxes[row]) for index in candidates]
        for index, overlap in zip(candidates, overlaps, strict=True):
            x, y = (priors[index][0] + priors[index][2]) / 2, (priors[index][1] + priors[index][3]) / 2
            if is_positive(overlap, overlaps) and min(x - x1, y - y1, x2 - x, y2 - y) > 0.01:
                claims[index].append((overlap, row))
    matched = []
    for claim in claims:
        best = max((overlap for overlap, _ in claim), default=None)
        matched.append(next((row for overlap, row in claim if overlap == best), -1))
    state = [
        1 if row >= 0 else -1 if claimed_by_crowd(prior, target) else 0
        for prior, row in zip(priors, matched, strict=True)
    ]
    return matched, state


@pytest.mark.parametrize(("topk", "anchors"), [(1, 1), (2, 1), (9, 1), (2, 3)])
def test_rule(topk: int, anchors: int) -> None:
    seen = set()
    for seed in range(50):
        source = random.Random(seed)
        level_sizes = source.choice([[1], [30], [20, 0, 6], [16, 8, 4]])
        priors = [random_box(source, 10, 6) for _ in range(sum(level_sizes))]
        target = random_target(source, source.choice([0, 1, 4, 7]), 10, 6, crowd=0.15)
        assigner = ATSS(topk, anchors, block_size=source.choice([None, 1, 3]))
        assignment = assigner(torch.tensor(priors, dtype=torch.float32), level_sizes, target)
        matched, state = by_the_rule(priors, level_sizes, target, topk * anchors)
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == state
        seen |= set(state)
    assert seen == {-1, 0, 1}


def test_threshold_by_hand() -> None:
    # IoUs 1, 1/3, 1/3 and 0 of four candidates: mean 5/12, deviation 0.42, threshold 0.84.
    priors = torch.tensor([[10.0, 0, 20, 10], [5.0, 0, 15, 10], [15.0, 0, 25, 10], [30.0, 0, 40, 10]])
    target = {"boxes": torch.tensor([[10.0, 0, 20, 10]]), "labels": torch.tensor([0])}
    assert ATSS()(priors, [4], target).state.tolist() == [1, 0, 0, 0]
    # Of the nearest two, 1 and 1/3, the threshold is 2/3 + 0.47: nothing stands out.
    assert ATSS(topk=2)(priors, [4], target).state.tolist() == [0, 0, 0, 0]


def test_a_single_candidate_is_positive() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10]])
    target = {"boxes": torch.tensor([[0.0, 0, 10, 7]]), "labels": torch.tensor([0])}
    assert ATSS()(priors, [1], target).matched.tolist() == [0]


def test_equal_overlaps_are_all_positive() -> None:
    # Three shifted copies of one shape inside a large object: IoU 1/11 each, whatever rounding does to their mean.
    priors = torch.tensor([[10.0, 10, 20, 20], [12.0, 10, 22, 20], [14.0, 10, 24, 20]])
    target = {"boxes": torch.tensor([[0.0, 0, 44, 25]]), "labels": torch.tensor([0])}
    assert ATSS()(priors, [3], target).state.tolist() == [1, 1, 1]


def test_the_centre_must_be_inside_by_the_margin() -> None:
    # One candidate of each level would be positive alone; the second one's centre lies on the object's edge.
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}
    on_edge = torch.tensor([[5.0, 0, 15, 10]])
    assert ATSS()(on_edge, [1], target).state.tolist() == [0]
    just_inside = on_edge - torch.tensor([0.005, 0, 0.005, 0])
    assert ATSS()(just_inside, [1], target).state.tolist() == [0]
    assert ATSS(margin=0)(just_inside, [1], target).state.tolist() == [1]


def test_the_object_that_is_overlapped_most_wins() -> None:
    prior = torch.tensor([[0.0, 0, 10, 10]])
    target = {"boxes": torch.tensor([[0.0, 0, 10, 7], [0.0, 0, 10, 9]]), "labels": torch.tensor([0, 0])}
    assert ATSS()(prior, [1], target).matched.tolist() == [1]


def test_an_object_that_overlaps_nothing_gets_nothing() -> None:
    priors = anchor_grid([(4, 4), (2, 2)], [8, 16], octave_scales=[1], aspect_ratios=[1])
    target = {
        "boxes": torch.tensor([[500.0, 500, 510, 510], [10.0, 10, 10, 10]]),
        "labels": torch.zeros(2, dtype=torch.int64),
    }
    assert not ATSS(margin=0)(priors, [16, 4], target).positive.any()


@pytest.mark.parametrize(("priors", "objects"), [(0, 0), (0, 3), (4, 0)])
def test_nothing_to_assign(priors: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    assert ATSS()(torch.rand(priors, 4), [priors, 0], target).state.tolist() == [0] * priors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 0}, "`topk` must be finite and at least 1"),
        ({"anchors_per_location": 0}, "`anchors_per_location` must be finite and at least 1"),
        ({"margin": -1}, "`margin` must be finite and at least 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ATSS(**options)


def test_wrong_levels_are_named() -> None:
    with pytest.raises(ValueError, match=r"`level_sizes` must add up to the 2 priors, but got \[1, 2\]"):
        ATSS()(torch.zeros(2, 4), [1, 2], empty_target())
    with pytest.raises(ValueError, match="`level_sizes` must list at least one level"):
        ATSS()(torch.zeros(0, 4), [], empty_target())
    with pytest.raises(ValueError, match=r"`priors` must have shape \(P, 4\)"):
        ATSS()(torch.zeros(1, 2, 4), [1], empty_target())
