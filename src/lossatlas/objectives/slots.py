"""The places of an objective that a loss is put into.

A slot is a module that holds the loss, so that what a stateful loss keeps is saved and moved with the objective, and
calls it the way that its kind needs. A loss of the library (a function, its module form or a `functools.partial` of
either) says itself what it takes:

=============== ================================================ =====================================================
slot            kinds of the catalogue                           what the loss is given
=============== ================================================ =====================================================
`BoxLoss`       boxes                                            decoded xyxy boxes
                elementwise, joint_numbers                       the numbers that the network puts out; `kl_box_loss`
                                                                 also their log-variances
`SigmoidLoss`   binary_logits, ranking_logits                    logits, 1 for the class of a positive
                quality_logits, ranking_qualities                logits, the IoU of the box for the class of a positive
                binary_probabilities, elementwise                probabilities σ(logit), targets 0 and 1
`HeatmapLoss`   heatmap_logits, quality_logits                   logits, the gaussians around the objects' centres
                binary_logits, binary_probabilities, elementwise as `SigmoidLoss`, 1 for the centres
`SoftmaxLoss`   class_logits, class_log_probabilities            a vector of logits, the index of the class
`BinLoss`       bin_logits                                       a vector of logits of 0 to n, the number
=============== ================================================ =====================================================

Ranking losses rank all logits of a call, those of a whole batch of this process. Of `alrp_loss` the class slot trains
the classification term, the box slot the boxes. `ghmc_loss` and `dr_loss` carry a mean of their own
(`LossEntry.own_mean`): they are called once for the batch and not divided by a number of positives.

The slots of segmentation are in `lossatlas.objectives.pixel_slots`, those of pose in `lossatlas.objectives.map_slots`.

Any other callable fits if it keeps the contract of the losses and the objective is told what to give it:

* a box loss is called as ``loss(input, target, weight=..., reduction="mean", normalizer=...)`` on ``(N, 4)`` pairs of
  the N positives, with a weight that is None, ``(N,)`` for decoded boxes or ``(N, 1)`` for encoded values;
* a sigmoid class loss is called as ``loss(input, target, ignore_index=-1, weight=..., reduction="mean",
  normalizer=...)`` on ``(B, P, C)`` logits, with a weight that is None or broadcasts, such as ``(B, 1, 1)``; targets of
  ignored predictions are -1;
* a softmax class loss is called in the same way on ``(N, K)`` logits and ``(N,)`` indices, with a weight that is None
  or ``(N,)``;
* a loss of bins is called as a box loss on ``(N, S, bins)`` logits and ``(N, S)`` numbers, with a weight of ``(N, 1)``.
"""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lossatlas.checks import check_choice
from lossatlas.dtypes import upcast
from lossatlas.losses.catalog import CATALOG, LossEntry, find
from lossatlas.losses.modules import LossModule
from lossatlas.losses.ranking import ALRPTerms

LossFunction: TypeAlias = Callable[..., Any]
Regression = Literal["boxes", "encoded"]
ClassTarget = Literal["binary", "quality"]

IGNORE = -1
"""Class target of a prediction that is not trained."""

BOX_KINDS = frozenset({"boxes", "elementwise", "joint_numbers"})
QUALITY_KINDS = frozenset({"quality_logits", "ranking_qualities"})
PROBABILITY_KINDS = frozenset({"binary_probabilities", "elementwise"})
SIGMOID_KINDS = frozenset({"binary_logits", "ranking_logits"}) | QUALITY_KINDS | PROBABILITY_KINDS
GAUSSIAN_KINDS = frozenset({"heatmap_logits", "quality_logits"})
HEATMAP_KINDS = frozenset({"binary_logits"}) | GAUSSIAN_KINDS | PROBABILITY_KINDS
SOFTMAX_KINDS = frozenset({"class_logits", "class_log_probabilities"})
BIN_KINDS = frozenset({"bin_logits"})


