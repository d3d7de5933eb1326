"""The losses that count as they go, and the weights of classes by their numbers."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from lossatlas.losses import (
    EqualizedFocalLoss,
    SeesawLoss,
    class_balanced_weights,
    cross_entropy,
    equalized_focal_loss,
    seesaw_loss,
    sigmoid_focal_loss,
)
from lossatlas.losses.catalog import find


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


INDEX = torch.tensor([0, 0, 2, -100])
OTHER = torch.tensor([1, 0, 2, 2])
POSITIVE = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])


class TestSeesaw:
    def test_counts_come_before_the_loss_and_add_up(self) -> None:
        loss = SeesawLoss(3)
        first = loss(logits(4, 3), INDEX)
        assert loss.counts.tolist() == [2, 0, 1]
        torch.testing.assert_close(first, seesaw_loss(logits(4, 3), INDEX, counts=torch.tensor([2, 0, 1])))
        second = loss(logits(4, 3, seed=1), OTHER)
        assert loss.counts.tolist() == [3, 1, 3]
        torch.testing.assert_close(second, seesaw_loss(logits(4, 3, seed=1), OTHER, counts=torch.tensor([3, 1, 3])))

    def test_pixels_are_counted(self) -> None:
        loss = SeesawLoss(3)
        loss(logits(2, 3, 5, 4), torch.full((2, 5, 4), 2))
        assert loss.counts.tolist() == [0, 0, 40]

    def test_evaluation_counts_nothing(self) -> None:
        loss = SeesawLoss(3)
        loss(logits(4, 3), INDEX)
        expected = seesaw_loss(logits(4, 3), OTHER, counts=loss.counts)
        assert torch.equal(loss.eval()(logits(4, 3), OTHER), expected)
        assert loss.counts.tolist() == [2, 0, 1]

    def test_nothing_to_count(self) -> None:
        loss = SeesawLoss(3)
        x = logits(2, 3).requires_grad_()
        value = loss(x, torch.tensor([-100, -100]))
        value.backward()
        assert value == 0
        assert x.grad is not None
        assert (x.grad == 0).all()
        assert loss.counts.tolist() == [0, 0, 0]

    def test_state_is_saved(self) -> None:
        loss, other = SeesawLoss(3, p=0.5), SeesawLoss(3, p=0.5)
        loss(logits(4, 3), INDEX)
        other.load_state_dict(loss.state_dict())
        assert set(loss.state_dict()) == {"counts"}
        assert torch.equal(loss(logits(4, 3), OTHER), other(logits(4, 3), OTHER))

    def test_rare_classes_are_spared(self) -> None:
        # The gradient is S_j e^x_j / Σ: of the pressure on a rare class only S is left.
        x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        seesaw_loss(x, torch.tensor([0]), counts=torch.tensor([1000, 1]), p=0.8, q=0).backward()
        s = (1 / 1000) ** 0.8
        assert x.grad is not None
        torch.testing.assert_close(x.grad[0, 1], torch.tensor(s / (1 + s)).double())

    def test_captured_as_one_graph_with_its_state(self) -> None:
        eager = SeesawLoss(3)
        compiled = copy.deepcopy(eager)
        run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
        for target in (INDEX, OTHER):
            torch.testing.assert_close(run(logits(4, 3), target), eager(logits(4, 3), target))
        assert torch.equal(compiled.counts, eager.counts)

    def test_arguments(self) -> None:
        loss = SeesawLoss(3, p=0.5)
        entry = find(loss)
        assert entry is not None
        assert entry.name == "seesaw_loss"
        assert "3, p=0.5" in repr(loss)
        assert loss(logits(4, 3), INDEX, reduction="none").shape == (4,)
        with pytest.raises(ValueError, match=r"`counts` must have shape \(5,\), but got \(3,\)"):
            loss.eval()(logits(4, 5), INDEX)


class TestEqualizedFocal:
    def test_first_batch_has_the_focal_loss(self) -> None:
        torch.testing.assert_close(
            EqualizedFocalLoss(3)(logits(4, 3), POSITIVE), sigmoid_focal_loss(logits(4, 3), POSITIVE)
        )

    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_collects_the_gradients_of_the_sum(self, alpha: float | None, weighted: bool) -> None:
        loss = EqualizedFocalLoss(3, alpha=alpha, scale=4).double()
        positive, negative = torch.zeros(3).double(), torch.zeros(3).double()
        weight = torch.tensor([[0.5], [1.0], [2.0], [0.0]]) if weighted else None
        for seed in range(3):
            x = logits(4, 3, seed=seed).requires_grad_()
            ratios = torch.where(negative > 0, positive / negative, 1).clamp(max=1)
            torch.testing.assert_close(loss.ratios, ratios)
            expected = equalized_focal_loss(x, POSITIVE, ratios=ratios, alpha=alpha, scale=4, weight=weight)
            torch.testing.assert_close(loss(x, POSITIVE, weight=weight), expected)
            (expected * 12).backward()
            assert x.grad is not None
            positive += (x.grad.abs() * POSITIVE).sum(0)
            negative += (x.grad.abs() * (1 - POSITIVE)).sum(0)
            torch.testing.assert_close(loss.positive, positive)
            torch.testing.assert_close(loss.negative, negative)

    def test_class_without_positives_has_the_strongest_focus(self) -> None:
        loss = EqualizedFocalLoss(3)
        loss(logits(4, 3), POSITIVE)
        assert loss.ratios[2] == 0
        value = loss(logits(4, 3), POSITIVE, reduction="none")[:, 2]
        expected = 5 * sigmoid_focal_loss(logits(4, 3)[:, 2], POSITIVE[:, 2], gamma=10, reduction="none")
        torch.testing.assert_close(value, expected)

    def test_evaluation_and_ignored_elements_collect_nothing(self) -> None:
        loss = EqualizedFocalLoss(3, ignore_index=-1)
        loss(logits(4, 3), torch.full((4, 3), -1))
        loss.eval()(logits(4, 3), POSITIVE)
        assert not loss.positive.any()
        assert not loss.negative.any()
        assert loss.ratios.tolist() == [1, 1, 1]

    def test_state_is_saved(self) -> None:
        loss, other = EqualizedFocalLoss(3), EqualizedFocalLoss(3)
        loss(logits(4, 3), POSITIVE)
        other.load_state_dict(loss.state_dict())
        assert set(loss.state_dict()) == {"positive", "negative"}
        assert torch.equal(loss(logits(4, 3), POSITIVE), other(logits(4, 3), POSITIVE))

    def test_empty_batch(self) -> None:
        loss = EqualizedFocalLoss(3)
        assert loss(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
        assert loss.ratios.tolist() == [1, 1, 1]

    def test_captured_as_one_graph_with_its_state(self) -> None:
        eager = EqualizedFocalLoss(3)
        compiled = copy.deepcopy(eager)
        run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
        for seed in range(2):
            x = logits(4, 3, seed=seed)
            torch.testing.assert_close(run(x, POSITIVE), eager(x, POSITIVE))
        torch.testing.assert_close(compiled.ratios, eager.ratios)

    def test_arguments(self) -> None:
        entry = find(EqualizedFocalLoss(3))
        assert entry is not None
        assert entry.name == "equalized_focal_loss"
        with pytest.raises(ValueError, match=r"`ratios` must have shape \(5,\), but got \(3,\)"):
            EqualizedFocalLoss(3)(logits(4, 5), torch.zeros(4, 5))


class TestClassBalancedWeights:
    @pytest.mark.parametrize("beta", [0.9, 0.99, 0.999, 0.9999])
    def test_formula(self, beta: float) -> None:
        counts = [5000, 977, 37, 1]
        inverse = np.array([(1 - beta) / (1 - beta**n) for n in counts])
        weights = class_balanced_weights(torch.tensor(counts, dtype=torch.float64), beta)
        np.testing.assert_allclose(weights.numpy(), inverse * 4 / inverse.sum(), rtol=1e-10)

    def test_limits(self) -> None:
        counts = torch.tensor([100, 10, 1])
        assert class_balanced_weights(counts, 0.0).tolist() == [1, 1, 1]
        inverse = 3 / counts / (1 / counts).sum()
        torch.testing.assert_close(class_balanced_weights(counts, 1 - 1e-9), inverse, rtol=1e-4, atol=1e-5)

    def test_class_without_samples_counts_as_one(self) -> None:
        weights = class_balanced_weights(torch.tensor([0, 1, 50]), 0.9)
        assert weights[0] == weights[1]
        torch.testing.assert_close(weights.sum(), torch.tensor(3.0))

    def test_outside_the_graph(self) -> None:
        counts = torch.tensor([3.0, 5.0], requires_grad=True)
        assert not class_balanced_weights(counts, 0.9).requires_grad

    def test_weighs_cross_entropy(self) -> None:
        weights = class_balanced_weights(torch.tensor([90, 9, 1]), 0.99)
        elements = cross_entropy(logits(3, 3), torch.tensor([0, 1, 2]), reduction="none")
        weighted = cross_entropy(logits(3, 3), torch.tensor([0, 1, 2]), class_weight=weights, reduction="none")
        torch.testing.assert_close(weighted, elements * weights)

    def test_bad_arguments_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"`beta` must be finite and at least 0 and below 1, but got 1"):
            class_balanced_weights(torch.ones(3), 1)
        with pytest.raises(ValueError, match=r"`counts` must have shape \(C,\), but got \(1, 3\)"):
            class_balanced_weights(torch.ones(1, 3), 0.9)
