"""The networks of the YOLO family: anchors from the data, and places in the order of the priors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.boxes.clustering import kmeans_anchors
from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, STRIDES, count_parameters
from lossatlas.lab.networks.yolo import ANCHORS, BINS, anchor_shapes
from lossatlas.lab.registry import OBJECTIVES, build_network
from lossatlas.lab.variants import resolve_loss, slot_losses

NAMES = [name for name in OBJECTIVES if name.startswith("yolo")]


def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def sizes_of_objects(count: int) -> Tensor:
    return 5 + 100 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0))


def test_anchors_are_those_of_the_data() -> None:
    sizes = sizes_of_objects(200)
    shapes = anchor_shapes(Facts(3, 320, sizes))
    assert [len(level) for level in shapes] == [ANCHORS] * len(STRIDES)
    flat = [shape for level in shapes for shape in level]
    assert flat == [tuple(shape) for shape in kmeans_anchors(sizes, 9).tolist()]
    areas = [w * h for w, h in flat]
    assert areas == sorted(areas)


@pytest.mark.parametrize("objects", [0, 8])
def test_few_objects_take_the_published_anchors(objects: int) -> None:
    shapes = anchor_shapes(Facts(3, 208, sizes_of_objects(objects)))
    assert shapes[2] == [(58.0, 45.0), (78.0, 99.0), (186.5, 163.0)]
    # An object without an area is no object to cluster.
    assert anchor_shapes(Facts(3, 208, torch.zeros(50, 2))) == shapes


@pytest.mark.parametrize("name", NAMES)
def test_places_are_in_the_order_of_the_priors(name: str) -> None:
    network: Any = build_network(name, Facts(3, 320, sizes_of_objects(50)), seed=0).eval()
    assert count_parameters(network) < 1_000_000
    with torch.no_grad():
        outputs = network(images())
        levels = network.pyramid(images())
    if name == "yolov8":
        found = outputs.distributions.flatten(2)
    else:
        boxes = outputs.box_numbers if name == "yolox" else outputs.box_logits
        found = torch.cat((boxes, outputs.objectness_logits[..., None]), dim=2)
    numbers = found.shape[2]
    place = 0
    for index, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        classes, boxes = network.classes(level)[1], network.boxes(level)[1]
        for row in range(64 // stride):
            for column in range(96 // stride):
                for anchor in range(len(classes) // 3):
                    mine = slice(numbers * anchor, numbers * (anchor + 1))
                    assert torch.equal(found[1, place], boxes[mine, row, column])
                    assert torch.equal(
                        outputs.class_logits[1, place], classes[3 * anchor : 3 * anchor + 3, row, column]
                    )
                    center = torch.tensor([(column + 0.5) * stride, (row + 0.5) * stride])
                    assert outputs.strides[place] == stride
                    if hasattr(outputs, "anchors"):
                        x1, y1, x2, y2 = outputs.anchors[place]
                        assert torch.stack((x2 - x1, y2 - y1)).tolist() == pytest.approx(network.shapes[index][anchor])
                        torch.testing.assert_close(torch.stack((x1 + x2, y1 + y2)) / 2, center)
                    else:
                        assert torch.equal(outputs.points[place], center)
                    place += 1
    assert place == outputs.class_logits.shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_objects_start_out_rare(name: str) -> None:
    outputs: Any = build_network(name, Facts(4), seed=1)(images())
    logits = outputs.class_logits if name == "yolov8" else outputs.objectness_logits
    probability = logits.sigmoid()
    assert PRIOR / 3 < probability.min() <= probability.max() < PRIOR * 3
    if name in ("yolov2", "yolov3"):
        assert outputs.image_size == (64, 96)
    if name == "yolov8":
        assert outputs.distributions.shape[2:] == (4, BINS)


def test_objectness_is_one_class_whatever_the_data() -> None:
    loss: Any = resolve_loss("equalized_focal", "obj", "yolov3", num_classes=7)
    assert loss.num_classes == 1
    other: Any = resolve_loss("equalized_focal", "cls", "yolov3", num_classes=7)
    assert other.num_classes == 7
    assert "cross_entropy" in slot_losses("cls", "yolov2")
    assert "mse" in slot_losses("obj", "yolox")
    assert "distribution_focal" in slot_losses("distribution", "yolov8")
