"""The region proposal network's objective: its formula written as loops, a case by hand, sampling and proposals."""

import math
from typing import Any

import pytest
import torch

from lossatlas.assign import RandomSampler
from lossatlas.losses import cross_entropy, giou_loss, l1_loss, quality_focal_loss
from lossatlas.objectives import RPN, RPNOutputs
from tests.objectives.cases import CASES, rpn_leaves, rpn_outputs
from tests.objectives.scenes import TARGETS, gradient
from tests.objectives.test_retinanet import smooth_l1

SAMPLER = RandomSampler(20, 0.25)


def by_the_formula(outputs: RPNOutputs, states: list[list[int]], objective: RPN) -> tuple[float, float, int]:
    """Sums over the sampled anchors of the objectness and the box term, and how many anchors there are."""
    class_sum = box_sum = 0.0
    count = 0
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        for anchor, state in enumerate(states[image]):
            if state == -1:
                continue
            count += 1
            logit = outputs.objectness[image, anchor].detach()
            margin = float(logit if logit.ndim == 0 else logit[1] - logit[0])
            class_sum += math.log1p(math.exp(-margin if state else margin))
            if state == 1:
                ax1, ay1, ax2, ay2 = outputs.anchors[anchor].tolist()
                x1, y1, x2, y2 = target["boxes"][assignment.matched[anchor]].tolist()
                aw, ah, w, h = ax2 - ax1, ay2 - ay1, x2 - x1, y2 - y1
                encoded = [
                    (x1 + x2 - ax1 - ax2) / 2 / aw, (y1 + y2 - ay1 - ay2) / 2 / ah, math.log(w / aw), math.log(h / ah)
                ]  # fmt: skip
                deltas = outputs.deltas[image, anchor].tolist()
                box_sum += sum(smooth_l1(d - e, 1) for d, e in zip(deltas, encoded, strict=True))
    return class_sum, box_sum, count


@pytest.mark.parametrize("name", ["rpn", "rpn_softmax"])
@pytest.mark.parametrize("normalization", ["paper", "count", "sampled"])
def test_formula(name: str, normalization: Any) -> None:
    outputs = CASES[name].outputs(CASES[name].leaves(3))
    objective = RPN(
        objectness="sigmoid" if name == "rpn" else "softmax",
        normalization=normalization,
        anchors_per_place=3,
        sampler=SAMPLER,
        objectness_weight=2,
    )
    # The third image has fewer than the five positives that are wanted.
    states = objective.sample(objective.assign(outputs, TARGETS), torch.Generator().manual_seed(4))
    class_sum, box_sum, sampled = by_the_formula(outputs, [one.state.tolist() for one in states], objective)
    terms = objective(outputs, TARGETS, generator=torch.Generator().manual_seed(4))
    places = 6 * 6 + 3 * 3
    n_cls = {"paper": 3 * 20, "count": 3 * 20, "sampled": sampled}[normalization]
    n_reg, factor = {"paper": (3 * places, 10), "count": (3 * 20, 1), "sampled": (sampled, 1)}[normalization]
    assert terms["objectness"].item() == pytest.approx(2 * class_sum / n_cls, rel=1e-6)
    assert terms["box"].item() == pytest.approx(factor * box_sum / n_reg, rel=1e-6)
    assert box_sum > 0


ANCHORS = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10], [0.0, 1, 10, 11]])


def test_a_case_by_hand() -> None:
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [40.0, 0, 50, 10]]), "labels": torch.tensor([5, 0])}
    logits = torch.tensor([[0.0, math.log(3), math.log(7), -math.log(4)]])
    deltas = torch.zeros(1, 4, 4)
    deltas[0, 2, 3] = -3.0
    # Positive: 0 and 2, and 3 (IoU 0.9 / 1.1). Costs: ln 2, ln(1 + 3), ln(1 + 1/7), ln(1 + 4).
    terms = RPN(normalization="sampled")(RPNOutputs(logits, deltas, ANCHORS), [target])
    costs = math.log(2) + math.log(4) + math.log(8 / 7) + math.log(5)
    assert terms["objectness"].item() == pytest.approx(costs / 4)
    assert terms["box"].item() == pytest.approx((3 - 0.5 + 0.1**2 / 2) / 4)  # anchor 3 is one pixel of ten too low
    terms = RPN(box_loss=l1_loss, anchors_per_place=2)(RPNOutputs(logits, deltas, ANCHORS), [target])
    assert terms["objectness"].item() == pytest.approx(costs / 256)
    assert terms["box"].item() == pytest.approx(10 * 3.1 / 2)


