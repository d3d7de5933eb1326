"""The assigners of YOLOv1, v3, v4 and v5 against their rules written as loops, and worked by hand."""

import random
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign.assignment import Assignment
from lossatlas.assign.yolo_anchors import YOLOv3BestAnchor, YOLOv4
from lossatlas.assign.yolo_ratio import YOLOv5Ratio
from lossatlas.assign.yolo_v1 import YOLOv1Cell
from lossatlas.boxes.priors import yolo_anchors
from tests.assign.scenes import (
    Box,
    area,
    assert_same,
    assert_same_objects,
    claimed_by_crowd,
    empty_target,
    iou,
    random_box,
    random_target,
    shuffled,
    visiting_order,
)

SHAPES = [[(4, 4), (4, 8)], [(8, 4), (12, 12)]]
SIZES, GRID_STRIDES = [(4, 6), (2, 3)], [4, 8]
ANCHORS = yolo_anchors(SIZES, GRID_STRIDES, [[(float(w), float(h)) for w, h in level] for level in SHAPES])
STRIDES = torch.tensor([4.0] * 48 + [8.0] * 12)
CELLS = [
    (stride, row, column, shape)
    for (rows, columns), stride, shapes in zip(SIZES, GRID_STRIDES, SHAPES, strict=True)
    for row in range(rows)
    for column in range(columns)
    for shape in shapes
]
"""Stride, row, column and shape of every prediction."""


def sides(box: Box) -> tuple[int, int]:
    return int(box[2] - box[0]), int(box[3] - box[1])


def shape_iou(a: tuple[int, int], b: tuple[int, int]) -> Fraction:
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return Fraction(shared, a[0] * a[1] + b[0] * b[1] - shared)


def place(box: Box, stride: int) -> tuple[Fraction, Fraction]:
    """Centre in cells."""
    return Fraction(int(box[0] + box[2]), 2 * stride), Fraction(int(box[1] + box[3]), 2 * stride)


def candidates(box: Box) -> dict[int, Fraction]:
    """Anchors on the cell with the object's centre and the IoU of shapes."""
    found = {}
    for index, (stride, row, column, shape) in enumerate(CELLS):
        x, y = place(box, stride)
        if column <= x < column + 1 and row <= y < row + 1 and shape_iou(shape, sides(box)) > 0:
            found[index] = shape_iou(shape, sides(box))
    return found


def winners(claims: dict[int, dict[int, Fraction]], target: dict[str, Tensor]) -> list[int]:
    """Of the objects that claim a prediction the one with the highest fit, of equal ones the first one visited."""
    matched = []
    for index in range(len(CELLS)):
        fits = {row: claims[row][index] for row in visiting_order(target) if index in claims[row]}
        best = max(fits.values(), default=None)
        matched.append(next((row for row in fits if fits[row] == best), -1))
    return matched


def boxes_of(target: dict[str, Tensor]) -> list[Box]:
    return [tuple(box) for box in target["boxes"].tolist()]


def scene(seed: int) -> tuple[random.Random, dict[str, Tensor], list[Box], Tensor]:
    """Objects, predicted boxes of which some are objects, and probabilities of three classes."""
    source = random.Random(seed)
    target = random_target(source, source.choice([0, 1, 4, 9]), 18, 14, crowd=0.2)
    predictions = [random_box(source, 18, 14) for _ in CELLS]
    for index, box in enumerate(boxes_of(target)):
        predictions[7 * index] = box
    probabilities = torch.tensor([[source.choice([0.0, 0.25, 0.5]) for _ in range(3)] for _ in CELLS])
    return source, target, predictions, probabilities


def check(assignment: Assignment, matched: list[int], ignored: list[bool]) -> set[int]:
    state = [1 if row >= 0 else -1 if skip else 0 for row, skip in zip(matched, ignored, strict=True)]
    assert assignment.matched.tolist() == matched
    assert assignment.state.tolist() == state
    return set(state)


