"""Data to compare losses on: files in COCO's and YOLO's formats, folders of masks, and built-in sets."""

from pathlib import Path

from lossatlas.lab.data.coco import CocoReader, load_coco, load_whole_coco
from lossatlas.lab.data.coco_keypoints import load_coco_keypoints, load_whole_coco_keypoints
from lossatlas.lab.data.coco_masks import load_coco_masks
from lossatlas.lab.data.dataset import Data, DetectionData, DetectionSplit, ImageInfo, ImageRecord, Sample, Split
from lossatlas.lab.data.digit_masks import load_digit_masks
from lossatlas.lab.data.digits import load_digit_scenes
from lossatlas.lab.data.figures import load_figures
from lossatlas.lab.data.mask_folders import MaskKind, load_mask_folders
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit
from lossatlas.lab.data.problems import DataError, Kind, Problem, describe
from lossatlas.lab.data.segmentation import SegmentationData, SegmentationSplit
from lossatlas.lab.data.splits import find_annotations, find_folders
from lossatlas.lab.data.yolo import is_yolo, load_yolo

__all__ = [
    "Data",
    "DataError",
    "DetectionData",
    "DetectionSplit",
    "ImageInfo",
    "ImageRecord",
    "Kind",
    "PoseData",
    "PoseRecord",
    "PoseSplit",
    "Problem",
    "Sample",
    "SegmentationData",
    "SegmentationSplit",
    "Split",
    "describe",
    "load_coco",
    "load_detection",
    "load_digit_scenes",
    "load_pose",
    "load_segmentation",
    "load_training_images",
]


def load_detection(
    data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
) -> DetectionData:
    """Load a detection data set by what a user says of it.

    Args:
        data: ``"digits"`` for the built-in set (``"./digits"`` is a folder of that name); a folder with annotation
            files in COCO's format, or one such file, see `find_annotations`; or a folder in YOLO's format, see
            `load_yolo`. A set without a split of its own is split by a hash of the names, one image in five to test.
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
    files = _two_files(data, train, test)
    if files is not None:
        return load_coco(*files, name=_both(files))
    assert data is not None
    if data == "digits":
        return load_digit_scenes()
    path = Path(data)
    found = find_annotations(path)
    if path.is_dir() and (found is None or found[1] is None) and is_yolo(path):
        return load_yolo(path)
    if found is None:
        raise ValueError(
            "data: expected 'digits', a folder with train.json and test.json, an annotation file or a folder with "
            f"images and labels, got {str(path)!r}"
        )
    first, second = found
    name = path.resolve().name
    return load_whole_coco(first, name=name) if second is None else load_coco(first, second, name=name)


def load_training_images(data: str | Path, split: str = "train") -> DetectionData:
    """Load one split of a detection data set, to look at and not to score on.

    Args:
        data: as in `load_detection`; of a single annotation file all images are taken.
        split: ``"train"`` or ``"test"``; of a folder with annotation files, the name of any without ``.json``.

    Returns:
        The data, whose two splits are the same.

    Raises:
        ValueError: there is no such data.
        DataError: if there is anything wrong with it.
    """
    path = Path(data)
    file = path / f"{split}.json" if path.is_dir() else path
    if data != "digits" and file.is_file():
        read = CocoReader(file)
        if read.problems:
            raise DataError(read.problems)
        chosen: DetectionSplit = read.split(file.stem)
        return DetectionData(path.resolve().name, chosen, chosen, chosen.class_names, "", read.warnings)
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train', 'test' or the name of an annotation file of {data}, got {split!r}")
    whole = load_detection(data)
    chosen = whole.train if split == "train" else whole.test
    return DetectionData(whole.name, chosen, chosen, whole.class_names, whole.fingerprint, whole.warnings)


def load_segmentation(
    data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
) -> SegmentationData:
    """Load a segmentation data set by what a user says of it.

    Args:
        data: ``"digits"`` or ``"digits-binary"`` for the built-in sets (``"./digits"`` is a folder of that name); a
            folder with ``images`` beside ``masks`` (class indices) or ``instances`` (a number for each object), see
            `load_mask_folders`; or a folder with annotation files in COCO's format, or one such file, see
            `find_annotations`. A set without a split of its own is split by a hash of the names, one in five to test.
        train: instead of `data`, an annotation file in COCO's format to train on; together with `test`.
        test: an annotation file to score on.

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
    files = _two_files(data, train, test)
    if files is not None:
        return load_coco_masks(*files, name=_both(files))
    assert data is not None
    if data in ("digits", "digits-binary"):
        return load_digit_masks(binary=data == "digits-binary")
    path = Path(data)
    kinds: tuple[MaskKind, ...] = ("masks", "instances")
    for kind in kinds:
        if find_folders(path, kind) is not None:
            return load_mask_folders(path, kind)
    found = find_annotations(path)
    if found is None:
        raise ValueError(
            "data: expected 'digits', 'digits-binary', a folder with images and masks or instances, a folder with "
            f"train.json and test.json or an annotation file, got {str(path)!r}"
        )
    return load_coco_masks(*found, name=path.resolve().name)


def load_pose(
    data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
) -> PoseData:
    """Load a data set for pose by what a user says of it.

    Args:
        data: ``"figures"`` for the built-in set (``"./figures"`` is a folder of that name); or a folder with annotation
            files in COCO's format with keypoints, or one such file, see `find_annotations`. A set without a split of
            its own is split by a hash of the names, one image in five to test.
        train: instead of `data`, an annotation file to train on; together with `test`.
        test: an annotation file to score on.

    Returns:
        The data, checked.

    Raises:
        ValueError: if the arguments do not say which data is meant.
        DataError: if there is anything wrong with the data that would spoil a training.
    """
    files = _two_files(data, train, test)
    if files is not None:
        return load_coco_keypoints(*files, name=_both(files))
    assert data is not None
    if data == "figures":
        return load_figures()
    path = Path(data)
    found = find_annotations(path)
    if found is None:
        raise ValueError(
            f"data: expected 'figures', a folder with train.json and test.json or an annotation file, got {str(path)!r}"
        )
    first, second = found
    name = path.resolve().name
    return (
        load_whole_coco_keypoints(first, name=name) if second is None else load_coco_keypoints(first, second, name=name)
    )


def _two_files(data: str | Path | None, train: str | Path | None, test: str | Path | None) -> tuple[Path, Path] | None:
    """Return the files to train on and to score on, None where data is named instead."""
    if data is not None and train is None and test is None:
        return None
    if data is None and train is not None and test is not None:
        return Path(train), Path(test)
    raise ValueError(f"expected either data or both train and test, got data={data!r}, train={train!r}, test={test!r}")


def _both(files: tuple[Path, Path]) -> str:
    return " + ".join(path.name for path in files)
