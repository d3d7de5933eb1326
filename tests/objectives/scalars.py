"""Formulas of the detectors in numbers, one at a time: what the tensors of the library are held to, with gradients.

Numbers are 0-d float64 tensors, so that autograd differentiates the formula as it is written.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.objectives.dense import Target
from tests.objectives.scenes import TARGETS

Number: TypeAlias = Tensor
Box: TypeAlias = list[Tensor]


def number(value: float) -> Number:
    return torch.tensor(value, dtype=torch.float64)


def sigmoid(x: Number) -> Number:
    return 1 / (1 + (-x).exp())


def bce(x: Number, y: Number | float) -> Number:
    return -(y * sigmoid(x).log() + (1 - y) * (1 - sigmoid(x)).log())


def softmax_cost(logits: Sequence[Number], label: int) -> Number:
    return -(logits[label].exp() / sum(x.exp() for x in logits)).log()


def smaller(a: Number, b: Number) -> Number:
    return a if a <= b else b


def larger(a: Number, b: Number) -> Number:
    return a if a >= b else b


def area(box: Box) -> Number:
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a: Box, b: Box) -> Number:
    width = smaller(a[2], b[2]) - larger(a[0], b[0])
    height = smaller(a[3], b[3]) - larger(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0 * (width + height)
    return width * height / (area(a) + area(b) - width * height)


def ciou(a: Box, b: Box) -> Number:
    overlap = iou(a, b)
    apart = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    diagonal = (larger(a[2], b[2]) - smaller(a[0], b[0])) ** 2 + (larger(a[3], b[3]) - smaller(a[1], b[1])) ** 2
    angles = [((box[2] - box[0]) / (box[3] - box[1])).atan() for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = (v / (1 - overlap + v)).detach()
    return overlap - apart / diagonal - alpha * v


def around(x: Number, y: Number, w: Number, h: Number) -> Box:
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def middle(box: Sequence[Number]) -> tuple[Number, Number, Number, Number]:
    """Centre and sides."""
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def predictions(
    assignments: Sequence[Assignment], targets: Sequence[Target] = TARGETS
) -> Iterator[tuple[int, int, int, Box, int]]:
    """Image, prediction, state, and object and class of positives (no object and class -1 for others)."""
    for image, (assignment, target) in enumerate(zip(assignments, targets, strict=True)):
        states = zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)
        for prediction, (state, row) in enumerate(states):
            if state == 1:
                box = list(target["boxes"][row].double().unbind())
                yield image, prediction, state, box, int(target["labels"][row])
            else:
                yield image, prediction, state, [], -1


def check(terms: dict[str, Tensor], expected: dict[str, Tensor], leaves: dict[str, Tensor]) -> None:
    """Values and the gradients of each term agree."""
    assert set(terms) == set(expected)
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-9, atol=1e-12)
        found, wanted = (
            torch.autograd.grad(value, list(leaves.values()), retain_graph=True, allow_unused=True)
            for value in (term, expected[name])
        )
        for leaf, got, right in zip(leaves.values(), found, wanted, strict=True):
            nothing = torch.zeros_like(leaf)
            torch.testing.assert_close(
                nothing if got is None else got, nothing if right is None else right, rtol=1e-8, atol=1e-12
            )
