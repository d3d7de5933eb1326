import itertools
import re

import pytest

from lossatlas.lab.report.charts import Curve, differences, learning_curves, smooth, ticks
from lossatlas.lab.statistics import paired_difference


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.0312), (-0.002, 0.002), (0, 48_000), (3.1, 3.2), (-5, 0), (0, 1e-6)]
)
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 11
    step = found[1] - found[0]
    assert all(abs(second - first - step) < 1e-9 for first, second in itertools.pairwise(found))
    assert low - 1e-9 <= found[0] < low + step
    assert high + 1e-9 >= found[-1] > high - step * 1.0001
    assert f"{step:.0e}"[0] in "125"


def test_the_mean_curve_has_the_steps_that_all_seeds_have() -> None:
    curve = Curve("giou", 0, [[(1, 1.0), (2, 2.0), (3, 5.0)], [(1, 3.0), (2, 4.0)]])
    assert curve.mean() == [(1, 2.0), (2, 3.0)]
    assert Curve("giou", 0, [[(1, 1.0)], []]).mean() == [(1, 1.0)]
    assert Curve("giou", 0, [[]]).mean() == []


def test_smoothing_keeps_the_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(1, 241)]
    found = smooth(points, bins=60)
    assert len(found) == 60
    assert sum(value for _, value in found) / 60 == pytest.approx(sum(value for _, value in points) / 240)
    assert smooth(points[:5]) == points[:5]


def test_a_chart_has_a_thin_line_for_each_seed_and_a_thick_one_for_the_mean() -> None:
    svg = learning_curves(
        "AP", [Curve("a", 0, [[(1, 0.1), (2, 0.3)], [(1, 0.2), (2, 0.4)]]), Curve("b", 1, [[(1, 0.1)]])]
    )
    assert svg.count('opacity="0.35"') == 3
    assert svg.count('stroke-width="2.4"') == 2


def test_nothing_to_draw_is_said() -> None:
    assert "Nothing was recorded" in learning_curves("AP", [Curve("a", 0, [[]])])


def test_a_constant_curve_can_be_drawn() -> None:
    assert "nan" not in learning_curves("AP", [Curve("a", 0, [[(1, 0.0), (2, 0.0)]])])


def test_marks_of_a_difference_lie_in_order_and_inside() -> None:
    found = paired_difference([0.52, 0.55, 0.53], [0.50, 0.52, 0.52])
    svg = differences("AP", [("ciou", 1, found)])
    start, end = (
        float(value) for value in re.findall(r'stroke-width="3" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', svg)[0]
    )
    (dot,) = (float(value) for value in re.findall(r'class="dot c1" cx="([\d.]+)"', svg))
    (zero,) = (float(value) for value in re.findall(r'class="axis" x1="([\d.]+)"', svg))
    assert 0 < start < zero < dot < end < 380  # three seeds: the interval holds 0, the mean is above it
    assert len(re.findall('class="seed', svg)) == 3


def test_an_interval_that_leaves_the_picture_is_cut() -> None:
    found = paired_difference([0.5, 0.5001], [0.5, 0.5])
    wide = paired_difference([0.9, 0.1], [0.5, 0.5])
    for difference in (found, wide):
        svg = differences("AP", [("ciou", 1, difference)])
        places = [float(value) for value in re.findall(r'(?:x1|x2|cx)="(-?[\d.]+)"', svg)]
        assert all(0 <= place <= 380 for place in places)


def test_a_difference_without_a_result_is_named() -> None:
    assert "no result" in differences("AP", [("ciou", 1, paired_difference([None], [0.5]))])


def test_names_are_escaped() -> None:
    assert "<b>" not in differences("<b>", [("<b>", 1, paired_difference([0.5], [0.5]))])
