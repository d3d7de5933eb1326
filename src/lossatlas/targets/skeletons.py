"""Skeletons: the names of keypoints, the limbs between them, and who is whose mirror image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.checks import check_floating


@dataclass(frozen=True)
class Skeleton:
    """Keypoints of a kind of animal and the limbs between them.

    Args:
        name: of the skeleton.
        keypoints: names of the K keypoints.
        limbs: pairs of keypoints; part affinity fields point from the first to the second, and people are put
            together in this order.
        filling: limbs, by their place in `limbs`, that only fill in a keypoint that a person lacks: they never start a
            person and count for nothing in its score. In OpenPose's skeletons these are the two from ear to shoulder.
        mirrored: pairs of keypoints that change places in a mirror image.
        sigmas: how far annotators disagree about each keypoint, as the OKS takes them; empty if nobody has measured it.
        order: keypoints in the order in which associative embedding looks at them; empty is the order of the names.

    Raises:
        ValueError: a keypoint that is not there or is mirrored twice, or another number of sigmas.

    Example:
        >>> COCO.flip([0, 1, 2])
        [0, 2, 1]
        >>> len(OPENPOSE_18.limbs), [OPENPOSE_18.limbs[limb] for limb in OPENPOSE_18.filling]
        (19, [(2, 16), (5, 17)])
    """

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    filling: tuple[int, ...] = ()
    mirrored: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        for field in ("limbs", "mirrored"):
            for pair in getattr(self, field):
                if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= end < count for end in pair):
                    raise ValueError(f"`{field}` must hold pairs of the keypoints 0 to {count - 1}, but has {pair}")
        ends = [end for pair in self.mirrored for end in pair]
        if len(set(ends)) != len(ends):
            raise ValueError(f"`mirrored` must name each keypoint once at most, but is {self.mirrored}")
        if not all(0 <= limb < len(self.limbs) for limb in self.filling):
            raise ValueError(f"`filling` must name limbs from 0 to {len(self.limbs) - 1}, but is {self.filling}")
        if len(self.sigmas) not in (0, count):
            raise ValueError(f"`sigmas` must have {count} numbers or none, but has {len(self.sigmas)}")
        if self.order and sorted(self.order) != list(range(count)):
            raise ValueError(f"`order` must name each of the {count} keypoints once, but is {self.order}")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def grouping_order(self) -> tuple[int, ...]:
        """Keypoints in the order in which associative embedding looks at them."""
        return self.order or tuple(range(len(self)))

    def limb_tensor(self, device: torch.device | None = None) -> Int[Tensor, "limbs 2"]:
        """Return the limbs as a tensor."""
        return torch.tensor(self.limbs, dtype=torch.int64, device=device).view(-1, 2)

    def flip(self, keypoints: Sequence[int] | None = None) -> list[int]:
        """Return which keypoint each becomes in a mirror image; None is all of them, a permutation of the maps."""
        other = dict(self.mirrored) | {right: left for left, right in self.mirrored}
        return [other.get(keypoint, keypoint) for keypoint in (range(len(self)) if keypoints is None else keypoints)]

    def denser(self, hops: int = 2) -> "Skeleton":
        """Return the skeleton with more limbs, between all keypoints that are at most so many of its limbs apart.

        People of whom some keypoints are hidden hang together by them. They come last, and none of them is filling.

        Args:
            hops: limbs on the way from one keypoint to another, at least 1.
        """
        apart = torch.full((len(self), len(self)), float("inf"))
        for a, b in self.limbs:
            apart[a, b] = apart[b, a] = 1
        for middle in range(len(self)):
            apart = torch.minimum(apart, apart[:, middle, None] + apart[middle])
        near = [(a, b) for way in range(2, hops + 1) for a, b in (apart.triu(1) == way).nonzero().tolist()]
        return replace(self, name=f"{self.name}_{hops}_hops", limbs=(*self.limbs, *near))

    @classmethod
    def chain(cls, name: str, keypoints: Sequence[str], limbs: Sequence[tuple[int, int]]) -> "Skeleton":
        """Return a skeleton of names and limbs alone, such as a COCO file's ``keypoints`` and ``skeleton`` from 0."""
        return cls(name, tuple(keypoints), tuple((int(a), int(b)) for a, b in limbs))


_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip

