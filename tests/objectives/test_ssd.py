"""SSD's objective: its formula written as loops, a case by hand, mining and detections."""

import math
from typing import Any

import pytest
import torch

from lossatlas.assign import Bipartite, HardNegativeSampler
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.losses import SoftmaxFocalLoss, giou_loss, softmax_focal_loss
from lossatlas.objectives import SSD, SSDOutputs
from tests.objectives.cases import CASES, anchors
from tests.objectives.scenes import CLASSES, TARGETS, gradient
from tests.objectives.test_retinanet import smooth_l1


def costs(logits: list[float]) -> list[float]:
    """Minus the log-probabilities."""
    total = math.log(sum(map(math.exp, logits)))
    return [total - logit for logit in logits]


def iou(one: list[float], other: list[float]) -> float:
    width = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def by_the_formula(outputs: SSDOutputs, limit: float, without_positives: int = 0) -> tuple[float, float, int]:
    """Sums over the batch of the class and the box term, and the positives."""
    class_sum = box_sum = 0.0
    count = 0
    for image, (assignment, target) in enumerate(zip(SSD().assign(outputs, TARGETS), TARGETS, strict=True)):
        crowd = target.get("iscrowd", torch.zeros(len(target["boxes"]), dtype=torch.bool))
        objects = target["boxes"][~crowd].tolist()
        negatives: list[tuple[float, int]] = []
        positives = 0
        for prior, (state, row) in enumerate(zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)):
            cost = costs(outputs.class_logits[image, prior].tolist())
            anchor = outputs.anchors[prior].tolist()
            if state == 0 and max((iou(anchor, box) for box in objects), default=0) < limit:
                negatives.append((cost[0], prior))
            if state == 1:
                positives += 1
                class_sum += cost[1 + int(target["labels"][row])]
                ax1, ay1, ax2, ay2 = anchor
                x1, y1, x2, y2 = target["boxes"][row].tolist()
                aw, ah, w, h = ax2 - ax1, ay2 - ay1, x2 - x1, y2 - y1
                encoded = [
                    (x1 + x2 - ax1 - ax2) / 2 / aw / 0.1, (y1 + y2 - ay1 - ay2) / 2 / ah / 0.1,
                    math.log(w / aw) / 0.2, math.log(h / ah) / 0.2,
                ]  # fmt: skip
                deltas = outputs.deltas[image, prior].tolist()
                box_sum += sum(smooth_l1(d - e, 1) for d, e in zip(deltas, encoded, strict=True))
        wanted = 3 * positives if positives else without_positives
        class_sum += sum(cost for cost, _ in sorted(negatives, reverse=True)[:wanted])
        count += positives
    return class_sum, box_sum, count


def given() -> SSDOutputs:
    outputs: SSDOutputs = CASES["ssd"].outputs(CASES["ssd"].leaves(3))
    return outputs


@pytest.mark.parametrize(("limit", "without_positives"), [(0.5, 0), (0.2, 0), (0.5, 7)])
def test_formula(limit: float, without_positives: int) -> None:
    outputs = given()
    class_sum, box_sum, count = by_the_formula(outputs, limit, without_positives)
    assert count > 4
    sampler = HardNegativeSampler(overlap_limit=limit, without_positives=without_positives)
    terms = SSD(sampler=sampler, class_weight=2, box_weight=3)(outputs, TARGETS)
    assert terms["class"].item() == pytest.approx(2 * class_sum / count, rel=1e-6)
    assert terms["box"].item() == pytest.approx(3 * box_sum / count, rel=1e-6)


def test_the_limit_matters_where_the_threshold_does_not() -> None:
    outputs = given()
    assigner = Bipartite(positive_threshold=None)
    wide, tight = (
        SSD(assigner=assigner, sampler=HardNegativeSampler(ratio=100, overlap_limit=limit)) for limit in (1.0, 0.3)
    )
    sampled = [objective.sample(outputs, objective.assign(outputs, TARGETS), TARGETS) for objective in (wide, tight)]
    assert sampled[0][0].negative.sum() > sampled[1][0].negative.sum()


# Two priors of 10 x 10 pixels away from everything, one that is the object and one that overlaps it by a third.
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10], [40.0, 0, 50, 10], [60.0, 0, 70, 10], [80.0, 0, 90, 10]])


def small(logits: list[list[float]]) -> SSDOutputs:
    deltas = torch.zeros(1, 5, 4)
    deltas[0, 0] = torch.tensor([0.5, -2.0, 0.0, 0.0])
    return SSDOutputs(torch.tensor([logits]), deltas, ANCHORS)


