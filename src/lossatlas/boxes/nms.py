"""Non-maximum suppression: of boxes that lie on each other, keep the one with the highest score."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.checks import check_boxes, check_number
from lossatlas.dtypes import upcast

_BLOCK = 256
_KEPT_BLOCK = 4096


def batched_nms(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int[Tensor, " n"], iou_threshold: float
) -> Int[Tensor, " k"]:
    """Return the boxes that greedy suppression within each class keeps.

    Formula:
        In order of falling score, keep a box unless its IoU with a kept box of the same class is above the threshold.

    Args:
        boxes: ``(N, 4)`` xyxy in any unit.
        scores: ``(N,)``. Of equal scores, the box that comes first in the input goes first.
        labels: ``(N,)`` classes; boxes of different classes do not suppress each other.
        iou_threshold: from 0 to 1.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, highest score first.

    Raises:
        ValueError: shapes that do not fit, or a threshold outside [0, 1].
        TypeError: boxes that are not floating point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [1.0, 0, 11, 10]])
        >>> batched_nms(boxes, torch.tensor([0.6, 0.9, 0.5]), torch.tensor([0, 0, 1]), 0.5)
        tensor([1, 2])

    Note:
        The arguments are those of ``torchvision.ops.batched_nms``, which can take its place. That one moves the
        classes apart by adding an offset to the coordinates, which rounds them; this one compares the classes.
        Memory grows with N, not with N². It looks at values on the host, so ``torch.compile`` breaks here.

    Reference:
        Felzenszwalb et al., "Object Detection with Discriminatively Trained Part-Based Models", 2010, section 5.
    """
    check_boxes("boxes", boxes)
    check_number("iou_threshold", iou_threshold, at_least=0, at_most=1)
    for name, tensor in (("scores", scores), ("labels", labels)):
        if tensor.shape != boxes.shape[:1]:
            raise ValueError(f"`{name}` must have shape {tuple(boxes.shape[:1])}, but got {tuple(tensor.shape)}")
    order = scores.sort(descending=True, stable=True).indices
    (boxes,) = upcast(boxes[order])
    labels = labels[order]
    kept = order.new_empty(0)
    for block in torch.arange(len(order), device=order.device).split(_BLOCK):
        rest = block[~_suppressed_by(kept, block, boxes, labels, iou_threshold)]
        kept = torch.cat((kept, rest[_greedy(_collides(rest, rest, boxes, labels, iou_threshold))]))
    return order[kept]


def _collides(one: Tensor, other: Tensor, boxes: Tensor, labels: Tensor, threshold: float) -> Tensor:
    return (pairwise_iou(boxes[one], boxes[other]) > threshold) & (labels[one][:, None] == labels[other])


def _suppressed_by(kept: Tensor, block: Tensor, boxes: Tensor, labels: Tensor, threshold: float) -> Tensor:
    suppressed = torch.zeros_like(block, dtype=torch.bool)
    for part in kept.split(_KEPT_BLOCK):
        suppressed |= _collides(part, block, boxes, labels, threshold).any(0)
    return suppressed


def _greedy(collides: Tensor) -> Tensor:
    """Return which boxes of one block, highest score first, are kept, given which pairs collide.

    Each round decides every box by the boxes before it as they stand. After n rounds the first n are final, so that
    the rounds end with the greedy answer; they end much earlier, after the longest chain of suppressions.
    """
    earlier = collides.triu(diagonal=1)
    kept = torch.ones(len(collides), dtype=torch.bool, device=collides.device)
    while True:
        revised = ~(earlier & kept[:, None]).any(0)
        if torch.equal(revised, kept):
            return kept
        kept = revised
