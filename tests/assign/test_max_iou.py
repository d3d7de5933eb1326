"""Max-IoU assignment against its rule written as loops, and against published examples."""

import random
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import MaxIoU
from lossatlas.boxes.geometry import pairwise_iou
from tests.assign.scenes import (
    Box,
    answer_by_content,
    area,
    float_boxes,
    intersection,
    iou,
    random_box,
    random_target,
    visiting_order,
)


def by_the_rule(assigner: MaxIoU, priors: list[Box], target: dict[str, Tensor]) -> tuple[list[int], list[int]]:
    """Exact arithmetic, one pair at a time."""
    boxes: list[Box] = [tuple(box) for box in target["boxes"].tolist()]
    order = visiting_order(target)
    crowds = [box for box, crowd in zip(boxes, target["iscrowd"].tolist(), strict=True) if crowd]
    high, low, least = (
        Fraction(str(value))
        for value in (assigner.positive_threshold, assigner.negative_threshold, assigner.min_low_quality_iou)
    )
    best_of_object = {row: max((iou(prior, boxes[row]) for prior in priors), default=Fraction(0)) for row in order}
    matched, state = [], []
    for prior in priors:
        overlaps = {row: iou(prior, boxes[row]) for row in order}
        best = max(overlaps.values(), default=Fraction(0))
        own = next((row for row in order if overlaps[row] == best), -1)
        object_ = own if best >= high else -1
        claims = [
            row
            for row in order
            if overlaps[row] == best_of_object[row] and overlaps[row] > 0 and overlaps[row] >= least
        ]
        if claims and assigner.low_quality == "keep":
            object_ = own
        if claims and assigner.low_quality == "reassign":
            strongest = max(overlaps[row] for row in claims)
            object_ = next(row for row in claims if overlaps[row] == strongest)
        crowded = assigner.crowd_threshold is not None and any(
            area(prior) > 0 and intersection(prior, crowd) / Fraction(int(area(prior))) >= assigner.crowd_threshold
            for crowd in crowds
        )
        matched.append(object_)
        state.append(1 if object_ >= 0 else -1 if low <= best < high or crowded else 0)
    return matched, state


OPTIONS: list[dict[str, Any]] = [
    {"low_quality": "none"},
    {"low_quality": "keep"},
    {"low_quality": "reassign"},
    {"low_quality": "reassign", "min_low_quality_iou": 0.25},
    {"low_quality": "keep", "min_low_quality_iou": 0.5, "positive_threshold": 0.75, "negative_threshold": 0.25},
    {"positive_threshold": 1, "negative_threshold": 1, "low_quality": "none", "crowd_threshold": 1},
    {"positive_threshold": 0.5, "negative_threshold": 0, "crowd_threshold": None},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rule(options: dict[str, Any]) -> None:
    positives = 0
    for seed in range(60):
        source = random.Random(seed)
        priors = [random_box(source, 8, 5) for _ in range(source.choice([1, 5, 30]))]
        target = random_target(source, source.choice([0, 1, 3, 6]), 8, 5, crowd=0.2)
        priors += [tuple(box) for box in target["boxes"][-2:].tolist()]  # an IoU of exactly 1
        assigner = MaxIoU(**options, block_size=source.choice([None, 1, 4]))
        assignment = assigner(torch.tensor(priors, dtype=torch.float32), target)
        matched, state = by_the_rule(assigner, priors, target)
        assert assignment.matched.tolist() == matched
        assert assignment.state.tolist() == state
        positives += state.count(1)
    assert positives > 0


def test_detectron2_published_matrix() -> None:
    # Objects in rows; thresholds 0.7 and 0.3; detectron2's own test expects these matches and labels.
    overlaps = torch.tensor([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]])
    assignment = MaxIoU.rpn().match(overlaps.T)
    matches, labels = torch.tensor([1, 1, 2, 0]), [-1, 1, 0, 1]
    assert assignment.to_detectron2()[1].tolist() == labels
    assert assignment.matched[assignment.positive].tolist() == matches[assignment.positive].tolist()
    assert assignment.to_torchvision().tolist() == [-2, 1, -1, 0]


def test_reassigned_priors_of_the_published_matrix_go_to_the_object_they_overlap_most() -> None:
    overlaps = torch.tensor([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]])
    assignment = MaxIoU(0.7, 0.3, "reassign").match(overlaps.T)
    # mmdetection gives [-1, 3, 0, 3]: the last object takes both priors from the objects that overlap them more.
    assert assignment.to_mmdetection().tolist() == [-1, 2, 0, 1]


def test_keep_and_reassign_differ_where_a_prior_is_the_best_of_an_object_it_overlaps_less() -> None:
    # The second object has no better prior than the first one, which overlaps the first object more.
    overlaps = torch.tensor([[0.9, 0.45], [0.95, 0.0], [0.1, 0.2]])
    assert MaxIoU(low_quality="none").match(overlaps).matched.tolist() == [0, 0, -1]
    assert MaxIoU(low_quality="keep").match(overlaps).matched.tolist() == [0, 0, -1]
    assert MaxIoU(low_quality="reassign").match(overlaps).matched.tolist() == [1, 0, -1]


