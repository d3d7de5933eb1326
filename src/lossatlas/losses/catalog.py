"""The list of every loss: what ``lossatlas ls`` prints and what the conformance suite runs over.

A loss that is not listed here is not public. What can be read from its docstring is read from it.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from lossatlas.losses import boxes, classification, regression
from lossatlas.losses.modules import LossModule, ModuleForm

InputKind: TypeAlias = Literal["elementwise", "boxes", "binary_logits", "quality_logits", "class_logits"]
"""What a loss takes: numbers, pairs of xyxy boxes, one logit for each yes/no target, one logit for each quality from
0 to 1, or a vector of class logits for each class index."""


@dataclass(frozen=True)
class LossEntry:
    """One public loss."""

    function: Callable[..., Tensor]
    module: ModuleForm[Any]
    family: str
    input_kind: InputKind

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.__name__

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self._doc.partition("\n")[0]

    @property
    def formula(self) -> str:
        """The formula, as the docstring writes it."""
        return self.section("Formula")

    @property
    def reference(self) -> str:
        """Where the loss was published."""
        return " ".join(self.section("Reference").split())

    def section(self, title: str) -> str:
        """Return the dedented text of a section of the docstring, empty if it has none."""
        lines = iter(self._doc.splitlines())
        for line in lines:
            if line == f"{title}:":
                return inspect.cleandoc("\n" + "\n".join(_indented(lines))).rstrip()
        return ""

    @property
    def _doc(self) -> str:
        return inspect.getdoc(self.function) or ""


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line and not line.startswith(" "):
            return
        yield line


_ENTRIES = (
    LossEntry(
        classification.binary_cross_entropy_with_logits,
        classification.BinaryCrossEntropyWithLogits,
        "classification",
        "binary_logits",
    ),
    LossEntry(classification.cross_entropy, classification.CrossEntropy, "classification", "class_logits"),
    LossEntry(classification.sigmoid_focal_loss, classification.SigmoidFocalLoss, "classification", "binary_logits"),
    LossEntry(classification.quality_focal_loss, classification.QualityFocalLoss, "classification", "quality_logits"),
    LossEntry(regression.l1_loss, regression.L1Loss, "regression", "elementwise"),
    LossEntry(regression.smooth_l1_loss, regression.SmoothL1Loss, "regression", "elementwise"),
    LossEntry(regression.balanced_l1_loss, regression.BalancedL1Loss, "regression", "elementwise"),
    LossEntry(boxes.iou_loss, boxes.IoULoss, "boxes", "boxes"),
    LossEntry(boxes.giou_loss, boxes.GIoULoss, "boxes", "boxes"),
    LossEntry(boxes.diou_loss, boxes.DIoULoss, "boxes", "boxes"),
    LossEntry(boxes.ciou_loss, boxes.CIoULoss, "boxes", "boxes"),
    LossEntry(boxes.eiou_loss, boxes.EIoULoss, "boxes", "boxes"),
    LossEntry(boxes.focal_eiou_loss, boxes.FocalEIoULoss, "boxes", "boxes"),
)

CATALOG: dict[str, LossEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every public loss by the name of its function."""


def find(loss: object) -> LossEntry | None:
    """Return the entry of a loss function, its module form or a `functools.partial` of it; None for anything else."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    if isinstance(loss, LossModule):
        loss = type(loss).function
    entry = CATALOG.get(getattr(loss, "__name__", ""))
    return entry if entry is not None and entry.function is loss else None
