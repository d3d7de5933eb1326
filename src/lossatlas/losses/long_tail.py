"""Cross entropies for classes of which some are much rarer than others."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.checks import check_elementwise, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import along, binary_costs, class_axis, class_vector, index_target
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce, split_ignored
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def balanced_binary_cross_entropy_with_logits(
    input: Values,
    target: Targets,
    *,
    alpha: float | None = None,
    per_image: bool = False,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Binary cross entropy of logits in which positives and negatives have the same say.

    Formula:
        l = -α y ln σ(x) - (1 - α)(1 - y) ln(1 - σ(x)),  α = Σ (1 - y) / number of elements unless given

    Args:
        input: ``(*shape)`` logits x; with `per_image` the first axis is that of the images.
        target: ``(*shape)`` y, 1 for positives and 0 for negatives; any dtype.
        alpha: weight of the positives, from 0 to 1. None takes the share of the negatives among the valid elements.
        per_image: whether that share is each image's own and not the batch's.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, an `alpha` outside [0, 1] or together with `per_image`, `per_image` of
            fewer than two axes, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> x, y = torch.zeros(4), torch.tensor([1, 0, 0, 0])
        >>> balanced_binary_cross_entropy_with_logits(x, y, reduction="none")
        tensor([0.5199, 0.1733, 0.1733, 0.1733])

    Note:
        The share is a constant, outside the graph. Where there are only negatives, or only positives, they have
        weight 0. The paper takes the share of each image and sums over its pixels (``per_image=True``,
        ``reduction="sum"``). The constant alpha is that of the focal loss paper, equation 3.

    Reference:
        Xie and Tu, "Holistically-Nested Edge Detection", 2015, arXiv 1504.06375, equation 2.
    """
    check_elementwise(input, target)
    if per_image and (alpha is not None or input.ndim < 2):
        raise ValueError(
            "`per_image` must be False for a fixed `alpha` or an input without an axis of images and another, "
            f"but got alpha {alpha!r} and shape {tuple(input.shape)}"
        )
    x, y = upcast(input, target)
    x, y, valid = split_ignored(x, y, ignore_index)
    hit, miss = binary_costs(x, y)
    if alpha is not None:
        check_number("alpha", alpha, at_least=0, at_most=1)
    share = _share_of_negatives(y.detach(), valid, per_image) if alpha is None else alpha
    return reduce(share * hit + (1 - share) * miss, weight, reduction, normalizer, valid)


def _share_of_negatives(y: Tensor, valid: Tensor | None, per_image: bool) -> Tensor:
    negative = 1 - y if valid is None else (1 - y) * valid
    count = torch.ones_like(y) if valid is None else valid.to(y.dtype)
    axes = tuple(range(1 if per_image else 0, y.ndim))
    return negative.sum(axes, keepdim=True) / count.sum(axes, keepdim=True).clamp(min=1)


def class_balanced_weights(counts: Tensor, beta: float) -> Tensor:
    """Return weights of classes by the effective number of their samples.

    Formula:
        w_c = C v_c / Σ v,  v_c = (1 - β) / (1 - β^n_c)

    Args:
        counts: ``(C,)`` numbers n of samples of the classes; a class without samples counts as if it had one.
        beta: β in [0, 1). 0 weighs all classes alike, towards 1 the weights become inverse frequencies; the paper
            takes 0.9 to 0.9999.

    Returns:
        ``(C,)`` weights, which sum to C, float32 at least and outside the graph; to be given as `class_weight`.

    Raises:
        ValueError: `counts` that are not one vector, or a `beta` outside [0, 1).

    Example:
        >>> class_balanced_weights(torch.tensor([1000, 10]), beta=0.99)
        tensor([0.1746, 1.8254])

    Reference:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019, arXiv 1901.05555, section 4.
    """
    check_number("beta", beta, at_least=0, below=1)
    if counts.ndim != 1:
        raise ValueError(f"`counts` must have shape (C,), but got {tuple(counts.shape)}")
    (n,) = upcast(counts.detach())
    # ln β is minus infinity for β = 0, which is right: one sample is all that counts.
    log_beta = math.log(beta) if beta > 0 else -math.inf
    inverse = -1 / torch.expm1(n.clamp(min=1) * log_beta)
    return inverse * len(n) / inverse.sum()


