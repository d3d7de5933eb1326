"""Areas, intersections and distances of boxes: the only place where they are computed.

All functions take xyxy boxes, in pixels or in fractions of the image, and are finite with finite gradients for every
finite box: a side that is inverted (x2 < x1) counts as length zero, and a ratio whose denominator is zero is zero with
a zero gradient.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.checks import check_boxes
from lossatlas.typing import Boxes, PerBox, Values


def safe_divide(numerator: Values, denominator: Values) -> Values:
    """Divide where the denominator is not vanishing; elsewhere the result is 0 and so is its gradient.

    Args:
        numerator: ``(*shape)``.
        denominator: ``(*shape)``, not negative. It counts as zero below the square of the dtype's epsilon (1.4e-14 in
            float32), far below any meaningful area.

    Returns:
        ``(*shape)`` ratios.

    Example:
        >>> import torch
        >>> safe_divide(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0]))
        tensor([0.2500, 0.0000])
    """
    vanishing = denominator < torch.finfo(denominator.dtype).eps ** 2
    return numerator / torch.where(vanishing, math.inf, denominator)


def area(boxes: Boxes) -> PerBox:
    """Return the area of each box, 0 for an inverted one.

    Args:
        boxes: ``(*batch, 4)`` xyxy.

    Returns:
        ``(*batch)`` areas in the square of the boxes' unit.

    Example:
        >>> import torch
        >>> area(torch.tensor([[0.0, 0.0, 2.0, 3.0], [5.0, 5.0, 4.0, 4.0]]))
        tensor([6., 0.])
    """
    return _rectangle(boxes[..., :2], boxes[..., 2:])


def _rectangle(start: Tensor, end: Tensor) -> Tensor:
    width, height = (end - start).relu().unbind(-1)
    return width * height


class Overlap(NamedTuple):
    """How two boxes lie to each other, element by element; every field is ``(*batch)``."""

    intersection: Tensor
    """Area that both boxes cover."""
    union: Tensor
    """Area that either box covers."""
    iou: Tensor
    """Intersection over union, 0 where the union is empty."""
    width: Tensor
    """Width of the input box, 0 if inverted; likewise `height`, and for the target's box."""
    height: Tensor
    target_width: Tensor
    target_height: Tensor
    enclosing_width: Tensor
    """Width of the smallest box around both; likewise `enclosing_height`."""
    enclosing_height: Tensor
    center_dx: Tensor
    """x of the input's centre minus x of the target's; likewise `center_dy`."""
    center_dy: Tensor

    @property
    def enclosing_area(self) -> Tensor:
        """Area of the smallest box around both."""
        return self.enclosing_width * self.enclosing_height

    @property
    def enclosing_diagonal2(self) -> Tensor:
        """Squared diagonal of the smallest box around both."""
        return self.enclosing_width**2 + self.enclosing_height**2

    @property
    def center_distance2(self) -> Tensor:
        """Squared distance between the two centres."""
        return self.center_dx**2 + self.center_dy**2


def overlap(input: Boxes, target: Boxes) -> Overlap:
    """Return how each input box lies to the target box at the same place.

    Args:
        input: ``(*batch, 4)`` xyxy.
        target: ``(*batch, 4)`` xyxy in the same unit.

    Returns:
        An `Overlap` whose fields have shape ``(*batch)``.

    Example:
        >>> import torch
        >>> pair = overlap(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 3.0, 2.0]))
        >>> pair.iou
        tensor(0.3333)
    """
    start, end = input.split(2, dim=-1)
    target_start, target_end = target.split(2, dim=-1)
    width, height = (end - start).relu().unbind(-1)
    target_width, target_height = (target_end - target_start).relu().unbind(-1)
    intersection = _rectangle(torch.maximum(start, target_start), torch.minimum(end, target_end))
    # Not `prod`, whose gradient makes the host wait for the device.
    union = width * height + target_width * target_height - intersection
    enclosing = (torch.maximum(end, target_end) - torch.minimum(start, target_start)).relu()
    center_offset = ((start + end) - (target_start + target_end)) / 2
    return Overlap(
        intersection,
        union,
        safe_divide(intersection, union),
        width,
        height,
        target_width,
        target_height,
        *enclosing.unbind(-1),
        *center_offset.unbind(-1),
    )


def pairwise_intersection(input: Float[Tensor, "n 4"], target: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the area that each input box shares with each target box."""
    check_boxes("input", input)
    check_boxes("target", target)
    x1, y1, x2, y2 = input[:, None].unbind(-1)
    target_x1, target_y1, target_x2, target_y2 = target.unbind(-1)
    # Axis by axis: matrices of (n, m, 2) are several times slower, for their last axis is so short.
    width = (torch.minimum(x2, target_x2) - torch.maximum(x1, target_x1)).relu()
    height = (torch.minimum(y2, target_y2) - torch.maximum(y1, target_y1)).relu()
    return width * height


def pairwise_iou(input: Float[Tensor, "n 4"], target: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the IoU of each input box with each target box.

    Args:
        input: ``(N, 4)`` xyxy.
        target: ``(M, 4)`` xyxy in the same unit.

    Returns:
        ``(N, M)``, 0 where both boxes are empty.

    Example:
        >>> import torch
        >>> objects = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
        >>> pairwise_iou(objects[:1], objects)
        tensor([[1.0000, 0.3333]])
    """
    intersection = pairwise_intersection(input, target)
    return safe_divide(intersection, area(input)[:, None] + area(target) - intersection)


def pairwise_coverage(input: Float[Tensor, "n 4"], target: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the share of each input box that each target box covers (intersection over the input's area).

    It is what decides whether a prediction lies in a crowd region.

    Args:
        input: ``(N, 4)`` xyxy.
        target: ``(M, 4)`` xyxy in the same unit.

    Returns:
        ``(N, M)`` from 0 to 1.
    """
    return safe_divide(pairwise_intersection(input, target), area(input)[:, None].expand(-1, len(target)))


def shape_iou(input: Float[Tensor, "*#batch 2"], target: Float[Tensor, "*#batch 2"]) -> Float[Tensor, "*#batch"]:
    """Return the IoU that boxes would have around the same centre: how well their shapes agree.

    Args:
        input: ``(*batch, 2)`` width and height.
        target: ``(*batch, 2)`` in the same unit; the two broadcast.

    Returns:
        ``(*batch)``, 0 where both boxes are empty.

    Example:
        >>> import torch
        >>> shape_iou(torch.tensor([4.0, 2.0]), torch.tensor([[4.0, 4.0], [2.0, 2.0]]))
        tensor([0.5000, 0.5000])
    """
    check_boxes("input", input, 2)
    check_boxes("target", target, 2)
    (w, h), (target_w, target_h) = input.relu().unbind(-1), target.relu().unbind(-1)
    intersection = torch.minimum(w, target_w) * torch.minimum(h, target_h)
    return safe_divide(intersection, w * h + target_w * target_h - intersection)
