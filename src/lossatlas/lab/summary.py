"""What a comparison found, once: the numbers of summary.json, of the printed table and of the report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lossatlas.lab.formatting import interval, plural
from lossatlas.lab.metrics import Metric
from lossatlas.lab.statistics import (
    MAX_SEEDS,
    SIGNIFICANCE,
    Difference,
    Estimate,
    Verdict,
    estimate,
    holm,
    judge,
    paired_difference,
    seeds_needed,
)

INTERVAL_MEANING = (
    "The intervals cover the noise of training: what other seeds would change on this training set, scored on this "
    "test set. They do not cover another test set, other data or longer training."
)


@dataclass(frozen=True)
class Trial:
    """What is known of one training.

    Args:
        variant: name of the variant.
        seed: its seed.
        metrics: final metrics; None until it is finished.
        seconds: how long it trained; None until it is finished.
        error: why it failed, None if it did not.
    """

    variant: str
    seed: int
    metrics: Mapping[str, float] | None = None
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class VariantSummary:
    """What was found for one variant.

    Args:
        name: of the variant.
        losses: the slots that it fills, each with the text of its loss.
        metrics: mean and interval over seeds of each metric.
        difference: to the baseline, paired by seed, for each metric; empty for the baseline itself.
        primary: mean and interval of the metric that the verdict is about.
        primary_difference: difference to the baseline in it; None for the baseline itself.
        adjusted_p: p value of the primary metric's difference after Holm's correction.
        verdict: on the primary metric.
        note: what a reader of the verdict should also know; often empty.
        seconds: training time of each seed's trial.
        errors: why trials failed, by seed.
    """

    name: str
    losses: Mapping[str, str]
    metrics: Mapping[str, Estimate]
    difference: Mapping[str, Difference]
    primary: Estimate
    primary_difference: Difference | None
    adjusted_p: float | None
    verdict: Verdict
    note: str
    seconds: tuple[float | None, ...]
    errors: Mapping[int, str]


@dataclass(frozen=True)
class Summary:
    """What a comparison found.

    Args:
        task: name of the task.
        metrics: of the task; those of the tables, the one that verdicts are about first.
        data: name of the data set.
        objective: name of the objective.
        seeds: the seeds that every variant is trained with.
        steps: optimiser steps of one trial.
        variants: one for each variant, the baseline first.
        versions: of the software that trained.
    """

    task: str
    metrics: tuple[Metric, ...]
    data: str
    objective: str
    seeds: tuple[int, ...]
    steps: int
    variants: tuple[VariantSummary, ...]
    versions: Mapping[str, str]

    @property
    def primary_metric(self) -> Metric:
        """The metric that verdicts are about."""
        return self.metrics[0]

    @property
    def baseline(self) -> VariantSummary:
        """The variant that the others are compared with."""
        return self.variants[0]

    @property
    def failed(self) -> bool:
        """Whether a trial failed."""
        return any(variant.errors for variant in self.variants)

    @property
    def complete(self) -> bool:
        """Whether every trial has ended, by finishing or by failing."""
        return all(
            seconds is not None or seed in variant.errors
            for variant in self.variants
            for seed, seconds in zip(self.seeds, variant.seconds, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {
            "task": self.task,
            "data": self.data,
            "objective": self.objective,
            "complete": self.complete,
            "seeds": list(self.seeds),
            "steps": self.steps,
            "primary_metric": self.primary_metric.name,
            "headline": headline(self),
            "notes": notes(self),
            "variants": [_variant_json(variant) for variant in self.variants],
            "versions": dict(self.versions),
        }


def summarize(
    trials: Sequence[Trial],
    variants: Mapping[str, Mapping[str, str]],
    *,
    task: str,
    metrics: Sequence[Metric],
    data: str,
    objective: str,
    seeds: Sequence[int],
    steps: int,
    versions: Mapping[str, str],
) -> Summary:
    """Compute means, differences and verdicts from what is known of the trials so far.

    Args:
        trials: one for each variant and seed, in any order; missing ones count as not finished.
        variants: name of each variant, the baseline first, with the losses of its slots.
        task: name of the task.
        metrics: of the task, the one that verdicts are about first.
        data: name of the data set.
        objective: name of the objective.
        seeds: the seeds that every variant is trained with.
        steps: optimiser steps of one trial.
        versions: of the software that trained.

    Returns:
        The summary, which holds None for what is not known yet.
    """
    by_key = {(trial.variant, trial.seed): trial for trial in trials}
    rows = {name: [by_key.get((name, seed), Trial(name, seed)) for seed in seeds] for name in variants}
    names = list(dict.fromkeys(name for trial in trials for name in trial.metrics or ()))
    values = {
        variant: {name: [(trial.metrics or {}).get(name) for trial in row] for name in names}
        for variant, row in rows.items()
    }
    first = next(iter(variants))
    differences = {
        variant: {name: paired_difference(values[variant][name], values[first][name]) for name in names}
        for variant in variants
        if variant != first
    }
    primary = metrics[0]
    p_values = [found[primary.name].p_value if primary.name in found else None for found in differences.values()]
    adjusted = dict(zip(differences, holm(p_values), strict=True))
    return Summary(
        task=task,
        metrics=tuple(metrics),
        data=data,
        objective=objective,
        seeds=tuple(seeds),
        steps=steps,
        variants=tuple(
            _summarize_variant(
                row,
                primary,
                losses=variants[variant],
                metrics={name: estimate(values[variant][name]) for name in names},
                difference=differences.get(variant),
                adjusted_p=adjusted.get(variant),
                comparisons=sum(p is not None for p in p_values),
            )
            for variant, row in rows.items()
        ),
        versions=versions,
    )


def headline(summary: Summary) -> str:
    """Return the answer of a comparison in one sentence."""
    base, others, metric = summary.baseline, summary.variants[1:], summary.primary_metric
    if base.primary.mean is None:
        return f"No result for {base.name}, which the others are compared with."
    if not others:
        found = f"{base.name} reaches {metric.say(base.primary.mean)} on {summary.data}"
        return f"{found} ({_spread(base.primary, len(summary.seeds), metric.write)})."
    if len(others) == 1:
        return _pair_sentence(summary, others[0])
    clauses = [clause for verdict in Verdict if (clause := _clause(verdict, others, metric))]
    opening = f"On {summary.data}, beside {base.name} ({metric.say(base.primary.mean)})"
    return f"{opening}: {'; '.join(clauses)} ({plural(len(summary.seeds), 'seed')})."


def notes(summary: Summary) -> list[str]:
    """Return what a reader of the table must know to read it rightly, a sentence or two each."""
    found = [f"{variant.name}: {variant.note}" for variant in summary.variants if variant.note]
    compared = [variant for variant in summary.variants[1:] if variant.adjusted_p is not None]
    if not summary.complete:
        done = sum(seconds is not None for variant in summary.variants for seconds in variant.seconds)
        total = len(summary.variants) * len(summary.seeds)
        found.insert(0, f"{done} of {total} trials are finished; the numbers are of those.")
    if any(None in variant.primary.values for variant in summary.variants[1:] if variant.difference) or (
        len(summary.variants) > 1 and None in summary.baseline.primary.values
    ):
        found.append(
            "Differences are over the seeds that both sides finished; a mean is over all that its variant did."
        )
    if len(compared) > 1:
        found.append(
            f"The verdicts account for {len(compared)} comparisons with {summary.baseline.name} (Holm's correction); "
            "each interval stands for itself."
        )
    if len(summary.seeds) > 1:
        found.append(INTERVAL_MEANING)
    elif len(summary.variants) > 1:
        found.append("With one seed nothing tells a difference from the noise of training; --seeds 3 or more does.")
    return found


def table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the printed table."""
    primary = summary.primary_metric
    header = ["variant", *(metric.label for metric in summary.metrics)]
    compared = len(summary.variants) > 1
    if compared:
        header += [f"{primary.name} difference", "95 % interval", "verdict"]
    rows = []
    for variant in summary.variants:
        row = [variant.name, *(metric.write(_mean(variant, metric.name)) for metric in summary.metrics)]
        if compared:
            difference = variant.primary_difference
            row += [
                primary.write_change(difference.mean) if difference else "",
                interval(difference, primary.write_change) if difference else "",
                variant.verdict.value,
            ]
        rows.append(row)
    return header, rows


