"""The list of every loss: what ``lossatlas ls`` prints and what the conformance suite runs over.

A loss that is not listed here is not public. What can be read from its docstring is read from it.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from lossatlas.losses import boxes, classification, regression
from lossatlas.losses.modules import LossModule, ModuleForm

InputKind: TypeAlias = Literal[
    "elementwise",
    "boxes",
    "binary_logits",
    "binary_probabilities",
    "quality_logits",
    "heatmap_logits",
    "bin_logits",
    "class_logits",
    "class_log_probabilities",
    "distributions",
    "probabilities",
]
"""What a loss takes:

* elementwise: numbers and numbers
* boxes: pairs of xyxy boxes
* binary_logits, binary_probabilities: one number for each yes/no target
* quality_logits: one logit for each quality from 0 to 1
* heatmap_logits: one logit for each number of a map of Gaussians, 1 at the centres of objects
* bin_logits: a vector of logits of the numbers 0 to n (last axis) for each number from 0 to n
* class_logits, class_log_probabilities: a vector of the classes (axis 1) for each class index
* distributions: pairs of probability distributions (last axis)
* probabilities: probabilities (last axis) without a target
"""


@dataclass(frozen=True)
class LossEntry:
    """One public loss."""

    function: Callable[..., Tensor]
    module: ModuleForm[Any] | type[nn.Module]
    family: str
    input_kind: InputKind

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.__name__

    @property
    def stateful(self) -> bool:
        """Whether the module keeps a state of its own, beyond the arguments of the function."""
        return not (isinstance(self.module, type) and issubclass(self.module, LossModule))

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
    """Return the entry of a loss function, its module or a `functools.partial` of it; None for anything else."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    if isinstance(loss, nn.Module):
        loss = getattr(type(loss), "function", None)
    entry = CATALOG.get(getattr(loss, "__name__", ""))
    return entry if entry is not None and entry.function is loss else None
