"""Comparisons: every variant trained with every seed, resumable at any moment.

A comparison is a folder. ``comparison.json`` says what is compared and is written before the first step of training;
every trial has a folder of its own below ``trials``. Started again with the same arguments, a comparison skips what is
finished, continues what is not and tries again what failed. More seeds, or more variants behind the same first one,
extend it; anything else that differs is refused, because its trials could not be compared.

Trials run seed by seed, so that a difference to the first variant is known as early as possible.
"""

import contextlib
import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lossatlas.lab.data import Data, describe
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.files import write_json
from lossatlas.lab.plan import (
    ERROR_FILE,
    PLAN_FILE,
    SUMMARY_FILE,
    TRIAL_SETTINGS,
    Plan,
    Source,
    command_line,
    read_plan,
    read_trial,
    read_trials,
    refuse_differences,
    versions,
)
from lossatlas.lab.registry import find_objective
from lossatlas.lab.report import write_report
from lossatlas.lab.summary import Summary, Trial
from lossatlas.lab.tasks import Task, choose_objective, default_recipe, task_of
from lossatlas.lab.training import calibrate_steps, run_trial
from lossatlas.lab.trial import Event, TrialConfig
from lossatlas.lab.variants import Variant, folder_name, parse_variants

DEFAULT_SEEDS = 3
DEFAULT_MINUTES = 4.0


class Listener:
    """Is told how a comparison gets on; this one tells nobody."""

    def planned(self, plan: Plan, out: Path, done: int) -> None:
        """Training is about to start; `done` trials are finished already."""

    def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
        """Trial `number`, counted from 1 over the whole comparison, starts or continues."""

    def trained(self, event: Event) -> None:
        """The running trial has something to tell."""

    def trial_ended(self, trial: Trial) -> None:
        """The running trial is finished or has failed."""

    def message(self, text: str) -> None:
        """Something that needs no answer."""


@dataclass(frozen=True)
class Trainer:
    """The functions that a comparison trains with.

    Args:
        run: trains one trial in its folder, from its checkpoint if there is one, and leaves ``result.json`` there.
        calibrate: returns how many steps a trial makes in so many minutes on this machine.
        load: reads the data for a task.
    """

    run: Callable[..., object] = run_trial
    calibrate: Callable[[TrialConfig, Data[Any], float], int] = calibrate_steps
    load: Callable[[Source, Task], Data[Any]] = Source.load


def compare(
    data: str | Path | None = None,
    *,
    out: str | Path,
    task: str | None = None,
    objective: str | None = None,
    vary: Sequence[str] = (),
    seeds: int = DEFAULT_SEEDS,
    minutes: float | None = None,
    steps: int | None = None,
    train: str | Path | None = None,
    test: str | Path | None = None,
    compose: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    trainer: Trainer | None = None,
) -> Summary:
    """Train every variant with every seed and say which is better.

    Args:
        data: name of the task's built-in data set, or a path that the task can read, such as a folder with
            ``train.json`` and ``test.json`` or ``val.json`` in COCO's format beside its images; None means the built-in
            set unless `train` and `test` are given.
        out: folder of the comparison. If it holds one with the same arguments, that one is continued.
        task: ``"detection"`` by default, or that of the objective.
        objective: its name in `lossatlas.lab.registry`; that of the task by default.
        vary: texts such as ``"box=giou,ciou"``, one for each slot; several give every combination. The first variant
            is the baseline. Without them the objective's own losses are trained.
        seeds: number of seeds; differences are paired by seed.
        minutes: training time of one trial, 4 by default. It is turned into steps once, by measuring this machine, so
            that every trial makes the same number of steps.
        steps: steps of one trial, instead of `minutes`.
        train: COCO JSON of the images to train on, instead of `data`.
        test: COCO JSON of the images to score on.
        compose: for pose, how many images that show one animal each in front of black are put together to one, such
            as ``"2-4"``.
        recipe: settings of training by their names in `TrialConfig`, where they shall differ from the defaults.
        listener: is told how it gets on.
        trainer: what trains, if not lossatlas itself.

    Returns:
        What was found; the same is in ``summary.json`` and ``report.html`` of the folder.

    Raises:
        ArgumentError: an argument that cannot be used, or a folder that holds another comparison.
        DataError: data that cannot be trained on.
    """
    out, listener, trainer = Path(out), listener or Listener(), trainer or Trainer()
    objective = choose_objective(task, objective)
    variants = parse_variants(vary, objective)
    recipe = _check_settings(objective, seeds, minutes, steps, recipe or {})
    source = _source(data, train, test, compose, task_of(objective))
    loaded = find_objective(objective).see(trainer.load(source, task_of(objective)))
    wanted = Plan(
        data=loaded.name,
        source=source,
        fingerprint=loaded.fingerprint,
        objective=objective,
        variants=variants,
        folders={},
        seeds=tuple(range(seeds)),
        minutes=(minutes or DEFAULT_MINUTES) if steps is None else None,
        steps=steps or 0,
        recipe=recipe,
        versions=versions(),
        command="",
    )
    if loaded.warnings:
        listener.message(f"Warnings about the data:\n{describe(loaded.warnings)}")
    with _only_one(out):
        plan = _settle(wanted, out, loaded, listener, trainer)
        summary = _run(plan, out, loaded, listener, trainer)
        write_report(out, loaded)
    return summary


