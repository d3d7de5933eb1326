"""Random images on a coarse grid of coordinates, so that ties and exact thresholds are common."""

import random

import torch
from torch import Tensor

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
