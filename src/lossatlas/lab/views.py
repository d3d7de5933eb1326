"""Lines along which the input of a loss is moved to show its value and its gradient: for each kind of input its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lossatlas.losses.catalog import InputKind

SAMPLES = 481
SINGLE_SAMPLES = 49
SCENES = 5

LossFunction: TypeAlias = Callable[..., Tensor]
"""A loss with its options bound."""


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
class Scene:
    """A little drawing of what a place on the axis of a view means.

    Args:
        place: on the axis.
        target: corners (4, 2) of the target.
        input: corners (4, 2) of the predicted box.
    """

    place: float
    target: Tensor
    input: Tensor


@dataclass(frozen=True)
class View:
    """One way to move the input of a loss.

    Args:
        varied: what is varied, with its unit.
        low: its smallest value.
        high: its largest value.
        lines: what is drawn.
        scenes: drawings of what is varied.
        title: what the lines have in common, empty if the other views have that too.
    """

    varied: str
    low: float
    high: float
    lines: Sequence[Line]
    scenes: Sequence[Scene] = ()
    title: str = ""


ViewMaker: TypeAlias = Callable[[LossFunction], list[View]]
"""Makes the views of a loss."""


def sample(line: Line, view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Compute a line.

    Args:
        line: of the view.
        view: gives the range.

    Returns:
        What is varied, the value of the loss, and its derivative by what is varied; each (S,) float64.
    """
    x = torch.linspace(view.low, view.high, SAMPLES, dtype=torch.float64, requires_grad=True)
    value = line.loss(x)
    if value.shape != x.shape:  # one number for all that it is given: each point is a call of its own
        x = torch.linspace(view.low, view.high, SINGLE_SAMPLES, dtype=torch.float64, requires_grad=True)
        value = torch.stack([line.loss(point[None]).mean() for point in x])
    if not value.requires_grad:  # a term that is only reported
        return x.detach(), value, torch.zeros_like(value)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return x.detach(), value.detach(), gradient


def _against(loss: LossFunction, *targets: tuple[str, float]) -> list[Line]:
    """Lines of an elementwise loss, one for each target."""

    def line(target: float) -> Callable[[Tensor], Tensor]:
        return lambda x: loss(x, torch.full_like(x, target), reduction="none")

    return [Line(label, line(target)) for label, target in targets]


def _yes_and_no(loss: LossFunction) -> list[Line]:
    """Lines of a loss of yes/no targets, in a batch with as many of one as of the other: some losses weigh by that."""

    def line(wanted: float) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            target = torch.cat([torch.full_like(x, wanted), torch.full_like(x, 1 - wanted)])
            return loss(torch.cat([x, x]), target, reduction="none")[: len(x)]

        return value

    return [Line("positive (y = 1)", line(1.0)), Line("negative (y = 0)", line(0.0))]


def _elementwise(loss: LossFunction) -> list[View]:
    return [View("error x - y", -3, 3, _against(loss, ("", 0.0)))]


def _binary_logits(loss: LossFunction) -> list[View]:
    return [View("logit x", -6, 6, _yes_and_no(loss))]


def _binary_probabilities(loss: LossFunction) -> list[View]:
    return [View("probability p", 0.005, 0.995, _yes_and_no(loss))]


def _quality_logits(loss: LossFunction) -> list[View]:
    qualities = (("target 1", 1.0), ("target 0.5", 0.5), ("target 0", 0.0))
    return [View("logit x", -6, 6, _against(loss, *qualities))]


def _class_logits(loss: LossFunction) -> list[View]:
    def of_class(target: int) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            logits = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], dim=1)
            return loss(logits, torch.full((len(x),), target), reduction="none")

        return value

    lines = [Line("of the target's class", of_class(0)), Line("of another class", of_class(1))]
    return [View("logit of one of 3 classes, the others 0", -6, 6, lines)]


def _class_log_probabilities(loss: LossFunction) -> list[View]:
    def value(x: Tensor) -> Tensor:
        others = torch.log1p(-x.exp())
        return loss(torch.stack([x, others], dim=1), torch.zeros(len(x), dtype=torch.int64), reduction="none")

    return [View("log-probability of the target's class", -6, -0.01, [Line("", value)])]


def _bin_logits(loss: LossFunction) -> list[View]:
    def value(target: float) -> Callable[[Tensor], Tensor]:
        def line(x: Tensor) -> Tensor:
            logits = torch.stack([torch.zeros_like(x), x, torch.zeros_like(x)], dim=1)
            return loss(logits, torch.full_like(x, target), reduction="none")

        return line

    lines = [Line(f"target {target:g}", value(target)) for target in (1.0, 1.5, 2.0)]
    return [View("logit of the number 1, those of 0 and 2 are 0", -6, 6, lines)]


def _probabilities(loss: LossFunction) -> list[View]:
    def value(x: Tensor) -> Tensor:
        result = loss(torch.stack([x, 1 - x], dim=1), reduction="none")
        return result if result.ndim == 1 else result[:, 0]

    return [View("probability p of one of 2 outcomes", 0.005, 0.995, [Line("", value)])]


