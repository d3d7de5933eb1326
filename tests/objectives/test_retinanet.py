"""RetinaNet's objective against its formula written as loops, and its edges."""

import math
from typing import Any

import pytest
import torch

from lossatlas.assign import Assignment, MaxIoU
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.losses import giou_loss
from lossatlas.objectives import RetinaNet, RetinaNetOutputs
from tests.objectives.scenes import EMPTY, TARGETS, gradient, retinanet_outputs


def focal(logit: float, positive: bool, alpha: float = 0.25, gamma: float = 2.0) -> float:
    p = 1 / (1 + math.exp(-logit))
    weight, miss = (alpha, 1 - p) if positive else (1 - alpha, p)
    return -weight * math.pow(miss, gamma) * math.log(1 - miss)


def smooth_l1(difference: float, beta: float) -> float:
    d = abs(difference)
    return d * d / (2 * beta) if d < beta else d - beta / 2


def by_the_formula(outputs: RetinaNetOutputs, assignments: list[Assignment]) -> tuple[float, float, list[int]]:
    """Sums over the batch of the class and the box term, and the positives of each image."""
    class_sum = box_sum = 0.0
    counts = []
    for image, (assignment, target) in enumerate(zip(assignments, TARGETS, strict=True)):
        counts.append(assignment.state.tolist().count(1))
        for anchor, (state, row) in enumerate(zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)):
            if state == -1:
                continue
            label = int(target["labels"][row]) if state == 1 else -1
            logits = outputs.class_logits[image, anchor].tolist()
            class_sum += sum(focal(logit, index == label) for index, logit in enumerate(logits))
            if state == 1:
                ax1, ay1, ax2, ay2 = outputs.anchors[anchor].tolist()
                x1, y1, x2, y2 = target["boxes"][row].tolist()
                aw, ah, w, h = ax2 - ax1, ay2 - ay1, x2 - x1, y2 - y1
                encoded = [
                    (x1 + x2 - ax1 - ax2) / 2 / aw, (y1 + y2 - ay1 - ay2) / 2 / ah, math.log(w / aw), math.log(h / ah)
                ]  # fmt: skip
                deltas = outputs.deltas[image, anchor].tolist()
                box_sum += sum(smooth_l1(d - e, 1 / 9) for d, e in zip(deltas, encoded, strict=True))
    return class_sum, box_sum, counts


def test_formula() -> None:
    outputs = retinanet_outputs()
    objective = RetinaNet()
    assignments = objective.assign(outputs, TARGETS)
    class_sum, box_sum, counts = by_the_formula(outputs, assignments)
    assert counts[0] > 3
    assert counts[1] == 0
    assert counts[2] > 0
    assert all(assignments[image].ignored.any() for image in (0, 2))
    terms = objective(outputs, TARGETS)
    assert terms["class"].item() == pytest.approx(class_sum / sum(counts), rel=1e-6)
    assert terms["box"].item() == pytest.approx(box_sum / sum(counts), rel=1e-6)
    weighted = RetinaNet(class_weight=0.5, box_weight=3)(outputs, TARGETS)
    assert weighted["class"].item() == pytest.approx(terms["class"].item() / 2)
    assert weighted["box"].item() == pytest.approx(terms["box"].item() * 3)


def test_image_normalizer_is_the_mean_of_single_images() -> None:
    outputs = retinanet_outputs()
    whole = RetinaNet(normalizer="image")(outputs, TARGETS)
    alone = [
        RetinaNet()(
            RetinaNetOutputs(outputs.class_logits[i : i + 1], outputs.deltas[i : i + 1], outputs.anchors), [target]
        )
        for i, target in enumerate(TARGETS)
    ]
    for name, term in whole.items():
        assert term.item() == pytest.approx(sum(terms[name].item() for terms in alone) / 3, rel=1e-12)


def test_ignored_anchors_get_no_gradient_and_change_nothing() -> None:
    outputs = retinanet_outputs()
    objective = RetinaNet()
    ignored = torch.stack([assignment.ignored for assignment in objective.assign(outputs, TARGETS)])
    terms = objective(outputs, TARGETS)
    terms.total.backward()
    assert (gradient(outputs.class_logits)[ignored] == 0).all()
    assert (gradient(outputs.class_logits)[~ignored] != 0).all()
    moved = torch.where(ignored[..., None], 1e4, outputs.class_logits.detach())
    again = objective(RetinaNetOutputs(moved, outputs.deltas, outputs.anchors), TARGETS)
    assert again.total.item() == terms.total.item()


def test_only_positives_are_regressed() -> None:
    outputs = retinanet_outputs()
    positive = torch.stack([assignment.positive for assignment in RetinaNet().assign(outputs, TARGETS)])
    RetinaNet(box_loss=giou_loss)(outputs, TARGETS)["box"].backward()
    assert ((gradient(outputs.deltas) != 0).any(-1) == positive).all()


