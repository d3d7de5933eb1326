"""The ``lossatlas`` command: ``compare``, ``inspect``, ``report``, ``ls``, ``show``, ``simulate`` and ``env``."""

import ast
import contextlib
import inspect
import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from lossatlas._version import __version__
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.loss_specs import parse_loss
from lossatlas.lab.plan import TRIAL_SETTINGS
from lossatlas.lab.registry import OBJECTIVES, find_objective
from lossatlas.lab.tasks import DEFAULT_TASK, TASKS
from lossatlas.lab.variants import simulated_losses
from lossatlas.losses.catalog import CATALOG, LossEntry

BAD_ARGUMENTS, FAILED_TRIALS, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="lossatlas",
    help="Loss functions for detection: which one is better on your data, and is the difference real?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Loss functions for detection: which one is better on your data, and is the difference real?"""


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one message and an exit status."""
    from lossatlas.lab.data import DataError

    try:
        yield
    except (ArgumentError, DataError) as error:
        _complain(str(error))
        raise typer.Exit(BAD_ARGUMENTS) from error
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _complain(f"{error.strerror or error}{where}")
        raise typer.Exit(FAILED_TRIALS) from error


def _complain(text: str) -> None:
    Console(stderr=True).print(f"Error: {text}", markup=False, highlight=False, soft_wrap=True)


def _setting(name: str, text: str, *flags: str, default: str = "") -> Any:
    """Return the flag of a setting of training; where it is not given the setting keeps its default."""
    shown = default or str(TRIAL_SETTINGS[name].default)
    return typer.Option(*flags, help=text, show_default=shown, rich_help_panel="Settings of training")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _by_task() -> str:
    """Return the objectives of every task, the default of the task first."""
    found = []
    for task in TASKS.values():
        names = [spec.name for spec in OBJECTIVES.values() if spec.task == task.name]
        found.append(f"for {task.name} {_listed(sorted(names, key=lambda name: name != task.objective))}")
    return "; ".join(found)


def _inspected() -> list[str]:
    """Return the objectives that assign boxes to predictions."""
    return [spec.name for spec in OBJECTIVES.values() if spec.task == "detection"]


@app.command()
def compare(
    data: Annotated[
        str | None,
        typer.Option(
            help="The name of the task's built-in set; or a folder with train.json and test.json (or val.json) in "
            "COCO's format beside its images; or for detection one in YOLO's format, for segmentation one with "
            "images beside masks or instances, and for pose one with keypoints in COCO's format.",
            show_default="digits, for pose figures",
            rich_help_panel="Data",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="COCO JSON of the images to train on, instead of --data.", rich_help_panel="Data"),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="COCO JSON of the images to score on, with --train.", rich_help_panel="Data")
    ] = None,
    compose: Annotated[
        str | None,
        typer.Option(
            help="For pose, if images show one animal each in front of black: put several together to a scene, turned "
            "and placed at random.",
            metavar="N-M",
            show_default=False,
            rich_help_panel="Data",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help=f"{_listed(TASKS)}.", show_default=f"that of the objective, or {DEFAULT_TASK}"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help=f"What the losses are part of: {_by_task()}.", show_default="the first of the task"),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Losses of one slot, such as `box` or `cls` of detectors; the first is the baseline. Options in "
            "brackets. Given for two slots, every combination is trained. Without it the objective's own losses are. A "
            "name that does not fit gives an error with all that do.",
            metavar="SLOT=LOSS,LOSS",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant; 3 or more give intervals worth reading.")] = 3,
    minutes: Annotated[
        float | None, typer.Option(help="Training time of one trial, without scoring.", show_default="4")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of one trial, instead of --minutes.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the results. One that holds this comparison already is continued.")
    ] = Path("runs/compare"),
    batch_size: Annotated[int | None, _setting("batch_size", "Images of a step.")] = None,
    image_size: Annotated[
        int | None, _setting("image_size", "Longest side of an image; larger images are made smaller.")
    ] = None,
    learning_rate: Annotated[float | None, _setting("learning_rate", "Highest learning rate of AdamW.")] = None,
    weight_decay: Annotated[float | None, _setting("weight_decay", "Weight decay of AdamW.")] = None,
    warmup: Annotated[float | None, _setting("warmup", "Part of the steps in which the learning rate rises.")] = None,
    clip_norm: Annotated[float | None, _setting("clip_norm", "Longest gradient.")] = None,
    ema_decay: Annotated[
        float | None, _setting("ema_decay", "Decay of the averaged weights, which are scored.")
    ] = None,
    scale_jitter: Annotated[float | None, _setting("scale_jitter", "Images are zoomed by up to this part.")] = None,
    color_jitter: Annotated[
        float | None, _setting("color_jitter", "Brightness and contrast change by up to this part.")
    ] = None,
    horizontal_flip: Annotated[
        bool | None,
        _setting(
            "horizontal_flip",
            "Mirror half of the images.",
            "--horizontal-flip/--no-horizontal-flip",
            default="yes, but for digits",
        ),
    ] = None,
    rotation: Annotated[
        float | None, _setting("rotation", "Images are turned by up to so many degrees (pose).", default="30 for pose")
    ] = None,
    evaluations: Annotated[int | None, _setting("evaluations", "How often a trial is scored.")] = None,
    backend: Annotated[
        str | None, _setting("backend", "Library that computes AP: `faster-coco-eval` or `pycocotools`.")
    ] = None,
    accelerator: Annotated[
        str | None, _setting("accelerator", "Device to train on: `cpu`, `cuda`, `mps` or `auto`.")
    ] = None,
) -> None:
    """Train several losses with several seeds and say which is better.

    For each seed every variant starts from the same weights and sees the same images, so that differences are paired.
    Killed at any moment and started again with the same command, a comparison goes on where it was; with more --seeds
    or more losses it is extended.

    For example:

    `lossatlas compare --vary box=giou,ciou --minutes 1`

    `lossatlas compare --data cells --vary "box=giou,focal_eiou(gamma=0.5)" --seeds 5 --out runs/cells`

    `lossatlas compare --train a.json --test b.json --objective retinanet --vary cls=sigmoid_focal,quality_focal`

    Exit status: 0 when all trials finished, 1 when some failed, 2 for bad arguments or data.
    """
    given = locals()  # every flag among the settings has the name of its setting
    settings = {name: given[name] for name in TRIAL_SETTINGS if given[name] is not None}
    with _plain_errors():
        _compare(
            out,
            data=data,
            train=train,
            test=test,
            compose=compose,
            task=task,
            objective=objective,
            vary=vary or (),
            seeds=seeds,
            minutes=minutes,
            steps=steps,
            recipe=settings,
        )


def _compare(out: Path, **arguments: Any) -> None:
    from lossatlas.lab.comparison import compare as run
    from lossatlas.lab.plan import SUMMARY_FILE
    from lossatlas.lab.progress import show_summary, teller
    from lossatlas.lab.report import REPORT_FILE

    console = Console()
    try:
        with teller(console) as listener:
            summary = run(out=out, listener=listener, **arguments)
    except KeyboardInterrupt as error:
        command = shlex.join(["lossatlas", *sys.argv[1:]])
        _complain(f"stopped. Nothing finished is lost; the same command goes on from here:\n  {command}")
        raise typer.Exit(INTERRUPTED) from error
    show_summary(summary, console)
    typer.echo(f"\nreport:  {out / REPORT_FILE}\nnumbers: {out / SUMMARY_FILE}")
    if summary.failed:
        raise typer.Exit(FAILED_TRIALS)


@app.command(name="inspect")
def inspect_data(
    data: Annotated[
        str,
        typer.Option(
            help="`digits`, the built-in set, an annotation file in COCO's format, or a folder that holds them.",
        ),
    ] = "digits",
    objective: Annotated[str, typer.Option(help=f"Whose assigner decides: {_listed(_inspected())}.")] = "fcos",
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

    with _plain_errors():
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
        show_survey(found, Console())
        folder = out or Path("runs") / f"inspect-{Path(images.name).stem}-{objective}"
        page = write_inspection(found, images, folder, shlex.join(["lossatlas", *sys.argv[1:]]))
        typer.echo(f"\nreport:  {page}\nnumbers: {folder / NUMBERS_FILE}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison, finished or not.", metavar="DIR")],
) -> None:
    """Write the report of a comparison again, from what its folder holds.

    Example: `lossatlas report runs/compare`
    """
    with _plain_errors():
        from lossatlas.lab.report import write_report

        typer.echo(write_report(folder))


@app.command(name="ls")
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
        _heading(console, family)
        for entry in (entry for entry in CATALOG.values() if entry.family == family):
            console.print(Padding(Text.assemble((entry.name, "cyan"), "  ", entry.summary), (0, 0, 0, 2)))
            console.print(Padding(Text(entry.reference, style="dim"), (0, 0, 0, 4)))


def _list_objectives(console: Console) -> None:
    if not console.is_terminal:
        for spec in OBJECTIVES.values():
            typer.echo(f"{spec.task:<16}{spec.name:<24}{spec.description}  [{', '.join(spec.slots)}]")
        return
    for task in TASKS.values():
        _heading(console, task.name)
        for spec in (spec for spec in OBJECTIVES.values() if spec.task == task.name):
            console.print(Padding(Text.assemble((spec.name, "cyan"), "  ", spec.description), (0, 0, 0, 2)))
            console.print(Padding(Text(f"slots: {', '.join(spec.slots)}", style="dim"), (0, 0, 0, 4)))


@app.command()
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

    with _plain_errors():
        spec = parse_loss(name)
        _describe(spec.entry, Console())
        if plot:
            typer.echo(f"\nplot: {plot_loss(spec, out or Path(f'{spec.short_name}.png'))}")


@app.command()
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

    with _plain_errors():
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


@app.command()
def env() -> None:
    """Print what computes here: versions, processor, threads, and whether the fused kernels are used."""
    import platform

    import torch

    from lossatlas import kernels

    status = kernels.status()
    instead = f"PyTorch only: the kernels are {status.reason}"
    lines = {
        "lossatlas": __version__,
        "torch": torch.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "cuda": torch.version.cuda if torch.cuda.is_available() else "none",
        "losses": f"fused kernels ({status.instruction_set}) on the CPU" if status.kernels else instead,
        "threads": str(status.threads),
    }
    for name, value in lines.items():
        typer.echo(f"{name:10} {value}")


def _describe(entry: LossEntry, console: Console) -> None:
    function = inspect.unwrap(entry.function)
    path, line = inspect.getsourcefile(function), inspect.getsourcelines(function)[1]
    _heading(console, f"{entry.name}  -  {entry.module.__name__}, {entry.family}")
    _text(console, entry.summary)
    for title, text in (
        ("Formula", entry.formula),
        ("Arguments", entry.section("Args")),
        ("Returns", entry.section("Returns")),
        ("Note", entry.section("Note")),
        ("Reference", entry.reference),
    ):
        if text:
            _heading(console, title)
            _text(console, textwrap.indent(text, "  "))
    _heading(console, "Source")
    _text(console, f"  {path}, line {line}")
    _code(console, textwrap.indent(source_code(entry), "  "))


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


def _heading(console: Console, text: str) -> None:
    console.print(f"\n{text}", style="bold", markup=False, highlight=False)


def _text(console: Console, text: str) -> None:
    console.print(text.replace("``", ""), markup=False, highlight=False, soft_wrap=True)


def _code(console: Console, text: str) -> None:
    if console.is_terminal:
        console.print(Syntax(text, "python", background_color="default"))
    else:
        _text(console, text)
