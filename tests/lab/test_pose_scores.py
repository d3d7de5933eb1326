"""Scores of poses, against loops over the definitions."""

import itertools
import math
from statistics import mean, median
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch

from lossatlas.lab.data.dataset import ImageRecord, ObjectRow
from lossatlas.lab.data.pose import PoseRecord
from lossatlas.lab.evaluation import evaluate_poses
from lossatlas.lab.pose_scores import pair_people, score_keypoints
from lossatlas.lab.trial import Backend

COUNT = 4
SIGMAS = [0.05, 0.1, 0.02, 0.08]
NOTHING: dict[str, Any] = {"keypoints": [0.0] * 3 * COUNT}

Scenes: TypeAlias = tuple[list[PoseRecord], list[dict[str, Any]]]


def scene(draws: np.random.Generator, number: int) -> tuple[PoseRecord, list[dict[str, Any]]]:
    """An image of up to three people, some of whose keypoints are not labelled, and predictions, some of them good."""
    people = int(draws.integers(0, 4))
    places = draws.uniform(20, 80, (people, 1, 2))
    keypoints = np.concatenate(
        [places + draws.uniform(-18, 18, (people, COUNT, 2)), draws.integers(0, 3, (people, COUNT, 1))], axis=2
    )
    rows = [
        ObjectRow((float(x - 20), float(y - 15), float(x + 20), float(y + 15)), 0, bool(draws.random() < 0.15), 700.0)
        for x, y in places[:, 0]
    ]
    record = PoseRecord.of(ImageRecord.from_rows(number, "a.png", 100, 100, rows), keypoints, COUNT)
    found = []
    for truth in [*keypoints, *(keypoints[:1] + 4), draws.uniform(0, 100, (COUNT, 3))][: int(draws.integers(0, 6))]:
        points = truth.copy()
        points[:, :2] += draws.normal(0, draws.choice([0.5, 3.0]), (COUNT, 2))
        points[:, 2] = draws.random(COUNT) > 0.2
        found.append(
            {
                "image_id": number,
                "category_id": 0,
                "keypoints": points.flatten().tolist(),
                "score": float(draws.random()),
            }
        )
    if len(found) >= 2 and draws.random() < 0.5:  # two people exchange a keypoint
        for value in range(3):
            a, b = found[0]["keypoints"], found[1]["keypoints"]
            a[value], b[value] = b[value], a[value]
    return record, found


def side(record: PoseRecord, person: int) -> float:
    x1, y1, x2, y2 = record.boxes[person].tolist()
    return float(max(x2 - x1, y2 - y1))


def distances(record: PoseRecord, row: dict[str, Any], person: int) -> list[float]:
    """How far off each labelled keypoint of a person is."""
    result = []
    for k, (x, y, labelled) in enumerate(record.keypoints[person].tolist()):
        px, py, score = row["keypoints"][3 * k : 3 * k + 3]
        if labelled and not record.iscrowd[person]:
            result.append(math.hypot(px - x, py - y) if score > 0 else math.inf)
    return result


def counted(record: PoseRecord) -> list[int]:
    """The people with a labelled keypoint that are no crowd."""
    return [person for person in range(len(record.keypoints)) if distances(record, NOTHING, person)]


