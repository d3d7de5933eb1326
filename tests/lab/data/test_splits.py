"""Which images are for training and which for testing, and what the classes are called."""

import hashlib
from pathlib import Path

import pytest

from lossatlas.lab.data import DataError, Kind
from lossatlas.lab.data.class_names import declared_names
from lossatlas.lab.data.splits import FolderPair, find_folders, split_by_name

NAMES = [f"{number:03d}.png" for number in range(103)]


def test_one_image_in_five_is_for_testing_whatever_the_order() -> None:
    train, test = split_by_name(NAMES)
    assert len(test) == 21
    assert sorted(train + test) == list(range(103))
    backwards = split_by_name(NAMES[::-1])[1]
    assert {NAMES[::-1][index] for index in backwards} == {NAMES[index] for index in test}
    smallest = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:21]
    assert sorted(smallest) == [NAMES[index] for index in test]


@pytest.mark.parametrize(("count", "tested"), [(0, 0), (1, 0), (2, 1), (3, 1), (7, 1), (8, 2)])
def test_small_sets_keep_images_for_both(count: int, tested: int) -> None:
    train, test = split_by_name(NAMES[:count])
    assert (len(train), len(test)) == (count - tested, tested)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("images", "masks"), ("images", "masks")),
        (("train/images", "train/masks", "val/images", "val/masks"), ("train/images", "val/masks")),
        (("images/train", "masks/train", "images/test", "masks/test"), ("images/train", "masks/test")),
        (
            ("images/training", "masks/training", "images/validation", "masks/validation"),
            ("images/training", "masks/validation"),
        ),
        (("train/images", "train/masks", "test/images"), ("train/images", "train/masks")),
        (("images",), None),
    ],
)
def test_folders(folders: tuple[str, ...], expected: tuple[str, str] | None, tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    found = find_folders(tmp_path, "masks")
    if expected is None:
        assert found is None
        return
    assert found is not None
    first = found if isinstance(found, FolderPair) else found[0]
    last = found if isinstance(found, FolderPair) else found[1]
    assert first.images == tmp_path / expected[0]
    assert last.companions == tmp_path / expected[1]


def test_a_test_folder_goes_before_a_validation_folder(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (tmp_path / kind / name).mkdir(parents=True)
    found = find_folders(tmp_path, "masks")
    assert found is not None
    assert found[1] == FolderPair(tmp_path / "images" / "test", tmp_path / "masks" / "test")


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("classes.txt", "sky\n road \n\n", ("sky", "road")),
        ("data.yaml", "names: [sky, road]\nnc: 2\n", ("sky", "road")),
        ("data.yaml", "names:\n  1: road\n  0: sky\n", ("sky", "road")),
        ("data.yaml", "nc: 2\n", None),
        ("other.txt", "sky\n", None),
    ],
)
def test_names_of_classes(file: str, text: str, expected: tuple[str, ...] | None, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    assert declared_names(tmp_path) == expected


@pytest.mark.parametrize(
    ("file", "text", "kind", "words"),
    [
        ("classes.txt", "", Kind.VALUE, "an empty file"),
        ("classes.txt", "sky\n\nroad\n", Kind.VALUE, "an empty line"),
        ("classes.txt", "sky\nsky\n", Kind.DUPLICATE_CATEGORY, "'sky' twice"),
        ("data.yaml", "names: {0: sky, 2: road}", Kind.VALUE, "names by their numbers from 0"),
        ("data.yaml", "names: []", Kind.VALUE, "at least one"),
        ("data.yaml", "names: [a, b", Kind.FILE, "line 1"),
        ("data.yaml", "- a\n", Kind.VALUE, "got list"),
    ],
)
def test_names_that_cannot_be_used(file: str, text: str, kind: Kind, words: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=words) as raised:
        declared_names(tmp_path)
    [problem] = raised.value.problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / file))
