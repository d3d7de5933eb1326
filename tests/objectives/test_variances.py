"""Objectives of networks that say how unsure they are: the KL loss in its slot, and the vote at decoding."""

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.boxes.coders import DeltaCoder, PointDistanceCoder
from lossatlas.boxes.nms import batched_nms, soft_nms
from lossatlas.boxes.voting import decoded_variance, vote_boxes
from lossatlas.losses import kl_box_loss
from lossatlas.objectives import FCOS, RetinaNet
from tests.boxes.test_voting import vote
from tests.objectives.scenes import TARGETS, fcos_outputs, gradient, leaf, retinanet_outputs


def unsure(kind: str, **options: Any) -> tuple[Any, Any, str]:
    """An objective, outputs with log-variances and the name of the numbers that they belong to."""
    if kind == "fcos":
        objective: Any = FCOS(box_weighting="none", **options)
        outputs: Any = fcos_outputs()
        name = "distances"
    else:
        objective, outputs, name = RetinaNet(**options), retinanet_outputs(), "deltas"
    shape = getattr(outputs, name).shape
    return objective, dataclasses.replace(outputs, log_variances=leaf(*shape, seed=9)), name


def encoded(kind: str, outputs: Any, place: int, box: Tensor) -> Tensor:
    if kind == "fcos":
        return PointDistanceCoder().encode(box.double(), outputs.points[place], outputs.strides[place])
    return DeltaCoder().encode(box.double(), outputs.anchors[place])


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_formula(kind: str, normalizer: Any) -> None:
    objective, outputs, name = unsure(kind, box_loss=kl_box_loss, normalizer=normalizer)
    assignments = objective.assign(outputs, TARGETS)
    counts = [int(assignment.positive.sum()) for assignment in assignments]
    expected = 0.0
    slopes = torch.zeros_like(outputs.log_variances)
    for image, (assignment, target) in enumerate(zip(assignments, TARGETS, strict=True)):
        denominator = sum(counts) if normalizer == "batch" else 3 * max(counts[image], 1)
        for place in assignment.positive.nonzero().flatten().tolist():
            wanted = encoded(kind, outputs, place, target["boxes"][assignment.matched[place]])
            numbers = getattr(outputs, name)[image, place].tolist()
            alphas = outputs.log_variances[image, place].tolist()
            for side, (x, y, alpha) in enumerate(zip(numbers, wanted.tolist(), alphas, strict=True)):
                d = abs(x - y)
                distance = d**2 / 2 if d < 1 else d - 0.5
                expected += (math.exp(-alpha) * distance + alpha / 2) / denominator
                slopes[image, place, side] = (0.5 - math.exp(-alpha) * distance) / denominator
    assert sum(counts) > 5
    terms = objective(outputs, TARGETS)
    assert terms["box"].item() == pytest.approx(expected, rel=1e-6)
    terms.total.backward()
    torch.testing.assert_close(gradient(outputs.log_variances), slopes, rtol=1e-5, atol=1e-7)


def test_variances_must_come_with_the_loss() -> None:
    with pytest.raises(ValueError, match=r"`outputs\.log_variances` must be given for kl_box_loss, but is None"):
        RetinaNet(box_loss=functools.partial(kl_box_loss, min_log_variance=-5.0))(retinanet_outputs(), TARGETS)
    with pytest.raises(ValueError, match="`regression` must be 'encoded' for kl_box_loss"):
        FCOS(box_loss=kl_box_loss, regression="boxes")
    outputs = retinanet_outputs()
    with pytest.raises(ValueError, match=r"`log_variances` must have shape \(3, 405, 4\), but got \(3, 404, 4\)"):
        dataclasses.replace(outputs, log_variances=outputs.deltas[:, 1:])
    with pytest.raises(ValueError, match=r"`voting` needs variances, but the outputs have no `log_variances`"):
        RetinaNet().decode(outputs, voting=vote_boxes)


def test_variances_of_edges_at_distances_in_strides() -> None:
    points, strides = torch.tensor([[20.0, 30.0]]), torch.tensor([8.0])
    log_variance = torch.tensor([[0.0, 1.0, -2.0, 3.0]])
    found = decoded_variance(
        lambda distances: PointDistanceCoder().decode(distances, points, strides), torch.ones(1, 4), log_variance
    )
    torch.testing.assert_close(found, 64 * log_variance.exp())


def test_variances_of_edges_of_an_anchor() -> None:
    anchor = torch.tensor([[10.0, 20.0, 50.0, 30.0]], dtype=torch.float64)
    deltas, log_variance = torch.tensor([[0.3, -0.2, 0.5, -0.4]]).double(), torch.tensor([[-1.0, 0.5, -2.0, 1.0]])
    found = decoded_variance(lambda deltas: DeltaCoder().decode(deltas, anchor), deltas, log_variance)
    w, h = 40 * math.exp(0.5), 10 * math.exp(-0.4)
    x = 40**2 * math.exp(-1) + (w / 2) ** 2 * math.exp(-2)
    y = 10**2 * math.exp(0.5) + (h / 2) ** 2 * math.exp(1)
    assert found[0].tolist() == pytest.approx([x, y, x, y])


def test_variances_of_any_size_are_finite() -> None:
    for size in (1e4, -1e4):
        found = decoded_variance(lambda numbers: numbers * 1e3, torch.ones(2, 4), torch.full((2, 4), size))
        assert found.isfinite().all()
        assert (found > 0).all()


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
@pytest.mark.parametrize("nms", [batched_nms, functools.partial(soft_nms, decay="gaussian")], ids=["hard", "soft"])
def test_the_vote_follows_the_suppression(kind: str, nms: Any) -> None:
    objective, outputs, _ = unsure(kind)
    options: Any = {"score_threshold": 0.5, "max_detections": 12}
    before = objective.decode(outputs, nms=nms, **options)
    after = objective.decode(outputs, nms=nms, voting=functools.partial(vote_boxes, sigma=0.1), **options)
    every = objective.decode(outputs, nms=None, score_threshold=0.5, max_detections=1000)
    for image, (old, new, candidates) in enumerate(zip(before, after, every, strict=True)):
        assert torch.equal(old["scores"], new["scores"])
        assert torch.equal(old["labels"], new["labels"])
        assert not torch.equal(old["boxes"], new["boxes"])
        boxes, labels = candidates["boxes"], candidates["labels"]
        variance = variances(kind, outputs, image, boxes)
        for box, label, moved in zip(old["boxes"], old["labels"], new["boxes"], strict=True):
            kept = next(i for i in range(len(boxes)) if torch.equal(boxes[i], box) and labels[i] == label)
            expected = vote(kept, boxes, variance, labels, 0.1, 0.01)
            assert moved.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def variances(kind: str, outputs: Any, image: int, boxes: Tensor) -> Tensor:
    """Variances of the edges of the given boxes, which are looked up among all that the outputs hold."""
    alpha = outputs.log_variances[image]
    if kind == "fcos":
        every = PointDistanceCoder().decode(outputs.distances[image], outputs.points, outputs.strides)
        spread = alpha.exp() * outputs.strides[:, None] ** 2
    else:
        every = DeltaCoder().decode(outputs.deltas[image], outputs.anchors)
        anchor = (outputs.anchors[:, 2:] - outputs.anchors[:, :2]).square()
        sides = (every[:, 2:] - every[:, :2]).square() / 4
        spread = (alpha[:, :2].exp() * anchor + alpha[:, 2:].exp() * sides).repeat(1, 2)
    return torch.stack([spread[(every == box).all(1).nonzero()[0, 0]] for box in boxes]).detach()
