"""Detection data in YOLO's text format, checked before anything is trained on it.

The objects of ``images/a/7.jpg`` are the lines of ``labels/a/7.txt``: class, x and y of the centre, width and height as
parts of the image's; a line with more numbers is a class and the corners of a polygon, whose box is taken. An image
without such a file, or with an empty one, shows nothing. Where ``data.yaml`` names folders of images for ``train`` and
``test`` or ``val`` that exist, these are taken; otherwise the set is laid out as `find_folders` says. The names of the
classes are taken from ``data.yaml`` or ``classes.txt``; without them classes are called by their numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lossatlas.lab.data.class_names import declared_names, read_yaml
from lossatlas.lab.data.coco import CocoSplit, clip_box
from lossatlas.lab.data.dataset import DetectionData, ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.images import UndecodableImageError, image_files, image_size
from lossatlas.lab.data.problems import DataError, Kind, Problem
from lossatlas.lab.data.splits import TEST_NAMES, FolderPair, find_folders, split_by_name


@dataclass
class _Image:
    """An image with the objects of its text file."""

    name: str
    path: Path
    width: int
    height: int
    rows: list[ObjectRow] = field(default_factory=list)


def load_yolo(folder: Path) -> DetectionData:
    """Read a set in YOLO's format.

    Args:
        folder: of the set. Where it has no split of its own, one image in five is for testing, by a hash of the names.

    Returns:
        The data, with a warning for each box that was left out and each text file without an image.

    Raises:
        DataError: if anything else is wrong with the set: all of it, at once.
    """
    found = _yaml_folders(folder) or find_folders(folder, "labels")
    if found is None:
        raise DataError([Problem(Kind.FILE, str(folder), "no folder images beside labels")])
    names = declared_names(folder)
    problems: list[Problem] = []
    parts = (found,) if isinstance(found, FolderPair) else found
    splits = [_read_split(part, None if names is None else len(names), problems) for part in parts]
    if isinstance(found, FolderPair):
        [images] = splits
        splits = [[images[index] for index in part] for part in split_by_name([image.name for image in images])]
    fatal = [problem for problem in problems if problem.kind not in (Kind.ZERO_AREA_BOX, Kind.STRAY)]
    if not fatal:
        fatal = [
            Problem(Kind.NO_OBJECTS, str(folder), f"{len(images)} {use} images without a single box")
            for use, images in zip(("train", "test"), splits, strict=True)
            if not any(image.rows for image in images)
        ]
    if fatal:
        raise DataError(fatal)
    if names is None:
        names = tuple(
            map(str, range(1 + max(row.label for images in splits for image in images for row in image.rows)))
        )
    train, test = (_split(name, names, images) for name, images in zip(("train", "test"), splits, strict=True))
    return DetectionData(folder.resolve().name, train, test, names, fingerprint((train, test)), problems)


def is_yolo(folder: Path) -> bool:
    """Say whether a folder holds a set in YOLO's format."""
    return find_folders(folder, "labels") is not None or _yaml_folders(folder) is not None


def _yaml_folders(folder: Path) -> tuple[FolderPair, FolderPair] | None:
    """Return the folders that ``data.yaml`` names, None unless they exist."""
    found = read_yaml(folder)
    if found is None:
        return None
    path, content = found
    base = path.parent / str(content.get("path") or "")
    train, test = content.get("train"), next((content[name] for name in TEST_NAMES if content.get(name)), None)
    if not isinstance(train, str) or not isinstance(test, str):
        return None
    pairs = []
    for text in (train, test):
        images = base / text
        pairs.append(FolderPair(images, _labels_of(images)))
    return (pairs[0], pairs[1]) if all(pair.images.is_dir() for pair in pairs) else None


def _labels_of(images: Path) -> Path:
    """Return the folder of the text files: the last ``images`` of the path is ``labels`` there."""
    parts = list(images.parts)
    for place in reversed(range(len(parts))):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _read_split(folders: FolderPair, classes: int | None, problems: list[Problem]) -> list[_Image]:
    images = []
    texts = {path.relative_to(folders.companions).with_suffix(""): path for path in folders.companions.rglob("*.txt")}
    for path in image_files(folders.images):
        name = path.relative_to(folders.images)
        try:
            image = _Image(name.as_posix(), path, *image_size(path))
        except UndecodableImageError as error:
            problems.append(Problem(Kind.UNDECODABLE_IMAGE, str(path), str(error)))
            texts.pop(name.with_suffix(""), None)
            continue
        text = texts.pop(name.with_suffix(""), None)
        if text is not None:
            image.rows = _read_text(text, image, classes, problems)
        images.append(image)
    if not images:
        problems.append(Problem(Kind.FILE, str(folders.images), "no images"))
    strays = [path for path in sorted(texts.values()) if path.name != "classes.txt"]
    problems += [Problem(Kind.STRAY, str(path), "no image of that name") for path in strays]
    return images


def _read_text(path: Path, image: _Image, classes: int | None, problems: list[Problem]) -> list[ObjectRow]:
    """Return the objects of a text file, and report what is wrong with its lines."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        problems.append(Problem(Kind.FILE, str(path), str(error)))
        return []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _read_line(line, image, classes)
        if isinstance(row, ObjectRow):
            rows.append(row)
        else:
            kind, detail = row
            problems.append(Problem(kind, str(path), f"line {number}: {detail}"))
    return rows


def _read_line(line: str, image: _Image, classes: int | None) -> ObjectRow | tuple[Kind, str]:
    """Return the object of a line, or what is wrong with it."""
    shown = repr(line if len(line) <= 60 else line[:57] + "...")
    try:
        label, *numbers = (float(word) for word in line.split())
    except ValueError:
        return Kind.VALUE, f"expected numbers, got {shown}"
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        return Kind.VALUE, f"expected a class and four numbers, or a class and the corners of a polygon, got {shown}"
    if not math.isfinite(label) or label != int(label) or label < 0:
        return Kind.VALUE, f"the class must be a whole number from 0, got {shown}"
    if classes is not None and label >= classes:
        return Kind.UNKNOWN_CATEGORY, f"class {label:.0f}, but the classes are 0 to {classes - 1}"
    x, y, width, height = numbers if len(numbers) == 4 else _around(numbers)
    bbox = [(x - width / 2) * image.width, (y - height / 2) * image.height, width * image.width, height * image.height]
    box, problem = clip_box(bbox, (image.width, image.height))
    if box is None:
        assert problem is not None
        return problem[0], f"{shown}{problem[1]}"
    return ObjectRow(box, int(label), False, (box[2] - box[0]) * (box[3] - box[1]))


def _around(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """Return centre and size of the box around points x, y, x, y, ..."""
    left, right, top, bottom = (pick(numbers[axis::2]) for axis in (0, 1) for pick in (min, max))
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _split(name: str, class_names: Sequence[str], images: Sequence[_Image]) -> CocoSplit:
    records = [
        ImageRecord.from_rows(number, image.name, image.width, image.height, image.rows)
        for number, image in enumerate(images, start=1)
    ]
    return CocoSplit(name, class_names, records, [image.path for image in images])
