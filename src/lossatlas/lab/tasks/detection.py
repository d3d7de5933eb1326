"""Detection: boxes with classes, scored by COCO's average precision."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossatlas.lab.augmentation import Motion, move_boxes, zooms
from lossatlas.lab.data import DetectionData, DetectionSplit, ImageRecord, load_detection
from lossatlas.lab.evaluation import evaluate_detections, to_coco
from lossatlas.lab.facts import Facts
from lossatlas.lab.learner import Prediction
from lossatlas.lab.metrics import Metric
from lossatlas.lab.pictures.boxes import draw_detections
from lossatlas.lab.pictures.picture import Picture
from lossatlas.lab.tasks.task import Predictions, Task
from lossatlas.lab.trial import TrialConfig


class Detection(Task):
    """Find the objects of an image: a box, a class and a score for each."""

    name = "detection"
    objective = "fcos"
    builtin = "digits"
    metrics = (
        Metric("AP", "COCO's average precision from 0 to 1, the mean over IoU thresholds from 0.50 to 0.95"),
        Metric("AP50", "the same at the threshold 0.50"),
        Metric("AP75", "the same at the threshold 0.75"),
    )
    class_metric = "AP50"
    reading = (
        "Each variant shows what it scores at least as high as the threshold that gives its best F1 on the whole test "
        "set. A prediction is right if its class is right and it overlaps its object with an IoU of at least 0.5."
    )
    legend = (("truth", "ground truth"), ("right", "right"), ("wrong", "wrong"), ("missed", "missed object"))

    def load(
        self, data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
    ) -> DetectionData:
        """Read the built-in digits or files in COCO's format, as `load_detection`."""
        return load_detection(data, train=train, test=test)

    def facts(self, data: DetectionData, image_size: int) -> Facts:
        """Return the number of classes and the sizes of the objects."""
        records = data.train.records
        factors = zooms(((record.height, record.width) for record in records), image_size)
        counts = torch.tensor([len(record.labels) for record in records])
        boxes = torch.cat([record.boxes for record in records])
        sizes = (boxes[:, 2:] - boxes[:, :2]) * factors.repeat_interleave(counts, dim=0)
        return Facts(len(data.class_names), image_size, sizes[~torch.cat([record.iscrowd for record in records])])

    def move(self, target: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
        """Move the boxes."""
        return move_boxes(target, motion)

    def serialize(self, prediction: Prediction, record: ImageRecord, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return detections in COCO's result format."""
        height, width = size
        factor = torch.tensor([record.width / width, record.height / height] * 2)
        return to_coco({**prediction, "boxes": prediction["boxes"].cpu() * factor}, record.image_id)

    def score(self, predictions: Predictions, split: DetectionSplit, config: TrialConfig) -> dict[str, float]:
        """Return COCO's metrics."""
        return evaluate_detections(split.coco, predictions, backend=config.backend)

    def pictures(
        self, split: DetectionSplit, predictions: Mapping[str, Predictions], class_names: Sequence[str]
    ) -> list[Picture]:
        """Draw boxes: right, wrong and missed."""
        return draw_detections(split, predictions, class_names)
