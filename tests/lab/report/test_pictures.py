from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.lab.pictures.boxes import Detections, TrialPredictions, best_threshold, match, missed
from lossatlas.lab.pictures.picture import choose, image_uri
from tests.lab.comparison.fakes import Scenes

Row = dict[str, Any]


def target(
    *boxes: tuple[float, float, float, float], labels: list[int], crowd: list[bool] | None = None
) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "iscrowd": torch.tensor(crowd or [False] * len(labels), dtype=torch.bool),
    }


def row(x: float, y: float, width: float, height: float, score: float, label: int = 0, image: int = 1) -> Row:
    return {"image_id": image, "bbox": [x, y, width, height], "score": score, "category_id": label}


def test_an_object_is_found_once_by_the_best_score() -> None:
    truth = target((0, 0, 10, 10), labels=[0])
    found = match(truth, [row(0, 0, 10, 9, 0.5), row(0, 0, 10, 8, 0.9)])
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.object.tolist() == [0, -1]


def test_class_and_overlap_must_be_right() -> None:
    truth = target((0, 0, 10, 10), labels=[1])
    found = match(
        truth, [row(0, 0, 10, 10, 0.9, label=0), row(0, 0, 10, 4.9, 0.8, label=1), row(0, 0, 10, 5, 0.7, label=1)]
    )
    assert found.object.tolist() == [-1, -1, 0]


def test_a_prediction_takes_the_object_it_overlaps_most_of_those_that_are_free() -> None:
    truth = target((0, 0, 10, 10), (0, 0, 10, 12), labels=[0, 0])
    found = match(truth, [row(0, 0, 10, 12, 0.9), row(0, 0, 10, 12, 0.8), row(0, 0, 10, 12, 0.7)])
    assert found.object.tolist() == [1, 0, -1]
    assert missed(found, truth) == []


def test_crowd_regions_count_neither_way() -> None:
    truth = target((0, 0, 100, 100), labels=[0], crowd=[True])
    found = match(truth, [row(5, 5, 10, 10, 0.9), row(5, 5, 10, 10, 0.8), row(200, 200, 10, 10, 0.7)])
    assert found.object.tolist() == [-2, -2, -1]
    assert missed(found, truth) == []


def test_images_without_objects_or_predictions() -> None:
    assert match(target(labels=[]), [row(0, 0, 5, 5, 0.5)]).object.tolist() == [-1]
    nothing = match(target((0, 0, 5, 5), labels=[0]), [])
    assert missed(nothing, target((0, 0, 5, 5), labels=[0])) == [0]


def test_the_threshold_with_the_best_f1() -> None:
    # Kept from the top, F1 = 2 right / (kept + 3 objects): 2/4, 4/5, 4/6, 6/7, 6/8.
    scores, objects = [0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, -1, 2, -1]
    image = Detections(torch.zeros(5, 4), torch.zeros(5), torch.tensor(scores), torch.tensor(objects))
    assert best_threshold([image], 3) == pytest.approx(0.6)
    assert best_threshold([], 3) == 0.5


def test_mistakes_are_wrong_predictions_and_missed_objects() -> None:
    split = Scenes("test", 12)
    perfect = [{**annotation, "score": 0.9} for annotation in split.coco["annotations"]]
    worse = [found for found in perfect if found["image_id"] != 107]  # image 7 has three objects
    for rows, expected in ((perfect, 0), (worse, 3)):
        trial = TrialPredictions(rows, split)
        assert trial.mistakes(7, split.target(7)) == expected
        assert sum(trial.mistakes(index, split.target(index)) for index in range(12)) == expected


def test_images_where_variants_differ_come_first() -> None:
    mistakes = [[1.0, 1.0]] * 7 + [[0.0, 3.0]] + [[2.0, 2.0]] * 4
    chosen = choose(mistakes)
    assert chosen[0] == (7, "variants differ")
    assert [reason for _, reason in chosen[1:]] == ["at random"] * 7
    assert len({index for index, _ in chosen}) == 8
    assert choose(mistakes) == chosen


def test_a_small_split_is_shown_in_full() -> None:
    assert sorted(index for index, _ in choose([[0.0]] * 3)) == [0, 1, 2]


def test_large_images_are_made_smaller() -> None:
    assert len(image_uri(torch.zeros(3, 2000, 1000, dtype=torch.uint8))) < 20_000
