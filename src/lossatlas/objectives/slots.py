"""The places of an objective that a loss is put into.

A loss of the library (a function, its module form or a `functools.partial` of either) says itself what it takes. Any
other callable fits if it keeps the contract of the losses and the objective is told what to give it:

* a box loss is called as ``loss(input, target, weight=..., reduction="mean", normalizer=...)`` on ``(N, 4)`` pairs of
  the N positives, with a weight that is None, ``(N,)`` for decoded boxes or ``(N, 1)`` for encoded values;
* a class loss is called as ``loss(input, target, ignore_index=-1, weight=..., reduction="mean", normalizer=...)`` on
  ``(B, P, C)`` logits, with a weight that is None or ``(B, 1, 1)``; targets of ignored predictions are -1.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from torch import Tensor, nn

from lossatlas.checks import check_choice
from lossatlas.losses.catalog import CATALOG, LossEntry, find
from lossatlas.losses.modules import LossModule

LossFunction: TypeAlias = Callable[..., Tensor]
Regression = Literal["boxes", "encoded"]
ClassTarget = Literal["binary", "quality"]


class BoxSlot(NamedTuple):
    """What a box loss is given."""

    regression: Regression
    elementwise: bool
    """Whether the loss has one element for each of the four numbers, not one for each box."""


def box_slot(box_loss: LossFunction, regression: Regression | None) -> BoxSlot:
    """Return what to give `box_loss`; None for `regression` asks the catalogue.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs, a loss that is not in the catalogue
            without `regression`, or a loss of boxes that is to be given encoded values.
    """
    entry = _entry("box_loss", box_loss, ("boxes", "elementwise"))
    if regression is not None:
        check_choice("regression", regression, get_args(Regression))
    if entry is None:
        if regression is None:
            raise ValueError(
                f"`box_loss` {_name(box_loss)} is not a loss of the library: pass regression='boxes' if it takes xyxy "
                "boxes, or regression='encoded' if it takes the numbers that the network puts out"
            )
        return BoxSlot(regression, regression == "encoded")
    if entry.input_kind == "elementwise":
        return BoxSlot(regression or "encoded", True)
    if regression == "encoded":
        raise ValueError(f"`regression` must be 'boxes' for {entry.name}, which takes xyxy boxes, but got 'encoded'")
    return BoxSlot("boxes", False)


def class_slot(class_loss: LossFunction, class_target: ClassTarget | None) -> ClassTarget:
    """Return which targets to give `class_loss`; None for `class_target` asks the catalogue.

    Raises:
        ValueError: a loss of another kind or without an argument that it needs, or a loss that is not in the
            catalogue without `class_target`.
    """
    entry = _entry("class_loss", class_loss, ("binary_logits", "quality_logits"))
    if class_target is not None:
        check_choice("class_target", class_target, get_args(ClassTarget))
        return class_target
    if entry is None:
        raise ValueError(
            f"`class_loss` {_name(class_loss)} is not a loss of the library: pass class_target='binary' if it takes "
            "targets 0 and 1, or class_target='quality' if it takes the IoU of the predicted box as target"
        )
    return "quality" if entry.input_kind == "quality_logits" else "binary"


def _entry(slot: str, loss: LossFunction, kinds: tuple[str, ...]) -> LossEntry | None:
    if not callable(loss):
        raise TypeError(f"`{slot}` must be callable, but got {type(loss).__name__}")
    entry = find(loss)
    if entry is not None and entry.input_kind not in kinds:
        fitting = ", ".join(name for name, other in CATALOG.items() if other.input_kind in kinds)
        raise ValueError(f"`{slot}` must be one of {fitting}, or a callable of your own, but got {entry.name}")
    if entry is not None and (missing := _unbound(loss, entry)):
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
    return getattr(loss, "__name__", type(loss).__name__)
