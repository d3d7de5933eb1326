"""Our segmentation losses against kornia's, value and gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.cases.segmentation_pixels import sample_wrong
from tests.conformance.dense import one_hot, sample, sample_binary
from tests.parity.peers import Loss, Sample, assert_same, peer, value_and_gradient

kornia = peer("kornia.losses")


def sample_volume(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    pairs = [sample_wrong(generator) for _ in range(3)]
    return torch.stack([x for x, _ in pairs], 2), torch.stack([y for _, y in pairs], 1)


def probabilities(loss: Loss) -> Loss:
    return lambda x, y: loss(x.softmax(1), y.unsqueeze(1))


SAME: dict[str, tuple[Sample, Loss, Callable[[], Loss]]] = {
    "Dice": (
        sample,
        lambda x, y: losses.dice_loss(x, y, absent="skip"),
        lambda: lambda x, y: kornia.dice_loss(x, y, average="macro", eps=0.0),
    ),
    "Dice, ignored": (
        sample,
        lambda x, y: losses.dice_loss(x, y, absent="skip", ignore_index=2),
        lambda: lambda x, y: kornia.dice_loss(x, y, average="macro", eps=0.0, ignore_index=2),
    ),
    "Tversky": (
        sample,
        lambda x, y: losses.tversky_loss(x, y, alpha=0.2, beta=0.8, absent="skip"),
        lambda: lambda x, y: kornia.tversky_loss(x, y, 0.2, 0.8, eps=0.0),
    ),
    "Lovász softmax": (
        sample,
        lambda x, y: losses.lovasz_softmax_loss(x, y, per_image=True, absent="formula"),
        lambda: kornia.lovasz_softmax_loss,
    ),
    "Lovász hinge": (sample_binary, losses.lovasz_hinge_loss, lambda: kornia.lovasz_hinge_loss),
    "Hausdorff by erosion": (
        sample_wrong,
        lambda x, y: losses.hausdorff_erosion_loss(x, y, alpha=1.5, erosions=4),
        lambda: probabilities(kornia.HausdorffERLoss(alpha=1.5, k=4)),
    ),
    "Hausdorff by erosion of a volume": (
        sample_volume,
        losses.hausdorff_erosion_loss,
        lambda: probabilities(kornia.HausdorffERLoss3D()),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_same_value_and_gradient(name: str) -> None:
    sample, ours, theirs = SAME[name]
    tolerance = 1e-6 if "erosion" in name else 1e-9  # The kernel of its erosion is float32.
    assert_same(sample, ours, theirs(), tolerance)


# Where we differ on purpose. Each case fails when kornia changes, which is when to look again.


def test_classes_have_their_own_dice_here_and_one_for_all_by_default_there() -> None:
    input, target = sample(torch.Generator().manual_seed(0))
    theirs = kornia.dice_loss(input, target)
    # Pooled over softmax classes, Dice is the mean probability of the true class, whatever their sizes.
    true = (input.softmax(1) * one_hot(target)).sum(1).mean()
    torch.testing.assert_close(theirs, 1 - true)
    assert (losses.dice_loss(input, target) - theirs).abs() > 1e-3


def test_false_positives_of_an_absent_class_are_pushed_down_here_and_left_out_there() -> None:
    input, target = sample(torch.Generator().manual_seed(0))
    absent = target.clamp(max=1)
    ours = losses.tversky_loss(input, absent, reduction="none")
    torch.testing.assert_close(ours[:, 2], input.softmax(1)[:, 2].mean((1, 2)))
    torch.testing.assert_close(ours[:, :2].mean(), kornia.tversky_loss(input, absent, 0.3, 0.7, eps=0.0))


def test_one_channel_is_binary_here_and_constant_there() -> None:
    input, target = sample_binary(torch.Generator().manual_seed(0))
    _, grad = value_and_gradient(losses.dice_loss, input, target)
    _, other = value_and_gradient(kornia.dice_loss, input, torch.zeros_like(target))
    assert grad.abs().max() > 1e-3
    assert (other == 0).all()
