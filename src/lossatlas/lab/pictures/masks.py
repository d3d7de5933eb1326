"""Test images with the true class of every pixel beside what each variant predicts, errors in colours of their own."""

import base64
import colorsys
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lossatlas.lab.class_maps import ClassMap, ClassMaps
from lossatlas.lab.data.segmentation import VOID, SegmentationSplit
from lossatlas.lab.mask_scores import evaluate_masks
from lossatlas.lab.pictures.picture import MAX_SIDE, Panel, Picture, choose, text_unit

Color = tuple[int, int, int, int]

RIGHT, EXTRA, MISSED, SWAPPED, UNKNOWN = range(1, 6)
COLORS: Mapping[int, Color] = {
    RIGHT: (86, 180, 233, 105),
    EXTRA: (255, 138, 31, 225),
    MISSED: (247, 233, 74, 225),
    SWAPPED: (226, 77, 176, 225),
    UNKNOWN: (150, 156, 168, 190),
}
"""Red, green, blue and opacity of what a pixel is; the style sheet has the same, for the legend."""

CLASS_OPACITY = 150
MAX_LABELS = 10
MAX_LETTERS = 18
LETTER = 4.2
"""Height of letters in the style sheet's units."""
SMALLEST_LABELLED = 0.002
"""The part of an image that a region with a name over it fills, at least."""


def has_background(class_names: Sequence[str]) -> bool:
    """Say whether the first class is what lies behind the others, so that pixels are found or missed."""
    return class_names[0].lower().strip("_ ") in {"background", "bg", "unlabeled", "unlabelled", "none", "other"}


def outcomes(truth: ClassMap, predicted: ClassMap, background: bool) -> NDArray[np.uint8]:
    """Say what each pixel is: 0 for background that is found, or one of the keys of `COLORS`.

    Args:
        truth: (H, W) true classes, or `VOID`.
        predicted: (H, W) predicted classes.
        background: whether class 0 lies behind the others.

    Example:
        >>> truth, predicted = np.array([0, 0, 1, 1, 1, VOID]), np.array([0, 1, 0, 1, 2, 1])
        >>> outcomes(truth, predicted, background=True).tolist()
        [0, 2, 3, 1, 4, 5]
    """
    found = np.where(truth == predicted, RIGHT, SWAPPED)
    if background:
        found[(truth == 0) & (predicted == 0)] = 0
        found[(truth == 0) & (predicted != 0)] = EXTRA
        found[(truth != 0) & (predicted == 0)] = MISSED
    found[truth == VOID] = UNKNOWN
    return found.astype(np.uint8)


def draw_masks(
    split: SegmentationSplit, predictions: Mapping[str, Sequence[Mapping[str, Any]]], class_names: Sequence[str]
) -> list[Picture]:
    """Prepare the images of a report.

    Args:
        split: the images.
        predictions: rows of each variant, by its name, as `lossatlas.lab.class_maps.encode_rows` makes them.
        class_names: the name of every class.

    Returns:
        One picture for each image that `choose` chooses.
    """
    trials = {name: ClassMaps(rows, split) for name, rows in predictions.items()}
    mistakes = []
    for index in range(len(split)):
        truth = split.mask(index).numpy()
        known = max(1, int((truth != VOID).sum()))
        mistakes.append([((found[index] != truth) & (truth != VOID)).sum() / known for found in trials.values()])
    pictures = []
    for index, reason in choose(mistakes):
        truth = split.mask(index).numpy()
        panels = [_truth(truth, class_names)]
        panels += [
            _prediction(name, truth, found[index], share, class_names)
            for (name, found), share in zip(trials.items(), mistakes[index], strict=True)
        ]
        pictures.append(Picture.of(split[index], index, reason, panels))
    return pictures


def _truth(truth: ClassMap, class_names: Sequence[str]) -> Panel:
    first = 1 if has_background(class_names) else 0
    colors = {label: class_color(label) for label in range(first, len(class_names))} | {VOID: COLORS[UNKNOWN]}
    shown = [label for label in np.unique(truth).tolist() if label >= first]
    return Panel(
        "ground truth", _names(shown, class_names), _overlay(truth, colors) + _labels(truth, shown, class_names)
    )


def _prediction(name: str, truth: ClassMap, found: ClassMap, share: float, class_names: Sequence[str]) -> Panel:
    kinds = outcomes(truth, found, has_background(class_names))
    scores = evaluate_masks([(truth, found)], class_names)
    caption = f"{100 * share:.1f} % of pixels wrong" + (f", mIoU {scores['mIoU']:.2f}" if "mIoU" in scores else "")
    wrong = np.where((kinds == SWAPPED) | (kinds == EXTRA), found, VOID)
    shown = [label for label in np.unique(wrong).tolist() if label != VOID]
    return Panel(name, caption, _overlay(kinds, COLORS) + _labels(wrong, shown, class_names))


def _names(shown: Sequence[int], class_names: Sequence[str], limit: int = 5) -> str:
    if not shown:
        return "nothing but background"
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(class_names[label] for label in shown[:limit]) + more


def class_color(label: int) -> Color:
    """Return a colour for a class that differs from those of its neighbours."""
    red, green, blue = colorsys.hsv_to_rgb((0.36 + (label - 1) * 0.618034) % 1.0, 0.7, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255), CLASS_OPACITY


def _overlay(values: NDArray[Any], colors: Mapping[int, Color]) -> Markup:
    """Return a picture that covers the image, transparent where a value has no colour."""
    height, width = values.shape
    step = -(-max(height, width) // MAX_SIDE)
    small = values[::step, ::step]
    pixels = np.zeros((*small.shape, 4), dtype=np.uint8)
    for value in np.unique(small).tolist():
        if value in colors:
            pixels[small == value] = colors[value]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Markup('<image class="mask" href="{}" width="{}" height="{}" preserveAspectRatio="none"/>').format(
        uri, width, height
    )


def _labels(values: NDArray[Any], shown: Sequence[int], class_names: Sequence[str]) -> Markup:
    """Return the names of classes over their largest regions, nothing where there are but two classes.

    A name that would cover another one is left out.
    """
    if len(class_names) <= 2:
        return Markup("")
    height, width = values.shape
    line = LETTER * text_unit(width, height)
    texts: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for label, center_x, center_y in _regions(values, shown):
        name = class_names[label]
        name = name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1] + "…"
        half = 0.3 * line * len(name)
        x = min(max(center_x, half), max(width - half, width / 2))
        y = min(max(center_y, 0.6 * line), max(height - 0.6 * line, height / 2))
        if all(abs(x - i) > half + reach or abs(y - j) > 1.2 * line for i, j, reach in taken):
            taken.append((x, y, half))
            text = '<text class="box-label truth" x="{:.1f}" y="{:.1f}" dy="0.35em" text-anchor="middle">{}</text>'
            texts.append(Markup(text).format(x, y, name))
    return Markup("").join(texts)


def _regions(values: NDArray[Any], shown: Sequence[int]) -> list[tuple[int, float, float]]:
    """Return the class and the centre x, y of the largest regions of the shown classes, the largest first."""
    found: list[tuple[int, int, float, float]] = []
    for label in shown:
        parts, count = ndimage.label(values == label)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        for part in np.flatnonzero(sizes >= SMALLEST_LABELLED * values.size):
            y, x = ndimage.center_of_mass(parts == part + 1)
            found.append((int(sizes[part]), label, x + 0.5, y + 0.5))
    return [(label, x, y) for _, label, x, y in sorted(found, reverse=True)[:MAX_LABELS]]
