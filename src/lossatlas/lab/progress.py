"""Tells how a comparison gets on: bars on a terminal, plain lines everywhere else."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lossatlas.lab.comparison import Listener
from lossatlas.lab.formatting import plain_table, plural
from lossatlas.lab.metrics import Metric
from lossatlas.lab.plan import Plan
from lossatlas.lab.summary import Summary, Trial, notes, table
from lossatlas.lab.trial import EvalEvent, Event, TrainEvent

NARROWEST_TABLE = 80
"""Columns of a terminal that the table needs; in a narrower one its lines are simply broken."""

LINE_SECONDS = 10.0
"""Least time between two plain lines about the loss."""


class Teller(Listener):
    """What both ways of telling share: where the comparison stands and how long it may still take.

    Args:
        console: where to write.
        clock: seconds that pass, for tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self._total = 0
        self._left = 0
        self._spent: list[float] = []
        self._started = 0.0
        self._label = ""
        self._metrics: Sequence[Metric] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def say(self, text: str) -> None:
        """Write a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def message(self, text: str) -> None:
        """Write a line."""
        self.say(text)

    def planned(self, plan: Plan, out: Path, done: int) -> None:
        """Say what is going to be trained."""
        self._total = len(plan.variants) * len(plan.seeds)
        self._left = self._total - done
        self._metrics = plan.task.metrics
        variants = ", ".join(variant.name for variant in plan.variants)
        self.say(f"Comparing {variants} of {plan.objective} on {plan.data} in {out}")
        trials = f"{plural(self._total, 'trial')} of {plan.steps} steps: "
        trials += f"{plural(len(plan.variants), 'variant')}, {plural(len(plan.seeds), 'seed')}"
        self.say(f"{trials}; {done} finished already." if done else f"{trials}.")

    def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
        """Remember when the trial started, and say that it goes on if it does."""
        self._started = self.clock()
        self._label = f"[{number}/{self._total}] {variant}, seed {seed}"
        if resumed:
            self.say(f"{self._label}: continues from its checkpoint")

    def trial_ended(self, trial: Trial) -> None:
        """Write the result of the trial and how long the others may take."""
        self._left -= 1
        self._spent.append(self.clock() - self._started)
        if trial.metrics is None:
            found = f"failed: {trial.error}"
        else:
            found = _scores(trial.metrics, self._metrics)
        rest = ""
        if self._left:
            rest = f"; about {duration(self._left * sum(self._spent) / len(self._spent))} to go"
        self.say(f"{self._label}: {found} ({duration(self._spent[-1])}){rest}")


class PlainTeller(Teller):
    """Lines for logs and pipes."""

    _last_line = 0.0

    def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
        """Write that a trial starts."""
        super().trial_started(number, variant, seed, resumed=resumed)
        self._last_line = self.clock()
        if not resumed:
            self.say(f"{self._label}: starts")

    def trained(self, event: Event) -> None:
        """Write a line now and then."""
        if isinstance(event, EvalEvent):
            if event.step < event.steps:  # the last one is the result
                self.say(f"{self._label}: step {event.step}/{event.steps}, {_scores(event.metrics, self._metrics[:2])}")
        elif isinstance(event, TrainEvent) and self.clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self.clock()
            self.say(f"{self._label}: step {event.step}/{event.steps}, loss {event.terms['total']:.3f}")


class TerminalTeller(Teller):
    """Bars: one for the comparison, one for the running trial."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[found]}", markup=False, style="dim"),
            console=console,
            transient=True,
        )
        self._all: TaskID | None = None
        self._trial: TaskID | None = None
        self._score = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self._progress.stop()

    def planned(self, plan: Plan, out: Path, done: int) -> None:
        """Show the bar of the comparison."""
        super().planned(plan, out, done)
        self._all = self._progress.add_task("all trials", total=self._total, completed=done, found="")

    def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
        """Show the bar of the trial."""
        super().trial_started(number, variant, seed, resumed=resumed)
        self._score = ""
        self._trial = self._progress.add_task(self._label, total=None, found="")

    def trained(self, event: Event) -> None:
        """Move the bar of the trial."""
        if self._trial is None:
            return
        loss = f"loss {event.terms['total']:.3f}" if isinstance(event, TrainEvent) else ""
        if isinstance(event, EvalEvent):
            self._score = _scores(event.metrics, self._metrics[:2])
        found = ", ".join(text for text in (loss, self._score) if text)
        self._progress.update(self._trial, total=event.steps, completed=event.step, found=found)

    def trial_ended(self, trial: Trial) -> None:
        """Replace the bar of the trial by its result."""
        if self._trial is not None:
            self._progress.remove_task(self._trial)
            self._trial = None
        super().trial_ended(trial)
        if self._all is not None:
            self._progress.advance(self._all)


def teller(console: Console) -> Teller:
    """Return the way of telling that suits a console."""
    return TerminalTeller(console) if console.is_terminal else PlainTeller(console)


def show_summary(summary: Summary, console: Console) -> None:
    """Print the table of a comparison and what is needed to read it."""
    header, rows = table(summary)
    console.print()
    if console.is_terminal and console.width >= NARROWEST_TABLE:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
        for index, name in enumerate(header):
            numeric = 0 < index <= len(summary.metrics) + 2
            width = max(len(row[index]) for row in rows) if numeric else 13  # words may wrap, numbers may not
            shown.add_column(
                name.replace(" difference", "\ndifference"),
                justify="right" if numeric else "left",
                min_width=width,
                overflow="fold",
            )
        for row in rows:
            shown.add_row(*row)
        console.print(shown, markup=False)
    else:
        console.print(plain_table(header, rows), markup=False, highlight=False, soft_wrap=True)
    found = notes(summary)
    if found:
        console.print()
    for note in found:
        console.print(f"- {note}", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Example:
        >>> duration(42.4), duration(185), duration(7300)
        ('42 s', '3 min', '2 h 2 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _scores(found: Mapping[str, float], metrics: Sequence[Metric]) -> str:
    return ", ".join(metric.say(found.get(metric.name)) for metric in metrics)
