"""What every assigner takes and returns: an image's objects and which prediction answers for which of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.boxes.geometry import area
from lossatlas.checks import check_boxes, check_integer, check_number
from lossatlas.dtypes import upcast

POSITIVE = 1
"""State of a prediction that answers for an object."""
NEGATIVE = 0
"""State of a prediction that answers for the background."""
IGNORED = -1
"""State of a prediction that is not trained."""

PAIRS_IN_MEMORY = 1 << 15


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which object each prediction of an image answers for.

    Args:
        matched: ``(P,)`` int64, the 0-based row of a positive's object in the target, -1 for every other prediction.
        state: ``(P,)`` int8, 1 positive, 0 negative, -1 ignored.

    Raises:
        ValueError: shapes that are not ``(P,)`` for both.
        TypeError: another dtype than int64 and int8.

    Example:
        >>> assignment = Assignment(torch.tensor([2, -1, -1]), torch.tensor([1, 0, -1], dtype=torch.int8))
        >>> assignment.positive
        tensor([ True, False, False])
        >>> assignment.to_mmdetection()
        tensor([ 3,  0, -1])
        >>> assignment.to_torchvision()
        tensor([ 2, -1, -2])

    Note:
        The encodings of other libraries clash: -1 is the background in torchvision, but ignored in mmdetection.
    """

    matched: Int[Tensor, " p"]
    state: Int[Tensor, " p"]

    def __post_init__(self) -> None:
        if self.matched.ndim != 1 or self.matched.shape != self.state.shape:
            raise ValueError(
                f"`matched` and `state` must both have shape (P,), but got {tuple(self.matched.shape)} and "
                f"{tuple(self.state.shape)}"
            )
        if self.matched.dtype != torch.int64 or self.state.dtype != torch.int8:
            raise TypeError(
                f"`matched` must be int64 and `state` int8, but got {self.matched.dtype} and {self.state.dtype}"
            )

    def __len__(self) -> int:
        return len(self.state)

    @property
    def positive(self) -> Tensor:
        """``(P,)`` mask of predictions that answer for an object."""
        return self.state == POSITIVE

    @property
    def negative(self) -> Tensor:
        """``(P,)`` mask of predictions that answer for the background."""
        return self.state == NEGATIVE

    @property
    def ignored(self) -> Tensor:
        """``(P,)`` mask of predictions that are not trained."""
        return self.state == IGNORED

    @classmethod
    def build(cls, matched: Tensor, ignored: Tensor) -> Self:
        """Return the assignment in which what is matched is positive, what is not is negative or ignored.

        Args:
            matched: ``(P,)`` 0-based object; any negative number for none.
            ignored: ``(P,)`` mask; it counts only where nothing is matched.
        """
        positive = matched >= 0
        state = torch.where(positive, POSITIVE, torch.where(ignored, IGNORED, NEGATIVE))
        return cls(torch.where(positive, matched, -1).to(torch.int64), state.to(torch.int8))

    def to_mmdetection(self) -> Int[Tensor, " p"]:
        """Return mmdetection's ``gt_inds``: 1-based object, 0 background, -1 ignored."""
        return torch.where(self.positive, self.matched + 1, self.state)

    @classmethod
    def from_mmdetection(cls, gt_inds: Int[Tensor, " p"]) -> Self:
        """Read mmdetection's ``gt_inds``: 1-based object, 0 background, -1 ignored."""
        return cls.build(gt_inds - 1, gt_inds < 0)

    def to_torchvision(self) -> Int[Tensor, " p"]:
        """Return what torchvision's ``Matcher`` returns: 0-based object, -1 background, -2 between the thresholds."""
        return torch.where(self.positive, self.matched, self.state - 1)

    @classmethod
    def from_torchvision(cls, matches: Int[Tensor, " p"]) -> Self:
        """Read what torchvision's ``Matcher`` returns: 0-based object, -1 background, -2 between the thresholds."""
        return cls.build(matches, matches == -2)

    def to_detectron2(self) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
        """Return what detectron2's ``Matcher`` returns: ``matches`` int64 and ``match_labels`` int8 (1, 0, -1).

        detectron2's ``matches`` name the best object of every prediction. Of a prediction that is not positive it is
        not known here, and not used there; it is 0.
        """
        return self.matched.clamp(min=0), self.state.clone()

    @classmethod
    def from_detectron2(cls, matches: Int[Tensor, " p"], match_labels: Int[Tensor, " p"]) -> Self:
        """Read what detectron2's ``Matcher`` returns: 0-based ``matches`` and ``match_labels`` (1, 0, -1)."""
        return cls.build(torch.where(match_labels == 1, matches, -1), match_labels == -1)


class Objects(NamedTuple):
    """The objects of one image as an assigner visits them."""

    boxes: Tensor
    """``(G, 4)`` xyxy boxes of the objects in canonical order, crowd regions left out."""
    rows: Tensor
    """``(G,)`` int64 row of each of them in the target."""
    crowd: Tensor
    """``(K, 4)`` xyxy boxes of the crowd regions."""


