"""Assigns the objects of a data set to the predictions of an untrained network, and counts who answers for whom."""

import itertools
import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lossatlas.assign.assignment import IGNORED
from lossatlas.lab.data import Data, DetectionSplit
from lossatlas.lab.inspection.dependence import depends_on_predictions
from lossatlas.lab.inspection.fights import Fights, only, sample
from lossatlas.lab.inspection.priors import Geometry, Priors
from lossatlas.lab.inspection.surveyor import Surveyor, Target, positives_of


@dataclass(frozen=True)
class Found:
    """What became of the objects of a split; one row for each that is no crowd region.

    Args:
        image: ``(N,)`` index of its image in the split.
        annotation: ``(N,)`` its id, as `DetectionSplit.annotation_ids` says.
        label: ``(N,)`` its class.
        size: ``(N, 2)`` width and height in the pixels that the network sees.
        positives: ``(N, L)`` predictions that answer for it, on each level.
        overlap: ``(N,)`` of an object without positives, how well it is met, as `Priors.best_overlap`; NaN for others.
        robbed: ``(N,)`` whether an object without positives would have some if those that have were not there.
    """

    image: Tensor
    annotation: Tensor
    label: Tensor
    size: Tensor
    positives: Tensor
    overlap: Tensor
    robbed: Tensor

    def __len__(self) -> int:
        return len(self.label)

    @property
    def total(self) -> Tensor:
        """``(N,)`` positives on all levels."""
        return self.positives.sum(1)


@dataclass(frozen=True)
class Survey:
    """Who answers for whom.

    Args:
        objective: its name.
        data: name of the data set.
        split: the images.
        image_size: longest side of an image as the network sees it.
        levels: name of each level.
        places: mean number of predictions of an image on each level.
        geometry: what the places of the predictions are.
        found: what became of the objects.
        states: ``(I, 3)`` positive, negative and ignored predictions of each image.
        crowds: crowd regions of the split.
        fights: what objects take from each other.
        depends: whether the assignment depends on what the network predicts, which is untrained here.
        sampled: whether the objective trains a sample of the negatives.
        staged: whether this is the first stage of several.
        seconds: that it took.
    """

    objective: str
    data: str
    split: DetectionSplit
    image_size: int
    levels: tuple[str, ...]
    places: tuple[float, ...]
    geometry: Geometry
    found: Found
    states: Tensor
    crowds: int
    fights: Fights
    depends: bool
    sampled: bool
    staged: bool
    seconds: float

    @property
    def without(self) -> Tensor:
        """Rows of the objects without positives, smallest first."""
        rows = (self.found.total == 0).nonzero().squeeze(1)
        return rows[self.found.size[rows].prod(1).argsort(stable=True)]


