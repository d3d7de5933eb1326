"""Skeletons of data sets: what a category of COCO's format tells of its keypoints, and what their names tell."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lossatlas.lab.data.values import brief, is_number, whole
from lossatlas.targets.skeletons import COCO, Skeleton

ASSUMED_SIGMA = 0.05
"""Sigma of every keypoint of a set that states none: between COCO's eyes and elbows."""

_SIDES = re.compile(r"(?i)left|right|(?<![a-z0-9])[lr](?![a-z0-9])")
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


def mirrored_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return which keypoints change places in a mirror image, as their names tell.

    They tell it if some of them say left or right, or l or r between other signs, and each of these has its partner;
    otherwise there are no pairs, and nobody knows what a mirror image would show.

    Args:
        names: of the keypoints.

    Example:
        >>> mirrored_pairs(["nose", "left_eye", "right_eye"]), mirrored_pairs(["left_eye", "nose"])
        (((1, 2),), ())
    """
    places = {name: place for place, name in enumerate(names)}
    partners = [places.get(_SIDES.sub(_other_side, name), -1) for name in names]
    if -1 in partners or len(places) < len(names):
        return ()
    return tuple((place, partner) for place, partner in enumerate(partners) if place < partner)


def _other_side(match: re.Match[str]) -> str:
    side = match.group()
    other = _OTHER_SIDE[side.lower()]
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other


def sigmas_of(skeleton: Skeleton) -> tuple[float, ...]:
    """Return the sigmas that poses are scored with: those of the skeleton, or `ASSUMED_SIGMA` for all."""
    return skeleton.sigmas or (ASSUMED_SIGMA,) * len(skeleton)


def read_skeleton(category: Mapping[str, Any]) -> Skeleton:
    """Return the skeleton that a category of COCO's format declares.

    Args:
        category: with ``keypoints``, names; ``skeleton``, pairs of keypoints from 1, if it has any; and ``sigmas``,
            which is no part of COCO's format, where they are known. COCO's own keypoints have COCO's sigmas.

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
        isinstance(sigmas, list) and len(sigmas) == count and all(is_number(v) and 0 < v < math.inf for v in sigmas)
    ):
        raise ValueError(f"sigmas: expected {count} positive numbers, got {brief(sigmas)}")
    names = tuple(map(str, names))
    own = names == COCO.keypoints
    return Skeleton(
        str(category.get("name", "")),
        names,
        tuple(dict.fromkeys((int(a) - 1, int(b) - 1) for a, b in pairs)),  # some files list a limb twice
        mirrored=mirrored_pairs(names),
        sigmas=tuple(sigmas or (COCO.sigmas if own else ())),
        order=COCO.order if own else (),
    )


def to_coco(skeleton: Skeleton) -> dict[str, Any]:
    """Return what a category of COCO's format says of a skeleton."""
    return {"keypoints": list(skeleton.keypoints), "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs]}


def _is_limb(pair: Any, count: int) -> bool:
    ends = [whole(end) for end in pair] if isinstance(pair, list) and len(pair) == 2 else [None]
    return all(end is not None and 1 <= end <= count for end in ends) and ends[0] != ends[1]
