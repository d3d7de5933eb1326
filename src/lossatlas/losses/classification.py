"""Cross entropies: of one yes/no decision and of classes, from probabilities and from logits."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.checks import check_elementwise, check_floating, check_integer, check_number
from lossatlas.dtypes import upcast
from lossatlas.kernels import softmax as softmax_kernels
from lossatlas.kernels.loss import register_twin
from lossatlas.losses.arithmetic import bounded_log, safe_power
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import (
    broadcastable,
    fused,
    kernel_factors,
    reduce,
    reduced,
    split_ignored,
    takes_kernel,
)
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def binary_cross_entropy(
    input: Values,
    target: Targets,
    *,
    label_smoothing: float = 0.0,
    pos_weight: Tensor | None = None,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Binary cross entropy of probabilities with targets from 0 to 1.

    Formula:
        l = -[y ln p + (1 - y) ln(1 - p)],  each logarithm at least -100

    Args:
        input: ``(*shape)`` probabilities p from 0 to 1. Where there are logits, `binary_cross_entropy_with_logits`
            is the more exact one.
        target: ``(*shape)`` probabilities y from 0 to 1; any dtype.
        label_smoothing: ε in [0, 1); targets become y (1 - ε) + ε / 2.
        pos_weight: factor of the first term, -y ln p; it broadcasts to ``(*shape)``.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a `label_smoothing` outside [0, 1), a `pos_weight` that does not broadcast, or
            a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> binary_cross_entropy(torch.tensor([0.5, 0.0]), torch.tensor([1, 1]), reduction="none")
        tensor([  0.6931, 100.0000])

    Note:
        The bound of -100 is torch's. The slope of a logarithm, 1 / p, is bounded too, so that p = 0 and p = 1 have a
        finite gradient: by 1e12, as in torch, and by 1e4 for float16 input, whose gradient holds no more.

    Reference:
        I. J. Good, "Rational Decisions", 1952 (logarithmic score).
    """
    check_elementwise(input, target)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    p, y = upcast(input, target)
    p, y, valid = split_ignored(p, y, ignore_index)
    y = y * (1 - label_smoothing) + label_smoothing / 2
    slope = steepest_log(input.dtype)
    hit = -y * bounded_log(p, slope)
    if pos_weight is not None:
        hit = hit * broadcastable("pos_weight", pos_weight, hit)
    return reduce(hit - (1 - y) * bounded_log(1 - p, slope), weight, reduction, normalizer, valid)


def steepest_log(dtype: torch.dtype) -> float:
    """Return the largest slope of a logarithm of probabilities whose gradient has this dtype."""
    return 1e4 if dtype == torch.float16 else 1e12


