"""Validation images with predictions beside ground truth."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.boxes.geometry import pairwise_coverage, pairwise_iou
from lossatlas.lab.data import DetectionSplit

MATCH_IOU = 0.5
MOST_DIFFERENT = 4
AT_RANDOM = 4
MAX_SIDE = 640
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
    """One rectangle of a panel: its place in the image and its text."""

    x: float
    y: float
    width: float
    height: float
    outcome: str
    title: str


@dataclass(frozen=True)
class Panel:
    """An image with the boxes of the ground truth or of one variant."""

    name: str
    caption: str
    boxes: list[Box]

    @property
    def labelled(self) -> bool:
        """Whether there is room for the texts of the boxes."""
        return len(self.boxes) <= MAX_LABELS


@dataclass(frozen=True)
class Picture:
    """An image with a panel for the ground truth and one for each variant."""

    key: str
    title: str
    reason: str
    uri: str
    width: int
    height: int
    panels: list[Panel]


class TrialPredictions:
    """The predictions of one trial on the images of a split.

    Args:
        path: ``predictions.json`` of the trial, in COCO's result format.
        split: the images.
    """

    def __init__(self, path: Path, split: DetectionSplit) -> None:
        rows: dict[int, list[dict[str, Any]]] = {}
        for row in json.loads(path.read_text()):
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


def choose(trials: Sequence[TrialPredictions], split: DetectionSplit) -> list[tuple[int, str]]:
    """Choose the images to show: where the variants differ most, and some at random with a fixed seed.

    Args:
        trials: predictions of each variant.
        split: the images.

    Returns:
        Indices with the reason for each; no image twice.
    """
    mistakes = np.array(
        [[trial.mistakes(index, split.target(index)) for trial in trials] for index in range(len(split))]
    )
    spread = mistakes.max(axis=1) - mistakes.min(axis=1)
    order = np.argsort(-spread, kind="stable")[:MOST_DIFFERENT]
    chosen = {int(index): "variants differ" for index in order if spread[index] > 0}
    for index in np.random.default_rng(0).permutation(len(split)):
        if len(chosen) >= min(len(split), MOST_DIFFERENT + AT_RANDOM):
            break
        chosen.setdefault(int(index), "at random")
    return list(chosen.items())


def draw(split: DetectionSplit, trials: Mapping[str, TrialPredictions], class_names: Sequence[str]) -> list[Picture]:
    """Prepare the images of a report.

    Args:
        split: the images.
        trials: predictions of each variant, by its name.
        class_names: the name of every label.

    Returns:
        One picture for each image that `choose` chooses.
    """
    return [
        _picture(split, index, reason, trials, class_names) for index, reason in choose(list(trials.values()), split)
    ]


def _picture(
    split: DetectionSplit,
    index: int,
    reason: str,
    trials: Mapping[str, TrialPredictions],
    class_names: Sequence[str],
) -> Picture:
    sample = split[index]
    height, width = sample.image.shape[-2:]
    target = sample.target
    panels = [Panel("ground truth", _count(len(target["boxes"]), "object"), _truth(target, class_names))]
    panels += [_prediction(name, trial[index], target, class_names) for name, trial in trials.items()]
    return Picture(
        key=f"image{index}",
        title=sample.file_name,
        reason=reason,
        uri=image_uri(sample.image),
        width=width,
        height=height,
        panels=panels,
    )


def _truth(target: Mapping[str, Tensor], class_names: Sequence[str]) -> list[Box]:
    return [
        _box(box, "crowd" if crowd else "truth", class_names[label])
        for box, label, crowd in zip(
            target["boxes"], target["labels"].tolist(), target["iscrowd"].tolist(), strict=True
        )
    ]


def _prediction(name: str, found: Detections, target: Mapping[str, Tensor], class_names: Sequence[str]) -> Panel:
    lost = missed(found, target)
    boxes = [_box(target["boxes"][index], "missed", f"{class_names[int(target['labels'][index])]}?") for index in lost]
    order = (found.object >= 0).int().argsort(stable=True)  # what is right lies above what is wrong
    for index in order.tolist():
        kind = int(found.object[index])
        outcome = "right" if kind >= 0 else "crowd" if kind == -2 else "wrong"
        text = f"{class_names[int(found.labels[index])]} {float(found.scores[index]):.2f}"
        boxes.append(_box(found.boxes[index], outcome, text))
    right, wrong = int((found.object >= 0).sum()), int((found.object == -1).sum())
    return Panel(name, f"{right} right, {wrong} wrong, {len(lost)} missed", boxes)


def _box(box: Tensor, outcome: str, title: str) -> Box:
    x, y, right, bottom = (round(float(value), 1) for value in box)
    return Box(x, y, round(max(right - x, 0), 1), round(max(bottom - y, 0), 1), outcome, title)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def image_uri(image: Tensor) -> str:
    """Return an image as a data URI, scaled down to at most 640 pixels a side.

    Args:
        image: (3, H, W) uint8.

    Returns:
        A JPEG, as ``data:image/jpeg;base64,...``.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
