import json
from collections.abc import Mapping, Sequence

import pytest

from lossatlas.lab.formatting import signed
from lossatlas.lab.metrics import Metric
from lossatlas.lab.summary import Summary, Trial, headline, notes, summarize, table
from lossatlas.lab.tasks import TASKS

VARIANTS = {"giou": {"box": "giou"}, "ciou": {"box": "ciou"}, "diou": {"box": "diou"}}


def build(
    aps: Mapping[str, Sequence[float | None]],
    errors: dict[tuple[str, int], str] | None = None,
    metrics: Sequence[Metric] = TASKS["detection"].metrics,
) -> Summary:
    """A summary of trials with the given AP, one for each seed; None where there is no result."""
    errors = errors or {}
    trials = [
        Trial(name, seed, error=errors.get((name, seed)))
        if ap is None
        else Trial(name, seed, {"AP": ap, "AP50": ap + 0.3, "AP75": ap + 0.1}, seconds=10.0)
        for name, values in aps.items()
        for seed, ap in enumerate(values)
    ]
    return summarize(
        trials,
        {name: VARIANTS[name] for name in aps},
        task="detection",
        metrics=metrics,
        data="digits",
        objective="fcos",
        seeds=range(len(next(iter(aps.values())))),
        steps=100,
        versions={"torch": "2"},
    )


CLEAR = {"giou": [0.50, 0.52, 0.51, 0.53], "ciou": [0.55, 0.575, 0.56, 0.582], "diou": [0.51, 0.51, 0.52, 0.52]}


def test_json_has_the_numbers_of_the_table() -> None:
    summary = build(CLEAR)
    content = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert [content[key] for key in ("task", "data", "objective")] == ["detection", "digits", "fcos"]
    assert (content["seeds"], content["steps"], content["complete"]) == ([0, 1, 2, 3], 100, True)
    header, rows = table(summary)
    for row, variant in zip(rows, content["variants"], strict=True):
        cells = dict(zip(header, row, strict=True))
        assert cells["variant"] == variant["name"]
        assert cells["verdict"] == variant["verdict"]
        for metric in ("AP", "AP50", "AP75"):
            assert set(variant["metrics"][metric]) == {"mean", "interval", "values"}
            assert cells[metric] == f"{variant['metrics'][metric]['mean']:.3f}"
            assert len(variant["metrics"][metric]["values"]) == 4
    assert content["variants"][0]["difference"] == {}
    other = content["variants"][1]["difference"]["AP"]
    assert rows[1][4] == f"{other['mean']:+.3f}"
    assert rows[1][5] == f"{other['interval'][0]:+.3f} to {other['interval'][1]:+.3f}"
    assert content["variants"][1]["seconds"] == [10.0] * 4


def test_verdicts_of_a_clear_and_an_unclear_difference() -> None:
    summary = build(CLEAR)
    assert [variant.verdict.value for variant in summary.variants] == ["baseline", "better", "no detectable difference"]
    worse = build({"giou": CLEAR["ciou"], "ciou": CLEAR["giou"]})
    assert worse.variants[1].verdict.value == "worse"


def test_undetected_says_what_could_have_been_detected() -> None:
    summary = build(CLEAR)
    half_width = summary.variants[2].difference["AP"].half_width
    assert half_width is not None
    assert f"below about {half_width:.3f} cannot be told from noise" in summary.variants[2].note
    assert "to see it" in build({"giou": [0.5, 0.52, 0.51], "ciou": [0.52, 0.55, 0.505]}).variants[1].note


def test_holms_correction_is_told_where_it_changes_the_answer() -> None:
    # Differences whose p value is between 0.025 and 0.05, so that it counts alone but not as one of two.
    nearly = [0.0, 0.010, 0.012, 0.020]
    base = [0.5, 0.5, 0.5, 0.5]
    shifted = [0.5 + value for value in nearly]
    alone = build({"giou": base, "ciou": [0.505 + value for value in nearly]})
    p_alone = alone.variants[1].difference["AP"].p_value
    assert p_alone is not None
    assert 0.025 < p_alone < 0.05
    assert alone.variants[1].verdict.value == "better"
    both = build({"giou": base, "ciou": [0.505 + value for value in nearly], "diou": shifted})
    assert both.variants[1].adjusted_p == pytest.approx(2 * p_alone)
    assert both.variants[1].verdict.value == "no detectable difference"
    assert "Alone this difference would count" in both.variants[1].note
    assert any("Holm's correction" in note for note in notes(both))
    assert not any("Holm's correction" in note for note in notes(alone))


