"""Writes what an inspection found: a page, and its numbers."""

from pathlib import Path

from rich.console import Console

from lossatlas._version import __version__
from lossatlas.lab.data import Data, DetectionSplit, describe
from lossatlas.lab.files import write_json, write_text
from lossatlas.lab.formatting import plain_table
from lossatlas.lab.inspection import tables
from lossatlas.lab.inspection.drawing import draw
from lossatlas.lab.inspection.priors import OVERLAP
from lossatlas.lab.inspection.survey import Survey
from lossatlas.lab.report.page import fill

PAGE_FILE, NUMBERS_FILE = "inspection.html", "inspection.json"

LISTED = 200
"""Objects without positives that the page lists; the numbers list all."""

PRINTED = 10
"""Objects without positives that the terminal lists."""


def write_inspection(survey: Survey, data: Data[DetectionSplit], out: Path, command: str) -> Path:
    """Write ``inspection.html`` and ``inspection.json``.

    Args:
        survey: of the data.
        data: of the survey; the images that are shown are decoded.
        out: folder; it is created.
        command: that the user gave.

    Returns:
        The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / NUMBERS_FILE, tables.to_json(survey))
    orphans, fights = tables.orphans(survey), tables.fights(survey)
    page = fill(
        "inspection.html.jinja",
        survey=survey,
        headline=tables.headline(survey),
        ratio=tables.ratio(survey),
        notes=tables.notes(survey),
        fights=fights,
        pairs_title=tables.TAKEN,
        tables=tables.tables(survey),
        pictures=draw(survey, data),
        orphans=orphans[:LISTED],
        left_out=len(orphans[LISTED:]),
        overlap=OVERLAP[survey.geometry],
        json_file=NUMBERS_FILE,
        command=command,
        version=__version__,
        data_warnings=describe(data.warnings) if data.warnings else "",
    )
    write_text(out / PAGE_FILE, page)
    return out / PAGE_FILE


def show_survey(survey: Survey, console: Console) -> None:
    """Print the tables of an inspection, and the first of the objects that nothing answers for."""

    def say(text: str = "", style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    say(tables.headline(survey), "bold")
    say(tables.ratio(survey))
    for sentence in [*tables.fights(survey), *tables.notes(survey)]:
        say(f"- {sentence}")
    for table in tables.tables(survey):
        say(f"\n{table.title}", "bold")
        rows = [[name, *(cell.text for cell in cells)] for name, cells in table.rows]
        console.print(plain_table(table.header, rows), markup=False, highlight=False, soft_wrap=True)
    orphans = tables.orphans(survey)
    if orphans:
        say(
            f"\nObjects that nothing answers for, smallest first ({min(PRINTED, len(orphans))} of {len(orphans):,})",
            "bold",
        )
        header = ("image", "annotation", "class", "size", OVERLAP[survey.geometry], "why")
        rows = [
            [
                orphan.file_name,
                str(orphan.annotation_id),
                orphan.label,
                f"{orphan.width:.1f} x {orphan.height:.1f}",
                "-" if orphan.overlap is None else f"{orphan.overlap:.2g}",
                orphan.reason,
            ]
            for orphan in orphans[:PRINTED]
        ]
        console.print(plain_table(header, rows), markup=False, highlight=False, soft_wrap=True)
