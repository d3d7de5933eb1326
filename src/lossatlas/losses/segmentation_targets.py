"""What every segmentation loss starts from: one front end for predictions and targets, and the counts of an overlap.

**Input.** Logits ``(N, C, *spatial)`` with one, two or three spatial axes. One channel is binary segmentation
(sigmoid). Several channels are classes that exclude each other (softmax), or, with ``multilabel=True``, one yes/no
question each (sigmoid). Probabilities p are logits ``p.log()`` for softmax and ``p.logit()`` for sigmoid.

**Target.** An index map ``(N, *spatial)`` of an integer dtype, or one-hot or soft values ``(N, C, *spatial)`` of any
dtype. With one channel ``(N, *spatial)`` holds 0 and 1, or soft values, of any dtype.

**Ignored elements.** `ignore_index` marks a pixel in an index map. In a one-hot or soft target a pixel is ignored
when one of its channels holds `ignore_index`; with ``multilabel=True`` only the channels that hold it are. What is
ignored is taken out before any arithmetic.

**Elements.** An overlap loss has one element for each image and class, ``(N, C)``, or with ``per_image=False`` one for
each class, ``(C,)``, whose counts run over the whole batch. A `weight` of shape ``(C,)`` weighs classes, one of shape
``(N, 1)`` images; ``"mean"`` divides by the number of valid elements, whatever the weights. With
``include_background=False`` the first class is left out after the softmax, and C is one less. An element is valid
unless all its pixels are ignored or `absent` skips it. A pixel-wise loss has one element for each pixel.

**Classes that are absent from the target.** A ratio such as Dice is then 1 for every prediction but the empty one,
and says nothing about false positives. `absent` chooses:

* ``"penalize"``: the element is the mean error, (FP + FN) / pixels, which is the mean predicted probability of the
  class: 0 for the right answer, with a gradient that pushes every false positive down;
* ``"skip"``: the element is not valid;
* ``"formula"``: what the formula says, with its smoothing; 0 where the prediction is empty too.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_integer
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import binary_costs

Absent = Literal["penalize", "skip", "formula"]
"""What the element of a class that is absent from the target is."""

Overlap = Literal["product", "minimum"]
"""How a probability p and a target g agree: p g, or min(p, g), which makes p = g a perfect match for soft targets."""


class Segmentation(NamedTuple):
    """Logits and targets of one form, with zeros where they are ignored."""

    logits: Tensor
    """``(N, C, *spatial)``."""
    target: Tensor
    """``(N, C, *spatial)`` from 0 to 1, one channel for each class."""
    valid: Tensor
    """Mask ``(N, C, *spatial)``, False where ignored."""
    exclusive: bool
    """Whether the channels exclude each other (softmax) or not (sigmoid)."""

    def probability(self) -> Tensor:
        """Return the probabilities ``(N, C, *spatial)``, 0 where ignored."""
        p = self.logits.softmax(1) if self.exclusive else self.logits.sigmoid()
        return torch.where(self.valid, p, 0)

    @property
    def one_decision(self) -> bool:
        """Whether a pixel is one element of a pixel-wise loss; with several labels each channel is one."""
        return self.exclusive or self.logits.shape[1] == 1

    def pixels(self, values: Tensor) -> Tensor:
        """Return ``(N, C, *spatial)`` values summed to one for each pixel, or as they are for several labels."""
        return values.sum(1) if self.one_decision else values

    @property
    def valid_pixels(self) -> Tensor:
        """Mask of the elements that `pixels` returns."""
        return self.valid[:, 0] if self.one_decision else self.valid

    def regions(self, include_background: bool = True) -> "Regions":
        """Return probabilities and targets, without the first class if the background is left out.

        Raises:
            ValueError: the background of one channel, which has none of its own, is to be left out.
        """
        first = first_class(include_background, self.logits.shape[1])
        return Regions(self.probability()[:, first:], self.target[:, first:], self.valid[:, first:])


def prepare(
    input: Tensor,
    target: Tensor,
    *,
    multilabel: bool = False,
    ignore_index: int | None = None,
    two_classes: bool = False,
) -> Segmentation:
    """Bring logits and targets of every accepted form into one.

    Args:
        input: ``(N, C, *spatial)`` logits.
        target: ``(N, *spatial)`` class indices, or ``(N, C, *spatial)`` one-hot or soft; with one channel also
            ``(N, *spatial)`` from 0 to 1.
        multilabel: whether the channels are independent.
        ignore_index: target value of what is left out; None leaves out nothing.
        two_classes: whether one channel shall become two classes, background and foreground.

    Returns:
        Logits and targets ``(N, C, *spatial)`` in float32 at least.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: an `input` that is not floating point, or class indices that are not integers.
    """
    target = check_forms(input, target)
    if target.shape == input.shape:
        x, g = upcast(input, target)
        valid = torch.ones_like(g, dtype=torch.bool) if ignore_index is None else g != ignore_index
        if not multilabel:
            valid = valid.all(1, keepdim=True)
    else:
        (x,) = upcast(input)
        index = target.long().unsqueeze(1)
        valid = torch.ones_like(index, dtype=torch.bool) if ignore_index is None else index != ignore_index
        g = torch.zeros_like(x).scatter(1, torch.where(valid, index, 0), 1)
    x, g = torch.where(valid, x, 0), torch.where(valid, g, 0)
    exclusive = not multilabel and x.shape[1] > 1
    if two_classes and x.shape[1] == 1:
        # The softmax of 0 and x is 1 - σ(x) and σ(x).
        x, g = torch.cat((torch.zeros_like(x), x), 1), torch.cat((torch.where(valid, 1 - g, 0), g), 1)
        exclusive = True
    return Segmentation(x, g, valid.expand_as(x), exclusive)


def check_forms(input: Tensor, target: Tensor) -> Tensor:
    """Check the shapes and dtypes of logits and target; return the target, with a class axis if there is one class.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: an `input` that is not floating point, or class indices that are not integers.
    """
    check_floating("input", input)
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` must be a tensor, but got {type(target).__name__}")
    if input.ndim not in (3, 4, 5):
        raise ValueError(f"`input` must be (N, C, *spatial) with 1 to 3 spatial axes, but got {tuple(input.shape)}")
    index_shape = input.shape[:1] + input.shape[2:]
    if target.shape == input.shape:
        return target
    if target.shape != index_shape:
        raise ValueError(
            f"`target` must be an index map {tuple(index_shape)} or have the shape of `input`, {tuple(input.shape)}, "
            f"but got {tuple(target.shape)}"
        )
    if input.shape[1] == 1:
        return target.unsqueeze(1)
    check_integer("target", target)
    return target


def first_class(include_background: bool, classes: int) -> int:
    """Return the first class that counts.

    Raises:
        ValueError: the background of one channel, which has none of its own, is to be left out.
    """
    if not include_background and classes == 1:
        raise ValueError("`include_background=False` needs more than one channel, but `input` has 1")
    return 0 if include_background else 1


class Regions(NamedTuple):
    """Probabilities and targets of the classes that count, ``(N, C, *spatial)``, 0 where ignored."""

    probability: Tensor
    target: Tensor
    valid: Tensor

    def total(self, values: Tensor, per_image: bool) -> Tensor:
        """Sum ``(N, C, *spatial)`` values, 0 where ignored, to the elements ``(N, C)``, or ``(C,)`` over the batch."""
        spatial = tuple(range(2, values.ndim))
        return values.sum(spatial if per_image else (0, *spatial))

    def pixels(self, per_image: bool) -> Tensor:
        """Return the number of pixels of each element that are not ignored."""
        return self.total(self.valid.to(self.probability.dtype), per_image)

    def mean(self, values: Tensor, per_image: bool) -> Tensor:
        """Return the mean of ``(N, C, *spatial)`` values over the pixels that are not ignored."""
        return self.total(torch.where(self.valid, values, 0), per_image) / self.pixels(per_image).clamp(min=1)

    def counts(self, per_image: bool, overlap: Overlap = "product") -> "Counts":
        """Count true positives, false positives and false negatives.

        Formula:
            TP = Σ m,  FP = Σ (p - m),  FN = Σ (g - m),  m = p g or min(p, g)

        Args:
            per_image: whether to count in each image, or over the batch.
            overlap: m, the agreement of p and g.

        Returns:
            Counts of shape ``(N, C)``, or ``(C,)`` over the batch.

        Raises:
            ValueError: a bad `overlap`.
        """
        check_choice("overlap", overlap, get_args(Overlap))
        p, g = self.probability, self.target
        match = p * g if overlap == "product" else torch.minimum(p, g)
        # Sums of terms that are not negative: in a difference of sums the last errors would be lost to rounding.
        return Counts(
            self.total(match, per_image),
            self.total(p - match, per_image),
            self.total(g - match, per_image),
            self.total(g, per_image),
            self.pixels(per_image),
        )


class Counts(NamedTuple):
    """Soft counts of an overlap, one for each element, ``(N, C)`` or ``(C,)``."""

    true_positive: Tensor
    false_positive: Tensor
    false_negative: Tensor
    actual: Tensor
    """Σ g."""
    pixels: Tensor
    """Number of pixels that are not ignored."""

    @property
    def present(self) -> Tensor:
        """Mask of the elements whose class occurs in the target."""
        return self.actual > 0

    @property
    def mean_error(self) -> Tensor:
        """(FP + FN) / pixels; the mean predicted probability of a class that is absent from the target."""
        return (self.false_positive + self.false_negative) / self.pixels.clamp(min=1)


def resolve_absent(
    loss: Tensor, counts: Counts, absent: Absent, defined: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Apply the policy for classes that are absent from the target.

    Args:
        loss: elements of the loss by its formula, finite also where the class is absent.
        counts: counts of the same shape.
        absent: the policy.
        defined: mask of the elements for which the formula holds; None are those whose class is present.

    Returns:
        The elements, and the mask of those that are valid.

    Raises:
        ValueError: a bad `absent`.
    """
    check_choice("absent", absent, get_args(Absent))
    valid = counts.pixels > 0
    defined = counts.present if defined is None else defined
    if absent == "skip":
        valid = valid & defined
    elif absent == "penalize":
        loss = torch.where(defined, loss, counts.mean_error)
    return loss, valid


def pixel_cross_entropy(segmentation: Segmentation) -> Tensor:
    """Return the cross entropy of each pixel, ``(N, *spatial)``, or ``(N, C, *spatial)`` for several labels."""
    x, g = segmentation.logits, segmentation.target
    if segmentation.exclusive:
        return -(g * x.log_softmax(1)).sum(1)
    hit, miss = binary_costs(x, g)
    return segmentation.pixels(hit + miss)