def _check_settings(
    objective: str, seeds: int, minutes: float | None, steps: int | None, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Check the numbers of a comparison and return the settings that differ from the defaults."""
    if seeds < 1:
        raise ArgumentError(f"the number of seeds must be at least 1, but got {seeds}")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ArgumentError(f"the minutes of a trial must be above 0, but got {minutes:g}")
    if steps is not None and steps < 1:
        raise ArgumentError(f"the steps of a trial must be at least 1, but got {steps}")
    defaults: dict[str, Any] = {name: field.default for name, field in TRIAL_SETTINGS.items()} | default_recipe(
        objective
    )
    for name in recipe:
        if name not in defaults:
            raise ArgumentError(f"unknown setting of training {name!r}; valid: {', '.join(defaults)}")
    if recipe.get("rotation") and not task_of(objective).turns:
        raise ArgumentError(f"setting of training: rotation is not for {task_of(objective).name}, only for pose")
    try:
        TrialConfig(objective=objective, losses={}, seed=0, steps=1, **(defaults | dict(recipe)))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"setting of training: {error}") from error
    return {name: value for name, value in recipe.items() if value != defaults[name]}


def _source(
    data: str | Path | None, train: str | Path | None, test: str | Path | None, compose: str | None, task: Task
) -> Source:
    if (train is None) != (test is None):
        raise ArgumentError("--train and --test go together: give the JSON file of both, or a folder with --data")
    if train is not None and test is not None:
        if data is not None:
            raise ArgumentError("give either --data, or --train and --test")
        return Source(None, str(train), str(test), compose)
    return Source(task.builtin if data is None else str(data), compose=compose)


def _settle(wanted: Plan, out: Path, data: Data[Any], listener: Listener, trainer: Trainer) -> Plan:
    """Return the plan to follow, written to the folder: a new one, or the stored one with what extends it."""
    if (out / PLAN_FILE).exists():
        stored = read_plan(out)
        refuse_differences(wanted, stored, out)
        minutes, steps, folders = stored.minutes, stored.steps, dict(stored.folders)
    elif (out / "trials").exists():
        raise ArgumentError(f"{out} holds trials but no {PLAN_FILE}, so it cannot be continued: choose another --out")
    else:
        minutes, steps, folders = wanted.minutes, wanted.steps, {}
        if minutes is not None:
            listener.message(f"Measuring how many steps this machine trains in {minutes:g} minutes ...")
            steps = trainer.calibrate(replace(wanted, steps=1).config(wanted.variants[0], 0), data, minutes)
    for variant in wanted.variants:
        if variant.name not in folders:
            folders[variant.name] = folder_name(variant.name, set(folders.values()))
    plan = replace(wanted, minutes=minutes, steps=steps, folders=folders)
    plan = replace(plan, command=command_line(plan, out))
    write_json(out / PLAN_FILE, asdict(plan))
    return plan


def _run(plan: Plan, out: Path, data: Data[Any], listener: Listener, trainer: Trainer) -> Summary:
    trials = {(trial.variant, trial.seed): trial for trial in read_trials(plan, out)}
    done = sum(trial.metrics is not None for trial in trials.values())
    listener.planned(plan, out, done)
    summary = plan.summarize(list(trials.values()))
    for number, (variant, seed) in enumerate(plan.trials(), start=1):
        if trials[variant.name, seed].metrics is None:
            folder = plan.folder(out, variant, seed)
            listener.trial_started(number, variant.name, seed, resumed=(folder / "checkpoint.pt").exists())
            trials[variant.name, seed] = _run_trial(plan, variant, seed, folder, data, listener, trainer)
            listener.trial_ended(trials[variant.name, seed])
            summary = plan.summarize(list(trials.values()))
            write_json(out / SUMMARY_FILE, summary.to_json())
    write_json(out / SUMMARY_FILE, summary.to_json())
    return summary


def _run_trial(
    plan: Plan, variant: Variant, seed: int, folder: Path, data: Data[Any], listener: Listener, trainer: Trainer
) -> Trial:
    """Train one trial; what it raises is written down in its folder, and the others go on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        trainer.run(plan.config(variant, seed), data, folder, on_event=listener.trained)
    except BrokenPipeError:  # nobody reads our output any more: no fault of the trial
        raise
    except Exception as error:
        content = {"error": _describe(error), "kind": type(error).__name__, "traceback": traceback.format_exc()}
        write_json(folder / ERROR_FILE, content)
    return read_trial(folder, variant.name, seed)


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


@contextlib.contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Make the folder of a comparison and hold it, so that no second process trains in it.

    A process that is killed lets go of it.
    """
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"--out must be a folder, but {out} is a file")
    out.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArgumentError(f"another process is running the comparison in {out}") from error
        yield
