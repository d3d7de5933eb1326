"""Which of the assigned predictions are trained: samplers return an assignment in which the others are ignored.

Samplers never change what a prediction is assigned to. What was ignored stays ignored. Where predictions tie, the first
one is taken; where chance decides, the generator that is given does.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign.assignment import Assignment
from lossatlas.boxes.nms import batched_nms
from lossatlas.checks import check_floating, check_number


@dataclass(frozen=True)
class RandomSampler:
    """Take a fixed number of predictions of an image at random, at most a share of them positive.

    Formula:
        positives = min(⌊count · positive_fraction⌋, all positives);  negatives = min(count - positives, all negatives)

    Args:
        count: predictions of an image.
        positive_fraction: from 0 to 1.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> assignment = Assignment.from_torchvision(torch.tensor([0, 0, 0, -1, -1, -1, -2]))
        >>> sampled = RandomSampler(4, 0.25)(assignment, generator=torch.Generator().manual_seed(0))
        >>> int(sampled.positive.sum()), int(sampled.negative.sum()), int(sampled.ignored.sum())
        (1, 3, 3)

    Reference:
        Ren et al., "Faster R-CNN", 2015, arXiv 1506.01497, section 3.1.3.
    """

    count: int = 256
    positive_fraction: float = 0.5

    def __post_init__(self) -> None:
        _check_share(self.count, self.positive_fraction)

    @classmethod
    def rpn(cls) -> Self:
        """Return the region proposal network's sampler: 256 anchors, half of them positive."""
        return cls(256, 0.5)

    @classmethod
    def roi(cls) -> Self:
        """Return the second stage's sampler: 512 regions, a quarter of them positive."""
        return cls(512, 0.25)

    def __call__(self, assignment: Assignment, *, generator: torch.Generator | None = None) -> Assignment:
        """Return the assignment of the sampled predictions.

        Args:
            assignment: of one image.
            generator: of random numbers; None takes torch's default.
        """
        positives = _draw(_rows(assignment.positive), int(self.count * self.positive_fraction), generator)
        negatives = _draw(_rows(assignment.negative), self.count - len(positives), generator)
        return _only(assignment, positives, negatives)


@dataclass(frozen=True)
class HardNegativeSampler:
    """Take all positives of an image and the negatives with the largest losses: SSD's hard negative mining.

    Formula:
        eligible: negatives whose best IoU with an object < overlap_limit
        negatives = min(ratio · positives, eligible), or min(without_positives, eligible) if there is no positive

    Args:
        ratio: negatives for each positive.
        overlap_limit: from above 0 to 1; it counts only where overlaps are given.
        without_positives: negatives of an image that has no positive. SSD takes none, so that images of nothing but
            background teach nothing; any other number is a change to the paper.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> assignment = Assignment.from_torchvision(torch.tensor([0, -1, -1, -1, -1, -1]))
        >>> losses = torch.tensor([9.0, 1.0, 5.0, 2.0, 4.0, 0.0])
        >>> HardNegativeSampler()(assignment, losses).state
        tensor([ 1, -1,  0,  0,  0, -1], dtype=torch.int8)

    Note:
        torchvision and mmdetection have no limit on the overlap; without overlaps the result is theirs.

    Reference:
        Liu et al., "SSD", 2015, arXiv 1512.02325, section 2.2 (hard negative mining); the limit: the authors' code.
    """

    ratio: float = 3.0
    overlap_limit: float = 0.5
    without_positives: int = 0

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio, at_least=0)
        check_number("overlap_limit", self.overlap_limit, above=0, at_most=1)
        check_number("without_positives", self.without_positives, at_least=0)

    def __call__(
        self, assignment: Assignment, losses: Float[Tensor, " p"], overlaps: Float[Tensor, " p"] | None = None
    ) -> Assignment:
        """Return the assignment of the sampled predictions.

        Args:
            assignment: of one image.
            losses: ``(P,)`` classification loss of each prediction.
            overlaps: ``(P,)`` highest IoU of each prior with an object; None leaves the limit out.
        """
        _check_values("losses", losses, assignment)
        eligible = assignment.negative
        if overlaps is not None:
            _check_values("overlaps", overlaps, assignment)
            eligible = eligible & (overlaps < self.overlap_limit)
        positives = _rows(assignment.positive)
        count = int(self.ratio * len(positives)) if len(positives) else self.without_positives
        return _only(assignment, positives, _hardest(_rows(eligible), losses, count))


