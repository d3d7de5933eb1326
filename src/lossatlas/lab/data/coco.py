"""Detection data in COCO's JSON format, checked before anything is trained on it.

Boxes are ``[x, y, width, height]`` in continuous pixels of the stored picture. A box may reach over the edge of its
image by up to `EDGE_TOLERANCE` pixels, as rounding makes it in many sets, and is clipped without a word; one that
reaches further, or lies outside altogether, is an error. A box of zero area is left out with a warning.
"""

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lossatlas.lab.data.dataset import DetectionData, DetectionSplit, ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.images import CACHE_BYTES, ImageFiles, UndecodableImageError, image_size
from lossatlas.lab.data.problems import DataError, Kind, Problem
from lossatlas.lab.data.splits import split_by_name
from lossatlas.lab.data.values import brief, is_number, whole

EDGE_TOLERANCE = 1.0
"""Pixels by which a box may reach over the edge of its image and be clipped."""

WARNING_KINDS = frozenset({Kind.ZERO_AREA_BOX, Kind.OUTSIDE_KEYPOINT})
"""What is told but does not prevent training."""

_SINGLE = struct.Struct("4f")
"""Four numbers in single precision."""


class CocoSplit(DetectionSplit):
    """Images decoded from their files when they are asked for.

    Args:
        name: ``"train"`` or ``"test"``.
        class_names: the name of every label.
        records: one for every image.
        paths: the file of every image.
        cache_bytes: how much decoded images may occupy in memory.
        annotation_ids: for every image the ids of its objects; None: their places in the image.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        records: Sequence[ImageRecord],
        paths: Sequence[Path],
        cache_bytes: int = CACHE_BYTES,
        annotation_ids: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(name, class_names, records)
        self._annotation_ids = annotation_ids
        self.files = ImageFiles(paths, [record.image_id for record in records], cache_bytes)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file of every image."""
        return self.files.paths

    def image(self, index: int) -> Tensor:
        """Pixels of an image, (3, H, W) uint8; a file that cannot be decoded raises `DataError`."""
        return self.files[index]

    def image_digest(self, index: int) -> bytes:
        """What tells the file of an image from another."""
        return self.files.digest(index)

    def annotation_ids(self, index: int) -> Sequence[int]:
        """The ids that the file gives the objects of an image."""
        return super().annotation_ids(index) if self._annotation_ids is None else self._annotation_ids[index]


@dataclass
class _DeclaredImage:
    """An image of the annotation file; its objects are added as they are read."""

    file_name: str
    width: int
    height: int
    path: Path
    rows: list[ObjectRow] = field(default_factory=list)


