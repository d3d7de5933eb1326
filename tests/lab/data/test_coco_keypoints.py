"""Reading keypoints in COCO's format."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lossatlas.lab.data import DataError, Kind
from lossatlas.lab.data.coco_keypoints import load_coco_keypoints, load_whole_coco_keypoints
from lossatlas.lab.data.skeleton import ASSUMED_SIGMA, mirrored_pairs, read_skeleton, sigmas_of
from lossatlas.targets.skeletons import COCO
from tests.lab.data.coco_files import annotation, write_split

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def person(number: int, keypoints: Any, image: int = 1, **more: Any) -> dict[str, Any]:
    return annotation(number, image, **more) | {"keypoints": keypoints}


def content(split: str, images: int = 2) -> dict[str, Any]:
    """Images of 40 x 30, one person in the first, a cat without keypoints in the second."""
    return {
        "images": [
            {"id": number, "file_name": f"{split}{number}.png", "width": 40, "height": 30}
            for number in range(1, images + 1)
        ],
        "annotations": [person(10, [8, 9, 2, 0, 0, 0, 13, 12, 1]), annotation(11, image=2, category=4)],
        "categories": [
            {"id": 1, "name": "person", "keypoints": ["nose", "left eye", "right eye"], "skeleton": [[1, 2], [1, 3]]},
            {"id": 4, "name": "cat"},
        ],
    }


def write_set(folder: Path, train: dict[str, Any]) -> tuple[Path, Path]:
    return write_split(folder, "train", train), write_split(folder, "test", content("test"))


def problems_of(folder: Path, train: dict[str, Any]) -> list[tuple[Kind, str]]:
    with pytest.raises(DataError) as error:
        load_coco_keypoints(*write_set(folder, train), name="set")
    return [(problem.kind, str(problem)) for problem in error.value.problems]


def test_samples_hold_the_keypoints_of_the_categories_that_have_some(tmp_path: Path) -> None:
    data = load_coco_keypoints(*write_set(tmp_path, content("train")), name="set")
    first, second = data.train[0].target, data.train[1].target
    assert data.train.class_names == ("person",)
    assert first["keypoints"].tolist() == [[[8, 9, 2], [0, 0, 0], [13, 12, 1]]]
    assert second["keypoints"].shape == (0, 3, 3)
    skeleton = data.train.skeleton
    assert (skeleton.keypoints, skeleton.limbs) == (("nose", "left eye", "right eye"), ((0, 1), (0, 2)))
    assert skeleton.mirrored == ((1, 2),)


def test_people_without_labelled_keypoints_and_crowds_are_ordinary(tmp_path: Path) -> None:
    train = content("train")
    train["annotations"] += [
        person(12, [7, 7, 0] * 3),  # coordinates of what is not labelled mean nothing
        annotation(13),
        person(14, [0, 0, 0] * 3, iscrowd=1),
    ]
    target = load_coco_keypoints(*write_set(tmp_path, train), name="set").train[0].target
    assert target["iscrowd"].tolist() == [False, False, False, True]
    assert target["keypoints"][1:].count_nonzero() == 0


def test_a_missing_box_is_drawn_around_the_labelled_keypoints(tmp_path: Path) -> None:
    train = content("train")
    del train["annotations"][0]["bbox"]
    target = load_coco_keypoints(*write_set(tmp_path, train), name="set").train[0].target
    assert target["boxes"].tolist() == [[7.5, 8.5, 13.5, 12.5]]
    assert target["area"].tolist() == [24]


def test_a_box_is_clipped_however_far_it_reaches(tmp_path: Path) -> None:
    train = content("train")
    train["annotations"][0]["bbox"] = [-8, 6, 20, 50]
    target = load_coco_keypoints(*write_set(tmp_path, train), name="set").train[0].target
    assert target["boxes"].tolist() == [[0, 6, 12, 30]]


def test_a_keypoint_outside_its_image_is_not_labelled(tmp_path: Path) -> None:
    train = content("train")
    train["annotations"][0]["keypoints"] = [8, 9, 2, 45, 3, 2, 40.5, 12, 2]
    data = load_coco_keypoints(*write_set(tmp_path, train), name="set")
    assert data.train[0].target["keypoints"].tolist() == [[[8, 9, 2], [0, 0, 0], [40.5, 12, 2]]]
    assert [(problem.kind, problem.image_id, problem.annotation_id) for problem in data.warnings] == [
        (Kind.OUTSIDE_KEYPOINT, 1, 10)
    ]
    assert "'left eye' at 45, 3" in str(data.warnings[0])


@pytest.mark.parametrize(
    ("keypoints", "said"),
    [
        ([1, 2, 2], "expected 9 numbers, x y v of each of 3, got 3 values"),
        ("none", "got 'none'"),
        ([1, 2, 2, "3", 4, 2, 5, 6, 2], "got 9 values"),
        ([1, 2, 2, 3, 4, 3, 5, 6, 2], "'left eye': v must be 0 (not labelled), 1 (hidden) or 2 (seen), got 3"),
        ([1, 2, 2, math.inf, 4, 2, 5, 6, 2], "'left eye' is at inf, 4"),
    ],
)
def test_malformed_keypoints_are_errors(keypoints: Any, said: str, tmp_path: Path) -> None:
    train = content("train")
    train["annotations"].append(person(12, keypoints))
    ((kind, text),) = problems_of(tmp_path, train)
    assert kind is Kind.VALUE
    assert said in text
    assert f"{tmp_path / 'train.json'}, image 1, annotation 12: " in text


def test_a_file_without_keypoints_is_an_error(tmp_path: Path) -> None:
    train = content("train")
    train["categories"] = [{"id": 1, "name": "person"}, {"id": 4, "name": "cat"}]
    assert (Kind.SKELETON, f"{tmp_path / 'train.json'}: none of 2 categories declares keypoints") in problems_of(
        tmp_path, train
    )


def test_a_file_without_a_labelled_keypoint_is_an_error(tmp_path: Path) -> None:
    train = content("train")
    train["annotations"] = [person(10, [0, 0, 0] * 3), person(11, [1, 1, 2] * 3, iscrowd=1)]
    ((kind, text),) = problems_of(tmp_path, train)
    assert kind is Kind.NO_OBJECTS
    assert text.endswith("2 images without a single labelled keypoint")


def test_train_and_test_declare_the_same_keypoints(tmp_path: Path) -> None:
    train = content("train")
    train["categories"][0]["keypoints"][0] = "beak"
    assert [kind for kind, _ in problems_of(tmp_path, train)] == [Kind.SKELETON]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keypoints": []}, "keypoints: expected a list of names, got []"),
        ({"skeleton": [[0, 1]]}, "skeleton: expected pairs of different keypoints from 1 to 3, got [0, 1]"),
        ({"skeleton": [[1, 4]]}, "got [1, 4]"),
        ({"skeleton": [[2, 2]]}, "got [2, 2]"),
        ({"skeleton": {}, "sigmas": [0.1, 0.1]}, "sigmas: expected 3 positive numbers, got [0.1, 0.1]"),
        ({"sigmas": [0.1, 0, 0.1]}, "sigmas: expected 3 positive numbers"),
    ],
)
def test_a_bad_skeleton_is_an_error(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    train = content("train")
    train["categories"][0].update(change)
    assert any(kind is Kind.SKELETON and said in text for kind, text in problems_of(tmp_path, train))


@pytest.mark.parametrize(
    ("names", "mirror"),
    [
        (["nose", "left_eye", "right_eye"], ((1, 2),)),
        (["LeftEar", "RightEar"], ((0, 1),)),
        (["l-hip", "R hip", "r-hip", "L hip"], ((0, 2), (1, 3))),
        (["wing.L", "wing.R", "tail"], ((0, 1),)),
        (["0", "1", "2"], ()),
        (["left_eye", "nose"], ()),
        (["left_eye", "right_eye", "left_eye"], ()),
        (["collar", "bra"], ()),
    ],
)
def test_the_names_tell_what_a_mirrored_keypoint_is(names: list[str], mirror: tuple[tuple[int, int], ...]) -> None:
    assert mirrored_pairs(names) == mirror


def test_sigmas_are_stated_by_the_set_or_by_coco_or_assumed() -> None:
    stated = read_skeleton({"keypoints": ["head", "tail"], "sigmas": [0.03, 0.08]})
    assumed = read_skeleton({"keypoints": ["head", "tail"]})
    assert sigmas_of(stated) == (0.03, 0.08)
    assert (assumed.sigmas, sigmas_of(assumed)) == ((), (ASSUMED_SIGMA, ASSUMED_SIGMA))


def test_one_file_is_split_by_the_names_of_its_images(tmp_path: Path) -> None:
    whole = content("all", images=10)
    whole["annotations"] = [person(number, [8, 9, 2] * 3, image=number) for number in range(1, 11)]
    first = load_whole_coco_keypoints(write_split(tmp_path / "a", "all", whole), name="set")
    whole["images"].reverse()
    second = load_whole_coco_keypoints(write_split(tmp_path / "b", "all", whole), name="set")
    named = [{record.file_name for record in split.records} for split in (first.train, first.test)]
    assert [len(names) for names in named] == [8, 2]
    assert named == [{record.file_name for record in split.records} for split in (second.train, second.test)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is absent")
def test_real_sets_are_read_without_a_warning() -> None:
    flies = load_whole_coco_keypoints(SHARED / "fly" / "all.json", name="fly")
    people = load_coco_keypoints(SHARED / "tiny_coco" / "train.json", SHARED / "tiny_coco" / "val.json", name="people")
    assert (len(flies.train), len(flies.test), len(flies.train.skeleton), len(flies.train.skeleton.limbs)) == (
        80,
        20,
        32,
        25,
    )
    assert flies.warnings == people.warnings == []
    labelled = sum(
        int((record.keypoints[..., 2] > 0).any(-1).sum())
        for split in (people.train, people.test)
        for record in split.records
    )
    declared = [json.loads((SHARED / "tiny_coco" / f"{split}.json").read_text()) for split in ("train", "val")]
    assert labelled == sum(row.get("num_keypoints", 0) > 0 for file in declared for row in file["annotations"]) == 103
    assert people.train.skeleton.sigmas == COCO.sigmas
    evaluated = people.train.coco
    assert evaluated["categories"][0]["skeleton"] == declared[0]["categories"][0]["skeleton"]
    assert sum(row["num_keypoints"] for row in evaluated["annotations"]) == sum(
        row.get("num_keypoints", 0) for row in declared[0]["annotations"]
    )
    assert torch.cat([record.keypoints for record in people.test.records]).shape[1:] == (17, 3)