def canonical_order(boxes: Float[Tensor, "g 4"], labels: Int[Tensor, " g"]) -> Int[Tensor, " g"]:
    """Return the order in which every assigner visits objects; of objects that tie, the first one wins.

    Objects are sorted by area, smallest first, then by x1, y1, x2, y2, then by label. So no result depends on the
    order in which the objects are given, except between objects that agree in box and label.

    Args:
        boxes: ``(G, 4)`` xyxy.
        labels: ``(G,)``.

    Returns:
        ``(G,)`` int64 rows of the input.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 9, 9], [5.0, 0, 7, 2], [3.0, 0, 5, 2]])
        >>> canonical_order(boxes, torch.tensor([0, 1, 2]))
        tensor([2, 1, 0])
    """
    (boxes,) = upcast(boxes.detach())
    order = torch.arange(len(labels), device=labels.device)
    for key in (labels, *reversed(boxes.unbind(1)), area(boxes)):
        order = order[key[order].sort(stable=True).indices]
    return order


def check_target(name: str, target: Mapping[str, Tensor]) -> None:
    """Raise unless `target` holds ``boxes`` (G, 4), ``labels`` (G,) and, if at all, ``iscrowd`` (G,)."""
    for key in ("boxes", "labels"):
        if key not in target:
            raise ValueError(f"`{name}` must have the key {key!r}, but has {sorted(target)}")
    boxes, labels = target["boxes"], target["labels"]
    check_boxes(f"{name}['boxes']", boxes)
    if boxes.ndim != 2:
        raise ValueError(f"`{name}['boxes']` must have shape (G, 4), but got {tuple(boxes.shape)}")
    check_integer(f"{name}['labels']", labels)
    crowd = target.get("iscrowd")
    if crowd is not None and crowd.dtype != torch.bool:
        check_integer(f"{name}['iscrowd']", crowd)
    for key, tensor in (("labels", labels), ("iscrowd", crowd)):
        if tensor is not None and tensor.shape != boxes.shape[:1]:
            raise ValueError(
                f"`{name}[{key!r}]` must have shape ({len(boxes)},), one entry for each box, but got "
                f"{tuple(tensor.shape)}"
            )


class Given(NamedTuple):
    """The objects of one image as they are given, crowd regions among them."""

    boxes: Tensor
    """``(G, 4)`` xyxy, in float32 at least."""
    labels: Tensor
    """``(G,)``."""
    crowd: Tensor | None
    """``(G,)`` mask of the crowd regions, None if there are none."""

    @property
    def regions(self) -> Tensor:
        """``(K, 4)`` xyxy boxes of the crowd regions."""
        return self.boxes[:0] if self.crowd is None else self.boxes[self.crowd]


def given_objects(target: Mapping[str, Tensor]) -> Given:
    """Check a target and return its objects.

    Args:
        target: ``boxes`` (G, 4) xyxy, ``labels`` (G,) and optionally ``iscrowd`` (G,).
    """
    check_target("target", target)
    (boxes,) = upcast(target["boxes"])
    crowd = target.get("iscrowd")
    return Given(boxes, target["labels"], None if crowd is None or not crowd.any() else crowd.bool())


def ordered_objects(target: Mapping[str, Tensor], dtype: torch.dtype) -> Objects:
    """Check a target and return its objects in canonical order, and its crowd regions.

    Args:
        target: ``boxes`` (G, 4) xyxy, ``labels`` (G,) and optionally ``iscrowd`` (G,).
        dtype: floating-point dtype of the boxes that are returned.
    """
    return in_order(given_objects(target), dtype)


def in_order(given: Given, dtype: torch.dtype) -> Objects:
    """Return objects in canonical order, and the crowd regions.

    Args:
        given: objects of one image.
        dtype: floating-point dtype of the boxes that are returned.
    """
    order = canonical_order(given.boxes, given.labels)
    rows = order if given.crowd is None else order[~given.crowd[order]]
    return Objects(given.boxes[rows].to(dtype), rows, given.regions.to(dtype))


def blocks(predictions: int, objects: int, block_size: int | None) -> Iterator[slice]:
    """Cut the predictions into slices whose pairs with all objects fit into a fixed amount of memory.

    Args:
        predictions: number of predictions.
        objects: number of objects.
        block_size: predictions in a slice; None chooses it so that there are at most 32 768 pairs, or one prediction.
    """
    size = block_size or max(1, PAIRS_IN_MEMORY // max(objects, 1))
    for start in range(0, predictions, size):
        yield slice(start, min(start + size, predictions))


def check_block_size(block_size: int | None) -> None:
    """Raise unless `block_size` is None or at least 1."""
    if block_size is not None:
        check_number("block_size", block_size, at_least=1)
