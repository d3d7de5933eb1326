"""FCOS's objective against its formula written as loops, and its edges."""

import math
from typing import Any

import pytest
import torch

from lossatlas.boxes.coders import PointDistanceCoder
from lossatlas.losses import giou_loss, l1_loss
from lossatlas.objectives import FCOS, FCOSOutputs
from lossatlas.objectives.centerness import centerness_target
from tests.objectives.scenes import EMPTY, TARGETS, fcos_outputs, gradient
from tests.objectives.test_retinanet import focal


def by_the_formula(outputs: FCOSOutputs, image: int) -> tuple[float, float, float, float, int]:
    """Sums of class, box · c, centerness and c over one image, and its positives."""
    assignment = FCOS().assign(outputs, TARGETS)[image]
    target = TARGETS[image]
    class_sum = box_sum = centerness_sum = c_sum = 0.0
    count = 0
    for point, (state, row) in enumerate(zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)):
        label = int(target["labels"][row]) if state == 1 else -1
        if state >= 0:
            logits = outputs.class_logits[image, point].tolist()
            class_sum += sum(focal(logit, index == label) for index, logit in enumerate(logits))
        if state == 1:
            (x, y), stride = outputs.points[point].tolist(), float(outputs.strides[point])
            x1, y1, x2, y2 = target["boxes"][row].tolist()
            le, t, r, b = x - x1, y - y1, x2 - x, y2 - y
            c = math.sqrt(min(le, r) / max(le, r) * min(t, b) / max(t, b))
            pl, pt, pr, pb = (stride * d for d in outputs.distances[image, point].tolist())
            shared = (min(le, pl) + min(r, pr)) * (min(t, pt) + min(b, pb))
            iou = shared / ((le + r) * (t + b) + (pl + pr) * (pt + pb) - shared)
            p = 1 / (1 + math.exp(-outputs.centerness[image, point].item()))
            box_sum += -c * math.log(iou)
            centerness_sum += -c * math.log(p) - (1 - c) * math.log(1 - p)
            c_sum += c
            count += 1
    return class_sum, box_sum, centerness_sum, c_sum, count


def test_formula() -> None:
    outputs = fcos_outputs()
    class_sum, box_sum, centerness_sum, c_sum, count = map(
        sum, zip(*(by_the_formula(outputs, i) for i in range(3)), strict=True)
    )
    assert count > 5
    terms = FCOS()(outputs, TARGETS)
    assert terms["class"].item() == pytest.approx(class_sum / count, rel=1e-6)
    assert terms["box"].item() == pytest.approx(box_sum / c_sum, rel=1e-6)
    assert terms["centerness"].item() == pytest.approx(centerness_sum / count, rel=1e-6)
    weighted = FCOS(class_weight=2, box_weight=3, centerness_weight=4)(outputs, TARGETS)
    for name, factor in (("class", 2), ("box", 3), ("centerness", 4)):
        assert weighted[name].item() == pytest.approx(factor * terms[name].item())


def test_formula_with_each_image_by_its_own_amounts() -> None:
    outputs = fcos_outputs()
    expected = {"class": 0.0, "box": 0.0, "centerness": 0.0}
    for image in range(3):
        class_sum, box_sum, centerness_sum, c_sum, count = by_the_formula(outputs, image)
        expected["class"] += class_sum / max(count, 1) / 3
        expected["box"] += box_sum / c_sum / 3 if count else 0
        expected["centerness"] += centerness_sum / max(count, 1) / 3
    terms = FCOS(normalizer="image")(outputs, TARGETS)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)


def test_box_term_without_weighting_is_the_mean_over_positives() -> None:
    outputs = fcos_outputs()
    positive = torch.stack([assignment.positive for assignment in FCOS().assign(outputs, TARGETS)])
    rows = torch.cat([a.matched[a.positive] + 3 * i for i, a in enumerate(FCOS().assign(outputs, TARGETS))])
    boxes = torch.cat([torch.cat((target["boxes"], torch.zeros(3 - len(target["boxes"]), 4))) for target in TARGETS])
    image, point = positive.nonzero().unbind(1)
    distances = outputs.distances[image, point] * outputs.strides[point, None]
    x, y = outputs.points[point].unbind(1)
    left, top, right, bottom = distances.unbind(1)
    decoded = torch.stack((x - left, y - top, x + right, y + bottom), dim=1)
    terms = FCOS(box_loss=giou_loss, box_weighting="none")(outputs, TARGETS)
    assert terms["box"].item() == pytest.approx(giou_loss(decoded, boxes[rows].double()).item(), rel=1e-9)


