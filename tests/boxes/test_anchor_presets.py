"""The anchors of Faster R-CNN, SSD and YOLO: their rules as loops, and torchvision's default boxes."""

import math
from typing import Any

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from lossatlas.boxes.priors import (
    SSD_ASPECT_RATIOS,
    YOLOV2_ANCHORS,
    YOLOV3_ANCHORS,
    YOLOV4_ANCHORS,
    faster_rcnn_anchors,
    ssd_anchors,
    yolo_anchors,
)

SSD300 = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def test_ssd_boxes_by_the_formula() -> None:
    sizes, (height, width), ratios = [(2, 3), (1, 2), (1, 1)], (60, 90), [[2.0], [3.0, 1.5], []]
    boxes = ssd_anchors(sizes, (height, width), aspect_ratios=ratios)
    scales = [0.2, 0.55, 0.9, 1.25]
    expected = []
    for level, (rows, columns) in enumerate(sizes):
        s, following = scales[level], scales[level + 1]
        shapes = [(s, s), (math.sqrt(s * following),) * 2]
        for ratio in ratios[level]:
            shapes += [(s * math.sqrt(ratio), s / math.sqrt(ratio)), (s / math.sqrt(ratio), s * math.sqrt(ratio))]
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) / columns * width, (row + 0.5) / rows * height
                expected += [
                    [x - w * width / 2, y - h * height / 2, x + w * width / 2, y + h * height / 2] for w, h in shapes
                ]
    torch.testing.assert_close(boxes, torch.tensor(expected))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [None, [8, 16, 32, 64, 100, 300]])
def test_ssd_boxes_are_torchvisions(clip: bool, steps: Any) -> None:
    scales = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    theirs = DefaultBoxGenerator([[2], [2, 3], [2, 3], [2, 3], [2], [2]], scales=scales, steps=steps, clip=clip)
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    (expected,) = theirs(images, [torch.zeros(1, 1, *size) for size in SSD300])
    boxes = ssd_anchors(SSD300, (300, 300), scales=scales, strides=steps, clip=clip)
    assert len(boxes) == 8732
    torch.testing.assert_close(boxes, expected, rtol=1e-5, atol=1e-3)


def test_scales_of_a_single_ssd_level_are_its_two_limits() -> None:
    boxes = ssd_anchors([(1, 1)], (100, 100), min_scale=0.25, max_scale=1.0, aspect_ratios=[[]])
    assert (boxes[:, 2] - boxes[:, 0]).tolist() == pytest.approx([25.0, 50.0])


def test_yolo_boxes_lie_on_the_cells_in_the_given_shapes() -> None:
    sizes, strides = [(2, 3), (0, 1), (1, 1)], [8, 16, 32]
    expected = []
    for (rows, columns), stride, shapes in zip(sizes, strides, YOLOV3_ANCHORS, strict=True):
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                expected += [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for w, h in shapes]
    assert yolo_anchors(sizes, strides).tolist() == expected


def test_published_yolo_anchors() -> None:
    assert [len(level) for level in YOLOV4_ANCHORS] == [3, 3, 3]
    cells = [side / 32 for shape in YOLOV2_ANCHORS[0] for side in shape]
    published = [0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828]
    assert cells == pytest.approx(published)
    for table in (YOLOV3_ANCHORS, YOLOV4_ANCHORS):
        means = [sum(w * h for w, h in level) / 3 for level in table]
        assert 4 * means[0] < means[1] < means[2] / 4


def test_faster_rcnn_sides() -> None:
    pyramid = faster_rcnn_anchors([(1, 1)] * 5, [4, 8, 16, 32, 64])
    sides = (pyramid[:, 2:] - pyramid[:, :2]).prod(1).sqrt()
    assert sides.tolist() == pytest.approx([side for side in (32, 64, 128, 256, 512) for _ in range(3)], rel=1e-5)
    single = faster_rcnn_anchors([(1, 1)], [16], pyramid="c4", offset=0)
    width, height = (single[:, 2:] - single[:, :2]).unbind(1)
    assert (width * height).sqrt().tolist() == pytest.approx([128, 256, 512] * 3, rel=1e-5)
    assert (height / width).tolist() == pytest.approx([0.5] * 3 + [1] * 3 + [2] * 3, rel=1e-5)
    assert (single[:, 2:] + single[:, :2]).abs().max() < 1e-4


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`aspect_ratios` must have 1 entries for these `sizes`, but has 6"):
        ssd_anchors([(1, 1)], (10, 10))
    with pytest.raises(ValueError, match="`scales` must have 7 entries"):
        ssd_anchors(SSD300, (10, 10), scales=[0.1], aspect_ratios=SSD_ASPECT_RATIOS)
    with pytest.raises(ValueError, match=r"`image_size\[0\]` must be finite and above 0"):
        ssd_anchors(SSD300, (0, 10))
    with pytest.raises(ValueError, match="`anchors` must have 1 entries"):
        yolo_anchors([(1, 1)], [8])
    with pytest.raises(ValueError, match="`anchors` must be finite and above 0"):
        yolo_anchors([(1, 1)], [8], [[(4, 0)]])
    with pytest.raises(ValueError, match="`pyramid` must be one of 'fpn', 'c4'"):
        faster_rcnn_anchors([(1, 1)], [8], pyramid="p2")  # type: ignore[arg-type]
