"""A segmentation set that a network learns in a few steps: bright and dark squares on grey, a class for each."""

import numpy as np
import torch
from torch import Tensor

from lossatlas.lab.data import Data, ImageInfo, SegmentationData, SegmentationSplit
from lossatlas.lab.data.dataset import fingerprint
from lossatlas.lab.data.segmentation import VOID

CLASS_NAMES = ("background", "bright", "dark")


class Blobs(SegmentationSplit):
    """Images of 32 x 48 pixels; the first of them shows nothing, the second has a void stripe."""

    def __init__(self, name: str, count: int, seed: int, classes: int) -> None:
        rng = np.random.default_rng(seed)
        self.images = torch.full((count, 3, 32, 48), 128, dtype=torch.uint8)
        self.masks = torch.zeros(count, 32, 48, dtype=torch.int16)
        for number in range(1, count):
            for place in range(2):
                side, label = int(rng.integers(8, 20)), int(rng.integers(1, classes))
                left, top = 24 * place + int(rng.integers(0, 24 - side + 1)), int(rng.integers(0, 32 - side + 1))
                self.images[number, :, top : top + side, left : left + side] = (0, 230, 20)[label]
                self.masks[number, top : top + side, left : left + side] = label
        self.masks[1:2, :3] = VOID
        records = [ImageInfo(10 + number, f"{name}{number}.png", 48, 32) for number in range(count)]
        super().__init__(name, CLASS_NAMES[:classes], records)

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def mask(self, index: int) -> Tensor:
        return self.masks[index]

    def image_digest(self, index: int) -> bytes:
        return self.images[index].numpy().tobytes() + self.masks[index].numpy().tobytes()


def blobs_data(classes: int = 3) -> SegmentationData:
    splits = Blobs("train", 6, 1, classes), Blobs("test", 4, 2, classes)
    return Data("blobs", *splits, splits[0].class_names, fingerprint(splits))
