"""Random images on a coarse grid of coordinates, so that ties and exact thresholds are common."""

import random
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from lossatlas.assign import Assignment

Box = tuple[float, float, float, float]


def random_box(source: random.Random, extent: int, longest: int) -> Box:
    x, y = source.randrange(extent), source.randrange(extent)
    return (x, y, x + source.randrange(longest + 1), y + source.randrange(longest + 1))


def random_target(source: random.Random, objects: int, extent: int, longest: int, crowd: float) -> dict[str, Tensor]:
    boxes = [random_box(source, extent, longest) for _ in range(objects)]
    if objects > 2:
        boxes[1] = boxes[0]  # two objects in one place
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([source.randrange(3) for _ in boxes], dtype=torch.int64),
        "iscrowd": torch.tensor([source.random() < crowd for _ in boxes], dtype=torch.bool),
    }


def area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def visiting_order(target: dict[str, Tensor]) -> list[int]:
    """Rows of the objects that are no crowd regions: smallest area first, then coordinates, then label."""
    boxes: list[Box] = [tuple(box) for box in target["boxes"].tolist()]
    labels, crowd = target["labels"].tolist(), target["iscrowd"].tolist()
    rows = [row for row in range(len(boxes)) if not crowd[row]]
    return sorted(rows, key=lambda row: (area(boxes[row]), boxes[row], labels[row]))


def intersection(a: Box, b: Box) -> Fraction:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return Fraction(int(max(width, 0)) * int(max(height, 0)))


def iou(a: Box, b: Box) -> Fraction:
    shared = intersection(a, b)
    union = Fraction(int(area(a) + area(b))) - shared
    return shared / union if union else Fraction(0)


def answer_by_content(assignment: Assignment, target: dict[str, Tensor]) -> list[Any]:
    """Box and label of each positive's object: what must not depend on the order of the objects."""
    rows = assignment.matched.tolist()
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    return [(boxes[row], labels[row]) if row >= 0 else None for row in rows]


def claimed_by_crowd(box: Box, target: dict[str, Tensor], threshold: float = 0.5) -> bool:
    """Whether a crowd region covers this share of the box."""
    crowds = [tuple(crowd) for crowd in target["boxes"][target["iscrowd"]].tolist()]
    return any(area(box) > 0 and intersection(box, crowd) / Fraction(int(area(box))) >= threshold for crowd in crowds)


def shuffled(target: dict[str, Tensor], source: random.Random) -> dict[str, Tensor]:
    """The same objects in another order."""
    count = len(target["labels"])
    order = torch.tensor(source.sample(range(count), count), dtype=torch.int64)
    return {key: value[order] for key, value in target.items()}


def assert_same(first: Assignment, second: Assignment) -> None:
    assert torch.equal(first.matched, second.matched)
    assert torch.equal(first.state, second.state)


def assert_same_objects(
    first: Assignment, target: dict[str, Tensor], second: Assignment, other: dict[str, Tensor]
) -> None:
    """The same answer for two orders of the same objects."""
    assert torch.equal(first.state, second.state)
    assert answer_by_content(first, target) == answer_by_content(second, other)


def float_boxes(count: int, seed: int) -> Tensor:
    """Boxes with sides of 5 to 45 in a square of 140."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 100
    return torch.cat((start, start + 5 + torch.rand(count, 2, generator=generator) * 40), dim=1)


def empty_target() -> dict[str, Tensor]:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