def seesaw_loss(
    input: Tensor,
    target: Tensor,
    *,
    counts: Tensor | None = None,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Softmax cross entropy in which frequent classes press less on rare ones, unless these are predicted wrongly.

    Formula:
        l = -ln(e^x_t / (Σ_{j ≠ t} S_j e^x_j + e^x_t)),  S_j = M_j C_j,  t the target
        M_j = min(1, (N_j / N_t)^p),  C_j = max(1, (s_j / max(s_t, eps))^q),  s = softmax(x)

    Args:
        input: ``(N, C, *spatial)`` logits x, or ``(C,)``.
        target: ``(N, *spatial)`` class indices from 0 to C - 1.
        counts: ``(C,)`` numbers N of the samples of the classes so far, this batch included; those below 1 count as
            1. None takes all classes as equally frequent, M = 1. `SeesawLoss` counts them.
        p: strength of the mitigation M, at least 0.
        q: strength of the compensation C, at least 0.
        eps: bound of the target's score, above 0.
        ignore_index: class index of elements that are left out.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a negative `p` or `q`, an `eps` that is not above 0, or a bad `reduction`
            or `normalizer`.
        TypeError: an `input` that is not floating point or a `target` that is not of integers.

    Example:
        >>> seesaw_loss(torch.zeros(1, 2), torch.tensor([1]), counts=torch.tensor([1, 1000]), q=0)
        tensor(0.0040)

    Note:
        The factors S are constants, outside the graph. Background is no class here: the authors tell it from objects
        by a classifier of its own.

    Reference:
        Wang et al., "Seesaw Loss for Long-Tailed Instance Segmentation", 2020, arXiv 2008.10032, section 3.
    """
    check_number("p", p, at_least=0)
    check_number("q", q, at_least=0)
    check_number("eps", eps, above=0)
    axis = class_axis(input)
    (x,) = upcast(input)
    index, x, valid = index_target(x, target, ignore_index, axis)
    at_target = index.unsqueeze(axis)
    score = x.detach().log_softmax(axis)
    # ln C and ln M; both are 0 at the target itself.
    log_factor = (q * (score - score.gather(axis, at_target).clamp(min=math.log(eps)))).clamp(min=0)
    if counts is not None:
        frequency = class_vector("counts", counts.detach(), x).clamp(min=1).log()
        relative = along(frequency, axis, x.ndim) - frequency[index].unsqueeze(axis)
        log_factor = log_factor + (p * relative).clamp(max=0)
    loss = -(x + log_factor).log_softmax(axis).gather(axis, at_target).squeeze(axis)
    return reduce(loss, weight, reduction, normalizer, valid)


class SeesawLoss(nn.Module):
    """`seesaw_loss` that counts the samples of the classes as they come.

    In training mode each call first adds the targets that are not ignored to `counts`, which is saved with the
    module. Counts are of this process; `DistributedDataParallel` hands those of the first one to all.

    Args:
        num_classes: C.
        p: strength of the mitigation M, at least 0.
        q: strength of the compensation C, at least 0.
        eps: bound of the target's score, above 0.
        ignore_index: class index of elements that are left out.

    Example:
        >>> loss = SeesawLoss(2, q=0)
        >>> loss(torch.zeros(4, 2), torch.tensor([1, 1, 1, 0])), loss.counts
        (tensor(0.4338), tensor([1, 3]))
    """

    function = staticmethod(seesaw_loss)
    counts: Tensor

    def __init__(
        self, num_classes: int, *, p: float = 0.8, q: float = 2.0, eps: float = 1e-2, ignore_index: int = -100
    ) -> None:
        super().__init__()
        check_number("num_classes", num_classes, at_least=1)
        self.num_classes = num_classes
        self.options: dict[str, Any] = {"p": p, "q": q, "eps": eps, "ignore_index": ignore_index}
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.long))

    def forward(self, input: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss of `input` against `target`; keyword arguments are those of `seesaw_loss`."""
        options = self.options | kwargs
        if self.training:
            valid = target != options["ignore_index"]
            index = torch.where(valid, target, 0).long().flatten()
            self.counts.scatter_add_(0, index, valid.flatten().long())
        return seesaw_loss(input, target, **({"counts": self.counts} | options))

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join([str(self.num_classes), *(f"{name}={value!r}" for name, value in self.options.items())])


BalancedBinaryCrossEntropyWithLogits = module_form(
    "BalancedBinaryCrossEntropyWithLogits", balanced_binary_cross_entropy_with_logits
)
