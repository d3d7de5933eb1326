"""Random changes of training images, as functions of nothing but the sample and a random generator."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.boxes.geometry import area
from lossatlas.lab.data import Sample

MIN_VISIBLE = 0.25
"""The part of a box that stays in the picture, at least, for its object to stay among the targets."""

GREY, CONTRAST = 128.0, 64.0
"""A pixel value v enters the network as (v - GREY) / CONTRAST; what lies outside an image enters as 0."""


class Example(NamedTuple):
    """One image as the network takes it.

    Args:
        image: (3, H, W) float32, normalised.
        target: ``boxes`` (G, 4) float32 xyxy pixels of this image, ``labels`` (G,) and ``iscrowd`` (G,).
    """

    image: Tensor
    target: dict[str, Tensor]


class Window(NamedTuple):
    """Where an enlarged or reduced picture lies over its frame, in pixels; a part of either may be uncovered."""

    height: int
    width: int
    top: int
    left: int


def normalize_image(image: Tensor, brightness: float = 0.0, contrast: float = 0.0) -> Tensor:
    """Turn pixel values into what the network takes.

    Formula:
        ((v - 128) · (1 + contrast) + 128 · brightness) / 64

    Args:
        image: (3, H, W) uint8.
        brightness: change of all pixels, as a part of half the range.
        contrast: change of the distance to the middle grey, as a part of it.

    Returns:
        (3, H, W) float32.

    Example:
        >>> normalize_image(torch.full((3, 1, 1), 192, dtype=torch.uint8)).flatten()
        tensor([1., 1., 1.])
    """
    gain = (1 + contrast) / CONTRAST
    return image.float().mul_(gain).add_(GREY * brightness / CONTRAST - GREY * gain)


def fit_size(image: Tensor, longest: int) -> tuple[int, int]:
    """Return the size at which an image is trained and scored: its longest side is at most `longest` pixels.

    Example:
        >>> fit_size(torch.zeros(3, 480, 640), 320), fit_size(torch.zeros(3, 100, 50), 320)
        ((240, 320), (100, 50))
    """
    height, width = image.shape[1:]
    factor = min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize a (3, H, W) uint8 image, with antialiasing where it gets smaller."""
    if tuple(image.shape[1:]) == (height, width):
        return image
    return F.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False)[0]


@dataclass(frozen=True)
class Augmentation:
    """Zoom, shift, mirror and recolour an image at random.

    Args:
        image_size: longest side of the frame that a picture is put into; a larger image gets smaller.
        scale_jitter: the picture is zoomed by a factor between 1 / (1 + this) and 1 + this, evenly on a logarithmic
            scale, and put at a random place of the frame, or the frame at a random place of the picture.
        color_jitter: brightness and contrast change by a part of at most this.
        horizontal_flip: whether half of the pictures are mirrored.
    """

    image_size: int
    scale_jitter: float
    color_jitter: float
    horizontal_flip: bool

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Example:
        """Return a changed image with its objects; those of which too little is seen are left out.

        Args:
            sample: the image; it is not written to.
            generator: the only source of chance; every call takes the same number of draws from it.

        Example:
            >>> image = torch.zeros(3, 8, 8, dtype=torch.uint8)
            >>> boxes, labels = torch.tensor([[0.0, 0.0, 2.0, 4.0]]), torch.tensor([1])
            >>> target = {"boxes": boxes, "labels": labels, "iscrowd": torch.tensor([False])}
            >>> still = Augmentation(image_size=4, scale_jitter=0.0, color_jitter=0.0, horizontal_flip=False)
            >>> still(Sample(image, target, 1, "a.png"), np.random.default_rng(0)).target["boxes"]
            tensor([[0., 0., 1., 2.]])
        """
        zoom, down, right, flip, brightness, contrast = generator.random(6).tolist()
        height, width = fit_size(sample.image, self.image_size)
        factor = (1 + self.scale_jitter) ** (2 * zoom - 1)
        scaled = max(1, round(height * factor)), max(1, round(width * factor))
        window = Window(*scaled, _place(height - scaled[0], down), _place(width - scaled[1], right))
        image = _paste(
            normalize_image(
                resize(sample.image, *scaled),
                self.color_jitter * (2 * brightness - 1),
                self.color_jitter * (2 * contrast - 1),
            ),
            window,
            (height, width),
        )
        target = _move(sample, window, (height, width))
        if self.horizontal_flip and flip < 0.5:
            image, target["boxes"] = image.flip(-1), _mirror(target["boxes"], width)
        return Example(image, target)


def _place(free: int, share: float) -> int:
    """Return a whole number between 0 and `free`, which may be negative, both included."""
    return min(int(share * (abs(free) + 1)), abs(free)) * (1 if free >= 0 else -1)


def _paste(picture: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """Return what a frame of the given size shows of a picture."""
    if (window.height, window.width, window.top, window.left) == (*size, 0, 0):
        return picture
    frame = picture.new_zeros((3, *size))
    top, left = max(0, window.top), max(0, window.left)
    seen = picture[:, max(0, -window.top) :, max(0, -window.left) :][:, : size[0] - top, : size[1] - left]
    frame[:, top : top + seen.shape[1], left : left + seen.shape[2]] = seen
    return frame


def _move(sample: Sample, window: Window, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the objects of a sample as a frame shows them."""
    before_height, before_width = sample.image.shape[1:]
    factor = torch.tensor([window.width / before_width, window.height / before_height]).repeat(2)
    boxes = sample.target["boxes"] * factor + torch.tensor([window.left, window.top] * 2)
    seen = torch.minimum(boxes.clamp(min=0), torch.tensor([size[1], size[0]] * 2))
    kept = area(seen) > MIN_VISIBLE * area(boxes)
    return {
        "boxes": seen[kept],
        "labels": sample.target["labels"][kept],
        "iscrowd": sample.target["iscrowd"][kept],
    }


def _mirror(boxes: Tensor, width: int) -> Tensor:
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack((width - right, top, width - left, bottom), dim=1)
