"""Reading detection data in COCO's format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lossatlas.lab.data import Kind, load_coco, load_detection
from lossatlas.lab.data.images import ImageCache, read_image
from tests.lab.data.coco_files import annotation, content, write_set, write_split

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def test_samples_hold_the_declared_objects(tmp_path: Path) -> None:
    data = content("train")
    data["annotations"].append(annotation(11, category=4, bbox=[0.5, 1.25, 2, 3], iscrowd=1))
    loaded = load_detection(write_set(tmp_path, data))
    sample = loaded.train[0]
    assert (loaded.name, loaded.class_names, loaded.warnings) == (tmp_path.name, ("cat", "dog"), [])
    assert (sample.image_id, sample.file_name) == (1, "train1.png")
    assert sample.image.shape == (3, 30, 40)
    assert sample.target["boxes"].tolist() == [[5, 6, 15, 14], [0.5, 1.25, 2.5, 4.25]]
    assert sample.target["labels"].tolist() == [0, 1]
    assert sample.target["iscrowd"].tolist() == [False, True]
    types = [sample.target[key].dtype for key in ("boxes", "labels", "iscrowd")]
    assert types == [torch.float32, torch.int64, torch.bool]


def test_an_image_without_objects_is_ordinary(tmp_path: Path) -> None:
    target = load_detection(write_set(tmp_path)).train[1].target
    assert {key: tuple(value.shape) for key, value in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "iscrowd": (0,),
    }


def test_labels_follow_the_order_of_the_ids_not_of_the_file(tmp_path: Path) -> None:
    data = content("train")
    data["categories"].reverse()
    data["annotations"].append(annotation(11, category=4))
    loaded = load_detection(write_set(tmp_path, data))
    assert loaded.class_names == ("cat", "dog")
    assert loaded.train[0].target["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([-0.6, 2, 5, 5], [0, 2, 4.4, 7]),
        ([30, 20, 10.9, 11], [30, 20, 40, 30]),
        ([0, 0, 40, 30], [0, 0, 40, 30]),
    ],
)
def test_boxes_a_pixel_over_the_edge_are_clipped(bbox: list[float], expected: list[float], tmp_path: Path) -> None:
    data = content("train")
    data["annotations"] = [annotation(1, bbox=bbox)]
    loaded = load_detection(write_set(tmp_path, data))
    torch.testing.assert_close(loaded.train[0].target["boxes"], torch.tensor([expected], dtype=torch.float32))
    assert loaded.warnings == []


def test_ground_truth_for_evaluation(tmp_path: Path) -> None:
    data = content("train")
    data["annotations"] = [
        annotation(0, category=4, bbox=[5, 6, 10, 8], area=33),
        annotation(7, image=2, bbox=[1, 1, 4, 2], iscrowd=1),
    ]
    coco = load_detection(write_set(tmp_path, data)).train.coco
    assert coco["images"] == [
        {"id": 1, "file_name": "train1.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "train2.png", "width": 40, "height": 30},
    ]
    assert coco["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    assert coco["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 10, 8], "area": 33, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 0, "bbox": [1, 1, 4, 2], "area": 8, "iscrowd": 1},
    ]


def test_perfect_detections_score_one(tmp_path: Path) -> None:
    evaluator = pytest.importorskip("faster_coco_eval")
    data = content("test")
    data["annotations"].append(annotation(11, image=2, category=4, bbox=[0, 0, 4, 4]))
    write_split(tmp_path, "test", data)
    write_split(tmp_path, "train", content("train"))
    truth = load_detection(tmp_path).test.coco
    detections = [
        {**{key: row[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9} for row in truth["annotations"]
    ]
    ground = evaluator.COCO(truth)
    evaluation = evaluator.COCOeval_faster(ground, ground.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize("images", ["", "images"])
def test_images_lie_beside_the_file_or_in_images(images: str, tmp_path: Path) -> None:
    assert load_detection(write_set(tmp_path, images=images)).train[1].image.shape == (3, 30, 40)


def test_val_stands_in_for_test(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_split(tmp_path, "val", content("val"))
    assert load_detection(tmp_path).test[0].file_name == "test1.png"
    (tmp_path / "test.json").unlink()
    assert load_detection(tmp_path).test[0].file_name == "val1.png"


def test_two_annotation_files_in_two_folders(tmp_path: Path) -> None:
    train = write_split(tmp_path / "a", "some", content("x"))
    test = write_split(tmp_path / "b", "other", content("y"), images="images")
    loaded = load_detection(train=train, test=test)
    assert (loaded.name, loaded.train.name, loaded.test.name) == ("some.json + other.json", "train", "test")
    assert (loaded.train[0].file_name, loaded.test[0].file_name) == ("x1.png", "y1.png")


def _change_box(folder: Path) -> None:
    data = content("train")
    data["annotations"][0]["bbox"] = [5, 6, 10, 8.5]
    (folder / "train.json").write_text(json.dumps(data))


def _change_picture(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "test2.png")


def test_fingerprint_tells_content_not_place(tmp_path: Path) -> None:
    original = load_detection(write_set(tmp_path / "a")).fingerprint
    assert load_detection(write_set(tmp_path / "b")).fingerprint == original
    for name, change in (("c", _change_box), ("d", _change_picture)):
        change(write_set(tmp_path / name))
        assert load_detection(tmp_path / name).fingerprint != original


PICTURES: dict[str, tuple[Any, list[int]]] = {
    "grey": (Image.new("L", (4, 3), 70), [70, 70, 70]),
    "bilevel": (Image.new("1", (4, 3), 1), [255, 255, 255]),
    "transparent": (Image.new("RGBA", (4, 3), (10, 20, 30, 0)), [10, 20, 30]),
    "palette": (Image.new("RGB", (4, 3), (10, 20, 30)).quantize(4), [10, 20, 30]),
    "16 bits": (Image.fromarray(np.full((3, 4), 0x4321, dtype=np.uint16)), [0x43, 0x43, 0x43]),
}


@pytest.mark.parametrize("case", PICTURES)
def test_every_kind_of_picture_becomes_rgb(case: str, tmp_path: Path) -> None:
    picture, color = PICTURES[case]
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.tensor(color, dtype=torch.uint8)[:, None, None].expand(3, 3, 4))


def test_palette_with_transparent_entries(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 3), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_cmyk_and_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees for viewing
    Image.new("CMYK", (8, 6), (0, 0, 0, 255)).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (3, 6, 8)
    assert int(image.max()) < 10


def test_cache_saves_decoding_and_keeps_to_its_budget(tmp_path: Path) -> None:
    write_set(tmp_path)
    data = load_coco(tmp_path / "train.json", tmp_path / "test.json", name="x", cache_bytes=3 * 30 * 40)
    first, second = data.train[0].image, data.train[1].image
    assert data.train[0].image is first
    assert data.train[1].image is not second
    assert torch.equal(data.train[1].image, second)


def test_cache_holds_nothing_without_room() -> None:
    cache = ImageCache(max_bytes=0)
    cache.add(Path("a"), torch.zeros(1, dtype=torch.uint8))
    assert cache.get(Path("a")) is None


@pytest.mark.skipif(not (SHARED / "bccd").is_dir(), reason="the blood cell photographs are not here")
def test_blood_cells() -> None:
    data = load_detection(SHARED / "bccd")
    assert (len(data.train), len(data.test)) == (205, 72)
    assert data.class_names == ("RBC", "WBC", "Platelets")
    [warning] = data.warnings
    assert (warning.kind, warning.image_id, warning.annotation_id) == (Kind.ZERO_AREA_BOX, 171, 2288)
    assert len(data.train.coco["annotations"]) == 2804
    assert data.train[0].image.shape == (3, 240, 320)
    assert data.train[0].target["boxes"][0].tolist() == [34.0, 157.5, 143.0, 240.0]


@pytest.mark.skipif(not (SHARED / "tiny_coco").is_dir(), reason="the COCO sample is not here")
def test_coco_sample() -> None:
    data = load_detection(SHARED / "tiny_coco")
    assert (len(data.train), len(data.test), len(data.class_names), data.warnings) == (50, 50, 80, [])
    crowds = [sum(row["iscrowd"] for row in split.coco["annotations"]) for split in (data.train, data.test)]
    assert crowds == [5, 5]
    for sample in (data.test[index] for index in range(50)):
        height, width = sample.image.shape[1:]
        corners = sample.target["boxes"]
        assert (corners >= 0).all()
        assert (corners <= torch.tensor([width, height, width, height])).all()
