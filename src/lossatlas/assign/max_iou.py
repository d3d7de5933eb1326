"""Assignment by thresholds on the IoU of anchors and objects: RPN, RetinaNet, Faster R-CNN, SSD."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment, blocks, check_block_size, given_objects, in_order
from lossatlas.assign.regions import boxes_in_crowd, check_rows
from lossatlas.assign.selection import to_rows
from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.kernels import matching
from lossatlas.kernels.native import usable_float32

LowQuality = Literal["none", "keep", "reassign"]


@dataclass(frozen=True)
class MaxIoU:
    """Assign each prior to the object that it overlaps most, if it overlaps it enough.

    Formula:
        IoU of the prior with its best object ≥ positive_threshold: positive
                                              < negative_threshold: negative
                                                         otherwise: ignored

    Args:
        positive_threshold: above 0, at most 1.
        negative_threshold: from 0 to `positive_threshold`.
        low_quality: what becomes of the priors that are the best that some object has, whatever their IoU
            (several priors if they tie):

            * ``"none"``: nothing;
            * ``"keep"``: they are positive, each for its own best object, which may be another object (detectron2
              and torchvision);
            * ``"reassign"``: they are positive for the object whose best they are, even if they were positive for
              another one (mmdetection). If they are the best of several objects, they go to the one they overlap
              most; in mmdetection to the one that comes last in the target, which depends on the order of the
              objects.
        min_low_quality_iou: the IoU with an object that its best prior must reach for `low_quality`. Whatever it is,
            an object that overlaps nothing makes no prior positive; in the libraries named above it makes all of
            them positive.
        crowd_threshold: a prior that is not positive is ignored if a crowd region covers this share of its area;
            None leaves such priors as they are. No prior is ever assigned to a crowd region.
        block_size: priors that are held against all objects at a time; it changes memory, never the result. None
            takes kernels where they can be used.

    Raises:
        ValueError: a number out of its range or an unknown `low_quality`.

    Example:
        >>> priors = torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]])
        >>> target = {"boxes": torch.tensor([[0.0, 0, 10, 9], [25.0, 0, 35, 10]]), "labels": torch.tensor([0, 0])}
        >>> MaxIoU.retinanet()(priors, target).matched
        tensor([ 0, -1,  1, -1])

    Note:
        Of objects with the same IoU the first one in `canonical_order` wins. Memory grows with priors + objects. A box
        with a coordinate that is infinite or not a number overlaps nothing.
        Priors tie for an object if their IoU with it is equal as computed: of several priors of one shape that contain
        it, rounding decides which do. `dataclasses.replace` changes an option of a ready-made assigner.

    Reference:
        Ren et al., "Faster R-CNN", 2015, arXiv 1506.01497, section 3.1.2; Lin et al., "Focal Loss for Dense Object
        Detection", 2017, arXiv 1708.02002, section 4.
    """

    positive_threshold: float = 0.5
    negative_threshold: float = 0.4
    low_quality: LowQuality = "keep"
    min_low_quality_iou: float = 0.0
    crowd_threshold: float | None = 0.5
    block_size: int | None = None

    def __post_init__(self) -> None:
        check_number("positive_threshold", self.positive_threshold, above=0, at_most=1)
        check_number("negative_threshold", self.negative_threshold, at_least=0, at_most=self.positive_threshold)
        check_choice("low_quality", self.low_quality, get_args(LowQuality))
        check_number("min_low_quality_iou", self.min_low_quality_iou, at_least=0, at_most=1)
        if self.crowd_threshold is not None:
            check_number("crowd_threshold", self.crowd_threshold, above=0, at_most=1)
        check_block_size(self.block_size)

    @classmethod
    def retinanet(cls) -> Self:
        """Return RetinaNet's assigner: 0.5, 0.4 and low-quality matches as in detectron2 and torchvision."""
        return cls(0.5, 0.4, "keep")

    @classmethod
    def rpn(cls) -> Self:
        """Return the region proposal network's assigner: 0.7, 0.3 and low-quality matches."""
        return cls(0.7, 0.3, "keep")

    @classmethod
    def roi(cls) -> Self:
        """Return the assigner of Faster R-CNN's second stage: 0.5 and no low-quality matches."""
        return cls(0.5, 0.5, "none")

    def __call__(self, priors: Float[Tensor, "p 4"], target: Mapping[str, Tensor]) -> Assignment:
        """Return which object of one image each prior answers for.

        Args:
            priors: ``(P, 4)`` xyxy in pixels.
            target: ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,).
        """
        check_rows("priors", priors)
        (priors,) = upcast(priors.detach())
        given = given_objects(target)
        crowded = None
        if given.crowd is not None:
            crowded = boxes_in_crowd(priors, given.regions.to(priors.dtype), self.crowd_threshold, self.block_size)
        if self.block_size is None and usable_float32(priors, given.boxes):
            verdicts = matching.max_iou(
                priors,
                *given,
                crowded,
                positive=self.positive_threshold,
                negative=self.negative_threshold,
                low_quality=self.low_quality,
                least=self.min_low_quality_iou,
            )
            return Assignment(*verdicts)
        objects = in_order(given, priors.dtype)
        matched, ignored = self._match(_Blocks(priors, objects.boxes, self.block_size))
        if crowded is not None:
            ignored |= crowded
        return Assignment.build(to_rows(objects.rows, matched), ignored)

    def match(self, overlaps: Float[Tensor, "p g"]) -> Assignment:
        """Return the assignment for given overlaps of priors and objects; objects that tie go by their column.

        Args:
            overlaps: ``(P, G)`` from 0 to 1. torchvision's and detectron2's matchers take the transpose.
        """
        check_floating("overlaps", overlaps)
        if overlaps.ndim != 2:
            raise ValueError(f"`overlaps` must have shape (P, G), but got {tuple(overlaps.shape)}")
        return Assignment.build(*self._match(_Matrix(overlaps)))

    def _match(self, overlaps: "_Blocks") -> tuple[Tensor, Tensor]:
        """Return the object of each positive prior (-1 for others), and the priors between the thresholds."""
        best, own, object_best = overlaps.best()
        matched = torch.where(best >= self.positive_threshold, own, -1)
        if self.low_quality != "none":
            worthy = (object_best >= self.min_low_quality_iou) & (object_best > 0)
            claimant = overlaps.claims(torch.where(worthy, object_best, torch.inf))
            matched = torch.where(claimant >= 0, own if self.low_quality == "keep" else claimant, matched)
        return matched, (best >= self.negative_threshold) & (best < self.positive_threshold)


