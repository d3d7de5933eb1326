import numpy as np
import pytest
import torch

from lossatlas.lab.augmentation import Augmentation, move_boxes, normalize_image
from lossatlas.lab.data import Sample

PLAIN = {"image_size": 96, "scale_jitter": 0.0, "color_jitter": 0.0, "horizontal_flip": False, "move": move_boxes}


def sample_of(boxes, height=48, width=96):
    """A black image with white rectangles."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for left, top, right, bottom in boxes:
        image[:, top:bottom, left:right] = 255
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(len(boxes)),
        "iscrowd": torch.arange(len(boxes)) % 2 == 1,
    }
    return Sample(image, target, 1, "a.png")


def bright_box(image):
    """The tight box of what is brighter than the middle grey."""
    rows, columns = torch.nonzero(image[0] > 0.5, as_tuple=True)
    return torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()


def test_without_any_change_it_only_normalizes():
    sample = sample_of([(10, 5, 30, 20)])
    example = Augmentation(**PLAIN)(sample, np.random.default_rng(0))
    assert torch.equal(example.image, (sample.image.float() - 128) / 64)
    assert torch.equal(example.target["boxes"], sample.target["boxes"])


@pytest.mark.parametrize("seed", range(25))
def test_boxes_stay_around_their_objects(seed):
    change = Augmentation(image_size=64, scale_jitter=0.5, color_jitter=0.2, horizontal_flip=True, move=move_boxes)
    example = change(sample_of([(30, 14, 66, 34)]), np.random.default_rng(seed))
    assert example.image.shape == (3, 32, 64)
    assert len(example.target["boxes"]) == 1
    torch.testing.assert_close(example.target["boxes"][0], bright_box(example.image), rtol=0, atol=1.01)


def test_flips_half_of_the_images_and_nothing_else():
    change = Augmentation(**PLAIN | {"horizontal_flip": True})
    sample = sample_of([(10, 5, 30, 20)])
    plain, mirrored = torch.tensor([10.0, 5, 30, 20]), torch.tensor([66.0, 5, 86, 20])
    flips = 0
    for seed in range(200):
        example = change(sample, np.random.default_rng(seed))
        box = example.target["boxes"][0]
        assert torch.equal(box, bright_box(example.image))
        assert torch.equal(box, plain) or torch.equal(box, mirrored)
        flips += int(torch.equal(box, mirrored))
    assert 70 < flips < 130


def test_zooms_both_ways_within_its_limits():
    change = Augmentation(**PLAIN | {"scale_jitter": 0.25})
    sample = sample_of([(40, 16, 56, 32)])
    widths = []
    for seed in range(200):
        left, _, right, _ = change(sample, np.random.default_rng(seed)).target["boxes"][0].tolist()
        widths.append(right - left)
    assert 16 / 1.25 - 0.2 <= min(widths) < 13.5
    assert 19 < max(widths) <= 16 * 1.25 + 0.2


def test_colors_change_within_their_limits():
    change = Augmentation(**PLAIN | {"color_jitter": 0.1})
    values = [change(sample_of([]), np.random.default_rng(seed)).image.unique() for seed in range(100)]
    assert all(len(value) == 1 for value in values)  # a uniform image stays uniform
    values = torch.cat(values)
    assert -2.41 < values.min() < -2.2
    assert -1.8 < values.max() < -1.59


def test_objects_that_are_hardly_seen_are_left_out_with_all_that_belongs_to_them():
    change = Augmentation(**PLAIN | {"scale_jitter": 1.0})
    sample = sample_of([(0, 0, 12, 12), (84, 36, 96, 48), (42, 18, 54, 30)])
    counts = set()
    for seed in range(60):
        target = change(sample, np.random.default_rng(seed)).target
        counts.add(len(target["boxes"]))
        assert torch.equal(target["iscrowd"], target["labels"] % 2 == 1)
        width, height = (target["boxes"][:, 2:] - target["boxes"][:, :2]).unbind(1)
        assert bool((width * height > 0.25 * 36).all())
        assert bool((target["boxes"][:, 2] <= 96).all() and (target["boxes"] >= 0).all())
    assert counts >= {1, 2, 3}


def test_an_image_without_objects_is_ordinary():
    change = Augmentation(image_size=64, scale_jitter=0.5, color_jitter=0.2, horizontal_flip=True, move=move_boxes)
    target = change(sample_of([]), np.random.default_rng(0)).target
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)


def test_is_a_function_of_the_generator_and_writes_to_nothing():
    change = Augmentation(image_size=64, scale_jitter=0.5, color_jitter=0.2, horizontal_flip=True, move=move_boxes)
    sample = sample_of([(10, 5, 30, 20)])
    image, boxes = sample.image.clone(), sample.target["boxes"].clone()
    first, second = (change(sample, np.random.default_rng(3)) for _ in range(2))
    other = change(sample, np.random.default_rng(4))
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.image, other.image)
    assert torch.equal(sample.image, image)
    assert torch.equal(sample.target["boxes"], boxes)


def test_normalizing_keeps_the_range_small():
    extremes = normalize_image(torch.tensor([0, 128, 255], dtype=torch.uint8).expand(3, 1, 3))
    assert extremes[0, 0].tolist() == [-2.0, 0.0, 127 / 64]
