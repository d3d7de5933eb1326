"""The tables of skeletons, read in another way than they are written."""

import random

import pytest
import torch

from lossatlas.targets import (
    BODY_25,
    COCO,
    MPII,
    OPENPOSE_18,
    OPENPOSE_18_CHANNELS,
    SKELETONS,
    Skeleton,
    coco_to_openpose,
)

every_skeleton = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())


def other_side(name: str) -> str:
    swap = {"left": "right", "right": "left"}
    side, _, part = name.partition("_")
    return f"{swap[side]}_{part}" if side in swap else name


@every_skeleton
def test_mirrored_keypoints_have_mirrored_names(skeleton: Skeleton) -> None:
    names = [skeleton.keypoints[k] for k in skeleton.flip()]
    assert names == [other_side(name) for name in skeleton.keypoints]
    assert [skeleton.flip()[k] for k in skeleton.flip()] == list(range(len(skeleton)))


@every_skeleton
def test_a_mirror_image_has_the_same_limbs(skeleton: Skeleton) -> None:
    flip = skeleton.flip()
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert {frozenset(flip[end] for end in limb) for limb in skeleton.limbs} == limbs
    assert len(limbs) == len(skeleton.limbs)


@every_skeleton
def test_every_keypoint_is_on_a_limb_and_all_hang_together(skeleton: Skeleton) -> None:
    reached = {0}
    for _ in skeleton.keypoints:
        reached |= {end for limb in skeleton.limbs if reached & set(limb) for end in limb}
    assert reached == set(range(len(skeleton)))


@pytest.mark.parametrize("skeleton", [OPENPOSE_18, BODY_25], ids=lambda skeleton: skeleton.name)
def test_the_filling_limbs_go_from_shoulder_to_ear_and_the_others_are_a_tree(skeleton: Skeleton) -> None:
    filling = [tuple(skeleton.keypoints[end] for end in skeleton.limbs[limb]) for limb in skeleton.filling]
    assert filling == [("right_shoulder", "right_ear"), ("left_shoulder", "left_ear")]
    assert len(skeleton.limbs) - len(skeleton.filling) == len(skeleton) - 1


def test_numbers_of_keypoints_and_limbs() -> None:
    assert [(len(one), len(one.limbs)) for one in SKELETONS.values()] == [(17, 19), (18, 19), (25, 26), (16, 15)]
    assert sorted(OPENPOSE_18_CHANNELS) == list(range(19))
    # The published network's first pair of maps is the limb from neck to right hip.
    first = OPENPOSE_18.limbs[OPENPOSE_18_CHANNELS.index(0)]
    assert [OPENPOSE_18.keypoints[end] for end in first] == ["neck", "right_hip"]


def test_sigmas_are_those_of_the_keypoint_with_the_same_name() -> None:
    coco = dict(zip(COCO.keypoints, COCO.sigmas, strict=True))
    assert coco["left_hip"] == coco["right_hip"] == 0.107
    assert coco["nose"] == 0.026
    assert sum(coco.values()) == pytest.approx(1.138)
    for name, sigma in zip(OPENPOSE_18.keypoints, OPENPOSE_18.sigmas, strict=True):
        assert sigma == coco.get(name, coco["left_shoulder"])
    assert MPII.sigmas == BODY_25.sigmas == ()


def test_conversion_keeps_names_and_puts_a_neck_between_the_shoulders() -> None:
    source = random.Random(0)
    rows = [[[source.random(), source.random(), source.choice([0.0, 1.0, 2.0])] for _ in range(17)] for _ in range(12)]
    people = torch.tensor(rows).view(3, 4, 17, 3)
    found = coco_to_openpose(people)
    assert found.shape == (3, 4, 18, 3)
    left, right = (COCO.keypoints.index(f"{side}_shoulder") for side in ("left", "right"))
    necks = 0
    for i in range(3):
        for j in range(4):
            person = people[i, j].tolist()
            for name, keypoint in zip(OPENPOSE_18.keypoints, found[i, j].tolist(), strict=True):
                if name != "neck":
                    assert keypoint == person[COCO.keypoints.index(name)]
                elif person[left][2] and person[right][2]:
                    middle = [(person[left][axis] + person[right][axis]) / 2 for axis in (0, 1)]
                    assert keypoint == pytest.approx([*middle, min(person[left][2], person[right][2])])
                    necks += 1
                else:
                    assert keypoint == [0, 0, 0]
    assert 0 < necks < 12
    with pytest.raises(ValueError, match=r"`keypoints` must have shape \(\*people, 17, 3\), but got \(18, 3\)"):
        coco_to_openpose(found[0, 0])


def test_more_limbs_join_what_is_some_limbs_apart() -> None:
    chain = Skeleton.chain("chain", ["a", "b", "c", "d"], [(1, 0), (1, 2), (2, 3)])
    assert chain.denser(1).limbs == chain.limbs
    assert chain.denser(2).limbs == (*chain.limbs, (0, 2), (1, 3))
    assert chain.denser(3).limbs == (*chain.limbs, (0, 2), (1, 3), (0, 3))
    assert chain.denser(9).limbs == chain.denser(3).limbs


def test_wrong_tables_are_named() -> None:
    with pytest.raises(ValueError, match=r"`limbs` must hold pairs of the keypoints 0 to 1, but has \(0, 2\)"):
        Skeleton.chain("bad", ["a", "b"], [(0, 2)])
    with pytest.raises(ValueError, match=r"`limbs` must hold pairs of the keypoints 0 to 1, but has \(1, 1\)"):
        Skeleton.chain("bad", ["a", "b"], [(1, 1)])
    with pytest.raises(ValueError, match="`mirrored` must name each keypoint once at most"):
        Skeleton("bad", ("a", "b", "c"), (), mirrored=((0, 1), (1, 2)))
    with pytest.raises(ValueError, match="`filling` must name limbs from 0 to 0"):
        Skeleton("bad", ("a", "b"), ((0, 1),), filling=(1,))
    with pytest.raises(ValueError, match="`sigmas` must have 2 numbers or none, but has 1"):
        Skeleton("bad", ("a", "b"), (), sigmas=(0.1,))
    with pytest.raises(ValueError, match="`order` must name each of the 2 keypoints once"):
        Skeleton("bad", ("a", "b"), (), order=(0, 0))
