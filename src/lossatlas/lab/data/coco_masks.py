"""Masks in COCO's JSON format, as the class of every pixel.

Class 0 is the background, and the categories follow in the order of their ids. An object's ``segmentation`` is a list
of polygons or a run-length encoding, compressed or not. Where objects overlap, the smaller one is seen. A crowd region
is void where no object is; without a segmentation its whole box is. Boxes are not needed otherwise.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from faster_coco_eval import mask as rle_codec
from torch import Tensor

from lossatlas.lab.data.coco import CocoReader, load_coco, load_whole_coco
from lossatlas.lab.data.dataset import ImageInfo, ObjectRow
from lossatlas.lab.data.images import CACHE_BYTES
from lossatlas.lab.data.problems import Kind
from lossatlas.lab.data.segmentation import VOID, FileSegmentationSplit, SegmentationData, check_content
from lossatlas.lab.data.values import brief, is_number, whole

BACKGROUND = "background"


class _Segment(NamedTuple):
    """The pixels of an object or of a crowd region."""

    label: int  # as the mask holds it: from 1, or VOID
    area: int
    rle: dict[str, Any]


class MaskReader(CocoReader):
    """Reads one annotation file with masks and collects everything that is wrong with it.

    Args:
        path: the annotation file. Its images lie beside it or in ``images/``.
    """

    annotation_keys = ("id", "image_id", "category_id")
    edge_tolerance = math.inf
    needed = "a single mask"

    def __init__(self, path: Path) -> None:
        self._segments: dict[int, list[_Segment]] = {}
        super().__init__(path)

    def split(self, name: str, cache_bytes: int = CACHE_BYTES, chosen: Sequence[int] | None = None) -> Any:
        """The split that was read, for a file without problems."""
        base = super().split(name, cache_bytes, chosen)
        infos = [ImageInfo(record.image_id, record.file_name, record.width, record.height) for record in base.records]
        segments = [self._segments.get(info.image_id, []) for info in infos]
        background = "_background_" if BACKGROUND in base.class_names else BACKGROUND
        return CocoMaskSplit(name, [background, *base.class_names], infos, base.paths, segments, cache_bytes)

    def _bbox(self, entry: dict[str, Any]) -> Any:
        """The box of a crowd region that has no mask; of the others any box will do."""
        return entry.get("bbox") if _maskless_crowd(entry) else [0, 0, 1, 1]

    def _add(self, row: ObjectRow, entry: dict[str, Any], image_id: int) -> None:
        image = self._images[image_id]
        segmentation = entry.get("segmentation")
        if _maskless_crowd(entry):
            x1, y1, x2, y2 = row.box
            segmentation = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        try:
            rle = encode(segmentation, image.height, image.width)
        except ValueError as error:
            kind = Kind.MASK if segmentation else Kind.MISSING_MASK
            self._report(kind, str(error), image_id, whole(entry["id"]))
            return
        super()._add(row, entry, image_id)
        label = VOID if row.iscrowd else row.label + 1
        self._segments.setdefault(image_id, []).append(_Segment(label, int(rle_codec.area(rle)), rle))


def _maskless_crowd(entry: dict[str, Any]) -> bool:
    return bool(entry.get("iscrowd", 0)) and not entry.get("segmentation")


def encode(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return the ``segmentation`` of an annotation as one compressed run-length encoding.

    Args:
        segmentation: polygons or a run-length encoding, as COCO's format has them.
        height: of the image.
        width: of the image.

    Raises:
        ValueError: anything else; the message says what is wrong.

    Example:
        >>> rle = encode([[1, 1, 3, 1, 3, 3, 1, 3]], height=4, width=5)
        >>> int(rle_codec.decode(rle).sum())
        4
    """
    if not segmentation:
        raise ValueError("no segmentation")
    if isinstance(segmentation, list):
        for polygon in segmentation:
            sound = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            if not sound or not all(is_number(value) and math.isfinite(value) for value in polygon):
                raise ValueError(f"a polygon must be at least three points x, y, got {brief(polygon)}")
        parts = rle_codec.frPyObjects([[float(value) for value in polygon] for polygon in segmentation], height, width)
        merged: dict[str, Any] = rle_codec.merge(parts)
        return merged
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError(f"segmentation must be polygons, or an object with size and counts, got {brief(segmentation)}")
    if segmentation["size"] != [height, width]:
        raise ValueError(f"size of the mask is {brief(segmentation['size'])}, its image's [{height}, {width}]")
    return _check_runs(segmentation["counts"], height, width)


def _check_runs(counts: Any, height: int, width: int) -> dict[str, Any]:
    rle: dict[str, Any] = {"size": [height, width], "counts": counts}
    if isinstance(counts, list):
        if not all(is_number(run) and run == int(run) and run >= 0 for run in counts) or sum(counts) != height * width:
            raise ValueError(f"counts must be runs of {height * width} pixels in all, got {brief(counts)}")
        compressed: dict[str, Any] = rle_codec.frPyObjects(rle, height, width)
        return compressed
    if not isinstance(counts, str):
        raise ValueError(f"counts must be a list or a text, got {brief(counts)}")
    try:
        rle_codec.decode(rle)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"counts {brief(counts)}: {error}") from error
    return rle


class CocoMaskSplit(FileSegmentationSplit):
    """Images with masks composed of the objects of an annotation file.

    Args:
        name: ``"train"`` or ``"test"``.
        class_names: the background and the categories.
        records: one for every image.
        paths: the file of every image.
        segments: the objects of every image.
        cache_bytes: how much decoded images may occupy in memory; the masks may occupy as much.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        records: Sequence[ImageInfo],
        paths: Sequence[Path],
        segments: Sequence[Sequence[_Segment]],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(name, class_names, records, paths, cache_bytes)
        # Crowd regions first, then from large to small: what is drawn later is seen.
        self._segments = [sorted(own, key=lambda one: (one.label != VOID, -one.area)) for own in segments]

    @property
    def shown(self) -> set[int]:
        """The classes that occur in any image."""
        labels = {one.label for own in self._segments for one in own if one.area}
        return labels - {VOID} | {0}

    def read_mask(self, index: int) -> Tensor:
        """Draw the objects of an image."""
        record = self.records[index]
        mask = np.zeros((record.height, record.width), dtype=np.int16)
        for segment in self._segments[index]:
            mask[rle_codec.decode(segment.rle).astype(bool)] = segment.label
        return torch.from_numpy(mask)

    def mask_digest(self, index: int) -> bytes:
        """Hash of the objects of an image."""
        return hashlib.sha256(repr(self._segments[index]).encode()).digest()


def load_coco_masks(train: Path, test: Path | None = None, *, name: str) -> SegmentationData:
    """Read the classes of all pixels from annotation files in COCO's format.

    Args:
        train: annotation file of the images to train on, or of all.
        test: annotation file of the images to score on; None splits those of `train` by a hash of their names, one in
            five to test.
        name: how the data is called in tables and reports.

    Returns:
        The data, with a warning about classes that no image shows.

    Raises:
        DataError: if anything else is wrong with either file or its images: all of it, at once.
    """
    data: Any
    if test is None:
        data = load_whole_coco(train, name=name, reader=MaskReader)
    else:
        data = load_coco(train, test, name=name, reader=MaskReader)
    content = check_content(str(train), data.class_names, data.train.shown, data.test.shown)
    masks: SegmentationData = dataclasses.replace(data, warnings=[*data.warnings, *content])
    return masks
