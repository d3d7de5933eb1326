"""The equalized focal loss, whose focus follows the gradients that each class has received."""

from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.checks import check_elementwise, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.arithmetic import safe_power
from lossatlas.losses.classification import binary_costs
from lossatlas.losses.reduction import broadcastable, reduce, split_ignored
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def equalized_focal_loss(
    input: Values,
    target: Targets,
    *,
    ratios: Tensor | None = None,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    scale: float = 8.0,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Sigmoid focal loss whose focus is the stronger, the more a class is outweighed by its negatives.

    Formula:
        l = -αₜ (γ_c / γ) (1 - pₜ)^γ_c ln pₜ,  γ_c = γ + s (1 - g_c)
        pₜ = p y + (1 - p)(1 - y),  αₜ = α y + (1 - α)(1 - y),  p = σ(x)

    Args:
        input: ``(*shape)`` logits x, the last axis that of the classes.
        target: ``(*shape)`` y, 1 for positives and 0 for negatives; any dtype.
        ratios: ``(C,)`` g, the gradient that the positives of each class have received so far, divided by that of
            its negatives, cut to [0, 1]. None takes 1 for all, which is the focal loss. `EqualizedFocalLoss` collects
            them.
        alpha: weight of the positives, from 0 to 1; negatives get 1 - alpha. None leaves both at 1.
        gamma: γ above 0, how strongly easy elements are turned down in a balanced class.
        scale: s at least 0, how much more in a class without positives.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, an `alpha` outside [0, 1], a `gamma` that is not above 0, a negative
            `scale`, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> equalized_focal_loss(torch.zeros(1, 2), torch.ones(1, 2), ratios=torch.tensor([1.0, 0.0]), reduction="none")
        tensor([[0.0433, 0.0008]])

    Note:
        The ratios, and with them γ_c and its factor, are constants, outside the graph. The authors take ln of σ(x),
        which is infinite for confident mistakes in half precision.

    Reference:
        Li et al., "Equalized Focal Loss for Dense Long-Tailed Object Detection", 2022, arXiv 2201.02593,
        section 3.
    """
    x, y, valid = _checked_equalized(input, target, alpha, gamma, scale, ignore_index)
    factor, exponent = _equalized_focus(x, y, ratios, alpha, gamma, scale)
    hit, false_alarm = binary_costs(x, y)
    loss = factor * safe_power(_error(x, y), exponent) * (hit + false_alarm)
    return reduce(loss, weight, reduction, normalizer, valid)


def _checked_equalized(
    input: Tensor, target: Tensor, alpha: float | None, gamma: float, scale: float, ignore_index: float | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    check_elementwise(input, target)
    check_number("gamma", gamma, above=0)
    check_number("scale", scale, at_least=0)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
    x, y = upcast(input, target)
    return split_ignored(x, y, ignore_index)


def _error(x: Tensor, y: Tensor) -> Tensor:
    return torch.sigmoid(-x) * y + torch.sigmoid(x) * (1 - y)


def _equalized_focus(
    x: Tensor, y: Tensor, ratios: Tensor | None, alpha: float | None, gamma: float, scale: float
) -> tuple[Tensor, float | Tensor]:
    """Return the factor in front of the power and the exponent."""
    balance = torch.ones_like(x) if alpha is None else alpha * y + (1 - alpha) * (1 - y)
    if ratios is None:
        return balance, gamma
    if ratios.shape != x.shape[-1:]:
        raise ValueError(f"`ratios` must have shape {tuple(x.shape[-1:])}, but got {tuple(ratios.shape)}")
    exponent = gamma + scale * (1 - ratios.detach().to(x.dtype).clamp(0, 1))
    return balance * exponent / gamma, exponent


class EqualizedFocalLoss(nn.Module):
    """`equalized_focal_loss` that collects the gradients of the classes' positives and negatives.

    In training mode each call, after its loss, adds the size of the gradient of the sum of its elements in the logits
    to `positive` and `negative`, which are saved with the module. They are computed in closed form, so that neither a
    scaler's factor nor a normalizer that changes from batch to batch enters the ratio; the authors take what arrives
    in the backward pass. Sums are of this process; `DistributedDataParallel` hands those of the first one to all.

    Args:
        num_classes: C, the size of the last axis.
        alpha: weight of the positives, from 0 to 1; negatives get 1 - alpha. None leaves both at 1.
        gamma: γ above 0, how strongly easy elements are turned down in a balanced class.
        scale: s at least 0, how much more in a class without positives.
        ignore_index: target value of elements that are left out; None leaves out none.

    Example:
        >>> loss = EqualizedFocalLoss(2, alpha=None)
        >>> _ = loss(torch.zeros(4, 2), torch.tensor([[1, 1], [0, 1], [0, 0], [0, 0]]))
        >>> loss.ratios
        tensor([0.3333, 1.0000])
    """

    function = staticmethod(equalized_focal_loss)
    positive: Tensor
    negative: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        scale: float = 8.0,
        ignore_index: float | None = None,
    ) -> None:
        super().__init__()
        check_number("num_classes", num_classes, at_least=1)
        self.num_classes = num_classes
        self.options: dict[str, Any] = {"alpha": alpha, "gamma": gamma, "scale": scale, "ignore_index": ignore_index}
        self.register_buffer("positive", torch.zeros(num_classes))
        self.register_buffer("negative", torch.zeros(num_classes))

    @property
    def ratios(self) -> Tensor:
        """``(C,)`` gradient of the positives by that of the negatives, at most 1; 1 where there was none yet."""
        seen = self.negative > 0
        return torch.where(seen, self.positive / torch.where(seen, self.negative, 1), 1).clamp(max=1)

    def forward(self, input: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss of `input` against `target`; keyword arguments are those of `equalized_focal_loss`."""
        options = {"ratios": self.ratios} | self.options | kwargs
        loss = equalized_focal_loss(input, target, **options)
        if self.training:
            self._collect(input.detach(), target, **options)
        return loss

    def _collect(
        self,
        input: Tensor,
        target: Tensor,
        *,
        ratios: Tensor | None,
        alpha: float | None,
        gamma: float,
        scale: float,
        ignore_index: float | None,
        weight: Tensor | None = None,
        **_: object,
    ) -> None:
        x, y, valid = _checked_equalized(input, target, alpha, gamma, scale, ignore_index)
        factor, exponent = _equalized_focus(x, y, ratios, alpha, gamma, scale)
        miss = _error(x, y)
        hit, false_alarm = binary_costs(x, y)
        size = factor * safe_power(miss, exponent) * (exponent * (1 - miss) * (hit + false_alarm) + miss)
        if weight is not None:
            size = size * broadcastable("weight", weight, size).abs()
        if valid is not None:
            size = size * valid
        axes = tuple(range(size.ndim - 1))
        self.positive += (size * y).sum(axes)
        self.negative += (size * (1 - y)).sum(axes)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join([str(self.num_classes), *(f"{name}={value!r}" for name, value in self.options.items())])
