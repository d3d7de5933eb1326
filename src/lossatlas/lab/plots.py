"""Plots of a loss: its value and its gradient."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Polygon
from torch import Tensor

from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.loss_specs import LossSpec
from lossatlas.lab.map_views import Map
from lossatlas.lab.portraits import maps, views
from lossatlas.lab.views import Scene, View, sample

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0067b1", "#c75000", "#00805f", "#8b3fa0", "#6d6d00", "#111111")

Shown = tuple[View, Sequence[tuple[Tensor, Tensor, Tensor]]]
"""A view and its computed lines."""


def plot_loss(spec: LossSpec, path: Path) -> Path:
    """Draw value and gradient of a loss.

    Args:
        spec: the loss with its options.
        path: file to write; its ending chooses the format, PNG, SVG or PDF.

    Returns:
        The path.

    Raises:
        ArgumentError: an ending that is no known format, a folder that is not there, or options that cannot be drawn.
    """
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"the plot must be one of {', '.join(FORMATS)}, but got {path.name!r}")
    if not path.parent.is_dir():
        raise ArgumentError(f"there is no folder {path.parent} to write the plot into")
    try:
        shown = [(view, [sample(line, view) for line in view.lines]) for view in views(spec)]
        images = maps(spec)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"loss {spec} cannot be drawn: {error}") from error
    _figure(str(spec), shown, images).savefig(path, dpi=150)
    return path


def _figure(title: str, shown: Sequence[Shown], images: Sequence[Map]) -> Figure:
    heights = [5.8, 3.0] if images else [5.8]
    width = max(1.4 + 3.6 * len(shown), 9.6 if images else 0)
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_views(parts[0], shown)
    for part in parts[1:]:
        _draw_maps(part, images)
    return figure


def _draw_views(figure: Figure | SubFigure, shown: Sequence[Shown]) -> None:
    scenes = any(view.scenes for view, _ in shown)
    ratios = [0.5, 2, 2] if scenes else [2, 2]
    axes = figure.subplots(len(ratios), len(shown), sharex="col", squeeze=False, height_ratios=ratios)
    comparable = len({view.varied for view, _ in shown}) == 1
    for row in (axes[-2], axes[-1]) if comparable else (axes[-2],):
        for axis in row[1:]:
            axis.sharey(row[0])
            axis.tick_params(labelleft=False)
    for column, (view, lines) in enumerate(shown):
        _draw_view(axes[-2, column], axes[-1, column], view, lines)
        axes[0, column].set_title(view.title, fontsize=11)
        if scenes:
            _draw_scenes(axes[0, column], view.scenes)
    axes[-2, 0].set_ylabel("value")
    axes[-1, 0].set_ylabel("gradient")
    _draw_legends(figure, axes[-2])
    for axis in axes[-1, :1] if comparable else axes[-1]:
        _cut_peaks(axis)


def _draw_view(upper: Axes, lower: Axes, view: View, lines: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    for index, (x, value, gradient) in enumerate(lines):
        width = 1.8 + 0.4 * (len(lines) - 1 - index)  # so that a line under another is seen
        upper.plot(x, value, color=COLOURS[index], linewidth=width, label=view.lines[index].label)
        lower.plot(x, gradient, color=COLOURS[index], linewidth=width)
    lower.set_xlabel(view.varied)
    lower.axhline(0, color="#5b6472", linewidth=0.8, zorder=0)
    for axis in (upper, lower):
        axis.set_xlim(view.low, view.high)  # so that the scenes are above their places
        axis.grid(color="#e1e5eb", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)


def _draw_legends(figure: Figure | SubFigure, axes: Sequence[Axes]) -> None:
    """One legend for all views where it would be the same, else one for each."""
    legends = [axis.get_legend_handles_labels() for axis in axes]
    if len({tuple(labels) for _, labels in legends}) == 1:
        if legends[0][1]:
            figure.legend(*legends[0], loc="outside lower center", ncols=1 + 2 * len(axes), frameon=False, fontsize=9)
    else:
        for axis in axes:
            axis.legend(frameon=False, fontsize=9)


def _draw_scenes(axis: Axes, scenes: Sequence[Scene]) -> None:
    """Draw target and box above their place on the axis, all at one scale."""
    axis.set_axis_off()
    corners = torch.cat([corners for scene in scenes for corners in (scene.target, scene.input)])
    (left, bottom), (right, top) = corners.amin(0).tolist(), corners.amax(0).tolist()
    for index, scene in enumerate(scenes):
        cell = axis.inset_axes((index / len(scenes), 0, 1 / len(scenes), 1))
        cell.add_patch(Polygon(scene.target.numpy(), fill=False, edgecolor="#111111", linewidth=1.2))
        cell.add_patch(Polygon(scene.input.numpy(), facecolor="#0067b155", edgecolor="#0067b1", linewidth=1.2))
        cell.set(xlim=(left - 0.1, right + 0.1), ylim=(bottom - 0.1, top + 0.1), aspect="equal")
        cell.set_axis_off()


def _draw_maps(figure: SubFigure, images: Sequence[Map]) -> None:
    axes = figure.subplots(1, len(images))
    for axis, image in zip(axes, images, strict=True):
        largest = float(image.values.abs().max()) or 1.0
        low, colours = (-largest, "RdBu_r") if image.signed else (0.0, "Greys")
        drawn = axis.imshow(image.values.numpy(), cmap=colours, vmin=low, vmax=largest)
        axis.set(title=image.title, xticks=(), yticks=())
        figure.colorbar(drawn, ax=axis, shrink=0.85)


def _cut_peaks(axis: Axes) -> None:
    """Let a gradient that is huge in a few places run out of the picture, so that the rest can be read."""
    values = torch.cat([torch.as_tensor(line.get_ydata()) for other in _row(axis) for line in other.get_lines()])
    usual, largest = values.abs().quantile(0.97), values.abs().max()
    if largest > 3 * usual > 0:
        low, high = float(values.min()), float(values.max())
        axis.set_ylim(max(low, -2 * float(usual)) * 1.05, min(high, 2 * float(usual)) * 1.05)


def _row(axis: Axes) -> list[Axes]:
    return list(axis.get_shared_y_axes().get_siblings(axis))
