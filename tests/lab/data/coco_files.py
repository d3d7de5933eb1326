"""Small detection sets in COCO's format, written to a folder for one test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30


def annotation(
    number: int, image: int = 1, category: int = 1, bbox: Any = (5, 6, 10, 8), **more: Any
) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def content(split: str) -> dict[str, Any]:
    """Two images of 40 x 30, one object in the first; the second shows nothing."""
    return {
        "images": [
            {"id": number, "file_name": f"{split}{number}.png", "width": WIDTH, "height": HEIGHT} for number in (1, 2)
        ],
        "annotations": [annotation(10)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 4, "name": "dog"}],
    }


def write_picture(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """A picture that differs with its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = sum(path.name.encode()) % 200
    Image.fromarray(np.full((height, width, 3), level, dtype=np.uint8)).save(path)


def write_split(folder: Path, split: str, data: dict[str, Any], images: str = "") -> Path:
    """Write an annotation file and the pictures that it declares; the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in data.get("images", []):
        if isinstance(image, dict) and "file_name" in image:
            write_picture(folder / images / image["file_name"])
    path = folder / f"{split}.json"
    path.write_text(json.dumps(data))
    return path


def write_set(folder: Path, train: dict[str, Any] | None = None, images: str = "") -> Path:
    """Write a whole set; `train` replaces the content of its training split."""
    write_split(folder, "train", content("train") if train is None else train, images)
    write_split(folder, "test", content("test"), images)
    return folder
