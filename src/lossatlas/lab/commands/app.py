"""The command itself, and what its parts share: errors of the user, and how text is printed."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from typer.core import TyperCommand

from lossatlas._version import __version__
from lossatlas.lab.errors import ArgumentError

BAD_ARGUMENTS, FAILED_TRIALS, INTERRUPTED = 2, 1, 130

_LOOK: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(
    name="lossatlas",
    help="Losses for detection, segmentation and pose: which one is better on your data, and is the difference real?",
    no_args_is_help=True,
    **_LOOK,
)

Load: TypeAlias = Callable[[], Callable[..., Any]]


class _Deferred(TyperCommand):
    """Stands for a command, with the first line of its help, until it is run or its help is shown.

    Its callback imports the function of the command.
    """

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command that this one stands for."""
        assert self.callback is not None
        single = typer.Typer(**_LOOK)
        single.command()(self.callback())
        return typer.main.get_command(single).make_context(info_name, args, parent, **extra)


def command(name: str) -> Callable[[Load], Load]:
    """Add a command whose function is what the decorated one returns, and whose summary is the latter's docstring."""
    return app.command(name, cls=_Deferred)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lossatlas {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Losses for detection, segmentation and pose: which one is better on your data, and is the difference real?"""


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one message and an exit status."""
    from lossatlas.lab.data import DataError

    try:
        yield
    except (ArgumentError, DataError) as error:
        complain(str(error))
        raise typer.Exit(BAD_ARGUMENTS) from error
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        complain(f"{error.strerror or error}{where}")
        raise typer.Exit(FAILED_TRIALS) from error


def complain(text: str) -> None:
    """Print an error."""
    Console(stderr=True).print(f"Error: {text}", markup=False, highlight=False, soft_wrap=True)


def listed(names: Iterable[str]) -> str:
    """Return names for the text of a help."""
    return ", ".join(f"`{name}`" for name in names)


def heading(console: Console, text: str) -> None:
    """Print the title of a part."""
    console.print(f"\n{text}", style="bold", markup=False, highlight=False)


def write(console: Console, text: str) -> None:
    """Print text as it is, without the marks of code in docstrings."""
    console.print(text.replace("``", ""), markup=False, highlight=False, soft_wrap=True)


def write_code(console: Console, text: str) -> None:
    """Print Python, in colours on a terminal."""
    if console.is_terminal:
        from rich.syntax import Syntax

        console.print(Syntax(text, "python", background_color="default"))
    else:
        write(console, text)
