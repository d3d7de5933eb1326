"""Means, paired differences and verdicts over seeds.

Every trial of a seed starts from the same weights and sees the same batches, whatever its loss, so the differences
within a seed are what is compared: noise that both sides share cancels. The intervals are Student's: they cover what
another choice of seeds would change on the same data, and nothing else.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import scipy  # imports `scipy.stats`, which takes a second, when it is first used

SIGNIFICANCE = 0.05
"""Intervals cover 1 minus this; a difference is detected if its p value is below it."""
POWER = 0.8
MAX_SEEDS = 200
"""Largest number of seeds that `seeds_needed` gives."""

Interval = tuple[float, float]
Values = Sequence[float | None]


class Verdict(StrEnum):
    """What is said of a variant beside the baseline; the value is the wording of tables and reports."""

    BASELINE = "baseline"
    BETTER = "better"
    WORSE = "worse"
    UNDETECTED = "no detectable difference"
    SINGLE_SEED = "one seed: no interval"
    UNFINISHED = "not finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Args:
        mean: over the seeds that have a value; None without one.
        interval: 95 % interval of the mean; None with fewer than two values.
        values: one for each seed, None where the trial has no result.
    """

    mean: float | None
    interval: Interval | None
    values: tuple[float | None, ...]

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval."""
        return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """Mean paired difference to the baseline; a value for each seed in which both sides have a result.

    Args:
        p_value: two-sided, of the paired t-test; None with fewer than two pairs.
    """

    p_value: float | None


def estimate(values: Values) -> Estimate:
    """Return the mean of the values that are there, with its 95 % t-interval.

    Formula:
        m ± t(0.975, n - 1) s / √n

    Args:
        values: one for each seed; None or a non-finite number where there is no result.

    Returns:
        Mean and interval; None for what cannot be computed.

    Example:
        >>> [round(end, 4) for end in estimate([0.50, 0.52, 0.54]).interval]
        [0.4703, 0.5697]
    """
    clean = tuple(value if value is not None and math.isfinite(value) else None for value in values)
    present = np.array([value for value in clean if value is not None], dtype=np.float64)
    if present.size == 0:
        return Estimate(None, None, clean)
    mean = float(present.mean())
    return Estimate(mean, _interval(present), clean)


def paired_difference(values: Values, baseline: Values) -> Difference:
    """Return the mean difference of a variant to the baseline, paired by seed.

    Args:
        values: of the variant, one for each seed; None where there is no result.
        baseline: of the baseline, in the same order.

    Returns:
        Mean, 95 % paired t-interval and two-sided p value. Differences that are all equal have an interval of no
        length, and p 1 if they are 0, otherwise 0.

    Raises:
        ValueError: numbers of seeds that differ.

    Example:
        >>> round(paired_difference([0.6, 0.7, 0.8], [0.5, 0.62, 0.69]).mean, 4)
        0.0967
    """
    if len(values) != len(baseline):
        raise ValueError(f"`baseline` must have a value for each of {len(values)} seeds, but got {len(baseline)}")
    pairs = estimate(
        [None if own is None or other is None else own - other for own, other in zip(values, baseline, strict=True)]
    )
    present = np.array([value for value in pairs.values if value is not None], dtype=np.float64)
    p_value = None
    if present.size > 1:
        error = float(present.std(ddof=1)) / math.sqrt(present.size)
        if error == 0:
            p_value = 1.0 if present[0] == 0 else 0.0
        else:
            p_value = float(2 * scipy.stats.t.sf(abs(present.mean()) / error, present.size - 1))
    return Difference(pairs.mean, pairs.interval, pairs.values, p_value)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for the number of comparisons by Holm's step-down method.

    Args:
        p_values: one for each comparison; None where there is none, which is not counted.

    Returns:
        Adjusted p values in the same order, at least as large as the given ones and at most 1.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]

    Reference:
        S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[index] = largest
    return adjusted


def judge(difference: Difference, adjusted_p: float | None, *, higher_is_better: bool = True) -> Verdict:
    """Say in words what a difference to the baseline shows.

    Args:
        difference: of a variant.
        adjusted_p: its p value after Holm's correction over all comparisons.
        higher_is_better: whether larger values are better; False for errors.

    Returns:
        The verdict; without a pair of results, `Verdict.FAILED`.

    Example:
        >>> judge(paired_difference([0.6, 0.7, 0.8], [0.5, 0.62, 0.69]), 0.008).value
        'better'
    """
    if difference.mean is None:
        return Verdict.FAILED
    if adjusted_p is None:
        return Verdict.SINGLE_SEED
    if adjusted_p >= SIGNIFICANCE:
        return Verdict.UNDETECTED
    return Verdict.BETTER if (difference.mean > 0) == higher_is_better else Verdict.WORSE


def seeds_needed(difference: Difference) -> int | None:
    """Return how many seeds a paired t-test needs to detect the observed difference in 4 of 5 comparisons.

    Args:
        difference: as observed; its mean and its spread over seeds are taken for the true ones.

    Returns:
        The number of seeds, None if it cannot be told or is above `MAX_SEEDS`.

    Example:
        >>> seeds_needed(paired_difference([0.51, 0.53, 0.50], [0.50, 0.49, 0.51]))
        30
    """
    present = np.array([value for value in difference.values if value is not None], dtype=np.float64)
    if present.size < 2 or not difference.mean:
        return None
    effect = abs(difference.mean) / max(float(present.std(ddof=1)), 1e-12)
    for seeds in itertools.takewhile(lambda number: number <= MAX_SEEDS, itertools.count(2)):
        critical = scipy.stats.t.ppf(1 - SIGNIFICANCE / 2, seeds - 1)
        shift = effect * math.sqrt(seeds)
        # A noncentral t beyond this shift is detected for certain, and scipy's tail is not reliable there.
        if shift > critical + 10 or scipy.stats.nct.sf(critical, seeds - 1, shift) >= POWER:
            return seeds
    return None


def _interval(present: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Interval | None:
    if present.size < 2:
        return None
    mean = float(present.mean())
    half = float(scipy.stats.t.ppf(1 - SIGNIFICANCE / 2, present.size - 1) * present.std(ddof=1)) / math.sqrt(
        present.size
    )
    return mean - half, mean + half