class BoxPairs(NamedTuple):
    """Predictions of the positives and their targets, in both forms that a box loss can take; all ``(N, 4)``."""

    decoded: Tensor
    boxes: Tensor
    encoded: Tensor
    encoded_boxes: Tensor
    log_variance: Tensor | None = None
    """How unsure the network is of what it encodes, where it says so."""


class Slot(nn.Module):
    """A loss and what the catalogue knows about it.

    Args:
        name: argument of the objective, for messages.
        loss: what is put into the slot.
        kinds: kinds of the catalogue that fit.
        supplied: arguments that the slot itself gives to losses that need them.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs.
        TypeError: a loss that is not callable.
    """

    def __init__(self, name: str, loss: LossFunction, kinds: Collection[str], supplied: Collection[str] = ()) -> None:
        super().__init__()
        self.entry = _entry(name, loss, kinds, supplied)
        self.loss = loss
        inner = loss
        while isinstance(inner, functools.partial):
            inner = inner.func
        if isinstance(inner, nn.Module) and inner is not loss:
            self.inner = inner  # so that the state of a module inside a partial is part of the objective's

    @property
    def kind(self) -> str | None:
        """Kind of the loss in the catalogue, None for a callable of one's own."""
        return None if self.entry is None else self.entry.input_kind


class BoxLoss(Slot):
    """The slot of a regression of boxes.

    Args:
        loss: a loss of boxes or of numbers.
        regression: ``"boxes"`` or ``"encoded"``, what the loss is given; None asks the catalogue.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs, a loss that is not in the catalogue
            without `regression`, or a loss of boxes that is to be given encoded values.
        TypeError: a loss that is not callable.
    """

    def __init__(self, loss: LossFunction, regression: Regression | None = None, *, name: str = "box_loss") -> None:
        super().__init__(name, loss, BOX_KINDS, supplied=("log_variance",))
        if regression is not None:
            check_choice("regression", regression, get_args(Regression))
        elif self.entry is None:
            raise ValueError(
                f"`{name}` {_name(loss)} is not a loss of the library: pass regression='boxes' if it takes xyxy "
                "boxes, or regression='encoded' if it takes the numbers that the network puts out"
            )
        if self.kind == "boxes" and regression == "encoded":
            raise ValueError(f"`regression` must be 'boxes' for {_name(loss)}, which takes xyxy boxes, not 'encoded'")
        self.needs_log_variance = self.entry is not None and self.entry.name == "kl_box_loss"
        if self.needs_log_variance and regression == "boxes":
            raise ValueError("`regression` must be 'encoded' for kl_box_loss, whose variances are those of the network")
        self.regression = regression or ("boxes" if self.kind == "boxes" else "encoded")
        own_numbers = self.kind is None and regression == "encoded"
        self.elementwise = self.kind == "elementwise" or own_numbers

    def forward(self, pairs: BoxPairs, *, weight: Tensor | None, normalizer: Tensor) -> Tensor:
        """Return Σ weight · loss / normalizer over the positives.

        Args:
            pairs: predictions and targets of N positives.
            weight: ``(N,)`` factors, None for all 1.
            normalizer: 0-d.

        Raises:
            ValueError: a loss that needs variances, and pairs without.
        """
        input, target = pairs[:2] if self.regression == "boxes" else pairs[2:4]
        if weight is not None and self.elementwise:
            weight = weight[:, None]
        options: dict[str, Any] = {"dim": -1} if self.kind == "joint_numbers" else {}
        if self.needs_log_variance:
            if pairs.log_variance is None:
                raise ValueError("`outputs.log_variances` must be given for kl_box_loss, but is None")
            options["log_variance"] = pairs.log_variance
        return _value(self.loss(input, target, weight=weight, reduction="mean", normalizer=normalizer, **options))


