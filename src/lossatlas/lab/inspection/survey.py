"""Assigns the objects of a data set to the predictions of an untrained network, and counts who answers for whom."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.lab.data import Data, DetectionSplit
from lossatlas.lab.inspection.dependence import depends_on_predictions
from lossatlas.lab.inspection.priors import Geometry, Priors
from lossatlas.lab.inspection.surveyor import Surveyor, Target

SAMPLED_OBJECTS = 4000
"""Objects that are assigned once more, each as if it were alone in its image, to see what others take from it."""


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


@dataclass
class Fights:
    """What objects take from each other, on the images that were looked at for it.

    Args:
        images: how many they are.
        objects: their objects.
        claimed: predictions that at least one object would have if it were alone.
        contested: those of them that several would have.
        shortened: objects that have fewer positives than they would have alone.
        robbed: those of them that have none.
        pairs: contested predictions by the class that has them and the class that would have them too.
    """

    images: int = 0
    objects: int = 0
    claimed: int = 0
    contested: int = 0
    shortened: int = 0
    robbed: int = 0
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)


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
    drawn = _sample(split)
    states = torch.zeros(len(split), 3, dtype=torch.int64)
    rows, places, fights = [], [], Fights()
    for number, (size, index) in enumerate(sorted((surveyor.size(one), at) for at, one in enumerate(split.records))):
        target = surveyor.target(split.records[index])
        assignment = surveyor.assign(size, target)
        priors = surveyor.priors(size, len(assignment))
        states[index] = torch.stack([assignment.positive, assignment.negative, assignment.ignored]).sum(1)
        places.append(torch.bincount(priors.level, minlength=len(priors.levels)))
        rows.append(_found(surveyor, index, size, target, assignment, priors, split.annotation_ids(index)))
        if index in drawn:
            _fight(fights, surveyor, size, target, assignment)
        if on_progress and number % 50 == 0:
            on_progress(number / len(split))
    return Survey(
        objective=objective,
        data=data.name,
        split=split,
        image_size=surveyor.image_size,
        levels=priors.levels,
        places=tuple(torch.stack(places).double().mean(0).tolist()),
        geometry=priors.geometry,
        found=Found(*(torch.cat(column) for column in zip(*rows, strict=True))),
        states=states,
        crowds=sum(int(record.iscrowd.sum()) for record in split.records),
        fights=fights,
        depends=depends_on_predictions(surveyor, split),
        sampled=getattr(surveyor.learner.assigning, "sampler", None) is not None,
        staged=surveyor.learner.assigning is not surveyor.learner.objective,
        seconds=time.perf_counter() - started,
    )


def _sample(split: DetectionSplit) -> frozenset[int]:
    """Return images at random whose objects are `SAMPLED_OBJECTS` together, or all if there are fewer."""
    order = np.random.default_rng(0).permutation(len(split)).tolist()
    before = np.cumsum([0, *(len(split.records[index].labels) for index in order)])
    return frozenset(index for index, count in zip(order, before.tolist(), strict=False) if count < SAMPLED_OBJECTS)


def _found(
    surveyor: Surveyor,
    index: int,
    size: tuple[int, int],
    target: Target,
    assignment: Assignment,
    priors: Priors,
    annotation_ids: Sequence[int],
) -> tuple[Tensor, ...]:
    """Return the rows of one image, in the order of `Found`."""
    kept = (~target["iscrowd"]).nonzero().squeeze(1)
    boxes = target["boxes"][kept]
    objects, levels = len(target["labels"]), len(priors.levels)
    place = assignment.matched[assignment.positive] * levels + priors.level[assignment.positive]
    positives = torch.bincount(place, minlength=objects * levels).view(objects, levels)[kept]
    overlap = torch.full((len(kept),), math.nan)
    robbed = torch.zeros(len(kept), dtype=torch.bool)
    lost = (positives.sum(1) == 0).nonzero().squeeze(1)
    if len(lost):
        overlap[lost] = priors.best_overlap(boxes[lost])
        robbed[lost] = _robbed(surveyor, size, target, kept[lost])
    ids = torch.tensor([annotation_ids[row] for row in kept.tolist()], dtype=torch.int64)
    image = torch.full_like(kept, index)
    return image, ids, target["labels"][kept], boxes[:, 2:] - boxes[:, :2], positives, overlap, robbed


def _only(target: Target, rows: Tensor) -> Target:
    """Return a target of these objects and all crowd regions."""
    chosen = torch.cat((rows, target["iscrowd"].nonzero().squeeze(1)))
    return {name: values[chosen] for name, values in target.items()}


def _robbed(surveyor: Surveyor, size: tuple[int, int], target: Target, lost: Tensor) -> Tensor:
    """Return which of the objects without positives have some once those that have are taken away, and so on."""
    robbed = torch.zeros(len(lost), dtype=torch.bool)
    while not robbed.all():
        left = (~robbed).nonzero().squeeze(1)
        assignment = surveyor.assign(size, _only(target, lost[left]))
        winners = assignment.matched[assignment.positive].unique()
        if not len(winners):
            break
        robbed[left[winners]] = True
    return robbed


def _fight(fights: Fights, surveyor: Surveyor, size: tuple[int, int], target: Target, assignment: Assignment) -> None:
    """Assign each object of an image as if it were alone, and count what the others take from it."""
    rows = (~target["iscrowd"]).nonzero().squeeze(1)
    fights.images += 1
    fights.objects += len(rows)
    if len(rows) == 0:
        return
    if len(rows) == 1:  # it is alone
        fights.claimed += int(assignment.positive.sum())
        return
    claims = torch.stack([surveyor.assign(size, _only(target, row[None])).positive for row in rows])
    claimants, wanted = claims.sum(0), claims.sum(1)
    kept = (assignment.matched == rows[:, None]).sum(1)
    fights.claimed += int((claimants > 0).sum())
    fights.contested += int((claimants > 1).sum())
    fights.shortened += int((kept < wanted).sum())
    fights.robbed += int(((kept == 0) & (wanted > 0)).sum())
    loser, place = (claims & (claimants > 1) & assignment.positive & (assignment.matched != rows[:, None])).nonzero().T
    winners = target["labels"][assignment.matched[place]]
    fights.pairs.update(zip(winners.tolist(), target["labels"][rows[loser]].tolist(), strict=True))