class CocoReader:
    """Reads one annotation file and collects everything that is wrong with it.

    Args:
        path: the annotation file. Its images lie beside it or in ``images/``.

    Attributes:
        categories: names by category id, in the order of the labels.
        categories_sound: whether they could be read, all of them.
        problems: what prevents training.
        warnings: what does not.
    """

    annotation_keys: tuple[str, ...] = ("id", "image_id", "category_id", "bbox")
    edge_tolerance = EDGE_TOLERANCE
    needed = "a single box"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.categories: dict[int, str] = {}
        self.categories_sound = False
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._images: dict[int, _DeclaredImage] = {}
        self._declared_ids: set[int | None] = set()  # of entries that cannot be used, too: their objects are no strays
        content = self._load()
        if content is not None:
            self._read_categories(content["categories"])
            self._read_images(content["images"])
            self._read_annotations(content["annotations"])
            if not self.problems and not self._teaches():
                self._report(Kind.NO_OBJECTS, f"{len(self._images)} images without {self.needed}")

    @property
    def file_names(self) -> list[str]:
        """The images by the names that the file gives them."""
        return [image.file_name for image in self._images.values()]

    def split(self, name: str, cache_bytes: int = CACHE_BYTES, chosen: Sequence[int] | None = None) -> CocoSplit:
        """The split that was read, for a file without problems.

        Args:
            name: ``"train"`` or ``"test"``.
            cache_bytes: how much decoded images may occupy in memory.
            chosen: indices of the images that belong to the split; None for all.
        """
        images = list(self._images.items())
        images = images if chosen is None else [images[index] for index in chosen]
        records = [
            ImageRecord.from_rows(image_id, image.file_name, image.width, image.height, image.rows)
            for image_id, image in images
        ]
        paths = [image.path for _, image in images]
        ids = [[row.annotation_id or 0 for row in image.rows] for _, image in images]
        return CocoSplit(name, list(self.categories.values()), records, paths, cache_bytes, ids)

    def differences(self, test: "CocoReader") -> list[Problem]:
        """What else two files of the same categories do not declare alike."""
        del test
        return []

    def _teaches(self) -> bool:
        """Whether there is something to learn from the objects."""
        return any(image.rows for image in self._images.values())

    def _concerns(self, entry: dict[str, Any]) -> bool:
        """Whether an annotation is of a kind that is wanted."""
        del entry
        return True

    def _bbox(self, entry: dict[str, Any]) -> Any:
        """The box of an annotation."""
        return entry["bbox"]

    def _add(self, row: ObjectRow, entry: dict[str, Any], image_id: int) -> None:
        """Add an object to its image, with what else its annotation tells."""
        del entry
        self._images[image_id].rows.append(row)

    def _report(self, kind: Kind, detail: str, image_id: int | None = None, annotation_id: int | None = None) -> None:
        warning = kind in WARNING_KINDS
        problem = Problem(kind, str(self.path), detail, image_id, annotation_id)
        (self.warnings if warning else self.problems).append(problem)

    def _load(self) -> dict[str, list[Any]] | None:
        """The content of the file, if it has the three lists of COCO's format."""
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError) as error:
            self._report(Kind.FILE, getattr(error, "strerror", None) or str(error))
            return None
        if not isinstance(content, dict):
            self._report(Kind.VALUE, f"expected an object with images, annotations, categories, got {brief(content)}")
            return None
        for key in ("images", "annotations", "categories"):
            if key not in content:
                self._report(Kind.KEY, f"no {key!r} at the top level")
            elif not isinstance(content[key], list):
                self._report(Kind.VALUE, f"{key}: expected a list, got {brief(content[key])}")
        return None if self.problems else content

    def _entries(self, section: str, entries: list[Any], *keys: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The entries of a list that have all the keys, each with how to call it; the others are reported."""
        for index, entry in enumerate(entries):
            where = f"{section}[{index}]"
            if not isinstance(entry, dict):
                self._report(Kind.VALUE, f"{where}: expected an object, got {brief(entry)}")
                continue
            missing = [key for key in keys if key not in entry]
            if missing:
                image_id = whole(entry.get("id" if section == "images" else "image_id"))
                annotation_id = whole(entry.get("id")) if section == "annotations" else None
                self._report(Kind.KEY, f"{where} has no {' and no '.join(map(repr, missing))}", image_id, annotation_id)
                continue
            yield where, entry

    def _read_categories(self, entries: list[Any]) -> None:
        names: dict[int, str] = {}
        before = len(self.problems)
        for where, entry in self._entries("categories", entries, "id", "name"):
            number = whole(entry["id"])
            if number is None:
                self._report(Kind.VALUE, f"{where}: id must be a whole number, got {brief(entry['id'])}")
            elif number in names:
                self._report(Kind.DUPLICATE_CATEGORY, f"{where}: id {number} is already that of {names[number]!r}")
            else:
                names[number] = str(entry["name"])
        self.categories = dict(sorted(names.items()))
        if not entries:
            self._report(Kind.VALUE, "categories: expected at least one, got none")
        self.categories_sound = len(self.problems) == before

    def _read_images(self, entries: list[Any]) -> None:
        self._declared_ids = {whole(entry.get("id")) for entry in entries if isinstance(entry, dict)}
        for where, entry in self._entries("images", entries, "id", "file_name", "width", "height"):
            image_id, width, height = (whole(entry[key]) for key in ("id", "width", "height"))
            file_name = entry["file_name"]
            if image_id is None:
                self._report(Kind.VALUE, f"{where}: id must be a whole number, got {brief(entry['id'])}")
            elif image_id in self._images:
                self._report(Kind.DUPLICATE_IMAGE, f"{where}: {file_name!r} has the id of another image", image_id)
            elif width is None or height is None or width <= 0 or height <= 0:
                size = f"{brief(entry['width'])} x {brief(entry['height'])}"
                self._report(Kind.VALUE, f"{where}: width and height must be positive, got {size}", image_id)
            elif not isinstance(file_name, str) or not file_name:
                self._report(Kind.VALUE, f"{where}: file_name must be a name, got {brief(file_name)}", image_id)
            else:
                path = self._find(file_name)
                self._images[image_id] = _DeclaredImage(file_name, width, height, path)
                self._check_file(image_id, self._images[image_id])

    def _find(self, file_name: str) -> Path:
        """The file of an image: beside the annotation file or in ``images/`` there."""
        beside = self.path.parent / file_name
        return beside if beside.is_file() else self.path.parent / "images" / file_name

    def _check_file(self, image_id: int, image: _DeclaredImage) -> None:
        if not image.path.is_file():
            folder = self.path.parent
            self._report(Kind.MISSING_IMAGE, f"{image.file_name!r} is neither in {folder} nor in its images/", image_id)
            return
        try:
            size = image_size(image.path)
        except UndecodableImageError as error:
            self._report(Kind.UNDECODABLE_IMAGE, f"{image.file_name!r}: {error}", image_id)
            return
        declared = (image.width, image.height)
        if size != declared:
            detail = f"{image.file_name!r} is {size[0]} x {size[1]}, declared {declared[0]} x {declared[1]}"
            if size == declared[::-1]:
                detail += " (pixels are taken as stored, EXIF orientation is not applied)"
            self._report(Kind.IMAGE_SIZE, detail, image_id)

    def _read_annotations(self, entries: list[Any]) -> None:
        labels = {number: label for label, number in enumerate(self.categories)}
        seen: set[int] = set()
        for where, entry in self._entries("annotations", entries, *self.annotation_keys):
            if not self._concerns(entry):
                continue
            annotation_id, image_id, category_id = (whole(entry[key]) for key in ("id", "image_id", "category_id"))
            if annotation_id is None:
                self._report(Kind.VALUE, f"{where}: id must be a whole number, got {brief(entry['id'])}", image_id)
                continue
            if annotation_id in seen:
                self._report(Kind.DUPLICATE_ANNOTATION, f"{where} has the id of another one", image_id, annotation_id)
            seen.add(annotation_id)
            image = None if image_id is None else self._images.get(image_id)
            if image_id is None or image_id not in self._declared_ids:
                detail = f"no image has the id {brief(entry['image_id'])}"
                self._report(Kind.UNKNOWN_IMAGE, detail, image_id, annotation_id)
            label = None if category_id is None else labels.get(category_id)
            if label is None and self.categories_sound:
                detail = f"{brief(entry['category_id'])} is not among the categories"
                self._report(Kind.UNKNOWN_CATEGORY, detail, image_id, annotation_id)
            box = self._read_box(self._bbox(entry), image, image_id, annotation_id)
            if image is not None and image_id is not None and label is not None and box is not None:
                row = ObjectRow(box, label, bool(entry.get("iscrowd", 0)), _area(entry.get("area"), box), annotation_id)
                self._add(row, entry, image_id)

    def _read_box(
        self, bbox: Any, image: _DeclaredImage | None, image_id: int | None, annotation_id: int
    ) -> tuple[float, float, float, float] | None:
        """The box as xyxy inside its image, or None if it cannot be used."""
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value) for value in bbox):
            detail = f"bbox must be four numbers [x, y, width, height], got {brief(bbox)}"
            self._report(Kind.VALUE, detail, image_id, annotation_id)
            return None
        size = None if image is None else (image.width, image.height)
        box, problem = clip_box(bbox, size, self.edge_tolerance)
        if problem is not None:
            kind, reason = problem
            self._report(kind, brief(bbox) + reason, image_id, annotation_id)
        return box


def clip_box(
    bbox: Sequence[float], size: tuple[int, int] | None, tolerance: float = EDGE_TOLERANCE
) -> tuple[tuple[float, float, float, float] | None, tuple[Kind, str] | None]:
    """Return a box inside its image, or what is wrong with it.

    Args:
        bbox: x, y, width and height in pixels.
        size: width and height of the image, None if they are not known.
        tolerance: pixels by which it may reach over the edge.

    Returns:
        The box as xyxy, clipped, or None; and None, or the kind of the problem and what to say of it behind the box.

    Example:
        >>> clip_box([30, 20, 10.5, 5], (40, 30))
        ((30, 20, 40.0, 25), None)
    """
    kind = _wrong_sides(bbox)
    if kind is not None or size is None:
        return None, None if kind is None else (kind, "")
    x1, y1, x2, y2 = bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]
    overhang = max(-x1, -y1, x2 - size[0], y2 - size[1])
    outside = x2 <= 0 or y2 <= 0 or x1 >= size[0] or y1 >= size[1]
    if outside or overhang > tolerance:
        reach = "lies wholly outside" if outside else f"reaches {overhang:.6g} pixels beyond"
        return None, (Kind.OUTSIDE_BOX, f" {reach} the image of {size[0]} x {size[1]}")
    box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
    left, top, right, bottom = _SINGLE.unpack(_SINGLE.pack(*box))
    if left < right and top < bottom:
        return box, None
    return None, (Kind.ZERO_AREA_BOX, " has no area in single precision")


def _wrong_sides(bbox: Sequence[float]) -> Kind | None:
    if not all(map(math.isfinite, bbox)):
        return Kind.NON_FINITE_BOX
    if bbox[2] < 0 or bbox[3] < 0:
        return Kind.NEGATIVE_BOX
    return Kind.ZERO_AREA_BOX if bbox[2] == 0 or bbox[3] == 0 else None


def _area(declared: Any, box: tuple[float, float, float, float]) -> float:
    """The declared area of an object (of its mask, in COCO), or that of its box where none is given."""
    if is_number(declared) and math.isfinite(declared) and declared > 0:
        return float(declared)
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def _compare_categories(train: CocoReader, test: CocoReader) -> list[Problem]:
    """Every category that the two files do not declare alike."""
    problems = []
    for number in sorted(train.categories.keys() | test.categories.keys()):
        here, there = train.categories.get(number), test.categories.get(number)
        if here != there:
            detail = f"id {number} is {_declared(here)} in {train.path.name}, {_declared(there)} in {test.path.name}"
            problems.append(Problem(Kind.CATEGORIES, str(test.path), detail))
    return problems


def _declared(name: str | None) -> str:
    return "not declared" if name is None else repr(name)


def _shared_images(train: CocoSplit, test: CocoSplit) -> list[Problem]:
    """Every file that is trained on and scored on."""
    trained = {path.resolve() for path in train.paths}
    return [
        Problem(Kind.SHARED_IMAGE, str(path), "trained on and scored on: the scores will flatter", record.image_id)
        for record, path in zip(test.records, test.paths, strict=True)
        if path.resolve() in trained
    ]


def load_coco(
    train: Path, test: Path, *, name: str, cache_bytes: int = CACHE_BYTES, reader: type[CocoReader] = CocoReader
) -> DetectionData:
    """Read a training and a test split from two annotation files in COCO's format.

    Category ids become labels 0 to C - 1 in the order of the ids. Images are looked for beside their annotation file
    and in ``images/`` there; of each only the header is read here, the pixels when they are asked for.

    Args:
        train: annotation file of the images to train on.
        test: annotation file of the images to score on.
        name: how the data is called in tables and reports.
        cache_bytes: how much the decoded images of each split may occupy in memory.
        reader: what is read of them.

    Returns:
        The data, with a warning for each box that was left out and each image that is in both splits.

    Raises:
        DataError: if anything else is wrong with either file or its images: all of it, at once.
    """
    readers = reader(train), reader(test)
    problems = [problem for read in readers for problem in read.problems]
    if all(read.categories_sound for read in readers):
        problems += _compare_categories(*readers) or readers[0].differences(readers[1])
    if problems:
        raise DataError(problems)
    splits = readers[0].split("train", cache_bytes), readers[1].split("test", cache_bytes)
    warnings = [problem for read in readers for problem in read.warnings] + _shared_images(*splits)
    return DetectionData(name, *splits, splits[0].class_names, fingerprint(splits), warnings)


def load_whole_coco(
    path: Path, *, name: str, cache_bytes: int = CACHE_BYTES, reader: type[CocoReader] = CocoReader
) -> DetectionData:
    """Read one annotation file in COCO's format and split its images by a hash of their names, one in five to test.

    Args:
        path: the annotation file.
        name: how the data is called in tables and reports.
        cache_bytes: how much the decoded images of each split may occupy in memory.
        reader: what is read of it.

    Returns:
        The data; the split is always the same.

    Raises:
        DataError: if there is anything wrong with the file or its images.
    """
    read = reader(path)
    if not read.problems and len(read.file_names) < 2:
        read.problems.append(Problem(Kind.NO_OBJECTS, str(path), "one image cannot be split into train and test"))
    if read.problems:
        raise DataError(read.problems)
    chosen = split_by_name(read.file_names)
    splits = read.split("train", cache_bytes, chosen[0]), read.split("test", cache_bytes, chosen[1])
    return DetectionData(name, *splits, splits[0].class_names, fingerprint(splits), read.warnings)
