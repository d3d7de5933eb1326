"""``lossatlas compare`` and ``lossatlas report``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lossatlas.lab.commands.app import FAILED_TRIALS, INTERRUPTED, complain, listed, plain_errors
from lossatlas.lab.plan import TRIAL_SETTINGS
from lossatlas.lab.registry import OBJECTIVES
from lossatlas.lab.tasks import DEFAULT_TASK, TASKS


def _setting(name: str, text: str, *flags: str, default: str = "") -> Any:
    """Return the flag of a setting of training; where it is not given the setting keeps its default."""
    shown = default or str(TRIAL_SETTINGS[name].default)
    return typer.Option(*flags, help=text, show_default=shown, rich_help_panel="Settings of training")


def _by_task() -> str:
    """Return the objectives of every task, the default of the task first."""
    found = []
    for task in TASKS.values():
        names = [spec.name for spec in OBJECTIVES.values() if spec.task == task.name]
        found.append(f"for {task.name} {listed(sorted(names, key=lambda name: name != task.objective))}")
    return "; ".join(found)


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
        typer.Option(help=f"{listed(TASKS)}.", show_default=f"that of the objective, or {DEFAULT_TASK}"),
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
    with plain_errors():
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
        complain(f"stopped. Nothing finished is lost; the same command goes on from here:\n  {command}")
        raise typer.Exit(INTERRUPTED) from error
    show_summary(summary, console)
    typer.echo(f"\nreport:  {out / REPORT_FILE}\nnumbers: {out / SUMMARY_FILE}")
    if summary.failed:
        raise typer.Exit(FAILED_TRIALS)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison, finished or not.", metavar="DIR")],
) -> None:
    """Write the report of a comparison again, from what its folder holds.

    Example: `lossatlas report runs/compare`
    """
    with plain_errors():
        from lossatlas.lab.report import write_report

        typer.echo(write_report(folder))