def best_pairing(record: PoseRecord, rows: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    """Try every pairing for the least error in all; who is paired with nobody has the largest."""
    people = len(record.keypoints)

    def cost(pairs: tuple[int, ...]) -> float:
        return sum(
            min(d / side(record, person), 1)
            for person, number in enumerate(pairs)
            for d in distances(record, rows[number] if number < len(rows) else NOTHING, person)
        )

    best = min(itertools.permutations(range(len(rows) + people), people), key=cost)
    return [rows[number] if number < len(rows) else None for number in best]


def by_loops(records: list[PoseRecord], rows: list[dict[str, Any]]) -> dict[str, float]:
    close, near, found, errors = [], [], [], []
    for record in records:
        own = [row for row in rows if row["image_id"] == record.image_id]
        for person, row in enumerate(best_pairing(record, own)):
            size = side(record, person)
            labelled = len(distances(record, NOTHING, person))
            off = [math.inf] * labelled if row is None else distances(record, row, person)
            close += [d <= 0.05 * size for d in off]
            near += [d <= 0.1 * size for d in off]
            errors += [min(d, size) for d in off]
            anybody = [distances(record, other, person) for other in own]
            found += [any(other[k] <= 0.1 * size for other in anybody) for k in range(labelled)]
    return {
        "PCK": mean(close),
        "grouping": mean(near),
        "found": mean(found),
        "median error": median(errors),
        "mean error": mean(errors),
    }


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    draws = np.random.default_rng(0)
    made = [scene(draws, number) for number in range(1, 41)]
    return [record for record, _ in made], [row for _, rows in made for row in rows]


def test_keypoint_scores_agree_with_loops(scenes: Scenes) -> None:
    records, rows = scenes
    expected = by_loops(records, rows)
    assert score_keypoints(rows, records) == pytest.approx(expected, rel=1e-6)
    assert 0.1 < expected["PCK"] < expected["grouping"] < expected["found"] < 0.95


def test_swapped_keypoints_are_found_but_not_grouped() -> None:
    keypoints = [[[10 * k, 10, 2] for k in range(COUNT)], [[10 * k, 60, 2] for k in range(COUNT)]]
    rows = [ObjectRow((0.0, 10.0, 30.0, 40.0), 0, False, 900.0), ObjectRow((0.0, 60.0, 30.0, 90.0), 0, False, 900.0)]
    record = PoseRecord.of(ImageRecord.from_rows(1, "a.png", 100, 100, rows), keypoints, COUNT)
    swapped = [[row[0], *keypoints[1 - place][1:]] for place, row in enumerate(keypoints)]
    found = [{"image_id": 1, "keypoints": [v for p in person for v in p], "score": 1.0} for person in swapped]
    scores = score_keypoints(found, [record])
    assert (scores["found"], scores["grouping"], scores["median error"]) == (1.0, 0.75, 0.0)
    assert pair_people(np.array(swapped, dtype=float), record).person.tolist() == [1, 0]


def test_nobody_found_and_nobody_there() -> None:
    rows = [ObjectRow((0.0, 0.0, 30.0, 40.0), 0, False, 900.0)]
    there = PoseRecord.of(ImageRecord.from_rows(1, "a.png", 100, 100, rows), [[[5, 5, 2]] * COUNT], COUNT)
    empty = PoseRecord.of(ImageRecord.from_rows(2, "b.png", 100, 100, []), [], COUNT)
    unlabelled = PoseRecord.of(ImageRecord.from_rows(3, "c.png", 100, 100, rows), [[[5, 5, 0]] * COUNT], COUNT)
    expected = {"PCK": 0.0, "grouping": 0.0, "found": 0.0, "median error": 40.0, "mean error": 40.0}
    assert score_keypoints([], [there, empty, unlabelled]) == expected
    assert score_keypoints([], [empty, unlabelled]) == {}
    pose = {"image_id": 2, "keypoints": [1.0] * 12, "score": 1.0}
    assert score_keypoints([pose], [there, empty]) == expected


def coco(records: list[PoseRecord]) -> dict[str, Any]:
    annotations = [
        {
            "id": number,
            "image_id": record.image_id,
            "category_id": number % 2,  # two classes with the same keypoints
            "bbox": [0, 0, 40, 30],
            "area": float(record.areas[person]),
            "iscrowd": int(record.iscrowd[person]),
            "keypoints": record.keypoints[person].flatten().tolist(),
            "num_keypoints": int((record.keypoints[person, :, 2] > 0).sum()),
        }
        for number, (record, person) in enumerate(
            ((record, person) for record in records for person in range(len(record.keypoints))), start=1
        )
    ]
    return {
        "images": [{"id": record.image_id, "width": 100, "height": 100} for record in records],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in (0, 1)],
    }


def average_precision(records: list[PoseRecord], rows: list[dict[str, Any]], threshold: float) -> float:
    """COCO's AP at one threshold: best score first, each takes the free person it resembles most, 101 recalls."""
    judged: list[tuple[float, bool]] = []
    people = 0
    for record in records:
        free = set(counted(record))
        people += len(free)
        for row in sorted((row for row in rows if row["image_id"] == record.image_id), key=lambda row: -row["score"]):
            similar = {}
            for person in free:
                terms = []
                for k, (x, y, labelled) in enumerate(record.keypoints[person].tolist()):
                    px, py = row["keypoints"][3 * k : 3 * k + 2]
                    if labelled:
                        terms.append(math.exp(-((px - x) ** 2 + (py - y) ** 2) / (2 * 700 * (2 * SIGMAS[k]) ** 2)))
                similar[person] = mean(terms)
            best = max(similar, key=lambda person: similar[person], default=None)
            hit = best is not None and similar[best] >= threshold
            if hit:
                free.discard(best)
            judged.append((row["score"], hit))
    judged.sort(key=lambda pair: -pair[0])
    precision, recall, right = [], [], 0
    for number, (_, hit) in enumerate(judged, start=1):
        right += hit
        precision.append(right / number)
        recall.append(right / people)
    curve = list(zip(precision, recall, strict=True))
    return mean(max((p for p, r in curve if r >= level / 100), default=0.0) for level in range(101))


@pytest.mark.parametrize("backend", ["faster-coco-eval", "pycocotools"])
def test_average_precision_agrees_with_loops(backend: Backend, scenes: Scenes) -> None:
    """Without crowds and people without keypoints, around which predictions would be ignored."""
    chosen = [record for record in scenes[0] if len(counted(record)) == len(record.keypoints)]
    rows = [row for row in scenes[1] if row["image_id"] in {record.image_id for record in chosen}]
    scores = evaluate_poses(coco(chosen), rows, SIGMAS, backend=backend)
    expected = [average_precision(chosen, rows, threshold / 100) for threshold in range(50, 100, 5)]
    assert scores["AP50"] == pytest.approx(expected[0], abs=1e-6)
    assert scores["AP75"] == pytest.approx(expected[5], abs=1e-6)
    assert scores["AP"] == pytest.approx(mean(expected), abs=1e-6)
    assert 0.05 < scores["AP"] < 0.9


def test_average_precision_without_predictions_and_without_people() -> None:
    rows = [ObjectRow((0.0, 0.0, 30.0, 40.0), 0, False, 900.0)]
    there = PoseRecord.of(ImageRecord.from_rows(1, "a.png", 100, 100, rows), torch.full((1, COUNT, 3), 2.0), COUNT)
    nobody = PoseRecord.of(ImageRecord.from_rows(1, "a.png", 100, 100, []), [], COUNT)
    assert evaluate_poses(coco([there]), [], SIGMAS)["AP"] == 0
    assert evaluate_poses(coco([nobody]), [], SIGMAS) == {}