def test_a_case_by_hand() -> None:
    ln2, ln3 = math.log(2), math.log(3)
    # -ln softmax of the background: ln 3, ln 2, ln 2, ln 3 + tiny, ...
    logits = [[0.0, ln2, 0.0], [0.0, 0.0, -99], [ln2, 0.0, 0.0], [0.0, 0.0, 0.0], [99.0, 0.0, 0.0]]
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}
    terms = SSD()(small(logits), [target])
    # The object: -ln 1/2. Three hardest negatives: -ln 1/3, -ln 1/2 and -ln 1/2. The box: 0.5²/2 + (2 - 1/2).
    assert terms["class"].item() == pytest.approx(ln2 + ln3 + ln2 + ln2, rel=1e-5)
    assert terms["box"].item() == pytest.approx(0.125 + 1.5)


def test_an_image_without_objects_trains_as_many_negatives_as_asked() -> None:
    logits = [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert SSD()(small(logits), [nothing]).total.item() == 0
    some = SSD(sampler=HardNegativeSampler(without_positives=2))(small(logits), [nothing])
    assert some["class"].item() == pytest.approx(2 * math.log(3))


def test_background_last() -> None:
    outputs = given()
    moved = SSDOutputs(outputs.class_logits.roll(-1, dims=2), outputs.deltas, outputs.anchors)
    assert SSD(background="last")(moved, TARGETS).total.item() == pytest.approx(SSD()(outputs, TARGETS).total.item())
    for one, other in zip(SSD(background="last").decode(moved), SSD().decode(outputs), strict=True):
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["scores"], other["scores"])


def test_without_a_sampler_every_prior_is_trained() -> None:
    raw = CASES["ssd"].leaves(3)
    outputs = CASES["ssd"].outputs(raw)
    objective = SSD(class_loss=SoftmaxFocalLoss(gamma=2.0), sampler=None)
    terms = objective(outputs, TARGETS)
    index = torch.zeros(outputs.class_logits.shape[:2], dtype=torch.int64)
    count = 0
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        index[image, assignment.positive] = 1 + target["labels"][assignment.matched[assignment.positive]]
        index[image, assignment.ignored] = -1
        count += int(assignment.positive.sum())
    expected = softmax_focal_loss(outputs.class_logits.movedim(2, 1), index, ignore_index=-1, normalizer=count)
    torch.testing.assert_close(terms["class"], expected)
    terms["class"].backward()
    assert ((gradient(raw["class_logits"]) != 0).all(-1) == (index >= 0)).all()


def test_only_what_is_sampled_gets_a_gradient() -> None:
    raw = CASES["ssd"].leaves(3)
    outputs, objective = CASES["ssd"].outputs(raw), SSD(box_loss=giou_loss)
    assignments = objective.assign(outputs, TARGETS)
    sampled = torch.stack([~one.ignored for one in objective.sample(outputs, assignments, TARGETS)])
    positive = torch.stack([one.positive for one in assignments])
    assert sampled.sum() == 4 * positive.sum()
    objective(outputs, TARGETS).total.backward()
    assert ((gradient(raw["class_logits"]) != 0).all(-1) == sampled).all()
    assert ((gradient(raw["deltas"]) != 0).any(-1) == positive).all()


def test_finds_the_objects_that_its_targets_describe() -> None:
    raw = CASES["ssd"].leaves(3)
    logits, deltas = torch.zeros_like(raw["class_logits"]), torch.zeros_like(raw["deltas"])
    logits[..., 0] = 20
    place = anchors(raw)
    outputs = SSDOutputs(logits, deltas, place)
    for image, (assignment, target) in enumerate(zip(SSD().assign(outputs, TARGETS), TARGETS, strict=True)):
        for prior in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[prior]
            logits[image, prior] = 0
            logits[image, prior, 1 + target["labels"][row]] = 3 + row
            deltas[image, prior] = DeltaCoder.ssd().encode(target["boxes"][row].double(), place[prior])
    found = SSD().decode(outputs, score_threshold=0.5)
    for detections, rows, target in zip(found, ([2, 1, 0], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"].float(), target["boxes"][rows], rtol=0, atol=1e-4)
        expected = [math.exp(3 + row) / (math.exp(3 + row) + CLASSES) for row in rows]
        assert detections["scores"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_loss": giou_loss}, "`class_loss` must be one of cross_entropy, .* but got giou_loss"),
        ({"background": 0}, "`background` must be one of 'first', 'last', but got 0"),
        ({"class_weight": -1}, "`class_weight` must be finite and at least 0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SSD(**options)


def test_wrong_shapes_are_named() -> None:
    logits, deltas, priors = torch.zeros(2, 5, 4), torch.zeros(2, 5, 4), torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(B, P, C\), but got \(5, 4\)"):
        SSDOutputs(logits[0], deltas, priors)
    with pytest.raises(ValueError, match=r"`deltas` must have shape \(2, 5, 4\), but got \(2, 6, 4\)"):
        SSDOutputs(logits, torch.zeros(2, 6, 4), priors)
    with pytest.raises(ValueError, match="`targets` must have one entry for each of the 2 images, but has 0"):
        SSD()(SSDOutputs(logits, deltas, priors), [])
