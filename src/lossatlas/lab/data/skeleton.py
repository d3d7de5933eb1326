"""What the keypoints of a data set are called, how they hang together, and how closely each is expected to be found."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lossatlas.lab.data.values import brief, is_number, whole

COCO_KEYPOINTS = (
    ("nose", 0.026),
    ("left_eye", 0.025),
    ("right_eye", 0.025),
    ("left_ear", 0.035),
    ("right_ear", 0.035),
    ("left_shoulder", 0.079),
    ("right_shoulder", 0.079),
    ("left_elbow", 0.072),
    ("right_elbow", 0.072),
    ("left_wrist", 0.062),
    ("right_wrist", 0.062),
    ("left_hip", 0.107),
    ("right_hip", 0.107),
    ("left_knee", 0.087),
    ("right_knee", 0.087),
    ("left_ankle", 0.089),
    ("right_ankle", 0.089),
)
"""COCO's keypoints of people with the sigmas that its evaluation uses."""

ASSUMED_SIGMA = 0.05
"""Sigma of every keypoint of a set that states none: between COCO's eyes and elbows."""

_SIDES = re.compile(r"(?i)left|right|(?<![a-z0-9])[lr](?![a-z0-9])")
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}

Limb = tuple[int, int]


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of a kind of object, such as a person.

    Args:
        names: of the K keypoints.
        limbs: pairs of keypoints, from 0, that a picture joins by a line.
        sigmas: of each keypoint, for the object keypoint similarity of COCO: how far annotators disagree, in units
            of the square root of the object's area.
        stated: whether the set or COCO states the sigmas; otherwise all of them are `ASSUMED_SIGMA`.

    Example:
        >>> Skeleton.named(["nose", "left_eye", "right_eye"], [(0, 1), (0, 2)]).mirror
        (0, 2, 1)
    """

    names: tuple[str, ...]
    limbs: tuple[Limb, ...]
    sigmas: tuple[float, ...]
    stated: bool

    @classmethod
    def named(cls, names: Sequence[str], limbs: Sequence[Limb], sigmas: Sequence[float] | None = None) -> "Skeleton":
        """The skeleton of keypoints with these names; without `sigmas` COCO's names have COCO's."""
        stated = sigmas is not None
        if sigmas is None and tuple(names) == tuple(name for name, _ in COCO_KEYPOINTS):
            sigmas, stated = [sigma for _, sigma in COCO_KEYPOINTS], True
        if sigmas is None:
            sigmas = [ASSUMED_SIGMA] * len(names)
        return cls(tuple(names), tuple(limbs), tuple(sigmas), stated)

    def __len__(self) -> int:
        return len(self.names)

    def to_coco(self) -> dict[str, Any]:
        """Return what a category of COCO's format says of it."""
        return {"keypoints": list(self.names), "skeleton": [[a + 1, b + 1] for a, b in self.limbs]}

    @property
    def mirror(self) -> tuple[int, ...] | None:
        """For each keypoint the one in its place when the image is mirrored; None where the names do not tell.

        The names tell it if some of them say left or right, or l or r between other signs, and each has its partner.
        """
        partners = [_SIDES.sub(_other_side, name) for name in self.names]
        if partners == list(self.names) or len(set(self.names)) < len(self.names):
            return None
        places = {name: place for place, name in enumerate(self.names)}
        found = [places.get(partner, -1) for partner in partners]
        return None if -1 in found else tuple(found)


def _other_side(match: re.Match[str]) -> str:
    side = match.group()
    other = _OTHER_SIDE[side.lower()]
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other


def read_skeleton(category: Mapping[str, Any]) -> Skeleton:
    """Return the skeleton that a category of COCO's format declares.

    Args:
        category: with ``keypoints``, names; ``skeleton``, pairs of keypoints from 1, if it has any; and ``sigmas``,
            which is no part of COCO's format, where they are known.

    Raises:
        ValueError: what is wrong with it.

    Example:
        >>> read_skeleton({"keypoints": ["head", "tail"], "skeleton": [[1, 2]]}).limbs
        ((0, 1),)
    """
    names, pairs, sigmas = category.get("keypoints"), category.get("skeleton") or [], category.get("sigmas")
    if not isinstance(names, list) or not names:
        raise ValueError(f"keypoints: expected a list of names, got {brief(names)}")
    count = len(names)
    if not isinstance(pairs, list) or not all(_is_limb(pair, count) for pair in pairs):
        wrong = next((pair for pair in pairs if not _is_limb(pair, count)), pairs) if isinstance(pairs, list) else pairs
        raise ValueError(f"skeleton: expected pairs of different keypoints from 1 to {count}, got {brief(wrong)}")
    if sigmas is not None and not (
        isinstance(sigmas, list) and len(sigmas) == count and all(_is_positive(sigma) for sigma in sigmas)
    ):
        raise ValueError(f"sigmas: expected {count} positive numbers, got {brief(sigmas)}")
    limbs = dict.fromkeys((int(a) - 1, int(b) - 1) for a, b in pairs)  # some files list a limb twice
    return Skeleton.named([str(name) for name in names], list(limbs), sigmas)


def _is_limb(pair: Any, count: int) -> bool:
    ends = [whole(end) for end in pair] if isinstance(pair, list) and len(pair) == 2 else [None]
    return all(end is not None and 1 <= end <= count for end in ends) and ends[0] != ends[1]


def _is_positive(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf
