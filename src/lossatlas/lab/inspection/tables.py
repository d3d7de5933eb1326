"""The numbers of an inspection as tables and sentences: what the terminal prints and the report shows."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossatlas.lab.formatting import plural
from lossatlas.lab.inspection.priors import OVERLAP
from lossatlas.lab.inspection.survey import Survey

SIDES = (8, 16, 32, 64, 128, 256)
"""Where a size of objects ends and the next begins: √(width · height) in the pixels that the network sees."""

COUNTS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, None))
"""Numbers of positives that are told apart, first and last."""

TAKEN = "Who takes from whom"
"""Title of the table of pairs, above which the report tells of fights."""

PAIRS = 10
"""Pairs of classes that are listed, at most."""


@dataclass(frozen=True)
class Cell:
    """A number of a table with the part of a whole that a bar beside it shows; None for no bar."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """A table: its title, the sentence below it, the names of its columns, and its rows, a name and the cells."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Orphan:
    """An object that no prediction answers for.

    Args:
        file_name: of its image.
        image_id: of its image.
        annotation_id: its own.
        label: name of its class.
        width: in the pixels that the network sees.
        height: as the width.
        overlap: its best IoU with an anchor, or the number of points inside it; None where that is not known.
        robbed: whether other objects have what it would have.
    """

    file_name: str
    image_id: int
    annotation_id: int
    label: str
    width: float
    height: float
    overlap: float | None
    robbed: bool

    @property
    def reason(self) -> str:
        """Why no prediction answers for it."""
        return "taken by others" if self.robbed else "met by none"


def headline(survey: Survey) -> str:
    """Return the answer of an inspection in one sentence."""
    objects, without = len(survey.found), len(survey.without)
    where = f"of {survey.data}"
    if not objects:
        return f"{survey.split.name} {where} has no objects."
    if not without:
        return f"Every one of the {objects:,} objects {where} has a prediction that answers for it."
    share, one = _percent(without / objects), without == 1
    tail = f"{'has' if one else 'have'} no prediction that answers for {'it' if one else 'them'}"
    return f"{without:,} of {objects:,} objects {where} ({share}) {tail}."


def ratio(survey: Survey) -> str:
    """Return how many negatives and ignored predictions there are to a positive."""
    positive, negative, ignored = survey.states.double().mean(0).tolist()
    counts = f"{positive:.1f} positive, {negative:,.1f} negative and {ignored:.1f} ignored predictions"
    parts = f": 1 to {negative / positive:,.0f} to {ignored / positive:.1f}" if positive else ""
    return f"An image has {counts} on average{parts}."


def notes(survey: Survey) -> list[str]:
    """Return what a reader of the tables must know, a sentence or two each."""
    size = f"at most {survey.image_size} pixels a side"
    found = [f"Sizes are in the pixels that the network sees: images of {size}, without random changes."]
    if survey.depends:
        found.append(
            f"{survey.objective} looks at predictions to assign: here they are those of an untrained network, as in "
            "the first step of training. What is assigned changes as it learns."
        )
    else:
        found.append(f"{survey.objective} assigns by geometry alone: this holds for all of the training.")
    if survey.staged:
        found.append("This is the first stage, which proposes regions; the second is trained on what is proposed.")
    if survey.sampled:
        found.append("Only a sample of the negatives is trained, drawn after this.")
    if survey.crowds:
        found.append(
            f"{plural(survey.crowds, 'crowd region')} {'is' if survey.crowds == 1 else 'are'} no object: predictions "
            "there are ignored, by the rule of the assigner."
        )
    return found


def fights(survey: Survey) -> list[str]:
    """Return what objects take from each other, in sentences."""
    fight = survey.fights
    if not fight.claimed:
        return []
    everything = fight.images == len(survey.split)
    where = "" if everything else f" Looked at on {fight.images:,} images drawn at random, {fight.objects:,} objects."
    contested = f"{fight.contested:,} of {fight.claimed:,} predictions ({_percent(fight.contested / fight.claimed)})"
    lost = f"{fight.shortened:,} of {fight.objects:,} objects ({_percent(fight.shortened / max(fight.objects, 1))})"
    none = f", {fight.robbed:,} of them none at all" if fight.robbed else ""
    return [
        f"{contested} would answer for several objects if each were alone in its image, and can answer for one.",
        f"{lost} have fewer than they would have alone{none}.{where}",
    ]


