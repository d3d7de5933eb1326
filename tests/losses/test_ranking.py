"""Ranking losses beyond single cases: invariants of the papers, scale, memory and the update's own rules."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lossatlas.losses import ALRPTerms, SelfBalance, alrp_loss, ap_loss, dr_loss, ordering, rank_sort_loss
from tests.conformance.cases import ranking
from tests.memory import PeakMemory

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "ap": ap_loss,
    "ap without interpolation": lambda x, y: ap_loss(x, y, interpolated=False),
    "dr": dr_loss,
    "alrp": lambda x, y: sum_of(alrp_loss(x, y, localization_error=torch.full_like(x, 0.3))),
    "rank sort": lambda x, y: sum_of(rank_sort_loss(x, y)),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
error_driven = pytest.mark.parametrize(
    "loss", [loss for name, loss in LOSSES.items() if name != "dr"], ids=[name for name in LOSSES if name != "dr"]
)


def sum_of(terms: tuple[Tensor, Tensor]) -> Tensor:
    return terms[0] + terms[1]


def scene(count: int, positives: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits with the positives' qualities as targets, a tenth of the others ignored."""
    generator = torch.Generator().manual_seed(seed)
    target = -(torch.rand(count, generator=generator, dtype=torch.float64) < 0.1).double()
    target[:positives] = 0.05 + 0.95 * torch.rand(positives, generator=generator, dtype=torch.float64)
    shuffled = torch.randperm(count, generator=generator)
    return torch.randn(count, generator=generator, dtype=torch.float64) * 2, target[shuffled]


def gradient(loss: Loss, input: Tensor, target: Tensor) -> Tensor:
    leaf = input.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf, target), leaf)
    return grad


@error_driven
def test_gradients_of_positives_and_negatives_balance(loss: Loss) -> None:
    for seed in range(3):
        input, target = scene(300, 20, seed)
        grad = gradient(loss, input, target)
        assert abs(float(grad.sum())) < 1e-12
        assert (grad[target == 0] >= 0).all()
        assert (grad[target == -1] == 0).all()


@pytest.mark.parametrize("interpolated", [True, False])
def test_average_precision_is_the_size_of_its_gradient(interpolated: bool) -> None:
    input, target = scene(300, 20)
    value = ap_loss(input, target, interpolated=interpolated)
    grad = gradient(lambda x, y: ap_loss(x, y, interpolated=interpolated), input, target)
    torch.testing.assert_close(-grad[target > 0].sum(), value)
    torch.testing.assert_close(grad[target == 0].sum(), value)


@pytest.mark.parametrize("delta", [0.25, 1.0])
def test_loss_is_zero_exactly_when_all_positives_win_by_delta(delta: float) -> None:
    target = torch.tensor([1, 1, 0, 0, -1])
    won = torch.tensor([5.0, delta, 0.0, -2.0, 9.0])
    narrowly = torch.tensor([5.0, delta * (1 - 1e-3), 0.0, -2.0, 9.0])
    for interpolated in (True, False):
        assert ap_loss(won, target, delta=delta, interpolated=interpolated) == 0
        assert ap_loss(narrowly, target, delta=delta, interpolated=interpolated) > 0
    assert (gradient(lambda x, y: ap_loss(x, y, delta=delta), won, target) == 0).all()
    assert rank_sort_loss(won, target, delta=delta).ranking == 0
    assert rank_sort_loss(narrowly, target, delta=delta).ranking > 0


def test_a_separable_problem_is_solved_in_finitely_many_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    target = (torch.arange(120) < 12).long()
    features = torch.randn(120, 5, generator=generator)
    features[:, 0] = torch.where(target == 1, 1.0, -1.0) * (0.5 + features[:, 0].abs())
    weights = torch.zeros(5, requires_grad=True)
    for _ in range(2000):
        value = ap_loss(features @ weights, target)
        if value == 0:
            break
        (grad,) = torch.autograd.grad(value, weights)
        weights = (weights - 2 * grad).detach().requires_grad_()
    assert value == 0


def test_sorting_alone_learns_the_order_of_qualities() -> None:
    quality = torch.tensor([0.2, 0.9, 0.5, 0.7])
    logits = torch.tensor([2.0, -1.0, 1.0, 0.0])
    assert rank_sort_loss(logits, quality).ranking == 0
    for _ in range(500):
        logits = logits - gradient(lambda x, y: rank_sort_loss(x, y).sorting, logits, quality)
    assert logits.argsort().tolist() == quality.argsort().tolist()
    assert rank_sort_loss(logits, quality).sorting < 0.01


EQUAL_TO_PAIRS: dict[str, tuple[Loss, Callable[..., Any], Callable[..., Any]]] = {
    "ap": (ap_loss, ranking.ap, ranking.ap_gradient),
    "rank sort": (LOSSES["rank sort"], ranking.rank_sort, ranking.rank_sort_gradient),
    "alrp": (
        lambda x, y: sum_of(alrp_loss(x, y, localization_error=ranking.WRONG)),
        ranking.alrp,
        ranking.alrp_gradient,
    ),
}