class SigmoidLoss(Slot):
    """The slot of a classification by one logit for each yes/no question.

    Args:
        loss: a loss of logits, of logits that are ranked, or of probabilities.
        class_target: ``"binary"`` or ``"quality"``, see `target`; None asks the catalogue.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs, or a loss that is not in the
            catalogue without `class_target`.
        TypeError: a loss that is not callable.
    """

    kinds: ClassVar[frozenset[str]] = SIGMOID_KINDS
    quality_kinds: ClassVar[frozenset[str]] = QUALITY_KINDS
    quality: ClassVar[str] = "the IoU of the predicted box"

    target: ClassTarget
    """What the class of a positive is to be: 1, or its quality."""

    def __init__(
        self, loss: LossFunction, class_target: ClassTarget | None = None, *, name: str = "class_loss"
    ) -> None:
        super().__init__(name, loss, self.kinds, supplied=("localization_error",))
        if class_target is not None:
            check_choice("class_target", class_target, get_args(ClassTarget))
        elif self.entry is None:
            raise ValueError(
                f"`{name}` {_name(loss)} is not a loss of the library: pass class_target='binary' if it takes "
                f"targets 0 and 1, or class_target='quality' if it takes {self.quality} as target"
            )
        self.target = class_target or ("quality" if self.kind in self.quality_kinds else "binary")
        self.needs_localization_error = self.entry is not None and self.entry.name == "alrp_loss"

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None,
        normalizer: Tensor,
        localization_error: Tensor | None = None,
    ) -> Tensor:
        """Return Σ weight · loss / normalizer over the elements that are not ignored.

        A loss whose mean is its own (`LossEntry.own_mean`) is called without weight and normaliser.

        Args:
            logits: ``(*shape)``.
            target: ``(*shape)``, floating point; `IGNORE` for elements that are left out.
            weight: factors that broadcast to ``(*shape)``, None for all 1.
            normalizer: 0-d.
            localization_error: how wrong the boxes of the positives are, broadcasting to ``(*shape)``; only read where
                `needs_localization_error`.
        """
        options: dict[str, Any] = {"reduction": "mean", "ignore_index": IGNORE}
        if self.kind in PROBABILITY_KINDS:
            logits = self.probabilities(logits)
        if self.kind == "elementwise":
            valid = target != IGNORE
            weight = None if weight is None else weight.expand_as(target)[valid]
            logits, target = logits[valid], target[valid]
            del options["ignore_index"]
        if self.entry is None or not self.entry.own_mean:
            options |= {"weight": weight, "normalizer": normalizer}
        if self.needs_localization_error:
            options["localization_error"] = localization_error
        return _value(self.loss(logits, target, **options))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities that the logits stand for."""
        return upcast(logits)[0].sigmoid()


class HeatmapLoss(SigmoidLoss):
    """The slot of a map of object centres for each class; the quality of a place is the height of the gaussian there.

    Arguments and errors are those of `SigmoidLoss`.
    """

    kinds: ClassVar[frozenset[str]] = HEATMAP_KINDS
    quality_kinds: ClassVar[frozenset[str]] = GAUSSIAN_KINDS
    quality: ClassVar[str] = "the gaussians around the centres"

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None,
        normalizer: Tensor,
        localization_error: Tensor | None = None,
    ) -> Tensor:
        """Return Σ weight · loss / normalizer over the elements that are not ignored.

        Args:
            logits: ``(B, C, *spatial)``.
            target: ``(B, C, *spatial)``, floating point; `IGNORE` for elements that are left out.
            weight: ``(B, 1, *1)`` factors of the images, None for all 1.
            normalizer: 0-d.
            localization_error: as in `SigmoidLoss`.
        """
        if self.kind == "binary_logits":  # losses that tell classes apart have them on the last axis
            logits, target = logits.movedim(1, -1), target.movedim(1, -1)
        return super().forward(
            logits, target, weight=weight, normalizer=normalizer, localization_error=localization_error
        )


class SoftmaxLoss(Slot):
    """The slot of a classification by one logit for each of K classes that exclude each other.

    Args:
        loss: a loss of class logits or of their log-probabilities.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs.
        TypeError: a loss that is not callable.
    """

    def __init__(self, loss: LossFunction, *, name: str = "class_loss") -> None:
        super().__init__(name, loss, SOFTMAX_KINDS)

    def forward(self, logits: Tensor, target: Tensor, *, weight: Tensor | None, normalizer: Tensor | float) -> Tensor:
        """Return Σ weight · loss / normalizer over the elements that are not ignored.

        Args:
            logits: ``(*shape, K)``.
            target: ``(*shape)`` int64 indices; `IGNORE` for elements that are left out.
            weight: factors that broadcast to ``(*shape)``, None for all 1.
            normalizer: a number or 0-d.
        """
        if self.kind == "class_log_probabilities":
            logits = upcast(logits)[0].log_softmax(-1)
        if weight is not None:
            weight = weight.expand_as(target).flatten()
        loss = self.loss(
            logits.reshape(target.numel(), logits.shape[-1]),
            target.flatten(),
            ignore_index=IGNORE,
            weight=weight,
            reduction="mean",
            normalizer=normalizer,
        )
        return _value(loss)


class BinLoss(Slot):
    """The slot of a regression by distributions over the numbers 0 to n.

    Args:
        loss: a loss of the logits of the numbers, such as `distribution_focal_loss`.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs.
        TypeError: a loss that is not callable.
    """

    def __init__(self, loss: LossFunction, *, name: str = "distribution_loss") -> None:
        super().__init__(name, loss, BIN_KINDS)

    def forward(self, logits: Tensor, target: Tensor, *, weight: Tensor | None, normalizer: Tensor) -> Tensor:
        """Return Σ weight · mean of the loss over the sides / normalizer.

        Args:
            logits: ``(N, S, bins)`` of S sides.
            target: ``(N, S)`` numbers from 0 to bins - 1.
            weight: ``(N,)`` factors, None for all 1.
            normalizer: 0-d.
        """
        weight = None if weight is None else weight[:, None]
        sides = target.shape[1] * normalizer
        return _value(self.loss(logits, target, weight=weight, reduction="mean", normalizer=sides))


def _value(loss: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the number to minimise: of several terms the sum, of aLRP the part that trains the logits."""
    if isinstance(loss, ALRPTerms):
        return loss.classification
    return torch.stack(loss).sum() if isinstance(loss, tuple) else loss


