"""Images of a report with a panel for the ground truth and one for each variant."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from lossatlas.lab.data import Sample

MOST_DIFFERENT = 4
AT_RANDOM = 4
MAX_SIDE = 640


@dataclass(frozen=True)
class Panel:
    """An image with what is drawn over it.

    Args:
        name: of the variant, or ``"ground truth"``.
        caption: what there is to see, in a few words.
        overlay: SVG elements, in pixels of the image; their colours are classes of the style sheet.
    """

    name: str
    caption: str
    overlay: Markup


@dataclass(frozen=True)
class Picture:
    """An image with its panels, as the template of the report takes it.

    Args:
        key: id in the page.
        title: such as the name of its file.
        reason: why it is shown.
        uri: the image as a data URI.
        width: in pixels.
        height: in pixels.
        panels: drawn over it.
    """

    key: str
    title: str
    reason: str
    uri: str
    width: int
    height: int
    panels: Sequence[Panel]

    @property
    def unit(self) -> float:
        """What sizes of letters and lines are given in."""
        return text_unit(self.width, self.height)

    @classmethod
    def of(cls, sample: Sample, index: int, reason: str, panels: Sequence[Panel]) -> "Picture":
        """Return the picture of a sample, which is number `index` of its split."""
        height, width = sample.image.shape[-2:]
        return cls(f"image{index}", sample.file_name, reason, image_uri(sample.image), width, height, panels)


def text_unit(width: int, height: int) -> float:
    """Return the pixels of an image that are about 3.6 of the screen where a panel shows it; letters have 4.2 units.

    The style sheet makes a panel some 360 pixels wide, a wide one 90 pixels high and at most as wide as the page.

    Example:
        >>> text_unit(320, 240), text_unit(300, 20)
        (3.2, 0.822)
    """
    return min(max(width, height) / 100, round(max(0.034 * height, 0.00274 * width), 3))


def choose(mistakes: Sequence[Sequence[float]]) -> list[tuple[int, str]]:
    """Choose the images to show: where the variants differ most, and some at random with a fixed seed.

    Args:
        mistakes: for each image, how wrong each variant is about it.

    Returns:
        Numbers of images with the reason for each; no image twice.

    Example:
        >>> choose([[1, 1], [0, 3]])
        [(1, 'variants differ'), (0, 'at random')]
    """
    table = np.array(mistakes, dtype=np.float64).reshape(len(mistakes), -1)
    spread = table.max(axis=1) - table.min(axis=1)
    order = np.argsort(-spread, kind="stable")[:MOST_DIFFERENT]
    chosen = {int(index): "variants differ" for index in order if spread[index] > 0}
    for index in np.random.default_rng(0).permutation(len(table)):
        if len(chosen) >= min(len(table), MOST_DIFFERENT + AT_RANDOM):
            break
        chosen.setdefault(int(index), "at random")
    return list(chosen.items())


def image_uri(image: Tensor) -> str:
    """Return an image as a data URI, scaled down to at most 640 pixels a side.

    Args:
        image: (3, H, W) uint8.

    Returns:
        A JPEG, as ``data:image/jpeg;base64,...``.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
