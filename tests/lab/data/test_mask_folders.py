"""Reading images with masks that are pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lossatlas.lab.data import DataError, Kind, load_segmentation
from lossatlas.lab.data.segmentation import VOID

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
HEIGHT, WIDTH = 6, 8


def write_numbers(path: Path, numbers: Any, dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(numbers, dtype=dtype)).save(path)


def pattern(*numbers: int) -> np.ndarray:
    """A mask that shows every number."""
    return np.resize(np.array(numbers), (HEIGHT, WIDTH))


def write_set(folder: Path, masks: dict[str, Any], kind: str = "masks", dtype: Any = np.uint8) -> Path:
    for name, numbers in masks.items():
        write_numbers(folder / "images" / f"{name}.jpg", np.zeros((HEIGHT, WIDTH, 3)))
        write_numbers(folder / kind / f"{name}.png", numbers, dtype)
    return folder


def all_masks(data: Any) -> dict[str, torch.Tensor]:
    return {
        split.records[index].file_name: split.mask(index)
        for split in (data.train, data.test)
        for index in range(len(split))
    }


def test_class_indices_with_void(tmp_path: Path) -> None:
    data = load_segmentation(write_set(tmp_path, {name: pattern(0, 1, 2, 255) for name in "abcdefg"}))
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert (len(data.train), len(data.test), data.warnings) == (6, 1, [])
    sample = data.train[0]
    expected = np.where(pattern(0, 1, 2, 255) == 255, VOID, pattern(0, 1, 2, 255))
    assert sample.target["mask"].dtype == torch.int16
    assert sample.target["mask"].tolist() == expected.tolist()
    assert sample.image.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("stored", ["0 and 255", "0 and 1", "bilevel", "grey in RGBA", "palette"])
def test_binary_masks_however_they_are_stored(stored: str, tmp_path: Path) -> None:
    write_set(tmp_path, dict.fromkeys("abc", pattern(0, 1, 1)))
    for path in (tmp_path / "masks").iterdir():
        ones = pattern(0, 1, 1).astype(np.uint8)
        grey = Image.fromarray(ones * 255)
        if stored == "0 and 255":
            grey.save(path)
        elif stored == "bilevel":
            grey.convert("1").save(path)
        elif stored == "grey in RGBA":
            grey.convert("RGBA").save(path)
        elif stored == "palette":
            picture = Image.fromarray(ones, mode="P")
            picture.putpalette([10, 20, 30, 200, 100, 0])
            picture.save(path)
    data = load_segmentation(tmp_path)
    assert data.class_names == ("background", "foreground")
    for mask in all_masks(data).values():
        assert mask.tolist() == pattern(0, 1, 1).tolist()


def test_0_and_255_are_two_classes_that_have_names(tmp_path: Path) -> None:
    (write_set(tmp_path, dict.fromkeys("abc", pattern(0, 255))) / "classes.txt").write_text("field\nroad\n")
    data = load_segmentation(tmp_path)
    assert data.class_names == ("field", "road")
    assert sorted(data.train[0].target["mask"].unique().tolist()) == [0, 1]


def test_names_make_255_void(tmp_path: Path) -> None:
    (write_set(tmp_path, dict.fromkeys("abc", pattern(0, 255, 1, 2))) / "classes.txt").write_text("a\nb\nc\nd\n")
    data = load_segmentation(tmp_path)
    assert sorted(data.train[0].target["mask"].unique().tolist()) == [VOID, 0, 1, 2]
    [train, test] = data.warnings
    assert train.kind is test.kind is Kind.ABSENT_CLASS
    assert train.detail == "no train image shows d"


def test_many_classes_in_16_bits(tmp_path: Path) -> None:
    masks = {name: pattern(0, 254, 255, 299, 65535) for name in "abc"}
    data = load_segmentation(write_set(tmp_path, masks, dtype=np.uint16))
    assert len(data.class_names) == 300
    assert sorted(data.train[0].target["mask"].unique().tolist()) == [VOID, 0, 254, 255, 299]


def test_every_instance_is_foreground_and_an_empty_mask_is_ordinary(tmp_path: Path) -> None:
    masks = {"a": pattern(0, 7, 40000), "b": pattern(0), "c": pattern(0, 1), "d": pattern(0, 255)}
    data = load_segmentation(write_set(tmp_path, masks, "instances", np.uint16))
    assert data.class_names == ("background", "foreground")
    found = all_masks(data)
    for name, numbers in masks.items():
        assert found[f"{name}.jpg"].tolist() == (numbers > 0).astype(int).tolist()


def test_a_split_of_its_own(tmp_path: Path) -> None:
    write_set(tmp_path / "train", {"a": pattern(0, 1), "deep/b": pattern(0, 1)})
    write_set(tmp_path / "val", {"a": pattern(0, 1)})
    data = load_segmentation(tmp_path)
    assert [record.file_name for record in data.train.records] == ["a.jpg", "deep/b.jpg"]
    assert [record.file_name for record in data.test.records] == ["a.jpg"]


def test_fingerprint_tells_masks_not_places(tmp_path: Path) -> None:
    masks = {name: pattern(0, 1) for name in "abc"}
    first = load_segmentation(write_set(tmp_path / "a", masks)).fingerprint
    assert load_segmentation(write_set(tmp_path / "b", masks)).fingerprint == first
    masks["b"] = pattern(0, 1, 1)
    assert load_segmentation(write_set(tmp_path / "c", masks)).fingerprint != first


def _remove(folder: Path) -> None:
    (folder / "masks" / "b.png").unlink()


def _shrink(folder: Path) -> None:
    write_numbers(folder / "masks" / "b.png", pattern(0, 1)[:-1])


def _color(folder: Path) -> None:
    write_numbers(folder / "masks" / "b.png", np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3))


def _break(folder: Path) -> None:
    (folder / "masks" / "b.png").write_bytes(b"no picture")


def _lose(folder: Path) -> None:
    (folder / "masks" / "b.png").rename(folder / "masks" / "b.jpg")


def _double(folder: Path) -> None:
    write_numbers(folder / "masks" / "b.tif", pattern(0, 1))


def _go_too_far(folder: Path) -> None:
    (folder / "classes.txt").write_text("background\ncell\n")
    write_numbers(folder / "masks" / "b.png", pattern(0, 1, 2, 9))


def _store_instances(folder: Path) -> None:
    write_numbers(folder / "masks" / "b.png", pattern(0, 1, 36001), np.uint16)


@pytest.mark.parametrize(
    ("spoil", "kind", "file", "words"),
    [
        (_remove, Kind.MISSING_MASK, "images/b.jpg", "no b.png in"),
        (_shrink, Kind.MASK_SIZE, "masks/b.png", "8 x 5, but its image 'b.jpg' is 8 x 6"),
        (_color, Kind.MASK, "masks/b.png", "a picture in colours"),
        (_break, Kind.MASK, "masks/b.png", "cannot identify"),
        (_lose, Kind.MASK, "masks/b.jpg", "without loss"),
        (_double, Kind.MASK, "masks/b.tif", "b.png is a mask of the same image"),
        (_go_too_far, Kind.UNKNOWN_CATEGORY, "masks/b.png", "holds 2, 9, but the classes are 0 to 1"),
        (_store_instances, Kind.UNKNOWN_CATEGORY, "masks/b.png", "holds 36001"),
    ],
)
def test_errors_name_the_file(spoil: Any, kind: Kind, file: str, words: str, tmp_path: Path) -> None:
    spoil(write_set(tmp_path, {name: pattern(0, 1) for name in "abc"}))
    with pytest.raises(DataError) as raised:
        load_segmentation(tmp_path)
    [problem] = raised.value.problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / file))
    assert words in problem.detail


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    folder = write_set(tmp_path, {name: pattern(0, 1) for name in "abcd"})
    for spoil in (_shrink,):
        spoil(folder)
    (folder / "masks" / "c.png").unlink()
    with pytest.raises(DataError) as raised:
        load_segmentation(folder)
    assert {problem.kind for problem in raised.value.problems} == {Kind.MISSING_MASK, Kind.MASK_SIZE}


def test_a_mask_without_an_image_is_left_out(tmp_path: Path) -> None:
    folder = write_set(tmp_path, {name: pattern(0, 1) for name in "abc"})
    write_numbers(folder / "masks" / "z.png", pattern(0, 1))
    data = load_segmentation(folder)
    assert [(problem.kind, problem.file) for problem in data.warnings] == [(Kind.STRAY, str(folder / "masks/z.png"))]


def test_a_set_of_empty_masks_teaches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the train images show background alone") as raised:
        load_segmentation(write_set(tmp_path, {name: pattern(0) for name in "abc"}))
    assert {problem.kind for problem in raised.value.problems} == {Kind.NO_OBJECTS}


def test_digits_need_no_file() -> None:
    from lossatlas.lab.data.digit_masks import load_digit_masks

    many, two = (load_digit_masks(binary=binary, train_scenes=3, test_scenes=1) for binary in (False, True))
    assert (many.flips, two.flips) == (False, True)
    assert many.fingerprint != two.fingerprint
    for index in range(3):
        labels = many.train.mask(index).unique().tolist()
        assert labels[0] == 0
        assert len(labels) > 1
        assert torch.equal(two.train.mask(index), (many.train.mask(index) > 0).to(torch.int16))


def test_a_folder_without_masks_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder with images and masks"):
        load_segmentation(tmp_path)


@pytest.mark.skipif(not (SHARED / "nuclei").is_dir(), reason="the nuclei are not here")
def test_nuclei() -> None:
    data = load_segmentation(SHARED / "nuclei")
    assert (data.name, len(data.train), len(data.test), data.warnings) == ("nuclei", 267, 67, [])
    sample = data.test[0]
    assert sample.image.shape == (3, 256, 256)
    stored = np.asarray(Image.open(SHARED / "nuclei" / "instances" / sample.file_name))
    assert torch.equal(sample.target["mask"], torch.from_numpy((stored > 0).astype(np.int16)))
