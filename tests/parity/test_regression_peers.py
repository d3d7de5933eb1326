"""Our regression losses against those of torch and fvcore, value and gradient, on the same inputs."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas import losses
from tests.conformance.cases.regression import sample

with warnings.catch_warnings():
    # fvcore calls torch.jit.script, which torch no longer wants, as it is imported.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    fvcore = pytest.importorskip("fvcore.nn")

Loss = Callable[[Tensor, Tensor], Tensor]

SAME: dict[str, tuple[Loss, Loss]] = {
    "torch MSE": (losses.mse_loss, F.mse_loss),
    "torch RMSE": (losses.rmse_loss, lambda x, y: F.mse_loss(x, y).sqrt()),
    "torch Huber": (
        lambda x, y: losses.huber_loss(x, y, delta=0.7),
        lambda x, y: F.huber_loss(x, y, delta=0.7),
    ),
    "torch smooth L1, sigma": (
        lambda x, y: losses.smooth_l1_sigma_loss(x, y, sigma=1.5),
        lambda x, y: F.smooth_l1_loss(x, y, beta=1 / 1.5**2),
    ),
    "fvcore smooth L1": (
        lambda x, y: losses.smooth_l1_loss(x, y, beta=0.4, reduction="sum"),
        lambda x, y: fvcore.smooth_l1_loss(x, y, beta=0.4, reduction="sum"),
    ),
    "fvcore smooth L1, beta 0": (
        lambda x, y: losses.smooth_l1_loss(x, y, beta=0),
        lambda x, y: fvcore.smooth_l1_loss(x, y, beta=0, reduction="mean"),
    ),
    "fvcore smooth L1, sigma": (
        losses.smooth_l1_sigma_loss,
        lambda x, y: fvcore.smooth_l1_loss(x, y, beta=1 / 9, reduction="mean"),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_same_value_and_gradient(name: str) -> None:
    ours, theirs = SAME[name]
    for seed in range(5):
        input, target = sample(torch.Generator().manual_seed(seed))
        mine, other = input.clone().requires_grad_(), input.clone().requires_grad_()
        value, expected = ours(mine, target), theirs(other, target)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
        value.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_kl_of_small_errors_is_the_gaussian_likelihood() -> None:
    input, target = (x / 10 for x in sample(torch.Generator().manual_seed(0)))
    alpha = torch.linspace(-4, 4, 12, dtype=torch.float64).view(3, 4).requires_grad_()
    mine, other = input.clone().requires_grad_(), input.clone().requires_grad_()
    value = losses.kl_box_loss(mine, target, log_variance=alpha)
    expected = F.gaussian_nll_loss(other, target, alpha.exp(), eps=1e-9)
    torch.testing.assert_close(value, expected)
    for one, two in zip(
        torch.autograd.grad(value, (mine, alpha)), torch.autograd.grad(expected, (other, alpha)), strict=True
    ):
        torch.testing.assert_close(one, two)


# Where we differ on purpose. It fails when torch changes, which is when to look again.


def test_rmse_without_error_has_a_gradient_here_and_nan_there() -> None:
    exact = torch.ones(3)
    mine, other = exact.clone().requires_grad_(), exact.clone().requires_grad_()
    losses.rmse_loss(mine, exact).backward()
    F.mse_loss(other, exact).sqrt().backward()
    assert mine.grad is not None
    assert other.grad is not None
    assert (mine.grad == 0).all()
    assert other.grad.isnan().all()
