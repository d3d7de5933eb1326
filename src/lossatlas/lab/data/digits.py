"""The built-in data: scenes of real handwritten digits on real photographs, composed from a seed.

The material is what scikit-learn ships: the 1797 digits of `load_digits` (8 x 8, ten classes) and the two photographs
of `load_sample_images`. Train and test share neither: every fifth digit of a class and the right part of each
photograph are for testing. A scene is 128 x 128 and shows 1 to 8 digits 22 to 56 pixels high, stretched, slightly
turned, in light ink of random colour on a darkened photograph: easy enough for a small network to learn in a minute.

An object's mask is the part of its ink that is seen, its box the tight box of that mask. A digit is placed only where
at least `MIN_VISIBLE` of the ink of every digit stays in sight and the boxes of no two whole digits overlap by more
than `MAX_BOX_IOU`; where no such place is found the digit is left away, so that a picture holds no ink that the ground
truth does not tell of.

The same seed gives the same bytes on every machine: random numbers are taken from PCG64 as plain uniform draws, and
pixels are computed with sums, products and integers alone. (What is not ours to promise is the JPEG decoder that reads
the photographs; a set that differs says so by its fingerprint.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.lab.data.dataset import DetectionData, DetectionSplit, ImageRecord, ObjectRow, fingerprint

SIZE = 128
"""Height and width of a scene in pixels."""
MIN_HEIGHT, MAX_HEIGHT = 22.0, 56.0
"""Height of a digit's ink before it is turned, in pixels."""
MAX_DIGITS = 8
"""Digits in a scene, at most."""
MIN_VISIBLE = 0.9
"""The part of a digit's ink that is seen, at least."""
MAX_BOX_IOU = 0.15
"""Intersection over union of the boxes of two whole digits, at most."""
MIN_CONTRAST = 60
"""Luminance, of 255, by which the ink is lighter than at least nine in ten of the pixels under it."""

TEST_EVERY = 5
"""One digit in so many of a class is for testing."""
TEST_FROM_COLUMN = 360
"""The columns of a photograph from here on are for testing, those before it for training."""

ENLARGEMENT = 8
"""Samples of an enlarged digit per pixel of the original."""

Bytes: TypeAlias = NDArray[np.uint8]
Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Glyph:
    """A handwritten digit, enlarged, with the rectangle that its ink fills."""

    label: int
    ink: NDArray[np.float64]
    top: int
    bottom: int
    left: int
    right: int


class DigitSplit(DetectionSplit):
    """Composed scenes, held in memory.

    Args:
        name: ``"train"`` or ``"test"``.
        records: one for every scene.
        images: (N, 3, H, W) uint8.
        instances: (N, H, W) uint8, at each pixel the 1-based object that is seen there, 0 for none.
        with_masks: whether targets hold ``masks``.
    """

    def __init__(
        self, name: str, records: Sequence[ImageRecord], images: Tensor, instances: Tensor, with_masks: bool
    ) -> None:
        super().__init__(name, [str(digit) for digit in range(10)], records)
        self.images = images
        self.instances = instances
        self.with_masks = with_masks

    def image(self, index: int) -> Tensor:
        """Pixels of a scene, (3, H, W) uint8."""
        return self.images[index]

    def image_digest(self, index: int) -> bytes:
        """The pixels themselves."""
        return self.images[index].numpy().tobytes() + self.instances[index].numpy().tobytes()

    def target(self, index: int) -> dict[str, Tensor]:
        """Ground truth of a scene, with the visible part of every digit as its mask if that was asked for."""
        target = super().target(index)
        if self.with_masks:
            numbers = torch.arange(1, len(target["labels"]) + 1)
            target["masks"] = self.instances[index] == numbers[:, None, None]
        return target


