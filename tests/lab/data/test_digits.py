"""The built-in scenes of handwritten digits."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from lossatlas.lab.data import DetectionData, DetectionSplit, load_digit_scenes
from lossatlas.lab.data import digits as module

SCENES = 40


@pytest.fixture(scope="module")
def data() -> DetectionData:
    return load_digit_scenes(train_scenes=SCENES, test_scenes=SCENES, masks=True)


def _bytes(split: DetectionSplit) -> bytes:
    return b"".join(
        value.numpy().tobytes()
        for sample in (split[index] for index in range(len(split)))
        for value in (sample.image, *sample.target.values())
    )


def test_same_seed_same_bytes(data: DetectionData) -> None:
    again = load_digit_scenes(train_scenes=SCENES, test_scenes=SCENES, masks=True)
    assert _bytes(again.train) == _bytes(data.train)
    assert _bytes(again.test) == _bytes(data.test)
    assert again.fingerprint == data.fingerprint


def test_another_seed_other_scenes(data: DetectionData) -> None:
    other = load_digit_scenes(1, train_scenes=SCENES, test_scenes=SCENES, masks=True)
    assert other.fingerprint != data.fingerprint
    assert not any(torch.equal(other.train[i].image, data.train[i].image) for i in range(SCENES))


def test_a_scene_does_not_depend_on_how_many_there_are(data: DetectionData) -> None:
    few = load_digit_scenes(train_scenes=3, test_scenes=1, masks=True)
    assert all(torch.equal(few.train[i].image, data.train[i].image) for i in range(3))


def test_composition_is_the_published_one(data: DetectionData) -> None:
    """Scores on this set are compared across versions and machines: its objects may not change by accident."""
    digest = hashlib.sha256()
    for split in (data.train, data.test):
        for record in split.records:
            digest.update(record.boxes.to(torch.int64).numpy().astype("<i8").tobytes())
            digest.update(record.labels.numpy().astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "0afd7cdba957e2bb"


def test_scenes_are_as_described(data: DetectionData) -> None:
    assert data.class_names == tuple("0123456789")
    for split in (data.train, data.test):
        counts, seen = [], set()
        for sample in (split[index] for index in range(SCENES)):
            boxes, labels = sample.target["boxes"], sample.target["labels"]
            assert (sample.image.shape, sample.image.dtype) == ((3, 128, 128), torch.uint8)
            assert not sample.target["iscrowd"].any()
            seen.update(labels.tolist())
            assert (boxes[:, 2] - boxes[:, 0] >= 3).all()
            assert (boxes[:, 3] - boxes[:, 1] >= 12).all()
            counts.append(len(boxes))
        assert min(counts) >= 1
        assert max(counts) == 8
        assert seen == set(range(10))


def test_boxes_are_the_tight_boxes_of_the_masks(data: DetectionData) -> None:
    for sample in (data.test[index] for index in range(SCENES)):
        for box, mask in zip(sample.target["boxes"].tolist(), sample.target["masks"], strict=True):
            pixels = [(x, y) for y, row in enumerate(mask.tolist()) for x, seen in enumerate(row) if seen]
            columns, rows = [x for x, _ in pixels], [y for _, y in pixels]
            assert box == [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


def test_masks_are_the_visible_parts(data: DetectionData) -> None:
    for index in range(SCENES):
        masks = data.train[index].target["masks"]
        assert masks.dtype == torch.bool
        assert (masks.sum(dim=0) <= 1).all()
        assert data.train.records[index].areas.tolist() == masks.sum(dim=(1, 2)).tolist()


def test_digits_can_be_told_apart(data: DetectionData) -> None:
    """No two boxes overlap so much that suppression at the usual thresholds would take one for the other."""
    for record in data.train.records:
        boxes = record.boxes.tolist()
        for i, (ax1, ay1, ax2, ay2) in enumerate(boxes):
            for bx1, by1, bx2, by2 in boxes[:i]:
                shared = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
                union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
                assert shared / union < 0.4


def test_ink_is_lighter_than_what_surrounds_it(data: DetectionData) -> None:
    """On average over the digits, in the pixels of the picture itself."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    for sample in (data.train[index] for index in range(SCENES)):
        luminance = (sample.image.permute(1, 2, 0).float() * weights).sum(dim=-1)
        covered = sample.target["masks"].any(dim=0)
        assert luminance[covered].mean() > luminance[~covered].mean() + 50


def test_masks_only_when_asked() -> None:
    target = load_digit_scenes(train_scenes=1, test_scenes=1).train[0].target
    assert set(target) == {"boxes", "labels", "iscrowd"}


def test_train_and_test_share_no_handwritten_digit() -> None:
    material = load_digits().images
    train, test = ([glyph for own in module._glyphs(part) for glyph in own] for part in (False, True))
    assert len(train) + len(test) == len(material) == 1797
    assert all(len(own) > 25 for own in module._glyphs(True))
    seen = {glyph.ink.tobytes() for glyph in train}
    assert not any(glyph.ink.tobytes() in seen for glyph in test)


def test_train_and_test_share_no_region_of_a_photograph() -> None:
    """The two parts are cut side by side, so that neither holds a pixel of the other."""
    parts = {part: module.photographs(part) for part in (False, True)}
    originals = load_sample_images().images
    for number, original in enumerate(originals):
        left, right = parts[False][2 * number], parts[True][2 * number]
        assert left.shape[1] + right.shape[1] == original.shape[1]
        assert np.array_equal(np.concatenate([left, right], axis=1), original)


@pytest.mark.parametrize("part", [False, True])
def test_enlarged_digits_keep_their_ink(part: bool) -> None:
    """Interpolation neither shifts nor dilutes: each original pixel is close to the mean of its 8 x 8 samples."""
    material = load_digits()
    own = np.flatnonzero(material.target == 3)
    index = next(index for place, index in enumerate(own) if (place % module.TEST_EVERY == 0) == part)
    ink = module._glyphs(part)[3][0].ink
    means = ink.reshape(10, 8, 10, 8).mean(axis=(1, 3))
    expected = np.pad(material.images[index] / 16, 1)
    assert np.corrcoef(means.ravel(), expected.ravel())[0, 1] > 0.98
