"""Random changes of training images, as functions of nothing but the sample and a random generator."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.boxes.geometry import area
from lossatlas.lab.data import Sample
from lossatlas.lab.data.turning import Turn

MIN_VISIBLE = 0.25
"""The part of a box that stays in the picture, at least, for its object to stay among the targets."""

GREY, CONTRAST = 128.0, 64.0
"""A pixel value v enters the network as (v - GREY) / CONTRAST; what lies outside an image enters as 0."""


class Example(NamedTuple):
    """One image as the network takes it.

    Args:
        image: (3, H, W) float32, normalised.
        target: ground truth in pixels of this image; for detection ``boxes`` (G, 4) float32 xyxy, ``labels`` (G,) and
            ``iscrowd`` (G,).
    """

    image: Tensor
    target: dict[str, Tensor]


class Window(NamedTuple):
    """Where an enlarged or reduced picture lies over its frame, in pixels; a part of either may be uncovered."""

    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True)
class Motion:
    """What was done to a picture, so that the same can be done to its ground truth.

    Args:
        before: height and width of the picture.
        window: where it lies, enlarged or reduced, over the frame.
        after: height and width of the frame.
        mirrored: whether the frame was mirrored then, left to right.
        angle: in radians, by which the picture was turned clockwise around the middle of the frame before that.
    """

    before: tuple[int, int]
    window: Window
    after: tuple[int, int]
    mirrored: bool
    angle: float = 0.0

    def points(self, points: Tensor) -> Tensor:
        """Return where (..., 2) x, y points of the picture lie in the frame, in pixels; outside included.

        Example:
            >>> still = Motion((8, 8), Window(4, 4, 0, 0), (4, 4), mirrored=True)
            >>> still.points(torch.tensor([2.0, 2.0]))
            tensor([3., 1.])
        """
        factor = points.new_tensor([self.window.width / self.before[1], self.window.height / self.before[0]])
        moved = points * factor + points.new_tensor([self.window.left, self.window.top])
        if self.angle:
            middle = self.after[1] / 2, self.after[0] / 2
            moved = Turn(self.angle, middle, middle).points(moved)
        if self.mirrored:
            moved = torch.stack((self.after[1] - moved[..., 0], moved[..., 1]), dim=-1)
        return moved


Move: TypeAlias = Callable[[Mapping[str, Tensor], Motion], dict[str, Tensor]]
"""From the ground truth of a picture and what was done to it to the ground truth of the frame."""


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
    return fitted((image.shape[1], image.shape[2]), longest)


def fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Return the height and width to which an image of a height and width is made smaller."""
    factor = min(1.0, longest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def zooms(sizes: Iterable[tuple[int, int]], longest: int) -> Tensor:
    """Return by which factors ``(N, 2)`` width and height of images of these heights and widths change in `fitted`."""
    factors = []
    for height, width in sizes:
        smaller_height, smaller_width = fitted((height, width), longest)
        factors.append((smaller_width / width, smaller_height / height))
    return torch.tensor(factors).reshape(-1, 2)


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
        move: does to the ground truth what was done to the picture.
        rotation: the picture is turned around the middle of the frame by at most so many degrees, either way.
    """

    image_size: int
    scale_jitter: float
    color_jitter: float
    horizontal_flip: bool
    move: Move
    rotation: float = 0.0

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Example:
        """Return a changed image with its objects; those of which too little is seen are left out.

        Args:
            sample: the image; it is not written to.
            generator: the only source of chance; every call takes the same number of draws from it.

        Example:
            >>> image = torch.zeros(3, 8, 8, dtype=torch.uint8)
            >>> boxes, labels = torch.tensor([[0.0, 0.0, 2.0, 4.0]]), torch.tensor([1])
            >>> target = {"boxes": boxes, "labels": labels, "iscrowd": torch.tensor([False])}
            >>> still = Augmentation(4, scale_jitter=0.0, color_jitter=0.0, horizontal_flip=False, move=move_boxes)
            >>> still(Sample(image, target, 1, "a.png"), np.random.default_rng(0)).target["boxes"]
            tensor([[0., 0., 1., 2.]])
        """
        zoom, down, right, flip, brightness, contrast = generator.random(6).tolist()
        height, width = fit_size(sample.image, self.image_size)
        factor = (1 + self.scale_jitter) ** (2 * zoom - 1)
        scaled = max(1, round(height * factor)), max(1, round(width * factor))
        window = Window(*scaled, _place(height - scaled[0], down), _place(width - scaled[1], right))
        angle = math.radians(self.rotation * (2 * generator.random() - 1)) if self.rotation else 0.0
        picture = normalize_image(
            resize(sample.image, *scaled),
            self.color_jitter * (2 * brightness - 1),
            self.color_jitter * (2 * contrast - 1),
        )
        image = _turned(picture, window, (height, width), angle) if angle else paste(picture, window, (height, width))
        mirrored = self.horizontal_flip and flip < 0.5
        before = (sample.image.shape[1], sample.image.shape[2])
        target = self.move(sample.target, Motion(before, window, (height, width), mirrored, angle))
        return Example(image.flip(-1) if mirrored else image, target)


def _place(free: int, share: float) -> int:
    """Return a whole number between 0 and `free`, which may be negative, both included."""
    return min(int(share * (abs(free) + 1)), abs(free)) * (1 if free >= 0 else -1)


def _turned(
    picture: Tensor,
    window: Window,
    size: tuple[int, int],
    angle: float,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """Return what a frame shows of a picture that has been resized already and is turned around the frame's middle."""
    y, x = size[0] / 2, size[1] / 2
    return Turn(angle, (x - window.left, y - window.top), (x, y)).picture(picture, size, mode)


def paste(picture: Tensor, window: Window, size: tuple[int, int], fill: float = 0.0) -> Tensor:
    """Return what a frame shows of a picture that has been resized already.

    Args:
        picture: (C, h, w), the height and width of the window.
        window: where it lies over the frame.
        size: height and width of the frame.
        fill: value where the frame shows nothing of the picture.

    Returns:
        (C, H, W); the picture itself where it is the frame.
    """
    if (window.height, window.width, window.top, window.left) == (*size, 0, 0):
        return picture
    frame = picture.new_full((len(picture), *size), fill)
    top, left = max(0, window.top), max(0, window.left)
    seen = picture[:, max(0, -window.top) :, max(0, -window.left) :][:, : size[0] - top, : size[1] - left]
    frame[:, top : top + seen.shape[1], left : left + seen.shape[2]] = seen
    return frame


def move_boxes(target: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
    """Return the objects as a frame shows them; those of which too little is seen are left out.

    Args:
        target: ``boxes`` (G, 4), ``labels`` (G,) and ``iscrowd`` (G,).
        motion: what was done to the picture.
    """
    (before_height, before_width), window, (height, width) = motion.before, motion.window, motion.after
    factor = torch.tensor([window.width / before_width, window.height / before_height]).repeat(2)
    boxes = target["boxes"] * factor + torch.tensor([window.left, window.top] * 2)
    seen = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height] * 2))
    kept = area(seen) > MIN_VISIBLE * area(boxes)
    return {
        "boxes": _mirror(seen[kept], width) if motion.mirrored else seen[kept],
        "labels": target["labels"][kept],
        "iscrowd": target["iscrowd"][kept],
    }


