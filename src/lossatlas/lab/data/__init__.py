"""Data to compare losses on: annotation files in COCO's format, and a built-in set of handwritten digits."""

from pathlib import Path

from lossatlas.lab.data.coco import load_coco
from lossatlas.lab.data.dataset import Data, DetectionData, DetectionSplit, ImageInfo, ImageRecord, Sample, Split
from lossatlas.lab.data.digit_masks import load_digit_masks
from lossatlas.lab.data.digits import load_digit_scenes
from lossatlas.lab.data.mask_folders import MaskKind, load_mask_folders
from lossatlas.lab.data.problems import DataError, Kind, Problem, describe
from lossatlas.lab.data.segmentation import SegmentationData, SegmentationSplit
from lossatlas.lab.data.splits import find_folders

__all__ = [
    "Data",
    "DataError",
    "DetectionData",
    "DetectionSplit",
    "ImageInfo",
    "ImageRecord",
    "Kind",
    "Problem",
    "Sample",
    "SegmentationData",
    "SegmentationSplit",
    "Split",
    "describe",
    "load_coco",
    "load_detection",
    "load_digit_scenes",
    "load_segmentation",
]


def load_detection(
    data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
) -> DetectionData:
    """Load a detection data set by what a user says of it.

    Args:
        data: ``"digits"`` for the built-in set (``"./digits"`` is a folder of that name), or a folder that holds
            ``train.json`` and ``test.json``, or ``val.json`` where there is no ``test.json``, in COCO's format.
        train: instead of `data`, an annotation file to train on; together with `test`.
        test: an annotation file to score on.

    Returns:
        The data, checked.

    Raises:
        ValueError: if the arguments do not say which data is meant.
        DataError: if there is anything wrong with the data that would spoil a training.

    Example:
        >>> data = load_detection("digits")
        >>> len(data.train), len(data.test), data.train[0].image.shape
        (1200, 300, torch.Size([3, 128, 128]))
    """
    if data is not None and train is None and test is None:
        return load_digit_scenes() if data == "digits" else _load_folder(Path(data))
    if data is None and train is not None and test is not None:
        train, test = Path(train), Path(test)
        return load_coco(train, test, name=f"{train.name} + {test.name}")
    raise ValueError(f"expected either data or both train and test, got data={data!r}, train={train!r}, test={test!r}")


def _load_folder(folder: Path) -> DetectionData:
    if not folder.is_dir():
        raise ValueError(f"data: expected 'digits' or a folder with train.json and test.json, got {str(folder)!r}")
    test = folder / "test.json"
    if not test.is_file() and (folder / "val.json").is_file():
        test = folder / "val.json"
    return load_coco(folder / "train.json", test, name=folder.resolve().name)


def load_segmentation(
    data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
) -> SegmentationData:
    """Load a segmentation data set by what a user says of it.

    Args:
        data: ``"digits"`` or ``"digits-binary"`` for the built-in sets (``"./digits"`` is a folder of that name), or a
            folder with ``images`` beside ``masks`` (class indices) or ``instances`` (a number for each object).
        train: not for this task.
        test: not for this task.

    Returns:
        The data, checked.

    Raises:
        ValueError: if the arguments do not say which data is meant.
        DataError: if there is anything wrong with the data that would spoil a training.

    Example:
        >>> data = load_segmentation("digits-binary")
        >>> data.class_names, data.train[0].target["mask"].shape
        (('background', 'ink'), torch.Size([128, 128]))
    """
    if data is None or train is not None or test is not None:
        raise ValueError(f"expected data, got data={data!r}, train={train!r}, test={test!r}")
    if data in ("digits", "digits-binary"):
        return load_digit_masks(binary=data == "digits-binary")
    folder = Path(data)
    kinds: tuple[MaskKind, ...] = ("masks", "instances")
    for kind in kinds:
        if find_folders(folder, kind) is not None:
            return load_mask_folders(folder, kind)
    raise ValueError(f"data: expected 'digits', 'digits-binary' or a folder with images and masks, got {str(folder)!r}")
