"""The built-in data for pose: scenes of jointed figures that stand, wave and hide each other, composed from a seed.

A scene shows 1 to 4 figures, 62 to 132 pixels high, in front of a part of a photograph. They face the viewer, so that
left and right can be told, and have the joints of COCO's people, with a neck and without eyes and ears. Every figure
has its own build, pose and clothes. Of those behind, joints that another figure covers are labelled as hidden, and
at least `MIN_SEEN` of the joints are seen; some figures are cut by the edge of the picture, and joints beyond it are
not labelled.

A figure is drawn joint by joint as rounded shapes with soft edges, whose pixels follow from the distance to a line
between two joints. Train and test share no part of a photograph. The same seed gives the same scenes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.lab.data.dataset import ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.digits import Draws, photographs
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit
from lossatlas.lab.data.skeleton import mirrored_pairs
from lossatlas.targets.skeletons import Skeleton

SIZE = 192
"""Height and width of a scene in pixels."""
MAX_FIGURES = 4
"""Figures in a scene, at most."""
MIN_HEIGHT, MAX_HEIGHT = 62.0, 132.0
"""Height of a figure that stands upright, in pixels."""
MIN_SEEN = 0.6
"""The part of a figure's joints that is seen, at least."""

_JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_NAMES = ("nose", "neck", *(f"{side}_{joint}" for joint in _JOINTS for side in ("left", "right")))

