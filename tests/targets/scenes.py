"""People for the tests of pose targets: overlapping, outside the image, unlabelled, crowds and none."""

import random
from typing import Any

import torch
from torch import Tensor


def random_people(source: random.Random, people: int, kinds: int, height: float, width: float) -> Tensor:
    """Return keypoints ``(people, kinds, 3)``; some are not labelled, with coordinates of no meaning, some outside."""
    rows = []
    for _ in range(people):
        person = []
        for _ in range(kinds):
            visibility = source.choice([0, 1, 2, 2])
            x, y = source.uniform(-0.15, 1.15) * width, source.uniform(-0.15, 1.15) * height
            person.append([x, y, float(visibility)] if visibility else [float("nan"), 1e30, 0.0])
        rows.append(person)
    return torch.tensor(rows, dtype=torch.float64).view(people, kinds, 3)


def person(*points: tuple[float, float], **entries: Any) -> dict[str, Any]:
    """Return a target with one person whose keypoints are all labelled."""
    return {"keypoints": torch.tensor([[[x, y, 2.0] for x, y in points]]), **entries}
