"""Scores of class maps against loops over pixels, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from lossatlas.lab.class_maps import ClassMaps, encode_rows
from lossatlas.lab.data.digit_masks import load_digit_masks
from lossatlas.lab.data.segmentation import VOID
from lossatlas.lab.mask_scores import boundary_f1, evaluate_masks

NAMES = ("background", "a", "b", "never")


def random_maps(seed, count=3):
    """Blocks of classes, and predictions that differ in some of them; class 3 is predicted but never true."""
    rng = np.random.default_rng(seed)
    pairs = []
    for height, width in [(12, 17), (9, 9), (20, 5)][:count]:
        truth = rng.integers(0, 3, (height // 3 + 1, width // 3 + 1)).repeat(3, 0).repeat(3, 1)[:height, :width]
        found = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 4, truth.shape), truth)
        truth = np.where(rng.random(truth.shape) < 0.1, VOID, truth)
        pairs.append((truth.astype(np.int16), found.astype(np.int16)))
    return pairs


@pytest.mark.parametrize("seed", range(3))
def test_iou_and_dice_by_counting_pixels(seed):
    pairs = random_maps(seed)
    scores = evaluate_masks(pairs, NAMES)
    ious, dices = [], []
    for label, name in enumerate(NAMES[:3]):
        both = either = true = found = 0
        for truth, predicted in pairs:
            for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
                if t != VOID:
                    both += t == label and p == label
                    either += t == label or p == label
                    true += t == label
                    found += p == label
        ious.append(both / either)
        dices.append(2 * both / (true + found))
        assert scores[f"IoU/{name}"] == pytest.approx(ious[-1], abs=1e-12)
        assert scores[f"Dice/{name}"] == pytest.approx(dices[-1], abs=1e-12)
    assert scores["mIoU"] == pytest.approx(sum(ious) / 3, abs=1e-12)
    assert scores["mDice"] == pytest.approx(sum(dices) / 3, abs=1e-12)
    assert "IoU/never" not in scores


def test_iou_and_dice_are_those_of_scikit_learn():
    pairs = random_maps(5)
    truth, found = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    truth, found = truth[truth != VOID], found[truth != VOID]
    scores = evaluate_masks(pairs, NAMES)
    assert scores["mIoU"] == pytest.approx(jaccard_score(truth, found, labels=[0, 1, 2], average="macro"))
    assert scores["mDice"] == pytest.approx(f1_score(truth, found, labels=[0, 1, 2], average="macro"))


def boundary_by_loops(classes, label, known):
    height, width = classes.shape
    points = []
    for y in range(height):
        for x in range(width):
            if known[y, x] and classes[y, x] == label:
                beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                inside = [(j, i) for j, i in beside if 0 <= j < height and 0 <= i < width and known[j, i]]
                if any(classes[place] != label for place in inside):
                    points.append((y, x))
    return points


def boundary_f1_by_loops(truth, predicted, label):
    known = truth != VOID
    true, found = boundary_by_loops(truth, label, known), boundary_by_loops(predicted, label, known)
    if not true:
        return None
    reach = max(1.0, 0.0075 * math.hypot(*truth.shape))
    near = [sum(any(math.dist(p, q) <= reach for q in b) for p in a) for a, b in ((found, true), (true, found))]
    if not near[0] or not near[1]:
        return 0.0
    precision, recall = near[0] / len(found), near[1] / len(true)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(3))
def test_boundary_f1_by_loops(seed):
    pairs = random_maps(seed)
    means = []
    for label in range(3):
        values = [boundary_f1_by_loops(truth, predicted, label) for truth, predicted in pairs]
        for (truth, predicted), value in zip(pairs, values, strict=True):
            assert boundary_f1(truth, predicted, label) == pytest.approx(value)
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known))
    assert evaluate_masks(pairs, NAMES)["BF1"] == pytest.approx(sum(means) / 3)


def test_the_tolerance_grows_with_the_image():
    truth, found = (np.zeros((300, 400), dtype=np.int16) for _ in range(2))
    truth[:, 200:] = 1
    for shift, expected in ((3, 1.0), (4, 0.0)):  # 0.75 % of 500 pixels are 3.75
        found[:] = 0
        found[:, 200 + shift :] = 1
        assert boundary_f1(truth, found, 1) == expected


def test_void_pixels_do_not_count():
    [(truth, found)] = random_maps(1, count=1)
    changed = np.where(truth == VOID, (found + 1) % 4, found).astype(np.int16)
    assert evaluate_masks([(truth, changed)], NAMES) == evaluate_masks([(truth, found)], NAMES)


def test_nothing_known_says_nothing():
    truth = np.full((4, 4), VOID, dtype=np.int16)
    assert evaluate_masks([(truth, np.zeros_like(truth))], NAMES) == {}
    assert evaluate_masks([], NAMES) == {}


def test_an_empty_mask_that_is_found_empty_is_right():
    empty = np.zeros((4, 4), dtype=np.int16)
    scores = evaluate_masks([(empty, empty)], NAMES)
    assert scores == {"mIoU": 1.0, "mDice": 1.0, "IoU/background": 1.0, "Dice/background": 1.0}


def test_rows_bring_the_same_maps_back():
    split = load_digit_masks(train_scenes=4, test_scenes=1).train
    maps = [split.mask(index).numpy() for index in range(4)]
    maps[2] = np.zeros_like(maps[2])
    rows = [row for one, record in zip(maps, split.records, strict=True) for row in encode_rows(one, record.image_id)]
    back = ClassMaps(rows, split)
    assert len(back) == 4
    assert all(np.array_equal(one, other) for one, other in zip(maps, back, strict=True))
