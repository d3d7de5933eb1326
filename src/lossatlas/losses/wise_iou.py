"""Wise IoU: a loss that weighs boxes by their distance and, with a running mean, by their quality."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lossatlas.boxes.geometry import overlap, safe_divide
from lossatlas.checks import check_choice, check_number
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.box_pairs import fused_boxes, reduced_boxes
from lossatlas.losses.boxes import linear_iou_costs
from lossatlas.losses.reduction import broadcastable
from lossatlas.typing import Boxes, Loss, Normalizer, Reduction

WiseVersion = Literal[1, 2, 3]


def wiou_loss(
    input: Boxes,
    target: Boxes,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Wise IoU loss, version 1: boxes whose centre is off count up to e times as much.

    Formula:
        l = exp(ρ² / c²) (1 - IoU)      ρ: distance of the centres, c: diagonal of the enclosing box, detached

    Args:
        input: ``(*batch, 4)`` predicted boxes, xyxy.
        target: ``(*batch, 4)`` boxes in the same unit.
        weight: factors of the boxes, broadcasting to ``(*batch)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*batch)`` from 0 to e with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ or do not end in 4, or a bad `reduction` or `normalizer`.
        TypeError: boxes that are not floating point.

    Example:
        >>> wiou_loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.2214)

    Note:
        c is detached, so that no box grows in order to enlarge the enclosing box. Versions 2 and 3 need a running mean
        and are the module `WIoULoss`.

    Reference:
        Tong et al., "Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism", 2023, arXiv 2301.10051.
    """
    return reduced_boxes(_wise_iou_costs, input, target, weight=weight, reduction=reduction, normalizer=normalizer)


class WIoULoss(nn.Module):
    """Wise IoU loss in three versions, with the running mean of the IoU loss as its state.

    Formula:
        version 1: l₁ = exp(ρ² / c²) L,  L = 1 - IoU      c detached
        version 2: l₂ = (L / m)^γ l₁                      the factor detached
        version 3: l₃ = β / (δ α^(β - δ)) l₁,  β = L / m  the factor detached
        m ← (1 - momentum) m + momentum · mean of L over the boxes

    In training mode m is brought up to date before it is used; in evaluation mode it stands still. It starts at 1, and
    a call without boxes, or whose mean is not finite, leaves it as it is. All versions keep it, so that a state may be
    loaded by another one. In distributed training every process has its own.

    Args:
        version: 1, which is `wiou_loss`; 2, bad boxes count more; 3, boxes of ordinary quality count most: a box with
            β = δ counts once, far better and far worse ones less.
        gamma: γ of version 2, at least 0.
        alpha: α of version 3, above 1. 1.9 with δ = 3 is in the authors' code for the experiments of the paper, 1.7
            with δ = 2.7 in their later code; which of them the paper prints is unverified.
        delta: δ of version 3, above 0.
        momentum: share of a new batch in the mean, above 0 and at most 1. 0.01 is that of the authors' later code.
            Their earlier code takes 1 - 0.05^(1 / (t n)) for n batches an epoch and t epochs until the accuracy stops
            rising fast; that the paper has the same constant is unverified.
        reduction: ``"none"``, ``"mean"`` over the boxes, or ``"sum"``.

    Raises:
        ValueError: an unknown `version` or a hyper-parameter out of its range.

    Example:
        >>> loss = WIoULoss(version=3)
        >>> loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]]))
        tensor(1.4698)
        >>> loss(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 1, 1]]))
        tensor(0.)
        >>> loss.running_mean
        tensor(0.9900)

    Reference:
        Tong et al., "Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism", 2023, arXiv 2301.10051.
    """

    function: Callable[..., Tensor] = staticmethod(wiou_loss)
    running_mean: Tensor

    def __init__(
        self,
        *,
        version: WiseVersion = 3,
        gamma: float = 0.5,
        alpha: float = 1.9,
        delta: float = 3.0,
        momentum: float = 0.01,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_choice("version", version, get_args(WiseVersion))
        check_number("gamma", gamma, at_least=0)
        check_number("alpha", alpha, above=1)
        check_number("delta", delta, above=0)
        check_number("momentum", momentum, above=0, at_most=1)
        check_choice("reduction", reduction, get_args(Reduction))
        self.version, self.gamma, self.alpha, self.delta = version, gamma, alpha, delta
        self.momentum, self.reduction = momentum, reduction
        self.register_buffer("running_mean", torch.tensor(1.0))

    def forward(
        self,
        input: Boxes,
        target: Boxes,
        *,
        weight: Tensor | None = None,
        reduction: Reduction | None = None,
        normalizer: Normalizer | None = None,
    ) -> Loss:
        """Return the loss of `input` against `target`, arguments as in `wiou_loss`; in training mode, update m."""
        iou_loss = reduced_boxes(linear_iou_costs, input.detach(), target, reduction="none")
        if self.training:
            self._update(iou_loss)
        focus = self._focus(iou_loss)
        if weight is not None:
            focus = focus * broadcastable("weight", weight, focus)
        return reduced_boxes(
            _wise_iou_costs,
            input,
            target,
            weight=focus,
            reduction=self.reduction if reduction is None else reduction,
            normalizer=normalizer,
        )

    def _update(self, iou_loss: Tensor) -> None:
        if iou_loss.numel() == 0:
            return
        mean = torch.lerp(self.running_mean.to(iou_loss.dtype), iou_loss.mean(), self.momentum)
        self.running_mean.copy_(torch.where(mean.isfinite(), mean, self.running_mean))

    def _focus(self, iou_loss: Tensor) -> Tensor:
        if self.version == 1:
            return torch.ones_like(iou_loss)
        beta = safe_divide(iou_loss, self.running_mean.to(iou_loss.dtype).expand_as(iou_loss))
        if self.version == 2:
            return safe_power(beta, self.gamma)
        return beta / self.delta * self.alpha ** (self.delta - beta)

    def extra_repr(self) -> str:
        """Return the hyper-parameters."""
        names = ("version", "gamma", "alpha", "delta", "momentum", "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


@fused_boxes("wiou")
def _wise_iou_costs(input: Tensor, target: Tensor) -> Tensor:
    pair = overlap(input, target)
    distance = safe_divide(pair.center_distance2, pair.enclosing_diagonal2.detach())
    return distance.exp() * (1 - pair.iou)
