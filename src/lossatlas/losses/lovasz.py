"""Lovász losses: the Jaccard loss of hard decisions, extended to errors between 0 and 1 or to hinges.

`lossatlas.losses.segmentation_targets` says what they take and what their elements are. Targets are hard: a soft value
counts as 1 above 0.5. Both sort the pixels of each element; equal errors keep the order of the pixels.
"""

from typing import Literal

import torch
from torch import Tensor

from lossatlas.checks import check_choice
from lossatlas.kernels import lovasz as lovasz_kernels
from lossatlas.kernels.loss import register_twin
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import reduce
from lossatlas.losses.segmentation_targets import check_forms, first_class, prepare
from lossatlas.typing import ClassLogits, Loss, Normalizer, Reduction

LovaszAbsent = Literal["skip", "formula"]
Errors = Literal["softmax", "sigmoid", "hinge"]


def lovasz_softmax_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    multilabel: bool = False,
    per_image: bool = False,
    include_background: bool = True,
    absent: LovaszAbsent = "skip",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Lovász-softmax loss: the Lovász extension of the Jaccard loss, on the errors of the probabilities.

    Formula:
        e = 1 - p for pixels of the class, p for the others, in descending order;  J = 1 - IoU
        l = Σ_i e_i (J({1..i}) - J({1..i-1})),  J(S) of a prediction that is wrong on the pixels S

    Args:
        input: ``(N, C, *spatial)`` logits; one channel is binary segmentation.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft values.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        per_image: True gives an element for each image and class, False one for each class over the batch.
        include_background: False leaves out the first class.
        absent: the element of a class that is absent from the target: ``"skip"`` leaves it out, ``"formula"`` is its
            largest probability, so that the gradient pushes the worst false positive down.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> x = torch.tensor([[[0.8, 0.4, 0.1]]]).logit()
        >>> lovasz_softmax_loss(x, torch.tensor([[1, 1, 0]]))
        tensor(0.4000)

    Note:
        Over the batch and the present classes by default, as in the authors' code and smp. kornia takes each image and
        all classes (``per_image=True, absent="formula"``); before its version 0.9 it computed something else.

    Reference:
        Berman et al., "The Lovász-Softmax loss", 2018, arXiv 1705.08790, equations 8, 9 and 11.
    """
    target = check_forms(input, target)
    exclusive = not multilabel
    if input.shape[1] == 1:  # not an expression, which would be a symbol where a compiler traces the shape
        exclusive = False
    errors: Errors = "softmax" if exclusive else "sigmoid"
    first = first_class(include_background, input.shape[1])
    loss, valid = _elements(input, target, errors, ignore_index, per_image, absent, first)
    return reduce(loss, weight, reduction, normalizer, valid)


def lovasz_hinge_loss(
    input: ClassLogits,
    target: Tensor,
    *,
    per_image: bool = True,
    absent: LovaszAbsent = "formula",
    ignore_index: int | None = -100,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Lovász hinge: the Lovász extension of the Jaccard loss, on the hinges of the logits.

    Formula:
        e = max(1 - x (2 g - 1), 0) in descending order;  J = 1 - IoU
        l = Σ_i e_i (J({1..i}) - J({1..i-1})),  J(S) of a prediction that is wrong on the pixels S

    Args:
        input: ``(N, C, *spatial)`` logits x, each channel a yes/no question.
        target: ``(N, *spatial)`` of 0 and 1 for one channel, class indices for several, or ``(N, C, *spatial)`` of 0
            and 1.
        per_image: True gives an element for each image and class, False one for each class over the batch.
        absent: the element of a class that is absent from the target: ``"formula"`` is its largest hinge, so that the
            gradient pushes the worst false positive down, ``"skip"`` leaves it out.
        ignore_index: target value of pixels that are left out; None leaves out none.
        weight: factors that broadcast to the elements, such as ``(C,)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the valid elements, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(N, C)`` with ``"none"``, ``(C,)`` over the batch, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `absent`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or class indices that are not integers.

    Example:
        >>> lovasz_hinge_loss(torch.tensor([[[2.0, 0.5, -0.5]]]), torch.tensor([[1, 1, 0]]))
        tensor(0.3333)

    Note:
        The order of the pixels is held constant. For each image by default, as in the authors' code; smp takes the
        batch, and one number for all channels.

    Reference:
        Yu and Blaschko, "The Lovász Hinge", 2015, arXiv 1512.07797, definition 1 for the Jaccard loss; Berman et al.,
        2018, arXiv 1705.08790, section 2.3.
    """
    target = check_forms(input, target)
    loss, valid = _elements(input, target, "hinge", ignore_index, per_image, absent)
    return reduce(loss, weight, reduction, normalizer, valid)


