"""What is measured of detection: losses of boxes, assignment, whole objectives."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Contender, Inputs
from lossatlas import losses
from lossatlas.assign import Assignment, MaxIoU
from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.objectives import FCOS, FCOSOutputs, RetinaNet, RetinaNetOutputs

STRIDES = (8, 16, 32, 64, 128)
CLASSES = 91
HEIGHT, WIDTH = 800, 1088


def boxes(count: int, generator: torch.Generator, extent: float = 1000.0) -> Tensor:
    """Draw boxes with sides of 10 to 100."""
    start = torch.rand(count, 2, generator=generator) * (extent - 100)
    return torch.cat((start, start + 10 + 90 * torch.rand(count, 2, generator=generator)), dim=1)


def pairs(generator: torch.Generator, size: int) -> Inputs:
    """Draw predicted boxes and their objects."""
    target = boxes(size, generator)
    return target + torch.randn(size, 4, generator=generator).clamp(-4, 4), target


def _torchvision_loss(name: str) -> Callable[[], Contender]:
    def load() -> Contender:
        import torchvision.ops

        return functools.partial(getattr(torchvision.ops, name), reduction="mean")

    return load


def _fvcore_giou() -> Contender:
    from fvcore.nn import giou_loss

    return functools.partial(giou_loss, reduction="mean")


def scene(generator: torch.Generator, size: int, *, objects: int) -> Inputs:
    """Draw the first anchors of an image of 1080 x 1080 pixels, and objects in it."""
    sizes = [(-(-1080 // stride), -(-1080 // stride)) for stride in STRIDES]
    priors = anchor_grid(sizes, STRIDES, octave_scales=(1.0, 1.26), aspect_ratios=(0.5, 1.0, 2.0))
    assert len(priors) >= size
    return priors[:size].clone(), boxes(objects, generator)


def _assign(priors: Tensor, objects: Tensor) -> Assignment:
    return MaxIoU.retinanet()(priors, {"boxes": objects, "labels": torch.zeros(len(objects), dtype=torch.int64)})


def _torchvision_matcher() -> Contender:
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    return lambda priors, objects: matcher(box_iou(objects, priors))


def _levels() -> list[tuple[int, int]]:
    return [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]


@functools.cache
def _targets(images: int) -> list[dict[str, Tensor]]:
    """Ten objects in each image."""
    generator = torch.Generator().manual_seed(1)
    return [
        {"boxes": boxes(10, generator, HEIGHT), "labels": torch.randint(CLASSES, (10,), generator=generator)}
        for _ in range(images)
    ]


def retinanet_outputs(generator: torch.Generator, size: int) -> Inputs:
    """Draw class logits and deltas of some images."""
    anchors = anchor_grid(_levels(), STRIDES)
    logits = torch.randn(size, len(anchors), CLASSES, generator=generator) - 4
    return logits, (0.1 * torch.randn(size, len(anchors), 4, generator=generator)).requires_grad_(), anchors


def _retinanet(logits: Tensor, deltas: Tensor, anchors: Tensor) -> Tensor:
    return RetinaNet()(RetinaNetOutputs(logits, deltas, anchors), _targets(len(logits))).total


def _torchvision_retinanet() -> Contender:
    from torchvision.models.detection import retinanet
    from torchvision.models.detection._utils import Matcher

    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    model: Any = SimpleNamespace(head=retinanet.RetinaNetHead(8, 9, CLASSES), proposal_matcher=matcher)

    def run(logits: Tensor, deltas: Tensor, anchors: Tensor) -> Tensor:
        head = {"cls_logits": logits, "bbox_regression": deltas}
        targets = _targets(len(logits))
        terms = retinanet.RetinaNet.compute_loss(model, targets, head, [anchors] * len(targets))
        return torch.stack(list(terms.values())).sum()

    return run


def fcos_outputs(generator: torch.Generator, size: int) -> Inputs:
    """Draw class logits, distances and centerness of some images."""
    points, strides = point_grid(_levels(), STRIDES)
    logits = torch.randn(size, len(points), CLASSES, generator=generator) - 4
    distances = (0.1 + 4 * torch.rand(size, len(points), 4, generator=generator)).requires_grad_()
    centerness = torch.randn(size, len(points), 1, generator=generator).requires_grad_()
    return logits, distances, centerness, points, strides


def _fcos(logits: Tensor, distances: Tensor, centerness: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    outputs = FCOSOutputs(logits, distances, centerness[..., 0], points, strides)
    return FCOS()(outputs, _targets(len(logits))).total


def _torchvision_fcos() -> Contender:
    from torchvision.models.detection import fcos

    model: Any = SimpleNamespace(head=fcos.FCOSHead(32, 1, CLASSES), center_sampling_radius=1.5)
    counts = [height * width for height, width in _levels()]

    def run(logits: Tensor, distances: Tensor, centerness: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        half = strides[:, None] / 2
        cells = torch.cat((points - half, points + half), dim=1)
        head = {"cls_logits": logits, "bbox_regression": distances, "bbox_ctrness": centerness}
        targets = _targets(len(logits))
        terms = fcos.FCOS.compute_loss(model, targets, head, [cells] * len(targets), counts)
        return torch.stack(list(terms.values())).sum()

    return run


CASES = (
    *(
        Case(
            f"CIoU, {size:,} pairs",
            pairs,
            (size,),
            losses.ciou_loss,
            {"torchvision": _torchvision_loss("complete_box_iou_loss")},
            lead=lead,
        )
        for size, lead in ((256, 5), (200_000, 8))
    ),
    Case(
        "GIoU, 200,000 pairs",
        pairs,
        (200_000,),
        losses.giou_loss,
        {"torchvision": _torchvision_loss("generalized_box_iou_loss"), "fvcore": _fvcore_giou},
    ),
    *(
        Case(
            f"max-IoU assignment, {objects:,} objects",
            functools.partial(scene, objects=objects),
            (12_000, 120_000),
            _assign,
            {"torchvision": _torchvision_matcher},
            lead=lead,
            backward=False,
        )
        for objects, lead in ((10, 5), (100, 8), (1000, 25))
    ),
    Case("RetinaNet", retinanet_outputs, (1, 2), _retinanet, {"torchvision": _torchvision_retinanet}, lead=6),
    Case("FCOS", fcos_outputs, (1, 2), _fcos, {"torchvision": _torchvision_fcos}, lead=6),
)
