"""YOLOv8's objective: its formula written as loops, a case by hand and detections."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import SoftAssignment
from lossatlas.boxes.coders import DistributionCoder
from lossatlas.losses import l1_loss
from lossatlas.objectives import YOLOv8, YOLOv8Outputs
from tests.objectives.cases import CASES, Leaves
from tests.objectives.scalars import Box, bce, check, ciou, number, predictions, softmax_cost
from tests.objectives.scenes import TARGETS


def given() -> tuple[Leaves, YOLOv8Outputs]:
    leaves = CASES["yolov8"].leaves(3)
    outputs: YOLOv8Outputs = CASES["yolov8"].outputs(leaves)
    return leaves, outputs


def distances(outputs: YOLOv8Outputs, image: int, place: int) -> list[Tensor]:
    """Means of the four distributions, in strides."""
    means = []
    for logits in outputs.distributions[image, place]:
        total = sum(x.exp() for x in logits)
        means.append(sum((i * x.exp() / total for i, x in enumerate(logits)), number(0.0)))
    return means


def decoded(outputs: YOLOv8Outputs, image: int, place: int) -> Box:
    (x, y), stride = outputs.points[place].unbind(), outputs.strides[place]
    left, top, right, bottom = (stride * distance for distance in distances(outputs, image, place))
    return [x - left, y - top, x + right, y + bottom]


def wanted(outputs: YOLOv8Outputs, place: int, box: Box) -> list[Tensor]:
    """Distances to the object's edges in strides."""
    (x, y), stride = outputs.points[place].unbind(), outputs.strides[place]
    edges = [(x - box[0]) / stride, (y - box[1]) / stride, (box[2] - x) / stride, (box[3] - y) / stride]
    return [edge.clamp(0, 15 - 0.01) for edge in edges]


@pytest.mark.parametrize("class_target", ["quality", "binary"])
def test_formula(class_target: Any) -> None:
    leaves, outputs = given()
    objective = YOLOv8(class_target=class_target)
    assignments = objective.assign(outputs, TARGETS)
    expected: dict[str, Tensor] = {name: number(0.0) for name in ("class", "box", "distribution")}
    total = ignored = 0.0
    for image, place, state, box, label in predictions(assignments):
        ignored += state == -1
        s = assignments[image].quality[place].item()
        if state >= 0:
            for index, x in enumerate(outputs.class_logits[image, place]):
                target = (s if class_target == "quality" else 1.0) if index == label else 0.0
                expected["class"] = expected["class"] + 0.5 * bce(x, target)
        if state == 1:
            total += s
            expected["box"] = expected["box"] + 7.5 * s * (1 - ciou(decoded(outputs, image, place), box))
            for logits, distance in zip(outputs.distributions[image, place], wanted(outputs, place, box), strict=True):
                low = int(distance)
                cost = (low + 1 - distance) * softmax_cost(logits.unbind(), low)
                cost = cost + (distance - low) * softmax_cost(logits.unbind(), low + 1)
                expected["distribution"] = expected["distribution"] + 1.5 * s * cost / 4
    assert total > 1
    assert ignored > 0
    terms = objective(outputs, TARGETS)
    check(dict(terms), {name: term / total for name, term in expected.items()}, leaves)
    larger = YOLOv8(class_target=class_target, times_batch_size=True)(outputs, TARGETS)
    assert {name: term.item() for name, term in larger.items()} == pytest.approx(
        {name: 3 * term.item() for name, term in terms.items()}
    )


def test_by_hand() -> None:
    """Two points; uniform distributions over 0 and 1 stride of 8 pixels: boxes of 8 x 8, an object of 8 x 8."""
    points, strides = torch.tensor([[4.0, 4.0], [60.0, 4.0]]), torch.full((2,), 8.0)

    def chosen(*_: Any) -> SoftAssignment:
        return SoftAssignment(torch.tensor([0, -1]), torch.tensor([1, 0], dtype=torch.int8), torch.tensor([0.5, 0.0]))

    objective = YOLOv8(assigner=chosen, coder=DistributionCoder(reg_max=1))
    outputs = YOLOv8Outputs(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 2), points, strides)
    terms = objective(outputs, [{"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([1])}])
    # The sum of scores is 1/2, but what it divides by is at least 1.
    assert terms["class"].item() == pytest.approx(0.5 * 6 * math.log(2))
    assert terms["box"].item() == pytest.approx(0, abs=1e-6)
    assert terms["distribution"].item() == pytest.approx(1.5 * 0.5 * math.log(2))


def test_elementwise_losses_regress_distances_in_strides() -> None:
    _, outputs = given()
    objective = YOLOv8(box_loss=l1_loss)
    assignments = objective.assign(outputs, TARGETS)
    total = weight = 0.0
    for image, place, state, box, _ in predictions(assignments):
        if state == 1:
            s = assignments[image].quality[place].item()
            weight += s
            found, right = distances(outputs, image, place), wanted(outputs, place, box)
            total += s * sum((a - b).abs().item() for a, b in zip(found, right, strict=True))
    assert objective(outputs, TARGETS)["box"].item() == pytest.approx(7.5 * total / weight, rel=1e-6)


def test_perfect_outputs_are_found_again() -> None:
    _, outputs = given()
    objective = YOLOv8()
    classes, bins = torch.full((3, 45, 3), -20.0), torch.full((3, 45, 4, 16), -1e4)
    for image, (assignment, target) in enumerate(zip(objective.assign(outputs, TARGETS), TARGETS, strict=True)):
        for place in assignment.positive.nonzero().squeeze(1).tolist():
            row = int(assignment.matched[place])
            classes[image, place, target["labels"][row]] = 3 + row
            for side, distance in enumerate(wanted(outputs, place, list(target["boxes"][row].double().unbind()))):
                low, share = int(distance), distance.item() % 1
                bins[image, place, side, low : low + 2] = torch.tensor([1 - share, share]).log().clamp(min=-1e4)
    perfect = YOLOv8Outputs(classes, bins, outputs.points.float(), outputs.strides.float())
    for detections, rows, target in zip(objective.decode(perfect), ([2, 1, 0], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"], target["boxes"][rows], rtol=0, atol=1e-3)
        assert detections["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-3 - row)) for row in rows])
    assert objective(perfect, TARGETS)["box"].item() == pytest.approx(0, abs=1e-4)


def test_wrong_arguments_are_named() -> None:
    good = given()[1]
    with pytest.raises(ValueError, match=r"`distributions` must have shape \(3, 45, 4, R\), but got \(3, 45, 64\)"):
        YOLOv8Outputs(good.class_logits, torch.zeros(3, 45, 64), good.points, good.strides)
    with pytest.raises(ValueError, match="`distribution_weight` must be finite and at least 0"):
        YOLOv8(distribution_weight=-1)
    with pytest.raises(ValueError, match=r"`distribution_loss` must be one of .* but got l1_loss"):
        YOLOv8(distribution_loss=l1_loss)
    wrong = YOLOv8Outputs(good.class_logits, torch.zeros(3, 45, 4, 17), good.points, good.strides)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(\.\.\., 4, 16\), but got"):
        YOLOv8()(wrong, TARGETS)
