"""Suppression of every kind against its rule written as loops."""

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.boxes import nms
from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.boxes.nms import batched_nms, diou_nms, soft_nms


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


def diou(a: list[float], b: list[float], beta: float) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    distance2 = sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
    diagonal2 = sum((max(a[i + 2], b[i + 2]) - min(a[i], b[i])) ** 2 for i in (0, 1))
    return width * height / (areas - width * height) - math.pow(distance2 / diagonal2, beta)


@pytest.mark.parametrize("beta", [1.0, 0.6])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_rule_of_diou_nms(threshold: float, beta: float) -> None:
    differs = False
    for count, levels in ((0, 1), (1, 1), (40, 3), (120, 1000)):
        boxes, scores, labels = (tensor.double() for tensor in scene(count, 7, levels))
        rows, values, classes = boxes.tolist(), scores.tolist(), labels.tolist()
        expected: list[int] = []
        for i in sorted(range(count), key=lambda i: (-values[i], i)):
            if all(classes[i] != classes[j] or diou(rows[i], rows[j], beta) <= threshold for j in expected):
                expected.append(i)
        kept = diou_nms(boxes, scores, labels, threshold, beta=beta).tolist()
        assert kept == expected
        differs |= kept != batched_nms(boxes, scores, labels, threshold).tolist()
    assert differs or threshold == 0.9


def softened(
    boxes: list[list[float]], scores: list[float], labels: list[float], threshold: float, decay: str, sigma: float
) -> list[tuple[int, float]]:
    """Rows and scores that are kept, by the pseudo-code of the paper."""
    pairwise = pairwise_iou(torch.tensor(boxes).reshape(-1, 4).double(), torch.tensor(boxes).reshape(-1, 4).double())
    iou = pairwise.tolist()
    rest, kept = dict(enumerate(scores)), []
    while rest:
        best = min(rest, key=lambda i: (-rest[i], i))
        score = rest.pop(best)
        if score < 0.001:
            break
        kept.append((best, score))
        for i in rest:
            if labels[i] == labels[best]:
                if decay == "gaussian":
                    rest[i] *= math.exp(-(iou[i][best] ** 2) / sigma)
                elif iou[i][best] > threshold:
                    rest[i] *= 1 - iou[i][best]
    return kept


@pytest.mark.parametrize(
    ("decay", "threshold", "sigma"),
    [("linear", 0.3, 1), ("linear", 0.6, 1), ("gaussian", 0.3, 0.5), ("gaussian", 0.3, 0.1)],
)
@pytest.mark.parametrize(("count", "levels"), [(0, 1), (1, 1), (30, 3), (80, 1000)])
def test_rule_of_soft_nms(count: int, levels: int, decay: Any, threshold: float, sigma: float) -> None:
    boxes, scores, labels = (tensor.double() for tensor in scene(count, 5, levels))
    expected = softened(boxes.tolist(), scores.tolist(), labels.tolist(), threshold, decay, sigma)
    kept = soft_nms(boxes, scores, labels, threshold, decay=decay, sigma=sigma)
    assert kept.indices.tolist() == [row for row, _ in expected]
    assert kept.scores.tolist() == pytest.approx([score for _, score in expected])
    assert kept.indices.dtype == torch.int64
    assert all(a >= b for a, b in zip(kept.scores[:-1], kept.scores[1:], strict=True))


def test_soft_nms_drops_what_falls_below_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 9], [50.0, 0, 60, 10]])
    kept = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.05]), torch.zeros(3).long(), score_threshold=0.06)
    assert kept.indices.tolist() == [0, 1]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.08])
    assert soft_nms(boxes, torch.zeros(3), torch.zeros(3).long()).indices.tolist() == []


def test_half_precision_scores_are_computed_in_float32() -> None:
    boxes, scores, labels = scene(30, 2, 1000)
    half = soft_nms(boxes, scores.half(), labels)
    assert half.scores.dtype == torch.float32
    assert torch.equal(half.scores, soft_nms(boxes, scores.half().float(), labels).scores)


@pytest.mark.parametrize("suppression", [diou_nms, soft_nms, functools.partial(soft_nms, decay="gaussian")])
def test_wrong_arguments_of_the_others_are_named(suppression: Any) -> None:
    with pytest.raises(ValueError, match=r"`scores` must have shape \(2,\)"):
        suppression(torch.zeros(2, 4), torch.zeros(3), torch.zeros(2).long(), 0.5)
    with pytest.raises(ValueError, match="`iou_threshold` must be finite and at least 0 and at most 1"):
        suppression(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2).long(), -0.5)
    with pytest.raises(ValueError, match="`sigma` must be finite and above 0"):
        soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), sigma=0)
    with pytest.raises(ValueError, match="`decay` must be one of 'linear', 'gaussian'"):
        soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), decay="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`beta` must be finite and above 0"):
        diou_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), 0.5, beta=0)