def _distributions(loss: LossFunction) -> list[View]:
    def against(target: float) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            other = torch.tensor([target, 1 - target], dtype=x.dtype).expand(len(x), 2)
            return loss(torch.stack([x, 1 - x], dim=1), other, reduction="none")

        return value

    lines = [Line(f"target {target:g}", against(target)) for target in (0.5, 0.8, 1.0)]
    return [View("predicted probability of one of 2 outcomes", 0.005, 0.995, lines)]


def _boxes(loss: LossFunction) -> list[View]:
    def view(varied: str, low: float, high: float, box: Callable[[Tensor], Sequence[Tensor]]) -> View:
        def boxes(x: Tensor) -> Tensor:
            return torch.stack([*box(x)], dim=1)

        def target(x: Tensor) -> Tensor:
            return x.new_tensor([-0.5, -0.5, 0.5, 0.5]).expand(len(x), 4)

        def corners(box: Tensor) -> Tensor:
            x1, y1, x2, y2 = box.unbind(1)
            return torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=1).view(-1, 4, 2)

        line = Line("", lambda x: loss(boxes(x), target(x), reduction="none"))
        return View(varied, low, high, [line], _scenes(low, high, lambda x: (corners(target(x)), corners(boxes(x)))))

    def half(x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)

    return [
        view("shift, in sides of the target", -2, 2, lambda x: (x - 0.5, -half(x), x + 0.5, half(x))),
        view("side, in sides of the target", 0.05, 3, lambda x: (-x / 2, -x / 2, x / 2, x / 2)),
        view("width alone, in sides of the target", 0.05, 3, lambda x: (-x / 2, -half(x), x / 2, half(x))),
    ]


def _rotated_boxes(loss: LossFunction) -> list[View]:
    right = (0.0, 0.0, 2.0, 1.0, 0.0)

    def view(varied: str, low: float, high: float, place: int) -> View:
        def target(x: Tensor) -> Tensor:
            return x.new_tensor(right).expand(len(x), 5)

        def moved(x: Tensor) -> Tensor:
            columns = [x if number == place else torch.full_like(x, right[number]) for number in range(5)]
            return torch.stack(columns, dim=1)

        line = Line("", lambda x: loss(moved(x), target(x), reduction="none"))
        return View(varied, low, high, [line], _scenes(low, high, lambda x: (_turned(target(x)), _turned(moved(x)))))

    return [
        view("shift along the long side of 2", -4, 4, 0),
        view("long side, the target's is 2", 0.1, 6, 2),
        view("angle in radians", -1.6, 1.6, 4),
    ]


def _turned(box: Tensor) -> Tensor:
    """Corners (N, 4, 2) of boxes given by centre, sides and angle."""
    center, sides, angle = box[:, None, :2], box[:, None, 2:4], box[:, 4, None]
    x, y = (sides * sides.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])).unbind(-1)
    return center + torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)


def _scenes(low: float, high: float, corners: Callable[[Tensor], tuple[Tensor, Tensor]]) -> list[Scene]:
    """Scenes at the middles of equal parts of an axis."""
    places = low + (high - low) * (torch.arange(SCENES, dtype=torch.float64) + 0.5) / SCENES
    return [Scene(*scene) for scene in zip(places.tolist(), *corners(places), strict=True)]


def _ranking(lines: Mapping[str, float]) -> Callable[[LossFunction], list[View]]:
    """Views of a ranking: one logit moves past two positives, of quality 0.6, and three negatives."""

    def moving(loss: LossFunction, target: float) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            logits = torch.cat([x, x.new_tensor([-2.0, -1.0, 0.0, 1.0, 2.0])])
            targets = torch.cat([torch.full_like(x, target), x.new_tensor([0.0, 0.6, 0.0, 0.6, 0.0])])
            return loss(logits, targets)

        return value

    varied = "logit x; other positives ±1, negatives 0, ±2"
    return lambda loss: [View(varied, -6, 6, [Line(label, moving(loss, target)) for label, target in lines.items()])]


NUMBER_VIEWS: Mapping[InputKind, ViewMaker] = {
    "elementwise": _elementwise,
    "joint_numbers": _elementwise,
    "boxes": _boxes,
    "rotated_boxes": _rotated_boxes,
    "binary_logits": _binary_logits,
    "binary_probabilities": _binary_probabilities,
    "quality_logits": _quality_logits,
    "heatmap_logits": _quality_logits,
    "bin_logits": _bin_logits,
    "class_logits": _class_logits,
    "class_log_probabilities": _class_log_probabilities,
    "distributions": _distributions,
    "probabilities": _probabilities,
    "ranking_logits": _ranking({"positive": 1.0, "negative": 0.0}),
    "ranking_qualities": _ranking({"quality 1": 1.0, "quality 0.3": 0.3, "negative": 0.0}),
}
"""The views of the losses of numbers, classes, rankings and boxes; `lossatlas.lab.map_views` has the others."""
