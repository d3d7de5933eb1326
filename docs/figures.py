"""Draw the figures of the documentation and print their numbers: ``python docs/figures.py [FOLDER]``."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lossatlas import losses

Loss = Callable[..., Tensor]
COLOURS = ("#0067b1", "#c75000", "#00805f", "#8b3fa0", "#6d6d00", "#111111")
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
HARD = 0.5
"""An element is hard if its probability of the right answer is below this."""


def main(folder: Path) -> None:
    """Draw every figure into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(
        {"svg.hashsalt": "lossatlas", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    for draw in (focal_by_gamma, focal_shares, l1_family, balanced_l1, iou_against_l1, outlier_fits):
        figure = draw()
        path = folder / f"{draw.__name__}.svg"
        figure.savefig(path, metadata={"Date": None})
        print(f"wrote {path}")


def curves(
    variants: Mapping[str, Loss], x: Tensor, target: Tensor, varied: str, limits: tuple[float, float] | None = None
) -> Figure:
    """Draw value and gradient of several losses side by side."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, loss), colour in zip(variants.items(), COLOURS, strict=False):
        leaf = x.clone().requires_grad_()
        value = loss(leaf, target, reduction="none")
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        left.plot(x, value.detach(), label=name, color=colour)
        right.plot(x, gradient, color=colour)
    left.legend(frameon=False)
    for axis, title in ((left, "value"), (right, "gradient")):
        axis.set(title=title, xlabel=varied)
        axis.grid(color="#e1e5eb", linewidth=0.8)
    if limits:
        left.set_ylim(*limits)
    return figure


def focal_by_gamma() -> Figure:
    """Focal loss of a positive against its logit, one curve for each gamma."""
    x = torch.linspace(-5, 5, 501, dtype=torch.float64)
    variants = {f"γ = {g:g}": functools.partial(losses.sigmoid_focal_loss, alpha=None, gamma=g) for g in GAMMAS}
    return curves(variants, x, torch.ones_like(x), "logit of a positive")


def population() -> dict[str, tuple[Tensor, Tensor]]:
    """Return logits and targets of a detector's candidates: 1 positive for 1000 negatives, by difficulty.

    The logits are drawn from normal distributions, N(1, 2²) for positives and N(-5, 2²) for negatives.
    """
    generator = torch.Generator().manual_seed(0)
    positives = torch.randn(2_000, generator=generator, dtype=torch.float64) * 2 + 1
    negatives = torch.randn(2_000_000, generator=generator, dtype=torch.float64) * 2 - 5
    groups = {}
    for name, logits, label in (("positives", positives, 1.0), ("negatives", negatives, 0.0)):
        right = torch.sigmoid(logits if label else -logits)
        for difficulty, chosen in (("hard", right < HARD), ("easy", right >= HARD)):
            groups[f"{difficulty} {name}"] = (logits[chosen], torch.full((int(chosen.sum()),), label).double())
    return groups


def shares(gamma: float, alpha: float | None) -> tuple[dict[str, float], dict[str, float]]:
    """Return the share of the focal loss, and of its gradient's absolute value, that each group of candidates gets."""
    values, gradients = {}, {}
    for name, (logits, target) in population().items():
        leaf = logits.clone().requires_grad_()
        value = losses.sigmoid_focal_loss(leaf, target, alpha=alpha, gamma=gamma, reduction="sum")
        (gradient,) = torch.autograd.grad(value, leaf)
        values[name], gradients[name] = float(value.detach()), float(gradient.abs().sum())
    return tuple({n: v / sum(part.values()) for n, v in part.items()} for part in (values, gradients))  # type: ignore[return-value]


def focal_shares() -> Figure:
    """Share of value and gradient of hard and easy positives and negatives."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    settings = [(g, a) for a in (None, 0.25) for g in GAMMAS]
    rows = [shares(gamma, alpha) for gamma, alpha in settings]
    labels = [f"γ {gamma:g}" + ("" if alpha is None else f", α {alpha:g}") for gamma, alpha in settings]
    print("\nshare of the focal loss's value | gradient, 1 positive for 1000 negatives")
    names = list(rows[0][0])
    print(f"{'':14}" + "".join(f"{name:>24}" for name in names))
    for label, (value, gradient) in zip(labels, rows, strict=True):
        print(f"{label:14}" + "".join(f"{value[n]:>14.1%} | {gradient[n]:>6.1%} " for n in names))
    for axis, part, title in zip(axes, (0, 1), ("value", "gradient"), strict=True):
        start = torch.zeros(len(rows))
        for name, colour in zip(names, COLOURS, strict=False):
            width = torch.tensor([row[part][name] for row in rows])
            axis.barh(labels, width, left=start, label=name, color=colour)
            start = start + width
        axis.set(title=f"share of the {title}", xlim=(0, 1))
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def l1_family() -> Figure:
    """L1 and its relatives against the error."""
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    variants = {
        "L1": losses.l1_loss,
        "half L2": losses.l2_loss,
        "smooth L1, β = 1": losses.smooth_l1_loss,
        "smooth L1, β = 1/9": functools.partial(losses.smooth_l1_loss, beta=1 / 9),
        "Huber, δ = 2": functools.partial(losses.huber_loss, delta=2.0),
        "balanced L1": losses.balanced_l1_loss,
    }
    return curves(variants, x, torch.zeros_like(x), "error", (0, 3.5))


def balanced_l1() -> Figure:
    """Balanced L1 and its gradient for several alphas."""
    x = torch.linspace(0, 2, 401, dtype=torch.float64)
    variants = {"smooth L1": losses.smooth_l1_loss} | {
        f"α = {a:g}, γ = 1.5": functools.partial(losses.balanced_l1_loss, alpha=a) for a in (0.2, 0.3, 0.5, 1.0)
    }
    return curves(variants, x, torch.zeros_like(x), "error")


def iou_against_l1() -> Figure:
    """Predictions with the same L1 error of the corners and different IoU."""
    target = torch.tensor([2.0, 2.0, 8.0, 8.0])
    offsets = ((1.5, 1.5, 1.5, 1.5), (-1.5, -1.5, 1.5, 1.5), (1.5, 1.5, -1.5, -1.5), (3.0, 0.0, 3.0, 0.0))
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    print("\nsame L1 error of the corners")
    for axis, offset in zip(figure.subplots(1, len(offsets), sharex=True, sharey=True), offsets, strict=True):
        box = target + torch.tensor(offset)
        numbers = {
            "L1": losses.l1_loss(box, target).item(),
            "L2": losses.mse_loss(box, target).item(),
            "IoU": 1 - losses.iou_loss(box, target, mode="linear").item(),
            "GIoU loss": losses.giou_loss(box, target).item(),
        }
        text = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
        print(f"  offset {offset}: {text}")
        for corners, colour in ((target, COLOURS[2]), (box, COLOURS[1])):
            x, y, right, bottom = corners.tolist()
            axis.add_patch(Rectangle((x, y), right - x, bottom - y, fill=False, linewidth=2, edgecolor=colour))
        axis.set(xlim=(0, 12), ylim=(12, 0), aspect="equal")
        axis.set_title("\n".join(text.split(", ")), fontsize=10)
        axis.set_axis_off()
    return figure


def outlier_fits() -> Figure:
    """Lines fitted by several losses to points of which one is far off."""
    x = torch.linspace(0, 10, 11, dtype=torch.float64)
    noise = torch.randn(11, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.3
    clean = 1 + 0.5 * x + noise
    dirty = clean.clone()
    dirty[9] += 12
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    print("\nslope of the fitted line, without and with the outlier")
    for axis, (name, loss) in zip(
        figure.subplots(1, 3, sharey=True),
        {
            "half L2": losses.l2_loss,
            "L1": losses.l1_loss,
            "Huber, δ = 0.5": functools.partial(losses.huber_loss, delta=0.5),
        }.items(),
        strict=True,
    ):
        fits = [fit(x, y, loss) for y in (clean, dirty)]
        print(f"  {name:16} {fits[0][0]:.3f} {fits[1][0]:.3f}")
        _draw_fit(axis, x, dirty, fits)
        axis.set(title=f"{name}: slope {fits[0][0]:.2f} → {fits[1][0]:.2f}")
    return figure


def fit(x: Tensor, y: Tensor, loss: Loss) -> tuple[float, float]:
    """Return slope and intercept of the line with the least loss, by subgradient descent with a falling rate."""
    line = torch.tensor([0.0, float(y.median())], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([line], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4000)
    for _ in range(4000):
        optimizer.zero_grad()
        loss(line[0] * x + line[1], y).backward()
        optimizer.step()
        schedule.step()
    return float(line[0].detach()), float(line[1].detach())


def _draw_fit(axis: Axes, x: Tensor, y: Tensor, fits: list[tuple[float, float]]) -> None:
    axis.scatter(x, y, color="#111111", s=18, zorder=3)
    for (slope, intercept), colour, label in zip(fits, COLOURS, ("without the outlier", "with it"), strict=False):
        axis.plot(x, slope * x + intercept, color=colour, label=label)
    axis.legend(frameon=False, loc="upper left")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