def _elements(
    input: Tensor,
    target: Tensor,
    errors: Errors,
    ignored: int | None,
    per_image: bool,
    absent: LovaszAbsent,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the elements of the loss from the first class that counts on, and the mask of the valid ones."""
    check_choice("absent", absent, ("skip", "formula"))
    by_kernel = lovasz_kernels.usable(input, target, errors)
    compute = lovasz_kernels.lovasz if by_kernel else _step_by_step
    return compute(input, target, errors, ignored, per_image, absent == "formula", first)


def _step_by_step(
    input: Tensor, target: Tensor, errors: str, ignored: int | None, per_image: bool, absent: bool, first: int
) -> tuple[Tensor, Tensor]:
    segmentation = prepare(input, target, multilabel=errors != "softmax", ignore_index=ignored)
    positive = segmentation.target > 0.5
    if errors == "softmax":
        p = segmentation.probability()
        wrong = torch.where(positive, 1 - p, p)
    else:
        # Not 1 - σ(x), whose rounding would part equal errors of positive and negative pixels.
        margin = torch.where(positive, -segmentation.logits, segmentation.logits)
        wrong = margin.sigmoid() if errors == "sigmoid" else (1 + margin).relu()
    return _lovasz(wrong[:, first:], positive[:, first:], segmentation.valid[:, first:], per_image, absent)


register_twin("lovasz", _step_by_step)


def _lovasz(errors: Tensor, positive: Tensor, valid: Tensor, per_image: bool, absent: bool) -> tuple[Tensor, Tensor]:
    """Return the elements of the loss and the mask of the valid ones, from errors of at least 0."""
    errors, positive, valid = (_rows(values, per_image) for values in (errors, positive & valid, valid))
    # What is ignored comes last, where it changes neither intersection nor union.
    errors, order = torch.where(valid, errors, -1).sort(dim=-1, descending=True, stable=True)
    positive, valid = positive.gather(-1, order), valid.gather(-1, order)
    step = _jaccard_steps(positive, valid & ~positive, errors.dtype)
    kept = valid.any(-1) if absent else positive.any(-1)
    return (torch.where(valid, errors, 0) * step).sum(-1), kept


def _rows(values: Tensor, per_image: bool) -> Tensor:
    rows = values.flatten(2)
    return rows if per_image else rows.transpose(0, 1).flatten(1)


def _jaccard_steps(positive: Tensor, negative: Tensor, dtype: torch.dtype) -> Tensor:
    """Return by how much each further wrong pixel raises 1 - IoU, J(i) - J(i - 1), along the last axis.

    A wrong positive takes 1 from the intersection I, a wrong negative adds 1 to the union U; the differences are
    1 / U and I / (U (U - 1)), without the cancellation of a difference of two ratios.
    """
    size = positive.sum(-1, keepdim=True)
    # Counted in integers, which are exact for every number of pixels.
    intersection = (size - positive.cumsum(-1)).to(dtype)
    union = size + negative.cumsum(-1)
    whole, without = union.clamp(min=1).to(dtype), (union - 1).clamp(min=1).to(dtype)
    step = torch.where(positive, 1, torch.where(negative, intersection / without, 0)) / whole
    # With no positive pixel the first wrong one takes IoU from 1 to 0.
    return torch.where((size == 0) & negative, (union == 1).to(dtype), step)


LovaszSoftmaxLoss = module_form("LovaszSoftmaxLoss", lovasz_softmax_loss)
LovaszHingeLoss = module_form("LovaszHingeLoss", lovasz_hinge_loss)