def test_one_seed_gives_no_verdict() -> None:
    summary = build({"giou": [0.5], "ciou": [0.6]})
    assert summary.variants[1].verdict.value == "one seed: no interval"
    assert "no interval" in headline(summary)
    assert any("--seeds 3" in note for note in notes(summary))
    assert table(summary)[1][1][4:6] == ["+0.100", "-"]


def test_one_variant_has_no_comparison() -> None:
    header, rows = table(build({"giou": [0.5, 0.6]}))
    assert header == ["variant", "AP", "AP50", "AP75"]
    assert rows == [["giou", "0.550", "0.850", "0.650"]]
    assert headline(build({"giou": [0.5, 0.6]})).startswith("giou reaches AP 0.550 on digits (95 % interval")


def test_a_failed_trial_is_told_and_the_others_count() -> None:
    summary = build({"giou": [0.5, 0.52, 0.51], "ciou": [0.6, None, 0.62]}, {("ciou", 1): "the loss became nan"})
    ciou = summary.variants[1]
    assert ciou.metrics["AP"].values == (0.6, None, 0.62)
    assert ciou.difference["AP"].mean == pytest.approx(0.105)
    assert "1 of 3 trials failed (seed 1: the loss became nan)" in ciou.note
    assert (summary.failed, summary.complete) == (True, True)


def test_a_variant_whose_trials_all_failed() -> None:
    errors = {("ciou", 0): "nan", ("ciou", 1): "nan"}
    summary = build({"giou": [0.5, 0.52], "ciou": [None, None]}, errors)
    assert summary.variants[1].verdict.value == "failed"
    assert table(summary)[1][1][1:] == ["-", "-", "-", "-", "-", "failed"]
    assert "failed" in headline(summary)


def test_a_baseline_whose_trials_all_failed() -> None:
    summary = build({"giou": [None, None], "ciou": [0.5, 0.6]}, {("giou", 0): "nan", ("giou", 1): "nan"})
    assert summary.baseline.verdict.value == "failed"
    assert headline(summary) == "No result for giou, which the others are compared with."


def test_an_unfinished_comparison_says_so() -> None:
    summary = build({"giou": [0.5, 0.52, None], "ciou": [0.6, None, None]})
    assert not summary.complete
    assert summary.variants[1].verdict.value == "one seed: no interval"
    assert notes(summary)[0] == "3 of 6 trials are finished; the numbers are of those."
    started = build({"giou": [None], "ciou": [None]})
    assert started.variants[1].verdict.value == "not finished"
    json.dumps(started.to_json(), allow_nan=False)


def test_headlines() -> None:
    assert headline(build(CLEAR)) == (
        "On digits, beside giou (AP 0.515): ciou (+0.052) is better; no detectable difference for diou (+0.000)"
        " (4 seeds)."
    )
    two = {name: CLEAR[name] for name in ("giou", "ciou")}
    assert headline(build(two)).startswith("ciou is better than giou on digits: AP 0.567 against 0.515, a difference")
    two = {name: CLEAR[name] for name in ("giou", "diou")}
    assert headline(build(two)).startswith("No detectable difference between diou and giou on digits: AP 0.515 against")


def test_no_signed_zero() -> None:
    assert signed(-0.0004) == "+0.000"


def test_the_numbers_of_the_headline_fit_together_when_seeds_are_missing() -> None:
    summary = build({"giou": [0.500, 0.600], "ciou": [0.450, None]})
    assert "AP 0.450 against 0.500, a difference of -0.050" in headline(summary)
    assert any("the seeds that both sides finished" in note for note in notes(summary))
    assert not any("both sides finished" in note for note in notes(build(CLEAR)))


def test_an_error_is_better_when_it_is_lower() -> None:
    error = Metric("AP", higher_is_better=False, decimals=1, unit="px")
    summary = build({"giou": [5.0, 6.0, 5.5], "ciou": [4.0, 5.1, 4.5]}, metrics=[error])
    assert summary.variants[1].verdict.value == "better"
    assert (
        build({"giou": [4.0, 5.1, 4.5], "ciou": [5.0, 6.0, 5.5]}, metrics=[error]).variants[1].verdict.value == "worse"
    )
    header, rows = table(summary)
    assert header[:3] == ["variant", "AP (px)", "AP difference"]
    assert rows[1][1:3] == ["4.5", "-1.0"]
    assert headline(summary).startswith(
        "ciou is better than giou on digits: AP 4.5 px against 5.5, a difference of -1.0"
    )
