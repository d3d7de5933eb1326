"""YOLOv1's objective: its formula written as loops, a case by hand, other losses in its slots and detections."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.boxes.yolo_coders import YOLOv1Coder
from lossatlas.objectives import YOLOv1, YOLOv1Outputs
from tests.objectives.cases import CASES, IMAGE_SIZE, Leaves
from tests.objectives.scalars import Box, around, bce, check, iou, middle, number, predictions, softmax_cost
from tests.objectives.scenes import TARGETS

CELL = 16  # pixels: 3 x 3 cells of two boxes each


def given() -> tuple[Leaves, YOLOv1Outputs]:
    leaves = CASES["yolov1"].leaves(3)
    outputs: YOLOv1Outputs = CASES["yolov1"].outputs(leaves)
    return leaves, outputs


def decoded(outputs: YOLOv1Outputs, image: int, place: int) -> Box:
    row, column = divmod(place // 2, 3)
    x, y, w, h = outputs.box_numbers[image, place].unbind()
    return around((column + x) * CELL, (row + y) * CELL, w**2 * IMAGE_SIZE[1], h**2 * IMAGE_SIZE[0])


@pytest.mark.parametrize("rescore", [True, False])
def test_formula(rescore: bool) -> None:
    leaves, outputs = given()
    objective = YOLOv1(grid=(3, 3), objectness_target="iou" if rescore else "one")
    expected: dict[str, Tensor] = {name: number(0.0) for name in ("box", "objectness", "class")}
    count = 0
    for image, place, state, box, label in predictions(objective.assign(outputs, TARGETS)):
        confidence = outputs.confidences[image, place]
        if state == 1:
            count += 1
            x, y, w, h = middle(box)
            row, column = divmod(place // 2, 3)
            wanted = (x / CELL - column, y / CELL - row, (w / IMAGE_SIZE[1]).sqrt(), (h / IMAGE_SIZE[0]).sqrt())
            for found, value in zip(outputs.box_numbers[image, place], wanted, strict=True):
                expected["box"] = expected["box"] + 5 * (found - value) ** 2
            quality = iou(decoded(outputs, image, place), box).detach() if rescore else 1
            expected["objectness"] = expected["objectness"] + (confidence - quality) ** 2
            for index, score in enumerate(outputs.class_scores[image, place // 2]):
                expected["class"] = expected["class"] + (score - float(index == label)) ** 2
        elif state == 0:
            expected["objectness"] = expected["objectness"] + 0.5 * confidence**2
    assert count == 4
    check(dict(objective(outputs, TARGETS)), {name: term / 3 for name, term in expected.items()}, leaves)


def test_losses_of_logits_take_the_numbers_as_logits() -> None:
    leaves, outputs = given()
    objective = YOLOv1(
        grid=(3, 3),
        objectness_loss=losses.binary_cross_entropy_with_logits,
        class_loss=losses.cross_entropy,
        box_loss=losses.giou_loss,
        no_object_weight=1.0,
        normalize_by="positives",
    )
    expected: dict[str, Tensor] = {name: number(0.0) for name in ("objectness", "class")}
    boxes, objects = [], []
    for image, place, state, box, label in predictions(objective.assign(outputs, TARGETS)):
        found = decoded(outputs, image, place)
        if state == 1:
            boxes.append(torch.stack(found))
            objects.append(torch.stack(box))
            expected["class"] = expected["class"] + softmax_cost(
                outputs.class_scores[image, place // 2].unbind(), label
            )
        if state >= 0:
            quality = iou(found, box).detach() if state else 0.0
            expected["objectness"] = expected["objectness"] + bce(outputs.confidences[image, place], quality)
    expected = {name: term / len(boxes) for name, term in expected.items()}
    expected["box"] = 5 * losses.giou_loss(torch.stack(boxes), torch.stack(objects))
    check(dict(objective(outputs, TARGETS)), expected, leaves)
    scores = objective.scores(outputs)
    expected_scores = outputs.class_scores.softmax(-1).repeat_interleave(2, dim=1)
    torch.testing.assert_close(scores, outputs.confidences.sigmoid()[..., None] * expected_scores)


def test_perfect_outputs_cost_nothing_and_are_found_again() -> None:
    _, outputs = given()
    objective = YOLOv1(grid=(3, 3))
    classes, confidences = torch.zeros(3, 9, 3), torch.zeros(3, 18)
    numbers = torch.zeros(3, 18, 4)
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        for place in assignment.positive.nonzero().squeeze(1).tolist():
            row = assignment.matched[place]
            classes[image, place // 2, target["labels"][row]] = 1
            confidences[image, place] = 1 - 0.1 * row
            box, cell = target["boxes"][row], torch.tensor(place // 2)
            numbers[image, place] = YOLOv1Coder((3, 3)).encode(box, cell, IMAGE_SIZE)
    found = objective.decode(YOLOv1Outputs(classes, confidences, numbers, IMAGE_SIZE))
    for detections, rows, target in zip(found, ([0, 1, 2], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"], target["boxes"][rows], rtol=0, atol=1e-4)
        assert detections["scores"].tolist() == pytest.approx([1 - 0.1 * row for row in rows])
    perfect = YOLOv1Outputs(classes, (confidences > 0).float(), numbers, IMAGE_SIZE)
    assert objective(perfect, TARGETS).total.item() < 1e-9


def test_two_negative_numbers_are_no_detection() -> None:
    outputs = YOLOv1Outputs(-torch.ones(1, 1, 2), -torch.ones(1, 1), torch.ones(1, 1, 4), (8, 8))
    assert len(YOLOv1(grid=(1, 1)).decode(outputs, score_threshold=0)[0]["scores"]) == 0


def test_wrong_shapes_are_named() -> None:
    def outputs(cells: int, boxes: int, **options: Any) -> YOLOv1Outputs:
        return YOLOv1Outputs(
            torch.zeros(1, cells, 3), torch.zeros(1, boxes), torch.zeros(1, boxes, 4), (8, 8), **options
        )

    with pytest.raises(ValueError, match="`confidences` must have as many boxes for each of 9 cells, but has 20"):
        outputs(9, 20)
    with pytest.raises(ValueError, match=r"`class_scores` must have shape \(B, 49, C\), but got \(1, 9, 3\)"):
        YOLOv1()(outputs(9, 18), TARGETS[:1])
    with pytest.raises(ValueError, match="`grid` must be finite and at least 1"):
        YOLOv1(grid=(0, 7))
