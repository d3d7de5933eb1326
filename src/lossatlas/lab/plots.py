"""Plots of a loss: its value and its gradient."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossatlas.lab.loss_specs import ArgumentError, LossSpec
from lossatlas.lab.views import sample, views

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0067b1", "#c75000", "#00805f")


def plot_loss(spec: LossSpec, path: Path) -> Path:
    """Draw value and gradient of a loss.

    Args:
        spec: the loss with its options.
        path: file to write; its ending chooses the format, PNG, SVG or PDF.

    Returns:
        The path.

    Raises:
        ArgumentError: an ending that is no known format, a folder that is not there, or a loss that has no plot.
    """
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"the plot must be one of {', '.join(FORMATS)}, but got {path.name!r}")
    if not path.parent.is_dir():
        raise ArgumentError(f"there is no folder {path.parent} to write the plot into")
    try:
        shown = [(view, [sample(line, view) for line in view.lines]) for view in views(spec)]
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"loss {spec} cannot be drawn: {error}") from error
    figure = Figure(figsize=(1.4 + 3.6 * len(shown), 5.2), layout="constrained")
    figure.suptitle(str(spec), fontsize=13, fontweight="bold")
    axes = figure.subplots(2, len(shown), sharex="col", sharey="row", squeeze=False)
    for column, (view, lines) in enumerate(shown):
        for index, (x, value, gradient) in enumerate(lines):
            axes[0, column].plot(x, value, color=COLOURS[index], linewidth=2, label=view.lines[index].label)
            axes[1, column].plot(x, gradient, color=COLOURS[index], linewidth=2)
        axes[1, column].set_xlabel(view.varied)
        axes[1, column].axhline(0, color="#5b6472", linewidth=0.8, zorder=0)
        if view.lines[0].label:
            axes[0, column].legend(frameon=False)
    axes[0, 0].set_ylabel("value")
    axes[1, 0].set_ylabel("gradient")
    _cut_peaks(axes[1, 0])
    for axis in axes.flat:
        axis.grid(color="#e1e5eb", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path


def _cut_peaks(axis: Axes) -> None:
    """Let a gradient that is huge in a few places run out of the picture, so that the rest can be read."""
    values = torch.cat([torch.as_tensor(line.get_ydata()) for other in _row(axis) for line in other.get_lines()])
    usual, largest = values.abs().quantile(0.97), values.abs().max()
    if largest > 3 * usual > 0:
        low, high = float(values.min()), float(values.max())
        axis.set_ylim(max(low, -2 * float(usual)) * 1.05, min(high, 2 * float(usual)) * 1.05)


def _row(axis: Axes) -> list[Axes]:
    return list(axis.get_shared_y_axes().get_siblings(axis))
