"""Box regression losses that change the IoU inside another one: its exponent, its extent or its range."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from lossatlas.boxes.geometry import overlap
from lossatlas.checks import check_box_pair, check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.box_pairs import fused_boxes, reduced_boxes
from lossatlas.losses.box_variants import shape_iou_loss, siou_loss
from lossatlas.losses.boxes import (
    aspect_penalty,
    aspect_weight,
    ciou_loss,
    diou_loss,
    distance_penalty,
    eiou_loss,
    enclosing_gap,
    giou_loss,
    iou_loss,
)
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.losses.wise_iou import wiou_loss
from lossatlas.typing import Boxes, Loss, Normalizer, Reduction

PowerBase = Literal["iou", "giou", "diou", "ciou"]
BoxBase = Literal["iou", "giou", "diou", "ciou", "eiou", "siou", "shape_iou", "wiou"]
BoxLoss: TypeAlias = BoxBase | Callable[..., Tensor]
"""A box loss by its name, with its default hyper-parameters, or as a function that keeps the contract of the losses."""

_BASES: Mapping[str, Callable[..., Tensor]] = {
    "iou": partial(iou_loss, mode="linear"),
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "eiou": eiou_loss,
    "siou": siou_loss,
    "shape_iou": shape_iou_loss,
    "wiou": wiou_loss,
}


def alpha_iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    alpha: float = 3.0,
    base: PowerBase = "iou",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Power IoU loss: IoU and the penalty that goes with it, each raised to a power.

    Formula:
        iou:  l = 1 - IoU^α
        giou: l = 1 - IoU^α + ((C - U) / C)^α      C: area of the enclosing box, U: of the union
        diou: l = 1 - IoU^α + (ρ² / c²)^α          ρ: distance of the centres, c: diagonal of the enclosing box
        ciou: l = 1 - IoU^α + (ρ² / c²)^α + (β v)^α,  v: penalty of the aspect ratio,  β = v / (1 - IoU + v)

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        alpha: α above 0; above 1 boxes of high IoU get larger gradients. 1 gives the base.
        base: ``"iou"``, ``"giou"``, ``"diou"`` or ``"ciou"``.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, an `alpha` that is not above 0, or a bad `base`, `reduction`
            or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> alpha_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.9630)

    Note:
        β, the α of `ciou_loss`, is detached and made of the plain IoU, as in the authors' code. α = 3 is what they
        train with; the default of their function is 2.

    Reference:
        He et al., "Alpha-IoU: A Family of Power Intersection over Union Losses", 2021, arXiv 2110.13675, equation 4.
    """
    check_number("alpha", alpha, above=0)
    check_choice("base", base, get_args(PowerBase))
    return reduced_boxes(
        _alpha_iou_costs,
        input,
        target,
        alpha,
        get_args(PowerBase).index(base),
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused_boxes("alpha_iou")
def _alpha_iou_costs(input: Tensor, target: Tensor, alpha: float, base_number: float) -> Tensor:
    base = get_args(PowerBase)[int(base_number)]  # kernels take numbers
    pair = overlap(input, target)
    loss = 1 - safe_power(pair.iou, alpha)
    if base == "giou":
        loss = loss + safe_power(enclosing_gap(pair), alpha)
    if base in ("diou", "ciou"):
        loss = loss + safe_power(distance_penalty(pair), alpha)
    if base == "ciou":
        v = aspect_penalty(pair)
        loss = loss + safe_power(aspect_weight(pair, v) * v, alpha)
    return loss


def inner_iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    ratio: float = 0.7,
    base: BoxLoss = "iou",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Inner IoU: any IoU loss with the IoU of both boxes shrunk, or grown, about their centres.

    Formula:
        l = l_base + IoU - IoU_inner      IoU_inner: of both boxes with their sides times `ratio`

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        ratio: factor of the sides, above 0; the paper looks at 0.5 to 1.5. Below 1 it sharpens the loss of boxes that
            fit well, above 1 it reaches boxes that do not overlap; 1 gives the base.
        base: name of the loss, ``"iou"`` (1 - IoU), ``"giou"``, ``"diou"``, ``"ciou"``, ``"eiou"``, ``"siou"``,
            ``"shape_iou"`` or ``"wiou"``, or a function that is called as ``base(input, target, reduction="none")``.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, a `ratio` that is not above 0, or a bad `base`, `reduction`
            or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[2.0, 0, 12, 10]])
        >>> inner_iou_loss(*boxes, ratio=0.5)
        tensor(0.5714)
        >>> inner_iou_loss(*boxes, ratio=0.5, base="diou")
        tensor(0.5878)

    Note:
        All else in the base, such as the weight α of CIoU, comes from the boxes as they are. The authors leave the
        ratio to the data: 0.7 is a value that is often used with their code, not one that the paper singles out.

    Reference:
        Zhang et al., "Inner-IoU: More Effective Intersection over Union Loss with Auxiliary Bounding Box", 2023,
        arXiv 2311.02877.
    """
    check_number("ratio", ratio, above=0)
    check_box_pair(input, target)
    input, target = upcast(input, target)  # before the sum of two losses, each of which would round its gradient
    gap = reduced_boxes(_inner_gap, input, target, ratio, reduction="none")
    return reduce(_base_loss(base)(input, target, reduction="none") + gap, weight, reduction, normalizer)


@fused_boxes("inner_gap")
def _inner_gap(input: Tensor, target: Tensor, ratio: float) -> Tensor:
    return overlap(input, target).iou - overlap(_scale(input, ratio), _scale(target, ratio)).iou


def focaler_iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    lower: float = 0.0,
    upper: float = 0.95,
    base: BoxLoss = "iou",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Focaler IoU: any IoU loss with an IoU that is stretched over the interval that matters.

    Formula:
        l = l_base + IoU - IoU_f,  IoU_f = (IoU - d) / (u - d) cut to the range from 0 to 1

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        lower: d, from 0 to below u; a high one attends to easy boxes.
        upper: u, at most 1; a low one attends to hard boxes.
        base: name of the loss, ``"iou"`` (1 - IoU), ``"giou"``, ``"diou"``, ``"ciou"``, ``"eiou"``, ``"siou"``,
            ``"shape_iou"`` or ``"wiou"``, or a function that is called as ``base(input, target, reduction="none")``.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, bounds that are not 0 <= lower < upper <= 1, or a bad
            `base`, `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> focaler_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]))
        tensor(0.6491)

    Note:
        The defaults of the bounds are those of the authors' code. Outside the interval IoU itself has no gradient; with
        the base ``"iou"`` such boxes stand still.

    Reference:
        Zhang and Zhang, "Focaler-IoU: More Focused Intersection over Union Loss", 2024, arXiv 2401.10525.
    """
    check_number("upper", upper, at_most=1)
    check_number("lower", lower, at_least=0, below=upper)
    check_box_pair(input, target)
    input, target = upcast(input, target)
    gap = reduced_boxes(_focaler_gap, input, target, lower, upper, reduction="none")
    return reduce(_base_loss(base)(input, target, reduction="none") + gap, weight, reduction, normalizer)


@fused_boxes("focaler_gap")
def _focaler_gap(input: Tensor, target: Tensor, lower: float, upper: float) -> Tensor:
    iou = overlap(input, target).iou
    return iou - ((iou - lower) / (upper - lower)).clamp(min=0, max=1)


def _base_loss(base: BoxLoss) -> Callable[..., Tensor]:
    if callable(base):
        return base
    check_choice("base", base, get_args(BoxBase))
    return _BASES[base]


def _scale(boxes: Tensor, ratio: float) -> Tensor:
    start, end = boxes.split(2, dim=-1)
    center, half = (start + end) / 2, (end - start) / 2 * ratio
    return torch.cat((center - half, center + half), dim=-1)


AlphaIoULoss = module_form("AlphaIoULoss", alpha_iou_loss)
InnerIoULoss = module_form("InnerIoULoss", inner_iou_loss)
FocalerIoULoss = module_form("FocalerIoULoss", focaler_iou_loss)