COCO = Skeleton(
    "coco",
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    (
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    mirrored=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=_COCO_SIGMAS,
    order=(0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16),
)  # fmt: skip
"""The 17 keypoints of COCO, with the limbs of its files, whose last two join ear and shoulder.

The order is that of associative embedding's code: face, shoulders, hips, arms, legs."""

OPENPOSE_18 = Skeleton(
    "openpose_18",
    (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
        "right_ear", "left_ear",
    ),
    (
        (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
        (0, 14), (14, 16), (0, 15), (15, 17), (2, 16), (5, 17),
    ),
    filling=(17, 18),
    mirrored=((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17)),
    sigmas=tuple([*_COCO_SIGMAS, 0.079][at] for at in (0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)),
)  # fmt: skip
"""OpenPose's keypoints of COCO with a neck, and its limbs in the order in which it puts people together.

Table: OpenPose, poseParameters.cpp. The sigmas are COCO's; that of the neck, which nobody has measured, is the
shoulders'. mmpose lists COCO's numbers for these keypoints without putting them into their order."""

OPENPOSE_18_CHANNELS = (6, 10, 7, 8, 11, 12, 0, 1, 2, 3, 4, 5, 14, 15, 17, 16, 18, 9, 13)
"""Pair of maps that OpenPose's published network has for each limb of `OPENPOSE_18`: limb l is maps 2 c and 2 c + 1."""

BODY_25 = Skeleton(
    "body_25",
    (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
        "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
        "right_small_toe", "right_heel",
    ),
    (
        (1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14),
        (1, 0), (0, 15), (15, 17), (0, 16), (16, 18), (2, 17), (5, 18), (14, 19), (19, 20), (14, 21), (11, 22),
        (22, 23), (11, 24),
    ),
    filling=(18, 19),
    mirrored=(
        (2, 5), (3, 6), (4, 7), (9, 12), (10, 13), (11, 14), (15, 16), (17, 18), (19, 22), (20, 23), (21, 24),
    ),
)  # fmt: skip
"""OpenPose's 25 keypoints, with the middle of the hips and the feet. Table: OpenPose, poseParameters.cpp."""

MPII = Skeleton(
    "mpii",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    (
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13),
        (13, 14), (14, 15),
    ),
    mirrored=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
)  # fmt: skip
"""The 16 keypoints of MPII, with mmpose's limbs (its configuration mpii.py). MPII is scored by PCKh, without sigmas."""

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, OPENPOSE_18, BODY_25, MPII)}
"""Every skeleton by its name."""

_OPENPOSE_FROM_COCO = (0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)


def coco_to_openpose(keypoints: Float[Tensor, "*people 17 3"]) -> Float[Tensor, "*people 18 3"]:
    """Return COCO's keypoints as those of OpenPose, with a neck in the middle of the shoulders.

    Args:
        keypoints: ``(*people, 17, 3)`` x, y and visibility of `COCO`'s keypoints.

    Returns:
        ``(*people, 18, 3)`` of `OPENPOSE_18`; the neck is labelled if both shoulders are, and as visible as the less
        visible one.

    Raises:
        ValueError: another shape.
        TypeError: keypoints that are not floating point.

    Example:
        >>> keypoints = torch.zeros(17, 3)
        >>> keypoints[5], keypoints[6] = torch.tensor([10.0, 4.0, 2.0]), torch.tensor([2.0, 6.0, 1.0])
        >>> coco_to_openpose(keypoints)[1]
        tensor([6., 5., 1.])

    Reference:
        Cao et al., "OpenPose", 2018, arXiv 1812.08008 (the code).
    """
    check_floating("keypoints", keypoints)
    if keypoints.ndim < 2 or keypoints.shape[-2:] != (17, 3):
        raise ValueError(f"`keypoints` must have shape (*people, 17, 3), but got {tuple(keypoints.shape)}")
    shoulders = keypoints[..., 5:7, :]
    both = (shoulders[..., 2] > 0).all(-1)
    neck = torch.cat((shoulders[..., :2].mean(-2), shoulders[..., 2:].amin(-2)), -1)
    openpose = keypoints[..., list(_OPENPOSE_FROM_COCO), :].clone()
    openpose[..., 1, :] = torch.where(both[..., None], neck, 0)
    return openpose
