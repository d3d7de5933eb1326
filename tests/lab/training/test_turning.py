"""Turned pictures and the people on them."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from lossatlas.lab.augmentation import Augmentation, Motion, Window, move_people
from lossatlas.lab.comparison import compare
from lossatlas.lab.data import Sample
from lossatlas.lab.data.turning import Turn
from lossatlas.lab.errors import ArgumentError

SPOTS = [(30.5, 40.5), (60.5, 40.5), (45.5, 20.5)]


def person(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    keypoints = torch.tensor([[[x, y, 2.0] for x, y in SPOTS]])
    return {
        "boxes": torch.tensor([[25.0, 15.0, 66.0, 46.0]]),
        "labels": torch.tensor([0]),
        "iscrowd": torch.tensor([False]),
        "area": torch.tensor([500.0]),
        "keypoints": keypoints,
        "mirror": torch.tensor([1, 0, 2]),
    } | changes


def sample() -> Sample:
    """Three bright spots on black, each of its own colour, at the keypoints of a person."""
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    for channel, (x, y) in enumerate(SPOTS):
        image[channel, int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    return Sample(image, person(), 1, "a.png")


def middle(channel: torch.Tensor) -> tuple[float, float]:
    """The middle of what is bright in a channel."""
    weight = ((channel + 2) / 4).clamp(0, 1) * (channel > 0)
    y, x = torch.meshgrid(*(torch.arange(size) + 0.5 for size in channel.shape), indexing="ij")
    return float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_stay_on_their_spots_however_a_picture_is_changed(seed: int) -> None:
    change = Augmentation(96, 0.2, 0.0, horizontal_flip=True, move=move_people, rotation=180)
    example = change(sample(), np.random.default_rng(seed))
    (moved,) = example.target["keypoints"]
    mirrored = Augmentation(96, 0.2, 0.0, horizontal_flip=False, move=move_people, rotation=180)
    flipped = not torch.equal(mirrored(sample(), np.random.default_rng(seed)).image, example.image)
    order = [1, 0, 2] if flipped else [0, 1, 2]
    for place, kind in enumerate(order):  # keypoint `place` of the target lies on the spot of the colour `kind`
        x, y, seen = moved[place].tolist()
        if seen and 5 < x < 91 and 5 < y < 59:
            assert middle(example.image[kind]) == pytest.approx((x, y), abs=0.6)


def test_both_flipped_and_plain_pictures_occur_and_angles_stay_in_their_range() -> None:
    angles = []

    def remember(target: Mapping[str, torch.Tensor], motion: Motion) -> dict[str, torch.Tensor]:
        angles.append(math.degrees(motion.angle))
        return dict(target)

    change = Augmentation(96, 0.2, 0.0, horizontal_flip=True, move=remember, rotation=40)
    for seed in range(200):
        change(sample(), np.random.default_rng(seed))
    assert -40 <= min(angles) < -35
    assert 35 < max(angles) <= 40


def test_without_rotation_a_picture_takes_the_same_changes_as_before_there_was_one() -> None:
    plain = Augmentation(96, 0.2, 0.1, horizontal_flip=True, move=move_people)
    none = Augmentation(96, 0.2, 0.1, horizontal_flip=True, move=move_people, rotation=0.0)
    assert torch.equal(plain(sample(), np.random.default_rng(3)).image, none(sample(), np.random.default_rng(3)).image)


def test_keypoints_that_leave_the_frame_are_not_labelled_any_more() -> None:
    motion = Motion((64, 96), Window(64, 96, 0, 40), (64, 96), mirrored=False)
    moved = move_people(person(), motion)
    assert moved["keypoints"].tolist() == [[[70.5, 40.5, 2], [0, 0, 0], [85.5, 20.5, 2]]]
    assert moved["boxes"].tolist() == [[65, 15, 96, 46]]
    gone = move_people(person(), Motion((64, 96), Window(64, 96, 0, 90), (64, 96), mirrored=False))
    assert [len(gone[key]) for key in ("boxes", "labels", "iscrowd", "area", "keypoints")] == [0] * 5


def test_areas_grow_with_the_picture() -> None:
    motion = Motion((64, 96), Window(128, 192, -30, -30), (64, 96), mirrored=False)
    assert move_people(person(), motion)["area"].tolist() == [2000]


def test_boxes_of_turned_people_hold_what_they_held() -> None:
    for angle in (-1.0, 0.4, 2.5):
        motion = Motion((64, 96), Window(64, 96, 0, 0), (200, 200), mirrored=False, angle=angle)
        moved = move_people(person(), motion)
        (x1, y1, x2, y2), points = moved["boxes"][0], moved["keypoints"][0]
        inside = points[:, 2] > 0
        assert inside.any()
        assert ((points[inside, 0] >= x1) & (points[inside, 0] <= x2)).all()
        assert ((points[inside, 1] >= y1) & (points[inside, 1] <= y2)).all()


def test_keypoints_without_sides_cannot_be_mirrored() -> None:
    target = person()
    del target["mirror"]
    with pytest.raises(ValueError, match="do not tell left from right"):
        move_people(target, Motion((64, 96), Window(64, 96, 0, 0), (64, 96), mirrored=True))


def test_a_turn_of_a_right_angle_is_exact() -> None:
    picture = torch.arange(12.0).view(1, 3, 4)
    turn = Turn(math.pi / 2, (2.0, 1.5), (1.5, 2.0))
    torch.testing.assert_close(turn.picture(picture, (4, 3)), picture.rot90(-1, (1, 2)), rtol=0, atol=1e-4)


def test_only_pose_can_turn_images(tmp_path) -> None:
    with pytest.raises(ArgumentError, match="rotation is not for detection"):
        compare(out=tmp_path, steps=1, recipe={"rotation": 10.0})
