"""What is known of the places where an objective predicts: their geometry and the level that each belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lossatlas.assign.assignment import blocks
from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.lab.networks.backbone import STRIDES

Geometry: TypeAlias = Literal["anchors", "points", "none"]


@dataclass(frozen=True)
class Priors:
    """The places of one size of image.

    Args:
        geometry: what the places are.
        place: ``(P, 4)`` xyxy anchors or ``(P, 2)`` x, y points, in pixels; empty where neither is known.
        level: ``(P,)`` index into `levels`.
        levels: name of each level, the finest first.
    """

    geometry: Geometry
    place: Tensor
    level: Tensor
    levels: tuple[str, ...]

    @classmethod
    def of(cls, outputs: Any, size: tuple[int, int], predictions: int) -> "Priors":
        """Read the places from the outputs of a network.

        Args:
            outputs: of one image or several; what is known are its ``anchors``, ``points`` and ``strides``.
            size: height and width of the images in pixels.
            predictions: P.
        """
        anchors, points = getattr(outputs, "anchors", None), getattr(outputs, "points", None)
        strides = getattr(outputs, "strides", None)
        if anchors is not None:
            geometry: Geometry = "anchors"
            place = anchors
        elif points is not None:
            geometry, place = "points", points
        else:
            geometry, place = "none", torch.zeros(0, 2)
        if strides is None:
            strides = _guess_strides(size, predictions)
        values, level = strides.unique(return_inverse=True)
        names = tuple(f"stride {value:g}" if value > 0 else "all" for value in values.tolist())
        return cls(geometry, place, level, names)

    @property
    def centers(self) -> Tensor:
        """``(P, 2)`` x, y pixels, for pictures."""
        return (self.place[:, :2] + self.place[:, 2:]) / 2 if self.geometry == "anchors" else self.place

    def best_overlap(self, boxes: Tensor) -> Tensor:
        """Return how well each of ``(G, 4)`` boxes is met: its best IoU with an anchor, or the points inside it.

        NaN where nothing is known of the places.
        """
        found = boxes.new_full((len(boxes),), float("nan"))
        if self.geometry != "none":
            for block in blocks(len(boxes), len(self.place), None):
                found[block] = self._overlap(boxes[block])
        return found

    def _overlap(self, boxes: Tensor) -> Tensor:
        if self.geometry == "anchors":
            return pairwise_iou(boxes, self.place).amax(dim=1)
        after = self.place[None] > boxes[:, None, :2]
        before = self.place[None] < boxes[:, None, 2:]
        return (after & before).all(-1).sum(1).to(boxes.dtype)


OVERLAP: Mapping[Geometry, str] = {"anchors": "best IoU", "points": "points inside", "none": "overlap"}
"""What `Priors.best_overlap` is called."""


def _guess_strides(size: tuple[int, int], predictions: int) -> Tensor:
    """Return the stride of each prediction if it can be told from their number, otherwise 0 for all.

    Formula:
        P = k Σ over the levels of the usual pyramid: H W / stride², the k predictions of a cell side by side
    """
    for strides in (STRIDES, (4,)):
        cells = [(size[0] // stride) * (size[1] // stride) for stride in strides]
        share, rest = divmod(predictions, max(sum(cells), 1))
        if share and not rest:
            counts = torch.tensor(cells) * share
            return torch.tensor(strides, dtype=torch.float32).repeat_interleave(counts)
    return torch.zeros(predictions)
