"""Pose: the keypoints of each person or animal, scored by COCO's average precision and keypoint by keypoint."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lossatlas.lab.augmentation import Motion, move_people
from lossatlas.lab.data import PoseData, PoseRecord, PoseSplit, load_pose
from lossatlas.lab.data.composition import compose
from lossatlas.lab.data.limbs import connect_limbs
from lossatlas.lab.data.skeleton import ASSUMED_SIGMA, sigmas_of
from lossatlas.lab.evaluation import evaluate_poses
from lossatlas.lab.facts import PoseFacts
from lossatlas.lab.learner import Prediction
from lossatlas.lab.metrics import Metric
from lossatlas.lab.pictures.picture import Picture
from lossatlas.lab.pictures.skeletons import draw_poses
from lossatlas.lab.pose_scores import CLOSE, NEAR, score_keypoints
from lossatlas.lab.tasks.task import Predictions, Task
from lossatlas.lab.trial import TrialConfig

_CLOSE, _NEAR = (f"{100 * part:g} %" for part in (CLOSE, NEAR))


class Pose(Task):
    """Find the keypoints of every person in an image."""

    name = "pose"
    objective = "heatmap"
    builtin = "figures"
    metrics = (
        Metric(
            "AP",
            "COCO's average precision from 0 to 1, the mean over thresholds of object keypoint similarity from 0.50 to "
            f"0.95, with the sigmas of the data, {ASSUMED_SIGMA:g} for all keypoints where it has none",
        ),
        Metric("PCK", f"the part of the keypoints found within {_CLOSE} of the longest side of the person's box"),
        Metric("grouping", f"the part of the keypoints found within {_NEAR} of that side in the right person"),
        Metric("median error", "of a keypoint, in pixels of the image", higher_is_better=False, decimals=2, unit="px"),
    )
    turns = True
    recipe: ClassVar[Mapping[str, Any]] = {"image_size": 192, "rotation": 30.0}
    reading = (
        "People who were found have the colour of the person whom they are paired with, so that a limb in a wrong "
        "colour leads to a wrong person; who is paired with nobody is dashed. A keypoint is right within "
        f"{_CLOSE} of the longest side of the person's box."
    )
    legend = (
        ("joint right", "ground truth, and right"),
        ("joint wrong", "wrong"),
        ("joint missed", "where it should be"),
    )

    def load(
        self, data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
    ) -> PoseData:
        """Read the built-in figures or keypoints in COCO's format, as `load_pose`."""
        return load_pose(data, train=train, test=test)

    def compose(self, data: PoseData, count: tuple[int, int]) -> PoseData:
        """Compose scenes of several animals."""
        return compose(data, count)

    def facts(self, data: PoseData, image_size: int) -> PoseFacts:
        """Return the skeleton, and its limbs in one piece."""
        skeleton = data.train.skeleton
        keypoints = torch.cat([record.keypoints for record in data.train.records])
        whole = replace(skeleton, limbs=connect_limbs(skeleton.limbs, keypoints))
        return PoseFacts(len(data.class_names), image_size, skeleton=whole)

    def move(self, target: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
        """Move keypoints and boxes; keypoints that leave the frame are not labelled any more."""
        return move_people(target, motion)

    def serialize(self, prediction: Prediction, record: PoseRecord, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return poses in COCO's result format, one keypoint after the other as x, y and score."""
        height, width = size
        factor = torch.tensor([record.width / width, record.height / height, 1.0])
        keypoints = prediction["keypoints"].cpu() * factor
        return [
            {"image_id": record.image_id, "category_id": 0, "keypoints": person.flatten().tolist(), "score": score}
            for person, score in zip(keypoints, prediction["scores"].tolist(), strict=True)
        ]

    def score(self, predictions: Predictions, split: PoseSplit, config: TrialConfig) -> dict[str, float]:
        """Return COCO's metrics and those of `score_keypoints`."""
        precision = evaluate_poses(split.coco, predictions, sigmas_of(split.skeleton), backend=config.backend)
        return precision | score_keypoints(predictions, split.records)

    def pictures(
        self, split: PoseSplit, predictions: Mapping[str, Predictions], class_names: Sequence[str]
    ) -> list[Picture]:
        """Draw skeletons."""
        del class_names
        return draw_poses(split, predictions)
