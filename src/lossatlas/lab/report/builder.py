"""Gathers what the folder of a comparison holds and fills the page with it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lossatlas.lab.data import Data, describe
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.files import write_text
from lossatlas.lab.formatting import interval
from lossatlas.lab.pictures.picture import Picture
from lossatlas.lab.plan import Plan, read_plan, read_trials
from lossatlas.lab.registry import find_objective
from lossatlas.lab.report import charts
from lossatlas.lab.report.page import fill
from lossatlas.lab.summary import Summary, headline, notes

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Chart:
    """A chart with what stands above and below it."""

    title: str
    svg: Markup
    caption: str = ""


def write_report(out: Path, data: Data[Any] | None = None) -> Path:
    """Write ``report.html`` into the folder of a comparison.

    Args:
        out: folder of the comparison; trials may be missing.
        data: its data, if it is loaded already.

    Returns:
        The path of the report.

    Raises:
        ArgumentError: a folder without a comparison, or data that is gone or not what was trained on any more.
        DataError: data that cannot be read any more.
    """
    plan = read_plan(out)
    if data is None:
        data = find_objective(plan.objective).see(plan.source.load(plan.task))
        if data.fingerprint != plan.fingerprint:
            raise ArgumentError(f"the data of {out}, {plan.data}, is not what its trials were trained on any more")
    path = out / REPORT_FILE
    write_text(path, render(plan, out, data))
    return path


def render(plan: Plan, out: Path, data: Data[Any]) -> str:
    """Return the page of a comparison."""
    summary = plan.summarize(read_trials(plan, out))
    seed, pictures = _pictures(plan, out, data)
    return fill(
        "report.html.jinja",
        plan=plan,
        summary=summary,
        headline=headline(summary),
        notes=notes(summary),
        task=plan.task,
        primary=summary.primary_metric,
        metrics=[metric for metric in summary.metrics if metric.name in summary.baseline.metrics],
        difference_charts=_difference_charts(summary),
        curve_charts=_curve_charts(plan, out),
        classes=_class_table(summary, plan.task.class_metric),
        pictures=pictures,
        picture_seed=seed,
        data=data,
        data_warnings=describe(data.warnings) if data.warnings else "",
        settings=_settings(plan),
        colours=charts.COLOURS,
        dash=charts.dash,
        interval=interval,
    )


def _difference_charts(summary: Summary) -> list[Chart]:
    charted = []
    for metric in summary.metrics:
        rows = [
            (variant.name, index, variant.difference[metric.name])
            for index, variant in enumerate(summary.variants)
            if metric.name in variant.difference
        ]
        if rows:
            title = f"{metric.label}, difference to {summary.baseline.name}"
            caption = "" if metric.higher_is_better else "left is better"
            charted.append(Chart(title, Markup(charts.differences(title, rows, metric.write_change)), caption))
    return charted


def _curve_charts(plan: Plan, out: Path) -> list[Chart]:
    logs = {
        variant.name: [list(read_log(plan.folder(out, variant, seed))) for seed in plan.seeds]
        for variant in plan.variants
    }
    drawn = []
    for metric in plan.task.metrics[:2]:
        curves = _curves(logs, "eval", "metrics", metric.name)
        if any(len(line) > 1 for curve in curves for line in curve.seeds):
            better = f"{'higher' if metric.higher_is_better else 'lower'} is better"
            drawn.append(_curve_chart(f"{metric.label} on test", curves, better))
    terms = dict.fromkeys(
        term for lines in logs.values() for rows in lines for row in rows for term in row.get("terms", ())
    )
    if len(terms) == 2 and "total" in terms:  # the only term is the total
        terms = {"total": None}
    for term in sorted(terms, key=lambda name: name != "total"):
        curves = [
            charts.Curve(curve.name, curve.index, [charts.smooth(line) for line in curve.seeds])
            for curve in _curves(logs, "train", "terms", term)
        ]
        drawn.append(_curve_chart(f"training loss: {term}", curves, "lower is better", cut_peaks=True))
    return drawn


def _curves(
    logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], kind: str, group: str, key: str
) -> list[charts.Curve]:
    return [
        charts.Curve(
            name,
            index,
            [
                [
                    (row["step"], row[group][key])
                    for row in rows
                    if row["kind"] == kind and row[group].get(key) is not None
                ]
                for rows in seeds
            ],
        )
        for index, (name, seeds) in enumerate(logs.items())
    ]


def _curve_chart(title: str, curves: Sequence[charts.Curve], caption: str, *, cut_peaks: bool = False) -> Chart:
    return Chart(title, Markup(charts.learning_curves(title, curves, cut_peaks=cut_peaks)), caption)


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a trial's ``metrics.jsonl``; a last line that was cut off in writing is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _class_table(summary: Summary, metric: str) -> list[tuple[str, list[float | None]]]:
    """Return a metric of each class: its name, and a mean for each variant."""
    prefix = f"{metric}/"
    names = [name for name in summary.baseline.metrics if metric and name.startswith(prefix)]
    return [(name.removeprefix(prefix), [variant.metrics[name].mean for variant in summary.variants]) for name in names]


def _pictures(plan: Plan, out: Path, data: Data[Any]) -> tuple[int | None, list[Picture]]:
    """Draw the predictions of the first seed that every variant finished."""
    for seed in plan.seeds:
        paths = {variant.name: plan.folder(out, variant, seed) / "predictions.json" for variant in plan.variants}
        if all(path.exists() for path in paths.values()):
            predictions = {name: json.loads(path.read_text()) for name, path in paths.items()}
            return seed, plan.task.pictures(data.test, predictions, data.class_names)
    return None, []


def _settings(plan: Plan) -> list[tuple[str, str]]:
    config = plan.config(plan.variants[0], plan.seeds[0]).to_json()
    left_out = {"objective", "losses", "seed", "steps"}
    return [(name.replace("_", " "), str(value)) for name, value in config.items() if name not in left_out]