def binary_cross_entropy_with_logits(
    input: Values,
    target: Targets,
    *,
    label_smoothing: float = 0.0,
    pos_weight: Tensor | None = None,
    ignore_index: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Binary cross entropy of logits with targets from 0 to 1.

    Formula:
        l = -[y ln σ(x) + (1 - y) ln(1 - σ(x))]

    Args:
        input: ``(*shape)`` logits x.
        target: ``(*shape)`` probabilities y from 0 to 1; any dtype.
        label_smoothing: ε in [0, 1); targets become y (1 - ε) + ε / 2.
        pos_weight: factor of the first term, -y ln σ(x); it broadcasts to ``(*shape)``.
        ignore_index: target value of elements that are left out; None leaves out none.
        weight: factors of the elements, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*shape)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that differ, a `label_smoothing` outside [0, 1), a `pos_weight` that does not broadcast, or
            a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> binary_cross_entropy_with_logits(torch.tensor([0.0, 2.0]), torch.tensor([1, 0]), reduction="none")
        tensor([0.6931, 2.1269])

    Note:
        The gradient is σ(x) - y.

    Reference:
        I. J. Good, "Rational Decisions", 1952 (logarithmic score).
    """
    check_elementwise(input, target)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    if pos_weight is not None:
        exact = torch.promote_types(input.dtype, torch.float32)
        pos_weight = broadcastable("pos_weight", pos_weight, input, exact)
    return reduced(
        binary_entropy if pos_weight is None else weighed_binary_entropy,
        input,
        target,
        label_smoothing,
        ignore_index=ignore_index,
        factor=pos_weight,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


@fused("binary_cross_entropy")
def binary_entropy(x: Tensor, y: Tensor, smoothing: float) -> Tensor:
    """Return the elements of `binary_cross_entropy_with_logits`."""
    hit, miss = binary_costs(x, y * (1 - smoothing) + smoothing / 2)
    return hit + miss


@fused("weighed_binary_cross_entropy")
def weighed_binary_entropy(x: Tensor, y: Tensor, pos_weight: Tensor, smoothing: float) -> Tensor:
    """Return the elements of `binary_cross_entropy_with_logits` with a factor of the first term."""
    hit, miss = binary_costs(x, y * (1 - smoothing) + smoothing / 2)
    return hit * pos_weight + miss


def binary_costs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two terms of binary cross entropy, -y ln σ(x) and -(1 - y) ln(1 - σ(x)).

    Both logarithms, and not x (1 - y) - ln σ(x), which cancels to nothing for confident negatives.
    """
    return -y * F.logsigmoid(x), -(1 - y) * F.logsigmoid(-x)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Softmax cross entropy of class logits with class indices or class probabilities.

    Formula:
        l = -Σ_c w_c p_c ln softmax(x)_c,  p = (1 - ε) target + ε / C

    Args:
        input: ``(N, C, *spatial)`` logits, or ``(C,)``.
        target: ``(N, *spatial)`` class indices from 0 to C - 1 (an integer dtype), or probabilities of the shape of
            `input` (a floating dtype).
        label_smoothing: ε in [0, 1).
        class_weight: ``(C,)`` factors w of the classes.
        ignore_index: class index of elements that are left out. It has no meaning for probabilities.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `label_smoothing` outside [0, 1), a `class_weight` that is not ``(C,)``,
            or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> cross_entropy(torch.zeros(2, 4), torch.tensor([3, -100]))
        tensor(1.3863)

    Note:
        ``"mean"`` divides by the number of elements also when `class_weight` is given. torch divides by the sum of
        the weights of the targets; ``normalizer=class_weight[target].sum()`` gives that.

    Reference:
        J. S. Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990. Label
        smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2016, arXiv 1512.00567, section 7.
    """
    return reduced_class_costs(
        input,
        target,
        0.0,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        ignore_index=ignore_index,
        weight=weight,
        reduction=reduction,
        normalizer=normalizer,
    )


def nll_loss(
    input: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Negative log-likelihood of class indices or class probabilities: cross entropy from log-probabilities.

    Formula:
        l = -Σ_c w_c p_c x_c,  p = (1 - ε) target + ε / C

    Args:
        input: ``(N, C, *spatial)`` log-probabilities x, or ``(C,)``; they are not normalised here.
        target: ``(N, *spatial)`` class indices from 0 to C - 1 (an integer dtype), or probabilities of the shape of
            `input` (a floating dtype).
        label_smoothing: ε in [0, 1).
        class_weight: ``(C,)`` factors w of the classes.
        ignore_index: class index of elements that are left out. It has no meaning for probabilities.
        weight: factors of the elements, broadcasting to ``(N, *spatial)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the elements that are not ignored, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, *spatial)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `label_smoothing` outside [0, 1), a `class_weight` that is not ``(C,)``,
            or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> nll_loss(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
        tensor(0.2877)

    Note:
        Without label smoothing only the log-probability of the target's class is read. A log-probability of minus
        infinity costs nothing where the target's probability is 0. ``"mean"`` divides by the number of elements also
        when `class_weight` is given; torch divides by the sum of the weights of the targets.

    Reference:
        R. A. Fisher, "On the Mathematical Foundations of Theoretical Statistics", 1922 (likelihood).
    """
    loss, valid = class_costs(
        input,
        target,
        torch.neg,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        ignore_index=ignore_index,
        normalized=True,
    )
    return reduce(loss, weight, reduction, normalizer, valid)


def reduced_class_costs(
    input: Tensor,
    target: Tensor,
    gamma: float,
    *,
    label_smoothing: float,
    class_weight: Tensor | None,
    ignore_index: int,
    weight: Tensor | None,
    reduction: Reduction,
    normalizer: Normalizer | None,
) -> Tensor:
    """Return the focal loss of softmax, which is cross entropy for `gamma` 0: by the kernel, or step by step."""
    axis = class_axis(input)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    if class_weight is not None:
        class_vector("class_weight", class_weight, input)
    fits = not target.is_floating_point() and (gamma == 0 or label_smoothing == 0)
    if not (fits and takes_kernel(input, target, weight, class_weight, normalizer=normalizer)):
        return _reduced_step_by_step(
            input, target, weight, class_weight, gamma, label_smoothing, ignore_index, reduction, normalizer
        )
    check_index_target(input, target, axis)
    factor = input.new_ones(input.shape[axis], dtype=torch.float32) if class_weight is None else class_weight.float()
    weight, divisor = kernel_factors(target, weight, reduction, normalizer)
    return softmax_kernels.class_costs(
        input, target, weight, factor, gamma, label_smoothing, ignore_index, reduction, divisor
    )


def _reduced_step_by_step(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    class_weight: Tensor | None,
    gamma: float,
    label_smoothing: float,
    ignore_index: int,
    reduction: Reduction,
    normalizer: Normalizer | None,
) -> Tensor:
    def focal(log_probability: Tensor) -> Tensor:
        return safe_power(-torch.expm1(log_probability), gamma) * -log_probability

    loss, valid = class_costs(
        input,
        target,
        torch.neg if gamma == 0 else focal,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
        ignore_index=ignore_index,
    )
    return reduce(loss, weight, reduction, normalizer, valid)


