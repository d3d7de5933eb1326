"""A data set that a network learns in a few steps: bright squares and dark ones on grey."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lossatlas.lab.data import DetectionData, DetectionSplit, ImageRecord
from lossatlas.lab.data.dataset import ObjectRow, fingerprint

CLASS_NAMES = ("bright", "dark")
LEVELS = (230, 20)


class Squares(DetectionSplit):
    """Images of 64 x 96 pixels; the first of them has no object."""

    def __init__(self, name: str, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.images: list[Tensor] = []
        records = []
        for number in range(count):
            image = torch.full((3, 64, 96), 128, dtype=torch.uint8)
            rows = []
            for place in range(number % 3):
                side = int(rng.integers(14, 30))
                left, top = 32 * place + int(rng.integers(0, 32 - side + 1)), int(rng.integers(0, 64 - side + 1))
                label = int(rng.integers(2))
                image[:, top : top + side, left : left + side] = LEVELS[label]
                box = (float(left), float(top), float(left + side), float(top + side))
                rows.append(ObjectRow(box, label, False, float(side * side)))
            self.images.append(image)
            records.append(ImageRecord.from_rows(10 + number, f"{name}{number}.png", 96, 64, rows))
        super().__init__(name, CLASS_NAMES, records)

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def image_digest(self, index: int) -> bytes:
        return self.images[index].numpy().tobytes()


class Subset(DetectionSplit):
    """Some images of another split."""

    def __init__(self, split: DetectionSplit, indices: Sequence[int]) -> None:
        super().__init__(split.name, split.class_names, [split.records[index] for index in indices])
        self._split, self._indices = split, tuple(indices)

    def image(self, index: int) -> Tensor:
        return self._split.image(self._indices[index])

    def image_digest(self, index: int) -> bytes:
        return self._split.image_digest(self._indices[index])


def squares_data(train: DetectionSplit | None = None, test: DetectionSplit | None = None) -> DetectionData:
    splits = train or Squares("train", 7, seed=1), test or Squares("test", 5, seed=2)
    return DetectionData("squares", *splits, CLASS_NAMES, fingerprint(splits))