def tables(survey: Survey) -> list[Table]:
    """Return the tables of an inspection, those without rows left out."""
    side = survey.found.size.prod(1).sqrt()
    size = torch.bucketize(side, torch.tensor(SIDES, dtype=side.dtype), right=True)
    sizes = [f"under {SIDES[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(SIDES))]
    sizes.append(f"{SIDES[-1]} and more")
    found = [
        _groups(survey, "By size", "size (px)", sizes, size, "√(width · height) of the object."),
        _classes(survey),
        _levels(survey),
        _counts(survey),
        _pairs(survey),
    ]
    return [table for table in found if table.rows]


def orphans(survey: Survey) -> list[Orphan]:
    """Return the objects without positives, smallest first."""
    found, split = survey.found, survey.split
    rows = []
    for row in survey.without.tolist():
        record, overlap = split.records[int(found.image[row])], float(found.overlap[row])
        width, height = found.size[row].tolist()
        rows.append(
            Orphan(
                record.file_name,
                record.image_id,
                int(found.annotation[row]),
                split.class_names[int(found.label[row])],
                width,
                height,
                None if math.isnan(overlap) else overlap,
                bool(found.robbed[row]),
            )
        )
    return rows


def to_json(survey: Survey) -> dict[str, Any]:
    """Return the content of ``inspection.json``."""
    positive, negative, ignored = survey.states.sum(0).tolist()
    return {
        "data": survey.data,
        "split": survey.split.name,
        "objective": survey.objective,
        "image_size": survey.image_size,
        "depends_on_predictions": survey.depends,
        "images": len(survey.split),
        "objects": len(survey.found),
        "crowd_regions": survey.crowds,
        "predictions": {"positive": positive, "negative": negative, "ignored": ignored},
        "fights": {
            "images": survey.fights.images,
            "objects": survey.fights.objects,
            "claimed": survey.fights.claimed,
            "contested": survey.fights.contested,
            "objects_with_fewer": survey.fights.shortened,
            "objects_with_none": survey.fights.robbed,
        },
        "tables": {
            table.title: [
                dict(zip(table.header, (name, *(cell.text for cell in cells)), strict=True))
                for name, cells in table.rows
            ]
            for table in tables(survey)
        },
        "without_positives": [
            {**vars(orphan), "overlap_is": OVERLAP[survey.geometry], "reason": orphan.reason}
            for orphan in orphans(survey)
        ],
    }


def _groups(survey: Survey, title: str, what: str, names: Sequence[str], group: Tensor, note: str) -> Table:
    """Return a row for each group of objects that is not empty."""
    positives = survey.found.positives
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for number, name in enumerate(names):
        mine = positives[group == number].double()
        if not len(mine):
            continue
        total = mine.sum(1)
        without = int((total == 0).sum())
        cells = (
            Cell(f"{len(mine):,}", len(mine) / len(positives)),
            Cell(f"{without:,}"),
            Cell(_percent(without / len(mine)), without / len(mine)),
            Cell(f"{total.median():.0f}"),
            Cell(f"{total.mean():.1f}"),
            *(Cell(f"{mean:.1f}") for mean in mine.mean(0).tolist()),
        )
        rows.append((name, cells))
    header = (what, "objects", "without", "part", "median", "mean", *survey.levels)
    explained = "Positives of an object: median, mean, and the mean on each level."
    return Table(title, f"{note} {explained}".strip(), header, tuple(rows))


def _classes(survey: Survey) -> Table:
    names, label = survey.split.class_names, survey.found.label
    order = torch.bincount(label, minlength=len(names)).argsort(descending=True, stable=True)
    return _groups(
        survey, "By class", "class", [names[number] for number in order.tolist()], order.argsort()[label], ""
    )


def _levels(survey: Survey) -> Table:
    positives = survey.found.positives
    every = max(int(positives.sum()), 1)
    rows = []
    for number, name in enumerate(survey.levels):
        mine = positives[:, number]
        share = int(mine.sum()) / every
        cells = (
            Cell(f"{survey.places[number]:,.0f}"),
            Cell(f"{int(mine.sum()) / max(len(survey.split), 1):,.1f}"),
            Cell(_percent(share), share),
            Cell(f"{int((mine > 0).sum()):,}", int((mine > 0).sum()) / max(len(mine), 1)),
        )
        rows.append((name, cells))
    note = "Predictions and positives of an image, the level's part of all positives, and the objects with some there."
    return Table("By level", note, ("level", "predictions", "positives", "part", "objects"), tuple(rows))


def _counts(survey: Survey) -> Table:
    total = survey.found.total
    rows = []
    for first, last in COUNTS:
        count = (
            int(((total >= first) & (total <= (last if last is not None else total.max()))).sum()) if len(total) else 0
        )
        name = f"{first}" if first == last else f"{first} and more" if last is None else f"{first} to {last}"
        rows.append((name, (Cell(f"{count:,}", count / max(len(total), 1)),)))
    used = [number for number, (_, cells) in enumerate(rows) if cells[0].share]
    return Table("Positives of an object", "", ("positives", "objects"), tuple(rows[: used[-1] + 1] if used else ()))


def _pairs(survey: Survey) -> Table:
    names, pairs = survey.split.class_names, survey.fights.pairs
    rows = tuple(
        (f"{names[winner]} over {names[loser]}", (Cell(f"{count:,}", count / pairs.total()),))
        for (winner, loser), count in pairs.most_common(PAIRS)
    )
    note = "Predictions that answer for an object of the first class and would answer for one of the second."
    return Table(TAKEN, note, ("classes", "predictions"), rows)


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
