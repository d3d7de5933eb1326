"""Limbs that join all keypoints of a skeleton: a way along them leads from each keypoint to every other."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Limb: TypeAlias = tuple[int, int]


def connect_limbs(limbs: Sequence[Limb], keypoints: Tensor) -> tuple[Limb, ...]:
    """Add the shortest limbs that make a skeleton one piece, so that people can be assembled limb by limb.

    Skeletons are often drawn in pieces, such as the legs of a fly apart from its body. Of all limbs that would join two
    pieces the one with the smallest median length is added, until there is one piece; keypoints that are never
    labelled in the same person are never joined.

    Args:
        limbs: pairs of keypoints, from 0.
        keypoints: (G, K, 3) x, y and visibility of the people to take lengths from.

    Returns:
        The limbs, and then those that were added.

    Example:
        >>> people = torch.tensor([[[0.0, 0, 2], [10, 0, 2], [12, 0, 2], [30, 0, 2]]])
        >>> connect_limbs([(0, 1), (2, 3)], people)
        ((0, 1), (2, 3), (1, 2))
    """
    count = keypoints.shape[1]
    piece = list(range(count))

    def join(a: int, b: int) -> bool:
        """Make one piece of those of two keypoints; say whether they were apart."""
        old, new = piece[a], piece[b]
        piece[:] = [new if number == old else number for number in piece]
        return old != new

    for a, b in limbs:
        join(a, b)
    places = keypoints[..., :2].masked_fill(keypoints[..., 2:] <= 0, torch.nan)
    lengths = (places[:, :, None] - places[:, None]).norm(dim=-1).nanmedian(0).values
    a, b = torch.triu_indices(count, count, 1)
    known = ~lengths[a, b].isnan()
    order = lengths[a, b][known].argsort(stable=True)
    candidates = zip(a[known][order].tolist(), b[known][order].tolist(), strict=True)
    return (*limbs, *((a, b) for a, b in candidates if join(a, b)))