@pytest.mark.parametrize("low_quality", ["none", "keep", "reassign"])
def test_an_object_that_overlaps_nothing_makes_nothing_positive(low_quality: Any) -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [5.0, 5.0, 5.0, 5.0]])
    boxes = torch.tensor([[100.0, 100, 110, 110], [7.0, 7.0, 7.0, 7.0]])
    assignment = MaxIoU(low_quality=low_quality)(priors, {"boxes": boxes, "labels": torch.tensor([0, 0])})
    assert assignment.state.tolist() == [0, 0, 0]


def test_crowd_regions_are_ignored_not_matched() -> None:
    priors = torch.tensor([[0.0, 0, 10, 10], [2.0, 2, 4, 4], [8.0, 0, 18, 10], [40.0, 40, 50, 50]])
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [2.0, 2, 4, 5]]),
        "labels": torch.tensor([0, 0]),
        "iscrowd": torch.tensor([True, False]),
    }
    # The second prior belongs to the object within the crowd region, 20 % of the third lies in the region.
    assert MaxIoU()(priors, target).state.tolist() == [-1, 1, 0, 0]
    assert MaxIoU(crowd_threshold=0.2)(priors, target).state.tolist() == [-1, 1, -1, 0]
    assert MaxIoU(crowd_threshold=None)(priors, target).state.tolist() == [0, 1, 0, 0]
    as_numbers = target | {"iscrowd": torch.tensor([1, 0])}
    assert MaxIoU()(priors, as_numbers).state.tolist() == [-1, 1, 0, 0]


@pytest.mark.parametrize(("priors", "objects"), [(0, 0), (0, 3), (4, 0)])
def test_nothing_to_assign(priors: int, objects: int) -> None:
    target = {"boxes": torch.rand(objects, 4), "labels": torch.zeros(objects, dtype=torch.int64)}
    for low_quality in ("none", "keep", "reassign"):
        assignment = MaxIoU(low_quality=low_quality)(torch.rand(priors, 4), target)
        assert assignment.state.tolist() == [0] * priors


@pytest.mark.parametrize("low_quality", ["none", "keep", "reassign"])
def test_blocks_of_any_size_give_the_dense_answer(low_quality: Any) -> None:
    priors, boxes = float_boxes(211, 0), float_boxes(37, 1)
    target = {"boxes": boxes, "labels": torch.zeros(37, dtype=torch.int64), "iscrowd": torch.arange(37) % 9 == 0}
    dense = MaxIoU(low_quality=low_quality, crowd_threshold=None).match(pairwise_iou(priors, boxes[~target["iscrowd"]]))
    rows = (~target["iscrowd"]).nonzero().squeeze(1)
    answers = [
        MaxIoU(low_quality=low_quality, block_size=size)(priors, target) for size in (1, 2, 17, 210, 211, 500, None)
    ]
    for answer in answers:
        assert torch.equal(answer.matched, answers[0].matched)
        assert torch.equal(answer.state, answers[0].state)
        assert torch.equal(answer.matched[answer.positive], rows[dense.matched[dense.positive]])
        assert torch.equal(answer.positive, dense.positive)


@pytest.mark.parametrize("low_quality", ["none", "keep", "reassign"])
def test_the_order_of_objects_does_not_matter(low_quality: Any) -> None:
    for seed in range(20):
        source = random.Random(seed)
        priors = torch.tensor([random_box(source, 6, 4) for _ in range(25)], dtype=torch.float32)
        target = random_target(source, 6, 6, 4, crowd=0.2)
        target["boxes"][2] = target["boxes"][3]
        first = MaxIoU(low_quality=low_quality)(priors, target)
        order = torch.tensor(source.sample(range(6), 6))
        shuffled = {key: value[order] for key, value in target.items()}
        second = MaxIoU(low_quality=low_quality)(priors, shuffled)
        assert torch.equal(first.state, second.state)
        assert answer_by_content(first, target) == answer_by_content(second, shuffled)


def test_half_precision_boxes_are_matched_in_float32() -> None:
    # Areas beyond 65504 px², the largest float16.
    priors = torch.tensor([[0.0, 0, 400, 400], [200.0, 0, 600, 400]], dtype=torch.float16)
    target = {"boxes": torch.tensor([[0.0, 0, 400, 380]], dtype=torch.float16), "labels": torch.tensor([0])}
    assert MaxIoU()(priors, target).state.tolist() == [1, 0]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`negative_threshold` must be finite and at least 0 and at most 0\.5"):
        MaxIoU(0.5, 0.6)
    with pytest.raises(ValueError, match="`positive_threshold` must be finite and above 0"):
        MaxIoU(0, 0)
    with pytest.raises(ValueError, match="`low_quality` must be one of 'none', 'keep', 'reassign', but got 'allow'"):
        MaxIoU(low_quality="allow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`priors` must have shape \(P, 4\)"):
        MaxIoU()(torch.zeros(1, 2, 4), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)})
