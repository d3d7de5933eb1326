"""Our segmentation losses against those of segmentation_models_pytorch, value and gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.dense import one_hot, sample, sample_binary
from tests.parity.peers import Loss, Sample, assert_same, peer, value_and_gradient

smp = peer("segmentation_models_pytorch.losses")


def sample_soft(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    input, _ = sample(generator)
    return input, torch.rand(input.shape, generator=generator, dtype=torch.float64)


def axis(loss: Loss) -> Loss:
    return lambda x, y: loss(x, y.unsqueeze(1))


def single(loss: Loss) -> Loss:
    """Hand over float32, the only dtype that its Lovász losses take."""
    return lambda x, y: loss(x.float(), y)


SAME: dict[str, tuple[Sample, Loss, Callable[[], Loss]]] = {
    "Dice": (
        sample,
        lambda x, y: losses.dice_loss(x, y, per_image=False),
        lambda: smp.DiceLoss("multiclass"),
    ),
    # The class that is ignored has no pixels left, and counts as 0 there.
    "Dice, ignored": (
        sample,
        lambda x, y: losses.dice_loss(x, y, per_image=False, absent="skip", ignore_index=2) * 2 / 3,
        lambda: smp.DiceLoss("multiclass", ignore_index=2),
    ),
    "Dice, one channel": (
        sample_binary,
        lambda x, y: losses.dice_loss(x, y, per_image=False, smooth=2.0),
        lambda: axis(smp.DiceLoss("binary", smooth=1.0)),
    ),
    "Dice, soft labels": (
        sample_soft,
        lambda x, y: losses.dice_loss(x, y, per_image=False, multilabel=True, overlap="minimum"),
        lambda: smp.DiceLoss("multilabel"),
    ),
    "Jaccard": (
        sample,
        lambda x, y: losses.jaccard_loss(x, y, per_image=False),
        lambda: smp.JaccardLoss("multiclass"),
    ),
    "Jaccard, labels": (
        sample,
        lambda x, y: losses.jaccard_loss(x, y, per_image=False, multilabel=True),
        lambda: lambda x, y: smp.JaccardLoss("multilabel")(x, one_hot(y)),
    ),
    "Tversky": (
        sample,
        lambda x, y: losses.tversky_loss(x, y, per_image=False, alpha=0.2, beta=0.8),
        lambda: smp.TverskyLoss("multiclass", alpha=0.2, beta=0.8),
    ),
    # Its gamma is the exponent. With one class the order of mean and power does not matter.
    "focal Tversky, one channel": (
        sample_binary,
        lambda x, y: losses.focal_tversky_loss(x, y, per_image=False, alpha=0.2, beta=0.8),
        lambda: axis(smp.TverskyLoss("binary", alpha=0.2, beta=0.8, gamma=0.75)),
    ),
    "Lovász softmax": (sample, losses.lovasz_softmax_loss, lambda: single(smp.LovaszLoss("multiclass"))),
    "Lovász softmax, ignored": (
        sample,
        lambda x, y: losses.lovasz_softmax_loss(x, y, ignore_index=1),
        lambda: single(smp.LovaszLoss("multiclass", ignore_index=1)),
    ),
    "Lovász hinge": (
        sample_binary,
        lambda x, y: losses.lovasz_hinge_loss(x, y, per_image=False),
        lambda: single(axis(smp.LovaszLoss("binary"))),
    ),
    "Lovász hinge of each image": (
        sample_binary,
        losses.lovasz_hinge_loss,
        lambda: single(axis(smp.LovaszLoss("binary", per_image=True))),
    ),
    "Matthews correlation": (
        sample_binary,
        lambda x, y: losses.mcc_loss(x, y, per_image=False),
        lambda: lambda x, y: smp.MCCLoss(eps=0)(x.sigmoid(), y),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_same_value_and_gradient(name: str) -> None:
    sample, ours, theirs = SAME[name]
    assert_same(sample, ours, theirs(), tolerance=1e-6 if "Lovász" in name else 1e-9)


# Where we differ on purpose. Each case fails when smp changes, which is when to look again.


def test_false_positives_of_an_absent_class_are_pushed_down_here_and_free_there() -> None:
    input, target = sample_binary(torch.Generator().manual_seed(0))
    empty = torch.zeros_like(target)
    value, grad = value_and_gradient(losses.dice_loss, input, empty)
    other, other_grad = value_and_gradient(axis(smp.DiceLoss("binary")), input, empty)
    assert value > 0.1
    assert (grad > 0).all()
    assert other == 0
    assert (other_grad == 0).all()


def test_power_is_that_of_each_class_here_and_of_the_mean_there() -> None:
    input, target = sample(torch.Generator().manual_seed(0))
    each = losses.tversky_loss(input, target, per_image=False, alpha=0.5, beta=0.5, reduction="none")
    ours = losses.focal_tversky_loss(input, target, per_image=False, alpha=0.5, beta=0.5, gamma=0.5)
    theirs = smp.TverskyLoss("multiclass", gamma=2.0)(input, target)
    torch.testing.assert_close(ours, each.square().mean())
    torch.testing.assert_close(theirs, each.mean().square())
    assert ours > theirs


def test_nothing_to_learn_from_is_zero_here_and_an_empty_tensor_there() -> None:
    input, target = sample(torch.Generator().manual_seed(0))
    ignored = torch.full_like(target, 255)
    assert losses.lovasz_softmax_loss(input, ignored, ignore_index=255) == 0
    assert smp.LovaszLoss("multiclass", ignore_index=255)(input, ignored).numel() == 0


def test_large_image_in_half_precision_is_right_here_and_nan_there() -> None:
    target = torch.zeros(1, 512, 512, dtype=torch.long)
    target[:, :100] = 1
    input = 12 * one_hot(target, 2) - 6
    exact = losses.dice_loss(input, target)
    torch.testing.assert_close(losses.dice_loss(input.half(), target).double(), exact, rtol=0, atol=1e-6)
    assert smp.DiceLoss("multiclass")(input.half(), target).isnan()
