"""The objectives of YOLOv2 to YOLOv5: their formulas written as loops, cases by hand, options and detections."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.assign import Assignment, YOLOv3BestAnchor
from lossatlas.boxes.priors import yolo_anchors
from lossatlas.objectives import (
    YOLOv2,
    YOLOv2Outputs,
    YOLOv3,
    YOLOv3Outputs,
    YOLOv4,
    YOLOv4Outputs,
    YOLOv5,
    YOLOv5Outputs,
)
from tests.objectives.cases import CASES, IMAGE_SIZE, Leaves
from tests.objectives.scalars import Box, Number, around, bce, check, ciou, iou, middle, number, predictions, sigmoid
from tests.objectives.scalars import softmax_cost as softmax
from tests.objectives.scenes import CLASSES, EMPTY, TARGETS
from tests.objectives.test_slots import REQUIRED, UNFIT

EPSILON = torch.finfo(torch.float64).eps
Terms = dict[str, Tensor]


def given(name: str) -> tuple[Leaves, Any]:
    leaves = CASES[name].leaves(3)
    return leaves, CASES[name].outputs(leaves)


def cell_and_anchor(outputs: Any, prediction: int) -> tuple[Number, Number, Number, Number, Number]:
    """Column and row of the cell, width and height of the anchor, and the stride."""
    x, y, w, h = middle(outputs.anchors[prediction].unbind())
    stride = outputs.strides[prediction]
    return (x / stride).floor(), (y / stride).floor(), w, h, stride


def decoded(outputs: Any, image: int, prediction: int, scale: float = 1.0) -> Box:
    """The box that YOLOv2, v3 and v4 mean."""
    column, row, w, h, stride = cell_and_anchor(outputs, prediction)
    tx, ty, tw, th = outputs.box_logits[image, prediction].unbind()
    x = (column + scale * sigmoid(tx) - (scale - 1) / 2) * stride
    y = (row + scale * sigmoid(ty) - (scale - 1) / 2) * stride
    return around(x, y, w * tw.exp(), h * th.exp())


def coordinates(outputs: Any, image: int, prediction: int, box: Box, center: str) -> Number:
    """Cost of the four numbers: half squared errors, of the centre as `center` says."""
    column, row, aw, ah, stride = cell_and_anchor(outputs, prediction)
    x, y, w, h = middle(box)
    tx, ty, tw, th = outputs.box_logits[image, prediction].unbind()
    cost: Number = (tw - (w / aw).log()) ** 2 / 2 + (th - (h / ah).log()) ** 2 / 2
    for t, share in ((tx, x / stride - column), (ty, y / stride - row)):
        if center == "cross_entropy":
            cost = cost + bce(t, share)
        elif center == "sigmoid":
            cost = cost + (sigmoid(t) - share) ** 2 / 2
        else:
            inside = share.clamp(EPSILON, 1 - EPSILON)  # a centre on the border of its cell
            cost = cost + (t - (inside / (1 - inside)).log()) ** 2 / 2
    return cost


def size_factor(box: Box) -> Number:
    _, _, w, h = middle(box)
    return 2 - w * h / (IMAGE_SIZE[0] * IMAGE_SIZE[1])


def zeros(*names: str) -> Terms:
    return {name: number(0.0) for name in names}


@pytest.mark.parametrize("center", ["cross_entropy", "sigmoid", "logit"])
@pytest.mark.parametrize("by", ["images", "positives"])
def test_yolov3_formula(center: Any, by: Any) -> None:
    leaves, outputs = given("yolov3")
    options: dict[str, Any] = {"center": center, "normalize_by": by}
    objective = YOLOv3(box_weight=2, objectness_weight=3, no_object_weight=0.5, class_weight=1.5, **options)
    assignments = objective.assign(outputs, TARGETS)
    expected, count = zeros("box", "objectness", "class"), 0
    for image, place, state, box, label in predictions(assignments):
        logit = outputs.objectness_logits[image, place]
        if state == 1:
            count += 1
            expected["box"] = expected["box"] + 2 * size_factor(box) * coordinates(outputs, image, place, box, center)
            expected["objectness"] = expected["objectness"] + 3 * bce(logit, 1)
            for index, x in enumerate(outputs.class_logits[image, place]):
                expected["class"] = expected["class"] + 1.5 * bce(x, float(index == label))
        elif state == 0:
            expected["objectness"] = expected["objectness"] + 0.5 * bce(logit, 0)
    assert count == 4
    assert assignments[2].ignored.any()
    divisor = 3 if by == "images" else count
    check(dict(objective(outputs, TARGETS)), {name: term / divisor for name, term in expected.items()}, leaves)


def test_yolov3_with_squared_errors_as_in_earlier_versions() -> None:
    leaves, outputs = given("yolov3")
    objective = YOLOv3(
        objectness_loss=losses.mse_loss,
        class_loss=losses.mse_loss,
        box_weighting="none",
        center="sigmoid",
        objectness_target="iou",
        assigner=YOLOv3BestAnchor("prediction", 0.2),
    )
    assignments = objective.assign(outputs, TARGETS)
    expected = zeros("box", "objectness", "class")
    seen = set()
    for image, place, state, box, label in predictions(assignments):
        seen.add(state)
        p = sigmoid(outputs.objectness_logits[image, place])
        if state == 1:
            expected["box"] = expected["box"] + coordinates(outputs, image, place, box, "sigmoid")
            quality = iou(decoded(outputs, image, place), box).detach()
            expected["objectness"] = expected["objectness"] + (p - quality) ** 2
            for index, x in enumerate(outputs.class_logits[image, place]):
                expected["class"] = expected["class"] + (sigmoid(x) - float(index == label)) ** 2
        elif state == 0:
            expected["objectness"] = expected["objectness"] + p**2
    assert seen == {-1, 0, 1}
    check(dict(objective(outputs, TARGETS)), {name: term / 3 for name, term in expected.items()}, leaves)


def test_yolov3_by_hand() -> None:
    """One cell of 16 pixels with its anchor of 8 x 8, logits of 0, an object of 8 x 16 in the middle."""
    anchors = yolo_anchors([(1, 1)], [16], [[(8, 8)]])
    outputs = YOLOv3Outputs(
        torch.zeros(1, 1, 2), torch.zeros(1, 1), torch.zeros(1, 1, 4), anchors, torch.tensor([16.0]), (16, 16)
    )
    targets = [{"boxes": torch.tensor([[4.0, 0, 12, 16]]), "labels": torch.tensor([1])}]
    terms = YOLOv3()(outputs, targets)
    # The centre is right, as far as a cross entropy with 1/2 can be; the height is off by ln 2; w h = 1/2 · 1.
    assert terms["box"].item() == pytest.approx((2 - 0.5) * (2 * math.log(2) + math.log(2) ** 2 / 2))
    assert terms["objectness"].item() == pytest.approx(math.log(2))
    assert terms["class"].item() == pytest.approx(2 * math.log(2))
    # The box that is predicted has IoU 64 / 128 with the object, as the objectness says: σ(0).
    squared = YOLOv3(objectness_loss=losses.mse_loss, class_loss=losses.l1_loss, objectness_target="iou")(
        outputs, targets
    )
    assert squared["objectness"].item() == 0
    assert squared["class"].item() == 1


@pytest.mark.parametrize("prior_images", [12_800, 0])
def test_yolov2_formula(prior_images: int) -> None:
    leaves, outputs = given("yolov2")
    objective = YOLOv2(prior_images=prior_images, assigner=YOLOv3BestAnchor("prediction", 0.2))
    assignments = objective.assign(outputs, TARGETS)
    expected = zeros("box", "objectness", "class", "prior")
    seen = set()
    for image, place, state, box, label in predictions(assignments):
        seen.add(state)
        logit = outputs.objectness_logits[image, place]
        if state == 1:
            cost = coordinates(outputs, image, place, box, "cross_entropy")
            expected["box"] = expected["box"] + size_factor(box) * cost
            quality = iou(decoded(outputs, image, place), box).detach()
            expected["objectness"] = expected["objectness"] + 5 * bce(logit, quality)
            expected["class"] = expected["class"] + softmax(outputs.class_logits[image, place].unbind(), label)
        elif state == 0:
            expected["objectness"] = expected["objectness"] + bce(logit, 0)
            if prior_images:
                anchor = list(outputs.anchors[place].unbind())
                cost = coordinates(outputs, image, place, anchor, "cross_entropy")
                expected["prior"] = expected["prior"] + 0.01 * cost
    assert seen == {-1, 0, 1}
    if not prior_images:
        expected["prior"] = 0 * outputs.box_logits.sum()
    check(dict(objective(outputs, TARGETS)), {name: term / 3 for name, term in expected.items()}, leaves)


def test_yolov2_pulls_boxes_to_their_anchors_for_a_while() -> None:
    _, outputs = given("yolov2")
    objective = YOLOv2(prior_images=5)
    values = [objective(outputs, EMPTY)["prior"].item() for _ in range(3)]
    assert values[0] == values[1] > values[2] == 0
    assert objective.images_seen == 9
    other = YOLOv2(prior_images=5)
    other.load_state_dict(objective.state_dict())
    assert other(outputs, EMPTY)["prior"].item() == 0
    resting = YOLOv2(prior_images=5).eval()
    for _ in range(3):
        assert resting(outputs, EMPTY)["prior"].item() == values[0]
    assert "prior" not in YOLOv2(prior_weight=0)(outputs, EMPTY)


@pytest.mark.parametrize("by", ["images", "positives"])
def test_yolov4_formula(by: Any) -> None:
    leaves, outputs = given("yolov4")
    objective = YOLOv4(normalize_by=by)
    assignments = objective.assign(outputs, TARGETS)
    expected, count = zeros("box", "objectness", "class"), 0
    for image, place, state, box, label in predictions(assignments):
        logit = outputs.objectness_logits[image, place]
        if state == 1:
            count += 1
            scale = {8.0: 1.2, 16.0: 1.1}[float(outputs.strides[place])]
            expected["box"] = expected["box"] + 0.07 * (1 - ciou(decoded(outputs, image, place, scale), box))
            expected["objectness"] = expected["objectness"] + bce(logit, 1)
            for index, x in enumerate(outputs.class_logits[image, place]):
                expected["class"] = expected["class"] + bce(x, float(index == label))
        elif state == 0:
            expected["objectness"] = expected["objectness"] + bce(logit, 0)
    assert count > 4  # more than one anchor for an object
    divisor = 3 if by == "images" else count
    check(dict(objective(outputs, TARGETS)), {name: term / divisor for name, term in expected.items()}, leaves)


def test_yolov4_tells_its_assigner_boxes_and_classes() -> None:
    _, outputs = given("yolov4")
    calls: list[tuple[Any, ...]] = []

    def nobody(*args: Any) -> Assignment:
        calls.append(args)
        return Assignment(torch.full((81,), -1), torch.zeros(81, dtype=torch.int8))

    YOLOv4(assigner=nobody)(outputs, TARGETS)
    assert [call[2] for call in calls] == TARGETS
    for image, (anchors, strides, _, boxes, probabilities) in enumerate(calls):
        assert anchors is outputs.anchors
        assert strides is outputs.strides
        assert boxes[80].tolist() == pytest.approx([x.item() for x in decoded(outputs, image, 80, 1.1)])
        torch.testing.assert_close(probabilities, outputs.class_logits[image].detach().sigmoid())
        assert not boxes.requires_grad


def yolov5_box(outputs: Any, image: int, place: int) -> Box:
    column, row, w, h, stride = cell_and_anchor(outputs, place)
    tx, ty, tw, th = (2 * sigmoid(t) for t in outputs.box_logits[image, place].unbind())
    return around((column + tx - 0.5) * stride, (row + ty - 0.5) * stride, w * tw**2, h * th**2)


@pytest.mark.parametrize("objectness_target", ["ciou", "iou", "one"])
def test_yolov5_formula(objectness_target: Any) -> None:
    leaves, outputs = given("yolov5")
    objective = YOLOv5(balance=(4, 0.7), objectness_target=objectness_target)
    assignments = objective.assign(outputs, TARGETS)
    expected = zeros("box", "objectness", "class")
    for stride, balance in ((8, 4), (16, 0.7)):
        boxes, objectness, classes = [], [], []
        for image, place, state, box, label in predictions(assignments):
            if outputs.strides[place] != stride or state == -1:
                continue
            target = 0.0
            if state == 1:
                found = yolov5_box(outputs, image, place)
                boxes.append(1 - ciou(found, box))
                classes += [bce(x, float(i == label)) for i, x in enumerate(outputs.class_logits[image, place])]
                measured = {"ciou": ciou(found, box), "iou": iou(found, box), "one": number(1.0)}
                target = max(measured[objectness_target].item(), 0)
            objectness.append(bce(outputs.objectness_logits[image, place], target))
        assert len(boxes) > 1
        assert len(objectness) < 3 * (72 if stride == 8 else 9)  # a crowd region covers some
        for name, factor, values in (
            ("box", 0.05, boxes),
            ("objectness", balance, objectness),
            ("class", 0.5, classes),
        ):
            expected[name] = expected[name] + factor * torch.stack(values).mean()
    terms = objective(outputs, TARGETS)
    check(dict(terms), expected, leaves)
    larger = YOLOv5(balance=(4, 0.7), objectness_target=objectness_target, times_batch_size=True)(outputs, TARGETS)
    for name, term in larger.items():
        assert term.item() == pytest.approx(3 * terms[name].item())


def test_yolov5_gains() -> None:
    assert YOLOv5.gains(80) == {"box_weight": 0.05, "class_weight": 0.5, "objectness_weight": 1}
    assert YOLOv5.gains(8, 1280, 5) == pytest.approx(
        {"box_weight": 0.03, "class_weight": 0.03, "objectness_weight": 2.4}
    )


def test_yolov5_has_nothing_to_classify_with_one_class() -> None:
    leaves, outputs = given("yolov5")
    single = YOLOv5Outputs(
        outputs.class_logits[..., :1], outputs.objectness_logits, outputs.box_logits, outputs.anchors, outputs.strides
    )
    targets = [{**target, "labels": torch.zeros_like(target["labels"])} for target in TARGETS]
    objective = YOLOv5(balance=(4, 1))
    terms = objective(single, targets)
    assert terms["class"].item() == 0
    terms["class"].backward()
    assert leaves["class_logits"].grad is not None
    scores = objective.scores(single)
    torch.testing.assert_close(scores[..., 0], outputs.objectness_logits.sigmoid())


def test_yolov5_wants_a_factor_for_each_level() -> None:
    _, outputs = given("yolov5")
    with pytest.raises(ValueError, match=r"`balance` must have one factor for each of the 2 strides .* but has 3"):
        YOLOv5()(outputs, TARGETS)
    averaged = YOLOv5(balance=(4, 1), normalizer="moving_average")
    assert sorted(averaged.state_dict())[:2] == ["level_normalizers.0.average", "level_normalizers.1.average"]
    assert averaged(outputs, TARGETS).total.item() > 0


@pytest.mark.parametrize("name", ["yolov2", "yolov3", "yolov4", "yolov5"])
def test_perfect_outputs_are_found_again(name: str) -> None:
    _, outputs = given(name)
    objective: Any = CASES[name].objective()
    logits, classes = torch.full((3, 81), -20.0), torch.full((3, 81, CLASSES), -20.0)
    numbers = torch.zeros(3, 81, 4)
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        for place in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[place]
            logits[image, place] = 3 + row
            classes[image, place, target["labels"][row]] = 20
            numbers[image, place] = objective.coder.encode(
                target["boxes"][row], outputs.anchors[place].float(), outputs.strides[place].float()
            )
    perfect = {"class_logits": classes, "objectness_logits": logits, "box_logits": numbers}
    found = objective.decode(CASES[name].outputs(perfect), score_threshold=0.5)
    for detections, rows, target in zip(found, ([2, 1, 0], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"], target["boxes"][rows], rtol=0, atol=2e-3)
        assert detections["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-3 - row)) for row in rows])
    box = objective(CASES[name].outputs(perfect), TARGETS)["box"].item()
    assert box == pytest.approx(0, abs=1e-3) or name in ("yolov2", "yolov3")  # a cross entropy never is


def test_scores_are_objectness_times_class() -> None:
    _, outputs = given("yolov2")
    objectness = outputs.objectness_logits.sigmoid()[..., None]
    torch.testing.assert_close(YOLOv2().scores(outputs), objectness * outputs.class_logits.softmax(-1))
    torch.testing.assert_close(
        YOLOv2(class_loss=losses.binary_cross_entropy_with_logits).scores(outputs),
        objectness * outputs.class_logits.sigmoid(),
    )


SLOTS = {
    "box_loss": ("boxes", "elementwise", "joint_numbers"),
    "objectness_loss": (
        "binary_logits", "quality_logits", "ranking_logits", "ranking_qualities", "binary_probabilities", "elementwise",
    ),
}  # fmt: skip
SLOTS["class_loss"] = (*SLOTS["objectness_loss"], "class_logits", "class_log_probabilities")


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", ["yolov3", "yolov5"])
def test_every_loss_that_fits_a_slot_trains(slot: str, name: str) -> None:
    output = {"box_loss": "box_logits", "objectness_loss": "objectness_logits", "class_loss": "class_logits"}[slot]
    required = {**REQUIRED, "seesaw_loss": {"num_classes": CLASSES}}
    required["equalized_focal_loss"] = {"num_classes": 1 if slot == "objectness_loss" else CLASSES}
    tried = 0
    for entry in losses.CATALOG.values():
        if entry.input_kind not in SLOTS[slot] or entry.name in UNFIT:
            continue
        leaves, outputs = given(name)
        loss = entry.module(**required.get(entry.name, {}))
        terms = CASES[name].objective(**{slot: loss}, normalizer="image")(outputs, TARGETS)
        terms[slot.removesuffix("_loss")].backward()
        gradient = leaves[output].grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert (gradient != 0).any(), entry.name
        tried += 1
    assert tried > 10


def test_wrong_arguments_are_named() -> None:
    anchors, strides = torch.zeros(5, 4), torch.ones(5)
    with pytest.raises(ValueError, match=r"`objectness_logits` must have shape \(2, 5\), but got \(2, 5, 1\)"):
        YOLOv4Outputs(torch.zeros(2, 5, 3), torch.zeros(2, 5, 1), torch.zeros(2, 5, 4), anchors, strides)
    with pytest.raises(ValueError, match=r"`image_size` must be finite and above 0"):
        YOLOv2Outputs(torch.zeros(2, 5, 3), torch.zeros(2, 5), torch.zeros(2, 5, 4), anchors, strides, (0, 5))
    with pytest.raises(ValueError, match="`center` must be one of 'cross_entropy', 'sigmoid', 'logit'"):
        YOLOv3(center="squared")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`normalize_by` must be one of 'positives', 'images'"):
        YOLOv4(normalize_by="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`objectness_loss` must be one of .* but got giou_loss"):
        YOLOv3(objectness_loss=losses.giou_loss)
    with pytest.raises(ValueError, match="`class_target` must be None for a loss of class indices"):
        YOLOv2(class_target="quality")
    with pytest.raises(ValueError, match="`no_object_weight` must be finite and at least 0"):
        YOLOv3(no_object_weight=-1)
