"""Entry point of the ``lossatlas`` command, which says what to install where the libraries of the lab are missing."""

import os
import sys

LAB_LIBRARIES = frozenset(
    {
        "PIL",
        "faster_coco_eval",
        "jinja2",
        "lightning_fabric",
        "lightning_utilities",
        "markupsafe",
        "matplotlib",
        "numpy",
        "rich",
        "scipy",
        "sklearn",
        "torchvision",
        "typer",
        "yaml",
    }
)


def main() -> None:
    """Run the command with the arguments of the process."""
    # PyTorch's threads wait for each other by spinning for milliseconds, which takes the cores from one another as soon
    # as anything else runs; some microseconds cost an idle machine nothing. GNU's OpenMP reads this as it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        from lossatlas.lab.commands import app

        app(prog_name="lossatlas")
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in LAB_LIBRARIES:
            raise
        sys.stderr.write(
            f"The lossatlas command needs {library}, which is not installed. Install what the command needs with\n\n"
            '    pip install "lossatlas[lab]"\n\n'
            "The losses themselves work without it: import lossatlas.losses.\n"
        )
        sys.exit(1)
