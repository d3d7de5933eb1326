"""Our losses of rotated boxes against the Gaussians of `torch.distributions`."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from lossatlas import losses
from tests.conformance.cases.rotated import sample


def normal(boxes: Tensor) -> MultivariateNormal:
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    turn = torch.stack((torch.stack((cos, -sin), dim=-1), torch.stack((sin, cos), dim=-1)), dim=-2)
    return MultivariateNormal(boxes[:, :2], turn @ torch.diag_embed(boxes[:, 2:4] ** 2 / 4) @ turn.mT)


@pytest.mark.parametrize("direction", ["input_target", "target_input"])
def test_kld_loss_is_made_of_the_divergence_of_torch(direction: losses.rotated.KLDirection) -> None:
    for seed in range(5):
        input, target = sample(torch.Generator().manual_seed(seed))
        mine, other = input.clone().requires_grad_(), input.clone().requires_grad_()
        first, second = normal(other), normal(target)
        divergence = kl_divergence(*((first, second) if direction == "input_target" else (second, first)))
        expected = (1 - 1 / (1 + divergence.log1p())).mean()
        value = losses.kld_loss(mine, target, direction=direction, transform="log1p", tau=1.0)
        value.backward()
        expected.backward()
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-9)
