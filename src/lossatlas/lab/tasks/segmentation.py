"""Segmentation: the class of every pixel, scored by IoU, Dice and the F1 of boundaries."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from lossatlas.lab.augmentation import Motion, move_mask
from lossatlas.lab.class_maps import ClassMaps, encode_rows
from lossatlas.lab.data import ImageInfo, SegmentationData, SegmentationSplit, load_segmentation
from lossatlas.lab.data.segmentation import VOID
from lossatlas.lab.facts import Facts
from lossatlas.lab.learner import Prediction
from lossatlas.lab.mask_scores import evaluate_masks
from lossatlas.lab.metrics import Metric
from lossatlas.lab.pictures.masks import draw_masks
from lossatlas.lab.pictures.picture import Picture
from lossatlas.lab.tasks.task import Predictions, Task
from lossatlas.lab.trial import TrialConfig


class SemanticSegmentation(Task):
    """Say of every pixel of an image which class it belongs to."""

    name = "segmentation"
    objective = "segmentation"
    builtin = "digits"
    metrics = (
        Metric("mIoU", "intersection over union, from 0 to 1, the mean over the classes that the test images show"),
        Metric("mDice", "the same with Dice's coefficient, 2 I / (A + B)"),
        Metric("BF1", "F1 of the boundaries' pixels, which may lie 0.75 % of the image's diagonal apart"),
    )
    class_metric = "IoU"
    turns = True
    recipe: ClassVar[Mapping[str, Any]] = {"image_size": 128}
    reading = (
        "The ground truth has a colour of its own for each class. The predictions are coloured by what is right and "
        "wrong; background that is found is left as it is, and void pixels of the ground truth are neither."
    )
    legend = (
        ("region hit", "right"),
        ("region extra", "background taken for an object"),
        ("region lost", "object taken for background"),
        ("region swapped", "wrong class"),
        ("region void", "void"),
    )

    def load(
        self, data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
    ) -> SegmentationData:
        """Read the built-in digits, folders of masks or files in COCO's format, as `load_segmentation`."""
        return load_segmentation(data, train=train, test=test)

    def facts(self, data: SegmentationData, image_size: int) -> Facts:
        """Return the number of classes."""
        return Facts(len(data.class_names), image_size)

    def move(self, target: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
        """Move the mask; what lies outside the picture is void."""
        return {"mask": move_mask(target["mask"], motion, fill=VOID)}

    def serialize(self, prediction: Prediction, record: ImageInfo, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return a run-length encoding for each class, of the logits interpolated to the size of the original."""
        del size
        logits = F.interpolate(
            prediction["logits"][None].float(), size=(record.height, record.width), mode="bilinear", align_corners=False
        )
        return encode_rows(logits[0].argmax(0).cpu().numpy().astype(np.int16), record.image_id)

    def score(self, predictions: Predictions, split: SegmentationSplit, config: TrialConfig) -> dict[str, float]:
        """Return IoU, Dice and the F1 of boundaries."""
        del config
        found = ClassMaps(predictions, split)
        pairs = ((split.mask(index).numpy(), classes) for index, classes in enumerate(found))
        return evaluate_masks(pairs, split.class_names)

    def pictures(
        self, split: SegmentationSplit, predictions: Mapping[str, Predictions], class_names: Sequence[str]
    ) -> list[Picture]:
        """Draw masks, with errors in colours of their own."""
        return draw_masks(split, predictions, class_names)
