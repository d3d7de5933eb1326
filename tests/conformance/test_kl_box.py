"""The log-variance of the KL loss: what the suite says of predictions holds for it too."""

import pytest
import torch
from torch import Tensor

from lossatlas.losses import kl_box_loss


def gradient(error: float, alpha: Tensor, floor: float = -10.0) -> Tensor:
    leaf = alpha.clone().requires_grad_()
    x = torch.full_like(alpha, error)
    kl_box_loss(x, torch.zeros_like(x), log_variance=leaf, min_log_variance=floor, reduction="sum").backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("error", [0.0, 0.5, 3.0])
def test_gradient_is_the_formulas(error: float) -> None:
    alpha = torch.linspace(-6, 6, 25, dtype=torch.float64)
    smooth_l1 = error**2 / 2 if error < 1 else error - 0.5
    torch.testing.assert_close(gradient(error, alpha), 0.5 - (-alpha).exp() * smooth_l1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_extreme_variances_have_a_finite_gradient_towards_the_ordinary(dtype: torch.dtype) -> None:
    grad = gradient(1.0, torch.tensor([-1e4, -300.0, -11.0, -10.0, 12.0, 300.0, 1e4], dtype=dtype))
    assert grad.isfinite().all()
    assert (grad[:4] < -100).all()
    assert (grad[4:] > 0.49).all()


def test_below_the_floor_the_loss_is_its_tangent() -> None:
    alpha = torch.tensor([-2.0, -2.5, -4.0], dtype=torch.float64)
    x = torch.full_like(alpha, 3.0)
    loss = kl_box_loss(x, x * 0, log_variance=alpha, min_log_variance=-2.0, reduction="none")
    slope = gradient(3.0, alpha, floor=-2.0)
    torch.testing.assert_close(slope, slope[:1].expand(3))
    torch.testing.assert_close(loss, loss[0] + slope[0] * (alpha + 2))


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"`log_variance` must broadcast to \(2, 4\), but got \(3,\)"):
        kl_box_loss(torch.zeros(2, 4), torch.zeros(2, 4), log_variance=torch.zeros(3))
