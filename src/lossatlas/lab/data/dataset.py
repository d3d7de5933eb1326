"""The data a comparison trains and scores on: images with their ground truth, in two splits."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.lab.data.problems import Problem


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth.

    Args:
        image: (3, H, W) uint8, red, green, blue. It may be shared with a cache: do not change it in place.
        target: what the split's `Split.target` says; for detection ``boxes`` (G, 4) float32 xyxy in pixels, ``labels``
            (G,) int64 from 0, ``iscrowd`` (G,) bool and, where the split was asked for them, ``masks`` (G, H, W) bool.
        image_id: the id of the image in its split.
        file_name: the name of the image in its split.
    """

    image: Tensor
    target: dict[str, Tensor]
    image_id: int
    file_name: str


class ObjectRow(NamedTuple):
    """One object of an image, in plain Python numbers.

    Args:
        box: xyxy in pixels.
        label: class from 0.
        iscrowd: whether the box holds a group that was not told apart.
        area: square pixels.
        annotation_id: of the object in its file; None where there is no file.
    """

    box: tuple[float, float, float, float]
    label: int
    iscrowd: bool
    area: float
    annotation_id: int | None = None


@dataclass(frozen=True)
class ImageInfo:
    """What every task knows of an image without decoding it.

    Args:
        image_id: the id of the image in its split.
        file_name: the name of the image in its split.
        width: columns of the image.
        height: rows of the image.
    """

    image_id: int
    file_name: str
    width: int
    height: int

    def content(self) -> Iterable[bytes]:
        """The ground truth, for `fingerprint`; a task whose records hold some adds it."""
        return ()


@dataclass(frozen=True)
class ImageRecord(ImageInfo):
    """What is known of an image and its objects without decoding it.

    Args:
        boxes: (G, 4) float32 xyxy in pixels.
        labels: (G,) int64 from 0.
        iscrowd: (G,) bool.
        areas: (G,) float32, square pixels: of the object's mask where that is known, otherwise of its box.
    """

    boxes: Tensor
    labels: Tensor
    iscrowd: Tensor
    areas: Tensor

    def content(self) -> Iterable[bytes]:
        """The objects."""
        return [values.numpy().tobytes() for values in (self.boxes, self.labels, self.iscrowd, self.areas)]

    @classmethod
    def from_rows(
        cls, image_id: int, file_name: str, width: int, height: int, rows: Sequence[ObjectRow]
    ) -> "ImageRecord":
        """The record of an image with these objects, none included.

        Example:
            >>> ImageRecord.from_rows(1, "empty.png", 320, 240, []).boxes.shape
            torch.Size([0, 4])
        """
        return cls(
            image_id,
            file_name,
            width,
            height,
            boxes=torch.tensor([row.box for row in rows], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([row.label for row in rows], dtype=torch.int64),
            iscrowd=torch.tensor([row.iscrowd for row in rows], dtype=torch.bool),
            areas=torch.tensor([row.area for row in rows], dtype=torch.float32),
        )


Record_co = TypeVar("Record_co", bound=ImageInfo, covariant=True)


class Split(ABC, Generic[Record_co]):
    """One split of a data set: a sequence of samples.

    Args:
        name: ``"train"`` or ``"test"``.
        class_names: the name of every label.
        records: one for every image.
    """

    def __init__(self, name: str, class_names: Sequence[str], records: Sequence[Record_co]) -> None:
        self.name = name
        self.class_names = tuple(class_names)
        self.records = tuple(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        return Sample(self.image(index), self.target(index), record.image_id, record.file_name)

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Pixels of an image, (3, H, W) uint8."""

    @abstractmethod
    def image_digest(self, index: int) -> bytes:
        """Bytes that change when the pixels of an image change, for `fingerprint`."""

    @abstractmethod
    def target(self, index: int) -> dict[str, Tensor]:
        """Ground truth of an image, as in `Sample`, without decoding its pixels."""


class DetectionSplit(Split[ImageRecord]):
    """One split of a detection data set."""

    def target(self, index: int) -> dict[str, Tensor]:
        """Ground truth of an image, as in `Sample`, without decoding its pixels."""
        record = self.records[index]
        return {"boxes": record.boxes, "labels": record.labels, "iscrowd": record.iscrowd}

    def annotation_ids(self, index: int) -> Sequence[int]:
        """What the objects of an image are called where the data comes from; here the places in the image, from 0."""
        return range(len(self.records[index].labels))

    @property
    def coco(self) -> dict[str, list[dict[str, Any]]]:
        """Ground truth in COCO's format, for its evaluators.

        Category ids are the labels, 0 to C - 1. Annotations are numbered anew from 1, in the order of the images:
        COCO's own evaluator takes an annotation of id 0 for "no match".
        """
        annotations: list[dict[str, Any]] = []
        for record in self.records:
            rows = zip(
                convert(record.boxes, "xyxy", "xywh").tolist(),
                record.labels.tolist(),
                record.areas.tolist(),
                record.iscrowd.tolist(),
                strict=True,
            )
            annotations.extend(
                {
                    "id": number,
                    "image_id": record.image_id,
                    "category_id": label,
                    "bbox": bbox,
                    "area": area,
                    "iscrowd": int(crowd),
                }
                for number, (bbox, label, area, crowd) in enumerate(rows, start=len(annotations) + 1)
            )
        return {
            "images": [
                {"id": record.image_id, "file_name": record.file_name, "width": record.width, "height": record.height}
                for record in self.records
            ],
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(self.class_names)],
        }


Split_co = TypeVar("Split_co", bound=Split[Any], covariant=True)


@dataclass(frozen=True)
class Data(Generic[Split_co]):
    """A data set: what to train on, what to test on.

    Args:
        name: how the data is called in tables and reports.
        train: the images to train on.
        test: the images to score on.
        class_names: the name of every label.
        fingerprint: hash of the content, the same wherever the data lies, so that a resumed comparison knows its data.
        warnings: what is wrong with the data but does not prevent training.
        flips: whether a mirrored image is as good as the original; digits, for one, have no mirrored classes.
    """

    name: str
    train: Split_co
    test: Split_co
    class_names: tuple[str, ...]
    fingerprint: str
    warnings: list[Problem] = field(default_factory=list)
    flips: bool = True


DetectionData: TypeAlias = Data[DetectionSplit]
"""A detection data set."""


def fingerprint(splits: Iterable[Split[ImageInfo]]) -> str:
    """Hash what training and scoring depend on: class names, image names and sizes, ground truth, pixels.

    Args:
        splits: the splits of a data set, in order.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr((split.name, split.class_names, len(split))).encode())
        for index, record in enumerate(split.records):
            digest.update(repr((record.image_id, record.file_name, record.width, record.height)).encode())
            for part in record.content():
                digest.update(part)
            digest.update(split.image_digest(index))
    return digest.hexdigest()
