"""Keypoints in COCO's JSON format, checked before anything is trained on them.

Only annotations of categories that declare ``keypoints`` are read, so that one file may hold other objects as well.
An object without a labelled keypoint, or without any mention of keypoints, is ordinary: it says where there is
something that nobody has labelled. Keypoints that are labelled outside their image are taken as not labelled, with a
warning. Boxes are clipped to the image however far they reach, as many tools draw them around keypoints with a margin;
where there is none it is drawn around the labelled keypoints.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from lossatlas.lab.data.coco import EDGE_TOLERANCE, CocoReader, CocoSplit, load_coco, load_whole_coco
from lossatlas.lab.data.dataset import DetectionData, ObjectRow
from lossatlas.lab.data.images import CACHE_BYTES
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit
from lossatlas.lab.data.problems import Kind, Problem
from lossatlas.lab.data.skeleton import read_skeleton
from lossatlas.lab.data.values import brief, is_number, whole
from lossatlas.targets.skeletons import Skeleton

_Keypoints: TypeAlias = list[tuple[float, float, float]]


class KeypointReader(CocoReader):
    """Reads one annotation file with keypoints and collects everything that is wrong with it.

    Args:
        path: the annotation file. Its images lie beside it or in ``images/``.

    Attributes:
        skeleton: of all categories with keypoints; they have to agree.
    """

    annotation_keys = ("id", "image_id", "category_id")
    edge_tolerance = math.inf
    needed = "a single labelled keypoint"

    def __init__(self, path: Path) -> None:
        self.skeleton: Skeleton | None = None
        self._others: set[int | None] = set()  # ids of the categories without keypoints
        self._keypoints: dict[int, list[_Keypoints]] = {}
        super().__init__(path)

    def split(self, name: str, cache_bytes: int = CACHE_BYTES, chosen: Sequence[int] | None = None) -> "CocoPoseSplit":
        """The split that was read, for a file without problems."""
        assert self.skeleton is not None
        return CocoPoseSplit(super().split(name, cache_bytes, chosen), self._keypoints, self.skeleton, cache_bytes)

    def differences(self, test: CocoReader) -> list[Problem]:
        """Say whether another file declares other keypoints."""
        if isinstance(test, KeypointReader) and test.skeleton != self.skeleton:
            return [Problem(Kind.SKELETON, str(test.path), f"other names, limbs or sigmas than in {self.path.name}")]
        return []

    def _read_categories(self, entries: list[Any]) -> None:
        with_keypoints = [entry for entry in entries if not isinstance(entry, dict) or "keypoints" in entry]
        self._others = {whole(entry.get("id")) for entry in entries if entry not in with_keypoints}
        if entries and not with_keypoints:
            self._report(Kind.SKELETON, f"none of {len(entries)} categories declares keypoints")
        super()._read_categories(with_keypoints or entries)
        for entry in with_keypoints:
            if isinstance(entry, dict):
                self._read_skeleton(entry)

    def _read_skeleton(self, entry: dict[str, Any]) -> None:
        name = brief(entry.get("name"))
        try:
            skeleton = read_skeleton(entry)
        except ValueError as error:
            self._report(Kind.SKELETON, f"category {name}: {error}")
            return
        if self.skeleton is not None and replace(skeleton, name=self.skeleton.name) != self.skeleton:
            self._report(Kind.SKELETON, f"category {name} has other keypoints than the category before it")
        self.skeleton = self.skeleton or skeleton

    def _teaches(self) -> bool:
        return any(
            visibility > 0 and not row.iscrowd
            for image_id, people in self._keypoints.items()
            for row, keypoints in zip(self._images[image_id].rows, people, strict=True)
            for _, _, visibility in keypoints
        )

    def _concerns(self, entry: dict[str, Any]) -> bool:
        return whole(entry["category_id"]) not in self._others

    def _bbox(self, entry: dict[str, Any]) -> Any:
        """The box of an annotation, or one around its keypoints, with half a pixel to spare, if it has none."""
        if entry.get("bbox") is not None:
            return entry["bbox"]
        values = entry.get("keypoints")
        if not isinstance(values, list) or not all(is_number(value) for value in values):
            return [0, 0, 0, 0]
        labelled = [index for index, visibility in enumerate(values[2::3]) if visibility > 0]
        if not labelled:
            return [0, 0, 0, 0]
        (left, right), (top, bottom) = (
            (min(place) - 0.5, max(place) + 0.5)
            for place in ([values[3 * index + axis] for index in labelled] for axis in (0, 1))
        )
        return [left, top, right - left, bottom - top]

    def _add(self, row: ObjectRow, entry: dict[str, Any], image_id: int) -> None:
        if self.skeleton is None:
            return
        keypoints = self._read_keypoints(entry.get("keypoints"), self.skeleton, image_id, whole(entry["id"]))
        if keypoints is not None:
            super()._add(row, entry, image_id)
            self._keypoints.setdefault(image_id, []).append(keypoints)

    def _read_keypoints(
        self, values: Any, skeleton: Skeleton, image_id: int, annotation_id: int | None
    ) -> _Keypoints | None:
        """The keypoints of an object as x, y, visibility, or None if they cannot be used."""
        count = len(skeleton)
        if values is None:
            return [(0.0, 0.0, 0.0)] * count
        if not isinstance(values, list) or len(values) != 3 * count or not all(map(is_number, values)):
            got = f"{len(values)} values {brief(values)}" if isinstance(values, list) else brief(values)
            detail = f"keypoints: expected {3 * count} numbers, x y v of each of {count}, got {got}"
            self._report(Kind.VALUE, detail, image_id, annotation_id)
            return None
        triples = list(zip(values[::3], values[1::3], values[2::3], strict=True))
        kept: _Keypoints = []
        for name, (x, y, visibility) in zip(skeleton.keypoints, triples, strict=True):
            if visibility not in (0, 1, 2):
                detail = f"keypoint {name!r}: v must be 0 (not labelled), 1 (hidden) or 2 (seen), got {visibility}"
                self._report(Kind.VALUE, detail, image_id, annotation_id)
                return None
            if visibility > 0 and not (math.isfinite(x) and math.isfinite(y)):
                self._report(Kind.VALUE, f"keypoint {name!r} is at {x}, {y}", image_id, annotation_id)
                return None
            outside = visibility > 0 and self._is_outside(x, y, image_id)
            if outside:
                detail = f"{name!r} at {x:g}, {y:g}"
                self._report(Kind.OUTSIDE_KEYPOINT, detail, image_id, annotation_id)
            kept.append((0.0, 0.0, 0.0) if outside else (float(x), float(y), float(visibility)))
        return kept

    def _is_outside(self, x: float, y: float, image_id: int) -> bool:
        image = self._images[image_id]
        return max(-x, -y, x - image.width, y - image.height) > EDGE_TOLERANCE


class CocoPoseSplit(PoseSplit, CocoSplit):
    """Images with keypoints, decoded from their files when they are asked for.

    Args:
        base: the images with their boxes.
        keypoints: x, y and visibility of the keypoints of every object, by image id.
        skeleton: what the keypoints are.
        cache_bytes: how much decoded images may occupy in memory.
    """

    def __init__(
        self, base: CocoSplit, keypoints: Mapping[int, Sequence[_Keypoints]], skeleton: Skeleton, cache_bytes: int
    ) -> None:
        records = [PoseRecord.of(record, keypoints.get(record.image_id, []), len(skeleton)) for record in base.records]
        super().__init__(base.name, base.class_names, records, base.paths, cache_bytes)
        self.skeleton = skeleton


def _with_flips(data: DetectionData) -> PoseData:
    """The data, of which images are not mirrored where nobody knows what becomes of their keypoints."""
    found = cast(PoseData, data)
    return replace(found, flips=bool(found.train.skeleton.mirrored))


def load_coco_keypoints(train: Path, test: Path, *, name: str) -> PoseData:
    """Read a training and a test split with keypoints from two annotation files in COCO's format.

    Args:
        train: annotation file of the images to train on.
        test: annotation file of the images to score on.
        name: how the data is called in tables and reports.

    Returns:
        The data; each split has a ``skeleton``.

    Raises:
        DataError: if there is anything wrong with either file or its images: all of it, at once.
    """
    return _with_flips(load_coco(train, test, name=name, reader=KeypointReader))


def load_whole_coco_keypoints(path: Path, *, name: str) -> PoseData:
    """Read one annotation file with keypoints and split its images by a hash of their names, one in five to test.

    Args:
        path: the annotation file.
        name: how the data is called in tables and reports.

    Returns:
        The data; each split has a ``skeleton``.

    Raises:
        DataError: if there is anything wrong with the file or its images.
    """
    return _with_flips(load_whole_coco(path, name=name, reader=KeypointReader))
