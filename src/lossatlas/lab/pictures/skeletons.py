"""Test images with the skeletons of people who were found beside those who are there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lossatlas.lab.data.limbs import Limb
from lossatlas.lab.data.pose import PoseRecord, PoseSplit
from lossatlas.lab.formatting import plural
from lossatlas.lab.pictures.picture import Panel, Picture, choose
from lossatlas.lab.pose_scores import CLOSE, Pairing, pair_people, read_poses

COLOURS = 6
"""Colours that the style sheet defines for people; further people repeat them."""

Array = NDArray[np.float64]


def draw_poses(split: PoseSplit, predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Picture]:
    """Prepare the images of a report.

    Args:
        split: the images.
        predictions: of each variant, by its name, in COCO's result format.

    Returns:
        One picture for each image that `choose` chooses.
    """
    count, limbs = len(split.skeleton), split.skeleton.limbs
    nobody = np.zeros((0, count, 3))
    trials = {}
    for name, rows in predictions.items():
        poses = read_poses(rows, count)
        people = [poses.get(record.image_id, (nobody, nobody))[0] for record in split.records]
        trials[name] = [
            (found, pair_people(found, record)) for found, record in zip(people, split.records, strict=True)
        ]
    mistakes = [[_wrong(trial[index][1]).sum() for trial in trials.values()] for index in range(len(split))]
    pictures = []
    for index, reason in choose(mistakes):
        record = split.records[index]
        panels = [_truth(record, limbs)]
        panels += [_prediction(name, *trial[index], record, limbs) for name, trial in trials.items()]
        pictures.append(Picture.of(split[index], index, reason, panels))
    return pictures


def _wrong(pairing: Pairing) -> NDArray[np.bool_]:
    """Which labelled keypoints (G, K) were not found in their place."""
    wrong: NDArray[np.bool_] = pairing.distances > CLOSE * pairing.sides[:, None]
    return wrong


def _truth(record: PoseRecord, limbs: Sequence[Limb]) -> Panel:
    people = record.keypoints.numpy().astype(np.float64)
    crowd = record.iscrowd.tolist()
    overlay = [
        _skeleton(person, limbs, f"p{number % COLOURS}", ["truth"] * len(person))
        for number, person in enumerate(people)
        if not crowd[number]
    ]
    caption = f"{plural(len(overlay), 'skeleton')}, {plural(int((people[..., 2] > 0).sum()), 'keypoint')}"
    return Panel("ground truth", caption, Markup("".join(overlay)))


def _prediction(name: str, found: Array, pairing: Pairing, record: PoseRecord, limbs: Sequence[Limb]) -> Panel:
    truth = record.keypoints.numpy().astype(np.float64)
    wrong = _wrong(pairing)
    overlay = []
    for person, points in zip(pairing.person.tolist(), found, strict=True):
        if person < 0:
            overlay.append(_skeleton(points, limbs, "nobody", ["wrong"] * len(points)))
            continue
        outcomes = [
            "wrong" if off or unknown else "right"
            for off, unknown in zip(wrong[person], np.isnan(pairing.distances[person]), strict=True)
        ]
        overlay.append(_skeleton(points, limbs, f"p{person % COLOURS}", outcomes))
    overlay += [_joint(truth[person, kind], "missed") for person, kind in np.argwhere(wrong)]
    right, lost = int((~np.isnan(pairing.distances)).sum() - wrong.sum()), int(wrong.sum())
    return Panel(name, f"{right} right, {lost} wrong or missed", Markup("".join(overlay)))


def _skeleton(points: Array, limbs: Sequence[Limb], person: str, outcomes: Sequence[str]) -> str:
    """The limbs of a person with the keypoints over them; those with a visibility or score of 0 are left out."""
    there = points[:, 2] > 0
    drawn = [limb for limb in limbs if there[limb[0]] and there[limb[1]]]
    way = " ".join(f"M{points[a, 0]:.1f} {points[a, 1]:.1f}L{points[b, 0]:.1f} {points[b, 1]:.1f}" for a, b in drawn)
    bones = f'<path class="halo" d="{way}"/><path d="{way}"/>' if way else ""
    joints = [_joint(point, outcome) for point, outcome in zip(points, outcomes, strict=True) if point[2] > 0]
    return f'<g class="person {person}">{bones}{"".join(joints)}</g>'


def _joint(point: Array, outcome: str) -> str:
    return f'<circle class="joint {outcome}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="1"/>'
