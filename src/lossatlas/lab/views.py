"""Lines along which the input of a loss is moved to show its value and its gradient: for each kind of input its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lossatlas.lab.loss_specs import ArgumentError, LossSpec, required_tensors
from lossatlas.losses.catalog import InputKind

SAMPLES = 481
SINGLE_SAMPLES = 41

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
    """Return the views that show a loss.

    Args:
        spec: the loss with its options.

    Returns:
        One view, for losses of boxes several.

    Raises:
        ArgumentError: a kind of loss that has no view, or a loss that needs an option.
    """
    kind = spec.entry.input_kind
    if kind not in VIEWS:
        raise ArgumentError(f"there is no plot of {spec.entry.name}, which takes {kind.replace('_', ' ')}")
    return VIEWS[kind](_with_zeros(spec.build(), required_tensors(spec.entry)))


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


def _with_zeros(loss: LossFunction, names: Sequence[str]) -> LossFunction:
    """Give a loss zeros for the tensors that it needs beside input and target, such as a predicted log variance."""
    return lambda x, *target, **options: loss(x, *target, **{name: torch.zeros_like(x) for name in names}, **options)


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


def _rotated_boxes(loss: LossFunction) -> list[View]:
    target = (0.0, 0.0, 2.0, 1.0, 0.0)

    def moving(place: int) -> list[Line]:
        def value(x: Tensor) -> Tensor:
            columns = [torch.full_like(x, number) for number in target]
            columns[place] = x
            other = torch.tensor(target, dtype=x.dtype).expand(len(x), 5)
            return loss(torch.stack(columns, dim=1), other, reduction="none")

        return [Line("", value)]

    return [
        View("shift along the long side of 2", -4, 4, moving(0)),
        View("long side, the target's is 2", 0.1, 6, moving(2)),
        View("angle in radians", -1.6, 1.6, moving(4)),
    ]


def _segmentation(loss: LossFunction) -> list[View]:
    def with_share(rows: int) -> Callable[[Tensor], Tensor]:
        target = torch.zeros(1, 8, 8, dtype=torch.int64)
        target[:, :rows] = 1
        sign = 2.0 * target[:, None] - 1
        return lambda x: loss(x[:, None, None, None] * sign.to(x.dtype), target.expand(len(x), 8, 8), reduction="mean")

    lines = [Line("half of the pixels foreground", with_share(4)), Line("an eighth", with_share(1))]
    return [View("logit of the right answer, at every pixel", -6, 6, lines)]


def _ranking(lines: Mapping[str, float]) -> Callable[[LossFunction], list[View]]:
    """Views of a ranking: one logit moves past two positives, of quality 0.6, and three negatives."""

    def moving(loss: LossFunction, target: float) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            logits = torch.cat([x, x.new_tensor([-2.0, -1.0, 0.0, 1.0, 2.0])])
            targets = torch.cat([torch.full_like(x, target), x.new_tensor([0.0, 0.6, 0.0, 0.6, 0.0])])
            terms: Any = loss(logits, targets)
            total: Tensor = terms[0] + terms[1] if isinstance(terms, tuple) else terms
            return total

        return value

    varied = "logit x; other positives ±1, negatives 0, ±2"
    return lambda loss: [View(varied, -6, 6, [Line(label, moving(loss, target)) for label, target in lines.items()])]


VIEWS: Mapping[InputKind, Callable[[LossFunction], list[View]]] = {
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
    "segmentation": _segmentation,
}
"""The views of each kind of input."""
