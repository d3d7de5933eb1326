"""ATSS, GFL and VarifocalNet: formulas written as loops, cases by hand, weights and detections."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import assign
from lossatlas.boxes.coders import DeltaCoder, DistributionCoder, PointDistanceCoder
from lossatlas.losses import l1_loss, sigmoid_focal_loss, varifocal_loss
from lossatlas.objectives import ATSS, GFL, ATSSOutputs, GFLOutputs, VarifocalNet, VarifocalNetOutputs
from lossatlas.objectives.point_squares import squares_around
from tests.objectives.cases import CASES
from tests.objectives.scenes import TARGETS, gradient
from tests.objectives.test_retinanet import focal
from tests.objectives.test_ssd import iou


def giou(one: list[float], other: list[float]) -> float:
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    overlap = iou(one, other)
    union = areas / (1 + overlap)
    width = max(one[2], other[2]) - min(one[0], other[0])
    height = max(one[3], other[3]) - min(one[1], other[1])
    return overlap - (width * height - union) / (width * height)


def cross_entropy(logit: float, q: float) -> float:
    return math.log1p(math.exp(logit)) - q * logit


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def places(objective: Any, outputs: Any) -> Iterator[tuple[int, int, int, list[float], int]]:
    """Image, prediction, state, box and label (-1 for none) of all that is not ignored."""
    for image, assignment in enumerate(objective.assign(outputs, TARGETS)):
        rows = zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)
        for prediction, (state, row) in enumerate(rows):
            if state >= 0:
                target = TARGETS[image]
                box = target["boxes"][row].tolist() if state else []
                yield image, prediction, state, box, int(target["labels"][row]) if state else -1


def ltrb_box(point: list[float], stride: float, distances: list[float]) -> list[float]:
    (x, y), (left, top, right, bottom) = point, (stride * distance for distance in distances)
    return [x - left, y - top, x + right, y + bottom]


def made(name: str) -> tuple[Any, Any]:
    """The objective of a case and its outputs for three images."""
    return CASES[name].objective(), CASES[name].outputs(CASES[name].leaves(3))


def test_formula_of_atss() -> None:
    objective, outputs = made("atss")
    class_sum = box_sum = centerness_sum = c_sum = l1_sum = 0.0
    count = 0
    for image, anchor, state, box, label in places(objective, outputs):
        class_sum += sum(
            focal(x, index == label) for index, x in enumerate(outputs.class_logits[image, anchor].tolist())
        )
        if state:
            ax1, ay1, ax2, ay2 = outputs.anchors[anchor].tolist()
            x, y, w, h = (ax1 + ax2) / 2, (ay1 + ay2) / 2, ax2 - ax1, ay2 - ay1
            dx, dy, dw, dh = outputs.deltas[image, anchor].tolist()
            x_, y_, w_, h_ = x + dx / 10 * w, y + dy / 10 * h, w * math.exp(dw / 5), h * math.exp(dh / 5)
            decoded = [x_ - w_ / 2, y_ - h_ / 2, x_ + w_ / 2, y_ + h_ / 2]
            left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
            c = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
            box_sum += c * (1 - giou(decoded, box))
            centerness_sum += cross_entropy(float(outputs.centerness[image, anchor].detach()), c)
            c_sum += c
            count += 1
            edges = 10 * (box[0] + box[2] - 2 * x) / 2 / w, 10 * (box[1] + box[3] - 2 * y) / 2 / h
            sides = 5 * math.log((box[2] - box[0]) / w), 5 * math.log((box[3] - box[1]) / h)
            l1_sum += sum(abs(d - e) for d, e in zip((dx, dy, dw, dh), (*edges, *sides), strict=True))
    assert count > 5
    terms = objective(outputs, TARGETS)
    assert terms["class"].item() == pytest.approx(class_sum / count, rel=1e-6)
    assert terms["box"].item() == pytest.approx(2 * box_sum / c_sum, rel=1e-6)
    assert terms["centerness"].item() == pytest.approx(centerness_sum / count, rel=1e-6)
    plain = ATSS(box_weighting="none", box_weight=1, box_loss=l1_loss)(outputs, TARGETS)
    assert plain["box"].item() == pytest.approx(l1_sum / count, rel=1e-6)


def test_formula_of_gfl() -> None:
    objective, outputs = made("gfl")
    class_sum = box_sum = distribution_sum = weights = 0.0
    count = 0
    for image, point, state, box, label in places(objective, outputs):
        logits = outputs.class_logits[image, point].tolist()
        q = 0.0
        if state:
            bins = outputs.distributions[image, point].softmax(-1).tolist()
            (x, y), stride = outputs.points[point].tolist(), float(outputs.strides[point])
            decoded = ltrb_box([x, y], stride, [sum(i * p for i, p in enumerate(side)) for side in bins])
            q = iou(decoded, box)
            w = max(map(sigmoid, logits))
            box_sum += w * (1 - giou(decoded, box))
            for side, distance in zip(bins, (x - box[0], y - box[1], box[2] - x, box[3] - y), strict=True):
                edge = min(distance / stride, 5)
                low = min(math.floor(edge), 4)
                cost = -(low + 1 - edge) * math.log(side[low]) - (edge - low) * math.log(side[low + 1])
                distribution_sum += w * cost / 4
            weights += w
            count += 1
        class_sum += sum(
            abs(sigmoid(logit) - (q if index == label else 0)) ** 2 * cross_entropy(logit, q if index == label else 0)
            for index, logit in enumerate(logits)
        )
    assert count > 5
    terms = objective(outputs, TARGETS)
    assert terms["class"].item() == pytest.approx(class_sum / count, rel=1e-6)
    assert terms["box"].item() == pytest.approx(2 * box_sum / weights, rel=1e-6)
    assert terms["distribution"].item() == pytest.approx(0.25 * distribution_sum / weights, rel=1e-6)


def test_formula_of_varifocalnet() -> None:
    objective, outputs = made("varifocalnet")
    class_sum = 0.0
    sums = {"distances": [0.0, 0.0], "refined_distances": [0.0, 0.0]}
    count = 0
    for image, point, state, box, label in places(objective, outputs):
        q = 0.0
        if state:
            for name, pair in sums.items():
                distances = getattr(outputs, name)[image, point].tolist()
                decoded = ltrb_box(outputs.points[point].tolist(), float(outputs.strides[point]), distances)
                q = iou(decoded, box)  # in the end that of the refined box
                pair[0] += q * (1 - giou(decoded, box))
                pair[1] += q
            count += 1
        for index, logit in enumerate(outputs.class_logits[image, point].tolist()):
            if index == label:
                class_sum += q * cross_entropy(logit, q)
            else:
                class_sum += 0.75 * sigmoid(logit) ** 2 * cross_entropy(logit, 0)
    assert count > 5
    terms = objective(outputs, TARGETS)
    assert terms["class"].item() == pytest.approx(class_sum / count, rel=1e-6)
    assert terms["box"].item() == pytest.approx(1.5 * sums["distances"][0] / sums["distances"][1], rel=1e-5)
    refined = 2 * sums["refined_distances"][0] / sums["refined_distances"][1]
    assert terms["refined_box"].item() == pytest.approx(refined, rel=1e-5)


# Two points of one object each, so that everything is one number.
POINTS, STRIDES_OF = torch.tensor([[8.0, 8.0], [72.0, 8.0]]), torch.tensor([8.0, 8.0])
HAND = [
    {"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([1])},
    {"boxes": torch.tensor([[64.0, 0, 80, 16]]), "labels": torch.tensor([0])},
]
ONE_EACH = assign.MaxIoU(0.5, 0.4, "none")


def one_each(anchors: Tensor, level_sizes: Any, target: Any) -> Any:
    assert list(level_sizes) == [2]
    return ONE_EACH(anchors, target)


def test_gfl_by_hand() -> None:
    # Even odds for 0, 1, 2 strides: the mean is 1, the box of 16 pixels; the second image's is 8 pixels wide.
    bins = torch.zeros(2, 2, 4, 3)
    bins[1, 1, 0, 1:] = bins[1, 1, 2, 1:] = -99
    logits = torch.full((2, 2, 2), -99.0)
    logits[0, 0, 1] = 0.0
    logits[1, 1, 0] = math.log(3)
    outputs = GFLOutputs(logits, bins, POINTS, STRIDES_OF)
    terms = GFL(assigner=one_each, coder=DistributionCoder(2), anchor_scale=2.0)(outputs, HAND)
    # IoU 1 and, for a box of no width, 0. Weights 1/2 and 3/4.
    quality = 0.5**2 * math.log(2) + 0.75**2 * math.log(4)
    assert terms["class"].item() == pytest.approx(quality / 2, rel=1e-5)
    assert terms["box"].item() == pytest.approx(2 * (0.75 * 1.0) / 1.25, rel=1e-5)
    distribution = 0.5 * math.log(3) + 0.75 * (math.log(3) * 2 + 99 * 2) / 4
    assert terms["distribution"].item() == pytest.approx(0.25 * distribution / 1.25, rel=1e-5)


def test_varifocalnet_by_hand() -> None:
    first, refined = torch.ones(2, 2, 4), torch.ones(2, 2, 4)
    first[0, 0, 2] = 0.0  # half the object: IoU and GIoU 1/2
    outputs = VarifocalNetOutputs(torch.zeros(2, 2, 2), first, refined, POINTS, STRIDES_OF)
    terms = VarifocalNet(assigner=one_each, anchor_scale=2.0)(outputs, HAND)
    assert terms["box"].item() == pytest.approx(1.5 * (0.5 * 0.5 + 1 * 0) / 1.5, rel=1e-5)
    assert terms["refined_box"].item() == pytest.approx(0, abs=1e-6)
    assert terms["class"].item() == pytest.approx((2 + 6 * 0.75 / 4) * math.log(2) / 2, rel=1e-5)


def test_atss_by_hand() -> None:
    anchors = torch.tensor([[2.0, 0, 18, 16], [64.0, 0, 80, 16]])
    outputs = ATSSOutputs(torch.zeros(2, 2, 2), torch.zeros(2, 2, 4), anchors, torch.zeros(2, 2), level_sizes=[2])
    terms = ATSS(assigner=one_each, class_loss=varifocal_loss)(outputs, HAND)
    c = math.sqrt(6 / 10)  # the first anchor's centre is two pixels right of its object's, 10 and 6 from the edges
    assert terms["box"].item() == pytest.approx(2 * c * (1 - 14 / 18) / (c + 1), rel=1e-5)
    assert terms["centerness"].item() == pytest.approx(math.log(2))
    qualities = (14 / 18 + 1 + 6 * 0.75 / 4) * math.log(2)
    assert terms["class"].item() == pytest.approx(qualities / 2, rel=1e-5)


def test_squares_are_the_anchors_of_the_assigner() -> None:
    points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [8.0, 8.0]]), torch.tensor([8.0, 8.0, 16.0])
    anchors, sizes = squares_around(points, strides, 2.0)
    assert anchors.tolist() == [[-4, -4, 12, 12], [4, -4, 20, 12], [-8, -8, 24, 24]]
    assert sizes == [2, 1]
    assert squares_around(points[:0], strides[:0], 2.0)[1] == [0]


def test_weights_of_the_boxes_are_outside_the_graph() -> None:
    for name, logits in (("gfl", "class_logits"), ("varifocalnet", "class_logits")):
        raw = CASES[name].leaves(3)
        terms = CASES[name].objective()(CASES[name].outputs(raw), TARGETS)
        for term in (key for key in terms if key != "class"):
            (found,) = torch.autograd.grad(terms[term], [raw[logits]], allow_unused=True, retain_graph=True)
            assert found is None


def test_a_first_box_is_not_trained_by_the_refined_term() -> None:
    raw = CASES["varifocalnet"].leaves(3)
    CASES["varifocalnet"].objective()(CASES["varifocalnet"].outputs(raw), TARGETS)["refined_box"].backward()
    assert raw["distances"].grad is None
    assert (gradient(raw["refined_distances"]) != 0).any()


def test_boxes_that_all_miss_still_learn() -> None:
    raw = CASES["varifocalnet"].leaves(3)
    raw["refined_distances"] = torch.full_like(raw["distances"], -9.0).requires_grad_()
    terms = CASES["varifocalnet"].objective(box_loss=l1_loss)(CASES["varifocalnet"].outputs(raw), TARGETS)
    assert terms["refined_box"].item() > 1
    terms["refined_box"].backward()
    assert (gradient(raw["refined_distances"]) != 0).any()


def test_plain_losses_in_their_class_slots() -> None:
    for name in ("gfl", "varifocalnet"):
        objective, outputs = made(name)
        expected, count = 0.0, 0
        for image, point, state, _, label in places(objective, outputs):
            logits = outputs.class_logits[image, point].tolist()
            expected += sum(focal(logit, index == label) for index, logit in enumerate(logits))
            count += state
        terms = CASES[name].objective(class_loss=sigmoid_focal_loss)(outputs, TARGETS)
        assert terms["class"].item() == pytest.approx(expected / count, rel=1e-6)


@pytest.mark.parametrize("name", ["atss", "gfl", "varifocalnet"])
def test_finds_the_objects_that_its_targets_describe(name: str) -> None:
    raw = {key: torch.zeros_like(value) for key, value in CASES[name].leaves(3).items()}
    raw["class_logits"] -= 20
    if name == "atss":
        raw["centerness"] += 50
    outputs = CASES[name].outputs(raw)
    objective: Any = CASES[name].objective()
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        for place in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[place]
            raw["class_logits"][image, place, target["labels"][row]] = 3 + row
            box = target["boxes"][row].double()
            if name == "atss":
                raw["deltas"][image, place] = DeltaCoder((10, 10, 5, 5)).encode(box, outputs.anchors[place])
                continue
            distances = PointDistanceCoder().encode(box, outputs.points[place], outputs.strides[place])
            if name == "varifocalnet":
                raw["refined_distances"][image, place] = distances
                continue
            for side, distance in enumerate(distances.tolist()):
                low = min(int(distance), 4)
                share = torch.full((6,), 1e-12, dtype=torch.float64)
                share[low], share[low + 1] = low + 1 - distance + 1e-12, distance - low + 1e-12
                raw["distributions"][image, place, side] = share.log()
    found = objective.decode(outputs)
    for detections, target in zip(found, TARGETS, strict=True):
        crowd = target.get("iscrowd", torch.zeros(len(target["boxes"]), dtype=torch.bool))
        rows = (~crowd).nonzero().squeeze(1).flip(0)
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"].float(), target["boxes"][rows], rtol=0, atol=1e-4)
        power = 0.5 if name == "atss" else 1
        assert detections["scores"].tolist() == pytest.approx([sigmoid(3 + row) ** power for row in rows.tolist()])


def test_wrong_shapes_are_named() -> None:
    logits, anchors = torch.zeros(2, 5, 3), torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"`level_sizes` must add up to 5, but got \[3\]"):
        ATSSOutputs(logits, torch.zeros(2, 5, 4), anchors, torch.zeros(2, 5), [3])
    with pytest.raises(ValueError, match=r"`centerness` must have shape \(2, 5\), but got \(2, 4\)"):
        ATSSOutputs(logits, torch.zeros(2, 5, 4), anchors, torch.zeros(2, 4), [5])
    with pytest.raises(ValueError, match=r"`distributions` must have shape \(2, 5, 4, bins\), but got \(2, 5, 68\)"):
        GFLOutputs(logits, torch.zeros(2, 5, 68), anchors[:, :2], anchors[:, 0])
    with pytest.raises(ValueError, match=r"`points` must have shape \(5, 2\), but got \(4, 2\)"):
        GFLOutputs(logits, torch.zeros(2, 5, 4, 17), anchors[:4, :2], anchors[:, 0])
    with pytest.raises(ValueError, match=r"`refined_distances` must have shape \(2, 5, 4\), but got \(2, 5, 2\)"):
        VarifocalNetOutputs(logits, torch.zeros(2, 5, 4), torch.zeros(2, 5, 2), anchors[:, :2], anchors[:, 0])
    outputs = GFLOutputs(logits, torch.zeros(2, 5, 4, 9), anchors[:, :2], anchors[:, 0] + 1)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(..., 4, 17\)"):
        GFL()(outputs, TARGETS[:2])
    with pytest.raises(ValueError, match="`anchor_scale` must be finite and above 0"):
        VarifocalNet(anchor_scale=0)
    with pytest.raises(ValueError, match="`distribution_loss` must be one of distribution_focal_loss"):
        GFL(distribution_loss=l1_loss)