@pytest.mark.parametrize("name", EQUAL_TO_PAIRS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_running_sums_equal_all_pairs_at_scale(name: str, dtype: torch.dtype) -> None:
    loss, value_of_pairs, gradient_of_pairs = EQUAL_TO_PAIRS[name]
    input, target = scene(20_000, 150)
    # Logits as large as those of a trained network, a third of them equal: the sums must not lose what lies between.
    input = (input * 50).to(dtype)
    input[::3] = (input[::3] / 8).round() * 8
    exact = input.double().numpy()
    expected = value_of_pairs(exact, target.numpy(), exact).sum() / 150
    expected_grad = gradient_of_pairs(exact, target.numpy()) / 150
    single = 1e-10 if dtype == torch.float64 else 1e-6
    assert loss(input, target.to(dtype) if name != "rank sort" else target).double().item() == pytest.approx(
        expected, rel=single
    )
    grad = gradient(loss, input, target)
    np.testing.assert_allclose(grad.double().numpy(), expected_grad, rtol=1e-8 if single < 1e-6 else 1e-3, atol=1e-7)


def test_the_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    input, target = scene(500, 90)
    expected, expected_grad = rank_sort_loss(input, target), gradient(LOSSES["rank sort"], input, target)
    for pairs in (1, 90 * 7, 10**9):
        monkeypatch.setattr(ordering, "_PAIRS", pairs)
        torch.testing.assert_close(rank_sort_loss(input, target), expected, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(gradient(LOSSES["rank sort"], input, target), expected_grad, rtol=1e-12, atol=1e-15)


@every_loss
def test_memory_grows_with_the_logits_and_not_with_pairs(loss: Loss) -> None:
    input, target = scene(200_000, 2000)
    input, target = input.float().requires_grad_(), target.float()
    with PeakMemory() as memory:
        loss(input, target).backward()
    # One float32 for each pair would be 1.6 GB.
    assert 200_000 * 4 < memory.peak < 40_000_000
    assert input.grad is not None


@error_driven
def test_the_update_is_a_constant_to_autograd(loss: Loss) -> None:
    input, target = scene(30, 8)
    input.requires_grad_()
    (grad,) = torch.autograd.grad(loss(input, target), input, create_graph=True)
    assert grad.abs().sum() > 0
    assert not grad.requires_grad


@error_driven
def test_the_update_is_multiplied_by_what_follows(loss: Loss) -> None:
    input, target = scene(60, 8)
    torch.testing.assert_close(
        gradient(lambda x, y: -3 * loss(x, y), input, target), -3 * gradient(loss, input, target)
    )


def test_a_weight_weighs_the_update_of_its_positive() -> None:
    input, target = scene(60, 8)
    chosen = (target > 0).nonzero()[:, 0]
    weight = torch.zeros_like(input).index_fill(0, chosen[2:3], 2.0)
    grad = gradient(lambda x, y: ap_loss(x, y, interpolated=False, weight=weight, reduction="sum"), input, target)
    alone = torch.where(torch.arange(60) == chosen[2], 1, 0)
    positive, rank, beats = ranking.precisions(input.numpy(), target.numpy(), 1.0)
    torch.testing.assert_close(grad[chosen[2]], torch.tensor(-2 * (1 - positive[2])))
    torch.testing.assert_close(grad[target == 0], torch.from_numpy(2 * beats[2] / rank[2]))
    assert (grad[(target > 0) & (alone == 0)] == 0).all()


def test_localization_term_is_differentiated_by_the_errors_alone() -> None:
    input, target = ranking.sample(torch.Generator().manual_seed(3))
    errors = ranking.ERRORS.clone().requires_grad_()
    input.requires_grad_()
    alrp_loss(input, target, localization_error=errors, reduction="sum").localization.backward()
    assert input.grad is None
    assert errors.grad is not None
    x, y = input.detach().numpy(), target.numpy()
    for k in range(ranking.COUNT):
        one = torch.zeros_like(ranking.ERRORS).index_fill(0, torch.tensor([k]), 1)
        # The term is linear in the errors: its derivative is its value at a unit vector.
        _, others, own, rank = ranking.alrp_parts(x, y, one, 1.0)
        torch.testing.assert_close(float(errors.grad[k]), float(((own + others) / rank).sum()))


def test_errors_of_what_is_not_positive_have_no_meaning() -> None:
    input, target = ranking.sample(torch.Generator().manual_seed(3))
    poisoned = torch.where(target == 1, ranking.ERRORS, torch.nan).requires_grad_()
    terms = alrp_loss(input, target, localization_error=poisoned)
    expected = alrp_loss(input, target, localization_error=ranking.ERRORS)
    torch.testing.assert_close(terms, expected)
    (grad,) = torch.autograd.grad(terms.localization, poisoned)
    assert (grad[target != 1] == 0).all()


def test_self_balance_takes_the_factor_of_the_last_period() -> None:
    balance = SelfBalance(period=2, initial=50.0)
    steps = [(0.6, 0.2), (0.4, 0.05), (0.3, 0.1), (0.1, 0.1), (0.5, 0.5)]
    factors = [50.0, 50.0, (1.0 + 0.25) / 0.25, (1.0 + 0.25) / 0.25, (0.4 + 0.2) / 0.2]
    for (classification, localization), factor in zip(steps, factors, strict=True):
        terms = ALRPTerms(torch.tensor(classification), torch.tensor(localization, requires_grad=True))
        balanced = balance(terms)
        assert balanced.classification == terms.classification
        torch.testing.assert_close(balanced.localization, terms.localization * factor)
        assert balanced.localization.requires_grad
    restored = SelfBalance(period=2)
    restored.load_state_dict(balance.state_dict())
    assert restored.factor == balance.factor
    assert restored.steps == 1
    before = restored.eval()(ALRPTerms(torch.tensor(0.1), torch.tensor(0.9)))
    assert restored.steps == 1
    assert before.localization == restored.factor * torch.tensor(0.9)


def test_self_balance_survives_a_period_without_errors() -> None:
    balance = SelfBalance(period=1, initial=3.0)
    balance(ALRPTerms(torch.tensor(0.5), torch.tensor(0.0)))
    assert balance.factor == 3


def test_self_balance_names_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`period` must be finite and at least 1, but got 0"):
        SelfBalance(period=0)
    with pytest.raises(ValueError, match="`initial` must be finite and above 0"):
        SelfBalance(period=1, initial=-1)