def _summarize_variant(
    row: Sequence[Trial],
    metric: Metric,
    *,
    losses: Mapping[str, str],
    metrics: Mapping[str, Estimate],
    difference: Mapping[str, Difference] | None,
    adjusted_p: float | None,
    comparisons: int,
) -> VariantSummary:
    errors = {trial.seed: trial.error for trial in row if trial.error is not None}
    primary = (difference or {}).get(metric.name)
    if difference is None:
        finished = any(trial.metrics is not None for trial in row)
        verdict = Verdict.FAILED if errors and not finished else Verdict.BASELINE
    elif primary is not None and primary.mean is not None:
        verdict = judge(primary, adjusted_p, higher_is_better=metric.higher_is_better)
    else:
        verdict = Verdict.FAILED if errors else Verdict.UNFINISHED
    return VariantSummary(
        name=row[0].variant,
        losses=losses,
        metrics=metrics,
        difference=difference or {},
        primary=metrics.get(metric.name, Estimate(None, None, ())),
        primary_difference=primary,
        adjusted_p=adjusted_p,
        verdict=verdict,
        note=_note(verdict, metric, primary, adjusted_p, comparisons, errors, len(row)),
        seconds=tuple(trial.seconds for trial in row),
        errors=errors,
    )


def _note(
    verdict: Verdict,
    metric: Metric,
    primary: Difference | None,
    adjusted_p: float | None,
    comparisons: int,
    errors: Mapping[int, str],
    seeds: int,
) -> str:
    found = []
    if errors:
        seed, error = next(iter(errors.items()))
        found.append(f"{len(errors)} of {plural(seeds, 'trial')} failed (seed {seed}: {error.rstrip('.')}).")
    if verdict is Verdict.UNDETECTED and primary is not None and primary.half_width is not None:
        if primary.p_value is not None and primary.p_value < SIGNIFICANCE:
            found.append(
                f"Alone this difference would count (p = {primary.p_value:.3f}); with Holm's correction for "
                f"{comparisons} comparisons it does not (p = {adjusted_p:.3f})."
            )
        pairs = sum(value is not None for value in primary.values)
        found.append(
            f"With {plural(pairs, 'seed')} a difference of {metric.name} below about "
            f"{metric.write(primary.half_width)} cannot be told from noise{_seeds_advice(metric, primary)}."
        )
    return " ".join(found)


