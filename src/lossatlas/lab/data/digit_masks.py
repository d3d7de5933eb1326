"""The built-in data with a class for every pixel: the digit scenes, their ink and what lies behind it."""

import torch
from torch import Tensor

from lossatlas.lab.data.dataset import Data, ImageInfo, fingerprint
from lossatlas.lab.data.digits import DigitSplit, load_digit_scenes
from lossatlas.lab.data.segmentation import SegmentationData, SegmentationSplit

DIGIT_NAMES = ("background", *map(str, range(10)))
INK_NAMES = ("background", "ink")


class DigitMaskSplit(SegmentationSplit):
    """Composed scenes, held in memory.

    Args:
        scenes: the scenes with their digits.
        binary: whether all digits are one class.
    """

    def __init__(self, scenes: DigitSplit, binary: bool) -> None:
        records = [ImageInfo(one.image_id, one.file_name, one.width, one.height) for one in scenes.records]
        super().__init__(scenes.name, INK_NAMES if binary else DIGIT_NAMES, records)
        self._scenes = scenes
        self._binary = binary

    def image(self, index: int) -> Tensor:
        """Pixels of a scene, (3, H, W) uint8."""
        return self._scenes.image(index)

    def mask(self, index: int) -> Tensor:
        """The class of every pixel of a scene: that of the digit that is seen there."""
        labels = self._scenes.records[index].labels.to(torch.int16) + 1
        classes = torch.ones_like(labels) if self._binary else labels
        return torch.cat((classes.new_zeros(1), classes))[self._scenes.instances[index].long()]

    def image_digest(self, index: int) -> bytes:
        """The pixels themselves."""
        return self._scenes.image_digest(index) + self.mask(index).numpy().tobytes()


def load_digit_masks(*, binary: bool = False, train_scenes: int = 600, test_scenes: int = 100) -> SegmentationData:
    """Compose the built-in segmentation set: handwritten digits on photographs.

    Args:
        binary: whether there are two classes, background and ink, and not the background and ten digits.
        train_scenes: number of scenes to train on.
        test_scenes: number of scenes to score on.

    Returns:
        The data. Scene k is the same however many there are, and the one of `load_digit_scenes`.

    Example:
        >>> data = load_digit_masks(train_scenes=1, test_scenes=1)
        >>> data.train[0].target["mask"].shape, len(data.class_names)
        (torch.Size([128, 128]), 11)
    """
    scenes = load_digit_scenes(train_scenes=train_scenes, test_scenes=test_scenes)
    assert isinstance(scenes.train, DigitSplit)
    assert isinstance(scenes.test, DigitSplit)
    train, test = DigitMaskSplit(scenes.train, binary), DigitMaskSplit(scenes.test, binary)
    name = "digits-binary" if binary else "digits"
    return Data(name, train, test, train.class_names, fingerprint((train, test)), flips=binary)