@pytest.mark.parametrize("normalizer", ["batch", "image", "all_reduce", "moving_average"])
def test_without_objects_every_output_gets_a_gradient(normalizer: Any) -> None:
    outputs = retinanet_outputs()
    terms = RetinaNet(normalizer=normalizer)(outputs, EMPTY)
    assert terms["box"].item() == 0
    assert terms["class"].item() > 0
    terms.total.backward()
    assert (gradient(outputs.deltas) == 0).all()
    assert (gradient(outputs.class_logits) > 0).all()  # all background: every logit is pushed down


def test_no_anchors_and_no_images() -> None:
    for images, targets in ((3, TARGETS), (0, [])):
        logits, deltas = torch.zeros(images, 0, 3, requires_grad=True), torch.zeros(images, 0, 4, requires_grad=True)
        terms = RetinaNet()(RetinaNetOutputs(logits, deltas, torch.zeros(0, 4)), targets)
        assert terms.total.item() == 0
        terms.total.backward()
        assert gradient(logits).shape == logits.shape
        assert gradient(deltas).shape == deltas.shape


def test_perfect_outputs_cost_nothing() -> None:
    outputs = retinanet_outputs()
    assignments = RetinaNet().assign(outputs, TARGETS)
    logits, deltas = torch.full_like(outputs.class_logits, -40), torch.zeros_like(outputs.deltas)
    for image, (assignment, target) in enumerate(zip(assignments, TARGETS, strict=True)):
        for anchor in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[anchor]
            logits[image, anchor, target["labels"][row]] = 40
            deltas[image, anchor] = DeltaCoder().encode(target["boxes"][row].double(), outputs.anchors[anchor])
    terms = RetinaNet()(RetinaNetOutputs(logits, deltas, outputs.anchors), TARGETS)
    assert terms.total.item() < 1e-12


def test_half_precision_outputs_give_a_float32_loss() -> None:
    exact = retinanet_outputs()
    half = RetinaNetOutputs(
        exact.class_logits.detach().bfloat16().requires_grad_(),
        exact.deltas.detach().bfloat16().requires_grad_(),
        exact.anchors.float(),
    )
    terms = RetinaNet(box_loss=giou_loss)(half, TARGETS)
    assert terms.total.dtype == torch.float32
    # Anchors that contain an object tie for it but for rounding: both are assigned in float32.
    objective = RetinaNet(box_loss=giou_loss, assigner=lambda anchors, target: MaxIoU()(anchors.float(), target))
    reference = RetinaNetOutputs(half.class_logits.detach().double(), half.deltas.detach().double(), exact.anchors)
    assert terms.total.item() == pytest.approx(objective(reference, TARGETS).total.item(), rel=1e-5)
    terms.total.backward()
    assert gradient(half.deltas).dtype == torch.bfloat16


def test_assigner_and_coder_are_arguments() -> None:
    outputs = retinanet_outputs()
    few = RetinaNet(assigner=MaxIoU(0.6, 0.5, "none")).assign(outputs, TARGETS)
    many = RetinaNet(assigner=MaxIoU(0.3, 0.3, "none")).assign(outputs, TARGETS)
    assert sum(int(a.positive.sum()) for a in few) < sum(int(a.positive.sum()) for a in many)
    scaled = RetinaNetOutputs(outputs.class_logits, outputs.deltas * 10, outputs.anchors)
    coder = DeltaCoder(weights=(10, 10, 10, 10))
    terms = RetinaNet(box_loss=giou_loss, coder=coder)(scaled, TARGETS)
    assert terms["box"].item() == pytest.approx(RetinaNet(box_loss=giou_loss)(outputs, TARGETS)["box"].item())


def test_wrong_shapes_are_named() -> None:
    anchors = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(B, P, C\), but got \(5, 3\)"):
        RetinaNetOutputs(torch.zeros(5, 3), torch.zeros(1, 5, 4), anchors)
    with pytest.raises(ValueError, match=r"`deltas` must have shape \(2, 5, 4\), but got \(2, 6, 4\)"):
        RetinaNetOutputs(torch.zeros(2, 5, 3), torch.zeros(2, 6, 4), anchors)
    with pytest.raises(ValueError, match=r"`anchors` must have shape \(6, 4\), but got \(5, 4\)"):
        RetinaNetOutputs(torch.zeros(2, 6, 3), torch.zeros(2, 6, 4), anchors)
    with pytest.raises(TypeError, match="`anchors` must have a floating-point dtype"):
        RetinaNetOutputs(torch.zeros(2, 5, 3), torch.zeros(2, 5, 4), anchors.long())
    with pytest.raises(ValueError, match="`targets` must have one entry for each of the 3 images, but has 2"):
        RetinaNet()(retinanet_outputs(), TARGETS[:2])
    with pytest.raises(ValueError, match=r"`targets\[1\]` must have the key 'labels'"):
        RetinaNet()(retinanet_outputs(), [TARGETS[0], {"boxes": torch.zeros(0, 4)}, TARGETS[2]])
    with pytest.raises(ValueError, match="`box_weight` must be finite and at least 0"):
        RetinaNet(box_weight=-1)
