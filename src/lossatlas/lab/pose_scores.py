"""How well keypoints are found and given to the right people, beside COCO's average precision.

People who were predicted are paired with people who are there, one to one, so that the errors of the labelled keypoints
are least in all. Errors are in longest sides of the person's box and at most 1, as is that of a keypoint that was not
found; a pair without an error below 1 is none. Crowds and people without a labelled keypoint do not count, nor do
people who are predicted but not there: average precision punishes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lossatlas.lab.data.pose import PoseRecord

NEAR = 0.1
"""How far a keypoint may be off for `grouping`, in longest sides of the person's box."""
CLOSE = 0.05
"""How far a keypoint may be off for `PCK`, in longest sides of the person's box."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pairing:
    """What was predicted for the people of an image.

    Args:
        person: (P,) for each prediction the person it is paired with, -1 for none.
        distances: (G, K) pixels between each keypoint and that of the paired prediction; infinite where there is none,
            NaN where it is not labelled.
        nearest: (G, K) pixels to the nearest such keypoint of any prediction.
        sides: (G,) longest side of each person's box in pixels.
    """

    person: NDArray[np.int64]
    distances: Array
    nearest: Array
    sides: Array


def pair_people(predicted: Array, record: PoseRecord) -> Pairing:
    """Pair predicted people with those of an image, so that the errors of the keypoints are least in all.

    Formula:
        the pairs (p, g) that minimise Σ_g Σ_k min(d_k(p, g) / s_g, 1),  1 for each keypoint of a person without a pair

    Args:
        predicted: (P, K, 3) x, y and score of each keypoint; a score of 0 is a keypoint that was not found.
        record: of the image.
    """
    truth = record.keypoints.numpy().astype(np.float64)
    boxes = record.boxes.numpy().astype(np.float64)
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
    labelled = (truth[..., 2] > 0) & ~record.iscrowd.numpy()[:, None]
    offset = predicted[:, None, :, :2] - truth[None, :, :, :2]
    distance = np.where((predicted[..., 2] > 0)[:, None], np.hypot(offset[..., 0], offset[..., 1]), np.inf)
    saved = np.where(labelled, 1 - np.minimum(distance / sides[:, None], 1), 0).sum(axis=2)
    person = np.full(len(predicted), -1)
    distances = np.full(labelled.shape, np.inf)
    for row, column in zip(*linear_sum_assignment(saved, maximize=True), strict=True):
        if saved[row, column] > 0:
            person[row], distances[column] = column, distance[row, column]
    nearest = distance.min(axis=0, initial=np.inf)
    return Pairing(person, np.where(labelled, distances, np.nan), np.where(labelled, nearest, np.nan), sides)


def read_poses(rows: Iterable[Mapping[str, Any]], count: int) -> dict[int, tuple[Array, Array]]:
    """Return (P, K, 3) keypoints and (P,) scores by image id, from rows in COCO's result format."""
    found: dict[int, list[tuple[Sequence[float], float]]] = {}
    for row in rows:
        found.setdefault(row["image_id"], []).append((row["keypoints"], row["score"]))
    return {
        image_id: (np.array([points for points, _ in people]).reshape(-1, count, 3), np.array([s for _, s in people]))
        for image_id, people in found.items()
    }


def score_keypoints(rows: Iterable[Mapping[str, Any]], records: Sequence[PoseRecord]) -> dict[str, float]:
    """Score poses keypoint by keypoint.

    Formula:
        d_k distance of the labelled keypoint k from that of the paired prediction, s longest side of the person's box
        PCK = share of the labelled keypoints with d ≤ 0.05 s, grouping: with d ≤ 0.1 s
        found = share of those near which (0.1 s) anybody has that keypoint, in the right person or not
        median error, mean error: of min(d, s) in pixels; a keypoint that is not found counts s

    Args:
        rows: poses in COCO's result format; a keypoint with the score 0 is one that was not found.
        records: of all images.

    Returns:
        The five numbers; nothing where no keypoint is labelled.
    """
    count = records[0].keypoints.shape[1] if records else 0
    poses = read_poses(rows, count)
    nobody = np.zeros((0, count, 3)), np.zeros(0)
    pairings = [pair_people(poses.get(record.image_id, nobody)[0], record) for record in records]
    distances = np.concatenate([pairing.distances.ravel() for pairing in pairings] or [np.zeros(0)])
    nearest = np.concatenate([pairing.nearest.ravel() for pairing in pairings] or [np.zeros(0)])
    sides = np.concatenate([pairing.sides.repeat(count) for pairing in pairings] or [np.zeros(0)])
    labelled = ~np.isnan(distances)
    if not labelled.any():
        return {}
    distances, nearest, sides = distances[labelled], nearest[labelled], sides[labelled]
    error = np.minimum(distances, sides)
    return {
        "PCK": float((distances <= CLOSE * sides).mean()),
        "grouping": float((distances <= NEAR * sides).mean()),
        "found": float((nearest <= NEAR * sides).mean()),
        "median error": float(np.median(error)),
        "mean error": float(error.mean()),
    }
