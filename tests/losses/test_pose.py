"""What is particular to pose losses: keypoints and pixels that are left out, and predictions beside the input."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lossatlas import losses

KEYPOINTS = 5


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradient(loss: Callable[..., Tensor], input: Tensor, *others: Tensor, **options: Any) -> Any:
    leaf = input.clone().requires_grad_()
    value = loss(leaf, *others, **options)
    return value.detach(), *torch.autograd.grad(value, leaf)


def oks(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    sigmas = torch.linspace(0.2, 0.4, KEYPOINTS)[: input.shape[-2]]
    return losses.oks_loss(input, target, areas=torch.tensor(2.0), sigmas=sigmas, **options)


def rle(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    flow = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    return losses.rle_loss(input, target, sigma=torch.tensor(0.5), log_density=flow.log_prob, **options)


def ohkm(input: Tensor, target: Tensor, **options: Any) -> Tensor:
    return losses.joint_ohkm_loss(input, target, topk=2, **options)


POSES = (rand(3, KEYPOINTS, 2), rand(3, KEYPOINTS, 2, seed=1))
LOGITS = (rand(3, KEYPOINTS, 8), rand(3, KEYPOINTS, seed=1) * 7)
MAPS = (rand(3, KEYPOINTS, 2, 2), rand(3, KEYPOINTS, 2, 2, seed=1))
OF_KEYPOINTS = [
    pytest.param(oks, POSES, id="oks"),
    pytest.param(rle, POSES, id="rle"),
    pytest.param(losses.simcc_loss, LOGITS, id="simcc"),
    pytest.param(ohkm, MAPS, id="joint_ohkm"),
]


@pytest.mark.parametrize(("loss", "pair"), OF_KEYPOINTS)
@pytest.mark.parametrize("poison", [1e4, torch.inf, torch.nan])
@pytest.mark.parametrize("flags", [torch.int64, torch.bool, torch.float32])
def test_a_keypoint_that_is_not_labelled_changes_nothing(
    loss: Callable[..., Tensor], pair: tuple[Tensor, Tensor], poison: float, flags: torch.dtype
) -> None:
    input, target = (tensor.clone() for tensor in pair)
    visibility = torch.full((3, KEYPOINTS), 2)
    input[:, -1], target[:, -1], visibility[:, -1] = poison, -poison, 0
    value, grad = value_and_gradient(loss, input, target, visibility=visibility.to(flags))
    expected, expected_grad = value_and_gradient(loss, pair[0][:, :-1], pair[1][:, :-1])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad[:, :-1], expected_grad)
    assert (grad[:, -1] == 0).all()


@pytest.mark.parametrize(("loss", "pair"), OF_KEYPOINTS)
def test_a_person_without_labelled_keypoints_is_not_counted(
    loss: Callable[..., Tensor], pair: tuple[Tensor, Tensor]
) -> None:
    visibility = torch.ones(3, KEYPOINTS)
    visibility[1] = 0
    value, grad = value_and_gradient(loss, *pair, visibility=visibility)
    kept = torch.tensor([0, 2])
    expected, expected_grad = value_and_gradient(loss, pair[0][kept], pair[1][kept])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad[kept], expected_grad)
    assert (grad[1] == 0).all()


@pytest.mark.parametrize(("loss", "pair"), OF_KEYPOINTS)
def test_bad_flags_are_named(loss: Callable[..., Tensor], pair: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"`visibility` must have one number .* shape \(3, 5\), but got \(3, 1\)"):
        loss(*pair, visibility=torch.ones(3, 1))
    with pytest.raises(TypeError, match=r"`visibility` must be a tensor, but got list"):
        loss(*pair, visibility=[1])


def test_a_person_without_an_area_costs_one_for_each_keypoint_that_is_off() -> None:
    input, target = torch.zeros(1, 2, 2), torch.tensor([[[0.0, 0.0], [0.0, 1e-3]]])
    value = losses.oks_loss(input, target, areas=torch.tensor([0.0]), sigmas=torch.ones(2), reduction="none")
    assert value.tolist() == [0.5]


def test_ohkm_takes_the_worst_of_the_labelled() -> None:
    errors = torch.tensor([[4.0, 3.0, 2.0, 1.0, 9.0]]).view(1, 5, 1, 1)
    visibility = torch.tensor([[1, 1, 1, 1, 0]])
    _, grad = value_and_gradient(ohkm, errors, torch.zeros_like(errors), visibility=visibility)
    assert grad.flatten().tolist() == [4.0, 3.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("loss", [losses.heatmap_mse_loss, losses.part_affinity_loss])
@pytest.mark.parametrize("axis_of_maps", [None, 1, "all"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "half_batch"])
def test_masked_pixels_change_nothing(
    loss: Callable[..., Tensor], axis_of_maps: int | str | None, reduction: str
) -> None:
    input, target = rand(2, 4, 3, 3), rand(2, 4, 3, 3, seed=1)
    expected, expected_grad = value_and_gradient(loss, input[..., 1:], target[..., 1:], reduction=reduction)
    mask = torch.ones(2, 3, 3)
    mask[..., 0] = 0
    if axis_of_maps is not None:
        maps = 1 if axis_of_maps == 1 else 4 if loss is losses.heatmap_mse_loss else 2
        mask = mask[:, None].expand(-1, maps, -1, -1)
    input[..., 0], target[..., 0] = torch.nan, torch.inf
    value, grad = value_and_gradient(loss, input, target, mask=mask, reduction=reduction)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad[..., 1:], expected_grad)
    assert (grad[..., 0] == 0).all()


def test_a_mask_of_single_limbs_takes_out_both_of_their_maps() -> None:
    input, target = rand(1, 4, 1, 2), torch.zeros(1, 4, 1, 2)
    mask = torch.tensor([True, False]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    value = losses.part_affinity_loss(input, target, mask=mask, reduction="sum")
    torch.testing.assert_close(value, input[:, :2].square().sum())


def test_half_batch_takes_no_normalizer_and_bad_maps_are_named() -> None:
    maps = rand(2, 3, 2, 2)
    with pytest.raises(ValueError, match=r"`normalizer` replaces the count .* `reduction` is 'half_batch'"):
        losses.heatmap_mse_loss(maps, maps, reduction="half_batch", normalizer=2.0)
    with pytest.raises(ValueError, match=r"`mask` must have shape \(2, 2, 2\), or .* but got \(2, 3\)"):
        losses.heatmap_mse_loss(maps, maps, mask=torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"`mask` must be a tensor, but got float"):
        losses.heatmap_mse_loss(maps, maps, mask=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`input` must have two maps for each limb, but got 3 maps"):
        losses.part_affinity_loss(maps, maps)
    with pytest.raises(ValueError, match=r"`topk` must be finite and at least 1 and at most 3, but got 8"):
        losses.joint_ohkm_loss(maps, maps)
    with pytest.raises(TypeError, match=r"`topk` must be an integer, but got 2\.0"):
        losses.joint_ohkm_loss(maps, maps, topk=2.0)  # type: ignore[arg-type]


def test_tags_of_nobody_change_nothing() -> None:
    tags, target = rand(1, 2, 1, 3), torch.tensor([[[0, 4], [2, -1], [-1, -1]]])
    elsewhere = torch.tensor([1, 3, 5])
    expected = losses.associative_embedding_loss(tags, target)
    tags.view(-1)[elsewhere] = torch.nan
    leaf = tags.requires_grad_()
    terms = losses.associative_embedding_loss(leaf, target)
    torch.testing.assert_close(terms, expected)
    (grad,) = torch.autograd.grad(terms.pull + terms.push, leaf)
    assert (grad.view(-1)[elsewhere] == 0).all()
    assert (grad.view(-1)[[0, 4, 2]] != 0).all()


def test_no_people_give_terms_with_a_graph() -> None:
    leaf = rand(2, 3, 2, 2).requires_grad_()
    for target in (torch.full((2, 4, 3), -1), torch.zeros(2, 0, 3, dtype=torch.long)):
        terms = losses.associative_embedding_loss(leaf, target)
        for term in terms:
            assert term.item() == 0
            (grad,) = torch.autograd.grad(term, leaf, retain_graph=True)
            assert (grad == 0).all()


def test_bad_tags_are_named() -> None:
    tags, target = rand(2, 3, 2, 2), torch.zeros(2, 4, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"`variant` must be one of 'paper', 'reference', but got 'mmpose'"):
        losses.associative_embedding_loss(tags, target, variant="mmpose")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`dimensions` must divide the 3 maps of `input`, but got 2"):
        losses.associative_embedding_loss(tags, target, dimensions=2)
    with pytest.raises(ValueError, match=r"`target` must have shape \(2, people, keypoints\), but got \(2, 4\)"):
        losses.associative_embedding_loss(tags, target[..., 0])
    with pytest.raises(TypeError, match=r"`target` must have an integer dtype, but got torch.float32"):
        losses.associative_embedding_loss(tags, target.float())


@pytest.mark.parametrize("base", ["laplace", "gaussian"])
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_scale_and_density_learn(base: Any, variant: Any) -> None:
    x, y = (tensor[0].clone().requires_grad_() for tensor in POSES)
    sigma = (rand(KEYPOINTS, 2, seed=2) + 0.2).requires_grad_()
    log_phi = rand(KEYPOINTS, seed=3).requires_grad_()

    def loss(x: Tensor, y: Tensor, sigma: Tensor, log_phi: Tensor) -> Tensor:
        return losses.rle_loss(x, y, sigma=sigma, log_density=log_phi, base=base, variant=variant)

    assert torch.autograd.gradcheck(loss, (x, y, sigma, log_phi))


def test_a_flow_is_trained_with_the_network() -> None:
    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, error: Tensor) -> Tensor:
            return self.log_scale.sum() - (error * self.log_scale.exp()).square().sum(-1) / 2

    module = losses.RLELoss(log_density=Flow(), sigma=torch.tensor(0.5))
    visibility = torch.ones(3, KEYPOINTS)
    visibility[0, 0] = 0
    poisoned = POSES[0].clone()
    poisoned[0, 0] = torch.nan
    module(poisoned, POSES[1], visibility=visibility).backward()
    assert [name for name, _ in module.named_parameters()] == ["log_density.log_scale"]
    (parameter,) = module.parameters()
    assert parameter.grad is not None
    assert parameter.grad.isfinite().all()
    assert (parameter.grad != 0).all()


def test_bad_scales_and_densities_are_named() -> None:
    x, y = POSES
    sigma = torch.tensor(0.5)
    with pytest.raises(ValueError, match=r"`log_density` must .* shape \(3, 5\), but got \(3, 5, 2\)"):
        losses.rle_loss(x, y, sigma=sigma, log_density=lambda error: error)
    with pytest.raises(ValueError, match=r"`sigma` must broadcast to \(3, 5, 2\), but got \(3,\)"):
        losses.rle_loss(x, y, sigma=torch.ones(3))
    with pytest.raises(ValueError, match=r"`base` must be one of 'laplace', 'gaussian', but got 'normal'"):
        losses.rle_loss(x, y, sigma=sigma, base="normal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`sigmas` must have shape \(5,\), but got \(3,\)"):
        losses.oks_loss(x, y, areas=sigma, sigmas=torch.ones(3))
    with pytest.raises(ValueError, match=r"`areas` must broadcast to \(3,\), but got \(5,\)"):
        losses.oks_loss(x, y, areas=torch.ones(5), sigmas=torch.ones(5))


def test_bad_bins_are_named() -> None:
    logits, places = LOGITS
    with pytest.raises(
        ValueError, match=r"`target` must be coordinates \(3, 5\) or labels \(3, 5, 8\), but got \(3, 5, 7\)"
    ):
        losses.simcc_loss(logits, logits[..., 1:])
    with pytest.raises(ValueError, match=r"`label_smoothing` needs `sigma=None`, one-hot labels, but got sigma 6\.0"):
        losses.simcc_loss(logits, places, label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"`bin_reduction` must be one of 'mean', 'sum', but got 'batch'"):
        losses.simcc_loss(logits, places, bin_reduction="batch")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`target` must have a floating-point dtype, but got torch.int64"):
        losses.simcc_loss(logits, logits.long())
