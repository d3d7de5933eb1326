"""The place of a segmentation objective that a loss is put into: which losses fit, and how each of them is called."""

import inspect

import torch
from torch import Tensor

from lossatlas.losses.segmentation_targets import prepare
from lossatlas.objectives.slots import LossFunction, Slot

SEGMENTATION_KINDS = frozenset({"segmentation", "binary_segmentation", "class_logits", "binary_logits"})

_MAPS = frozenset({"border_map", "distance_map"})
_IGNORED = -100


class SegmentationLoss(Slot):
    """The slot of a loss of class logits at every pixel.

    ==================== ==================================================================================
    kind                 what the loss is given
    ==================== ==================================================================================
    segmentation         the logits and the mask as they are
    binary_segmentation  the logits and the mask as they are, every class against the rest
    class_logits         logits of two classes at least, and class indices, or probabilities for soft masks
    binary_logits        the logits, classes last, and 0 or 1 for each of them, every class against the rest
    ==================== ==================================================================================

    A callable of your own is called as ``loss(logits, mask, ignore_index=...)``, for several labels with
    ``multilabel=True`` as well.

    Args:
        loss: what is put into the slot.
        multilabel: whether the channels are independent yes/no questions and not classes.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind, without an argument that it needs, or that cannot take several labels.
        TypeError: a loss that is not callable.
    """

    def __init__(self, loss: LossFunction, multilabel: bool = False, *, name: str = "loss") -> None:
        super().__init__(name, loss, SEGMENTATION_KINDS)
        arguments = set() if self.entry is None else set(inspect.signature(self.entry.function).parameters)
        one_label = self.kind == "class_logits" or (self.kind == "segmentation" and "multilabel" not in arguments)
        if multilabel and one_label and self.entry is not None:
            raise ValueError(
                f"`{name}` must take several labels of a pixel for multilabel=True, but {self.entry.name} cannot"
            )
        self.multilabel = multilabel
        self.maps = _MAPS & arguments
        """Names of the maps, beside the mask, that the loss takes."""

    def forward(self, logits: Tensor, mask: Tensor, *, ignore_index: int | None, **maps: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, C, *spatial)``.
            mask: in any form of `lossatlas.losses.segmentation_targets`.
            ignore_index: value of the pixels that are left out; None leaves out none.
            maps: what the loss would otherwise compute from the mask.
        """
        if self.kind == "class_logits":
            return self._of_classes(logits, mask, ignore_index)
        if self.kind == "binary_logits":
            segmentation = prepare(logits, mask, multilabel=self.multilabel, ignore_index=ignore_index)
            target = torch.where(segmentation.valid, segmentation.target, _IGNORED)
            return self._value(segmentation.logits.movedim(1, -1), target.movedim(1, -1), ignore_index=_IGNORED)
        options = {"multilabel": True} if self.multilabel and self.kind != "binary_segmentation" else {}
        return self._value(logits, mask, ignore_index=ignore_index, **options, **maps)

    def _of_classes(self, logits: Tensor, mask: Tensor, ignore_index: int | None) -> Tensor:
        segmentation = prepare(logits, mask, ignore_index=ignore_index, two_classes=True)
        valid = segmentation.valid[:, 0]
        if mask.is_floating_point():
            return self._value(segmentation.logits, segmentation.target, weight=valid, normalizer=valid.sum())
        index = torch.where(valid, segmentation.target.argmax(1), _IGNORED)
        return self._value(segmentation.logits, index, ignore_index=_IGNORED)

    def _value(self, *args: Tensor, **options: object) -> Tensor:
        value: Tensor = self.loss(*args, **options)
        return value
