"""Table and figure of the regression simulation."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lossatlas.lab.plots import COLOURS
from lossatlas.lab.simulation import CENTER, RADIUS, SimulationResult

_SHOWN = (0.0, 0.1, 0.25, 0.5, 0.8, 1.0)
"""The parts of the iterations after which the table shows the error."""


def show_simulation(results: Sequence[SimulationResult], console: Console) -> None:
    """Print the error of each loss by iteration."""
    iterations = len(results[0].errors) - 1
    table = Table(
        title="error by iteration", caption="sum over all cases of |Δx| + |Δy| + |Δw| + |Δh|", box=SIMPLE_HEAD
    )
    table.add_column("loss", no_wrap=True)
    shown = sorted({round(part * iterations) for part in _SHOWN})
    for iteration in shown:
        table.add_column(str(iteration), justify="right", no_wrap=True)
    for result in results:
        table.add_row(result.name, *(f"{result.errors[iteration].item():.3g}" for iteration in shown))
    console.print(table)


def plot_simulation(results: Sequence[SimulationResult], title: str, path: Path) -> Path:
    """Draw the error by iteration, and where the cases started whose boxes were not found.

    Args:
        results: of `lossatlas.lab.simulation.simulate`, at least one.
        title: of the figure.
        path: file to write; its ending chooses the format.

    Returns:
        The path.
    """
    figure = Figure(figsize=(max(9.0, 2.7 * len(results)), 7.2), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.25, 1))[:, 0]
    for axis, scale in zip(upper.subplots(1, 2), ("linear", "log"), strict=True):
        for result, colour in zip(results, _colours(results), strict=True):
            axis.plot(result.errors, label=result.name, color=colour)
        axis.set(xlabel="iteration", ylabel="error, summed over all cases", yscale=scale)
        axis.grid(color="#e1e5eb", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    upper.axes[0].legend(frameon=False)
    maps = lower.subplots(1, len(results), sharex=True, sharey=True, squeeze=False)[0]
    for axis, result in zip(maps, results, strict=True):
        _draw_points(axis, result)
    lower.suptitle("mean final error of the boxes that started at a point; the target is the cross", fontsize=10)
    lower.colorbar(maps[-1].collections[0], ax=list(maps), shrink=0.8)
    figure.savefig(path, dpi=120)
    return path


def _colours(results: Sequence[SimulationResult]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(results))]


def _draw_points(axis: Axes, result: SimulationResult) -> None:
    # One scale for all losses: the distance from the rim to the target is the error of a box that never moved.
    axis.scatter(
        result.points[:, 0], result.points[:, 1], c=result.final_errors, s=3, cmap="viridis", vmin=0, vmax=RADIUS
    )
    axis.plot(CENTER, CENTER, "x", color="#d40000")
    axis.set(title=result.name, aspect="equal", xticks=(), yticks=())
