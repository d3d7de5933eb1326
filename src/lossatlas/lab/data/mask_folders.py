"""Segmentation data as pictures: a folder ``images`` beside ``masks`` or ``instances``.

The mask of ``images/a/7.jpg`` is ``masks/a/7.png``: the same name with any ending, and the same size.

A picture in ``masks`` holds the index of the class at each pixel, from 0. 255 is void, and so is 65535 in 16 bits; a
set with more than 255 classes has but the latter. Where a whole set holds nothing but 0 and 255, these are background
and foreground. The names of the classes are taken from ``classes.txt``, one a line, or ``names`` of ``data.yaml``;
without them there are as many classes as the highest index says.

A picture in ``instances`` holds a number for each object; every number but 0 is foreground.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.lab.data.class_names import declared_names
from lossatlas.lab.data.dataset import ImageInfo, fingerprint
from lossatlas.lab.data.images import UndecodableImageError, image_files, image_size, read_numbers
from lossatlas.lab.data.problems import DataError, Kind, Problem
from lossatlas.lab.data.segmentation import (
    VOID,
    FileSegmentationSplit,
    SegmentationData,
    check_content,
)
from lossatlas.lab.data.splits import FolderPair, find_folders, split_by_name

MaskKind: TypeAlias = Literal["masks", "instances"]

VOID_NUMBER, WIDE_VOID_NUMBER = 255, 65535
"""The numbers of void pixels in masks of 8 bits, and of 16."""
LOSSY = frozenset({".jpg", ".jpeg", ".webp"})
"""Endings of pictures whose pixels need not be what was stored."""
MAX_UNNAMED = 1000
"""Classes of a set without names, at most: higher numbers are rather something else, such as instances."""
BINARY_NAMES = ("background", "foreground")


class _Pair(NamedTuple):
    """An image, its mask, and how the image is called in its set."""

    name: str
    image: Path
    mask: Path


class _Item(NamedTuple):
    """An image with its mask, and what the mask holds: the numbers that occur in it and a hash of its file."""

    pair: _Pair
    width: int
    height: int
    numbers: NDArray[np.int64]
    digest: bytes


@dataclass(frozen=True)
class _Rule:
    """How the numbers of the masks of a set become classes.

    Args:
        class_names: the name of every class.
        foreground: whether every number but 0 is class 1.
        void: numbers of pixels whose class is not known.
    """

    class_names: tuple[str, ...]
    foreground: bool
    void: tuple[int, ...] = ()

    def __call__(self, numbers: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return the class of each number, or `VOID`."""
        classes: NDArray[np.int16]
        if self.foreground:
            classes = (numbers != 0).astype(np.int16)
        else:
            classes = np.where(np.isin(numbers, self.void), VOID, numbers).astype(np.int16)
        return classes


class MaskFolderSplit(FileSegmentationSplit):
    """Images with masks that are pictures."""

    def __init__(self, name: str, rule: _Rule, items: Sequence[_Item]) -> None:
        records = [
            ImageInfo(number, item.pair.name, item.width, item.height) for number, item in enumerate(items, start=1)
        ]
        super().__init__(name, rule.class_names, records, [item.pair.image for item in items])
        self._rule = rule
        self._items = tuple(items)

    def read_mask(self, index: int) -> Tensor:
        """Decode the mask of an image."""
        return torch.from_numpy(self._rule(read_numbers(self._items[index].pair.mask)))

    def mask_digest(self, index: int) -> bytes:
        """Hash of the file of a mask."""
        return self._items[index].digest


def load_mask_folders(folder: Path, kind: MaskKind) -> SegmentationData:
    """Read a set of ``images`` beside ``masks`` or ``instances``.

    Args:
        folder: of the set, see `lossatlas.lab.data.splits.find_folders`. Where it has no split of its own, one image
            in five is for testing, by a hash of the names.
        kind: name of the folder beside ``images``.

    Returns:
        The data, with warnings about masks without an image and classes that no image shows.

    Raises:
        DataError: if anything else is wrong with the set: all of it, at once.
    """
    found = find_folders(folder, kind)
    if found is None:
        raise DataError([Problem(Kind.FILE, str(folder), f"no folder images beside {kind}")])
    names = declared_names(folder) if kind == "masks" else None
    problems: list[Problem] = []
    splits = [
        _scan_all(_pair(part, problems), problems) for part in ([found] if isinstance(found, FolderPair) else found)
    ]
    rule = _find_rule([item for items in splits for item in items], kind, names)
    problems += [problem for items in splits for item in items for problem in _out_of_range(item, rule)]
    if isinstance(found, FolderPair):
        [items] = splits
        splits = [[items[index] for index in part] for part in split_by_name([item.pair.name for item in items])]
    fatal = [problem for problem in problems if problem.kind is not Kind.STRAY]
    if fatal:
        raise DataError(fatal)
    train, test = (MaskFolderSplit(name, rule, items) for name, items in zip(("train", "test"), splits, strict=True))
    shown = [{int(number) for item in items for number in rule(item.numbers)} - {VOID} for items in splits]
    warnings = problems + check_content(str(folder), rule.class_names, *shown)
    return SegmentationData(folder.resolve().name, train, test, rule.class_names, fingerprint((train, test)), warnings)