register_twin("class_costs", _reduced_step_by_step)


def class_costs(
    input: Tensor,
    target: Tensor,
    cost: Callable[[Tensor], Tensor],
    *,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    normalized: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the cost of predicted classes, as the target expects it.

    Formula:
        l = Σ_c w_c p_c cost(ln softmax(x)_c),  p = (1 - ε) target + ε / C

    Args:
        input: ``(N, C, *spatial)`` logits x, or ``(C,)``.
        target: ``(N, *spatial)`` class indices, or probabilities of the shape of `input`.
        cost: what a class costs that is certain to be the right one, from its log-probability, elementwise.
        label_smoothing: ε in [0, 1).
        class_weight: ``(C,)`` factors w.
        ignore_index: class index of elements that are left out.
        normalized: whether `input` holds log-probabilities already.

    Returns:
        ``(N, *spatial)`` costs and the mask of valid elements (None if all are).
    """
    axis = class_axis(input)
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    classes = input.shape[axis]
    (x,) = upcast(input)
    factor = None if class_weight is None else class_vector("class_weight", class_weight, x)
    if not target.is_floating_point():
        index, x, valid = index_target(x, target, ignore_index, axis)
        log_probability = x if normalized else x.log_softmax(axis)
        loss = cost(log_probability.gather(axis, index.unsqueeze(axis)).squeeze(axis))
        if factor is not None:
            loss = loss * factor[index]
        if label_smoothing:
            every = cost(log_probability)
            every = every if factor is None else every * along(factor, axis, x.ndim)
            loss = (1 - label_smoothing) * loss + label_smoothing * every.mean(axis)
        return loss, valid
    check_probability_target(input, target)
    probability = target.to(x.dtype) * (1 - label_smoothing) + label_smoothing / classes
    every = cost(x if normalized else x.log_softmax(axis))
    # A class that is certain to be wrong and has no share in the target costs nothing: 0 · ∞ = 0.
    every = torch.where((probability == 0) & every.isinf(), 0, probability * every)
    return (every if factor is None else every * along(factor, axis, x.ndim)).sum(axis), None


def class_axis(input: Tensor) -> int:
    """Check that `input` is floating point with a class axis, and return that axis: 1, or 0 of a vector."""
    check_floating("input", input)
    if input.ndim == 0:
        raise ValueError("`input` must have a class axis, but got shape ()")
    return min(input.ndim - 1, 1)


def class_vector(name: str, vector: Tensor, input: Tensor) -> Tensor:
    """Check that a tensor has one number for each class of `input`, and return it in the dtype of `input`."""
    if not isinstance(vector, Tensor):
        raise TypeError(f"`{name}` must be a tensor, but got {type(vector).__name__}")
    classes = input.shape[class_axis(input)]
    if vector.shape != (classes,):
        raise ValueError(f"`{name}` must have shape ({classes},), but got {tuple(vector.shape)}")
    return vector.to(input.dtype)


def index_target(input: Tensor, target: Tensor, ignore_index: int, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Check a target of class indices and take the ignored elements out of both tensors.

    Args:
        input: logits whose axis `axis` holds the classes.
        target: class indices with the shape of `input` without that axis.
        ignore_index: class index of ignored elements.
        axis: 0 or 1.

    Returns:
        Indices and logits, both zero where ignored, and the mask of valid elements.
    """
    check_index_target(input, target, axis)
    valid = target != ignore_index
    index = torch.where(valid, target, 0).long()
    return index, torch.where(valid.unsqueeze(axis), input, 0), valid


def check_index_target(input: Tensor, target: Tensor, axis: int) -> None:
    """Raise unless a target of class indices holds integers and has the shape of `input` without its class axis."""
    check_integer("target", target)
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    if target.shape != expected:
        raise ValueError(f"`target` of class indices must have shape {tuple(expected)}, but got {tuple(target.shape)}")


def check_probability_target(input: Tensor, target: Tensor) -> None:
    """Raise `ValueError` unless a target of class probabilities has the shape of `input`."""
    if target.shape != input.shape:
        raise ValueError(
            f"`target` of probabilities must have the shape of `input`, {tuple(input.shape)}, "
            f"but got {tuple(target.shape)}"
        )


def along(vector: Tensor, axis: int, ndim: int) -> Tensor:
    """Return a vector as a tensor of `ndim` axes that broadcasts along one of them."""
    shape = [1] * ndim
    shape[axis] = -1
    return vector.view(shape)


BinaryCrossEntropy = module_form("BinaryCrossEntropy", binary_cross_entropy)
BinaryCrossEntropyWithLogits = module_form("BinaryCrossEntropyWithLogits", binary_cross_entropy_with_logits)
CrossEntropy = module_form("CrossEntropy", cross_entropy)
NLLLoss = module_form("NLLLoss", nll_loss)
