"""How losses of maps and poses are shown: lines along which their input is moved, and maps of their gradient."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lossatlas.lab.views import Line, LossFunction, View, ViewMaker
from lossatlas.losses.catalog import InputKind

SIDE = 16
CENTER = 7
RADIUS = 3.5
KEYPOINTS = 17
BINS = 64


@dataclass(frozen=True)
class Map:
    """One small image.

    Args:
        title: what it shows.
        values: the numbers (H, W).
        signed: whether they are drawn in colours that diverge from 0.
    """

    title: str
    values: Tensor
    signed: bool = False


MapMaker: TypeAlias = Callable[[LossFunction], list[Map]]
"""Makes the maps of a loss."""


def _segmentation(loss: LossFunction) -> list[View]:
    def with_share(rows: int) -> Callable[[Tensor], Tensor]:
        target = torch.zeros(1, 8, 8, dtype=torch.int64)
        target[:, :rows] = 1
        sign = 2.0 * target[:, None] - 1
        return lambda x: loss(x[:, None, None, None] * sign.to(x.dtype), target.expand(len(x), 8, 8), reduction="mean")

    lines = [Line("half of the pixels foreground", with_share(4)), Line("an eighth foreground", with_share(1))]
    return [View("logit of the right answer, at every pixel", -6, 6, lines)]


def _keypoint_maps(loss: LossFunction) -> list[View]:
    share = torch.arange(1, KEYPOINTS + 1, dtype=torch.float64) / KEYPOINTS
    target = _gaussians(torch.zeros(1, KEYPOINTS, dtype=torch.float64))

    def shifted(x: Tensor) -> Tensor:
        return loss(_gaussians(x[:, None] * share), target.expand(len(x), -1, -1, -1), reduction="mean")

    def scaled(x: Tensor) -> Tensor:
        height = 1 + (x[:, None] - 1) * share
        return loss(height[..., None, None] * target, target.expand(len(x), -1, -1, -1), reduction="mean")

    return [
        View(f"shift of the worst of {KEYPOINTS} keypoints, in pixels", -6, 6, [Line("", shifted)]),
        View("height of the worst keypoint's peak, the target's is 1", -1, 3, [Line("", scaled)]),
    ]


def _part_fields(loss: LossFunction) -> list[View]:
    def at(vector: Callable[[Tensor], tuple[Tensor, Tensor]]) -> list[Line]:
        def value(x: Tensor) -> Tensor:
            field = torch.stack(vector(x), dim=1)[:, :, None]
            return loss(field, x.new_tensor([[1.0], [0.0]]).expand_as(field), reduction="none").flatten()

        return [Line("", value)]

    return [
        View("angle to the limb, in radians", -math.pi, math.pi, at(lambda x: (x.cos(), x.sin()))),
        View("length of a vector along the limb, the target's is 1", -1, 3, at(lambda x: (x, torch.zeros_like(x)))),
    ]


def _tag_maps(loss: LossFunction) -> list[View]:
    def tags(of: Callable[[Tensor], tuple[Tensor, ...]]) -> list[Line]:
        def value(x: Tensor) -> Tensor:
            people = torch.tensor([[[0, 1], [2, 3]]]).expand(len(x), 2, 2)
            return loss(torch.stack(of(x), dim=1)[:, None], people, reduction="none")

        return [Line("", value)]

    def other(x: Tensor) -> Tensor:
        return torch.ones_like(x)

    return [
        View(
            "tag of one of a person's 2 keypoints,\nthe other's is 0, those of another person 1",
            -3,
            3,
            tags(lambda x: (x, torch.zeros_like(x), other(x), other(x))),
        ),
        View("tag of all of a person,\nthat of another person is 1", -3, 3, tags(lambda x: (x, x, other(x), other(x)))),
    ]


def _keypoints(loss: LossFunction) -> list[View]:
    def of(sigma: float) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            input = torch.stack([x, torch.zeros_like(x)], dim=1)[:, None]
            extent = {"areas": x.new_ones(()), "sigmas": x.new_tensor([sigma])}
            return loss(input, torch.zeros_like(input), **extent, reduction="none")

        return value

    sigmas = {"eye": 0.025, "wrist": 0.062, "hip": 0.107}
    lines = [Line(f"{name}, σ = {sigma:g}", of(sigma)) for name, sigma in sigmas.items()]
    return [View("error of a keypoint, in square roots of the area", -0.5, 0.5, lines)]


def _scaled_keypoints(loss: LossFunction) -> list[View]:
    def value(error: Tensor, sigma: Tensor) -> Tensor:
        input = torch.stack([error, torch.zeros_like(error)], dim=1)[:, None]
        scale = sigma[:, None, None]
        return loss(input, torch.zeros_like(input), sigma=scale, reduction="none").flatten()

    def of_sigma(sigma: float) -> Callable[[Tensor], Tensor]:
        return lambda x: value(x, torch.full_like(x, sigma))

    def at_error(error: float) -> Callable[[Tensor], Tensor]:
        return lambda x: value(torch.full_like(x, error), x)

    sigmas = [Line(f"σ = {sigma:g}", of_sigma(sigma)) for sigma in (0.1, 0.3, 1.0)]
    errors = [Line(f"error {error:g}", at_error(error)) for error in (0.1, 0.3, 1.0)]
    return [View("error along one axis", -1.5, 1.5, sigmas), View("predicted scale σ", 0.05, 2, errors)]


def _coordinate_logits(loss: LossFunction) -> list[View]:
    def at(logits: Callable[[Tensor, Tensor], Tensor]) -> list[Line]:
        def value(x: Tensor) -> Tensor:
            input = logits(x[:, None], torch.arange(BINS, dtype=x.dtype))[:, None]
            target = torch.full((len(x), 1), BINS / 2, dtype=x.dtype)
            return loss(input, target, reduction="none").flatten()

        return [Line("", value)]

    shift, width = BINS / 4, 6
    return [
        View(
            f"centre of logits of a Gaussian with σ = {width},\nin bins from the target",
            -shift,
            shift,
            at(lambda x, bins: -((bins - BINS / 2 - x) ** 2) / (2 * width**2)),
        ),
        View(
            f"logit of the target's bin,\nthe other {BINS - 1} are 0",
            -6,
            12,
            at(lambda x, bins: x * (bins == BINS / 2)),
        ),
    ]


def _segmentation_maps(loss: LossFunction) -> list[Map]:
    target = (_distance(CENTER) < RADIUS).long()[None]
    logits = (1.5 * (RADIUS - _distance(CENTER + 3))).clamp(-3, 3)
    return _maps(loss, logits[None, None], target, logits=True)


def _heatmap_logit_maps(loss: LossFunction) -> list[Map]:
    target, found = _gaussians(torch.tensor([[0.0, 3.0]], dtype=torch.float64))[0]
    return _maps(loss, found.clamp(0.02, 0.98).logit(), target, logits=True)


def _keypoint_gradients(loss: LossFunction) -> list[Map]:
    shift = torch.zeros(1, KEYPOINTS, dtype=torch.float64)
    target = _gaussians(shift)
    shift[:, 0] = 3
    return _maps(loss, _gaussians(shift), target, logits=False)


def _part_gradients(loss: LossFunction) -> list[Map]:
    field = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.float64)
    field[:, 0, 6:9, 3:13] = 1
    return _maps(loss, field.roll(2, dims=2), field, logits=False)


def _maps(loss: LossFunction, input: Tensor, target: Tensor, *, logits: bool) -> list[Map]:
    """Target, prediction, and the gradient by it, each of the first image and channel."""
    input = input.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(input, target, reduction="mean"), input)
    shown = input.detach().sigmoid() if logits else input.detach()
    target, shown, gradient = (values.reshape(-1, SIDE, SIDE)[0].double() for values in (target, shown, gradient))
    return [
        Map("target", target),
        Map("predicted probability" if logits else "prediction", shown),
        Map("gradient by the logits" if logits else "gradient by the prediction", gradient, signed=True),
    ]


def _gaussians(shift: Tensor) -> Tensor:
    """Heatmaps (*shape, SIDE, SIDE) of Gaussians of height 1 that are shifted (*shape) to the right."""
    pixels = torch.arange(SIDE, dtype=shift.dtype) - CENTER
    squared = (pixels - shift[..., None, None]) ** 2 + pixels[:, None] ** 2
    return torch.exp(-squared / (2 * 2.0**2))


def _distance(x: float) -> Tensor:
    pixels = torch.arange(SIDE, dtype=torch.float64)
    return torch.hypot(pixels - x, pixels[:, None] - CENTER)


MAP_VIEWS: Mapping[InputKind, ViewMaker] = {
    "segmentation": _segmentation,
    "binary_segmentation": _segmentation,
    "keypoint_maps": _keypoint_maps,
    "part_fields": _part_fields,
    "tag_maps": _tag_maps,
    "keypoints": _keypoints,
    "scaled_keypoints": _scaled_keypoints,
    "coordinate_logits": _coordinate_logits,
}
"""The views of the losses of maps and poses."""

MAPS: Mapping[InputKind, MapMaker] = {
    "segmentation": _segmentation_maps,
    "binary_segmentation": _segmentation_maps,
    "heatmap_logits": _heatmap_logit_maps,
    "keypoint_maps": _keypoint_gradients,
    "part_fields": _part_gradients,
}
"""The maps of the kinds of input that are maps."""
