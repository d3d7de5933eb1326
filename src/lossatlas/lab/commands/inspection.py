"""``lossatlas inspect``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lossatlas.lab.commands.app import listed, plain_errors
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.registry import OBJECTIVES, find_objective


def _inspected() -> list[str]:
    """Return the objectives that assign boxes to predictions."""
    return [spec.name for spec in OBJECTIVES.values() if spec.task == "detection"]


def inspect_data(
    data: Annotated[
        str,
        typer.Option(
            help="`digits`, the built-in set, an annotation file in COCO's format, or a folder that holds them.",
        ),
    ] = "digits",
    objective: Annotated[str, typer.Option(help=f"Whose assigner decides: {listed(_inspected())}.")] = "fcos",
    split: Annotated[str, typer.Option(help="Of a folder, the file to look at, without .json.")] = "train",
    image_size: Annotated[
        int | None,
        typer.Option(help="Longest side of an image; larger images are made smaller.", show_default="as in compare"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report.", show_default="runs/inspect-DATA-OBJECTIVE")
    ] = None,
) -> None:
    """Say who answers for whom before anything is trained: which objects get positives, and which get none.

    The objective's own assigner decides, on the outputs that its untrained network gives for blank images. Where it
    looks at predictions the report says so.

    For example:

    `lossatlas inspect --data cells --objective retinanet`

    `lossatlas inspect --data cells/val.json --objective atss --image-size 512`
    """
    from lossatlas.lab.data import DataError, load_training_images
    from lossatlas.lab.inspection.report import NUMBERS_FILE, show_survey, write_inspection
    from lossatlas.lab.inspection.survey import survey

    with plain_errors():
        find_objective(objective)
        if objective not in _inspected():
            raise ArgumentError(f"objective {objective!r} assigns no boxes; valid: {', '.join(_inspected())}")
        if image_size is not None and image_size < 1:
            raise ArgumentError(f"--image-size must be at least 1, but got {image_size}")
        try:
            images = load_training_images(data, split)
        except DataError:
            raise
        except ValueError as error:
            raise ArgumentError(str(error)) from error
        progress = Console(stderr=True)
        with progress.status("") as status:
            found = survey(
                objective,
                images,
                image_size=image_size,
                on_progress=lambda share: status.update(f"{share:.0%} of the images"),
            )
        folder = out or Path("runs") / f"inspect-{Path(images.name).stem}-{objective}"
        # First, since whoever reads the output may stop in the middle of it.
        page = write_inspection(found, images, folder, shlex.join(["lossatlas", *sys.argv[1:]]))
        show_survey(found, Console())
        typer.echo(f"\nreport:  {page}\nnumbers: {folder / NUMBERS_FILE}")