def test_elementwise_losses_regress_distances_in_strides() -> None:
    outputs = fcos_outputs()
    assignments = FCOS().assign(outputs, TARGETS)
    total, count = 0.0, 0
    for image, (assignment, target) in enumerate(zip(assignments, TARGETS, strict=True)):
        for point in assignment.positive.nonzero().squeeze(1).tolist():
            x1, y1, x2, y2 = target["boxes"][assignment.matched[point]].tolist()
            x, y = outputs.points[point].tolist()
            edges = torch.tensor([x - x1, y - y1, x2 - x, y2 - y], dtype=torch.float64) / outputs.strides[point]
            total += (outputs.distances[image, point] - edges).abs().sum().item()
            count += 1
    terms = FCOS(box_loss=l1_loss, box_weighting="none")(outputs, TARGETS)
    assert terms["box"].item() == pytest.approx(total / count, rel=1e-6)


def test_centerness_worked_by_hand() -> None:
    distances = torch.tensor(
        [[3.0, 3, 3, 3], [1.0, 2, 3, 2], [1.0, 1, 4, 9], [0.0, 5, 5, 5], [-1.0, 2, 2, 2], [0.0] * 4]
    )
    expected = [1, math.sqrt(1 / 3), 1 / 6, 0, 0, 0]
    assert centerness_target(distances).tolist() == pytest.approx(expected)


def test_centerness_cannot_fall_below_the_entropy_of_its_targets() -> None:
    outputs = fcos_outputs()
    assignments = FCOS().assign(outputs, TARGETS)
    best = torch.zeros_like(outputs.centerness)
    entropies = []
    for image, (assignment, target) in enumerate(zip(assignments, TARGETS, strict=True)):
        for point in assignment.positive.nonzero().squeeze(1).tolist():
            box = target["boxes"][assignment.matched[point]].double()
            c = centerness_target(PointDistanceCoder().encode(box, outputs.points[point], outputs.strides[point]))
            best.data[image, point] = torch.logit(c, eps=1e-12)
            entropies.append(float(torch.special.entr(c) + torch.special.entr(1 - c)))
    ideal = FCOSOutputs(outputs.class_logits, outputs.distances, best, outputs.points, outputs.strides)
    assert FCOS()(ideal, TARGETS)["centerness"].item() == pytest.approx(sum(entropies) / len(entropies), rel=1e-6)
    assert sum(entropies) > 0.1


def test_gradients_reach_what_they_should() -> None:
    outputs = fcos_outputs()
    assignments = FCOS().assign(outputs, TARGETS)
    positive = torch.stack([assignment.positive for assignment in assignments])
    ignored = torch.stack([assignment.ignored for assignment in assignments])
    assert ignored.any()
    FCOS()(outputs, TARGETS).total.backward()
    assert ((gradient(outputs.distances) != 0).any(-1) == positive).all()
    assert ((gradient(outputs.centerness) != 0) == positive).all()
    assert ((gradient(outputs.class_logits) == 0).all(-1) == ignored).all()


@pytest.mark.parametrize("normalizer", ["batch", "image", "all_reduce", "moving_average"])
@pytest.mark.parametrize("box_weighting", ["centerness", "none"])
def test_without_objects_every_output_gets_a_gradient(normalizer: Any, box_weighting: Any) -> None:
    outputs = fcos_outputs()
    terms = FCOS(normalizer=normalizer, box_weighting=box_weighting)(outputs, EMPTY)
    assert terms["box"].item() == terms["centerness"].item() == 0
    terms.total.backward()
    assert (gradient(outputs.distances) == 0).all()
    assert (gradient(outputs.centerness) == 0).all()
    assert (gradient(outputs.class_logits) > 0).all()


def test_no_points_and_no_images() -> None:
    for images, targets in ((3, TARGETS), (0, [])):
        logits = torch.zeros(images, 0, 3, requires_grad=True)
        outputs = FCOSOutputs(
            logits, torch.zeros(images, 0, 4), torch.zeros(images, 0), torch.zeros(0, 2), torch.zeros(0)
        )
        terms = FCOS()(outputs, targets)
        assert terms.total.item() == 0
        terms.total.backward()
        assert gradient(logits).shape == logits.shape


def test_wrong_shapes_are_named() -> None:
    good = fcos_outputs()
    with pytest.raises(ValueError, match=r"`centerness` must have shape \(3, 45\), but got \(3, 45, 1\)"):
        FCOSOutputs(good.class_logits, good.distances, good.centerness[..., None], good.points, good.strides)
    with pytest.raises(ValueError, match=r"`strides` must have shape \(45\), but got \(2,\)"):
        FCOSOutputs(good.class_logits, good.distances, good.centerness, good.points, good.strides[:2])
    with pytest.raises(ValueError, match="`box_weighting` must be one of 'centerness', 'none'"):
        FCOS(box_weighting="iou")  # type: ignore[arg-type]
