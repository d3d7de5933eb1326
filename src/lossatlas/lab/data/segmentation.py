"""Segmentation data: images with the class of every pixel, in two splits."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from lossatlas.lab.data.dataset import Data, ImageInfo, Split
from lossatlas.lab.data.images import CACHE_BYTES, ImageCache, ImageFiles
from lossatlas.lab.data.problems import DataError, Kind, Problem

VOID = -1
"""The class of a pixel that is not known: it is neither trained on nor scored."""


class SegmentationSplit(Split[ImageInfo]):
    """One split of a segmentation data set; the first class is the background where there is one."""

    def target(self, index: int) -> dict[str, Tensor]:
        """Ground truth of an image: ``mask``, as `mask` returns it."""
        return {"mask": self.mask(index)}

    @abstractmethod
    def mask(self, index: int) -> Tensor:
        """The class of every pixel of an image, (H, W) int16 from 0, or `VOID`; not to be changed in place."""


SegmentationData: TypeAlias = Data[SegmentationSplit]
"""A segmentation data set."""


class FileSegmentationSplit(SegmentationSplit):
    """Images and masks that are read when they are asked for.

    Args:
        name: ``"train"`` or ``"test"``.
        class_names: the name of every class.
        records: one for every image.
        paths: the file of every image.
        cache_bytes: how much decoded images may occupy in memory; the masks may occupy as much.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        records: Sequence[ImageInfo],
        paths: Sequence[Path],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__(name, class_names, records)
        self.files = ImageFiles(paths, [record.image_id for record in records], cache_bytes)
        self._masks = ImageCache(cache_bytes)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file of every image."""
        return self.files.paths

    def image(self, index: int) -> Tensor:
        """Pixels of an image, (3, H, W) uint8; a file that cannot be decoded raises `DataError`."""
        return self.files[index]

    def mask(self, index: int) -> Tensor:
        """The class of every pixel of an image, from the cache if it is there."""
        path = self.paths[index]
        mask = self._masks.get(path)
        if mask is None:
            mask = self.read_mask(index)
            self._masks.add(path, mask)
        return mask

    @abstractmethod
    def read_mask(self, index: int) -> Tensor:
        """Read or compose the mask of an image."""

    def image_digest(self, index: int) -> bytes:
        """Bytes that change when the file of an image or its mask changes."""
        return self.files.digest(index) + self.mask_digest(index)

    @abstractmethod
    def mask_digest(self, index: int) -> bytes:
        """Bytes that change when a mask changes."""


def check_content(
    file: str, class_names: Sequence[str], train: Collection[int], test: Collection[int]
) -> list[Problem]:
    """Check that there is something to learn from and to score against.

    Args:
        file: what to name in a problem.
        class_names: the name of every class.
        train: the classes that the images to train on show.
        test: the classes that the images to score on show.

    Returns:
        A warning for each split that lacks a class.

    Raises:
        DataError: a split that shows fewer than two classes.
    """
    shown = {"train": train, "test": test}
    poor = [
        Problem(Kind.NO_OBJECTS, file, f"the {split} images show {_listed(class_names, sorted(labels))} alone")
        for split, labels in shown.items()
        if len(labels) < 2
    ]
    if poor:
        raise DataError(poor)
    missing = {split: sorted(set(range(len(class_names))) - set(labels)) for split, labels in shown.items()}
    return [
        Problem(Kind.ABSENT_CLASS, file, f"no {split} image shows {_listed(class_names, labels)}")
        for split, labels in missing.items()
        if labels
    ]


def _listed(class_names: Sequence[str], labels: Sequence[int], limit: int = 10) -> str:
    more = f" and {len(labels) - limit} more" if len(labels) > limit else ""
    return (", ".join(class_names[label] for label in labels[:limit]) or "no class") + more
