"""The class of every pixel as rows of a JSON file: COCO's result format, a run-length encoding for each class."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

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


def decode_rows(rows: Iterable[Mapping[str, Any]], split: SegmentationSplit) -> list[ClassMap]:
    """Return the class map of every image of a split from the rows of all of them."""
    places = {record.image_id: index for index, record in enumerate(split.records)}
    maps = [np.zeros((record.height, record.width), dtype=np.int16) for record in split.records]
    for row in rows:
        maps[places[row["image_id"]]][rle_codec.decode(row["segmentation"]).astype(bool)] = row["category_id"]
    return maps