@dataclass(frozen=True)
class OHEMSampler:
    """Take the predictions of an image with the largest losses: online hard example mining.

    Formula:
        of the predictions that are not ignored, those that suppression by loss keeps, the `count` largest losses

    Args:
        count: predictions of an image.
        positive_fraction: None takes positives and negatives as their losses come, as the paper does; a number from 0
            to 1 takes the hardest of each as `RandomSampler` does, which is what mmdetection does.
        iou_threshold: of the boxes that overlap more, only the one with the largest loss counts. It counts only where
            boxes are given.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> assignment = Assignment.from_torchvision(torch.tensor([0, 0, -1, -1, -2]))
        >>> OHEMSampler(2)(assignment, torch.tensor([1.0, 3.0, 2.0, 0.5, 9.0])).state
        tensor([-1,  1,  0, -1, -1], dtype=torch.int8)

    Note:
        mmdetection does not suppress.

    Reference:
        Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", 2016,
        arXiv 1604.03540, section 4.
    """

    count: int = 128
    positive_fraction: float | None = None
    iou_threshold: float = 0.7

    def __post_init__(self) -> None:
        _check_share(self.count, 0 if self.positive_fraction is None else self.positive_fraction)
        check_number("iou_threshold", self.iou_threshold, at_least=0, at_most=1)

    def __call__(
        self, assignment: Assignment, losses: Float[Tensor, " p"], boxes: Float[Tensor, "p 4"] | None = None
    ) -> Assignment:
        """Return the assignment of the sampled predictions.

        Args:
            assignment: of one image.
            losses: ``(P,)`` whole loss of each prediction.
            boxes: ``(P, 4)`` xyxy of the regions; None leaves suppression out.
        """
        _check_values("losses", losses, assignment)
        kept = ~assignment.ignored
        if boxes is not None:
            rows = _rows(kept)
            one_class = torch.zeros_like(rows)
            survivors = batched_nms(boxes[rows].detach(), losses[rows].detach(), one_class, self.iou_threshold)
            kept = torch.zeros_like(kept).index_fill(0, rows[survivors], True)
        if self.positive_fraction is None:
            return _only(assignment, _hardest(_rows(kept), losses, self.count))
        positives = int(self.count * self.positive_fraction)
        hard = _hardest(_rows(kept & assignment.positive), losses, positives)
        rest = _hardest(_rows(kept & assignment.negative), losses, self.count - len(hard))
        return _only(assignment, hard, rest)


@dataclass(frozen=True)
class IoUBalancedSampler:
    """Take negatives evenly from intervals of their IoU with the objects, and positives evenly from the objects.

    Formula:
        numbers of positives and negatives as `RandomSampler`
        negatives: K = bins intervals of equal width from 0 to the highest IoU of a negative, ⌊negatives / K⌋ at random
                   from each; what is missing then, at random from the rest
        positives: at random, one of each object, then a second of each, and so on

    Args:
        count: predictions of an image.
        positive_fraction: from 0 to 1.
        bins: K.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> assignment = Assignment.from_torchvision(torch.tensor([-1] * 8))
        >>> overlaps = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.15, 0.3])
        >>> IoUBalancedSampler(3)(assignment, overlaps).state[6:]
        tensor([0, 0], dtype=torch.int8)

    Reference:
        Pang et al., "Libra R-CNN", 2019, arXiv 1904.02701, section 3.1.
    """

    count: int = 512
    positive_fraction: float = 0.25
    bins: int = 3

    def __post_init__(self) -> None:
        _check_share(self.count, self.positive_fraction)
        check_number("bins", self.bins, at_least=1)

    def __call__(
        self, assignment: Assignment, overlaps: Float[Tensor, " p"], *, generator: torch.Generator | None = None
    ) -> Assignment:
        """Return the assignment of the sampled predictions.

        Args:
            assignment: of one image.
            overlaps: ``(P,)`` highest IoU of each prediction with an object.
            generator: of random numbers; None takes torch's default.
        """
        _check_values("overlaps", overlaps, assignment)
        rows = _rows(assignment.positive)
        positives = self._of_each_object(assignment, _draw(rows, len(rows), generator))
        negatives = self._of_each_bin(_rows(assignment.negative), overlaps, self.count - len(positives), generator)
        return _only(assignment, positives, negatives)

    def _of_each_object(self, assignment: Assignment, shuffled: Tensor) -> Tensor:
        """Return the first of the shuffled positives of each object, then the second of each, as many as wanted."""
        owner, order = assignment.matched[shuffled].sort(stable=True)
        turn = torch.arange(len(order), device=order.device) - torch.searchsorted(owner, owner)
        # Within a turn the objects come in random order too: by the place of their positive in the shuffle.
        order = order[(turn * (len(order) + 1) + order).argsort()]
        return shuffled[order[: int(self.count * self.positive_fraction)]]

    def _of_each_bin(self, rows: Tensor, overlaps: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        iou = overlaps[rows]
        width = iou.max() / self.bins if len(rows) else iou.new_ones(())
        number = torch.where(width > 0, iou / width, 0).floor().clamp(max=self.bins - 1)
        chosen = torch.cat([_draw(rows[number == k], count // self.bins, generator) for k in range(self.bins)])
        rest = rows[~torch.isin(rows, chosen)]
        return torch.cat((chosen, _draw(rest, count - len(chosen), generator)))


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)


def _draw(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Return `count` of the rows at random, all of them in random order if there are fewer."""
    device = rows.device if generator is None else generator.device
    order = torch.randperm(len(rows), generator=generator, device=device)[:count]
    return rows[order.to(rows.device)]


def _hardest(rows: Tensor, losses: Tensor, count: int) -> Tensor:
    return rows[losses[rows].sort(descending=True, stable=True).indices[:count]]


def _only(assignment: Assignment, *rows: Tensor) -> Assignment:
    """Return the assignment in which all other rows are ignored."""
    kept = torch.zeros_like(assignment.positive).index_fill(0, torch.cat(rows), True)
    return Assignment.build(torch.where(kept, assignment.matched, -1), ~kept)


def _check_share(count: int, positive_fraction: float) -> None:
    check_number("count", count, at_least=1)
    check_number("positive_fraction", positive_fraction, at_least=0, at_most=1)


def _check_values(name: str, values: Tensor, assignment: Assignment) -> None:
    check_floating(name, values)
    if values.shape != assignment.state.shape:
        raise ValueError(f"`{name}` must have shape ({len(assignment)},), but got {tuple(values.shape)}")
