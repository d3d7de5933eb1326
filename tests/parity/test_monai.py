"""Our segmentation losses against MONAI's, value and gradient."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.dense import one_hot, sample, sample_binary
from tests.parity.peers import Loss, Sample, assert_same, peer, value_and_gradient

monai = peer("monai.losses")

SMOOTH = 1e-5
DISTANCE = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]], dtype=torch.float64)
WEIGHT = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


def sample_soft(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    input, _ = sample(generator)
    return input, torch.rand(input.shape, generator=generator, dtype=torch.float64)


def sample_two(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    input, target = sample(generator)
    return input[:, :2], target.clamp(max=1)


def sample_volume(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    pairs = [sample(generator) for _ in range(3)]
    return torch.stack([x for x, _ in pairs], 2), torch.stack([y for _, y in pairs], 1)


def indices(loss: Loss) -> Loss:
    """Give MONAI its index map with an axis for the channel."""
    return lambda x, y: loss(x, y.unsqueeze(1))


def labels(loss: Loss) -> Loss:
    return lambda x, y: loss(x, one_hot(y))


SAME: dict[str, tuple[Sample, Loss, Callable[[], Loss]]] = {
    "Dice": (
        sample,
        lambda x, y: losses.dice_loss(x, y, smooth=SMOOTH),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True)),
    ),
    "Dice of a volume": (
        sample_volume,
        lambda x, y: losses.dice_loss(x, y, smooth=SMOOTH),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True)),
    ),
    "Dice, labels": (
        sample,
        lambda x, y: losses.dice_loss(x, y, multilabel=True, smooth=SMOOTH),
        lambda: labels(monai.DiceLoss(sigmoid=True)),
    ),
    "Dice, squared": (
        sample,
        lambda x, y: losses.dice_loss(x, y, squared=True, smooth=SMOOTH),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True)),
    ),
    "Dice over the batch without background": (
        sample,
        lambda x, y: losses.dice_loss(x, y, per_image=False, include_background=False, smooth=SMOOTH),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)),
    ),
    "Dice, soft labels": (
        sample_soft,
        lambda x, y: losses.dice_loss(x, y, multilabel=True, overlap="minimum", smooth=SMOOTH),
        lambda: monai.DiceLoss(sigmoid=True, soft_label=True),
    ),
    "Dice, class weights": (
        sample,
        lambda x, y: losses.dice_loss(x, y, weight=WEIGHT, smooth=SMOOTH),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True, weight=WEIGHT)),
    ),
    # The class that is ignored has no pixels left and a smoothed Dice of next to 0.
    "Dice, ignored": (
        sample,
        lambda x, y: losses.dice_loss(x, y, ignore_index=2, absent="formula", smooth=SMOOTH),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True, ignore_index=2)),
    ),
    # Its smoothing is added to twice the intersection and to twice the union.
    "Jaccard": (
        sample,
        lambda x, y: losses.jaccard_loss(x, y, smooth=SMOOTH / 2),
        lambda: indices(monai.DiceLoss(softmax=True, to_onehot_y=True, jaccard=True)),
    ),
    "Tversky": (
        sample,
        lambda x, y: losses.tversky_loss(x, y, alpha=0.2, beta=0.8, smooth=SMOOTH),
        lambda: indices(monai.TverskyLoss(softmax=True, to_onehot_y=True, alpha=0.2, beta=0.8)),
    ),
    "generalized Dice": (
        sample,
        losses.generalized_dice_loss,
        lambda: indices(monai.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0, smooth_dr=0)),
    ),
    "generalized Dice, other weights, over the batch": (
        sample,
        lambda x, y: losses.generalized_dice_loss(x, y, power=1.0, per_image=False),
        lambda: indices(
            monai.GeneralizedDiceLoss(
                softmax=True, to_onehot_y=True, w_type="simple", batch=True, smooth_nr=0, smooth_dr=0
            )
        ),
    ),
    "Wasserstein Dice": (
        sample,
        lambda x, y: losses.wasserstein_dice_loss(x, y, distance=DISTANCE, smooth=SMOOTH),
        lambda: monai.GeneralizedWassersteinDiceLoss(DISTANCE),
    ),
    "Matthews correlation": (
        sample,
        losses.mcc_loss,
        lambda: indices(monai.MCCLoss(softmax=True, to_onehot_y=True, smooth_dr=0)),
    ),
    "boundary": (
        sample,
        losses.boundary_loss,
        lambda: indices(monai.BoundaryLoss(softmax=True, to_onehot_y=True)),
    ),
    "Hausdorff": (
        sample,
        losses.hausdorff_dt_loss,
        lambda: indices(monai.HausdorffDTLoss(softmax=True, to_onehot_y=True, include_background=True)),
    ),
    # It pools the classes, and adds a number to the denominator.
    "clDice": (
        sample_binary,
        losses.soft_cldice_loss,
        lambda: indices(monai.SoftclDiceLoss(sigmoid=True, smooth=1e-12)),
    ),
    "Dice and clDice": (
        sample_binary,
        lambda x, y: losses.soft_cldice_loss(x, y, alpha=0.3),
        lambda: indices(monai.SoftDiceclDiceLoss(sigmoid=True, alpha=0.3, smooth=1e-12)),
    ),
    "Dice and cross entropy": (
        sample,
        lambda x, y: losses.dice_cross_entropy_loss(x, y, dice_weight=0.5, smooth=SMOOTH),
        lambda: indices(monai.DiceCELoss(softmax=True, to_onehot_y=True, lambda_dice=0.5)),
    ),
    "Dice and binary cross entropy": (
        sample_binary,
        lambda x, y: losses.dice_cross_entropy_loss(x, y, smooth=SMOOTH),
        lambda: indices(lambda x, y: monai.DiceCELoss(sigmoid=True)(x, y.double())),
    ),
    "Dice and focal, labels": (
        sample,
        lambda x, y: losses.dice_focal_loss(x, y, multilabel=True, focal_weight=0.7, gamma=1.5, smooth=SMOOTH),
        lambda: labels(monai.DiceFocalLoss(sigmoid=True, lambda_focal=0.7, gamma=1.5)),
    ),
    "generalized Dice and focal, labels": (
        sample,
        lambda x, y: losses.generalized_dice_focal_loss(x, y, multilabel=True),
        lambda: labels(monai.GeneralizedDiceFocalLoss(sigmoid=True, smooth_nr=0, smooth_dr=0)),
    ),
}

# Parts of these are float32 there, whatever the input: norms of the one-hot target, maps of distances, focal losses.
SINGLE = {"Dice, squared", "boundary", "Hausdorff", "Dice and focal, labels", "generalized Dice and focal, labels"}


@pytest.mark.parametrize("name", SAME)
def test_same_value_and_gradient(name: str) -> None:
    sample, ours, theirs = SAME[name]
    assert_same(sample, ours, theirs(), tolerance=1e-6 if name in SINGLE else 1e-9)


def test_unified_focal_loss_is_twice_its_mean_over_two_classes() -> None:
    # It takes probabilities, cuts them at 1e-7, and has the mean over the two classes where we have the sum.
    def theirs(x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = monai.AsymmetricUnifiedFocalLoss(to_onehot_y=True)(x.softmax(1), y.unsqueeze(1))
        return 2 * loss

    assert_same(sample_two, lambda x, y: losses.unified_focal_loss(x, y, delta=0.7), theirs, tolerance=1e-6)


# Where we differ on purpose. Each case fails when MONAI changes, which is when to look again.


def test_false_positives_of_an_absent_class_have_a_gradient_here_and_next_to_none_there() -> None:
    input, target = sample_binary(torch.Generator().manual_seed(0))
    empty = torch.zeros_like(target)
    _, grad = value_and_gradient(losses.dice_loss, input, empty)
    value, other = value_and_gradient(indices(monai.DiceLoss(sigmoid=True)), input, empty)
    assert grad.abs().min() > 1e-4
    assert value > 0.999
    assert other.abs().max() < 1e-6


def test_hausdorff_loss_of_an_empty_mask_counts_false_positives_here_and_is_zero_there() -> None:
    input, target = torch.full((1, 1, 6, 6), 2.0), torch.zeros(1, 6, 6, dtype=torch.long)
    theirs = monai.HausdorffDTLoss(sigmoid=True, include_background=True)
    assert losses.hausdorff_dt_loss(input, target) > 0.5
    assert theirs(input, target.unsqueeze(1).float()) == 0


def test_focal_part_follows_the_softmax_here_and_is_sigmoid_there() -> None:
    input, target = sample(torch.Generator().manual_seed(0))
    focal = functools.partial(losses.dice_focal_loss, dice_weight=0.0, focal_weight=1.0)
    theirs = indices(monai.DiceFocalLoss(softmax=True, to_onehot_y=True, lambda_dice=0.0))(input, target)
    torch.testing.assert_close(focal(input, target, multilabel=True), theirs, check_dtype=False)
    ours = focal(input, target)
    torch.testing.assert_close(ours, losses.softmax_focal_loss(input, target))
    assert (ours - theirs).abs() > 0.1


def test_weights_of_one_channel_count_the_background_here_and_cancel_there() -> None:
    input, target = sample_binary(torch.Generator().manual_seed(0))
    theirs = indices(monai.GeneralizedDiceLoss(sigmoid=True, smooth_nr=0, smooth_dr=0))(input, target)
    torch.testing.assert_close(losses.dice_loss(input, target, reduction="none").mean(), theirs)
    assert (losses.generalized_dice_loss(input, target) - theirs).abs() > 0.01


def test_large_image_in_half_precision_is_right_here_and_wrong_there() -> None:
    target = torch.zeros(1, 512, 512, dtype=torch.long)
    target[:, :100] = 1
    input = 12 * one_hot(target, 2) - 6
    exact = losses.dice_loss(input, target)
    torch.testing.assert_close(losses.dice_loss(input.half(), target).double(), exact, rtol=0, atol=1e-6)
    theirs = indices(monai.DiceLoss(softmax=True, to_onehot_y=True))(input.half(), target)
    assert (theirs - exact).abs() > 0.4