class _Blocks:
    """The IoU of each prior with each object, of a few priors at a time."""

    def __init__(self, priors: Tensor, objects: Tensor, block_size: int | None) -> None:
        self.priors = priors
        self.objects = objects
        self.block_size = block_size

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best IoU of each prior, the first object it is with, and the best IoU of each object."""
        best = self.priors.new_zeros(len(self.priors))
        own = torch.zeros_like(best, dtype=torch.int64)
        object_best = self.priors.new_zeros(len(self.objects))
        for block, iou in self._blocks():
            best[block], own[block] = iou.max(dim=1)  # the first maximum
            object_best = torch.maximum(object_best, iou.amax(dim=0))
        return best, own, object_best

    def claims(self, wanted: Tensor) -> Tensor:
        """Return the object that each prior has the highest claim to, -1 without any.

        Args:
            wanted: ``(G,)`` the IoU with each object that is a claim to it, above 0.
        """
        claimant = torch.full_like(self.priors[:, 0], -1, dtype=torch.int64)
        for block, iou in self._blocks():
            claim, object_ = torch.where(iou == wanted, iou, 0).max(dim=1)
            claimant[block] = torch.where(claim > 0, object_, -1)
        return claimant

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        if len(self.objects):
            for block in blocks(len(self.priors), len(self.objects), self.block_size):
                # A box that is not finite overlaps nothing.
                yield block, pairwise_iou(self.priors[block], self.objects).nan_to_num()


class _Matrix(_Blocks):
    """A matrix that is given."""

    def __init__(self, overlaps: Tensor) -> None:
        super().__init__(overlaps, overlaps.T, None)
        self.overlaps = overlaps

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        if self.overlaps.numel():
            yield slice(0, len(self.overlaps)), self.overlaps
