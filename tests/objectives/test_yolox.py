"""YOLOX's objective: its formula written as loops, a case by hand and detections."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.boxes.yolo_coders import YOLOXCoder
from lossatlas.objectives import YOLOX, YOLOXOutputs
from tests.objectives.cases import CASES, Leaves
from tests.objectives.scalars import Box, around, bce, check, iou, middle, number, predictions
from tests.objectives.scenes import TARGETS


def given() -> tuple[Leaves, YOLOXOutputs]:
    leaves = CASES["yolox"].leaves(3)
    outputs: YOLOXOutputs = CASES["yolox"].outputs(leaves)
    return leaves, outputs


def decoded(outputs: YOLOXOutputs, image: int, place: int) -> Box:
    (x, y), stride = outputs.points[place].unbind(), outputs.strides[place]
    tx, ty, tw, th = outputs.box_numbers[image, place].unbind()
    return around(x - stride / 2 + tx * stride, y - stride / 2 + ty * stride, tw.exp() * stride, th.exp() * stride)


@pytest.mark.parametrize("class_target", ["quality", "binary"])
@pytest.mark.parametrize("l1_weight", [0.0, 0.5])
def test_formula(class_target: Any, l1_weight: float) -> None:
    leaves, outputs = given()
    objective = YOLOX(class_target=class_target, l1_weight=l1_weight, objectness_weight=2.0)
    names = ["box", "objectness", "class"] + ["l1"] * (l1_weight > 0)
    expected: dict[str, Tensor] = {name: number(0.0) for name in names}
    count = ignored = 0
    for image, place, state, box, label in predictions(objective.assign(outputs, TARGETS)):
        ignored += state == -1
        if state == 1:
            count += 1
            overlap = iou(decoded(outputs, image, place), box)
            expected["box"] = expected["box"] + 5 * (1 - overlap**2)
            quality = overlap.detach() if class_target == "quality" else 1.0
            for index, x in enumerate(outputs.class_logits[image, place]):
                expected["class"] = expected["class"] + bce(x, quality if index == label else 0.0)
            (px, py), stride = outputs.points[place].unbind(), outputs.strides[place]
            x, y, w, h = middle(box)
            wanted = [(x - px) / stride + 0.5, (y - py) / stride + 0.5, (w / stride).log(), (h / stride).log()]
            if l1_weight:
                for found, value in zip(outputs.box_numbers[image, place], wanted, strict=True):
                    expected["l1"] = expected["l1"] + l1_weight * (found - value).abs()
        if state >= 0:
            logit = outputs.objectness_logits[image, place]
            expected["objectness"] = expected["objectness"] + 2 * bce(logit, float(state))
    assert count > 3
    assert ignored > 0
    check(dict(objective(outputs, TARGETS)), {name: term / count for name, term in expected.items()}, leaves)


def test_by_hand() -> None:
    """Two cells of 8 pixels, boxes of 8 x 8 around their centres, an object of 8 x 16 around the first."""
    points, strides = torch.tensor([[4.0, 4.0], [60.0, 4.0]]), torch.full((2,), 8.0)
    numbers = torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(1, 2, 4)
    outputs = YOLOXOutputs(torch.zeros(1, 2, 3), torch.zeros(1, 2), numbers, points, strides)
    terms = YOLOX(l1_weight=1)(outputs, [{"boxes": torch.tensor([[0.0, -4, 8, 12]]), "labels": torch.tensor([1])}])
    assert terms["box"].item() == pytest.approx(5 * (1 - 0.5**2))  # IoU 64 / 128
    assert terms["objectness"].item() == pytest.approx(2 * math.log(2))
    assert terms["class"].item() == pytest.approx(3 * math.log(2))
    assert terms["l1"].item() == pytest.approx(math.log(2))


def test_classes_may_exclude_each_other() -> None:
    _, outputs = given()
    objective = YOLOX(class_loss=losses.cross_entropy)
    torch.testing.assert_close(
        objective.scores(outputs), outputs.objectness_logits.sigmoid()[..., None] * outputs.class_logits.softmax(-1)
    )
    places = [(i, p, label) for i, p, state, _, label in predictions(objective.assign(outputs, TARGETS)) if state == 1]
    costs = [-outputs.class_logits[i, p].log_softmax(0)[label] for i, p, label in places]
    assert objective(outputs, TARGETS)["class"].item() == pytest.approx(torch.stack(costs).mean().item())


def test_perfect_outputs_are_found_again() -> None:
    _, outputs = given()
    objective = YOLOX()
    logits, classes, numbers = torch.full((3, 45), -20.0), torch.full((3, 45, 3), -20.0), torch.zeros(3, 45, 4)
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        for place in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[place]
            logits[image, place] = 3 + row
            classes[image, place, target["labels"][row]] = 20
            numbers[image, place] = YOLOXCoder().encode(
                target["boxes"][row], outputs.points[place].float(), outputs.strides[place].float()
            )
    perfect = YOLOXOutputs(classes, logits, numbers, outputs.points.float(), outputs.strides.float())
    for detections, rows, target in zip(objective.decode(perfect), ([2, 1, 0], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"], target["boxes"][rows], rtol=0, atol=1e-4)
        assert detections["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-3 - row)) for row in rows])


def test_wrong_arguments_are_named() -> None:
    good = given()[1]
    with pytest.raises(ValueError, match=r"`box_numbers` must have shape \(3, 45, 4\), but got \(3, 45, 5\)"):
        YOLOXOutputs(good.class_logits, good.objectness_logits, torch.zeros(3, 45, 5), good.points, good.strides)
    with pytest.raises(ValueError, match="`l1_weight` must be finite and at least 0"):
        YOLOX(l1_weight=-1)
    with pytest.raises(ValueError, match=r"`l1_loss` must be one of .* but got cross_entropy"):
        YOLOX(l1_loss=losses.cross_entropy)
