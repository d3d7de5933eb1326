"""SSD's matching against its rule written as loops, and worked by hand."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import Bipartite, MaxIoU
from lossatlas.assign.candidates import Reach
from tests.assign.cases import crowded_scene
from tests.assign.scenes import (
    Box,
    claimed_by_crowd,
    iou,
    random_box,
    random_target,
    visiting_order,
)


def by_the_rule(
    priors: list[Box], target: dict[str, Tensor], threshold: float | None
) -> tuple[list[int], list[int], int]:
    boxes: list[Box] = [tuple(box) for box in target["boxes"].tolist()]
    order = visiting_order(target)
    matched, served = [-1] * len(priors), set()
    pairs = [
        (iou(prior, boxes[row]), place, index) for place, row in enumerate(order) for index, prior in enumerate(priors)
    ]
    for overlap, place, index in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if overlap > 1e-6 and matched[index] < 0 and place not in served:
            matched[index] = order[place]
            served.add(place)
    for index, prior in enumerate(priors):
        overlaps = [iou(prior, boxes[row]) for row in order]
        if threshold is not None and matched[index] < 0 and overlaps and max(overlaps) >= threshold:
            matched[index] = order[overlaps.index(max(overlaps))]
    state = [
        1 if row >= 0 else -1 if claimed_by_crowd(prior, target) else 0
        for prior, row in zip(priors, matched, strict=True)
    ]
    return matched, state, len(served)


@pytest.mark.parametrize("threshold", [0.5, 0.25, None])
def test_rule(threshold: float | None) -> None:
    seen, beyond = set(), 0
    for seed in range(60):
        source = random.Random(seed)
        priors = [random_box(source, 7, 5) for _ in range(source.choice([1, 4, 25]))]
        target = random_target(source, source.choice([0, 1, 3, 8]), 7, 5, crowd=0.15)
        priors += [tuple(box) for box in target["boxes"][-2:].tolist()] * 2  # several priors with an IoU of exactly 1
        assigner = Bipartite(threshold, block_size=source.choice([None, 1, 3]))
        assignment = assigner(torch.tensor(priors, dtype=torch.float32), target)
        matched, state, served = by_the_rule(priors, target, threshold)
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == state
        seen |= set(state)
        beyond += state.count(1) - served
    assert seen == {-1, 0, 1}
    assert (beyond > 0) == (threshold is not None)


def test_many_objects_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    ask = Bipartite._ask

    def counted(self: Bipartite, reach: Reach, asking: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rounds.append(len(asking))
        return ask(self, reach, asking, *others)

    monkeypatch.setattr(Bipartite, "_ask", counted)
    predictions, target = crowded_scene(3000, 150)
    assert Bipartite(None)(predictions.priors, target).positive.sum() > 140
    assert rounds[0] == 150
    assert len(rounds) < 15


def test_two_objects_with_one_best_prior_both_get_a_prior() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 30], [50.0, 0, 60, 10]])
    target = {"boxes": torch.tensor([[0.0, 0, 10, 9], [0.0, 0, 10, 8]]), "labels": torch.tensor([0, 0])}
    # IoU 0.9 and 0.8 with the first prior, 0.3 and 0.27 with the second.
    assert Bipartite()(priors, target).matched.tolist() == [0, 1, -1]
    # Forcing each object's best prior instead leaves the second object without one.
    assert MaxIoU(0.5, 0.5, "reassign")(priors, target).matched.tolist() == [0, -1, -1]


def test_the_highest_overlap_of_all_comes_first_not_the_first_object() -> None:
    # The smaller object, visited first, has the wide prior as its best at 0.5; the larger one wants it at 0.9.
    priors = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 4, 5]])
    target = {"boxes": torch.tensor([[0.0, 0, 5, 10], [0.0, 0, 9, 10]]), "labels": torch.tensor([0, 0])}
    assert Bipartite(None)(priors, target).matched.tolist() == [1, 0]


def test_an_overlap_that_does_not_count_gives_no_prior() -> None:
    priors = torch.tensor([[0.0, 0, 1000, 1000], [0.0, 0, 4, 4]])
    speck = {"boxes": torch.tensor([[500.0, 500, 500.9, 501]]), "labels": torch.tensor([0])}  # IoU 9e-7
    assert Bipartite()(priors, speck).state.tolist() == [0, 0]
    assert Bipartite(min_iou=0)(priors, speck).state.tolist() == [1, 0]
    apart = {"boxes": torch.tensor([[2000.0, 0, 2010, 10]]), "labels": torch.tensor([0])}
    assert Bipartite(min_iou=0)(priors, apart).state.tolist() == [0, 0]


def test_more_objects_than_priors() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 6], [0.0, 0, 10, 9], [0.0, 0, 10, 8]])
    target = {"boxes": boxes, "labels": torch.zeros(3, dtype=torch.int64)}
    assert Bipartite()(torch.tensor([[0.0, 0, 10, 10]]), target).matched.tolist() == [1]


@pytest.mark.parametrize(("priors", "objects"), [(0, 0), (0, 3), (4, 0)])
def test_nothing_to_assign(priors: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    assert Bipartite()(torch.rand(priors, 4), target).state.tolist() == [0] * priors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_threshold": 0}, "`positive_threshold` must be finite and above 0 and at most 1"),
        ({"min_iou": 1}, "`min_iou` must be finite and at least 0 and below 1"),
        ({"crowd_threshold": 2}, "`crowd_threshold` must be finite and above 0 and at most 1"),
        ({"block_size": 0}, "`block_size` must be finite and at least 1"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bipartite(**options)
