"""Variance voting against the formula in plain loops, and at its edges."""

import math

import pytest
import torch
from torch import Tensor

from lossatlas.boxes import voting
from lossatlas.boxes.nms import batched_nms
from lossatlas.boxes.voting import variance_voting


def scene(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20
    size = 5 + 10 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    variance = 0.1 + torch.rand(count, 4, generator=generator, dtype=torch.float64) * 9
    labels = torch.randint(0, 2, (count,), generator=generator)
    return torch.cat((start, start + size), 1), torch.rand(count, generator=generator), variance, labels


def iou(a: list[float], b: list[float]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def vote(kept: int, boxes: Tensor, variance: Tensor, labels: Tensor, sigma: float, threshold: float) -> list[float]:
    result = []
    for c in range(4):
        top = bottom = 0.0
        for i in range(len(boxes)):
            overlap = iou(boxes[kept].tolist(), boxes[i].tolist())
            if labels[i] == labels[kept] and overlap > threshold:
                share = math.exp(-((1 - overlap) ** 2) / sigma) / float(variance[i, c])
                top += share * float(boxes[i, c])
                bottom += share
        result.append(top / bottom)
    return result


@pytest.mark.parametrize("block", [256, 3])
def test_votes_are_the_formulas(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voting, "_BLOCK", block)
    boxes, scores, variance, labels = scene(40)
    kept, voted = variance_voting(boxes, scores, variance, 0.4, 0.1, labels=labels, vote_threshold=0.05)
    assert torch.equal(kept, batched_nms(boxes, scores, labels, 0.4))
    expected = [vote(int(k), boxes, variance, labels, 0.1, 0.05) for k in kept]
    torch.testing.assert_close(voted, torch.tensor(expected, dtype=torch.float64))


def test_without_labels_there_is_one_class() -> None:
    boxes, scores, variance, _ = scene(20)
    one = variance_voting(boxes, scores, variance)
    other = variance_voting(boxes, scores, variance, labels=torch.full((20,), 3))
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.boxes, other.boxes)


def test_a_box_alone_stays_where_it_is_even_without_an_area() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5], [20, 20, 30, 30], [50, 50, 50, 60]])
    indices, voted = variance_voting(boxes, torch.tensor([0.5, 0.9, 0.1]), torch.ones(3, 4))
    assert indices.tolist() == [1, 0, 2]
    assert torch.equal(voted, boxes[indices])


def test_the_surest_box_wins() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11]])
    for variance in (1e-30, 0.0):
        spread = torch.tensor([[1.0] * 4, [variance] * 4])
        voted = variance_voting(boxes, torch.tensor([0.9, 0.8]), spread, sigma=1.0).boxes
        torch.testing.assert_close(voted, boxes[1:])
    huge = torch.full((2, 4), 1e38)
    assert variance_voting(boxes, torch.tensor([0.9, 0.8]), huge).boxes.isfinite().all()


def test_nothing_and_bad_arguments() -> None:
    empty = torch.zeros(0, 4)
    assert variance_voting(empty, torch.zeros(0), empty).boxes.shape == (0, 4)
    boxes, scores, variance, _ = scene(5)
    with pytest.raises(ValueError, match=r"`variance` must have the shape of `boxes`, \(5, 4\), but got \(4, 4\)"):
        variance_voting(boxes, scores, variance[1:])
    with pytest.raises(ValueError, match=r"`scores` must have shape \(5,\)"):
        variance_voting(boxes, scores[1:], variance)
    with pytest.raises(ValueError, match=r"`sigma` must be finite and above 0"):
        variance_voting(boxes, scores, variance, sigma=0)
    with pytest.raises(ValueError, match=r"`vote_threshold` must be"):
        variance_voting(boxes, scores, variance, vote_threshold=1.0)