@pytest.mark.parametrize("ignore", ["anchor", "prediction"])
def test_yolov3_rule(ignore: Any) -> None:
    seen = set()
    for seed in range(12):
        source, target, predictions, _ = scene(seed)
        boxes, objects = boxes_of(target), visiting_order(target)
        claims: dict[int, dict[int, Fraction]] = {}
        for row in objects:
            fits = candidates(boxes[row])
            best = max(fits.values(), default=None)
            claims[row] = dict([next((i, fit) for i, fit in fits.items() if fit == best)] if fits else [])
        judged: list[Box] = predictions if ignore == "prediction" else [tuple(box) for box in ANCHORS.tolist()]
        ignored = [
            any(iou(box, boxes[row]) > Fraction(1, 4) for row in objects) or claimed_by_crowd(box, target)
            for box in judged
        ]
        assigner = YOLOv3BestAnchor(ignore, 0.25, block_size=source.choice([None, 1, 7]))
        given = torch.tensor(predictions, dtype=torch.float32)
        assignment = assigner(ANCHORS, STRIDES, target, given)
        seen |= check(assignment, winners(claims, target), ignored)
        other = shuffled(target, source)
        assert_same_objects(assignment, target, assigner(ANCHORS, STRIDES, other, given), other)
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("class_match", ["object", "any"])
def test_yolov4_rule(class_match: Any) -> None:
    seen = set()
    for seed in range(12):
        source, target, predictions, probabilities = scene(seed)
        boxes, objects, labels = boxes_of(target), visiting_order(target), target["labels"].tolist()
        claims: dict[int, dict[int, Fraction]] = {}
        for row in objects:
            fits = candidates(boxes[row])
            best = max(fits.values(), default=None)
            first = next((i for i, fit in fits.items() if fit == best), None)
            claims[row] = {i: fit for i, fit in fits.items() if fit > Fraction(1, 2) or i == first}
        ignored = []
        for index, box in enumerate(predictions):
            chances = probabilities[index].tolist()
            near = [row for row in objects if iou(box, boxes[row]) > Fraction(1, 4)]
            sure = [row for row in near if (chances[labels[row]] if class_match == "object" else max(chances)) > 0.25]
            ignored.append(bool(sure) or claimed_by_crowd(box, target))
        assigner = YOLOv4(0.5, 0.25, class_match=class_match, block_size=source.choice([None, 1, 7]))
        given = torch.tensor(predictions, dtype=torch.float32)
        assignment = assigner(ANCHORS, STRIDES, target, given, probabilities)
        seen |= check(assignment, winners(claims, target), ignored)
        other = shuffled(target, source)
        assert_same_objects(assignment, target, assigner(ANCHORS, STRIDES, other, given, probabilities), other)
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("neighbors", [True, False])
def test_yolov5_rule(neighbors: bool) -> None:
    seen = set()
    for seed in range(12):
        source, target, _, _ = scene(seed)
        boxes = boxes_of(target)
        claims: dict[int, dict[int, Fraction]] = {row: {} for row in visiting_order(target)}
        for row, claim in claims.items():
            width, height = sides(boxes[row])
            for index, (stride, cell_row, column, shape) in enumerate(CELLS):
                x, y = place(boxes[row], stride)
                dx, dy = abs(x - column - Fraction(1, 2)), abs(y - cell_row - Fraction(1, 2))
                own = column <= x < column + 1 and cell_row <= y < cell_row + 1
                # A neighbour holds the centre's other coordinate, and its middle is less than one cell from the centre.
                beside = cell_row <= y < cell_row + 1 and dx < 1
                above = column <= x < column + 1 and dy < 1
                if width * height == 0 or not (own or (neighbors and (beside or above))):
                    continue
                w, h = shape
                if max(Fraction(width, w), Fraction(w, width), Fraction(height, h), Fraction(h, height)) < 2:
                    claim[index] = shape_iou(shape, (width, height))
        ignored = [claimed_by_crowd(tuple(box), target) for box in ANCHORS.tolist()]
        assigner = YOLOv5Ratio(2, neighbors)
        assignment = assigner(ANCHORS, STRIDES, target)
        seen |= check(assignment, winners(claims, target), ignored)
        other = shuffled(target, source)
        assert_same_objects(assignment, target, assigner(ANCHORS, STRIDES, other), other)
        assert_same(assignment, YOLOv5Ratio(2, neighbors, block_size=3)(ANCHORS, STRIDES, target))
    assert seen == {-1, 0, 1}


def test_yolov5_takes_three_cells_or_one_in_the_middle() -> None:
    anchors, strides = yolo_anchors([(3, 3)], [8], [[(8, 8)]]), torch.full((9,), 8.0)
    labels = torch.tensor([0])
    near_left_top = {"boxes": torch.tensor([[6.0, 6.0, 14.0, 14.0]]), "labels": labels}
    assert YOLOv5Ratio()(anchors, strides, near_left_top).positive.nonzero().flatten().tolist() == [1, 3, 4]
    middle = {"boxes": torch.tensor([[8.0, 8.0, 16.0, 16.0]]), "labels": labels}
    assert YOLOv5Ratio()(anchors, strides, middle).positive.nonzero().flatten().tolist() == [4]
    corner = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0]]), "labels": labels}
    assert YOLOv5Ratio()(anchors, strides, corner).positive.nonzero().flatten().tolist() == [0]
    four_times = {"boxes": torch.tensor([[-4.0, 8.0, 28.0, 16.0]]), "labels": labels}
    assert not YOLOv5Ratio()(anchors, strides, four_times).positive.any()


