"""The built-in data for pose."""

import pytest
import torch

from lossatlas.lab.data.figures import MAX_FIGURES, MIN_SEEN, SIZE, SKELETON, load_figures
from lossatlas.lab.data.pose import PoseData


@pytest.fixture(scope="module")
def figures() -> PoseData:
    return load_figures(train_scenes=30, test_scenes=4)


def test_the_skeleton_is_one_tree_with_known_sides() -> None:
    reached, limbs = {0}, list(SKELETON.limbs)
    while fresh := [limb for limb in limbs if len(reached & set(limb)) == 1]:
        reached |= set(fresh[0])
    assert reached == set(range(len(SKELETON)))
    assert len(limbs) == len(SKELETON) - 1
    assert SKELETON.flip() == [0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12]
    assert len(SKELETON.sigmas) == len(SKELETON)


def test_every_number_of_figures_occurs_and_enough_is_seen_of_each(figures: PoseData) -> None:
    assert {len(record.keypoints) for record in figures.train.records} == set(range(1, MAX_FIGURES + 1))
    for record in figures.train.records:
        assert ((record.keypoints[..., 2] == 2).float().mean(1) >= MIN_SEEN).all()
        inside = (record.keypoints[..., :2] >= 0) & (record.keypoints[..., :2] < SIZE)
        assert inside.all()


def test_joints_are_hidden_and_cut_off_in_some_pictures(figures: PoseData) -> None:
    kinds = torch.cat([record.keypoints[..., 2].flatten() for record in figures.train.records]).unique().tolist()
    assert kinds == [0, 1, 2]


def test_boxes_hold_the_joints_that_are_seen(figures: PoseData) -> None:
    for record in figures.train.records:
        for box, joints in zip(record.boxes, record.keypoints, strict=True):
            seen = joints[joints[:, 2] == 2, :2]
            assert (seen >= box[:2] - 1).all()
            assert (seen <= box[2:] + 1).all()


def test_the_figure_in_front_is_painted_over_the_others() -> None:
    """The last figure hides joints of the others and none of its own."""
    records = load_figures(train_scenes=30, test_scenes=1).train.records
    assert all((record.keypoints[-1, :, 2] != 1).all() for record in records)
    assert any((record.keypoints[:-1, :, 2] == 1).any() for record in records)


def test_a_seed_gives_the_same_scenes_and_another_one_others(figures: PoseData) -> None:
    again, other = load_figures(train_scenes=30, test_scenes=4), load_figures(1, train_scenes=2, test_scenes=1)
    assert again.fingerprint == figures.fingerprint
    assert again.train[7].image.equal(figures.train[7].image)
    assert not other.train[0].image.equal(figures.train[0].image)
    assert load_figures(train_scenes=2, test_scenes=1).train[1].image.equal(figures.train[1].image)
    assert not figures.test[0].image.equal(figures.train[0].image)
