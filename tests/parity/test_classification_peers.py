"""Our classification losses against those of fvcore, kornia, MONAI, segmentation_models_pytorch and timm."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from tests.conformance.cases import classification, information
from tests.parity.peers import Loss, Sample, peer

WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25], dtype=torch.float64)


def heatmaps(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    input, target = information.sample_distributions(generator)
    return input.view(2, 3, 1, 5), target.view(2, 3, 1, 5)


# Rows: the samples, our loss, and theirs, which is imported when its row runs.
SAME: dict[str, tuple[Sample, Loss, Callable[[], Loss]]] = {
    "fvcore focal": (
        classification.sample_binary,
        lambda x, y: losses.sigmoid_focal_loss(x, y, alpha=0.3),
        lambda: lambda x, y: peer("fvcore.nn").sigmoid_focal_loss(x, y, alpha=0.3, gamma=2, reduction="mean"),
    ),
    # fvcore has no beta.
    "fvcore focal star": (
        classification.sample_binary,
        lambda x, y: losses.sigmoid_focal_star_loss(x, y, alpha=0.3, gamma=4, beta=0),
        lambda: lambda x, y: peer("fvcore.nn").sigmoid_focal_loss_star(x, y, alpha=0.3, gamma=4, reduction="mean"),
    ),
    # kornia and MONAI divide by the number of elements times the number of classes.
    "kornia softmax focal": (
        classification.sample_classes,
        lambda x, y: losses.softmax_focal_loss(x, y, alpha=0.3, gamma=1.5, ignore_index=2, reduction="sum"),
        lambda: lambda x, y: peer("kornia.losses").focal_loss(x, y, 0.3, 1.5, "sum", ignore_index=2),
    ),
    "kornia softmax focal, class weights": (
        classification.sample_classes,
        lambda x, y: losses.softmax_focal_loss(x, y, class_weight=WEIGHTS) / 5,
        lambda: lambda x, y: peer("kornia.losses").focal_loss(x, y, None, 2.0, "mean", weight=WEIGHTS),
    ),
    "kornia sigmoid focal": (
        classification.sample_binary,
        losses.sigmoid_focal_loss,
        lambda: lambda x, y: peer("kornia.losses").binary_focal_loss_with_logits(x, y, 0.25, 2.0, "mean"),
    ),
    "kornia divergence": (
        heatmaps,
        lambda x, y: losses.kl_divergence(x.flatten(2), y.flatten(2)),
        lambda: peer("kornia.losses").kl_div_loss_2d,
    ),
    "MONAI softmax focal": (
        classification.sample_classes,
        lambda x, y: losses.softmax_focal_loss(x, y, alpha=0.3) / 5,
        lambda: (
            lambda x, y: peer("monai.losses").FocalLoss(to_onehot_y=True, gamma=2.0, alpha=0.3, use_softmax=True)(
                x, y.unsqueeze(1)
            )
        ),
    ),
    "MONAI sigmoid focal": (
        classification.sample_binary,
        lambda x, y: losses.sigmoid_focal_loss(x, y, alpha=0.3),
        lambda: lambda x, y: peer("monai.losses").FocalLoss(gamma=2.0, alpha=0.3)(x[:, None], y[:, None]),
    ),
    "smp focal": (
        classification.sample_binary,
        losses.sigmoid_focal_loss,
        lambda: peer("segmentation_models_pytorch").losses.FocalLoss("binary", alpha=0.25),
    ),
    "timm asymmetric": (
        classification.sample_binary,
        lambda x, y: losses.asymmetric_loss(x, y, gamma_pos=1, reduction="sum") / 3,
        lambda: peer("timm.loss").AsymmetricLossMultiLabel(),
    ),
    "timm poly": (
        lambda generator: (torch.randn(6, 5, generator=generator).double(), torch.arange(6) % 5),
        losses.poly_loss,
        lambda: peer("timm.loss.poly_loss").PolyCrossEntropy(),
    ),
}
# fvcore, MONAI and timm compute in float32 whatever they are given.
SINGLE = ("fvcore", "MONAI", "timm")


@pytest.mark.parametrize("name", SAME)
def test_same_value_and_gradient(name: str) -> None:
    sample, ours, load = SAME[name]
    theirs = load()
    tolerance = 2e-6 if name.startswith(SINGLE) else 1e-9
    for seed in range(5):
        input, target = sample(torch.Generator().manual_seed(seed))
        mine, other = input.clone().requires_grad_(), input.clone().requires_grad_()
        value, expected = ours(mine, target), theirs(other, target)
        torch.testing.assert_close(value, expected.to(value.dtype), rtol=10 * tolerance, atol=tolerance)
        value.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=10 * tolerance, atol=tolerance)
