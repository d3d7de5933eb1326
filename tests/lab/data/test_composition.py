"""Scenes that are composed of images with one animal each."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from lossatlas.lab.data.composition import compose
from lossatlas.lab.data.dataset import ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit
from lossatlas.targets.skeletons import Skeleton

SIDE = 64
SKELETON = Skeleton("worm", ("head", "middle", "tail"), ((0, 1), (1, 2)))


class DotSplit(PoseSplit):
    """Images of one animal: a bright dot of its own brightness at each of its keypoints, on grey 3."""

    def __init__(self, name: str, records: Sequence[PoseRecord], grey: int = 3) -> None:
        super().__init__(name, ["worm"], records)
        self.skeleton = SKELETON
        self.grey = grey

    def image(self, index: int) -> Tensor:
        image = torch.full((3, SIDE, SIDE), self.grey, dtype=torch.uint8)
        for place, (x, y, _) in enumerate(self.records[index].keypoints[0].long().tolist()):
            image[:, y - 1 : y + 2, x - 1 : x + 2] = 100 + 50 * place
        return image

    def image_digest(self, index: int) -> bytes:
        return bytes([index])


def worms(seed: int, count: int, people: int = 1) -> list[PoseRecord]:
    draws = np.random.default_rng(seed)
    records = []
    for number in range(1, count + 1):
        keypoints = np.full((people, 3, 3), 2.0)
        keypoints[..., 0] = np.array([12, 30, 50]) + 0.5
        keypoints[..., 1] = draws.integers(20, 44, (people, 3)) + 0.5
        rows = [ObjectRow((10.0, 18.0, 52.0, 46.0), 0, False, 300.0)] * people
        record = ImageRecord.from_rows(number, f"{number}.png", SIDE, SIDE, rows)
        records.append(PoseRecord.of(record, keypoints, 3))
    return records


def data(train: PoseSplit, test: PoseSplit) -> PoseData:
    return PoseData("worms", train, test, ("worm",), fingerprint((train, test)))


@pytest.fixture(scope="module")
def composed() -> PoseData:
    source = data(DotSplit("train", worms(0, 6)), DotSplit("test", worms(1, 4)))
    return compose(source, (2, 4), train_scenes=12, test_scenes=3)


def test_every_number_of_animals_occurs_and_all_their_keypoints_are_inside(composed: PoseData) -> None:
    records = composed.train.records
    assert {len(record.keypoints) for record in records} == {2, 3, 4}
    for record in records:
        assert (record.width, record.height) == (96, 96)
        assert ((record.keypoints[..., :2] > 0) & (record.keypoints[..., :2] < 96)).all()
        assert (record.keypoints[..., 2] == 2).all()
        low, high = record.keypoints[..., :2].amin(1), record.keypoints[..., :2].amax(1)
        torch.testing.assert_close(record.boxes, torch.cat([low, high], dim=1))


def test_animals_keep_their_shape(composed: PoseData) -> None:
    def shape_of(worm: Tensor) -> Tensor:
        return torch.cdist(worm[None, :, :2], worm[None, :, :2])[0]

    shapes = [shape_of(record.keypoints[0]) for record in worms(0, 6)]
    for worm in torch.cat([record.keypoints for record in composed.train.records]):
        found = shape_of(worm)
        assert any(torch.allclose(found, shape, atol=1e-3) for shape in shapes)


def test_pixels_move_with_the_keypoints(composed: PoseData) -> None:
    for sample in (composed.train[0], composed.train[1], composed.test[0]):
        for worm in sample.target["keypoints"]:
            for place, (x, y, _) in enumerate(worm.tolist()):
                seen = int(sample.image[0, math.floor(y), math.floor(x)])
                assert seen >= 0.8 * (100 + 50 * place - 3)  # another one may be brighter


def test_the_ground_is_black_so_that_no_edges_show(composed: PoseData) -> None:
    assert composed.train[0].image.median() == 0


def test_train_and_test_share_no_animal(composed: PoseData) -> None:
    def lengths(records: Sequence[PoseRecord]) -> set[tuple[float, ...]]:
        keypoints = torch.cat([record.keypoints[..., :2] for record in records])
        limbs = (keypoints[:, 1:] - keypoints[:, :-1]).norm(dim=2)
        return {tuple(round(length, 2) for length in row) for row in limbs.tolist()}

    assert lengths(composed.train.records) == lengths(worms(0, 6))
    assert lengths(composed.test.records) <= lengths(worms(1, 4))
    assert not lengths(worms(0, 6)) & lengths(worms(1, 4))


def test_a_seed_gives_the_same_scenes_and_another_one_others(composed: PoseData) -> None:
    source = data(DotSplit("train", worms(0, 6)), DotSplit("test", worms(1, 4)))
    again = compose(source, (2, 4), train_scenes=12, test_scenes=3)
    other = compose(source, (2, 4), train_scenes=12, test_scenes=3, seed=1)
    fewer = compose(source, (2, 4), train_scenes=2, test_scenes=1)
    assert again.fingerprint == composed.fingerprint
    assert again.train[5].image.equal(composed.train[5].image)
    assert len({composed.fingerprint, other.fingerprint, source.fingerprint}) == 3
    assert fewer.train[1].image.equal(composed.train[1].image)


@pytest.mark.parametrize(
    ("train", "count", "said"),
    [
        (
            DotSplit("train", worms(0, 3)),
            (2, 4),
            "at least 4 train images that show one object .*, got 3 of 3",
        ),
        (DotSplit("train", worms(0, 6, people=2)), (2, 2), "got 0 of 6"),
        (DotSplit("train", worms(0, 6), grey=90), (2, 2), "half of the pixels of half of the train images"),
        (DotSplit("train", worms(0, 6)), (3, 2), "a range from at least 1, such as 2-4, got 3-2"),
        (DotSplit("train", worms(0, 6)), (0, 2), "got 0-2"),
    ],
)
def test_what_cannot_be_composed_is_an_error(train: PoseSplit, count: tuple[int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compose(data(train, DotSplit("test", worms(1, 4))), count, train_scenes=1, test_scenes=1)
