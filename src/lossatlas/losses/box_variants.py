"""Later box regression losses: other penalties beside IoU, and losses that do without IoU.

All take xyxy boxes as `lossatlas.losses.boxes` does; those whose value depends on the unit say so.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from lossatlas.boxes.geometry import Overlap, overlap, safe_divide
from lossatlas.checks import check_choice, check_number
from lossatlas.losses.arithmetic import safe_power, safe_sqrt
from lossatlas.losses.box_pairs import fused_boxes, reduced_boxes
from lossatlas.losses.modules import module_form
from lossatlas.losses.regression import smooth_l1_loss
from lossatlas.typing import Boxes, Loss, Normalizer, Reduction

PowerfulVersion = Literal[1, 2]


def siou_loss(
    input: Boxes,
    target: Boxes,
    *,
    theta: float = 4.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """SCYLLA IoU loss: a distance that looks at the direction of the error, and a penalty on the sides.

    Formula:
        l = 1 - IoU + (Δ + Ω) / 2
        Δ = Σ over x, y of 1 - exp(-(2 - Λ) (d / C)²)      d: offset of the centres, C: side of the enclosing box
        Λ = sin(2 asin(min(|d_x|, |d_y|) / ρ)) = 2 |d_x d_y| / ρ²,  ρ² = d_x² + d_y²
        Ω = Σ over w, h of (1 - exp(-|w - ŵ| / max(w, ŵ)))^θ

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        theta: θ above 0; small values make differences of the sides count more.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, a `theta` that is not above 0, or a bad `reduction` or
            `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> siou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.1967)

    Note:
        Everything is part of the graph, also Λ, which is 0 for concentric boxes. The authors published no code.

    Reference:
        Z. Gevorgyan, "SIoU Loss: More Powerful Learning for Bounding Box Regression", 2022, arXiv 2205.12740.
    """
    check_number("theta", theta, above=0)
    return reduced_boxes(_siou_costs, input, target, theta, weight=weight, reduction=reduction, normalizer=normalizer)


@fused_boxes("siou")
def _siou_costs(input: Tensor, target: Tensor, theta: float) -> Tensor:
    pair = overlap(input, target)
    angle = safe_divide(2 * (pair.center_dx * pair.center_dy).abs(), pair.center_distance2)
    gamma = 2 - angle
    distance = -torch.expm1(-gamma * safe_divide(pair.center_dx**2, pair.enclosing_width**2))
    distance = distance - torch.expm1(-gamma * safe_divide(pair.center_dy**2, pair.enclosing_height**2))
    shape = _side_cost(*side_differences(pair), theta)
    return 1 - pair.iou + (distance + shape) / 2


def shape_iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    scale: float = 0.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Shape IoU loss: errors across the short side of the object count more.

    Formula:
        l = 1 - IoU + (hh d_x² + ww d_y²) / c² + Ω / 2      d: offset of the centres, c: enclosing diagonal
        Ω = (1 - exp(-hh |w - ŵ| / max(w, ŵ)))⁴ + (1 - exp(-ww |h - ĥ| / max(h, ĥ)))⁴
        ww = 2 ŵˢ / (ŵˢ + ĥˢ),  hh = 2 ĥˢ / (ŵˢ + ĥˢ)

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        scale: s, at least 0; it goes with the size of the objects in the data. 0, the default of the authors' code,
            gives ww = hh = 1.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, a negative `scale`, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> shape_iou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.2000)

    Note:
        The weights ww and hh come from the target alone.

    Reference:
        Zhang and Zhang, "Shape-IoU: More Accurate Metric considering Bounding Box Shape and Scale", 2023,
        arXiv 2312.17663.
    """
    check_number("scale", scale, at_least=0)
    return reduced_boxes(
        _shape_iou_costs, input, target, scale, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused_boxes("shape_iou")
def _shape_iou_costs(input: Tensor, target: Tensor, scale: float) -> Tensor:
    pair = overlap(input, target)
    smallest = torch.finfo(pair.iou.dtype).tiny
    log_width, log_height = pair.target_width.clamp(min=smallest).log(), pair.target_height.clamp(min=smallest).log()
    # ŵˢ / (ŵˢ + ĥˢ) as a sigmoid, which no power of a large side makes infinite.
    ww, hh = 2 * torch.sigmoid(scale * (log_width - log_height)), 2 * torch.sigmoid(scale * (log_height - log_width))
    distance = safe_divide(hh * pair.center_dx**2 + ww * pair.center_dy**2, pair.enclosing_diagonal2)
    width, height = side_differences(pair)
    shape = _side_cost(hh * width, ww * height, 4.0)
    return 1 - pair.iou + distance + shape / 2


def mpdiou_loss(
    input: Boxes,
    target: Boxes,
    *,
    image_size: tuple[int, int],
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Minimum point distance IoU loss: IoU and the distances of two opposite corners, relative to the image.

    Formula:
        l = 1 - IoU + (d₁² + d₂²) / (H² + W²)      d₁, d₂: distances of the top left and of the bottom right corners

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        image_size: height H and width W of the network's input in the unit of the boxes, such as pixels.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, an `image_size` that is not two numbers above 0, or a bad
            `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> mpdiou_loss(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[4.0, 0, 8, 4]]), image_size=(8, 16))
        tensor(1.1000)

    Note:
        The value depends on the size of the image, and the penalty of small boxes is very small: boxes that do not
        overlap their object hardly move.

    Reference:
        Ma and Xu, "MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression", 2023, arXiv 2307.07662.
    """
    if not isinstance(image_size, tuple) or len(image_size) != 2:
        raise ValueError(f"`image_size` must be the tuple (height, width), but got {image_size!r}")
    height, width = image_size
    check_number("image_size[0]", height, above=0)
    check_number("image_size[1]", width, above=0)
    return reduced_boxes(
        _mpdiou_costs, input, target, height**2 + width**2, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused_boxes("mpdiou")
def _mpdiou_costs(input: Tensor, target: Tensor, diagonal2: float) -> Tensor:
    corners = ((input - target) ** 2).sum(-1)
    return 1 - overlap(input, target).iou + corners / diagonal2


def powerful_iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    version: PowerfulVersion = 1,
    lambd: float = 1.3,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Powerful IoU loss: the distances of the four edges, relative to the sides of the object.

    Formula:
        P = (|x₁ - x̂₁| / ŵ + |x₂ - x̂₂| / ŵ + |y₁ - ŷ₁| / ĥ + |y₂ - ŷ₂| / ĥ) / 4
        version 1: l₁ = 1 - IoU + 1 - exp(-P²)
        version 2: l₂ = 3 q exp(-q²) l₁,  q = λ exp(-P)

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        version: 1, or 2 with the attention that favours boxes of medium quality.
        lambd: λ above 0 of version 2; version 1 does not use it.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, an unknown `version`, a `lambd` that is not above 0, or a
            bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> powerful_iou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.2212)

    Note:
        The attention of version 2 is part of the graph, as in the authors' code.

    Reference:
        Liu et al., "Powerful-IoU: More straightforward and faster bounding box regression loss with a nonmonotonic
        focusing mechanism", Neural Networks 170, 2024.
    """
    check_choice("version", version, get_args(PowerfulVersion))
    check_number("lambd", lambd, above=0)
    return reduced_boxes(
        _powerful_iou_costs, input, target, version, lambd, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused_boxes("powerful_iou")
def _powerful_iou_costs(input: Tensor, target: Tensor, version: PowerfulVersion, lambd: float) -> Tensor:
    pair = overlap(input, target)
    left, top, right, bottom = (input - target).abs().unbind(-1)
    penalty = (safe_divide(left + right, pair.target_width) + safe_divide(top + bottom, pair.target_height)) / 4
    loss = 1 - pair.iou - torch.expm1(-(penalty**2))
    if version == 2:
        quality = lambd * torch.exp(-penalty)
        loss = 3 * quality * torch.exp(-(quality**2)) * loss
    return loss


def nwd_loss(
    input: Boxes,
    target: Boxes,
    *,
    constant: float = 12.8,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Normalized Wasserstein distance of the boxes as Gaussians, for tiny objects.

    Formula:
        l = 1 - exp(-W / C),  W² = ρ² + ((w - ŵ)² + (h - ĥ)²) / 4      ρ: distance of the centres

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy in pixels.
        target: ``(*batch, 4)`` boxes in pixels.
        constant: C above 0 in pixels, about the mean size of the objects in the data; 12.8 is that of AI-TOD.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 0 to 1 with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, a `constant` that is not above 0, or a bad `reduction` or
            `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> nwd_loss(torch.tensor([[0.0, 0, 6, 6]]), torch.tensor([[4.0, 4, 10, 10]]))
        tensor(0.3572)

    Note:
        The gradient is 0 for identical boxes, where W has none. The value depends on the unit through C.

    Reference:
        Wang et al., "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection", 2021, arXiv 2110.13389,
        equations 7 to 9.
    """
    check_number("constant", constant, above=0)
    return reduced_boxes(_nwd_costs, input, target, constant, weight=weight, reduction=reduction, normalizer=normalizer)


@fused_boxes("nwd")
def _nwd_costs(input: Tensor, target: Tensor, constant: float) -> Tensor:
    pair = overlap(input, target)
    sides = ((pair.width - pair.target_width) ** 2 + (pair.height - pair.target_height) ** 2) / 4
    distance = safe_sqrt(pair.center_distance2 + sides)
    return -torch.expm1(-distance / constant)


def bounded_iou_loss(
    input: Boxes,
    target: Boxes,
    *,
    beta: float = 0.2,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Bounded IoU loss: a bound of the IoU for the error of each of the four numbers of a box.

    Formula:
        l = Σ over x, y, w, h of S(1 - B),  S(t) = t² / (2 β) if t < β, else t - β / 2
        B_x = max(0, (ŵ - 2 |d_x|) / (ŵ + 2 |d_x|)),  B_w = min(w / ŵ, ŵ / w)      d: offset of the centres

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        beta: width β of the quadratic part, at least 0; 0 gives Σ (1 - B).
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 0 to 4 with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, a negative `beta`, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> bounded_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 4, 2]]))
        tensor(0.9667)

    Note:
        An offset of more than half the side of the object has no gradient. B_w is the IoU of concentric boxes, but B_x
        is lower than the IoU of boxes that are only shifted, (ŵ - |d_x|) / (ŵ + |d_x|). Bounds, β and S are those of
        mmdetection, unverified against the paper's text; mmdetection keeps the four terms apart, so that its mean
        without `avg_factor` is a quarter of this one, and adds 0.001 to the denominators.

    Reference:
        Tychsen-Smith and Petersson, "Improving Object Localization with Fitness NMS and Bounded IoU Loss", 2018,
        arXiv 1711.00164.
    """
    return reduced_boxes(
        _bounded_iou_costs, input, target, beta, weight=weight, reduction=reduction, normalizer=normalizer
    )


@fused_boxes("bounded_iou")
def _bounded_iou_costs(input: Tensor, target: Tensor, beta: float) -> Tensor:
    pair = overlap(input, target)
    x, y = 2 * pair.center_dx.abs(), 2 * pair.center_dy.abs()
    x, y = safe_divide(2 * x, pair.target_width + x), safe_divide(2 * y, pair.target_height + y)
    # Not a clamp, whose gradient at its bound is not the same in every version of PyTorch.
    x, y = torch.where(x >= 1, 1, x), torch.where(y >= 1, 1, y)
    bounds = torch.stack((x, y, *side_differences(pair)), dim=-1)
    return smooth_l1_loss(bounds, torch.zeros_like(bounds), beta=beta, reduction="none").sum(-1)


def side_differences(pair: Overlap) -> tuple[Tensor, Tensor]:
    """Return |w - ŵ| / max(w, ŵ), which is 1 - min(w / ŵ, ŵ / w), and the same of the heights."""
    return (
        safe_divide((pair.width - pair.target_width).abs(), torch.maximum(pair.width, pair.target_width)),
        safe_divide((pair.height - pair.target_height).abs(), torch.maximum(pair.height, pair.target_height)),
    )


def _side_cost(width: Tensor, height: Tensor, theta: float) -> Tensor:
    return safe_power(-torch.expm1(-width), theta) + safe_power(-torch.expm1(-height), theta)


SIoULoss = module_form("SIoULoss", siou_loss)
ShapeIoULoss = module_form("ShapeIoULoss", shape_iou_loss)
MPDIoULoss = module_form("MPDIoULoss", mpdiou_loss)
PowerfulIoULoss = module_form("PowerfulIoULoss", powerful_iou_loss)
NWDLoss = module_form("NWDLoss", nwd_loss)
BoundedIoULoss = module_form("BoundedIoULoss", bounded_iou_loss)