def test_sampling_is_that_of_the_generator() -> None:
    outputs = rpn_outputs(rpn_leaves(3))
    objective = RPN(sampler=SAMPLER)
    first, again, other = (
        objective(outputs, TARGETS, generator=torch.Generator().manual_seed(seed)).total.item() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_only_sampled_anchors_get_a_gradient() -> None:
    raw = rpn_leaves(3)
    outputs, objective = rpn_outputs(raw), RPN(sampler=SAMPLER, box_loss=giou_loss)
    sampled = objective.sample(objective.assign(outputs, TARGETS), torch.Generator().manual_seed(0))
    assert [int((~one.ignored).sum()) for one in sampled] == [20, 20, 20]
    objective.terms(outputs, TARGETS, sampled).total.backward()
    assert ((gradient(raw["objectness_logits"]) != 0) == torch.stack([~one.ignored for one in sampled])).all()
    positive = torch.stack([one.positive for one in sampled])
    assert ((gradient(raw["deltas"]) != 0).any(-1) == positive).all()


def test_anchors_that_cross_the_border_are_not_trained() -> None:
    raw = rpn_leaves(3)
    outputs = rpn_outputs(raw)
    bounded = RPNOutputs(outputs.objectness, outputs.deltas, outputs.anchors, image_sizes=[(48, 48)] * 3)
    x1, y1, x2, y2 = outputs.anchors.unbind(1)
    inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 48) & (y2 <= 48)
    assert 10 < inside.sum() < len(inside)
    for assignment in RPN().assign(bounded, TARGETS):
        assert assignment.ignored[~inside].all()
    # Each object has its best anchor among those that are left.
    matched = RPN().assign(bounded, TARGETS)[0].matched
    assert set(matched[inside].tolist()) == {-1, 0, 1, 2}
    wide = RPN(allowed_border=1000).assign(bounded, TARGETS)
    for one, other in zip(wide, RPN().assign(outputs, TARGETS), strict=True):
        assert torch.equal(one.state, other.state)
        assert torch.equal(one.matched, other.matched)


def test_a_loss_of_qualities_learns_how_well_a_box_lies() -> None:
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1])}
    outputs = RPNOutputs(torch.zeros(1, 4), torch.zeros(1, 4, 4), ANCHORS)
    terms = RPN(objectness_loss=quality_focal_loss, normalization="sampled")(outputs, [target])
    expected = quality_focal_loss(torch.zeros(4), torch.tensor([1, 0, 0, 0.9 / 1.1]))
    torch.testing.assert_close(terms["objectness"], expected)


def test_proposals_are_suppressed_level_by_level() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0.0, 1, 10, 11], [0.0, 0, 10, 10], [5.0, 5, 5, 9], [-5.0, -5, 5, 5]])
    logits = torch.tensor([[1.0, 2.0, 3.0, 9.0, 0.0]])
    outputs = RPNOutputs(logits, torch.zeros(1, 5, 4), anchors, level_sizes=(2, 3))
    (found,) = RPN().decode(outputs, [(8, 20)])
    # The second level's box stays beside the first's; the box without width is gone; clipped to the image.
    assert found["boxes"].tolist() == [[0, 0, 10, 8], [0, 1, 10, 8], [0, 0, 5, 5]]
    torch.testing.assert_close(found["scores"], torch.tensor([3.0, 2.0, 0.0]).sigmoid())
    assert found["labels"].tolist() == [0, 0, 0]
    one = RPNOutputs(logits, torch.zeros(1, 5, 4), anchors)
    assert RPN().decode(one, [(20, 20)])[0]["boxes"].tolist() == [[0, 0, 10, 10], [0, 0, 5, 5]]
    assert len(RPN().decode(outputs, max_candidates=1, iou_threshold=1.0)[0]["scores"]) == 1
    assert len(RPN().decode(outputs, max_candidates=2, iou_threshold=1.0)[0]["scores"]) == 3
    assert RPN().decode(outputs, score_threshold=0.9)[0]["scores"].tolist() == [pytest.approx(1 / (1 + math.exp(-3)))]
    assert len(RPN().decode(outputs, max_detections=1)[0]["scores"]) == 1
    pairs = RPNOutputs(torch.stack((torch.zeros_like(logits), logits), dim=2), torch.zeros(1, 5, 4), anchors, (2, 3))
    torch.testing.assert_close(RPN(objectness="softmax").decode(pairs, [(8, 20)])[0], found)


def test_wrong_arguments_are_named() -> None:
    outputs = rpn_outputs(rpn_leaves(3))
    with pytest.raises(ValueError, match=r"`objectness` must have shape \(B, P, 2\) for 'softmax'"):
        RPN(objectness="softmax")(outputs, TARGETS)
    with pytest.raises(ValueError, match=r"`objectness_loss` must be one of .* but got cross_entropy"):
        RPN(objectness_loss=cross_entropy)
    with pytest.raises(ValueError, match="`class_target` is for objectness 'sigmoid', but got 'binary' for 'softmax'"):
        RPN(objectness="softmax", class_target="binary")
    with pytest.raises(ValueError, match="`normalization` must be one of 'paper', 'count', 'sampled', but got 'none'"):
        RPN(normalization="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`level_sizes` must add up to 4, but got \[3\]"):
        RPNOutputs(torch.zeros(1, 4), torch.zeros(1, 4, 4), ANCHORS, [3])
    with pytest.raises(ValueError, match=r"`objectness` must have shape \(1, 4\) or \(1, 4, 2\), but got \(1, 4, 3\)"):
        RPNOutputs(torch.zeros(1, 4, 3), torch.zeros(1, 4, 4), ANCHORS)
    with pytest.raises(ValueError, match="`image_sizes` must have 1 entries, but has 2"):
        RPNOutputs(torch.zeros(1, 4), torch.zeros(1, 4, 4), ANCHORS, image_sizes=[(1, 1)] * 2)
