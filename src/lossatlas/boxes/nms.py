"""Non-maximum suppression: of boxes that lie on each other, keep the one with the highest score."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.boxes.geometry import overlap, pairwise_iou, safe_divide
from lossatlas.checks import check_boxes, check_choice, check_number
from lossatlas.dtypes import upcast

Decay = Literal["linear", "gaussian"]

_BLOCK = 256
_KEPT_BLOCK = 1024

_Affinity: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Kept(NamedTuple):
    """What a suppression that changes scores keeps."""

    indices: Int[Tensor, " k"]
    """Which boxes were kept, highest new score first."""
    scores: Float[Tensor, " k"]
    """Their new scores."""


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
    return _greedy_nms(boxes, scores, labels, iou_threshold, pairwise_iou)


def diou_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    iou_threshold: float,
    *,
    beta: float = 1.0,
) -> Int[Tensor, " k"]:
    """Return the boxes that greedy suppression keeps if boxes with centres far apart count as overlapping less.

    Formula:
        In order of falling score, keep a box unless IoU - (d² / c²)^β with a kept box of the same class is above the
        threshold;  d: distance of the centres, c: diagonal of the smallest box around both

    Args:
        boxes: ``(N, 4)`` xyxy in any unit.
        scores: ``(N,)``. Of equal scores, the box that comes first in the input goes first.
        labels: ``(N,)`` classes; boxes of different classes do not suppress each other.
        iou_threshold: from 0 to 1.
        beta: exponent β > 0; a smaller one keeps more.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, highest score first.

    Raises:
        ValueError: shapes that do not fit, or a number out of its range.
        TypeError: boxes that are not floating point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 3, 10, 13]])  # an IoU of 0.54
        >>> scores, labels = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        >>> batched_nms(boxes, scores, labels, 0.52), diou_nms(boxes, scores, labels, 0.52)
        (tensor([0]), tensor([0, 1]))

    Note:
        The paper has no β; it is an option of the authors' code. Memory grows with N, not with N².

    Reference:
        Zheng et al., "Distance-IoU Loss", 2019, arXiv 1911.08287, section "Non-Maximum Suppression using DIoU".
    """
    check_number("beta", beta, above=0)

    def affinity(one: Tensor, other: Tensor) -> Tensor:
        pair = overlap(one[:, None], other)
        return pair.iou - safe_divide(pair.center_distance2, pair.enclosing_diagonal2) ** beta

    return _greedy_nms(boxes, scores, labels, iou_threshold, affinity)


def soft_nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    iou_threshold: float = 0.3,
    *,
    decay: Decay = "linear",
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> Kept:
    """Lower the scores of boxes that overlap better ones of their class, instead of dropping them.

    Formula:
        Again and again keep the box with the highest score s and lower the scores of the rest of its class:
        linear:   sᵢ ← sᵢ (1 - IoUᵢ) where IoUᵢ > iou_threshold
        gaussian: sᵢ ← sᵢ exp(-IoUᵢ² / σ)
        until no score is at least `score_threshold`

    Args:
        boxes: ``(N, 4)`` xyxy in any unit.
        scores: ``(N,)``. Of equal scores, the box that comes first in the input goes first.
        labels: ``(N,)`` classes; boxes of different classes do not change each other's scores.
        iou_threshold: from 0 to 1; 0.3 in the paper. ``"gaussian"`` has no use for it.
        decay: ``"linear"`` or ``"gaussian"``.
        sigma: σ > 0 of ``"gaussian"``.
        score_threshold: at least 0; boxes below it are dropped.

    Returns:
        A `Kept` of K boxes, highest new score first.

    Raises:
        ValueError: shapes that do not fit, a number out of its range or an unknown `decay`.
        TypeError: boxes or scores that are not floating point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5], [20.0, 0, 30, 10]])
        >>> soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]))
        Kept(indices=tensor([0, 2, 1]), scores=tensor([0.9000, 0.7000, 0.4000]))

    Note:
        In an objective's ``decode`` it is ``nms=soft_nms``, with options ``nms=functools.partial(soft_nms,
        decay="gaussian")``; `iou_threshold` is then the one of ``decode``. The authors' code adds 1 to the sides of
        boxes before it computes areas, this does not. It keeps one box at a time and looks at values on the host:
        time grows with N · K, memory with N.

    Reference:
        Bodla et al., "Soft-NMS", 2017, arXiv 1704.04503, section 3 and figure 2; `score_threshold` is the authors'
        code's.
    """
    _check(boxes, scores, labels, iou_threshold)
    check_choice("decay", decay, get_args(Decay))
    check_number("sigma", sigma, above=0)
    check_number("score_threshold", score_threshold, at_least=0)
    boxes, scores = upcast(boxes, scores)
    rest = torch.arange(len(scores), device=scores.device)
    indices, found = [], []
    while True:
        rest = rest[scores[rest] >= score_threshold]
        if not len(rest):
            break
        first = int(scores[rest].argmax())
        best = rest[first]
        indices.append(best)
        found.append(scores[best])
        rest = torch.cat((rest[:first], rest[first + 1 :]))
        iou = pairwise_iou(boxes[rest], boxes[best][None]).squeeze(1)
        if decay == "linear":
            factor = torch.where(iou > iou_threshold, 1 - iou, 1)
        else:
            factor = (-(iou**2) / sigma).exp()
        scores = scores.index_put((rest,), scores[rest] * torch.where(labels[rest] == labels[best], factor, 1))
    none = scores.new_empty(0)
    return Kept(torch.stack(indices), torch.stack(found)) if indices else Kept(none.long(), none)


def _check(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> None:
    check_boxes("boxes", boxes)
    check_number("iou_threshold", iou_threshold, at_least=0, at_most=1)
    for name, tensor in (("scores", scores), ("labels", labels)):
        if tensor.shape != boxes.shape[:1]:
            raise ValueError(f"`{name}` must have shape {tuple(boxes.shape[:1])}, but got {tuple(tensor.shape)}")


def _greedy_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, affinity: _Affinity) -> Tensor:
    _check(boxes, scores, labels, threshold)
    order = scores.sort(descending=True, stable=True).indices
    (boxes,) = upcast(boxes[order])
    labels = labels[order]

    def collides(one: Tensor, other: Tensor) -> Tensor:
        return (affinity(boxes[one], boxes[other]) > threshold) & (labels[one][:, None] == labels[other])

    kept = order.new_empty(0)
    for block in torch.arange(len(order), device=order.device).split(_BLOCK):
        suppressed = torch.zeros_like(block, dtype=torch.bool)
        for part in kept.split(_KEPT_BLOCK):
            suppressed |= collides(part, block).any(0)
        rest = block[~suppressed]
        kept = torch.cat((kept, rest[_greedy(collides(rest, rest))]))
    return order[kept]


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
