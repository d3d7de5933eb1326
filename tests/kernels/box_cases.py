"""Every loss of boxes, each of which has a kernel."""

import functools
from typing import Any

import torch

from lossatlas import losses
from tests.kernels.case import Case, Pair


def near_boxes(generator: torch.Generator, shape: tuple[int, ...]) -> Pair:
    """Draw boxes about their objects, most of which overlap."""
    start = 100 * torch.rand(*shape, 2, generator=generator)
    target = torch.cat((start, start + 5 + 40 * torch.rand(*shape, 2, generator=generator)), dim=-1)
    return target + 6 * torch.randn(*shape, 4, generator=generator), target


def _edges() -> tuple[Pair, ...]:
    boxes = torch.tensor(
        [
            [10.0, 10, 30, 50],
            [10.0, 10, 20, 50],
            [10.0, 10, 10, 50],
            [10.0, 10, 10, 10],
            [30.0, 50, 10, 10],
            [30.0, 10, 10, 50],
            [30.0, 20, 60, 40],
            [50.0, 60, 90, 80],
            [12.0, 14, 26, 44],
            [-1e4, -1e4, 1e4, 1e4],
        ]
    )
    pairs = torch.cartesian_prod(torch.arange(len(boxes)), torch.arange(len(boxes)))
    return ((boxes[pairs[:, 0]], boxes[pairs[:, 1]]),)


BOXES: dict[str, Any] = {
    "sample": near_boxes,
    "shapes": ((3, 5, 7), (1,), (511,), (513,), (2, 3000)),
    "weights": ((), (7,), (5, 1), (3, 1, 1), (3, 5, 7)),
    "edges": _edges(),
    # Coordinates are about 100, and what is left of their differences has their rounding error, here and in the twin.
    "rtol": 1e-5,
    "atol": 1e-5,
}

CASES = (
    Case("iou", losses.iou_loss, options=({}, {"mode": "linear"}, {"mode": "square"}), **BOXES),
    Case("giou", losses.giou_loss, **BOXES),
    Case("diou", losses.diou_loss, **BOXES),
    Case("ciou", losses.ciou_loss, options=({}, {"gradient": "unscaled"}, {"alpha": "gated"}), **BOXES),
    Case("eiou", losses.eiou_loss, **BOXES),
    Case("focal_eiou", losses.focal_eiou_loss, options=({}, {"gamma": 0.0}, {"gamma": 2.0}), **BOXES),
    Case("siou", losses.siou_loss, options=({}, {"theta": 2.5}), **BOXES),
    Case("shape_iou", losses.shape_iou_loss, options=({}, {"scale": 1.5}), **BOXES),
    Case("wiou", losses.wiou_loss, **BOXES),
    Case("nwd", losses.nwd_loss, **BOXES),
    Case("bounded_iou", losses.bounded_iou_loss, options=({}, {"beta": 0.5}), **BOXES),
    Case(
        "alpha_iou",
        losses.alpha_iou_loss,
        options=({}, {"base": "giou"}, {"base": "diou", "alpha": 2.0}, {"base": "ciou", "alpha": 0.5}),
        **BOXES,
    ),
    Case("mpdiou", functools.partial(losses.mpdiou_loss, image_size=(120, 160)), **BOXES),
    Case("powerful_iou", losses.powerful_iou_loss, options=({}, {"version": 2}), **BOXES),
    Case("inner_iou", losses.inner_iou_loss, options=({}, {"ratio": 1.3, "base": "giou"}), memory=4, **BOXES),
    Case("focaler_iou", losses.focaler_iou_loss, options=({}, {"upper": 0.6, "lower": 0.2}), memory=4, **BOXES),
)
