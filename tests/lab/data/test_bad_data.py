"""Each kind of bad data is named with its file and ids, and stops before training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lossatlas.lab.data import DataError, Kind, Problem, describe, load_detection
from tests.lab.data.coco_files import annotation, content, write_picture, write_set

Data = dict[str, Any]


def _annotations(*extra: dict[str, Any]) -> Callable[[Data], None]:
    return lambda data: data["annotations"].extend(extra)


def _drop(section: str, key: str) -> Callable[[Data], None]:
    return lambda data: data[section][0].pop(key)


def _set(section: str, key: str, value: object) -> Callable[[Data], None]:
    return lambda data: data[section][0].update({key: value})


BAD_JSON: dict[str, tuple[Callable[[Data], object], Kind, int | None, int | None]] = {
    "no annotations": (lambda data: data.pop("annotations"), Kind.KEY, None, None),
    "images is no list": (lambda data: data.__setitem__("images", "none"), Kind.VALUE, None, None),
    "image is no object": (lambda data: data["images"].append("a.png"), Kind.VALUE, None, None),
    "image without a name": (_drop("images", "file_name"), Kind.KEY, 1, None),
    "annotation without a box": (_drop("annotations", "bbox"), Kind.KEY, 1, 10),
    "category without a name": (_drop("categories", "name"), Kind.KEY, None, None),
    "image id is text": (lambda data: data["images"].append({**data["images"][0], "id": "x"}), Kind.VALUE, None, None),
    "image without extent": (_set("images", "width", 0), Kind.VALUE, 1, None),
    "box of three numbers": (_annotations(annotation(11, bbox=[1, 2, 3])), Kind.VALUE, 1, 11),
    "box of text": (_annotations(annotation(11, bbox=["1", 2, 3, 4])), Kind.VALUE, 1, 11),
    "annotation of no image": (_annotations(annotation(11, image=77)), Kind.UNKNOWN_IMAGE, 77, 11),
    "class not declared": (_annotations(annotation(11, category=2)), Kind.UNKNOWN_CATEGORY, 1, 11),
    "image id twice": (lambda data: data["images"].append(data["images"][1]), Kind.DUPLICATE_IMAGE, 2, None),
    "annotation id twice": (_annotations(annotation(10, image=2)), Kind.DUPLICATE_ANNOTATION, 2, 10),
    "category id twice": (_set("categories", "id", 4), Kind.DUPLICATE_CATEGORY, None, None),
    "negative width": (_annotations(annotation(11, bbox=[9, 9, -3, 4])), Kind.NEGATIVE_BOX, 1, 11),
    "NaN": (_annotations(annotation(11, bbox=[9, 9, float("nan"), 4])), Kind.NON_FINITE_BOX, 1, 11),
    "infinity": (_annotations(annotation(11, bbox=[float("-inf"), 9, 3, 4])), Kind.NON_FINITE_BOX, 1, 11),
    "wholly outside": (_annotations(annotation(11, bbox=[40, 9, 0.5, 4])), Kind.OUTSIDE_BOX, 1, 11),
    "partly outside": (_annotations(annotation(11, bbox=[35, 9, 6.5, 4])), Kind.OUTSIDE_BOX, 1, 11),
    "no object": (lambda data: data["annotations"].clear(), Kind.NO_OBJECTS, None, None),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_annotation_file(case: str, tmp_path: Path) -> None:
    spoil, kind, image_id, annotation_id = BAD_JSON[case]
    data = content("train")
    spoil(data)
    with pytest.raises(DataError) as caught:
        load_detection(write_set(tmp_path, data))
    [problem] = caught.value.problems
    expected = (kind, str(tmp_path / "train.json"), image_id, annotation_id)
    assert (problem.kind, problem.file, problem.image_id, problem.annotation_id) == expected
    for part in (f"{kind}: 1", "train.json", f"image {image_id}" * (image_id is not None)):
        assert part in str(caught.value)


def _truncate_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _overwrite(path: Path) -> None:
    path.write_text("hello")


def _replace_by_floats(path: Path) -> None:
    Image.new("F", (40, 30)).save(path, format="TIFF")


BAD_IMAGES: dict[str, tuple[Callable[[Path], None], Kind, str]] = {
    "missing": (Path.unlink, Kind.MISSING_IMAGE, "train2.png"),
    "no image": (_overwrite, Kind.UNDECODABLE_IMAGE, "train2.png"),
    "cut off": (_truncate_header, Kind.UNDECODABLE_IMAGE, "train2.png"),
    "floats": (_replace_by_floats, Kind.UNDECODABLE_IMAGE, "'F'"),
    "other size": (lambda path: write_picture(path, 41, 30), Kind.IMAGE_SIZE, "41 x 30, declared 40 x 30"),
    "turned": (lambda path: write_picture(path, 30, 40), Kind.IMAGE_SIZE, "EXIF"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image_file(case: str, tmp_path: Path) -> None:
    spoil, kind, detail = BAD_IMAGES[case]
    write_set(tmp_path)
    spoil(tmp_path / "train2.png")
    with pytest.raises(DataError) as caught:
        load_detection(tmp_path)
    [problem] = caught.value.problems
    assert (problem.kind, problem.file, problem.image_id) == (kind, str(tmp_path / "train.json"), 2)
    assert detail in problem.detail


def test_pixels_that_end_early_are_named_when_they_are_decoded(tmp_path: Path) -> None:
    data = load_detection(write_set(tmp_path))
    path = tmp_path / "train2.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"train2\.png, image 2"):
        data.train[1]


@pytest.mark.parametrize(("text", "detail"), [("{", "Expecting"), ("[]", "expected an object"), ("\xff", "")])
def test_unreadable_annotation_file(text: str, detail: str, tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError) as caught:
        load_detection(tmp_path)
    [problem] = caught.value.problems
    assert problem.file == str(tmp_path / "train.json")
    assert detail in problem.detail


def test_missing_annotation_file(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train.json").unlink()
    with pytest.raises(DataError, match=r"train\.json: No such file"):
        load_detection(tmp_path)


@pytest.mark.parametrize(
    ("categories", "detail"),
    [
        ([{"id": 1, "name": "cat"}], "id 4 is 'dog' in train.json, not declared in test.json"),
        ([{"id": 1, "name": "cat"}, {"id": 4, "name": "cow"}], "id 4 is 'dog' in train.json, 'cow' in test.json"),
    ],
)
def test_categories_must_be_the_same(categories: list[Any], detail: str, tmp_path: Path) -> None:
    write_set(tmp_path)
    test = content("test")
    test["categories"] = categories
    (tmp_path / "test.json").write_text(json.dumps(test))
    with pytest.raises(DataError) as caught:
        load_detection(tmp_path)
    assert [(problem.kind, problem.detail) for problem in caught.value.problems] == [(Kind.CATEGORIES, detail)]


def test_everything_is_reported_at_once(tmp_path: Path) -> None:
    data = content("train")
    data["annotations"] += [annotation(number, image=99) for number in range(100, 140)]
    data["annotations"] += [annotation(200, category=9, bbox=[0, 0, 90, 4])]
    write_set(tmp_path, data)
    (tmp_path / "test1.png").unlink()
    with pytest.raises(DataError) as caught:
        load_detection(tmp_path)
    message = str(caught.value)
    assert len(caught.value.problems) == 43
    for heading in (Kind.UNKNOWN_CATEGORY, Kind.OUTSIDE_BOX, Kind.MISSING_IMAGE):
        assert f"{heading}: 1" in message
    assert f"{Kind.UNKNOWN_IMAGE}: 40" in message
    assert "annotation 100:" in message
    assert "annotation 139:" not in message
    assert "... and 23 more" in message


def test_annotations_of_an_unusable_image_are_no_strays(tmp_path: Path) -> None:
    data = content("train")
    data["images"][0]["height"] = "30"
    with pytest.raises(DataError) as caught:
        load_detection(write_set(tmp_path, data))
    assert [problem.kind for problem in caught.value.problems] == [Kind.VALUE]


def test_zero_area_boxes_are_left_out_with_a_warning(tmp_path: Path) -> None:
    data = content("train")
    data["annotations"] += [annotation(11, image=2, bbox=[4, 5, 0, 9]), annotation(12, bbox=[4, 5, 1e-9, 9])]
    loaded = load_detection(write_set(tmp_path, data))
    assert [(warning.kind, warning.image_id, warning.annotation_id) for warning in loaded.warnings] == [
        (Kind.ZERO_AREA_BOX, 2, 11),
        (Kind.ZERO_AREA_BOX, 1, 12),
    ]
    assert [len(loaded.train[index].target["boxes"]) for index in range(2)] == [1, 0]
    assert len(loaded.train.coco["annotations"]) == 1


def test_an_image_in_both_splits_is_warned_of(tmp_path: Path) -> None:
    write_set(tmp_path)
    path = tmp_path / "train.json"
    loaded = load_detection(train=path, test=path)
    assert [(warning.kind, warning.image_id) for warning in loaded.warnings] == [
        (Kind.SHARED_IMAGE, 1),
        (Kind.SHARED_IMAGE, 2),
    ]


@pytest.mark.parametrize(
    "arguments", [{}, {"train": "a.json"}, {"data": "digits", "train": "a.json", "test": "b.json"}, {"data": "nowhere"}]
)
def test_unclear_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        load_detection(**arguments)
    assert not isinstance(caught.value, DataError)


def test_description_shows_some_of_every_kind() -> None:
    kinds = list(Kind)
    text = describe([Problem(kind, "a.json", "wrong", annotation_id=k) for kind in kinds for k in range(5)], limit=4)
    assert text.count("a.json, annotation 0: wrong") == len(kinds)
    assert text.count("... and 4 more") == len(kinds)
