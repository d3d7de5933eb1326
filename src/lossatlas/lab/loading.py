"""Batches of images: which ones, in which order, changed how is a function of the seed and the step alone."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lossatlas.lab.augmentation import Augmentation, Example, fit_size, normalize_image, resize
from lossatlas.lab.data import ImageInfo, Split

_ORDER, _CHANGE = 0, 1  # what random numbers are for


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Args:
        images: (B, 3, H, W) float32, normalised; smaller images lie in the upper left corner, 0 around them.
        targets: one dict for each image.
        sizes: height and width of each image in pixels, without what was added.
    """

    images: Tensor
    targets: list[dict[str, Tensor]]
    sizes: list[tuple[int, int]]


def image_numbers(seed: int, step: int, batch_size: int, count: int) -> list[tuple[int, int]]:
    """Return the images of one step: every epoch shows every image once, in an order of its own.

    Args:
        seed: of the order.
        step: from 0.
        batch_size: images of a step; a batch may span two epochs.
        count: number of images there are.

    Returns:
        The epoch and the index of each image.

    Example:
        >>> steps = [image_numbers(seed=0, step=step, batch_size=2, count=4) for step in range(2)]
        >>> sorted(index for batch in steps for _, index in batch)
        [0, 1, 2, 3]
    """
    epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), count)
    orders = {
        epoch: np.random.default_rng([seed, _ORDER, epoch]).permutation(count) for epoch in np.unique(epochs).tolist()
    }
    return [(epoch, int(orders[epoch][place])) for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)]


def training_batch(
    split: Split[ImageInfo], augmentation: Augmentation, *, seed: int, step: int, batch_size: int, multiple: int
) -> Batch:
    """Return the batch of one step.

    Args:
        split: the images.
        augmentation: what is done to them.
        seed: of order and changes.
        step: from 0.
        batch_size: images of the batch.
        multiple: height and width of the batch are multiples of this many pixels.
    """
    examples = [
        augmentation(split[index], np.random.default_rng([seed, _CHANGE, epoch, index]))
        for epoch, index in image_numbers(seed, step, batch_size, len(split))
    ]
    return collate(examples, multiple)


def scoring_batches(
    split: Split[ImageInfo], *, image_size: int, batch_size: int, multiple: int
) -> Iterator[tuple[range, Batch]]:
    """Yield all images in order, unchanged but for their size.

    Args:
        split: the images.
        image_size: longest side; larger images are made smaller.
        batch_size: images of a batch; the last one may be smaller.
        multiple: height and width of a batch are multiples of this many pixels.

    Yields:
        The indices of the images, and the batch; its targets are empty.
    """
    for first in itertools.count(0, batch_size):
        indices = range(first, min(first + batch_size, len(split)))
        if not indices:
            return
        examples = [_unchanged(split.image(index), image_size) for index in indices]
        yield indices, collate(examples, multiple)


def _unchanged(image: Tensor, longest: int) -> Example:
    return Example(normalize_image(resize(image, *fit_size(image, longest))), {})


def collate(examples: Sequence[Example], multiple: int) -> Batch:
    """Put images of different sizes into one tensor.

    Args:
        examples: the images.
        multiple: height and width of the batch are multiples of this many pixels.

    Example:
        >>> example = Example(torch.ones(3, 5, 9), {})
        >>> collate([example], multiple=8).images.shape
        torch.Size([1, 3, 8, 16])
    """
    sizes = [(example.image.shape[1], example.image.shape[2]) for example in examples]
    height, width = (-(-max(extent) // multiple) * multiple for extent in zip(*sizes, strict=True))
    images = torch.zeros(len(examples), 3, height, width)
    for place, (example, size) in enumerate(zip(examples, sizes, strict=True)):
        images[place, :, : size[0], : size[1]] = example.image
    return Batch(images.contiguous(memory_format=torch.channels_last), [example.target for example in examples], sizes)
