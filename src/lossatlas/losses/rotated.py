"""Losses of rotated boxes, which compare the boxes as Gaussians.

A box is (cx, cy, w, h, θ): its centre, its width along θ and its height across, and the angle θ in radians; two boxes
are always in the same unit. The Gaussian of a box has its centre as mean and its sides as axes. It cannot tell
(w, h, θ) from (h, w, θ + 90°), nor see the angle of a square, and so neither do these losses.

Sides below 1e-7, and negative ones, count as 1e-7 and have no gradient.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lossatlas.checks import check_box_pair, check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_sqrt
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.typing import Loss, Normalizer, Reduction, RotatedBoxes

DistanceTransform = Literal["sqrt", "log1p", "log1p_sqrt"]
KLDirection = Literal["input_target", "target_input"]
ProbIoUMode = Literal["l1", "l2"]

_SMALLEST_SIDE = 1e-7
_LARGEST_BHATTACHARYYA = 1e4


def gwd_loss(
    input: RotatedBoxes,
    target: RotatedBoxes,
    *,
    transform: DistanceTransform = "sqrt",
    tau: float = 2.0,
    normalized: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Gaussian Wasserstein distance loss of rotated boxes.

    Formula:
        l = 1 - 1 / (τ + f(W²)),  f: √W², ln(1 + W²) or ln(1 + √W²)
        W² = |m - m̂|² + Tr(Σ + Σ̂ - 2 (Σ^½ Σ̂ Σ^½)^½),  Σ = R(θ) diag(w², h²) / 4 R(θ)ᵀ
        with `normalized`, W² / √(w h ŵ ĥ) takes the place of W²

    Args:
        input: ``(*batch, 5)`` predicted boxes cx, cy, w, h, θ in radians.
        target: ``(*batch, 5)`` boxes in the same unit.
        transform: f, ``"sqrt"`` (the authors' configuration for DOTA), ``"log1p"``, or ``"log1p_sqrt"`` (mmrotate's
            default, together with `normalized` and τ = 1).
        tau: τ, at least 1; identical boxes cost 1 - 1 / τ.
        normalized: divide by the sizes, which makes the value independent of the unit.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 1 - 1 / τ to 1 with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 5, a `tau` below 1, or a bad `transform`, `reduction` or
            `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> gwd_loss(torch.tensor([[0.0, 0, 4, 2, 0]]), torch.tensor([[3.0, 4, 2, 4, torch.pi / 2]]))
        tensor(0.8571)

    Note:
        W² is computed without the differences of nearly equal numbers of the formula above, so that identical boxes
        have exactly 0 and no gradient. The authors' code adds 0.001 to W² instead.

    Reference:
        Yang et al., "Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss", 2021,
        arXiv 2101.11952, equations 4 to 8.
    """
    check_number("tau", tau, at_least=1)
    check_choice("transform", transform, get_args(DistanceTransform))
    pair = _gaussian_pair(input, target)
    distance = _wasserstein2(pair)
    if normalized:
        distance = distance / (pair.width * pair.height * pair.target_width * pair.target_height).sqrt()
    return reduce(_bounded(distance, transform, tau), weight, reduction, normalizer)