def _pair(folders: FolderPair, problems: list[Problem]) -> list[_Pair]:
    """Return every image with its mask, and report what has no counterpart."""
    masks: dict[str, Path] = {}
    for path in image_files(folders.companions):
        other = masks.setdefault(_key(folders.companions, path), path)
        if other is not path:
            problems.append(Problem(Kind.MASK, str(path), f"{other.name} is a mask of the same image"))
    images: dict[str, Path] = {}
    for path in image_files(folders.images):
        key = _key(folders.images, path)
        other = images.setdefault(key, path)
        if other is not path:
            problems.append(Problem(Kind.DUPLICATE_IMAGE, str(path), f"{other.name} has the same mask"))
        elif key not in masks:
            problems.append(Problem(Kind.MISSING_MASK, str(path), f"no {key}.png in {folders.companions}"))
    if not images:
        problems.append(Problem(Kind.FILE, str(folders.images), "no images"))
    problems += [
        Problem(Kind.STRAY, str(path), "no image of that name") for key, path in masks.items() if key not in images
    ]
    return [
        _Pair(path.relative_to(folders.images).as_posix(), path, masks[key])
        for key, path in images.items()
        if key in masks
    ]


def _key(folder: Path, path: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _scan_all(pairs: Sequence[_Pair], problems: list[Problem]) -> list[_Item]:
    """Look into every mask; what cannot be used is reported."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(_scan, pairs))
    problems += [result for result in results if isinstance(result, Problem)]
    return [result for result in results if isinstance(result, _Item)]


def _scan(pair: _Pair) -> _Item | Problem:
    if pair.mask.suffix.lower() in LOSSY:
        return Problem(Kind.MASK, str(pair.mask), "a mask must be stored without loss, such as in a PNG file")
    try:
        numbers = read_numbers(pair.mask)
    except UndecodableImageError as error:
        return Problem(Kind.MASK, str(pair.mask), str(error))
    try:
        width, height = image_size(pair.image)
    except UndecodableImageError as error:
        return Problem(Kind.UNDECODABLE_IMAGE, str(pair.image), str(error))
    if numbers.shape != (height, width):
        detail = f"{numbers.shape[1]} x {numbers.shape[0]}, but its image {pair.name!r} is {width} x {height}"
        return Problem(Kind.MASK_SIZE, str(pair.mask), detail)
    return _Item(pair, width, height, _distinct(numbers), hashlib.sha256(pair.mask.read_bytes()).digest())


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers that occur, sorted; counting is faster than sorting all pixels."""
    if numbers.min() >= 0 and numbers.max() <= WIDE_VOID_NUMBER:
        return np.flatnonzero(np.bincount(numbers.ravel()))
    return np.unique(numbers)


def _find_rule(items: Iterable[_Item], kind: MaskKind, names: tuple[str, ...] | None) -> _Rule:
    """Find out what the numbers of a set mean."""
    if kind == "instances":
        return _Rule(BINARY_NAMES, foreground=True)
    found = {number for item in items for number in item.numbers.tolist()}
    if VOID_NUMBER in found and found <= {0, VOID_NUMBER} and (names is None or len(names) == 2):
        return _Rule(names or BINARY_NAMES, foreground=True)
    wide = len(names) > VOID_NUMBER if names else any(VOID_NUMBER < number < WIDE_VOID_NUMBER for number in found)
    void = (WIDE_VOID_NUMBER,) if wide else (VOID_NUMBER, WIDE_VOID_NUMBER)
    if names is None:
        count = max((number for number in found if number not in void and number < MAX_UNNAMED), default=0) + 1
        names = BINARY_NAMES if count <= 2 else tuple(f"class {number}" for number in range(count))
    return _Rule(names, foreground=False, void=void)


def _out_of_range(item: _Item, rule: _Rule) -> list[Problem]:
    """Report a mask with numbers that are neither classes nor void."""
    if rule.foreground:
        return []
    count = len(rule.class_names)
    wrong = [n for n in item.numbers.tolist() if not 0 <= n < count and n not in rule.void]
    if not wrong:
        return []
    shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
    detail = f"holds {shown}, but the classes are 0 to {count - 1}, and void is {' or '.join(map(str, rule.void))}"
    return [Problem(Kind.UNKNOWN_CATEGORY, str(item.pair.mask), detail)]
