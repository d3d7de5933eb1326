import numpy as np
import pytest
from scipy import stats

from lossatlas.lab.statistics import Verdict, estimate, holm, judge, paired_difference, seeds_needed

# Student, "The probable error of a mean", 1908: hours of sleep gained with two drugs by the same ten patients.
DRUG_A = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_B = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_paired_difference_of_the_sleep_data() -> None:
    found = paired_difference(DRUG_B, DRUG_A)
    assert found.mean == pytest.approx(1.58)
    assert found.p_value == pytest.approx(0.002833, abs=1e-6)
    assert found.interval == pytest.approx((0.7001, 2.4599), abs=1e-4)
    assert found.half_width == pytest.approx(0.8799, abs=1e-4)


def test_paired_difference_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    own, other = rng.normal(0.5, 0.1, 6), rng.normal(0.5, 0.1, 6)
    reference = stats.ttest_rel(own, other)
    low, high = reference.confidence_interval(0.95)
    found = paired_difference(own.tolist(), other.tolist())
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx((low, high))


def test_two_values_by_hand() -> None:
    # Mean 0.5, standard error 0.1, and the 97.5 % point of Student's t with 1 degree of freedom is 12.7062.
    found = estimate([0.4, 0.6])
    assert found.mean == pytest.approx(0.5)
    assert found.interval == pytest.approx((0.5 - 1.27062, 0.5 + 1.27062), abs=1e-5)


def test_one_value_has_no_interval() -> None:
    found = paired_difference([0.6], [0.5])
    assert found.mean == pytest.approx(0.1)
    assert found.interval is None
    assert found.p_value is None
    assert judge(found, None) is Verdict.SINGLE_SEED


def test_seeds_without_a_result_are_left_out_of_both_sides() -> None:
    found = paired_difference([0.6, None, 0.8, 0.7], [0.5, 0.1, None, 0.5])
    assert found.values == pytest.approx((0.6 - 0.5, None, None, 0.7 - 0.5))
    assert found.mean == pytest.approx(0.15)


def test_no_results_give_nothing() -> None:
    found = paired_difference([None, 0.5], [0.5, None])
    assert (found.mean, found.interval, found.p_value) == (None, None, None)
    assert judge(found, None) is Verdict.FAILED
    assert estimate([float("nan")]).values == (None,)


def test_numbers_of_seeds_must_agree() -> None:
    with pytest.raises(ValueError, match="each of 2 seeds, but got 1"):
        paired_difference([0.1, 0.2], [0.1])


def test_equal_differences_leave_no_doubt() -> None:
    same = paired_difference([0.5, 0.6], [0.5, 0.6])
    assert same.p_value == 1
    assert judge(same, same.p_value) is Verdict.UNDETECTED
    shifted = paired_difference([0.75, 0.5], [0.5, 0.25])
    assert shifted.p_value == 0
    assert judge(shifted, shifted.p_value) is Verdict.BETTER
    assert judge(shifted, shifted.p_value, higher_is_better=False) is Verdict.WORSE


def test_holm_by_hand() -> None:
    # Smallest times 4, next times 3, and so on; never below the one before, never above 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([None, 0.02]) == [None, 0.02]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("values", "p", "verdict"),
    [
        ([0.1, 0.2], 0.0499, Verdict.BETTER),
        ([-0.1, -0.2], 0.0499, Verdict.WORSE),
        ([0.1, 0.2], 0.05, Verdict.UNDETECTED),
        ([0.1, 0.2], 0.9, Verdict.UNDETECTED),
    ],
)
def test_verdicts(values: list[float], p: float, verdict: Verdict) -> None:
    assert judge(paired_difference(values, [0.0, 0.0]), p) is verdict


def test_seeds_needed_reach_the_power_they_promise() -> None:
    found = paired_difference([0.51, 0.53, 0.50], [0.50, 0.49, 0.51])
    seeds = seeds_needed(found)
    assert seeds is not None
    differences = np.array([0.01, 0.04, -0.01])
    rng = np.random.default_rng(0)
    draws = rng.normal(differences.mean(), differences.std(ddof=1), (20_000, seeds))
    power = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.02)


def test_seeds_needed_gives_up() -> None:
    assert seeds_needed(paired_difference([0.501, 0.6, 0.4], [0.5, 0.5, 0.5])) is None
    assert seeds_needed(paired_difference([0.5, 0.5], [0.5, 0.5])) is None
    assert seeds_needed(paired_difference([0.6], [0.5])) is None
    assert seeds_needed(paired_difference([0.75, 0.5], [0.5, 0.25])) == 2