def test_yolov1_rule() -> None:
    for seed in range(25):
        source = random.Random(seed)
        rows, columns, count = source.choice([(1, 1, 1), (2, 3, 2), (3, 2, 3)])
        target = random_target(source, source.choice([0, 1, 4, 9]), 18, 6, crowd=0.2)
        predictions = [random_box(source, 20, 6) for _ in range(rows * columns * count)]
        matched = [-1] * len(predictions)
        boxes = boxes_of(target)
        for cell in range(rows * columns):
            row, column = divmod(cell, columns)
            for object_ in visiting_order(target):
                x = Fraction(int(boxes[object_][0] + boxes[object_][2]), 2) * columns / 24
                y = Fraction(int(boxes[object_][1] + boxes[object_][3]), 2) * rows / 16
                if not (column <= x < column + 1 and row <= y < row + 1) or area(boxes[object_]) == 0:
                    continue
                mine = range(cell * count, (cell + 1) * count)
                overlaps = [iou(predictions[i], boxes[object_]) for i in mine]
                apart = [distance(predictions[i], boxes[object_], 24, 16) for i in mine]
                best = overlaps.index(max(overlaps)) if max(overlaps) > 0 else apart.index(min(apart))
                matched[cell * count + best] = object_
                break
        ignored = [claimed_by_crowd(box, target) for box in predictions]
        assigner = YOLOv1Cell((rows, columns))
        given = torch.tensor(predictions, dtype=torch.float64)
        assignment = assigner(given, (16, 24), target)
        check(assignment, matched, ignored)
        other = shuffled(target, source)
        assert_same_objects(assignment, target, assigner(given, (16, 24), other), other)


def distance(a: Box, b: Box, width: int, height: int) -> Fraction:
    def fractions(box: Box) -> list[Fraction]:
        x1, y1, x2, y2 = (int(edge) for edge in box)
        return [
            Fraction(x1 + x2, 2 * width),
            Fraction(y1 + y2, 2 * height),
            Fraction(x2 - x1, width),
            Fraction(y2 - y1, height),
        ]

    return sum(((p - q) ** 2 for p, q in zip(fractions(a), fractions(b), strict=True)), Fraction(0))


def test_nothing_to_assign() -> None:
    none, zero = empty_target(), torch.zeros(0, 4)
    some = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "labels": torch.tensor([0])}
    for target in (none, some):
        assert len(YOLOv3BestAnchor()(zero, torch.zeros(0), target)) == 0
        assert len(YOLOv4()(zero, torch.zeros(0), target, zero, torch.zeros(0, 2))) == 0
        assert len(YOLOv5Ratio()(zero, torch.zeros(0), target)) == 0
        assert len(YOLOv1Cell()(zero, (10, 10), target)) == 0
    for assignment in (
        YOLOv3BestAnchor()(ANCHORS, STRIDES, none),
        YOLOv4()(ANCHORS, STRIDES, none, ANCHORS, torch.zeros(60, 2)),
        YOLOv5Ratio()(ANCHORS, STRIDES, none),
        YOLOv1Cell((6, 10))(ANCHORS, (10, 10), none),
    ):
        assert assignment.state.tolist() == [0] * 60


def test_an_object_without_an_area_or_outside_the_image_has_no_anchor() -> None:
    boxes = torch.tensor(
        [[3.0, 3.0, 3.0, 9.0], [-20.0, 2.0, -12.0, 6.0], [26.0, 2.0, 34.0, 6.0], [2.0, 14.0, 6.0, 22.0]]
    )
    target = {"boxes": boxes, "labels": torch.zeros(4, dtype=torch.int64)}
    assert not YOLOv3BestAnchor()(ANCHORS, STRIDES, target).positive.any()
    assert not YOLOv5Ratio(neighbors=False)(ANCHORS, STRIDES, target).positive.any()
    assert not YOLOv1Cell((6, 10))(ANCHORS, (16, 24), {key: value[1:] for key, value in target.items()}).positive.any()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`predictions` must be given with ignore='prediction'"):
        YOLOv3BestAnchor.darknet()(ANCHORS, STRIDES, empty_target())
    with pytest.raises(ValueError, match=r"`strides` must have shape \(60,\)"):
        YOLOv5Ratio()(ANCHORS, STRIDES[1:], empty_target())
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(60, C\)"):
        YOLOv4()(ANCHORS, STRIDES, empty_target(), ANCHORS, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="`predictions` must have as many boxes for each of the 49 cells, but has 60"):
        YOLOv1Cell()(ANCHORS, (10, 10), empty_target())
    with pytest.raises(ValueError, match="`ratio` must be finite and above 1"):
        YOLOv5Ratio(1)
