"""Which images are for training and which for testing: as the folders say, or by a hash of the names."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TEST_EVERY = 5
"""One image in so many is for testing where a set has no split of its own."""

TEST_NAMES = ("test", "val", "valid", "validation")
"""Folders of images to score on, the first that is there."""
TRAIN_NAMES = ("train", "training")
"""Folders of images to train on, the first that is there."""


def split_by_name(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Split images by a hash of their names: always the same, whatever their order and wherever they lie.

    Formula:
        the images whose SHA-256 of the name is among the smallest n / 5, rounded and at least one, are for testing

    Args:
        names: of the images; no two alike.

    Returns:
        Indices of the images to train on and of those to score on, each in the order of `names`.

    Example:
        >>> train, test = split_by_name([f"{number}.png" for number in range(10)])
        >>> train, test
        ([1, 2, 3, 4, 5, 7, 8, 9], [0, 6])
    """
    order = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).digest())
    count = min(max(1, (len(names) + TEST_EVERY // 2) // TEST_EVERY), max(len(names) - 1, 0))
    test = set(order[:count])
    return [index for index in range(len(names)) if index not in test], sorted(test)


class FolderPair(NamedTuple):
    """A folder of images and the one with what belongs to them."""

    images: Path
    companions: Path


def find_folders(folder: Path, companions: str) -> tuple[FolderPair, FolderPair] | FolderPair | None:
    """Find the images of a set and what belongs to them, such as masks.

    Args:
        folder: of the set.
        companions: name of the folder beside ``images``, such as ``"masks"``.

    Returns:
        The folders to train on and to score on, from ``train/images`` beside ``train/masks`` or ``images/train``
        beside ``masks/train``, with ``test`` or, where there is none, ``val``; or one pair that is to be split, that
        of ``train`` alone or ``images`` beside ``masks``; or None.
    """
    for layout in (
        lambda name: FolderPair(folder / name / "images", folder / name / companions),
        lambda name: FolderPair(folder / "images" / name, folder / companions / name),
    ):
        train, test = (
            next((pair for pair in map(layout, names) if all(map(Path.is_dir, pair))), None)
            for names in (TRAIN_NAMES, TEST_NAMES)
        )
        if train is not None:
            return train if test is None else (train, test)
    whole = FolderPair(folder / "images", folder / companions)
    return whole if all(map(Path.is_dir, whole)) else None


def find_annotations(path: Path) -> tuple[Path, Path | None] | None:
    """Find the annotation files of a set.

    Args:
        path: a folder, or the only annotation file.

    Returns:
        ``train.json`` and ``test.json``, or ``val.json`` where there is no ``test.json``; or the only annotation file,
        whose images are to be split, and None; or None.
    """
    if path.is_file():
        return path, None
    train, test = path / "train.json", path / "test.json"
    if not test.is_file() and (path / "val.json").is_file():
        test = path / "val.json"
    if train.is_file() or test.is_file():
        return train, test
    files = sorted(path.glob("*.json"))
    return (files[0], None) if len(files) == 1 else None
