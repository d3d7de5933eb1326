from collections import Counter

import pytest
import torch

from lossatlas.lab.augmentation import Augmentation, Example, move_boxes
from lossatlas.lab.loading import collate, image_numbers, scoring_batches, training_batch
from tests.lab.training.squares import Squares

CHANGE = Augmentation(image_size=96, scale_jitter=0.25, color_jitter=0.1, horizontal_flip=True, move=move_boxes)


@pytest.mark.parametrize(("count", "batch_size"), [(7, 3), (4, 4), (3, 8), (1, 2)])
def test_every_epoch_shows_every_image_once(count, batch_size):
    drawn = [pair for step in range(40) for pair in image_numbers(3, step, batch_size, count)]
    epochs = 40 * batch_size // count
    seen = Counter(drawn[: epochs * count])
    assert seen == Counter((epoch, index) for epoch in range(epochs) for index in range(count))


def test_order_changes_from_epoch_to_epoch_and_from_seed_to_seed():
    orders = {
        tuple(index for _, index in image_numbers(seed, epoch, 10, 10)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9


def batch_of(step, seed=0):
    return training_batch(Squares("train", 7, seed=1), CHANGE, seed=seed, step=step, batch_size=3, multiple=32)


def test_a_batch_is_a_function_of_seed_and_step():
    first, again, next_one, other = batch_of(5), batch_of(5), batch_of(6), batch_of(5, seed=1)
    assert torch.equal(first.images, again.images)
    assert all(torch.equal(one["boxes"], two["boxes"]) for one, two in zip(first.targets, again.targets, strict=True))
    assert not torch.equal(first.images, next_one.images)
    assert not torch.equal(first.images, other.images)


def test_an_image_is_changed_anew_in_every_epoch():
    batches = [batch_of(step, seed=2) for step in range(14)]
    pictures = [image for batch in batches for image in batch.images]
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures) == 42


def test_images_of_different_sizes_share_a_batch():
    images = [torch.full((3, 40, 20), 1.0), torch.full((3, 10, 70), 2.0)]
    batch = collate([Example(image, {}) for image in images], multiple=32)
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.sizes == [(40, 20), (10, 70)]
    for padded, image in zip(batch.images, images, strict=True):
        _, height, width = image.shape
        assert torch.equal(padded[:, :height, :width], image)
        assert padded.sum() == image.sum()


def test_scoring_takes_all_images_in_order_at_a_limited_size():
    split = Squares("test", 5, seed=2)
    batches = list(scoring_batches(split, image_size=48, batch_size=2, multiple=32))
    assert [index for indices, _ in batches for index in indices] == [0, 1, 2, 3, 4]
    assert [batch.sizes for _, batch in batches] == [[(32, 48)] * 2, [(32, 48)] * 2, [(32, 48)]]
    assert all(batch.images.shape[2:] == (32, 64) for _, batch in batches)