SKELETON = Skeleton(
    "figure",
    _NAMES,
    ((0, 1), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (1, 8), (1, 9), (8, 10), (9, 11), (10, 12), (11, 13)),
    mirrored=mirrored_pairs(_NAMES),
    sigmas=(0.026, 0.079, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    order=(1, 0, *range(2, 14)),
)
"""COCO's sigmas, and for the neck those of the shoulders."""

Array = NDArray[np.float64]
Color = Array

_NOSE, _NECK = 0, 1
_LEFT, _RIGHT = (2, 4, 6, 8, 10, 12), (3, 5, 7, 9, 11, 13)  # shoulder, elbow, wrist, hip, knee, ankle
_SKIN = np.array([[247, 214, 186], [233, 190, 155], [205, 155, 112], [160, 110, 75], [112, 74, 50]], dtype=float)
_HAIR = np.array([[35, 28, 25], [78, 50, 32], [130, 88, 45], [205, 168, 100], [120, 118, 120]], dtype=float)
_OUTLINE = np.array([18.0, 18.0, 24.0])
_TRIES = 12


class _Bar(NamedTuple):
    """A rounded bar between two points, thicker or thinner towards its end."""

    start: Array
    end: Array
    radii: tuple[float, float]
    color: Color

    def offset(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Return how far points lie from the middle line, along x and along y, and how thick the bar is there."""
        x, y = x - self.start[0], y - self.start[1]
        along = self.end - self.start
        part = ((x * along[0] + y * along[1]) / max(float(along @ along), 1e-9)).clip(0, 1)
        return x - part * along[0], y - part * along[1], self.radii[0] + (self.radii[1] - self.radii[0]) * part

    def covers(self, points: Array, line: float) -> NDArray[np.bool_]:
        """Say which of (K, 2) points lie under the bar and a line of some width around it."""
        off_x, off_y, thickness = self.offset(points[:, 0], points[:, 1])
        covered: NDArray[np.bool_] = np.hypot(off_x, off_y) <= thickness + line
        return covered


@dataclass
class _Canvas:
    """Pixels of a scene while figures are drawn on it, and which figure each of them shows."""

    pixels: Array
    owner: NDArray[np.int64] = field(default_factory=lambda: np.full((SIZE, SIZE), -1, dtype=np.int64))

    def draw(self, bars: Sequence[_Bar], line: float, owner: int) -> None:
        """Draw the bars of a figure, from back to front, lit from the left and above, with a line around them all."""
        drawn = [found for found in (self._measure(bar, line) for bar in bars) if found is not None]
        for window, depth, _, _ in drawn:
            self._blend(window, (depth + line).clip(0, 1), _OUTLINE)
            self.owner[window][depth + line >= 0.5] = owner
        for window, depth, light, color in drawn:
            self._blend(window, depth.clip(0, 1), color * light)

    def _measure(self, bar: _Bar, line: float) -> tuple[tuple[slice, slice], Array, Array, Color] | None:
        """Return the window that a bar fills, how deep each pixel lies in it, how it is lit, and its colour."""
        reach = max(bar.radii) + line + 1
        left, top = (int(max(0, v)) for v in np.floor(np.minimum(bar.start, bar.end) - reach))
        right, bottom = (int(min(SIZE, v)) for v in np.ceil(np.maximum(bar.start, bar.end) + reach))
        if left >= right or top >= bottom:
            return None
        x, y = np.arange(left, right, dtype=np.float64) + 0.5, np.arange(top, bottom, dtype=np.float64)[:, None] + 0.5
        off_x, off_y, thickness = bar.offset(x, y)
        light = 1 - 0.22 * ((off_x + off_y) / (1.5 * thickness)).clip(-1, 1)
        return np.s_[top:bottom, left:right], thickness + 0.5 - np.hypot(off_x, off_y), light[..., None], bar.color

    def _blend(self, window: tuple[slice, slice], cover: Array, color: Array) -> None:
        self.pixels[window] += cover[..., None] * (color - self.pixels[window])


@dataclass(frozen=True)
class _Figure:
    """A figure with its pose: joints around a place between the hips, and the looks of its parts."""

    joints: Array  # (K, 2)
    height: float
    skin: Color
    hair: Color
    shirt: Color
    trousers: Color
    shoes: Color
    long_sleeves: bool
    long_legs: bool
    long_hair: bool

    @property
    def line(self) -> float:
        """Width of the dark line around the figure."""
        return max(1.0, 0.011 * self.height)

    def bars(self, place: Array) -> list[_Bar]:
        """The bars that the figure consists of at a place in a scene, from back to front."""
        joints, bars = self.joints + place, []

        def add(start: Array, end: Array, thick: float, thin: float, color: Color) -> None:
            bars.append(_Bar(start, end, (thick * self.height, thin * self.height), color))

        up = joints[_NOSE] - joints[_NECK]
        up = up / np.hypot(*up)
        if self.long_hair:
            add(joints[_NOSE], joints[_NECK], 0.075, 0.06, self.hair)
        for side, outward in ((_LEFT, 1), (_RIGHT, -1)):
            hip, knee, ankle = (joints[side[place]] for place in (3, 4, 5))
            add(knee, ankle, 0.036, 0.026, self.trousers if self.long_legs else self.skin)
            add(ankle, ankle + np.array([0.018 * outward, 0.025]) * self.height, 0.028, 0.03, self.shoes)
            add(hip, knee, 0.052, 0.038, self.trousers)
        left_shoulder, right_shoulder = joints[_LEFT[0]], joints[_RIGHT[0]]
        left_hip, right_hip = joints[_LEFT[3]], joints[_RIGHT[3]]
        add(joints[_NECK], joints[_NOSE], 0.03, 0.03, self.skin)
        add(left_hip, right_hip, 0.055, 0.055, self.trousers)
        for part in (0.1, 0.3, 0.5, 0.7, 0.9):  # the trunk is a fan between the shoulders and the hips
            shoulder = left_shoulder + (right_shoulder - left_shoulder) * part
            hip = left_hip + (right_hip - left_hip) * part
            add(shoulder, hip + (shoulder - hip) * 0.12, 0.05, 0.048, self.shirt)
        for side in (_LEFT, _RIGHT):
            shoulder, elbow, wrist = (joints[side[place]] for place in (0, 1, 2))
            hand = wrist + (wrist - elbow) * 0.12
            add(hand, hand, 0.032, 0.032, self.skin)
            add(elbow, wrist, 0.031, 0.025, self.shirt if self.long_sleeves else self.skin)
            add(shoulder, elbow, 0.043, 0.033, self.shirt)
        return bars + self._head(joints[_NOSE], up)

    def _head(self, nose: Array, up: Array) -> list[_Bar]:
        """The bars of the head around the nose; `up` leads from the neck to it and has length 1."""
        size = 0.072 * self.height
        right = np.array([-up[1], up[0]])

        def bar(start: tuple[float, float], end: tuple[float, float], thick: float, thin: float, color: Color) -> _Bar:
            """A bar between two points that are given to the right of the nose and above it, in sizes of the head."""
            ends = [nose + size * (x * right + y * up) for x, y in (start, end)]
            return _Bar(ends[0], ends[1], (thick * size, thin * size), color)

        return [
            bar((0, 0.12), (0, 0.3), 1, 0.95, self.hair),
            bar((0, -0.25), (0, 0), 0.78, 0.84, self.skin),
            bar((-0.36, 0.22), (-0.36, 0.22), 0.13, 0.13, _OUTLINE),
            bar((0.36, 0.22), (0.36, 0.22), 0.13, 0.13, _OUTLINE),
            bar((-0.25, -0.5), (0.25, -0.5), 0.07, 0.07, self.skin * 0.45),
            bar((0, 0), (0, -0.12), 0.08, 0.12, self.skin * 0.82),
        ]


class _Draws(Draws):
    """Random numbers of one scene."""

    def among(self, rows: Array) -> Array:
        chosen: Array = rows[self.below(len(rows))] * self.uniform(0.9, 1.05)
        return chosen.clip(0, 255)

    def cloth(self) -> Color:
        """A colour of any hue, paler or deeper, lighter or darker."""
        hue, pale, light = self.uniform(0, 6), self.uniform(0.1, 0.75), self.uniform(70, 235)
        rainbow = np.array([abs(hue - 3) - 1, 2 - abs(hue - 2), 2 - abs(hue - 4)]).clip(0, 1)
        color: Color = light * (pale + (1 - pale) * rainbow)
        return color


def _down(degrees: float) -> Array:
    """The direction that leads from down by an angle towards the right of the picture."""
    angle = np.deg2rad(degrees)
    return np.array([np.sin(angle), np.cos(angle)])


def _figure(draws: _Draws) -> _Figure:
    share = draws.uniform(0, 1)
    height = MIN_HEIGHT + (MAX_HEIGHT - MIN_HEIGHT) * share
    lean = draws.uniform(-14, 14)
    build = draws.uniform(0.9, 1.12)
    joints = np.zeros((len(SKELETON), 2))
    spine = -_down(lean)  # upwards
    across = np.array([-spine[1], spine[0]])  # towards the figure's left, which is right in the picture
    joints[_NECK] = spine * 0.29
    joints[_NOSE] = joints[_NECK] - _down(lean + draws.uniform(-14, 14)) * 0.115
    for side, direction in ((_LEFT, 1.0), (_RIGHT, -1.0)):
        shoulder = joints[_NECK] + across * direction * 0.095 * build - spine * 0.02
        raised = draws.uniform(5, 65) if draws.uniform(0, 1) < 0.6 else draws.uniform(65, 165)
        bent = raised + draws.uniform(-25, 110) * (1 if raised > 40 else -0.5)
        elbow = shoulder + _down(direction * raised + lean) * 0.155
        hip = across * direction * 0.062 * build
        spread = draws.uniform(-6, 34) if draws.uniform(0, 1) < 0.8 else draws.uniform(30, 70)
        knee = hip + _down(direction * spread + lean * 0.4) * 0.225
        shin = draws.uniform(-45, 12) if spread > 20 else draws.uniform(-12, 10)
        joints[list(side)] = (
            shoulder,
            elbow,
            elbow + _down(direction * bent + lean) * 0.145,
            hip,
            knee,
            knee + _down(direction * (spread + shin)) * 0.22,
        )
    return _Figure(
        joints=joints * height,
        height=height,
        skin=draws.among(_SKIN),
        hair=draws.among(_HAIR),
        shirt=draws.cloth(),
        trousers=draws.cloth() * 0.75,
        shoes=draws.cloth() * 0.5,
        long_sleeves=draws.below(2) == 1,
        long_legs=draws.below(3) > 0,
        long_hair=draws.below(3) == 0,
    )


@cache
def _scaled_photographs(test: bool) -> tuple[NDArray[np.uint8], ...]:
    """The parts of the photographs of a split that are large enough for a scene."""
    return tuple(part for part in photographs(test) if min(part.shape[:2]) >= SIZE)


def _background(draws: _Draws, test: bool) -> Array:
    """A cut of a photograph, mirrored or not, dimmer and with less contrast than what stands in front of it."""
    parts = _scaled_photographs(test)
    part = parts[draws.below(len(parts))]
    top, left = (draws.below(extent - SIZE + 1) for extent in part.shape[:2])
    cut = part[top : top + SIZE, left : left + SIZE].astype(np.float64)
    if draws.below(2):
        cut = cut[:, ::-1]
    return 40 + draws.uniform(0.25, 0.55) * cut


def _place(draws: _Draws, figure: _Figure) -> Array:
    """A place for a figure: inside the scene as a rule, but one in six may be cut by the edge."""
    low, high = figure.joints.min(axis=0), figure.joints.max(axis=0)
    margin = 0.09 * figure.height
    beyond = 0.3 * (high - low) if draws.below(6) == 0 else -margin
    first, last = -low - beyond, SIZE - high + beyond
    chance = np.array([draws.uniform(0, 1), draws.uniform(0, 1)])
    place: Array = np.where(first < last, first + (last - first) * chance, (first + last) / 2)
    return place


def _compose(seed: int, test: bool, scene: int) -> tuple[Array, list[ObjectRow], list[Array]]:
    """Return the pixels of a scene, its figures, and x, y and visibility of their joints."""
    draws = _Draws(seed, test, scene)
    canvas = _Canvas(_background(draws, test))
    placed: list[Array] = []  # the joints of each figure
    hidden: list[NDArray[np.bool_]] = []  # which of them a later figure covers
    for _ in range(1 + draws.below(MAX_FIGURES)):
        figure = _figure(draws)
        for _ in range(_TRIES):
            place = _place(draws, figure)
            bars = figure.bars(place)
            covered = [
                before | np.any([bar.covers(joints, figure.line) for bar in bars], axis=0)
                for joints, before in zip(placed, hidden, strict=True)
            ]
            joints = [*placed, figure.joints + place]
            covered.append(np.zeros(len(SKELETON), dtype=bool))
            if all((_inside(own) & ~under).mean() >= MIN_SEEN for own, under in zip(joints, covered, strict=True)):
                canvas.draw(bars, figure.line, len(placed))
                placed, hidden = joints, covered
                break
    people = [
        np.column_stack([joints, np.where(_inside(joints), np.where(under, 1, 2), 0)])
        for joints, under in zip(placed, hidden, strict=True)
    ]
    return canvas.pixels, [_row(canvas.owner == owner) for owner in range(len(placed))], people


def _inside(joints: Array) -> NDArray[np.bool_]:
    inside = (joints >= 0) & (joints < SIZE)
    both: NDArray[np.bool_] = inside[:, 0] & inside[:, 1]
    return both


def _row(seen: NDArray[np.bool_]) -> ObjectRow:
    """A figure by the pixels that are seen of it."""
    columns, lines = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    box = (float(columns[0]), float(lines[0]), float(columns[-1] + 1), float(lines[-1] + 1))
    return ObjectRow(box, 0, False, float(seen.sum()))


class FigureSplit(PoseSplit):
    """Composed scenes, held in memory.

    Args:
        name: ``"train"`` or ``"test"``.
        records: one for every scene.
        images: (N, 3, H, W) uint8.
    """

    def __init__(self, name: str, records: Sequence[PoseRecord], images: Tensor) -> None:
        super().__init__(name, ["figure"], records)
        self.skeleton = SKELETON
        self.images = images

    def image(self, index: int) -> Tensor:
        """Pixels of a scene, (3, H, W) uint8."""
        return self.images[index]

    def image_digest(self, index: int) -> bytes:
        """The pixels themselves."""
        return self.images[index].numpy().tobytes()


def _split(seed: int, test: bool, count: int) -> FigureSplit:
    name = "test" if test else "train"
    images = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    records = []
    for scene in range(count):
        pixels, rows, people = _compose(seed, test, scene)
        images[scene] = (pixels + 0.5).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)
        record = ImageRecord.from_rows(scene + 1, f"figures-{name}-{scene:05d}", SIZE, SIZE, rows)
        records.append(PoseRecord.of(record, np.stack(people), len(SKELETON)))
    return FigureSplit(name, records, torch.from_numpy(images))


def load_figures(seed: int = 0, *, train_scenes: int = 600, test_scenes: int = 150) -> PoseData:
    """Compose the built-in set for pose: jointed figures, several in a picture, that hide each other.

    Args:
        seed: of the composition.
        train_scenes: number of scenes to train on.
        test_scenes: number of scenes to score on.

    Returns:
        The data. Scene k is the same however many there are.

    Example:
        >>> data = load_figures(train_scenes=2, test_scenes=1)
        >>> data.train[0].image.shape, data.train[0].target["keypoints"].shape[1:]
        (torch.Size([3, 192, 192]), torch.Size([14, 3]))
    """
    splits = _split(seed, False, train_scenes), _split(seed, True, test_scenes)
    return PoseData("figures", *splits, splits[0].class_names, fingerprint(splits))
