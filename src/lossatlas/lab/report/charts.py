"""Charts as inline SVG that takes its colours and type from the page, so that it follows light and dark."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lossatlas.lab.formatting import interval, signed
from lossatlas.lab.statistics import Difference

WIDTH = 380.0
HEIGHT = 250.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 10.0, 12.0, 40.0
DASHES = ("", "7 3", "2 3", "9 3 2 3")
COLOURS = 6
"""Colours that the style sheet defines; further variants repeat them with another dash."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """What one variant did over the steps of training.

    Args:
        name: of the variant.
        index: its place in the comparison, which gives its colour.
        seeds: one line for each seed.
    """

    name: str
    index: int
    seeds: Sequence[Points]

    def mean(self) -> list[tuple[float, float]]:
        """The mean line, at the steps that every seed has."""
        lines = [dict(points) for points in self.seeds if points]
        if not lines:
            return []
        steps = sorted(set.intersection(*(set(line) for line in lines)))
        return [(step, sum(line[step] for line in lines) / len(lines)) for step in steps]


def learning_curves(title: str, curves: Sequence[Curve], *, cut_peaks: bool = False) -> str:
    """Draw a value over the steps of training: the mean of each variant, and its seeds as thin lines.

    Args:
        title: what is drawn; read out by screen readers.
        curves: one for each variant.
        cut_peaks: whether the highest values may run out of the picture, as the first steps of a loss do.

    Returns:
        An ``svg`` element; text that says so if there is nothing to draw.
    """
    points = [point for curve in curves for line in curve.seeds for point in line if math.isfinite(point[1])]
    if not points:
        return '<p class="quiet">Nothing was recorded.</p>'
    values = np.array([value for _, value in points])
    high = float(np.quantile(values, 0.98) if cut_peaks else values.max()) * 1.05
    low = min(0.0, float(values.min()))
    y_ticks = ticks(low, high if high > low else low + 1)
    last = max(step for step, _ in points)
    x_ticks = ticks(0.0, last, 4)
    y_low, y_high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    x_scale = _scale(0.0, last, LEFT, WIDTH - RIGHT)
    y_scale = _scale(y_low, y_high, HEIGHT - BOTTOM, TOP)
    parts = [_grid(x_ticks, y_ticks, x_scale, y_scale)]
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "step", "middle"))
    inner = [
        f'<polyline {_line_style(curve)} opacity="0.35" stroke-width="1" points="{_path(line, x_scale, y_scale)}"/>'
        for curve in curves
        for line in curve.seeds
    ]
    inner += [
        f'<polyline {_line_style(curve)} stroke-width="2.4" points="{_path(curve.mean(), x_scale, y_scale)}">'
        f"<title>{html.escape(curve.name)}, mean over seeds</title></polyline>"
        for curve in curves
    ]
    parts.append(
        f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
        f'viewBox="{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}">{"".join(inner)}</svg>'
    )
    return _svg(title, HEIGHT, parts)


def differences(
    title: str, rows: Sequence[tuple[str, int, Difference]], write: Callable[[float | None], str] = signed
) -> str:
    """Draw differences to the baseline: mean as a dot, 95 % interval as a line, seeds as small dots.

    Args:
        title: what is drawn; read out by screen readers.
        rows: name, place in the comparison and difference of each variant.
        write: a difference as text.

    Returns:
        An ``svg`` element.
    """
    ends = [0.0]
    for _, _, difference in rows:
        ends += [value for value in difference.values if value is not None]
        ends += difference.interval or ()
    # An interval over two seeds can be so wide that nothing else could be read: it is cut.
    seeds = max([abs(value) for _, _, found in rows for value in found.values if value is not None] or [0.0])
    limit = max(min(max(abs(end) for end in ends), max(10 * seeds, 0.005)), 0.002)
    x_ticks = ticks(-limit, limit, 4)
    left, right, height = 8.0, WIDTH - 8.0, 52.0 * len(rows) + 34
    x_scale = _scale(-limit, limit, left + 24, right - 24)
    parts = []
    for tick in x_ticks:
        x = x_scale(tick)
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="{height - 26:.1f}"/>')
        parts.append(_label(x, height - 10, "0" if tick == 0 else f"{tick:+g}", "middle"))
    for number, (name, index, difference) in enumerate(rows):
        parts.append(_difference_row(name, index, difference, 52.0 * number + 22, x_scale, (left, right), write))
    return _svg(title, height, parts)


def _difference_row(
    name: str,
    index: int,
    difference: Difference,
    y: float,
    x_scale: "Scale",
    edges: tuple[float, float],
    write: Callable[[float | None], str],
) -> str:
    colour = f"c{index % COLOURS}"
    parts = [_label(edges[0], y, name, "start", "name")]
    if difference.mean is None:
        return "".join([*parts, _label(edges[1], y, "no result", "end")])
    text = write(difference.mean)
    middle = f"{y + 16:.1f}"
    if difference.interval is not None:
        text += f" ({interval(difference, write)})"
        start, end = (min(max(x_scale(value), edges[0]), edges[1]) for value in difference.interval)
        ends = f'x1="{start:.1f}" y1="{middle}" x2="{end:.1f}" y2="{middle}"'
        parts.append(f'<line class="line {colour}" stroke-width="3" {ends}/>')
    parts += [
        f'<circle class="seed {colour}" cx="{x_scale(value):.1f}" cy="{middle}" r="3"/>'
        for value in difference.values
        if value is not None
    ]
    parts.append(f'<circle class="dot {colour}" cx="{x_scale(difference.mean):.1f}" cy="{middle}" r="6"/>')
    parts.append(_label(edges[1], y, text, "end"))
    return "".join(parts)


def smooth(points: Points, bins: int = 60) -> list[tuple[float, float]]:
    """Average neighbouring points of a noisy line, so that at most `bins` are left.

    Example:
        >>> smooth([(1, 1.0), (2, 3.0), (3, 5.0), (4, 7.0)], bins=2)
        [(1.5, 2.0), (3.5, 6.0)]
    """
    if len(points) <= bins:
        return list(points)
    groups = np.array_split(np.array(points, dtype=np.float64), bins)
    return [(float(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers that cover the range from `low` to `high`.

    Example:
        >>> ticks(0, 0.83)
        [0.0, 0.2, 0.4, 0.6, 0.8]
        >>> ticks(-0.02, 0.02, 4)
        [-0.02, -0.01, 0.0, 0.01, 0.02]
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def dash(index: int) -> str:
    """Return the dash pattern of a variant: solid for the first six, then others with the colours again."""
    return DASHES[index // COLOURS % len(DASHES)]


@dataclass(frozen=True)
class Scale:
    """A linear map from values to places in the picture."""

    factor: float
    shift: float

    def __call__(self, value: float) -> float:
        """Return where a value is."""
        return value * self.factor + self.shift


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    factor = (end - start) / (high - low)
    return Scale(factor, start - low * factor)


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float], x_scale: Scale, y_scale: Scale) -> str:
    parts = []
    for tick in y_ticks:
        y = y_scale(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(_label(LEFT - 6, y + 4, f"{tick:g}", "end"))
    parts += [_label(x_scale(tick), HEIGHT - BOTTOM + 17, f"{tick:g}", "middle") for tick in x_ticks]
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{HEIGHT - BOTTOM}"/>')
    return "".join(parts)


def _line_style(curve: Curve) -> str:
    return f'class="line c{curve.index % COLOURS}" stroke-dasharray="{dash(curve.index)}"'


def _path(points: Points, x_scale: Scale, y_scale: Scale) -> str:
    return " ".join(f"{x_scale(x):.1f},{y_scale(y):.1f}" for x, y in points if math.isfinite(y))


def _label(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    name = html.escape(title, quote=True)
    return (
        f'<svg class="chart" role="img" aria-label="{name}" viewBox="0 0 {WIDTH:g} {height:g}">{"".join(parts)}</svg>'
    )