def _enlarge(digits: NDArray[np.int64]) -> NDArray[np.float64]:
    """Enlarge (N, 8, 8) digits of 0 to 16 to (N, 80, 80) ink of 0 to 1, with an empty margin of one original pixel.

    Catmull-Rom interpolation in whole numbers: every weight is a multiple of 1 / 8192, so nothing is rounded.
    """
    size = digits.shape[-1] + 2
    steps = 2 * ENLARGEMENT
    weights = np.zeros((size * ENLARGEMENT, size + 4), dtype=np.int64)
    for row in range(size * ENLARGEMENT):
        cell, t = divmod(2 * row + 1 - ENLARGEMENT, steps)  # t / steps: where between two pixel centres the sample lies
        weights[row, cell + 1 : cell + 5] = (
            -(t**3) + 2 * t**2 * steps - t * steps**2,
            3 * t**3 - 5 * t**2 * steps + 2 * steps**3,
            -3 * t**3 + 4 * t**2 * steps + t * steps**2,
            t**3 - t**2 * steps,
        )
    padded = np.pad(digits, ((0, 0), (3, 3), (3, 3)))
    enlarged = weights @ padded @ weights.T
    return (enlarged / (16.0 * (2 * steps**3) ** 2)).clip(0.0, 1.0)


def _stroke(ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """Opacity of a pen stroke, 0 to 1, from interpolated ink: a soft edge around an opaque middle."""
    return ((ink - 0.4) / 0.2).clip(0.0, 1.0)


@cache
def _glyphs(test: bool) -> tuple[tuple[_Glyph, ...], ...]:
    """The digits of a split, by class."""
    from sklearn.datasets import load_digits  # slow to import, and only this set needs it

    material = load_digits()
    enlarged = _enlarge(material.images.astype(np.int64))
    classes = []
    for label in range(10):
        own = np.flatnonzero(material.target == label)
        chosen = [index for place, index in enumerate(own) if (place % TEST_EVERY == 0) == test]
        classes.append(tuple(_glyph(label, enlarged[index]) for index in chosen))
    return tuple(classes)


def _glyph(label: int, ink: NDArray[np.float64]) -> _Glyph:
    seen = _stroke(ink) >= 0.5
    top, bottom, left, right = _tight(seen)
    return _Glyph(label, ink, top, bottom, left, right)


def _tight(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First row, row after the last, first column and column after the last of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@cache
def photographs(test: bool) -> tuple[Bytes, ...]:
    """The parts of the photographs that belong to a split, each at full and at half size."""
    from sklearn.datasets import load_sample_images

    parts = []
    for photograph in load_sample_images().images:
        part = photograph[:, TEST_FROM_COLUMN:] if test else photograph[:, :TEST_FROM_COLUMN]
        height, width = part.shape[0] // 2 * 2, part.shape[1] // 2 * 2
        quads = part[:height, :width].astype(np.int64).reshape(height // 2, 2, width // 2, 2, 3)
        parts += [part, ((quads.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)]
    return tuple(parts)


class Draws:
    """Random numbers of one scene: uniform draws of PCG64 and what follows from them by arithmetic."""

    def __init__(self, seed: int, test: bool, scene: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64([seed, int(test), scene]))

    def uniform(self, low: float, high: float) -> float:
        """A number from a range."""
        return low + (high - low) * self._generator.random()

    def below(self, count: int) -> int:
        """A whole number from 0, below `count`."""
        return int(self._generator.random() * count)

    def light_colors(self, count: int) -> NDArray[np.int64]:
        """(count, 3) colours without dark ones."""
        return (112 + self._generator.random((count, 3)) * 144).astype(np.int64)


def _background(draws: Draws, photographs: Sequence[Bytes]) -> NDArray[np.int64]:
    """A (SIZE, SIZE, 3) cut of a photograph, mirrored or not, at a quarter to a half of its brightness."""
    photograph = photographs[draws.below(len(photographs))]
    top, left = (draws.below(extent - SIZE + 1) for extent in photograph.shape[:2])
    cut = photograph[top : top + SIZE, left : left + SIZE].astype(np.int64)
    if draws.below(2):
        cut = cut[:, ::-1]
    return cut * (64 + draws.below(65)) // 256


def _draw_glyph(draws: Draws, glyph: _Glyph) -> Bytes:
    """Opacity 0 to 255 of a digit at random height, stretch and angle, cut to the tight box of its mask."""
    share = draws.uniform(0.0, 1.0)
    height = MIN_HEIGHT + (MAX_HEIGHT - MIN_HEIGHT) * share * share  # small ones more often
    scale = height / (glyph.bottom - glyph.top)
    stretch = scale * draws.uniform(0.9, 1.2)
    width = stretch * (glyph.right - glyph.left)
    half_tangent = draws.uniform(-0.08, 0.08)  # of half the angle: up to 9 degrees, and no sine to round differently
    cosine = (1 - half_tangent * half_tangent) / (1 + half_tangent * half_tangent)
    sine = 2 * half_tangent / (1 + half_tangent * half_tangent)
    y = _offsets(cosine * height + abs(sine) * width)[:, None]
    x = _offsets(cosine * width + abs(sine) * height)[None, :]
    row = (cosine * y - sine * x) / scale + (glyph.top + glyph.bottom) / 2 - 0.5
    column = (sine * y + cosine * x) / stretch + (glyph.left + glyph.right) / 2 - 0.5
    opacity = (_stroke(_sample(glyph.ink, row, column)) * 255 + 0.5).astype(np.uint8)
    top, bottom, left, right = _tight(opacity >= 128)
    return opacity[top:bottom, left:right]


def _offsets(extent: float) -> NDArray[np.float64]:
    """Pixel centres around the middle of something of that extent, with one to spare at either end."""
    reach = int(extent / 2) + 1
    return np.arange(-reach, reach + 1, dtype=np.float64)


def _sample(ink: NDArray[np.float64], row: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear interpolation at fractional positions; outside there is as little ink as in the margin: none."""
    last = ink.shape[0] - 1
    row, column = row.clip(0, last), column.clip(0, last)
    i, j = row.astype(np.int64).clip(0, last - 1), column.astype(np.int64).clip(0, last - 1)
    down, right = row - i, column - j
    upper = ink[i, j] * (1 - right) + ink[i, j + 1] * right
    lower = ink[i + 1, j] * (1 - right) + ink[i + 1, j + 1] * right
    sampled: NDArray[np.float64] = upper * (1 - down) + lower * down
    return sampled


def _luminance(color: NDArray[np.int64]) -> NDArray[np.int64]:
    """Luma of ITU-R BT.601 in whole numbers, 0 to 255."""
    return (299 * color[..., 0] + 587 * color[..., 1] + 114 * color[..., 2]) // 1000


def _ink_color(draws: Draws, below: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first of 32 light colours that stands out from the (P, 3) pixels below, or the one that comes closest."""
    colors = draws.light_colors(32)
    contrast = _luminance(colors)[:, None] - _luminance(below)
    weak = (contrast < MIN_CONTRAST).sum(axis=1)
    enough = np.flatnonzero(weak * 10 <= len(below))
    chosen: NDArray[np.int64] = colors[enough[0] if len(enough) else int(weak.argmin())]
    return chosen


class _Scene:
    """A scene while digits are added to it."""

    def __init__(self, background: NDArray[np.int64]) -> None:
        self.pixels = background
        self.instances: Bytes = np.zeros((SIZE, SIZE), dtype=np.uint8)
        self.labels: list[int] = []
        self._boxes: list[Box] = []  # of the whole digits
        self._ink: list[int] = []  # pixels of the whole masks
        self._seen: list[int] = []  # those of them that no later digit hides

    def add(self, draws: Draws, glyph: _Glyph, tries: int = 12) -> None:
        """Draw a digit over the scene where it fits, or leave it away."""
        opacity = _draw_glyph(draws, glyph)
        mask = opacity >= 128
        height, width = mask.shape
        for _ in range(tries):
            top, left = draws.below(SIZE - height + 1), draws.below(SIZE - width + 1)
            window, box = np.s_[top : top + height, left : left + width], (left, top, left + width, top + height)
            hidden = np.bincount(self.instances[window][mask], minlength=len(self.labels) + 1)[1:]
            seen = [before - lost for before, lost in zip(self._seen, hidden.tolist(), strict=True)]
            in_sight = all(rest >= MIN_VISIBLE * ink for rest, ink in zip(seen, self._ink, strict=True))
            if in_sight and all(_box_iou(box, other) <= MAX_BOX_IOU for other in self._boxes):
                self._paint(draws, window, opacity)
                self.labels.append(glyph.label)
                self.instances[window][mask] = len(self.labels)
                self._boxes.append(box)
                self._ink.append(int(mask.sum()))
                self._seen = [*seen, self._ink[-1]]
                return

    def _paint(self, draws: Draws, window: tuple[slice, slice], opacity: Bytes) -> None:
        below = self.pixels[window]
        color = _ink_color(draws, below[opacity >= 128])
        cover = opacity.astype(np.int64)[:, :, None]
        self.pixels[window] = (below * (255 - cover) + color * cover + 127) // 255

    def objects(self) -> list[ObjectRow]:
        """The digits with the tight boxes and the areas of what is seen of them."""
        rows = []
        for number, label in enumerate(self.labels, start=1):
            mask = self.instances == number
            top, bottom, left, right = _tight(mask)
            box = (float(left), float(top), float(right), float(bottom))
            rows.append(ObjectRow(box, label, False, float(mask.sum())))
        return rows


def _box_iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union


def _compose(seed: int, test: bool, scene: int) -> _Scene:
    draws = Draws(seed, test, scene)
    result = _Scene(_background(draws, photographs(test)))
    glyphs = _glyphs(test)
    for _ in range(1 + max(draws.below(MAX_DIGITS), draws.below(MAX_DIGITS))):  # well filled scenes more often
        own = glyphs[draws.below(len(glyphs))]
        result.add(draws, own[draws.below(len(own))])
    return result


def _split(seed: int, test: bool, count: int, with_masks: bool) -> DigitSplit:
    name = "test" if test else "train"
    images = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    instances = np.empty((count, SIZE, SIZE), dtype=np.uint8)
    records = []
    for index in range(count):
        scene = _compose(seed, test, index)
        images[index] = scene.pixels.transpose(2, 0, 1)
        instances[index] = scene.instances
        name_of_scene = f"digits-{name}-{index:05d}"
        records.append(ImageRecord.from_rows(index + 1, name_of_scene, SIZE, SIZE, scene.objects()))
    return DigitSplit(name, records, torch.from_numpy(images), torch.from_numpy(instances), with_masks)


def load_digit_scenes(
    seed: int = 0, *, train_scenes: int = 1200, test_scenes: int = 300, masks: bool = False
) -> DetectionData:
    """Compose the built-in detection set: handwritten digits on photographs, ten classes.

    Args:
        seed: of the composition. Which digits and which parts of the photographs are for testing does not depend on it.
        train_scenes: number of scenes to train on.
        test_scenes: number of scenes to score on.
        masks: whether targets hold ``masks`` (G, H, W) bool, the visible part of every digit.

    Returns:
        The data. Scene k is the same however many there are.

    Example:
        >>> data = load_digit_scenes(train_scenes=2, test_scenes=1, masks=True)
        >>> sample = data.train[0]
        >>> sample.image.shape, sample.target["masks"].shape[1:]
        (torch.Size([3, 128, 128]), torch.Size([128, 128]))
    """
    splits = _split(seed, False, train_scenes, masks), _split(seed, True, test_scenes, masks)
    return DetectionData("digits", *splits, splits[0].class_names, fingerprint(splits), flips=False)
