"""Masks in COCO's format, against pycocotools and against masks drawn by hand."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lossatlas.lab.data import DataError, Kind, load_segmentation
from lossatlas.lab.data.segmentation import VOID
from tests.lab.data.coco_files import HEIGHT, WIDTH, annotation, content, write_set, write_split

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def square(left: int, top: int, side: int) -> list[list[int]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask, down the columns, the first of zeros."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def set_of(*annotations: dict[str, Any]) -> dict[str, Any]:
    return content("train") | {"annotations": list(annotations)}


def masks_of(folder: Path, *annotations: dict[str, Any]) -> torch.Tensor:
    test = content("test")
    test["annotations"][0]["segmentation"] = square(1, 1, 4)
    write_split(folder, "test", test)
    write_split(folder, "train", set_of(*annotations))
    data = load_segmentation(folder)
    assert data.class_names == ("background", "cat", "dog")
    assert (data.train.mask(1) == 0).all()  # an image without objects
    return data.train.mask(0)


def test_polygons_runs_and_crowds_with_the_smaller_object_in_front(tmp_path: Path) -> None:
    blob = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    blob[20:26, 3:9] = 1
    crowd = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    crowd[8:14, 20:40] = 1
    found = masks_of(
        tmp_path,
        annotation(1, segmentation=square(12, 6, 4), category=4),
        annotation(2, segmentation=square(10, 4, 12) + square(30, 20, 5)),
        annotation(3, segmentation={"size": [HEIGHT, WIDTH], "counts": runs(blob)}, bbox=None),
        annotation(4, segmentation={"size": [HEIGHT, WIDTH], "counts": runs(crowd)}, iscrowd=1),
        annotation(5, bbox=[0, 27, 10, 3], iscrowd=1),
    )
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.int16)
    expected[27:30, 0:10] = VOID
    expected[8:14, 20:40] = VOID
    expected[4:16, 10:22] = 1
    expected[20:25, 30:35] = 1
    expected[20:26, 3:9] = 1
    expected[6:10, 12:16] = 2
    assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_compressed_runs_and_odd_polygons_are_those_of_pycocotools(tmp_path: Path) -> None:
    codec = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    blob = (rng.random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
    rle = codec.encode(np.asfortranarray(blob))
    found = masks_of(tmp_path / "a", annotation(1, segmentation=rle | {"counts": rle["counts"].decode()}))
    assert torch.equal(found, torch.from_numpy(blob.astype(np.int16)))
    polygon = (rng.random(18) * np.tile([WIDTH + 6, HEIGHT + 6], 9) - 3).tolist()  # reaches over the edge, cuts itself
    found = masks_of(tmp_path / "b", annotation(1, segmentation=[polygon]))
    expected = codec.decode(codec.merge(codec.frPyObjects([polygon], HEIGHT, WIDTH)))
    assert torch.equal(found, torch.from_numpy(expected.astype(np.int16)))


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({}, Kind.MISSING_MASK, "no segmentation"),
        ({"segmentation": []}, Kind.MISSING_MASK, "no segmentation"),
        ({"segmentation": [[1, 2, 3, 4]]}, Kind.MASK, "at least three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, Kind.MASK, "at least three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, Kind.MASK, "at least three points"),
        ({"segmentation": "a"}, Kind.MASK, "polygons, or an object"),
        ({"segmentation": {"counts": [1]}}, Kind.MASK, "size and counts"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [1200]}}, Kind.MASK, "size of the mask"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [7, 5]}}, Kind.MASK, "runs of 1200 pixels"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1300, -100]}}, Kind.MASK, "runs of 1200 pixels"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "zz#$"}}, Kind.MASK, "malformed"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": 5}}, Kind.MASK, "a list or a text"),
        ({"iscrowd": 1, "bbox": [5, 5, 0, 4]}, Kind.NO_OBJECTS, "without a single mask"),
    ],
)
def test_errors_name_the_file_the_image_and_the_object(
    more: dict[str, Any], kind: Kind, words: str, tmp_path: Path
) -> None:
    write_set(tmp_path, set_of(annotation(17, **more)))
    write_split(tmp_path, "test", content("test") | {"annotations": [annotation(1, segmentation=square(1, 1, 4))]})
    with pytest.raises(DataError) as raised:
        load_segmentation(tmp_path)
    [problem] = raised.value.problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / "train.json"))
    assert words in problem.detail
    if kind is not Kind.NO_OBJECTS:
        assert (problem.image_id, problem.annotation_id) == (1, 17)


def test_one_file_is_split_by_the_hash_of_the_names(tmp_path: Path) -> None:
    whole = content("all")
    whole["images"] = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(1, 11)]
    whole["annotations"] = [annotation(i, image=i, category=1, segmentation=square(i, i, 6)) for i in range(1, 11)]
    path = write_split(tmp_path, "annotations", whole)
    data = load_segmentation(tmp_path)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert load_segmentation(path).fingerprint == data.fingerprint
    [train, test] = data.warnings
    assert train.kind is test.kind is Kind.ABSENT_CLASS
    assert train.detail == "no train image shows dog"


def test_fingerprint_tells_masks(tmp_path: Path) -> None:
    prints = set()
    for name, side in (("a", 6), ("b", 6), ("c", 7)):
        masks_of(tmp_path / name, annotation(1, segmentation=square(3, 3, side)))
        prints.add(load_segmentation(tmp_path / name).fingerprint)
    assert len(prints) == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.skipif(not (SHARED / "tiny_coco").is_dir(), reason="the COCO sample is not here")
def test_coco_sample() -> None:
    api = pytest.importorskip("pycocotools.coco")
    data = load_segmentation(SHARED / "tiny_coco")
    assert (len(data.train), len(data.test), len(data.class_names)) == (50, 50, 81)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = api.COCO(str(SHARED / "tiny_coco" / "train.json"))
    order = sorted(reference.getCatIds())
    for index, record in enumerate(data.train.records):
        rows = reference.loadAnns(reference.getAnnIds(record.image_id))
        own = [(reference.annToMask(row), order.index(row["category_id"]) + 1) for row in rows if not row["iscrowd"]]
        expected = np.zeros((record.height, record.width), dtype=np.int16)
        for mask, label in sorted(own, key=lambda one: -int(one[0].sum())):
            expected[mask > 0] = label
        found = data.train.mask(index).numpy()
        assert np.array_equal(found == VOID, (found == VOID) & (expected == 0))
        assert np.array_equal(np.where(found == VOID, 0, found), expected)
        assert (found == VOID).any() == any(row["iscrowd"] for row in rows)
