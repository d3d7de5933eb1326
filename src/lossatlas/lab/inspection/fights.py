"""What the objects of an image take from each other: each is assigned once more, as if it were alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.lab.data import DetectionSplit
from lossatlas.lab.inspection.surveyor import Surveyor, Target, positives_of

SAMPLED_OBJECTS = 4000
"""Objects that are assigned once more, to see what others take from them."""


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

    def add(self, surveyor: Surveyor, size: tuple[int, int], target: Target, assignment: Assignment) -> None:
        """Count what the objects of an image take from each other.

        Args:
            surveyor: of the objective.
            size: height and width of the image as the network sees it.
            target: its objects.
            assignment: of all of them.
        """
        rows = (~target["iscrowd"]).nonzero().squeeze(1)
        self.images += 1
        self.objects += len(rows)
        if len(rows) == 0:
            return
        if len(rows) == 1:  # it is alone
            self.claimed += len(positives_of(assignment))
            return
        claims = [positives_of(surveyor.assign(size, alone)) for alone in _alone(target, rows)]
        wanted = torch.tensor([len(claim) for claim in claims])
        place = torch.cat(claims)
        claimants = torch.bincount(place, minlength=len(assignment))
        winner = assignment.matched
        kept = torch.bincount(winner[winner >= 0], minlength=len(target["labels"]))[rows]
        self.claimed += int((claimants > 0).sum())
        self.contested += int((claimants > 1).sum())
        self.shortened += int((kept < wanted).sum())
        self.robbed += int(((kept == 0) & (wanted > 0)).sum())
        loser = rows.repeat_interleave(wanted)
        lost = (claimants[place] > 1) & (winner[place] >= 0) & (winner[place] != loser)
        labels = target["labels"]
        self.pairs.update(zip(labels[winner[place[lost]]].tolist(), labels[loser[lost]].tolist(), strict=True))


def sample(split: DetectionSplit) -> frozenset[int]:
    """Return images at random whose objects are `SAMPLED_OBJECTS` together, or all if there are fewer."""
    order = np.random.default_rng(0).permutation(len(split)).tolist()
    before = np.cumsum([0, *(len(split.records[index].labels) for index in order)])
    return frozenset(index for index, count in zip(order, before.tolist(), strict=False) if count < SAMPLED_OBJECTS)


def only(target: Target, rows: Tensor) -> Target:
    """Return a target of these objects and all crowd regions."""
    chosen = torch.cat((rows, target["iscrowd"].nonzero().squeeze(1)))
    return {name: values[chosen] for name, values in target.items()}


def _alone(target: Target, rows: Tensor) -> Iterable[Target]:
    """Return, for each of the objects, a target of it and of all crowd regions."""
    if len(rows) < len(target["labels"]):
        return [only(target, row[None]) for row in rows]
    return [
        dict(zip(target, values, strict=True))
        for values in zip(*(part.split(1) for part in target.values()), strict=True)
    ]
