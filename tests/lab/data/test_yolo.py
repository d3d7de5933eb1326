"""Detection data in YOLO's text format."""

from pathlib import Path

import pytest
import torch

from lossatlas.lab.data import DataError, Kind, load_detection
from tests.lab.data.coco_files import write_picture

LINE = "1 0.5 0.5 0.25 0.2\n"  # 40 x 30: 15 to 25, 12 to 18


def write_yolo(folder: Path, texts: dict[str, str | None], images: str = "images", labels: str = "labels") -> Path:
    for name, text in texts.items():
        write_picture(folder / images / f"{name}.png")
        if text is not None:
            path = folder / labels / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


def test_lines_become_boxes_in_pixels(tmp_path: Path) -> None:
    text = LINE + "\n0 0.1 0.2 0.2 0.4\n 2  0.25 0.1  0.75 0.1  0.75 0.9 0.5 0.95 \n"
    write_yolo(tmp_path, {"a": text, "b": "", "c": None, "d": LINE}, "train/images", "train/labels")
    data = load_detection(write_yolo(tmp_path, {"e": LINE}, "test/images", "test/labels"))
    assert (len(data.train), len(data.test), data.class_names, data.warnings) == (4, 1, ("0", "1", "2"), [])
    splits = (data.train, data.test)
    samples = {split[index].file_name: split.target(index) for split in splits for index in range(len(split))}
    torch.testing.assert_close(
        samples["a.png"]["boxes"],
        torch.tensor([[15.0, 12.0, 25.0, 18.0], [0.0, 0.0, 8.0, 12.0], [10.0, 3.0, 30.0, 28.5]]),
    )
    assert samples["a.png"]["labels"].tolist() == [1, 0, 2]
    assert samples["b.png"]["boxes"].shape == samples["c.png"]["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("train/images", "train/labels"), ("valid/images", "valid/labels")),
        (("images/train", "labels/train"), ("images/val", "labels/val")),
    ],
)
def test_splits_and_names_as_users_have_them(train: tuple[str, str], test: tuple[str, str], tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": LINE, "b": LINE}, *train)
    write_yolo(tmp_path, {"c": LINE}, *test)
    (tmp_path / "data.yaml").write_text("train: ../elsewhere/train\nval: ../elsewhere/val\nnc: 2\nnames: [cat, dog]\n")
    data = load_detection(tmp_path)
    assert (len(data.train), len(data.test), data.class_names) == (2, 1, ("cat", "dog"))


def test_folders_that_the_yaml_names(tmp_path: Path) -> None:
    write_yolo(tmp_path / "set", {"a": LINE}, "first/images", "first/labels")
    write_yolo(tmp_path / "set", {"b": LINE}, "second/images", "second/labels")
    (tmp_path / "data.yaml").write_text("path: set\ntrain: first/images\nval: second/images\nnames: {0: cat, 1: dog}\n")
    data = load_detection(tmp_path)
    assert [record.file_name for split in (data.train, data.test) for record in split.records] == ["a.png", "b.png"]


def test_names_of_a_text_file(tmp_path: Path) -> None:
    write_yolo(tmp_path, dict.fromkeys("abcd", LINE))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "labels" / "classes.txt").write_text("cat\ndog\n")  # as some tools leave it there
    data = load_detection(tmp_path)
    assert (data.class_names, data.warnings) == (("cat", "dog"), [])


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("0 0.5 0.5 0.2", Kind.VALUE, "a class and four numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", Kind.VALUE, "a class and four numbers"),
        ("cat 0.5 0.5 0.2 0.2", Kind.VALUE, "expected numbers, got 'cat"),
        ("0.5 0.5 0.5 0.2 0.2", Kind.VALUE, "a whole number from 0"),
        ("-1 0.5 0.5 0.2 0.2", Kind.VALUE, "a whole number from 0"),
        ("nan 0.5 0.5 0.2 0.2", Kind.VALUE, "a whole number from 0"),
        ("2 0.5 0.5 0.2 0.2", Kind.UNKNOWN_CATEGORY, "class 2, but the classes are 0 to 1"),
        ("0 0.5 0.5 nan 0.2", Kind.NON_FINITE_BOX, "nan"),
        ("0 0.5 0.5 -0.2 0.2", Kind.NEGATIVE_BOX, "-0.2"),
        ("0 20 15 10 8", Kind.OUTSIDE_BOX, "wholly outside"),
        ("0 0.9 0.5 0.4 0.2", Kind.OUTSIDE_BOX, "reaches 4 pixels beyond"),
    ],
)
def test_errors_name_the_file_and_the_line(line: str, kind: Kind, words: str, tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": LINE, "b": f"{LINE}{line}\n", "c": LINE, "d": LINE})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError) as raised:
        load_detection(tmp_path)
    [problem] = raised.value.problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / "labels" / "b.txt"))
    assert problem.detail.startswith("line 2: ")
    assert words in problem.detail


def test_flat_boxes_and_texts_without_an_image_are_left_out(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": LINE + "0 0.5 0.5 0 0.2\n", "b": LINE, "c": LINE})
    (tmp_path / "labels" / "z.txt").write_text(LINE)
    data = load_detection(tmp_path)
    assert [problem.kind for problem in data.warnings] == [Kind.ZERO_AREA_BOX, Kind.STRAY]
    assert sum(len(record.boxes) for split in (data.train, data.test) for record in split.records) == 3


def test_a_split_without_boxes_and_a_broken_image_are_errors(tmp_path: Path) -> None:
    write_yolo(tmp_path / "a", {"1": LINE}, "train/images", "train/labels")
    write_yolo(tmp_path / "a", {"2": ""}, "val/images", "val/labels")
    with pytest.raises(DataError, match="1 test images without a single box"):
        load_detection(tmp_path / "a")
    write_yolo(tmp_path / "b", dict.fromkeys("abc", LINE))
    (tmp_path / "b" / "images" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as raised:
        load_detection(tmp_path / "b")
    assert [problem.kind for problem in raised.value.problems] == [Kind.UNDECODABLE_IMAGE]
