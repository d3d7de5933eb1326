"""Box regression losses: IoU and the penalties that were added to it.

All take xyxy boxes, prediction and target side by side, in pixels or in fractions of the image; unless a docstring
says otherwise the value does not depend on the unit. Boxes of zero area and inverted boxes are ordinary input: an
inverted side counts as length zero, and a box of no area has IoU 0 with everything.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from lossatlas.boxes.geometry import Overlap, overlap, safe_divide
from lossatlas.checks import check_box_pair, check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.box_pairs import fused_boxes, reduced_boxes
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.typing import Boxes, Loss, Normalizer, Reduction

IoUMode = Literal["linear", "log", "square"]
AspectGradient = Literal["exact", "unscaled"]
AspectWeight = Literal["always", "gated"]


def iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    mode: IoUMode = "log",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """IoU as a loss.

    Formula:
        linear: 1 - IoU      log: -ln max(IoU, 1e-6)      square: 1 - IoU²

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        mode: ``"log"`` of UnitBox, ``"linear"``, or ``"square"`` of YOLOX.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, or a bad `mode`, `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]), mode="linear")
        tensor(0.6667)

    Note:
        Boxes that do not overlap get the largest loss and no gradient; the logarithm is cut at IoU 1e-6, which is
        mmdetection's bound. FCOS's code computes the logarithm of (I + 1) / (U + 1) instead.

    Reference:
        Yu et al., "UnitBox", 2016, arXiv 1608.01471, equation 2 (log). Ge et al., "YOLOX", 2021, arXiv 2107.08430
        (square, in its code).
    """
    check_choice("mode", mode, get_args(IoUMode))
    costs = {"linear": linear_iou_costs, "log": _log_iou_costs, "square": _square_iou_costs}[mode]
    return reduced_boxes(costs, input, target, weight=weight, reduction=reduction, normalizer=normalizer)


@fused_boxes("linear_iou")
def linear_iou_costs(input: Tensor, target: Tensor) -> Tensor:
    """Return the elements of `iou_loss` in mode ``"linear"``."""
    return 1 - overlap(input, target).iou


@fused_boxes("log_iou")
def _log_iou_costs(input: Tensor, target: Tensor) -> Tensor:
    iou = overlap(input, target).iou
    # Not `clamp`, whose gradient at the bound would pull on boxes that do not overlap.
    return -torch.where(iou < 1e-6, 1e-6, iou).log()


@fused_boxes("square_iou")
def _square_iou_costs(input: Tensor, target: Tensor) -> Tensor:
    return 1 - overlap(input, target).iou ** 2


def giou_loss(
    input: Boxes,
    target: Boxes,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Generalized IoU loss: also moves boxes that do not overlap, by the empty share of the box around both.

    Formula:
        l = 1 - IoU + (C - U) / C      C: area of the enclosing box, U: of the union

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 0 to 2 with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> giou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.)

    Note:
        A doubly inverted prediction (x2 < x1 and y2 < y1) counts as empty and costs at least 1; torchvision and
        mmdetection give it the area of the box it mirrors, and so a loss of 0.

    Reference:
        Rezatofighi et al., "Generalized Intersection over Union", 2019, arXiv 1902.09630, algorithm 1.
    """
    return reduced_boxes(_giou_costs, input, target, weight=weight, reduction=reduction, normalizer=normalizer)


@fused_boxes("giou")
def _giou_costs(input: Tensor, target: Tensor) -> Tensor:
    pair = overlap(input, target)
    return 1 - pair.iou + enclosing_gap(pair)


def diou_loss(
    input: Boxes,
    target: Boxes,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Distance IoU loss: IoU and the distance of the centres, relative to the diagonal around both boxes.

    Formula:
        l = 1 - IoU + ρ² / c²      ρ: distance of the centres, c: diagonal of the enclosing box

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 0 to 2 with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> diou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.2000)

    Note:
        The gradient is that of the formula. The authors' darknet code has the opposite sign before the derivative
        of c².

    Reference:
        Zheng et al., "Distance-IoU Loss", 2020, arXiv 1911.08287, equation 7.
    """
    return reduced_boxes(_diou_costs, input, target, weight=weight, reduction=reduction, normalizer=normalizer)


@fused_boxes("diou")
def _diou_costs(input: Tensor, target: Tensor) -> Tensor:
    pair = overlap(input, target)
    return 1 - pair.iou + distance_penalty(pair)


def ciou_loss(
    input: Boxes,
    target: Boxes,
    *,
    gradient: AspectGradient = "exact",
    alpha: AspectWeight = "always",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Complete IoU loss: the distance IoU loss and a penalty on the aspect ratio.

    Formula:
        l = 1 - IoU + ρ² / c² + α v,  v = 4/π² (atan(ŵ / ĥ) - atan(w / h))²
        α = v / (1 - IoU + v)      with ``alpha="gated"`` 0 unless IoU > 0.5

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        gradient: ``"exact"``, the derivative of the formula, or ``"unscaled"``, which leaves the factor
            1 / (w² + h²) out of the derivative of v, as the paper and the authors' darknet code do. The value is the
            same, but the gradient now depends on the unit: it is meant for boxes in fractions of the image.
        alpha: ``"always"`` of the conference paper, or ``"gated"``, the aspect ratio counts only for IoU above 0.5, of
            the journal paper's code and of mmdetection.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, or a bad `gradient`, `alpha`, `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> ciou_loss(torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor(0.7470)

    Note:
        α is detached, as the paper says: it is a weight of the trade-off and not something to be minimised. For
        identical boxes, where it is 0/0, it is 0; mmdetection gives NaN there, and torchvision a NaN gradient for a
        prediction of height 0. The paper prints the derivatives of v with the opposite sign.

    Reference:
        Zheng et al., "Distance-IoU Loss", 2020, arXiv 1911.08287, equations 8 to 12; the gate: Zheng et al., "Enhancing
        Geometric Factors in Model Learning and Inference", 2020, arXiv 2005.03572 (in its code).
    """
    check_choice("gradient", gradient, get_args(AspectGradient))
    check_choice("alpha", alpha, get_args(AspectWeight))
    least_iou = 0.5 if alpha == "gated" else -1.0
    return reduced_boxes(
        _ciou_costs,
        input,
        target,
        gradient == "unscaled",
        least_iou,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused_boxes("ciou")
def _ciou_costs(input: Tensor, target: Tensor, unscaled: bool, least_iou: float) -> Tensor:
    pair = overlap(input, target)
    v = aspect_penalty(pair)
    trade_off = torch.where(pair.iou > least_iou, aspect_weight(pair, v), 0)
    if unscaled:
        scale = (pair.width**2 + pair.height**2).detach()
        v = v.detach() + scale * (v - v.detach())
    return 1 - pair.iou + distance_penalty(pair) + trade_off * v


def eiou_loss(
    input: Boxes,
    target: Boxes,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Efficient IoU loss: the distance IoU loss and the differences of width and of height.

    Formula:
        l = 1 - IoU + ρ² / c² + (w - ŵ)² / C_w² + (h - ĥ)² / C_h²      C_w, C_h: sides of the enclosing box

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> eiou_loss(torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor(1.2292)

    Note:
        mmdetection's loss of this name is another one, the "extended IoU" of Peng and Yu.

    Reference:
        Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box Regression", 2021, arXiv 2101.08158,
        section 4.
    """
    return reduced_boxes(_eiou_costs, input, target, weight=weight, reduction=reduction, normalizer=normalizer)


@fused_boxes("eiou")
def _eiou_costs(input: Tensor, target: Tensor) -> Tensor:
    return _efficient_iou(overlap(input, target))


def focal_eiou_loss(
    input: Boxes,
    target: Boxes,
    *,
    gamma: float = 0.5,
    normalize_weights: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Efficient IoU loss in which boxes that overlap their object well count more.

    Formula:
        l = W · EIoU loss,  W = IoU^γ      with `normalize_weights`: W = n IoU^γ / Σ IoU^γ over the n boxes

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        gamma: γ, at least 0; 0 gives `eiou_loss`.
        normalize_weights: divide W by its mean over all boxes, so that ``"mean"`` is Σ W l / Σ W.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, a negative `gamma`, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> focal_eiou_loss(torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor(0.7097)

    Note:
        W is detached: it weighs the boxes and is not minimised (in the graph it would reward a smaller IoU). That it
        is so in the paper is unverified. A box that does not overlap its object has weight 0 for every gamma above 0.

    Reference:
        Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box Regression", 2021, arXiv 2101.08158,
        section 4.
    """
    check_number("gamma", gamma, at_least=0)
    if not normalize_weights:
        return reduced_boxes(
            _focal_eiou_costs, input, target, gamma, weight=weight, reduction=reduction, normalizer=normalizer
        )
    check_box_pair(input, target)
    pair = overlap(*upcast(input, target))
    focus = safe_power(pair.iou, gamma).detach()
    focus = safe_divide(focus * max(focus.numel(), 1), focus.sum().expand_as(focus))
    return reduce(focus * _efficient_iou(pair), weight, reduction, normalizer)


@fused_boxes("focal_eiou")
def _focal_eiou_costs(input: Tensor, target: Tensor, gamma: float) -> Tensor:
    pair = overlap(input, target)
    return safe_power(pair.iou, gamma).detach() * _efficient_iou(pair)


def enclosing_gap(pair: Overlap) -> Tensor:
    """Return the share of the enclosing box that neither box covers: the penalty of GIoU."""
    return safe_divide(pair.enclosing_area - pair.union, pair.enclosing_area)


def distance_penalty(pair: Overlap) -> Tensor:
    """Return ρ² / c², the squared distance of the centres over the squared enclosing diagonal: the penalty of DIoU."""
    return safe_divide(pair.center_distance2, pair.enclosing_diagonal2)


def aspect_penalty(pair: Overlap) -> Tensor:
    """Return v, how much the aspect ratios differ: the penalty of CIoU."""
    angle, target_angle = _aspect_angle(pair.width, pair.height), _aspect_angle(pair.target_width, pair.target_height)
    return 4 / math.pi**2 * (target_angle - angle) ** 2


def aspect_weight(pair: Overlap, v: Tensor) -> Tensor:
    """Return α, the weight of v in CIoU, detached; 0 for identical boxes."""
    return safe_divide(v, 1 - pair.iou + v).detach()


def _efficient_iou(pair: Overlap) -> Tensor:
    width = safe_divide((pair.width - pair.target_width) ** 2, pair.enclosing_width**2)
    height = safe_divide((pair.height - pair.target_height) ** 2, pair.enclosing_height**2)
    return 1 - pair.iou + distance_penalty(pair) + width + height


def _aspect_angle(width: Tensor, height: Tensor) -> Tensor:
    # atan(w / h), which has no derivative for a box without extent: such a box gets the angle of a square.
    empty = width**2 + height**2 < torch.finfo(width.dtype).eps ** 2
    return torch.atan2(torch.where(empty, 1, width), torch.where(empty, 1, height))


IoULoss = module_form("IoULoss", iou_loss)
GIoULoss = module_form("GIoULoss", giou_loss)
DIoULoss = module_form("DIoULoss", diou_loss)
CIoULoss = module_form("CIoULoss", ciou_loss)
EIoULoss = module_form("EIoULoss", eiou_loss)
FocalEIoULoss = module_form("FocalEIoULoss", focal_eiou_loss)
