"""What is measured: one entry for each piece of work, with every library that does the same on the same inputs.

A contender takes the inputs and returns a scalar; the harness goes forward and backward through it, unless the case
has no gradient. Peers are imported when they are first called, and left out where they are not installed. A new case is
an entry in `CASES`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import assignment, detection, poses
from benchmarks.case import Case, Contender, Inputs
from lossatlas import losses


def logits(generator: torch.Generator, size: int) -> Inputs:
    """Draw logits of a dense detector, of which one in a hundred is positive."""
    target = (torch.rand(size, generator=generator) < 0.01).float()
    return 2 * torch.randn(size, generator=generator), target


def maps(generator: torch.Generator, size: int) -> Inputs:
    """Draw class logits of two square images of 19 classes, and their index map."""
    index = torch.randint(19, (2, size, size), generator=generator)
    return torch.randn(2, 19, size, size, generator=generator), index


def qualities(generator: torch.Generator, size: int) -> Inputs:
    """Draw logits of a dense detector, of which one in a thousand is positive and has a quality."""
    quality = torch.rand(size, generator=generator)
    return 2 * torch.randn(size, generator=generator), quality * (torch.rand(size, generator=generator) < 0.001)


def _alrp(input: Tensor, target: Tensor) -> Tensor:
    terms = losses.alrp_loss(input, target, localization_error=torch.full_like(input, 0.4))
    return terms.classification + terms.localization


def _rank_sort(input: Tensor, target: Tensor) -> Tensor:
    terms = losses.rank_sort_loss(input, target)
    return terms.ranking + terms.sorting


def trained_maps(generator: torch.Generator, size: int) -> Inputs:
    """Draw the same with logits of a trained network, which is right about almost every pixel."""
    input, index = maps(generator, size)
    # In place, so that drawing takes no more memory than the logits.
    places = index.unsqueeze(1)
    return input.mul_(2).scatter_add_(1, places, torch.full((), 8.0).expand(places.shape)), index


def masks(generator: torch.Generator, size: int) -> Inputs:
    """Draw logits of two square images of one class, and their masks."""
    mask = (torch.rand(2, size, size, generator=generator) < 0.2).float()
    return 2 * torch.randn(2, 1, size, size, generator=generator), mask


def _torchvision_focal() -> Contender:
    from torchvision.ops import sigmoid_focal_loss

    return lambda x, y: sigmoid_focal_loss(x, y, reduction="mean")


def _fvcore_focal() -> Contender:
    from fvcore.nn import sigmoid_focal_loss

    return lambda x, y: sigmoid_focal_loss(x, y, alpha=0.25, reduction="mean")


def _smp_focal() -> Contender:
    from segmentation_models_pytorch.losses import FocalLoss

    contender: Contender = FocalLoss("binary", alpha=0.25)
    return contender


def _monai_focal() -> Contender:
    from monai.losses import FocalLoss

    loss = FocalLoss(use_softmax=False, alpha=0.25)
    return lambda x, y: loss(x.view(1, 1, -1), y.view(1, 1, -1))


def _kornia_focal() -> Contender:
    from kornia.losses import binary_focal_loss_with_logits

    return lambda x, y: binary_focal_loss_with_logits(x.view(1, 1, -1), y.view(1, 1, -1), 0.25, 2.0, "mean")


def _monai(name: str, **options: Any) -> Callable[[], Contender]:
    def load() -> Contender:
        import monai.losses

        loss = getattr(monai.losses, name)(softmax=True, to_onehot_y=True, **options)
        return lambda x, y: loss(x, y.unsqueeze(1))

    return load


def _smp(name: str, **options: Any) -> Callable[[], Contender]:
    def load() -> Contender:
        import segmentation_models_pytorch.losses as smp

        contender: Contender = getattr(smp, name)("multiclass", **options)
        return contender

    return load


def _smp_of_masks(name: str, **options: Any) -> Callable[[], Contender]:
    def load() -> Contender:
        import segmentation_models_pytorch.losses as smp

        contender: Contender = getattr(smp, name)("binary", **options)
        return contender

    return load


def _kornia(name: str, *options: Any) -> Callable[[], Contender]:
    def load() -> Contender:
        import kornia.losses

        function = getattr(kornia.losses, name)
        return lambda x, y: function(x, y, *options)

    return load


DENSE = (100_000, 1_000_000, 8_000_000)
RANKED = (100_000, 400_000, 1_600_000)
MAPS = (64, 192, 512)
LOVASZ = {"smp": _smp("LovaszLoss"), "kornia": _kornia("lovasz_softmax_loss")}

CASES = (
    Case(
        "sigmoid focal",
        logits,
        DENSE,
        losses.sigmoid_focal_loss,
        {
            "torchvision": _torchvision_focal,
            "fvcore": _fvcore_focal,
            "smp": _smp_focal,
            "MONAI": _monai_focal,
            "kornia": _kornia_focal,
        },
        limit=2.5,
        lead=15,
        memory=1.2,
    ),
    Case(
        "binary cross entropy",
        logits,
        DENSE,
        losses.binary_cross_entropy_with_logits,
        {"torch": lambda: F.binary_cross_entropy_with_logits},
        limit=2.5,
        lead=8,
        memory=1.2,
    ),
    Case("quality focal", logits, DENSE, losses.quality_focal_loss, limit=2.5, memory=1.2),
    Case("varifocal", logits, DENSE, losses.varifocal_loss, limit=2.5, memory=1.2),
    Case("gaussian focal", logits, DENSE, losses.gaussian_focal_loss, limit=2.5, memory=1.2),
    Case(
        "smooth L1",
        logits,
        DENSE,
        losses.smooth_l1_loss,
        {"torch": lambda: F.smooth_l1_loss},
        limit=2.5,
        memory=1.2,
    ),
    Case(
        "cross entropy",
        maps,
        MAPS,
        losses.cross_entropy,
        {"torch": lambda: F.cross_entropy},
        limit=3,
        lead=3,
        memory=1.2,
    ),
    Case(
        "softmax focal",
        maps,
        MAPS,
        losses.softmax_focal_loss,
        {"kornia": _kornia("focal_loss", 0.25, 2.0, "mean")},
        memory=1.2,
    ),
    Case(
        "Dice",
        maps,
        MAPS,
        losses.dice_loss,
        {"MONAI": _monai("DiceLoss"), "smp": _smp("DiceLoss"), "kornia": _kornia("dice_loss")},
        limit=4,
        lead=3,
        memory=1.2,
    ),
    Case(
        "Tversky",
        maps,
        MAPS,
        losses.tversky_loss,
        {
            "MONAI": _monai("TverskyLoss", alpha=0.3, beta=0.7),
            "smp": _smp("TverskyLoss", alpha=0.3, beta=0.7),
            "kornia": _kornia("tversky_loss", 0.3, 0.7),
        },
        limit=4,
        lead=3,
        memory=1.2,
    ),
    Case(
        "Dice + cross entropy",
        maps,
        MAPS,
        losses.dice_cross_entropy_loss,
        {"MONAI": _monai("DiceCELoss")},
        limit=4,
        lead=5,
        memory=1.2,
    ),
    Case(
        "Dice + focal",
        maps,
        MAPS,
        losses.dice_focal_loss,
        {"MONAI": _monai("DiceFocalLoss")},
        limit=5,
        lead=20,
        memory=1.2,
    ),
    Case("AP", logits, RANKED, losses.ap_loss),
    Case("aLRP", logits, RANKED, _alrp),
    Case("Rank & Sort", qualities, RANKED, _rank_sort),
    Case(
        "Lovász softmax",
        maps,
        MAPS,
        losses.lovasz_softmax_loss,
        LOVASZ,
        limit=80,
        lead=6,
        memory=1.2,
    ),
    # Here all pixels are sorted, which takes 16 bytes for each pixel of the batch.
    Case("Lovász softmax, trained", trained_maps, MAPS, losses.lovasz_softmax_loss, LOVASZ, limit=80, memory=1.35),
    Case(
        "Lovász hinge",
        masks,
        MAPS,
        losses.lovasz_hinge_loss,
        {"smp": _smp_of_masks("LovaszLoss", per_image=True), "kornia": _kornia("lovasz_hinge_loss")},
    ),
    *detection.CASES,
    *assignment.CASES,
    *poses.CASES,
)
