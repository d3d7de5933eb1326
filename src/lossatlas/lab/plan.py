"""What a comparison is about, and whether it may go on in a folder: the content of ``comparison.json``."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from lossatlas._version import __version__
from lossatlas.lab.data import Data, DataError
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.summary import Summary, Trial, finite_metrics, summarize
from lossatlas.lab.tasks import DEFAULT_TASK, Task, default_recipe, task_of
from lossatlas.lab.trial import TrialConfig
from lossatlas.lab.variants import Variant

PLAN_FILE = "comparison.json"
SUMMARY_FILE = "summary.json"
RESULT_FILE = "result.json"
ERROR_FILE = "error.json"

TRIAL_SETTINGS = {
    field.name: field for field in fields(TrialConfig) if field.name not in ("objective", "losses", "seed", "steps")
}
"""Settings of training that a comparison may change, the same for all its trials."""


@dataclass(frozen=True)
class Source:
    """Where the data of a comparison comes from.

    Args:
        data: name of the task's built-in data set or a path; None with `train` and `test`.
        train: file of the images to train on.
        test: file of the images to score on.
        compose: how many images are put together to one, such as ``"2-4"``; None for images as they are.
    """

    data: str | None
    train: str | None = None
    test: str | None = None
    compose: str | None = None

    def load(self, task: Task) -> Data[Any]:
        """Read the data for a task.

        Raises:
            ArgumentError: no data there.
            DataError: data that cannot be trained on.
        """
        try:
            data = task.load(self.data, train=self.train, test=self.test)
            return data if self.compose is None else task.compose(data, read_range(self.compose))
        except DataError:
            raise
        except ValueError as error:
            raise ArgumentError(str(error)) from error


def read_range(text: str) -> tuple[int, int]:
    """Read a range of whole numbers.

    Raises:
        ValueError: text that is none.

    Example:
        >>> read_range("2-4"), read_range("3")
        ((2, 4), (3, 3))
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if found is None:
        raise ValueError(f"compose: expected a number or a range such as 2-4, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


@dataclass(frozen=True)
class Plan:
    """What a comparison is about, as ``comparison.json`` holds it.

    Args:
        data: name of the data set.
        source: where it comes from.
        fingerprint: hash of its content.
        objective: name of the objective.
        variants: what is compared, the baseline first.
        folders: name of the folder of each variant's trials.
        seeds: the seeds that every variant is trained with.
        minutes: training time that the steps were measured for; None if the steps were given.
        steps: optimiser steps of every trial.
        recipe: the settings of training that differ from the defaults.
        versions: of the software that trains.
        command: the command that this comparison was last started with.
    """

    data: str
    source: Source
    fingerprint: str
    objective: str
    variants: tuple[Variant, ...]
    folders: Mapping[str, str]
    seeds: tuple[int, ...]
    minutes: float | None
    steps: int
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str

    @property
    def task(self) -> Task:
        """The task of the objective."""
        return task_of(self.objective)

    def trials(self) -> Iterator[tuple[Variant, int]]:
        """Yield every variant with every seed in the order in which they are trained."""
        for seed in self.seeds:
            for variant in self.variants:
                yield variant, seed

    def config(self, variant: Variant, seed: int) -> TrialConfig:
        """Return what one trial is trained with."""
        recipe = default_recipe(self.objective) | dict(self.recipe)
        return TrialConfig(objective=self.objective, losses=dict(variant.losses), seed=seed, steps=self.steps, **recipe)

    def folder(self, out: Path, variant: Variant, seed: int) -> Path:
        """Return the folder of one trial below the folder of the comparison."""
        return out / "trials" / self.folders[variant.name] / f"seed{seed}"

    def summarize(self, trials: Sequence[Trial]) -> Summary:
        """Return what the trials show so far."""
        return summarize(
            trials,
            {variant.name: variant.losses for variant in self.variants},
            task=self.task.name,
            metrics=self.task.metrics,
            data=self.data,
            objective=self.objective,
            seeds=self.seeds,
            steps=self.steps,
            versions=self.versions,
        )


def read_plan(out: Path) -> Plan:
    """Read the plan of a comparison from its folder.

    Args:
        out: folder of the comparison.

    Returns:
        The plan.

    Raises:
        ArgumentError: a folder without a comparison, or one that cannot be read.
    """
    path = out / PLAN_FILE
    try:
        content = json.loads(path.read_text())
        content["source"] = Source(**content["source"])
        content["variants"] = tuple(Variant(**variant) for variant in content["variants"])
        content["seeds"] = tuple(content["seeds"])
        return Plan(**content)
    except FileNotFoundError as error:
        raise ArgumentError(f"{out} holds no comparison: there is no {PLAN_FILE}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from error


def read_trials(plan: Plan, out: Path) -> list[Trial]:
    """Read what is known of every trial of a comparison from its folder.

    Args:
        plan: of the comparison.
        out: its folder.

    Returns:
        One for each trial, in the order in which they are trained.
    """
    return [read_trial(plan.folder(out, variant, seed), variant.name, seed) for variant, seed in plan.trials()]


def read_trial(folder: Path, variant: str, seed: int) -> Trial:
    """Read what is known of one trial from its folder."""
    result = _read_json(folder / RESULT_FILE)
    if result is not None:
        return Trial(variant, seed, finite_metrics(result["metrics"]), float(result["seconds"]))
    error = _read_json(folder / ERROR_FILE)
    return Trial(variant, seed, error=None if error is None else str(error["error"]))


def command_line(plan: Plan, out: Path) -> str:
    """Return the command that starts or continues a comparison."""
    words = ["lossatlas", "compare"]
    if plan.source.data is not None:
        words += ["--data", plan.source.data]
    else:
        words += ["--train", str(plan.source.train), "--test", str(plan.source.test)]
    if plan.source.compose is not None:
        words += ["--compose", plan.source.compose]
    if plan.task.name != DEFAULT_TASK:
        words += ["--task", plan.task.name]
    words += ["--objective", plan.objective]
    slots: dict[str, dict[str, None]] = {}
    for variant in plan.variants:
        for slot, loss in variant.losses.items():
            slots.setdefault(slot, {})[loss] = None
    for slot, losses in slots.items():
        words += ["--vary", f"{slot}={','.join(losses)}"]
    words += ["--seeds", str(len(plan.seeds))]
    words += ["--steps", str(plan.steps)] if plan.minutes is None else ["--minutes", f"{plan.minutes:g}"]
    for name, value in plan.recipe.items():
        flag = name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return shlex.join([*words, "--out", str(out)])


def refuse_differences(wanted: Plan, stored: Plan, out: Path) -> None:
    """Raise unless the trials of the wanted plan can be compared with those of the stored one."""
    found = [
        f"{name}: {old} there, {new} now"
        for name, old, new in (
            ("data", *_contents(stored, wanted)),
            ("objective", stored.objective, wanted.objective),
            ("training time", *_lengths(stored, wanted)),
            ("settings of training", dict(stored.recipe) or "defaults", dict(wanted.recipe) or "defaults"),
            ("versions", _written(stored.versions), _written(wanted.versions)),
        )
        if old != new
    ]
    names = {variant.name for variant in wanted.variants}
    missing = [variant.name for variant in stored.variants if variant.name not in names]
    if missing:
        found.append(f"variants: {', '.join(missing)} there, not now")
    elif stored.variants[0] != wanted.variants[0]:
        found.append(f"first variant: {stored.variants[0].name} there, {wanted.variants[0].name} now")
    if len(wanted.seeds) < len(stored.seeds):
        found.append(f"seeds: {len(stored.seeds)} there, {len(wanted.seeds)} now")
    if found:
        raise ArgumentError(
            f"{out} holds another comparison, which this one cannot continue.\n"
            + "\n".join(f"  {difference}" for difference in found)
            + "\nOnly seeds and variants may be added. Choose another --out, or the arguments of the one there:\n  "
            + stored.command
        )


def _contents(stored: Plan, wanted: Plan) -> tuple[str, str]:
    if stored.fingerprint == wanted.fingerprint:  # the same data may have moved
        return "", ""
    return f"{stored.data} ({stored.fingerprint[:12]})", f"{wanted.data} ({wanted.fingerprint[:12]})"


def _lengths(stored: Plan, wanted: Plan) -> tuple[str, str]:
    if wanted.minutes is None:  # so many steps are as good as the minutes that were measured to give them
        return f"{stored.steps} steps", f"{wanted.steps} steps"
    old = f"{stored.steps} steps" if stored.minutes is None else f"{stored.minutes:g} minutes"
    return old, f"{wanted.minutes:g} minutes"


def _written(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def versions() -> dict[str, str]:
    """Return the versions of what decides how a trial trains."""
    return {"lossatlas": __version__, "torch": str(torch.__version__)}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content