def kld_loss(
    input: RotatedBoxes,
    target: RotatedBoxes,
    *,
    direction: KLDirection = "input_target",
    transform: DistanceTransform = "sqrt",
    tau: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Kullback-Leibler divergence loss of rotated boxes.

    Formula:
        l = 1 - 1 / (τ + f(D)),  f: √D, ln(1 + D) or ln(1 + √D)
        D(p ‖ q) = ½ ((m_p - m_q)ᵀ Σ_q⁻¹ (m_p - m_q) + Tr(Σ_q⁻¹ Σ_p) + ln(|Σ_q| / |Σ_p|)) - 1
        Σ = R(θ) diag(w², h²) / 4 R(θ)ᵀ

    Args:
        input: ``(*batch, 5)`` predicted boxes cx, cy, w, h, θ in radians.
        target: ``(*batch, 5)`` boxes in the same unit.
        direction: ``"input_target"`` for D(input ‖ target), or ``"target_input"`` for D(target ‖ input), which the
            authors' code takes.
        transform: f, ``"sqrt"``, ``"log1p"`` or ``"log1p_sqrt"``; all three are in the authors' code.
        tau: τ, at least 1; identical boxes cost 1 - 1 / τ. 2 is the authors' configuration for DOTA.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 1 - 1 / τ to 1 with ``"none"``, else a scalar. It does not depend on the unit.

    Raises:
        ValueError: shapes that differ or do not end in 5, a `tau` below 1, or a bad `direction`, `transform`,
            `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> kld_loss(torch.tensor([[1.0, 0, 4, 2, 0]]), torch.tensor([[0.0, 0, 4, 2, 0]]))
        tensor(0.5751)

    Note:
        Identical boxes have exactly D = 0 and no gradient. The authors' code multiplies the loss by 0.05. mmrotate
        has two losses of this name: one is D(target ‖ input), the other twice D(input ‖ target).

    Reference:
        Yang et al., "Learning High-Precision Bounding Box for Rotated Object Detection via Kullback-Leibler
        Divergence", 2021, arXiv 2106.01883.
    """
    check_number("tau", tau, at_least=1)
    check_choice("direction", direction, get_args(KLDirection))
    check_choice("transform", transform, get_args(DistanceTransform))
    pair = _gaussian_pair(input, target)
    divergence = _kullback_leibler(pair if direction == "input_target" else pair.swapped())
    return reduce(_bounded(divergence, transform, tau), weight, reduction, normalizer)


def probiou_loss(
    input: RotatedBoxes,
    target: RotatedBoxes,
    *,
    mode: ProbIoUMode = "l1",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Probabilistic IoU loss of rotated boxes: the Hellinger distance of their Gaussians.

    Formula:
        l1: √(1 - exp(-B)), which is 1 - ProbIoU      l2: B
        B = ⅛ (m - m̂)ᵀ S⁻¹ (m - m̂) + ½ ln(|S| / √(|Σ| |Σ̂|)),  S = (Σ + Σ̂) / 2,  Σ = R(θ) diag(w², h²) / 12 R(θ)ᵀ

    Args:
        input: ``(*batch, 5)`` predicted boxes cx, cy, w, h, θ in radians.
        target: ``(*batch, 5)`` boxes in the same unit.
        mode: ``"l1"``, the Hellinger distance, or ``"l2"``, the Bhattacharyya distance B, whose gradient also reaches
            boxes far away.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` with ``"none"``, else a scalar. It does not depend on the unit.

    Raises:
        ValueError: shapes that differ or do not end in 5, or a bad `mode`, `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> probiou_loss(torch.tensor([[1.0, 0, 4, 2, 0]]), torch.tensor([[0.0, 0, 4, 2, 0]]))
        tensor(0.2991)

    Note:
        B is cut at 10,000, where its gradient ends (at 100 in the authors' code and in ultralytics). Identical boxes
        cost exactly 0 and have no gradient; the authors' code adds 0.001 in several places, ultralytics 1e-7. The
        paper is said to train with l2 first and l1 later, which is unverified.

    Reference:
        Llerena et al., "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection", 2021,
        arXiv 2106.06072.
    """
    check_choice("mode", mode, get_args(ProbIoUMode))
    distance = _bhattacharyya(_gaussian_pair(input, target)).clamp(max=_LARGEST_BHATTACHARYYA)
    loss = distance if mode == "l2" else safe_sqrt(-torch.expm1(-distance))
    return reduce(loss, weight, reduction, normalizer)


class _GaussianPair(NamedTuple):
    """Two rotated boxes, turned by at most 45° against each other; every field is ``(*batch)``."""

    width: Tensor
    height: Tensor
    target_width: Tensor
    target_height: Tensor
    along: Tensor
    """Offset of the centres along the width of the input; `across`, along its height."""
    across: Tensor
    target_along: Tensor
    """Offset of the centres along the width of the target; `target_across`, along its height."""
    target_across: Tensor
    sin2: Tensor
    """Squared sine of the angle between the two."""

    def swapped(self) -> "_GaussianPair":
        """Return the pair with the roles of input and target exchanged."""
        return _GaussianPair(
            self.target_width,
            self.target_height,
            self.width,
            self.height,
            self.target_along,
            self.target_across,
            self.along,
            self.across,
            self.sin2,
        )


def _gaussian_pair(input: Tensor, target: Tensor) -> _GaussianPair:
    check_box_pair(input, target, numbers=5)
    input, target = upcast(input, target)
    x, y, width, height, angle = input.unbind(-1)
    target_x, target_y, target_width, target_height, target_angle = target.unbind(-1)
    dx, dy = x - target_x, y - target_y
    # The input is described by the side that lies closer to the width of the target: boxes that are the same Gaussian
    # under two names are then subtracted side by side, and nothing cancels.
    turn = angle - target_angle
    crosswise = turn.sin().abs() > turn.cos().abs()
    width, height = torch.where(crosswise, height, width), torch.where(crosswise, width, height)
    angle = torch.where(crosswise, angle + math.pi / 2, angle)
    return _GaussianPair(
        width.clamp(min=_SMALLEST_SIDE),
        height.clamp(min=_SMALLEST_SIDE),
        target_width.clamp(min=_SMALLEST_SIDE),
        target_height.clamp(min=_SMALLEST_SIDE),
        *_rotate(dx, dy, angle),
        *_rotate(dx, dy, target_angle),
        (angle - target_angle).sin() ** 2,
    )


def _rotate(dx: Tensor, dy: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos(), angle.sin()
    return cos * dx + sin * dy, cos * dy - sin * dx


def _wasserstein2(pair: _GaussianPair) -> Tensor:
    # Tr((Σ^½ Σ̂ Σ^½)^½) = ½ √(cos² p² + sin² q²) with p = wŵ + hĥ and q = wĥ + hŵ; without rotation it is ½ p, and
    # p² - q² = (w² - h²)(ŵ² - ĥ²) is what rotation changes.
    w, h, target_w, target_h = pair.width, pair.height, pair.target_width, pair.target_height
    p, q = w * target_w + h * target_h, w * target_h + h * target_w
    root = ((1 - pair.sin2) * p**2 + pair.sin2 * q**2).sqrt()
    rotation = pair.sin2 * (w - h) * (w + h) * (target_w - target_h) * (target_w + target_h) / (p + root)
    sides = (w - target_w) ** 2 + (h - target_h) ** 2
    return pair.along**2 + pair.across**2 + sides / 4 + rotation / 2


def _kullback_leibler(pair: _GaussianPair) -> Tensor:
    # With e = w / ŵ - 1, the sides give e + e²/2 - ln(1 + e): ½ (r - 1 - ln r) of the ratio of the variances.
    w, h, target_w, target_h = pair.width, pair.height, pair.target_width, pair.target_height
    center = (pair.target_along / target_w) ** 2 + (pair.target_across / target_h) ** 2
    sides = torch.zeros_like(w)
    for side, target_side in ((w, target_w), (h, target_h)):
        e = (side - target_side) / target_side
        sides = sides + e + e**2 / 2 - _log_ratio(side, target_side, side - target_side, target_side.log())
    shape = (w - h) / target_h * ((w + h) / target_h)
    target_shape = (target_w - target_h) / target_w * ((target_w + target_h) / target_w)
    return 2 * center + sides + pair.sin2 * shape * target_shape / 2


def _bhattacharyya(pair: _GaussianPair) -> Tensor:
    # |S| / √(|Σ| |Σ̂|) - 1 is a sum of squares over 4 w h ŵ ĥ. The unit does not matter: with the longest side as unit
    # no product of four sides leaves the range of the numbers.
    sides = pair.width, pair.height, pair.target_width, pair.target_height
    unit = torch.stack(sides).amax(0).detach()
    w, h, target_w, target_h = (side / unit for side in sides)
    areas = 4 * (w * h) * (target_w * target_h)
    log_areas = math.log(4) + w.log() + h.log() + target_w.log() + target_h.log()
    excess = (
        (w * h - target_w * target_h) ** 2
        + (1 - pair.sin2) * (w * target_h - h * target_w) ** 2
        + pair.sin2 * (w * target_w - h * target_h) ** 2
    )
    center = (
        (h * (pair.along / unit)) ** 2
        + (w * (pair.across / unit)) ** 2
        + (target_h * (pair.target_along / unit)) ** 2
        + (target_w * (pair.target_across / unit)) ** 2
    )
    return 3 * center / (areas + excess) + _log_ratio(areas + excess, areas, excess, log_areas) / 2


def _log_ratio(numerator: Tensor, denominator: Tensor, difference: Tensor, log_denominator: Tensor) -> Tensor:
    """Return ln(numerator / denominator) of positive numbers, exact for a small difference and finite for a large."""
    small = difference.abs() < denominator / 2
    near = torch.log1p(torch.where(small, difference, 0) / torch.where(small, denominator, 1))
    return torch.where(small, near, torch.where(small, 1, numerator).log() - log_denominator)


def _bounded(distance: Tensor, transform: DistanceTransform, tau: float) -> Tensor:
    if transform != "log1p":
        distance = safe_sqrt(distance)
    if transform != "sqrt":
        distance = torch.log1p(distance)
    return 1 - 1 / (tau + distance)


GWDLoss = module_form("GWDLoss", gwd_loss)
KLDLoss = module_form("KLDLoss", kld_loss)
ProbIoULoss = module_form("ProbIoULoss", probiou_loss)
