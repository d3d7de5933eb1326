"""Plots of a loss: its value and its gradient, along the lines that its kind of input suggests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lossatlas.lab.variants import ArgumentError, LossSpec

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0067b1", "#c75000", "#00805f")
SAMPLES = 481


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Args:
        label: for the legend, empty if it needs none.
        loss: values of what is varied (n,) to losses (n,).
    """

    label: str
    loss: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class View:
    """One way to move the input of a loss.

    Args:
        varied: what is varied, with its unit.
        low: its smallest value.
        high: its largest value.
        lines: what is drawn.
    """

    varied: str
    low: float
    high: float
    lines: Sequence[Line]


def views(spec: LossSpec) -> list[View]:
    """Return the plots that show a loss of this kind of input.

    Args:
        spec: the loss with its options.

    Returns:
        One view, for losses of boxes several.
    """
    loss = spec.build()

    def against(target: float) -> Callable[[Tensor], Tensor]:
        return lambda x: loss(x, torch.full_like(x, target), reduction="none")

    def of_class(target: int) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            logits = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], dim=1)
            return loss(logits, torch.full((len(x),), target), reduction="none")

        return value

    match spec.entry.input_kind:
        case "elementwise":
            return [View("error x - y", -3, 3, [Line("", against(0.0))])]
        case "binary_logits":
            lines = [Line("positive (y = 1)", against(1.0)), Line("negative (y = 0)", against(0.0))]
            return [View("logit x", -6, 6, lines)]
        case "quality_logits":
            lines = [Line(f"quality {quality:g}", against(quality)) for quality in (1.0, 0.5, 0.0)]
            return [View("logit x", -6, 6, lines)]
        case "class_logits":
            lines = [Line("of the target's class", of_class(0)), Line("of another class", of_class(1))]
            return [View("logit of one of 3 classes, the others 0", -6, 6, lines)]
        case "boxes":
            return _box_views(loss)


def _box_views(loss: Callable[..., Tensor]) -> list[View]:
    def between(box: Callable[[Tensor], Sequence[Tensor]]) -> list[Line]:
        def value(x: Tensor) -> Tensor:
            target = torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=x.dtype).expand(len(x), 4)
            return loss(torch.stack([*box(x)], dim=1), target, reduction="none")

        return [Line("", value)]

    def half(x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)

    return [
        View("shift, in sides of the target", -2, 2, between(lambda x: (x - 0.5, -half(x), x + 0.5, half(x)))),
        View("side, in sides of the target", 0.05, 3, between(lambda x: (-x / 2, -x / 2, x / 2, x / 2))),
        View("width alone, in sides of the target", 0.05, 3, between(lambda x: (-x / 2, -half(x), x / 2, half(x)))),
    ]


def sample(line: Line, view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a line.

    Args:
        line: of the view.
        view: gives the range.

    Returns:
        What is varied, the value of the loss, and its derivative by what is varied; each (481,) float64.
    """
    x = torch.linspace(view.low, view.high, SAMPLES, dtype=torch.float64, requires_grad=True)
    value = line.loss(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return x.detach(), value.detach(), gradient


def plot_loss(spec: LossSpec, path: Path) -> Path:
    """Draw value and gradient of a loss.

    Args:
        spec: the loss with its options.
        path: file to write; its ending chooses the format, PNG, SVG or PDF.

    Returns:
        The path.

    Raises:
        ArgumentError: an ending that is no known format, or a folder that is not there.
    """
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"the plot must be one of {', '.join(FORMATS)}, but got {path.name!r}")
    if not path.parent.is_dir():
        raise ArgumentError(f"there is no folder {path.parent} to write the plot into")
    shown = views(spec)
    figure = Figure(figsize=(1.4 + 3.6 * len(shown), 5.2), layout="constrained")
    figure.suptitle(str(spec), fontsize=13, fontweight="bold")
    axes = figure.subplots(2, len(shown), sharex="col", sharey="row", squeeze=False)
    for column, view in enumerate(shown):
        for index, line in enumerate(view.lines):
            x, value, gradient = sample(line, view)
            axes[0, column].plot(x, value, color=COLOURS[index], linewidth=2, label=line.label)
            axes[1, column].plot(x, gradient, color=COLOURS[index], linewidth=2)
        axes[1, column].set_xlabel(view.varied)
        axes[1, column].axhline(0, color="#5b6472", linewidth=0.8, zorder=0)
        if any(line.label for line in view.lines):
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