def _mirror(boxes: Tensor, width: int) -> Tensor:
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack((width - right, top, width - left, bottom), dim=1)


def move_mask(mask: Tensor, motion: Motion, fill: int) -> Tensor:
    """Return the class of every pixel of a frame: that of the nearest pixel of the picture.

    Args:
        mask: (H, W) of the picture.
        motion: what was done to the picture.
        fill: class of what lies outside the picture.

    Example:
        >>> mask = torch.tensor([[0, 1], [2, 3]])
        >>> move_mask(mask, Motion((2, 2), Window(2, 2, 0, 1), (2, 2), mirrored=False), fill=-1)
        tensor([[-1,  0],
                [-1,  2]])
    """
    window = motion.window
    above = mask[None, None].double() - fill  # what is 0 becomes `fill`
    resized = F.interpolate(above, size=(window.height, window.width), mode="nearest-exact")[0]
    if motion.angle:
        moved = _turned(resized, window, motion.after, motion.angle, "nearest")
    else:
        moved = paste(resized, window, motion.after)
    moved = moved[0].to(mask.dtype) + fill
    return moved.flip(-1) if motion.mirrored else moved


def move_people(target: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
    """Return people as a frame shows them; those of whom too little is seen are left out.

    Keypoints that leave the frame are not labelled any more. Boxes of turned people are those around their turned
    boxes, and so have some room to spare.

    Args:
        target: ``boxes`` (G, 4), ``labels`` (G,), ``iscrowd`` (G,), ``area`` (G,), ``keypoints`` (G, K, 3) and, if the
            picture was mirrored, ``mirror`` (K,), for each keypoint the one whose place it takes.
        motion: what was done to the picture.

    Raises:
        ValueError: a mirrored picture of keypoints of which nobody knows left from right.
    """
    height, width = motion.after
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    corners = motion.points(torch.stack((x1, y1, x2, y1, x2, y2, x1, y2), dim=1).view(-1, 4, 2))
    boxes = torch.cat((corners.amin(1), corners.amax(1)), dim=1)
    seen = torch.minimum(boxes.clamp(min=0), torch.tensor([width, height] * 2))
    kept = area(seen) > MIN_VISIBLE * area(boxes)
    places, visibility = motion.points(target["keypoints"][kept, :, :2]), target["keypoints"][kept, :, 2:]
    inside = ((places >= 0) & (places < torch.tensor([width, height]))).all(-1, keepdim=True)
    keypoints = torch.where(inside & (visibility > 0), torch.cat((places, visibility), dim=-1), 0)
    if motion.mirrored:
        if "mirror" not in target:
            raise ValueError("images cannot be mirrored: the names of the keypoints do not tell left from right")
        keypoints = keypoints[:, target["mirror"]]
    zoom = motion.window.width * motion.window.height / (motion.before[0] * motion.before[1])
    return {
        "boxes": seen[kept],
        "labels": target["labels"][kept],
        "iscrowd": target["iscrowd"][kept],
        "area": target["area"][kept] * zoom,
        "keypoints": keypoints,
    }
