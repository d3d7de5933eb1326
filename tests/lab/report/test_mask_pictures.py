"""Masks over test images."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lossatlas.lab.class_maps import encode_rows
from lossatlas.lab.data.segmentation import VOID
from lossatlas.lab.pictures.masks import (
    COLORS,
    EXTRA,
    MISSED,
    RIGHT,
    SWAPPED,
    UNKNOWN,
    class_color,
    draw_masks,
    has_background,
    outcomes,
)
from tests.lab.training.blobs import Blobs


def rows_of(split, change):
    """What a trial would write that predicts the truth but for one change, and class 0 in void pixels."""
    rows = []
    for index, record in enumerate(split.records):
        classes = split.mask(index).clamp(min=0).clone()
        change(index, classes)
        rows += encode_rows(classes.numpy(), record.image_id)
    return rows


def overlay_of(panel):
    uri = re.search(r'href="data:image/png;base64,([^"]*)"', str(panel.overlay))
    assert uri is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.group(1)))))


def spoil(index, classes):
    if index == 3:
        classes[10:14] = 1


def test_every_pixel_says_what_it_is():
    truth = np.array([[0, 0, 1, 1, 1, VOID]])
    found = np.array([[0, 2, 0, 1, 2, 0]])
    assert outcomes(truth, found, background=True).tolist() == [[0, EXTRA, MISSED, RIGHT, SWAPPED, UNKNOWN]]
    assert outcomes(truth, found, background=False).tolist() == [[RIGHT, SWAPPED, SWAPPED, RIGHT, SWAPPED, UNKNOWN]]


@pytest.mark.parametrize(
    ("name", "expected"), [("background", True), ("_background_", True), ("BG", True), ("road", False)]
)
def test_which_first_class_is_a_background(name, expected):
    assert has_background([name, "cell"]) is expected


def test_panels_show_truth_and_errors():
    split = Blobs("test", 5, seed=2, classes=3)
    pictures = draw_masks(
        split, {"good": rows_of(split, lambda *_: None), "bad": rows_of(split, spoil)}, split.class_names
    )
    assert (pictures[0].title, pictures[0].reason) == ("test3.png", "variants differ")
    assert {picture.reason for picture in pictures[1:]} == {"at random"}
    truth, good, bad = pictures[0].panels
    assert [panel.name for panel in pictures[0].panels] == ["ground truth", "good", "bad"]
    assert good.caption == "0.0 % of pixels wrong, mIoU 1.00"
    mask = split.mask(3)
    seen = overlay_of(truth)
    assert seen.shape == (32, 48, 4)
    for label in (1, 2):
        assert (seen[(mask == label).numpy()] == class_color(label)).all()
    assert (seen[(mask == 0).numpy()] == 0).all()
    wrong = torch.zeros_like(mask)
    wrong[10:14] = 1
    for panel, changed in ((good, False), (bad, True)):
        seen = overlay_of(panel)
        for kind, place in (
            (EXTRA, (wrong == 1) & (mask == 0)),
            (SWAPPED, (wrong == 1) & (mask == 2)),
            (RIGHT, (wrong == 0) & (mask > 0)),
        ):
            if kind == RIGHT or changed:
                assert place.any() or kind == SWAPPED
                assert (seen[place.numpy()] == COLORS[kind]).all()
    void = next(picture for picture in pictures if picture.title == "test1.png")
    for panel in void.panels:
        assert (overlay_of(panel)[:3] == COLORS[UNKNOWN]).all()
    empty = next(picture for picture in pictures if picture.title == "test0.png")
    assert empty.panels[0].caption == "nothing but background"


def test_names_stand_over_their_regions_where_there_are_more_than_two_classes():
    for classes, expected in ((3, {"bright", "dark"}), (2, set())):
        split = Blobs("test", 5, seed=2, classes=classes)
        [picture] = [one for one in draw_masks(split, {"a": []}, split.class_names) if one.title == "test3.png"]
        shown = {split.class_names[label] for label in split.mask(3).unique().tolist() if label > 0}
        names = set(re.findall(r"<text[^>]*>([^<]*)</text>", str(picture.panels[0].overlay)))
        assert names == expected & shown
        assert "<text" not in str(picture.panels[1].overlay)  # what is missed has no name of its own


def test_names_cannot_break_the_page():
    split = Blobs("test", 5, seed=2, classes=3)
    pictures = draw_masks(split, {"<b>": []}, ["background", "<i>", "</svg>"])
    assert all("<i>" not in str(panel.overlay) for picture in pictures for panel in picture.panels)


def test_a_large_image_is_covered_by_a_small_mask():
    split = Blobs("test", 2, seed=2, classes=2)
    split.masks = torch.ones(2, 1500, 40, dtype=torch.int16)
    split.images = torch.zeros(2, 3, 1500, 40, dtype=torch.uint8)
    split.records = tuple(type(record)(record.image_id, record.file_name, 40, 1500) for record in split.records)
    picture = draw_masks(split, {"a": []}, split.class_names)[0]
    assert overlay_of(picture.panels[0]).shape == (500, 14, 4)
    assert 'width="40" height="1500"' in str(picture.panels[0].overlay)
