"""Test images with detections beside ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import pairwise_coverage, pairwise_iou
from lossatlas.lab.data import DetectionSplit
from lossatlas.lab.formatting import plural
from lossatlas.lab.pictures.picture import Panel, Picture, choose

MATCH_IOU = 0.5
MAX_LABELS = 10


@dataclass(frozen=True)
class Detections:
    """What a trial predicts for one image, best score first, and which of it is right.

    Args:
        boxes: (N, 4) xyxy in pixels.
        labels: (N,) from 0.
        scores: (N,) from 0 to 1.
        object: (N,) the object that a prediction finds, -1 for none, -2 for one that lies in a crowd region.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    object: Tensor

    def above(self, threshold: float) -> "Detections":
        """Keep what scores at least `threshold`."""
        keep = self.scores >= threshold
        return Detections(self.boxes[keep], self.labels[keep], self.scores[keep], self.object[keep])


@dataclass(frozen=True)
class Box:
    """One rectangle of a panel: its place in the image, what it is, and its text.

    Args:
        x: left edge in pixels.
        y: upper edge.
        width: in pixels.
        height: in pixels.
        outcome: class of the style sheet that colours it, such as ``"right"`` or ``"missed"``.
        title: of the box, shown on it where there is room.
    """

    x: float
    y: float
    width: float
    height: float
    outcome: str
    title: str


def draw_boxes(boxes: Sequence[Box], height: int) -> Markup:
    """Return boxes as the SVG elements of a panel, with their texts where there is room for them.

    Args:
        boxes: lowest first.
        height: of the image in pixels.
    """
    parts = [
        Markup(
            '<g class="box {kind}"><title>{title} ({kind})</title><rect class="halo" {place}/><rect {place}/></g>'
        ).format(
            kind=box.outcome,
            title=box.title,
            place=Markup('x="{0.x}" y="{0.y}" width="{0.width}" height="{0.height}"').format(box),
        )
        for box in boxes
    ]
    if len(boxes) <= MAX_LABELS:
        parts += [
            Markup('<text class="box-label {}" x="{}" y="{}" dy="-0.25em">{}</text>').format(
                box.outcome, box.x + 1, max(box.y, height * 0.05), box.title
            )
            for box in boxes
        ]
    return Markup("\n").join(parts)


class TrialPredictions:
    """The predictions of one trial on the images of a split.

    Args:
        predictions: of the trial, in COCO's result format.
        split: the images.
    """

    def __init__(self, predictions: Sequence[Mapping[str, Any]], split: DetectionSplit) -> None:
        rows: dict[int, list[Mapping[str, Any]]] = {}
        for row in predictions:
            rows.setdefault(row["image_id"], []).append(row)
        self._found = [
            match(split.target(index), rows.get(record.image_id, [])) for index, record in enumerate(split.records)
        ]
        objects = sum(int((~split.target(index)["iscrowd"]).sum()) for index in range(len(split)))
        self.threshold = best_threshold(self._found, objects)

    def __getitem__(self, index: int) -> Detections:
        return self._found[index].above(self.threshold)

    def mistakes(self, index: int, target: Mapping[str, Tensor]) -> int:
        """Count wrong predictions and missed objects of an image."""
        found = self[index]
        return int((found.object == -1).sum()) + len(missed(found, target))


def match(target: Mapping[str, Tensor], rows: Sequence[Mapping[str, Any]]) -> Detections:
    """Find out which predictions of an image are right: best score first, same class, IoU at least 0.5.

    Args:
        target: ground truth of the image.
        rows: predictions in COCO's result format, ``bbox`` xywh, ``category_id`` the label.

    Returns:
        The predictions in the order of their scores; each object is found at most once.
    """
    rows = sorted(rows, key=lambda row: -row["score"])
    boxes = convert(torch.tensor([row["bbox"] for row in rows], dtype=torch.float32).reshape(-1, 4), "xywh", "xyxy")
    labels = torch.tensor([row["category_id"] for row in rows], dtype=torch.int64)
    crowd = target["iscrowd"].numpy()
    same = (labels[:, None] == target["labels"][None]).numpy()
    iou = pairwise_iou(boxes, target["boxes"]).numpy()
    hit = same & (iou >= MATCH_IOU) & ~crowd
    in_crowd = (same & (pairwise_coverage(boxes, target["boxes"]).numpy() >= MATCH_IOU) & crowd).any(axis=1)
    found = np.where(in_crowd, -2, -1)
    for number in np.flatnonzero(hit.any(axis=1)):
        if hit[number].any():  # not all of its objects were taken by better predictions
            best = int(np.where(hit[number], iou[number], -1).argmax())
            found[number], hit[:, best] = best, False
    return Detections(boxes, labels, torch.tensor([float(row["score"]) for row in rows]), torch.from_numpy(found))


