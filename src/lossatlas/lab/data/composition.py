"""Scenes of several animals, composed of images that show one each in front of black: who is who is known exactly.

A scene holds the whole of a few images, each turned by any angle and put at a random place, one over the other by the
maximum of their pixels, as glowing or translucent bodies on a dark ground add up. Keypoints move with the pixels. An
animal is put where few of its keypoints come close to those of another one, so that bodies touch and legs cross but no
animal lies on top of another. Scenes to train on are composed of the training images alone, and so for the test.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossatlas.lab.data.dataset import ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.images import ImageCache
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit
from lossatlas.lab.data.turning import Turn

TRAIN_SCENES, TEST_SCENES = 1000, 100
SCENE_SIDE = 1.5
"""Side of a scene, in sides of an image."""
DARK = 32
"""Of 255: at least half of the pixels of an image must be no lighter, or its maximum with another hides that one."""

_NEAR = 0.05  # of the side of an image: where two keypoints count as one over the other
_CLEAR = 0.1  # the part of an animal's keypoints that may be so, if there is a better place nowhere
_TRIES = 20
_MARGIN = 2.0  # pixels between the outermost keypoint and the edge of the scene


class Placement(NamedTuple):
    """Where an image lies in a scene.

    Args:
        image: its index in its split.
        turn: how it is turned and where it is put.
    """

    image: int
    turn: Turn


@dataclass(frozen=True)
class _Animal:
    """The one animal of an image: where its labelled keypoints are, (K', 2), and the middle of them."""

    image: int
    points: Tensor
    middle: tuple[float, float]

    @classmethod
    def of(cls, image: int, record: PoseRecord) -> "_Animal":
        points = _labelled(record.keypoints[0])
        x, y = ((points.amin(0) + points.amax(0)) / 2).tolist()
        return cls(image, points, (x, y))


def _labelled(keypoints: Tensor) -> Tensor:
    return keypoints[keypoints[:, 2] > 0, :2]


class ComposedSplit(PoseSplit):
    """Scenes that are composed when they are asked for.

    Args:
        base: the images that they are composed of.
        side: height and width of a scene.
        scenes: what each is composed of.
    """

    def __init__(self, base: PoseSplit, side: int, scenes: list[list[Placement]]) -> None:
        self._base, self._side, self._scenes = base, side, scenes
        self._cache = ImageCache()
        records = [self._record(number, placements) for number, placements in enumerate(scenes, start=1)]
        super().__init__(base.name, base.class_names, records)
        self.skeleton = base.skeleton

    def image(self, index: int) -> Tensor:
        """Pixels of a scene, (3, H, W) uint8. It may be shared with a cache: do not change it in place."""
        scene = self._cache.get(index)
        if scene is None:
            scene = self._compose(self._scenes[index])
            self._cache.add(index, scene)
        return scene

    def _compose(self, placements: list[Placement]) -> Tensor:
        animals = [_above_ground(self._base.image(placement.image)) for placement in placements]
        if all(animal[:1].expand(3, -1, -1).equal(animal) for animal in animals):
            animals = [animal[:1] for animal in animals]  # grey: one channel is enough
        size = (self._side, self._side)
        turned = [place.turn.picture(animal, size) for place, animal in zip(placements, animals, strict=True)]
        scene = torch.stack(turned).amax(0).round().to(torch.uint8)
        return scene.expand(3, -1, -1).contiguous()

    def image_digest(self, index: int) -> bytes:
        """What a scene is composed of, and how."""
        placements = self._scenes[index]
        return repr(placements).encode() + b"".join(self._base.image_digest(place.image) for place in placements)

    def _record(self, number: int, placements: list[Placement]) -> PoseRecord:
        rows, people = [], []
        for placement in placements:
            record = self._base.records[placement.image]
            x_y, visibility = record.keypoints[0].split((2, 1), dim=1)
            keypoints = torch.cat((placement.turn.points(x_y), visibility), dim=1)
            points = _labelled(keypoints)
            left, top, right, bottom = torch.cat((points.amin(0), points.amax(0))).tolist()
            rows.append(ObjectRow((left, top, right, bottom), int(record.labels[0]), False, float(record.areas[0])))
            people.append(keypoints)
        name = f"composed-{self._base.name}-{number:05d}"
        found = ImageRecord.from_rows(number, name, self._side, self._side, rows)
        return PoseRecord.of(found, torch.stack(people), len(self._base.skeleton))


def _above_ground(image: Tensor) -> Tensor:
    """Return an image without its dark ground, so that there is no edge where it ends."""
    pixels = image.float()
    return (pixels - pixels.median()).clamp(min=0)


def _compose(animals: list[_Animal], count: int, side: int, near: float, draws: np.random.Generator) -> list[Placement]:
    """Return where the animals of one scene lie."""
    placements: list[Placement] = []
    placed: list[Tensor] = []
    for number in draws.permutation(len(animals))[:count]:
        animal = animals[number]
        tried: list[tuple[float, Turn, Tensor]] = []
        while len(tried) < _TRIES and not (tried and tried[-1][0] <= _CLEAR):
            turn = _place(animal, side, draws)
            points = turn.points(animal.points)
            tried.append((max((_closeness(points, other, near) for other in placed), default=0.0), turn, points))
        _, turn, points = min(tried, key=lambda found: found[0])
        placements.append(Placement(animal.image, turn))
        placed.append(points)
    return placements


def _place(animal: _Animal, side: int, draws: np.random.Generator) -> Turn:
    """Turn an animal by any angle and put it where all its keypoints are inside the scene, or in the middle."""
    angle, right, down = draws.random(3).tolist()
    turn = Turn(2 * math.pi * angle, animal.middle, (0.0, 0.0))
    points = turn.points(animal.points)
    low, high = _MARGIN - points.amin(0), side - _MARGIN - points.amax(0)
    x, y = torch.where(low < high, low + (high - low) * torch.tensor([right, down]), (low + high) / 2).tolist()
    return turn._replace(place=(x, y))


def _closeness(points: Tensor, others: Tensor, near: float) -> float:
    """The part of the keypoints of one animal that lie over those of another one, of both the larger part."""
    close = torch.cdist(points, others) < near
    return max(float(close.any(1).float().mean()), float(close.any(0).float().mean()))


def _split(base: PoseSplit, count: tuple[int, int], scenes: int, seed: int) -> ComposedSplit:
    animals = [_Animal.of(index, record) for index, record in enumerate(base.records) if _shows_one(record)]
    if len(animals) < count[1]:
        raise ValueError(
            f"compose: expected at least {count[1]} {base.name} images that show one object with keypoints, "
            f"got {len(animals)} of {len(base)}"
        )
    brightness = float(np.median([base.image(animal.image).float().median().item() for animal in animals]))
    if brightness > DARK:
        raise ValueError(
            f"compose: expected images with a black background, but half of the pixels of half of the {base.name} "
            f"images are lighter than {brightness:.0f} of 255"
        )
    extent = max(max(record.width, record.height) for record in base.records)
    side = round(SCENE_SIDE * extent)
    found = []
    for scene in range(scenes):
        draws = np.random.Generator(np.random.PCG64([seed, int(base.name == "test"), scene]))
        number = count[0] + int(draws.random() * (count[1] - count[0] + 1))
        found.append(_compose(animals, number, side, _NEAR * extent, draws))
    return ComposedSplit(base, side, found)


def _shows_one(record: PoseRecord) -> bool:
    return len(record.keypoints) == 1 and bool((record.keypoints[..., 2] > 0).any()) and not bool(record.iscrowd[0])


def compose(
    data: PoseData,
    count: tuple[int, int],
    *,
    seed: int = 0,
    train_scenes: int = TRAIN_SCENES,
    test_scenes: int = TEST_SCENES,
) -> PoseData:
    """Compose scenes of several animals from data whose images show one each in front of black.

    Args:
        data: for pose. Images that show no object with keypoints, or several, are left out.
        count: fewest and most animals of a scene; every number between is as likely.
        seed: of the composition.
        train_scenes: number of scenes to train on.
        test_scenes: number of scenes to score on.

    Returns:
        The data. Scene k is the same however many there are.

    Raises:
        ValueError: too few such images, a `count` that is no range from 1, or a background that is not black.
    """
    if not 1 <= count[0] <= count[1]:
        raise ValueError(f"compose: expected a range from at least 1, such as 2-4, got {count[0]}-{count[1]}")
    splits = _split(data.train, count, train_scenes, seed), _split(data.test, count, test_scenes, seed)
    name = f"{data.name} composed {count[0]}-{count[1]}"
    return replace(data, name=name, train=splits[0], test=splits[1], fingerprint=fingerprint(splits))
