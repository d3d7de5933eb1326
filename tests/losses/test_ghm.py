"""Gradient harmonising: the state of its modules and what the paper says of it."""

import copy

import pytest
import torch
from torch import Tensor

from lossatlas.losses import GHMCLoss, GHMRLoss, binary_cross_entropy_with_logits, ghmc_loss, ghmr_loss
from lossatlas.losses.catalog import find

MOMENTUM = 0.75
FIRST = torch.tensor([0.05, 0.1, 0.3, 0.9]).logit()  # with targets 0 the probabilities are the gradient norms
SECOND = torch.tensor([0.6, 0.7, 0.35, 0.4]).logit()
FIRST_COUNTS = torch.tensor([2.0, 1.0, 0.0, 1.0])
SECOND_COUNTS = torch.tensor([0.0, 2.0, 2.0, 0.0])


def negatives(logits: Tensor) -> Tensor:
    return torch.zeros_like(logits)


def normal_logits(nodes: int) -> Tensor:
    """The quantiles of negatives whose logits are normal with mean -5 and deviation 2."""
    quantile = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    normal: Tensor = torch.special.ndtri(quantile)
    return 2 * normal - 5


def test_paper_average_starts_with_the_first_batch() -> None:
    loss = GHMCLoss(bins=4, momentum=MOMENTUM)
    torch.testing.assert_close(loss(FIRST, negatives(FIRST)), ghmc_loss(FIRST, negatives(FIRST), bins=4))
    assert torch.equal(loss.counts, FIRST_COUNTS)
    moved = MOMENTUM * FIRST_COUNTS + (1 - MOMENTUM) * SECOND_COUNTS
    expected = ghmc_loss(SECOND, negatives(SECOND), bins=4, counts=moved)
    torch.testing.assert_close(loss(SECOND, negatives(SECOND)), expected)
    assert torch.equal(loss.counts, moved)


def test_reference_average_starts_at_zero_and_leaves_empty_bins() -> None:
    loss = GHMCLoss(bins=4, momentum=MOMENTUM, normalization="reference")
    alone = ghmc_loss(FIRST, negatives(FIRST), bins=4, normalization="reference")
    torch.testing.assert_close(loss(FIRST, negatives(FIRST)), alone / (1 - MOMENTUM))
    assert torch.equal(loss.counts, (1 - MOMENTUM) * FIRST_COUNTS)
    loss(SECOND, negatives(SECOND))
    assert loss.counts.tolist() == [0.5, MOMENTUM * 0.25 + 0.25 * 2, 0.5, 0.25]


@pytest.mark.parametrize("normalization", ["paper", "reference"])
def test_without_momentum_each_batch_is_its_own(normalization: str) -> None:
    loss = GHMCLoss(bins=4, momentum=0, normalization=normalization)  # type: ignore[arg-type]
    for x in (FIRST, SECOND, FIRST):
        expected = ghmc_loss(x, negatives(x), bins=4, normalization=normalization)  # type: ignore[arg-type]
        torch.testing.assert_close(loss(x, negatives(x)), expected)


@pytest.mark.parametrize("make", [GHMCLoss, GHMRLoss])
def test_evaluation_keeps_nothing(make: type[GHMCLoss | GHMRLoss]) -> None:
    loss = make(bins=4)
    loss(FIRST, negatives(FIRST))
    before = loss.counts.clone()
    expected = copy.deepcopy(loss)(SECOND, negatives(SECOND))
    loss.eval()
    for _ in range(2):
        assert torch.equal(loss(SECOND, negatives(SECOND)), expected)
    assert torch.equal(loss.counts, before)


@pytest.mark.parametrize("make", [GHMCLoss, GHMRLoss])
def test_state_is_saved(make: type[GHMCLoss | GHMRLoss]) -> None:
    loss, other = make(bins=4), make(bins=4)
    loss(FIRST, negatives(FIRST))
    other.load_state_dict(loss.state_dict())
    assert set(loss.state_dict()) == {"counts", "started"}
    assert torch.equal(loss(SECOND, negatives(SECOND)), other(SECOND, negatives(SECOND)))
    assert torch.equal(loss.counts, other.counts)


@pytest.mark.parametrize("normalization", ["paper", "reference"])
def test_nothing_to_count_changes_nothing(normalization: str) -> None:
    loss = GHMCLoss(bins=4, normalization=normalization, ignore_index=-1)  # type: ignore[arg-type]
    ignored = torch.full_like(FIRST, -1)
    x = FIRST.clone().requires_grad_()
    value = loss(x, ignored)  # before the first batch
    value.backward()
    assert value == 0
    assert x.grad is not None
    assert (x.grad == 0).all()
    fresh = GHMCLoss(bins=4, normalization=normalization)  # type: ignore[arg-type]
    assert torch.equal(loss(FIRST, negatives(FIRST)), fresh(FIRST, negatives(FIRST)))
    loss(SECOND, ignored)
    assert torch.equal(loss.counts, fresh.counts)


