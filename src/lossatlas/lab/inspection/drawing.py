"""Images of a data set with the predictions that answer for their objects."""

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from lossatlas.lab.data import Data, DetectionSplit
from lossatlas.lab.formatting import plural
from lossatlas.lab.inspection.priors import Priors
from lossatlas.lab.inspection.survey import Survey
from lossatlas.lab.inspection.surveyor import Surveyor
from lossatlas.lab.pictures.boxes import box_of, draw_boxes
from lossatlas.lab.pictures.picture import Panel, Picture

WORST = 4
AT_RANDOM = 4
MAX_ANCHORS = 80
"""Positives of an image whose anchors are drawn; of more, only their middles are."""


def draw(survey: Survey, data: Data[DetectionSplit]) -> list[Picture]:
    """Draw the images with the most objects that nothing answers for, and some at random with a fixed seed.

    Args:
        survey: of the data.
        data: of the survey.
    """
    surveyor = Surveyor(survey.objective, data, survey.image_size)
    return [_picture(surveyor, survey.split, index, reason) for index, reason in _choose(survey)]


def _choose(survey: Survey) -> list[tuple[int, str]]:
    without = torch.bincount(survey.found.image[survey.without], minlength=len(survey.split))
    worst = without.argsort(descending=True, stable=True)[:WORST].tolist()
    chosen = {index: "most objects without" for index in worst if without[index]}
    some = survey.found.image.unique().tolist()
    for place in np.random.default_rng(0).permutation(len(some)).tolist():
        if len(chosen) >= min(len(some), WORST + AT_RANDOM):
            break
        chosen.setdefault(some[place], "at random")
    return list(chosen.items())


def _picture(surveyor: Surveyor, split: DetectionSplit, index: int, reason: str) -> Picture:
    record, sample = split.records[index], split[index]
    size, target = surveyor.size(record), surveyor.target(record)
    assignment = surveyor.assign(size, target)
    priors = surveyor.priors(size, len(assignment))
    rows = assignment.positive.nonzero().squeeze(1)
    matched, boxes, crowd = assignment.matched[rows], sample.target["boxes"], sample.target["iscrowd"]
    counts = torch.bincount(matched, minlength=len(boxes))
    shapes = [
        box_of(
            boxes[row],
            "crowd" if crowd[row] else "truth" if counts[row] else "missed",
            f"{split.class_names[int(sample.target['labels'][row])]} {'' if crowd[row] else int(counts[row])}".strip(),
        )
        for row in (counts > 0).int().argsort(stable=True).tolist()
    ]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    overlay = draw_boxes(shapes, sample.image.shape[1])
    overlay += _positives(priors, rows, middles[matched], 1 / surveyor.zoom(record))
    lost = int(((counts == 0) & ~crowd).sum())
    caption = f"{plural(int((~crowd).sum()), 'object')}, {lost} without; {plural(len(rows), 'positive')}"
    return Picture.of(sample, index, reason, [Panel(sample.file_name, caption, overlay)])


def _positives(priors: Priors, rows: Tensor, middles: Tensor, zoom: Tensor) -> Markup:
    """Return each positive as a dot in the colour of its level, with a line to the middle of its object."""
    if priors.geometry == "none":
        return Markup("")
    parts = []
    centers, levels = (priors.centers[rows] * zoom).tolist(), priors.level[rows].tolist()
    for (x, y), (to_x, to_y), level in zip(centers, middles.tolist(), levels, strict=True):
        parts.append(
            f'<line class="link c{level % 6}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'
            f'<circle class="prior c{level % 6}" cx="{x:.1f}" cy="{y:.1f}"/>'
        )
    if priors.geometry == "anchors" and len(rows) <= MAX_ANCHORS:
        corners = priors.place[rows] * zoom.repeat(2)
        for (x1, y1, x2, y2), level in zip(corners.tolist(), levels, strict=True):
            place = f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
            parts.append(f'<rect class="anchor c{level % 6}" {place}/>')
    return Markup("\n".join(parts))
