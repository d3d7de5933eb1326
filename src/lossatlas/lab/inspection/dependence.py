"""Whether an assigner looks at what the network predicts, found out by trying."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossatlas.lab.data import DetectionSplit
from lossatlas.lab.inspection.surveyor import Surveyor, Target

PROBES = 24
"""Assignments with other predictions, to see whether they matter."""


PREDICTED = 20
"""Predictions of such an assignment that are taken for objects."""

SHAKES = (0.1, 0.5, 3.0)
"""Standard deviations of the noise that makes other predictions of the network's."""


def depends_on_predictions(surveyor: Surveyor, split: DetectionSplit) -> bool:
    """Try out whether assignments change when the predictions do.

    Args:
        surveyor: of the objective.
        split: images whose objects are assigned.
    """
    indices = [index for index, record in enumerate(split.records) if not record.iscrowd.all()][:PROBES]
    generator = torch.Generator().manual_seed(0)
    assigning: Any = surveyor.learner.assigning
    seen: dict[tuple[int, int], Any] = {}
    for number in range(PROBES if indices else 0):
        record = split.records[indices[number % len(indices)]]
        size = surveyor.size(record)
        if size not in seen:
            seen[size] = surveyor.learner.survey(torch.zeros(1, 3, *size))
        outputs = seen[size]
        other = _shaken(outputs, SHAKES[number % len(SHAKES)], generator)
        # Where the objects are, and where they are just what is predicted: some assigners ignore such predictions.
        for target in (surveyor.target(record), _predicted(assigning, other, size)):
            one, two = (assigning.assign(found, [target])[0] for found in (outputs, other))
            if not (torch.equal(one.matched, two.matched) and torch.equal(one.state, two.state)):
                return True
    return False


def _predicted(assigning: Any, outputs: Any, size: tuple[int, int]) -> Target:
    """Return the best predictions of an image as its objects."""
    (found,) = assigning.decode(outputs, [size], max_detections=PREDICTED)
    kept = (found["boxes"][:, :2] < found["boxes"][:, 2:]).all(1)
    crowd = torch.zeros(int(kept.sum()), dtype=torch.bool)
    return {"boxes": found["boxes"][kept], "labels": found["labels"][kept], "iscrowd": crowd}


def _shaken(outputs: Any, scale: float, generator: torch.Generator) -> Any:
    """Return outputs with other predictions: of classes quite different ones, of the rest as different as is said."""
    changed: dict[str, Any] = {}
    for part in fields(outputs):
        value = getattr(outputs, part.name)
        if is_dataclass(value):
            changed[part.name] = _shaken(value, scale, generator)
        elif isinstance(value, Tensor) and value.requires_grad:
            noise = torch.randn(value.shape, generator=generator)
            noise *= max(SHAKES) if part.name.startswith("class") else scale
            positive = bool((value >= 0).all())  # such as distances, which stay so
            changed[part.name] = value.detach() * noise.exp() if positive else value.detach() + noise
    return replace(outputs, **changed)