def _seeds_advice(metric: Metric, primary: Difference) -> str:
    if not primary.mean or metric.write_change(primary.mean) == metric.write_change(0.0):
        return ""
    needed = seeds_needed(primary)
    count = f"more than {MAX_SEEDS}" if needed is None else f"about {needed}"
    return f"; if the true one is {metric.write_change(primary.mean)}, it takes {count} seeds to see it"


def _clause(verdict: Verdict, others: Sequence[VariantSummary], metric: Metric) -> str:
    """Return what the headline says of the variants with one verdict, nothing if there are none."""
    named = []
    for other in others:
        if other.verdict is verdict:
            mean = other.primary_difference.mean if other.primary_difference else None
            named.append(other.name if mean is None else f"{other.name} ({metric.write_change(mean)})")
    if not named:
        return ""
    names = " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{names} {'are' if len(named) > 1 else 'is'} {verdict.value}"
    if verdict is Verdict.UNDETECTED:
        return f"{verdict.value} for {names}"
    return f"{names} - {verdict.value}"


def _paired_means(own: Estimate, other: Estimate) -> tuple[float | None, float | None]:
    """Return the means over the seeds in which both sides have a result, which the paired difference is about."""
    pairs = [pair for pair in zip(own.values, other.values, strict=True) if None not in pair]
    return estimate([first for first, _ in pairs]).mean, estimate([second for _, second in pairs]).mean


def _pair_sentence(summary: Summary, other: VariantSummary) -> str:
    base, difference, metric = summary.baseline, other.primary_difference, summary.primary_metric
    if difference is None or difference.mean is None:
        return f"No result to compare {other.name} with {base.name} on {summary.data}: {other.verdict.value}."
    own, against = _paired_means(other.primary, base.primary)
    numbers = f"{metric.say(own)} against {metric.write(against)}, a difference of "
    numbers += metric.write_change(difference.mean)
    pairs = sum(value is not None for value in difference.values)
    spread = _spread(difference, pairs, metric.write_change)
    if other.verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{other.name} is {other.verdict.value} than {base.name} on {summary.data}: {numbers} ({spread})."
    if other.verdict is Verdict.UNDETECTED:
        opening = f"No detectable difference between {other.name} and {base.name} on {summary.data}"
        return f"{opening}: {numbers} ({spread})."
    return f"{other.name} beside {base.name} on {summary.data}: {numbers} ({spread})."


def _spread(found: Estimate, seeds: int, write: Callable[[float | None], str]) -> str:
    if found.interval is None:
        return Verdict.SINGLE_SEED.value if seeds == 1 else plural(seeds, "seed")
    return f"95 % interval {interval(found, write)}, {plural(seeds, 'seed')}"


def _mean(variant: VariantSummary, metric: str) -> float | None:
    return variant.metrics[metric].mean if metric in variant.metrics else None


def _variant_json(variant: VariantSummary) -> dict[str, Any]:
    primary = variant.primary_difference
    return {
        "name": variant.name,
        "losses": dict(variant.losses),
        "metrics": {name: asdict(found) for name, found in variant.metrics.items()},
        "difference": {
            name: asdict(found) | {"half_width": found.half_width} for name, found in variant.difference.items()
        },
        "adjusted_p_value": variant.adjusted_p,
        "smallest_detectable_difference": primary.half_width if primary else None,
        "verdict": variant.verdict.value,
        "note": variant.note,
        "seconds": list(variant.seconds),
        "errors": {str(seed): error for seed, error in variant.errors.items()},
    }


def finite_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Keep the metrics that are finite numbers.

    Example:
        >>> finite_metrics({"AP": 0.5, "AP_large": float("nan"), "classes": ["a"]})
        {'AP': 0.5}
    """
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
