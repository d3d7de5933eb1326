"""Turning pictures and points by any angle."""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Turn(NamedTuple):
    """How a picture is turned and put into a frame. Coordinates are continuous: the first pixel reaches from 0 to 1.

    Args:
        angle: in radians, clockwise as seen.
        source: x and y of the point of the picture around which it is turned.
        place: x and y of that point in the frame.
    """

    angle: float
    source: tuple[float, float]
    place: tuple[float, float]

    def points(self, points: Tensor) -> Tensor:
        """Return where (..., 2) x, y points of the picture lie in the frame.

        Example:
            >>> Turn(math.pi / 2, (1.0, 1.0), (5.0, 5.0)).points(torch.tensor([[2.0, 1.0]])).round(decimals=4)
            tensor([[5., 6.]])
        """
        sine, cosine = math.sin(self.angle), math.cos(self.angle)
        matrix = points.new_tensor([[cosine, sine], [-sine, cosine]])
        return (points - points.new_tensor(self.source)) @ matrix + points.new_tensor(self.place)

    def picture(
        self, picture: Tensor, size: tuple[int, int], mode: Literal["bilinear", "nearest"] = "bilinear"
    ) -> Tensor:
        """Return what a frame shows of a picture, 0 where it shows nothing of it.

        Args:
            picture: (C, h, w) floating point.
            size: height and width of the frame.
            mode: of interpolation.

        Returns:
            (C, *size).
        """
        (height, width), sine, cosine = size, math.sin(self.angle), math.cos(self.angle)
        x = torch.arange(width, dtype=picture.dtype) + (0.5 - self.place[0])
        y = torch.arange(height, dtype=picture.dtype)[:, None] + (0.5 - self.place[1])
        source_x = cosine * x + sine * y + self.source[0]
        source_y = cosine * y - sine * x + self.source[1]
        grid = torch.stack((2 * source_x / picture.shape[2] - 1, 2 * source_y / picture.shape[1] - 1), dim=-1)
        return F.grid_sample(picture[None], grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]
