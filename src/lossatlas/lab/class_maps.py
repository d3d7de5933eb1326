"""The class of every pixel as rows of a JSON file: COCO's result format, a run-length encoding for each class."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from faster_coco_eval import mask as rle_codec
from numpy.typing import NDArray

from lossatlas.lab.data.segmentation import SegmentationSplit

ClassMap: TypeAlias = NDArray[np.int16]


def encode_rows(classes: ClassMap, image_id: int) -> list[dict[str, Any]]:
    """Write a class map as one row for each class but the first, which is wherever no other is.

    Args:
        classes: (H, W) classes from 0.
        image_id: id of the image in its split.

    Example:
        >>> encode_rows(np.array([[0, 2], [0, 2]], dtype=np.int16), image_id=7)
        [{'image_id': 7, 'category_id': 2, 'segmentation': {'size': [2, 2], 'counts': '22'}}]
    """
    rows = []
    for label in np.unique(classes).tolist():
        if label > 0:
            rle = rle_codec.encode(np.asfortranarray(classes == label, dtype=np.uint8))
            segmentation = {"size": list(classes.shape), "counts": rle["counts"].decode("ascii")}
            rows.append({"image_id": image_id, "category_id": label, "segmentation": segmentation})
    return rows


class ClassMaps(Sequence[ClassMap]):
    """The class maps of the images of a split, decoded when they are asked for.

    Args:
        rows: of all images, as `encode_rows` makes them.
        split: the images.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], split: SegmentationSplit) -> None:
        self._sizes = [(record.height, record.width) for record in split.records]
        places = {record.image_id: index for index, record in enumerate(split.records)}
        self._rows: list[list[Mapping[str, Any]]] = [[] for _ in self._sizes]
        for row in rows:
            self._rows[places[row["image_id"]]].append(row)

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> ClassMap: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClassMap]: ...
    def __getitem__(self, index: int | slice) -> ClassMap | list[ClassMap]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        classes = np.zeros(self._sizes[index], dtype=np.int16)
        for row in self._rows[index]:
            classes[rle_codec.decode(row["segmentation"]).astype(bool)] = row["category_id"]
        return classes
