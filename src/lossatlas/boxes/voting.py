"""Variance voting: what is kept of overlapping boxes moves to their mean, the surer ones counting more."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.boxes.nms import batched_nms
from lossatlas.checks import check_boxes, check_number, check_same_shape
from lossatlas.dtypes import upcast

_BLOCK = 256


class Voted(NamedTuple):
    """The boxes that suppression keeps, after the vote."""

    indices: Int[Tensor, " k"]
    """Which boxes were kept, highest score first."""
    boxes: Float[Tensor, "k 4"]
    """Where they are now, xyxy."""


def variance_voting(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    variance: Float[Tensor, "n 4"],
    iou_threshold: float = 0.5,
    sigma: float = 0.02,
    *,
    labels: Int[Tensor, " n"] | None = None,
    vote_threshold: float = 0.01,
) -> Voted:
    """Suppress overlapping boxes and move each kept one to the mean of all the boxes around it.

    Formula:
        x = Σᵢ pᵢ xᵢ / σᵢ² / Σᵢ pᵢ / σᵢ²,  pᵢ = exp(-(1 - IoUᵢ)² / σₜ)
        for each coordinate x of a kept box, over the boxes i whose IoU with it is above the vote's threshold

    Args:
        boxes: ``(N, 4)`` xyxy in any unit.
        scores: ``(N,)``. They decide which boxes are kept and do not weigh the vote.
        variance: ``(N, 4)`` variances σ² of the coordinates in the square of the unit. From the logarithm α that
            `lossatlas.losses.kl_box_loss` trains, in units of an anchor with sides (w, h):
            ``alpha.exp() * torch.stack((w, h, w, h), -1) ** 2``. A variance of 0 counts as the smallest above it.
        iou_threshold: threshold of the suppression, from 0 to 1.
        sigma: σₜ > 0, how far from a kept box a box still has a say.
        labels: ``(N,)`` classes; boxes of different classes neither suppress nor vote for each other. None: one class.
        vote_threshold: IoU from 0 to below 1; a box votes above it.

    Returns:
        A `Voted` of K boxes. The coordinates have the dtype of the arithmetic, float32 at least.

    Raises:
        ValueError: shapes that do not fit, or a threshold or `sigma` out of range.
        TypeError: boxes or variances that are not floating point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0]])
        >>> variance = torch.tensor([[1.0, 1.0, 1.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
        >>> variance_voting(boxes, torch.tensor([0.9, 0.8]), variance).boxes
        tensor([[ 0.0000,  0.0000, 10.0000, 10.7257]])

    Note:
        The paper's best σₜ is 0.02; its code has 0.01. The paper combines the vote with soft suppression, see
        `vote_boxes`; here the boxes are suppressed as in `lossatlas.boxes.nms.batched_nms`. The code adds 1 to the
        sides of boxes before it computes areas, this does not. Memory grows with N, not with N².

    Reference:
        He et al., "Bounding Box Regression with Uncertainty for Accurate Object Detection", 2019, arXiv 1809.08545,
        section 3.3.
    """
    if labels is None:
        labels = torch.zeros_like(scores, dtype=torch.int64)
    kept = batched_nms(boxes, scores, labels, iou_threshold)
    return Voted(kept, vote_boxes(boxes, kept, variance, labels, sigma=sigma, vote_threshold=vote_threshold))


def vote_boxes(
    boxes: Float[Tensor, "n 4"],
    kept: Int[Tensor, " k"],
    variance: Float[Tensor, "n 4"],
    labels: Int[Tensor, " n"],
    *,
    sigma: float = 0.02,
    vote_threshold: float = 0.01,
) -> Float[Tensor, "k 4"]:
    """Move each of the boxes that a suppression has kept to the mean of all the boxes around it.

    Formula:
        that of `variance_voting`

    Args:
        boxes: ``(N, 4)`` xyxy in any unit.
        kept: ``(K,)`` rows of the boxes that are moved.
        variance: ``(N, 4)`` variances of the coordinates in the square of the unit.
        labels: ``(N,)`` classes; boxes of different classes do not vote for each other.
        sigma: σₜ > 0, how far from a kept box a box still has a say.
        vote_threshold: IoU from 0 to below 1; a box votes above it.

    Returns:
        ``(K, 4)`` xyxy in the dtype of the arithmetic, float32 at least.

    Raises:
        ValueError: shapes that do not fit, or a number out of its range.
        TypeError: boxes or variances that are not floating point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 11.0]])
        >>> variance = torch.tensor([[1.0, 1.0, 1.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
        >>> vote_boxes(boxes, torch.tensor([0]), variance, torch.tensor([5, 5]))
        tensor([[ 0.0000,  0.0000, 10.0000, 10.7257]])

    Note:
        With an objective whose network predicts variances it is ``decode(outputs, voting=vote_boxes)``, after any
        suppression; the paper's is ``nms=functools.partial(soft_nms, decay="gaussian")``.

    Reference:
        He et al., "Bounding Box Regression with Uncertainty for Accurate Object Detection", 2019, arXiv 1809.08545,
        section 3.3.
    """
    check_boxes("boxes", boxes)
    check_boxes("variance", variance)
    check_same_shape("boxes", boxes, "variance", variance)
    check_number("sigma", sigma, above=0)
    check_number("vote_threshold", vote_threshold, at_least=0, below=1)
    boxes, variance = upcast(boxes, variance)
    surprise = variance.clamp(min=torch.finfo(variance.dtype).tiny).log()
    blocks = [_vote(block, boxes, surprise, labels, sigma, vote_threshold) for block in kept.split(_BLOCK)]
    return torch.cat(blocks)


def decoded_variance(
    decode: Callable[[Tensor], Tensor], encoded: Float[Tensor, "n 4"], log_variance: Float[Tensor, "n 4"]
) -> Float[Tensor, "n 4"]:
    """Return the variances of boxes from those of the numbers that they are decoded from.

    Formula:
        σᵢ² = Σⱼ (∂xᵢ / ∂tⱼ)² exp(αⱼ), to first order, of coordinates x and independent numbers t

    Args:
        decode: from ``(N, 4)`` numbers to ``(N, 4)`` boxes, row by row, such as the ``decode`` of a coder.
        encoded: ``(N, 4)`` numbers t.
        log_variance: ``(N, 4)`` logarithms α of their variances, cut to [-60, 60].

    Returns:
        ``(N, 4)`` variances in the square of the boxes' unit.

    Example:
        >>> from lossatlas.boxes.coders import DeltaCoder
        >>> anchors = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
        >>> decode = lambda deltas: DeltaCoder().decode(deltas, anchors)
        >>> decoded_variance(decode, torch.zeros(1, 4), torch.zeros(1, 4))
        tensor([[125., 500., 125., 500.]])
    """
    encoded, log_variance = upcast(encoded, log_variance)
    with torch.inference_mode(False), torch.enable_grad():
        variance = log_variance.detach().clamp(-60, 60).exp()
        numbers = encoded.detach().clone().requires_grad_()
        spread = []
        for coordinate in decode(numbers).unbind(1):
            (slope,) = torch.autograd.grad(coordinate.sum(), numbers, retain_graph=True)
            spread.append((slope**2 * variance).sum(1))
    return torch.stack(spread, dim=1)


def _vote(kept: Tensor, boxes: Tensor, surprise: Tensor, labels: Tensor, sigma: float, threshold: float) -> Tensor:
    iou = pairwise_iou(boxes[kept], boxes)
    voters = (iou > threshold) & (labels[kept][:, None] == labels)
    # A box has a vote of its own, even one without an area, whose IoU with itself is 0.
    own = torch.arange(len(kept), device=kept.device), kept
    iou[own], voters[own] = 1, True
    log_share = torch.where(voters, -((1 - iou) ** 2) / sigma, -torch.inf)
    # Softmax of logarithms: quotients of variances of any size neither overflow nor vanish.
    columns = zip(boxes.unbind(1), surprise.unbind(1), strict=True)
    return torch.stack([(log_share - log_variance).softmax(1) @ x for x, log_variance in columns], dim=1)