def test_no_positives_give_an_attached_zero() -> None:
    loss = GHMRLoss()
    empty = torch.zeros(0, 4, requires_grad=True)
    value = loss(empty, torch.zeros(0, 4))
    value.backward()
    assert value == 0
    assert not loss.started
    assert empty.grad is not None


def test_regression_counts_its_own_norms() -> None:
    loss = GHMRLoss(mu=0.02, bins=4)
    norm = torch.tensor([0.1, 0.2, 0.6, 0.99])
    error = 0.02 * norm / (1 - norm**2).sqrt()
    value = loss(error, negatives(error))
    assert loss.counts.tolist() == [2, 0, 1, 1]
    torch.testing.assert_close(value, ghmr_loss(error, negatives(error), bins=4))


def test_ignored_elements_are_not_counted() -> None:
    loss = GHMCLoss(bins=4, ignore_index=-1)
    loss(torch.cat((FIRST, SECOND)), torch.cat((negatives(FIRST), torch.full_like(SECOND, -1))))
    assert torch.equal(loss.counts, FIRST_COUNTS)


@pytest.mark.slow
def test_counts_beyond_what_ones_in_single_precision_add_up_to() -> None:
    many = 2**24 + 64
    loss = GHMCLoss(bins=2)
    with torch.no_grad():
        loss(torch.zeros(1, dtype=torch.float16).expand(many), torch.ones(1, dtype=torch.float16).expand(many))
    assert loss.counts.tolist() == [0, many]


def test_captured_as_one_graph_with_its_state() -> None:
    eager = GHMCLoss(bins=4)
    compiled = copy.deepcopy(eager)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for x in (FIRST, SECOND):
        torch.testing.assert_close(run(x, negatives(x)), eager(x, negatives(x)))
    torch.testing.assert_close(compiled.counts, eager.counts)


def test_catalogue_knows_the_modules() -> None:
    entries = [find(GHMCLoss()), find(GHMRLoss())]
    assert [entry.name for entry in entries if entry is not None] == ["ghmc_loss", "ghmr_loss"]


def test_each_bin_contributes_its_mean_norm() -> None:
    # Figure 3 of the paper: the total gradient of a bin is flat, its mean norm divided by the number of bins.
    x = normal_logits(20000).requires_grad_()
    ghmc_loss(x, negatives(x), bins=30, normalization="reference").backward()
    assert x.grad is not None
    norm = x.detach().sigmoid()
    member = (norm * 30).long().clamp(max=29)
    occupied = member.unique()
    for j in occupied.tolist():
        torch.testing.assert_close(x.grad[member == j].sum(), norm[member == j].mean() / len(occupied))


def test_density_of_normal_logits() -> None:
    # The shares of the first bins of 30, and of the gradient of cross entropy in the first three.
    nodes = 400000
    x = normal_logits(nodes).requires_grad_()
    loss = GHMCLoss(bins=30, momentum=0)
    loss(x, negatives(x))
    shares = [0.7928505, 0.088243, 0.0383575, 0.021652, 0.013886, 0.0096185]
    torch.testing.assert_close(loss.counts[:6] / nodes, torch.tensor(shares), rtol=0, atol=1e-5)
    torch.testing.assert_close(loss.counts[-1] / nodes, torch.tensor(0.0000145), rtol=0, atol=3e-6)
    binary_cross_entropy_with_logits(x, negatives(x), reduction="sum").backward()
    assert x.grad is not None
    member = (x.detach().sigmoid() * 30).long()
    parts = [float(x.grad[member == j].sum() / x.grad.sum()) for j in range(3)]
    assert parts == pytest.approx([0.1796, 0.1291, 0.0970], abs=1e-4)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`momentum` must be finite and at least 0 and below 1, but got 1"):
        GHMCLoss(momentum=1)
    with pytest.raises(ValueError, match=r"`normalization` must be one of 'paper', 'reference', but got 'papers'"):
        GHMCLoss(normalization="papers")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`bins` must be finite and at least 1, but got 0"):
        GHMRLoss(bins=0)
    with pytest.raises(ValueError, match=r"`counts` must have shape \(30,\), but got \(3,\)"):
        ghmc_loss(FIRST, FIRST, counts=torch.ones(3))