def _entry(slot: str, loss: LossFunction, kinds: Collection[str], supplied: Collection[str]) -> LossEntry | None:
    if not callable(loss):
        raise TypeError(f"`{slot}` must be callable, but got {type(loss).__name__}")
    entry = find(loss)
    if entry is not None and entry.input_kind not in kinds:
        fitting = ", ".join(name for name, other in CATALOG.items() if other.input_kind in kinds)
        raise ValueError(f"`{slot}` must be one of {fitting}, or a callable of your own, but got {entry.name}")
    if entry is not None and (missing := [name for name in _unbound(loss, entry) if name not in supplied]):
        raise ValueError(
            f"`{slot}` {entry.name} needs {', '.join(missing)}: bind it with its module form, such as "
            f"{entry.module.__name__}({missing[0]}=...), or with functools.partial"
        )
    return entry


def _unbound(loss: object, entry: LossEntry) -> list[str]:
    """Return the arguments that a loss cannot do without and that nobody has given."""
    bound: set[str] = set()
    while isinstance(loss, functools.partial):
        bound |= loss.keywords.keys()
        loss = loss.func
    if isinstance(loss, nn.Module) and not isinstance(loss, LossModule):
        return []  # a module with a state, whose constructor asks for what it needs
    options = list(inspect.signature(entry.function).parameters.values())[2:]
    required = [option.name for option in options if option.default is option.empty]
    return [name for name in required if name not in bound and not hasattr(loss, name)]


def _name(loss: object) -> str:
    entry = find(loss)
    return entry.name if entry is not None else getattr(loss, "__name__", type(loss).__name__)
