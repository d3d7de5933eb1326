"""``lossatlas ls``, ``lossatlas show`` and ``lossatlas simulate``."""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lossatlas.lab.commands.app import heading, plain_errors, write, write_code
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.loss_specs import parse_loss
from lossatlas.losses.catalog import CATALOG, LossEntry


def list_losses(
    objectives: Annotated[
        bool, typer.Option("--objectives", help="List the objectives that can be trained, with the slots of each.")
    ] = False,
) -> None:
    """List every loss: family, name, what it is, and the paper."""
    console = Console()
    if objectives:
        _list_objectives(console)
        return
    if not console.is_terminal:
        for entry in CATALOG.values():
            typer.echo(f"{entry.family:<16}{entry.name:<44}{entry.summary}  [{entry.reference}]")
        return
    for family in dict.fromkeys(entry.family for entry in CATALOG.values()):
        heading(console, family)
        for entry in (entry for entry in CATALOG.values() if entry.family == family):
            console.print(Padding(Text.assemble((entry.name, "cyan"), "  ", entry.summary), (0, 0, 0, 2)))
            console.print(Padding(Text(entry.reference, style="dim"), (0, 0, 0, 4)))


def _list_objectives(console: Console) -> None:
    from lossatlas.lab.registry import OBJECTIVES
    from lossatlas.lab.tasks import TASKS

    if not console.is_terminal:
        for spec in OBJECTIVES.values():
            typer.echo(f"{spec.task:<16}{spec.name:<24}{spec.description}  [{', '.join(spec.slots)}]")
        return
    for task in TASKS.values():
        heading(console, task.name)
        for spec in (spec for spec in OBJECTIVES.values() if spec.task == task.name):
            console.print(Padding(Text.assemble((spec.name, "cyan"), "  ", spec.description), (0, 0, 0, 2)))
            console.print(Padding(Text(f"slots: {', '.join(spec.slots)}", style="dim"), (0, 0, 0, 4)))


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A loss, such as `giou`, `GIoULoss` or `focal_eiou(gamma=1.0)`; `lossatlas ls` lists them.",
            metavar="LOSS",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="File for the plot of value and gradient: .png, .svg or .pdf.", show_default="LOSS.png"),
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw the plot.")] = True,
) -> None:
    """Show a loss: formula, arguments, source, and a plot of its value and gradient.

    For example:

    `lossatlas show giou`

    `lossatlas show "focal_eiou(gamma=1.0)" --out focal_eiou.svg`
    """
    from lossatlas.lab.plots import plot_loss

    with plain_errors():
        spec = parse_loss(name)
        _describe(spec.entry, Console())
        if plot:
            typer.echo(f"\nplot: {plot_loss(spec, out or Path(f'{spec.short_name}.png'))}")


def _describe(entry: LossEntry, console: Console) -> None:
    function = inspect.unwrap(entry.function)
    path, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    heading(console, f"{entry.name}  -  {entry.module.__name__}, {entry.family}")
    write(console, entry.summary)
    for title, text in (
        ("Formula", entry.formula),
        ("Arguments", entry.section("Args")),
        ("Returns", entry.section("Returns")),
        ("Note", entry.section("Note")),
        ("Reference", entry.reference),
    ):
        if text:
            heading(console, title)
            write(console, textwrap.indent(text, "  "))
    heading(console, "Source")
    write(console, f"  {path}, line {line}")
    write_code(console, textwrap.indent(source_code(entry), "  "))


def source_code(entry: LossEntry) -> str:
    """Return the source of a loss without its docstring.

    Example:
        >>> print(source_code(CATALOG["giou_loss"]).splitlines()[0])
        def giou_loss(
    """
    lines = inspect.getsource(entry.function).splitlines()
    function = ast.parse("\n".join(lines)).body[0]
    assert isinstance(function, ast.FunctionDef)
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join(lines)


def simulate(
    losses: Annotated[
        str,
        typer.Option(
            help="Box losses, separated by commas, with options in brackets; `iou` is 1 - IoU.", metavar="LOSS,LOSS"
        ),
    ] = "iou,giou,diou,ciou",
    gradient: Annotated[
        str,
        typer.Option(
            help="`exact`: boxes follow the gradient of the loss. `reference`: they follow the published code, which "
            "is not that gradient; for iou, giou, diou and ciou."
        ),
    ] = "exact",
    points: Annotated[int, typer.Option(help="Starting points; each stands for 343 cases.")] = 5000,
    iterations: Annotated[int, typer.Option(help="Steps of the descent.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the starting points.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="File for the figure.", show_default="simulation-GRADIENT.png")
    ] = None,
) -> None:
    """Let boxes descend box losses: the regression simulation of the DIoU paper, 1,715,000 cases.

    For example:

    `lossatlas simulate --gradient reference`

    `lossatlas simulate --losses "giou,siou,alpha_iou(alpha=3.0)" --points 500`
    """
    from lossatlas.lab.simulation import simulate as run
    from lossatlas.lab.simulation_report import plot_simulation, show_simulation
    from lossatlas.lab.variants import simulated_losses

    with plain_errors():
        specs = simulated_losses(losses)
        console = Console(stderr=True)
        try:
            with console.status("") as status:
                results = list(
                    run(
                        specs,
                        gradient=gradient,  # type: ignore[arg-type]  # an unknown one is an error of its own
                        points=points,
                        iterations=iterations,
                        seed=seed,
                        on_progress=lambda name, share: status.update(f"{name}: {share:.0%} of the cases"),
                    )
                )
        except ValueError as error:
            raise ArgumentError(str(error)) from error
        show_simulation(results, Console())
        title = f"{points * 343:,} cases, {gradient} gradient"
        typer.echo(f"figure: {plot_simulation(results, title, out or Path(f'simulation-{gradient}.png'))}")
