"""Non-maximum suppression against the greedy rule written as a loop."""

import pytest
import torch
from torch import Tensor

from lossatlas.boxes import nms
from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.boxes.nms import batched_nms


def greedy(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    iou = pairwise_iou(boxes, boxes).tolist()
    values, classes = scores.tolist(), labels.tolist()
    kept: list[int] = []
    for i in sorted(range(len(values)), key=lambda i: (-values[i], i)):
        if all(classes[i] != classes[j] or iou[i][j] <= threshold for j in kept):
            kept.append(i)
    return kept


def scene(count: int, seed: int, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat((start, start + 5 + torch.rand(count, 2, generator=generator) * 30), dim=1)
    scores = torch.randint(levels, (count,), generator=generator) / levels  # few levels: many ties
    return boxes, scores, torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1])
@pytest.mark.parametrize(("count", "levels"), [(0, 1), (1, 1), (40, 3), (300, 1000)])
def test_greedy_rule(count: int, levels: int, threshold: float) -> None:
    boxes, scores, labels = scene(count, 7, levels)
    assert batched_nms(boxes, scores, labels, threshold).tolist() == greedy(boxes, scores, labels, threshold)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores, labels = scene(150, 3, 50)
    expected = greedy(boxes, scores, labels, 0.4)
    for block, kept_block in ((1, 2), (7, 3), (64, 1000)):
        monkeypatch.setattr(nms, "_BLOCK", block)
        monkeypatch.setattr(nms, "_KEPT_BLOCK", kept_block)
        assert batched_nms(boxes, scores, labels, 0.4).tolist() == expected


def test_a_suppressed_box_suppresses_nothing() -> None:
    # A chain: each box overlaps only its neighbours, so that every second one stays.
    left = torch.arange(20.0) * 4
    boxes = torch.stack((left, torch.zeros(20), left + 10, torch.full((20,), 10.0)), dim=1)
    kept = batched_nms(boxes, torch.linspace(1, 0.1, 20), torch.zeros(20, dtype=torch.int64), 0.4)
    assert kept.tolist() == list(range(0, 20, 2))


def test_of_equal_scores_the_first_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    assert batched_nms(boxes, torch.ones(3), torch.tensor([1, 0, 1]), 0.5).tolist() == [0, 1]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`labels` must have shape \(2,\)"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3, dtype=torch.int64), 0.5)
    with pytest.raises(ValueError, match="`iou_threshold` must be finite and at least 0 and at most 1"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, dtype=torch.int64), 1.5)
