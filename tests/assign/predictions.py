"""Random predictions at the points of a grid, and the arithmetic of costs one number at a time."""

import math
import random
from typing import NamedTuple

import torch
from torch import Tensor

from lossatlas.boxes.priors import point_grid


class Predictions(NamedTuple):
    points: Tensor
    strides: Tensor
    class_logits: Tensor
    boxes: Tensor
    objectness_logits: Tensor


CLASSES = 3


def random_predictions(seed: int, sizes: list[tuple[int, int]], strides: list[float]) -> Predictions:
    """Boxes around the points, from a fraction of a stride to several strides wide."""
    generator = torch.Generator().manual_seed(seed)
    points, steps = point_grid(sizes, strides)
    count = len(points)
    distances = torch.rand(count, 4, generator=generator) * 3 * steps[:, None]
    boxes = torch.cat((points - distances[:, :2], points + distances[:, 2:]), dim=1)
    logits = torch.randn(count, CLASSES + 1, generator=generator) * 2
    return Predictions(points, steps, logits[:, :CLASSES], boxes, logits[:, CLASSES])


def float_target(source: random.Random, objects: int, extent: float, crowd: float = 0.0) -> dict[str, Tensor]:
    boxes = []
    for _ in range(objects):
        x, y = source.uniform(0, extent), source.uniform(0, extent)
        boxes.append([x, y, x + source.uniform(1, extent / 2), y + source.uniform(1, extent / 2)])
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor([source.randrange(CLASSES) for _ in boxes], dtype=torch.int64),
        "iscrowd": torch.tensor([source.random() < crowd for _ in boxes], dtype=torch.bool),
    }


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def inside(point: list[float], box: list[float], margin: float = 0.0) -> bool:
    x, y = point
    return min(x - box[0], y - box[1], box[2] - x, box[3] - y) > margin


def center(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def float_iou(a: list[float], b: list[float]) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def cheapest(costs: dict[int, dict[int, float]], ious: dict[int, dict[int, float]], count: int, topk: int) -> list[int]:
    """Dynamic k over candidates: for each object (a row) the costs and IoUs of its candidates."""
    claims: list[list[tuple[float, int]]] = [[] for _ in range(count)]
    for row, pairs in costs.items():
        k = max(1, int(sum(sorted(ious[row].values(), reverse=True)[:topk])))
        for index in sorted(pairs, key=lambda index: (pairs[index], index))[:k]:
            claims[index].append((pairs[index], row))
    return [min(claim, key=lambda entry: entry[0])[1] if claim else -1 for claim in claims]


def states(predictions: Predictions, matched: list[int], target: dict[str, Tensor]) -> list[int]:
    """What points in crowd regions that answer for nothing become."""
    crowds = target["boxes"][target["iscrowd"]].tolist()
    return [
        1 if row >= 0 else -1 if any(inside(point, crowd) for crowd in crowds) else 0
        for point, row in zip(predictions.points.tolist(), matched, strict=True)
    ]


def arguments(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the assigners of points with classes and boxes take before the target."""
    return predictions.points, predictions.strides, predictions.class_logits, predictions.boxes
