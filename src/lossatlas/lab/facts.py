"""What a network or an objective may know of the data before it is built."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lossatlas.targets.skeletons import Skeleton


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of the training images before anything is trained on them.

    Args:
        num_classes: number of classes.
        image_size: longest side, in pixels, of the images that the network is given.
        box_sizes: ``(N, 2)`` width and height of every object of the training images that is no crowd, in the pixels
            that the network is given; for the anchors of a data set.

    Raises:
        ValueError: no classes.
    """

    num_classes: int
    image_size: int = 320
    box_sizes: Tensor = field(default_factory=lambda: torch.zeros(0, 2))

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"`num_classes` must be at least 1, but got {self.num_classes}")

    def mean_log_side(self) -> float:
        """Return the mean logarithm of the sides of the objects, of an eighth of the image where none is known."""
        sides = self.box_sizes[(self.box_sizes > 0).all(1)]
        return sides.log().mean().item() if len(sides) else math.log(self.image_size / 8)


@dataclass(frozen=True, eq=False)
class PoseFacts(Facts):
    """What is known of the training images for pose.

    Args:
        skeleton: what the keypoints are. A way along its limbs leads from each keypoint to every other: those of the
            data, and what was missing to make them one piece.
    """

    skeleton: Skeleton = field(default_factory=lambda: Skeleton("", (), ()))
