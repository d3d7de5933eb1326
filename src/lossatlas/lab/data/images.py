"""Image files: where they are, what their headers say, their pixels, and a cache of decoded ones.

Pixels are taken as they are stored: the orientation tag of EXIF is not applied, because COCO's boxes are drawn against
the stored pixels. Transparency is ignored. Pictures with 16 bits keep the upper 8 of them, the same for every picture.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lossatlas.lab.data.problems import DataError, Kind, Problem

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
"""Endings of the names of image files."""

EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})

CACHE_BYTES = 1 << 30
"""Default size of an `ImageCache`: about 4600 pictures of 320 x 240."""


class UndecodableImageError(Exception):
    """An image file whose pixels cannot be had; the message says why."""


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder and those below it, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UndecodableImageError(str(error)) from error
    if image.mode not in EIGHT_BIT_MODES | SIXTEEN_BIT_MODES:
        image.close()
        raise UndecodableImageError(f"pixels of the kind {image.mode!r}, expected 8 or 16 bits a channel")
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that an image file declares in its header; the pixels are not decoded.

    Args:
        path: the file.

    Returns:
        Columns and rows of the stored pixels.

    Raises:
        UndecodableImageError: if this is no image, or one of a kind that `read_image` does not take.
    """
    with _open(path) as image:
        return image.size


def read_image(path: Path) -> Tensor:
    """Decode an image file.

    Args:
        path: the file; grey, palette, RGB, RGBA, CMYK or 16-bit grey.

    Returns:
        (3, H, W) uint8, red, green, blue.

    Raises:
        UndecodableImageError: if the file cannot be decoded.
    """
    with _open(path) as image:
        _load(image)
        if image.mode in SIXTEEN_BIT_MODES:
            grey = (np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8)
            return torch.from_numpy(grey).expand(3, -1, -1).contiguous()
        # A palette with transparency cannot lose it in one step.
        opaque = image.convert("RGBA") if "transparency" in image.info else image
        pixels = np.array(opaque.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_numbers(path: Path) -> NDArray[np.int64]:
    """Decode an image file whose pixels are numbers, such as a mask of class indices or of instances.

    Args:
        path: the file; bilevel, 8-bit grey, palette (its indices), 16- or 32-bit grey, or a picture whose channels are
            all alike.

    Returns:
        (H, W) the stored numbers.

    Raises:
        UndecodableImageError: if the file cannot be decoded, or its channels differ.
    """
    with _open(path) as image:
        _load(image)
        pixels = np.asarray(image)
        last_is_color = image.mode not in ("LA", "PA", "RGBA", "RGBX")
    if pixels.ndim == 3:
        colors = pixels if last_is_color else pixels[..., :-1]
        if (colors != colors[..., :1]).any():
            raise UndecodableImageError("a picture in colours, expected one number at each pixel")
        pixels = colors[..., 0]
    return pixels.astype(np.int64)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise UndecodableImageError(str(error)) from error


class ImageCache:
    """Decoded images in memory, up to a number of bytes.

    Once full it keeps what it has: an epoch visits every image once, so throwing out the oldest would throw out every
    image just before it is needed again.

    Args:
        max_bytes: how much the images may occupy together.

    Example:
        >>> cache = ImageCache(max_bytes=12)
        >>> for name in ("a.png", "b.png"):
        ...     cache.add(name, torch.zeros(3, 2, 2, dtype=torch.uint8))
        >>> cache.get("a.png") is None, cache.get("b.png") is None
        (False, True)
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._used = 0
        self._images: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable) -> Tensor | None:
        """An image by its path, or whatever it was added by; None if it is not held."""
        return self._images.get(key)

    def add(self, key: Hashable, image: Tensor) -> None:
        """Hold an image, if there is room."""
        if key not in self._images and self._used + image.nbytes <= self.max_bytes:
            self._images[key] = image
            self._used += image.nbytes


class ImageFiles:
    """The image files of a split, decoded when they are asked for.

    Args:
        paths: the file of every image.
        image_ids: the id of every image.
        cache_bytes: how much decoded images may occupy in memory.
    """

    def __init__(self, paths: Sequence[Path], image_ids: Sequence[int], cache_bytes: int = CACHE_BYTES) -> None:
        self.paths = tuple(paths)
        self._image_ids = tuple(image_ids)
        self._cache = ImageCache(cache_bytes)

    def __getitem__(self, index: int) -> Tensor:
        """Pixels of an image, (3, H, W) uint8; a file that cannot be decoded raises `DataError`."""
        path = self.paths[index]
        image = self._cache.get(path)
        if image is None:
            try:
                image = read_image(path)
            except UndecodableImageError as error:
                problem = Problem(Kind.UNDECODABLE_IMAGE, str(path), str(error), self._image_ids[index])
                raise DataError([problem]) from error
            self._cache.add(path, image)
        return image

    def digest(self, index: int) -> bytes:
        """Size of the file in bytes: another picture hardly ever compresses to the same."""
        return str(self.paths[index].stat().st_size).encode()