def survey(
    objective: str,
    data: Data[DetectionSplit],
    *,
    image_size: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Survey:
    """Assign every object of the training split of a data set, without decoding an image.

    Args:
        objective: name of the objective.
        data: whose ``train`` is looked at.
        image_size: longest side of an image as the network sees it; None: as `compare` trains it.
        on_progress: is told the share that is done.

    Returns:
        Who answers for whom.
    """
    started = time.perf_counter()
    split, surveyor = data.train, Surveyor(objective, data, image_size)
    targets, drawn = surveyor.targets(split.records), sample(split)
    states = np.zeros((len(split), 3), dtype=np.int64)
    rows, places, fights, done = [], [], Fights(), 0
    visited = sorted((surveyor.size(record), index) for index, record in enumerate(split.records))
    for size, group in itertools.groupby(visited, key=operator.itemgetter(0)):
        indices = [index for _, index in group]
        answers = []
        for index in indices:
            assignment = surveyor.assign(size, targets[index])
            positive = positives_of(assignment)
            ignored = np.count_nonzero(assignment.state.numpy() == IGNORED)
            states[index] = len(positive), len(assignment) - len(positive) - ignored, ignored
            answers.append((positive, assignment.matched[positive]))
            if index in drawn:
                fights.add(surveyor, size, targets[index], assignment)
            if on_progress and done % 50 == 0:
                on_progress(done / len(split))
            done += 1
        priors = surveyor.priors(size, len(assignment))
        places.append(len(indices) * torch.bincount(priors.level, minlength=len(priors.levels)))
        rows.append(_found(surveyor, size, priors, split, indices, [targets[index] for index in indices], answers))
    return Survey(
        objective=objective,
        data=data.name,
        split=split,
        image_size=surveyor.image_size,
        levels=priors.levels,
        places=tuple((torch.stack(places).sum(0).double() / len(split)).tolist()),
        geometry=priors.geometry,
        found=Found(*(torch.cat(column) for column in zip(*rows, strict=True))),
        states=torch.from_numpy(states),
        crowds=sum(int(record.iscrowd.sum()) for record in split.records),
        fights=fights,
        depends=depends_on_predictions(surveyor, split),
        sampled=getattr(surveyor.learner.assigning, "sampler", None) is not None,
        staged=surveyor.learner.assigning is not surveyor.learner.objective,
        seconds=time.perf_counter() - started,
    )


def _found(
    surveyor: Surveyor,
    size: tuple[int, int],
    priors: Priors,
    split: DetectionSplit,
    indices: Sequence[int],
    targets: Sequence[Target],
    answers: Sequence[tuple[Tensor, Tensor]],
) -> tuple[Tensor, ...]:
    """Return the rows of the images of one size, in the order of `Found`.

    Args:
        surveyor: of the objective.
        size: height and width of the images as the network sees them.
        priors: of this size.
        split: of the images.
        indices: of the images in the split.
        targets: of the images.
        answers: of each image, its positives and their objects.
    """
    boxes, labels, iscrowd = (
        torch.cat([target[name] for target in targets]) for name in ("boxes", "labels", "iscrowd")
    )
    counts = torch.tensor([len(target["labels"]) for target in targets])
    start = counts.cumsum(0) - counts
    place, matched = (torch.cat(part) for part in zip(*answers, strict=True))
    matched = matched + start.repeat_interleave(torch.tensor([len(positive) for positive, _ in answers]))
    objects, levels = len(labels), len(priors.levels)
    positives = torch.bincount(matched * levels + priors.level[place], minlength=objects * levels).view(objects, levels)
    overlap = torch.full((objects,), math.nan)
    robbed = torch.zeros(objects, dtype=torch.bool)
    lost = ((positives.sum(1) == 0) & ~iscrowd).nonzero().squeeze(1)
    overlap[lost] = priors.best_overlap(boxes[lost])
    image = torch.arange(len(counts)).repeat_interleave(counts)
    for number, rows in _by_image(image[lost], lost):
        robbed[rows] = _robbed(surveyor, size, targets[number], rows - start[number])
    ids = torch.tensor([id_ for index in indices for id_ in split.annotation_ids(index)], dtype=torch.int64)
    columns = (torch.tensor(indices)[image], ids, labels, boxes[:, 2:] - boxes[:, :2], positives, overlap, robbed)
    return tuple(column[~iscrowd] for column in columns)


def _by_image(image: Tensor, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Return each image that occurs, with those of the rows that are its own; `image` is sorted."""
    numbers, counts = image.unique_consecutive(return_counts=True)
    return zip(numbers.tolist(), rows.split(counts.tolist()), strict=True)


def _robbed(surveyor: Surveyor, size: tuple[int, int], target: Target, lost: Tensor) -> Tensor:
    """Return which of the objects without positives have some once those that have are taken away, and so on."""
    robbed = torch.zeros(len(lost), dtype=torch.bool)
    while not robbed.all():
        left = (~robbed).nonzero().squeeze(1)
        assignment = surveyor.assign(size, only(target, lost[left]))
        winners = assignment.matched[positives_of(assignment)].unique()
        if not len(winners):
            break
        robbed[left[winners]] = True
    return robbed