def missed(found: Detections, target: Mapping[str, Tensor]) -> list[int]:
    """Return the objects of an image that no prediction finds."""
    seen = set(found.object.tolist())
    return [index for index, crowd in enumerate(target["iscrowd"].tolist()) if not crowd and index not in seen]


def best_threshold(found: Sequence[Detections], objects: int) -> float:
    """Return the score from which predictions give the best F1 over all images.

    Formula:
        F1 = 2 · right / (predictions + objects)
    """
    scores = torch.cat([image.scores for image in found]) if found else torch.zeros(0)
    if not scores.numel():
        return 0.5
    kept = torch.cat([image.object for image in found])
    order = scores.argsort(descending=True)
    scores, kept = scores[order], kept[order]
    right = (kept >= 0).cumsum(0)
    counted = (kept != -2).cumsum(0)
    return float(scores[(2 * right / (counted + objects)).argmax()])


def draw_detections(
    split: DetectionSplit, predictions: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str]
) -> list[Picture]:
    """Prepare the images of a report.

    Args:
        split: the images.
        predictions: of each variant, by its name, in COCO's result format.
        class_names: the name of every label.

    Returns:
        One picture for each image that `choose` chooses.
    """
    trials = {name: TrialPredictions(rows, split) for name, rows in predictions.items()}
    mistakes = [
        [trial.mistakes(index, split.target(index)) for trial in trials.values()] for index in range(len(split))
    ]
    pictures = []
    for index, reason in choose(mistakes):
        sample = split[index]
        target, height = sample.target, sample.image.shape[1]
        caption = plural(len(target["boxes"]), "object")
        panels = [Panel("ground truth", caption, draw_boxes(_truth(target, class_names), height))]
        panels += [_prediction(name, trial[index], target, class_names, height) for name, trial in trials.items()]
        pictures.append(Picture.of(sample, index, reason, panels))
    return pictures


def _truth(target: Mapping[str, Tensor], class_names: Sequence[str]) -> list[Box]:
    return [
        box_of(box, "crowd" if crowd else "truth", class_names[label])
        for box, label, crowd in zip(
            target["boxes"], target["labels"].tolist(), target["iscrowd"].tolist(), strict=True
        )
    ]


def _prediction(
    name: str, found: Detections, target: Mapping[str, Tensor], class_names: Sequence[str], height: int
) -> Panel:
    lost = missed(found, target)
    boxes = [
        box_of(target["boxes"][index], "missed", f"{class_names[int(target['labels'][index])]}?") for index in lost
    ]
    order = (found.object >= 0).int().argsort(stable=True)  # what is right lies above what is wrong
    for index in order.tolist():
        kind = int(found.object[index])
        outcome = "right" if kind >= 0 else "crowd" if kind == -2 else "wrong"
        text = f"{class_names[int(found.labels[index])]} {float(found.scores[index]):.2f}"
        boxes.append(box_of(found.boxes[index], outcome, text))
    right, wrong = int((found.object >= 0).sum()), int((found.object == -1).sum())
    return Panel(name, f"{right} right, {wrong} wrong, {len(lost)} missed", draw_boxes(boxes, height))


def box_of(box: Tensor, outcome: str, title: str) -> Box:
    """Return a (4,) xyxy box as a rectangle of a panel."""
    x, y, right, bottom = (round(float(value), 1) for value in box)
    return Box(x, y, round(max(right - x, 0), 1), round(max(bottom - y, 0), 1), outcome, title)
