"""How focal losses divide their value among easy and hard examples, against numbers computed by quadrature."""

import pytest
import torch
from torch import Tensor

from lossatlas.losses import prior_probability_bias, sigmoid_focal_loss

NODES = 400000
QUANTILES = (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES


def share_of_hardest(logits: Tensor, target: float, gamma: float, part: float) -> float:
    """Return which share of the loss the hardest part of the examples has."""
    loss = sigmoid_focal_loss(logits, torch.full_like(logits, target), alpha=None, gamma=gamma, reduction="none")
    return float(loss.sort(descending=True).values[: round(part * NODES)].sum() / loss.sum())


@pytest.mark.parametrize(
    ("gamma", "share"), [(0, 0.5218875), (0.5, 0.5858772), (1, 0.6395983), (2, 0.7244030), (5, 0.8715265)]
)
def test_positives_of_uniform_probability(gamma: float, share: float) -> None:
    assert share_of_hardest(QUANTILES.logit(), 1, gamma, 0.2) == pytest.approx(share, abs=2e-5)


@pytest.mark.parametrize(("gamma", "share"), [(0, 0.6214), (0.5, 0.7087), (1, 0.7732), (2, 0.8592)])
def test_positives_of_normal_logits(gamma: float, share: float) -> None:
    logits = 1 + 2 * torch.special.ndtri(QUANTILES)
    assert share_of_hardest(logits, 1, gamma, 0.2) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize(
    ("gamma", "shares"),
    [
        (0, (0.2417, 0.5399, 0.8390)),
        (0.5, (0.4240, 0.7636, 0.9556)),
        (1, (0.5842, 0.8900, 0.9894)),
        (2, (0.7979, 0.9791, 0.9995)),
    ],
)
def test_negatives_of_normal_logits(gamma: float, shares: tuple[float, ...]) -> None:
    logits = -5 + 2 * torch.special.ndtri(QUANTILES)
    found = [share_of_hardest(logits, 0, gamma, part) for part in (0.01, 0.05, 0.2)]
    assert found == pytest.approx(shares, abs=1e-4)


def test_initial_bias_of_the_paper() -> None:
    assert prior_probability_bias(0.01) == pytest.approx(-4.59511985, abs=1e-8)
    assert torch.tensor(prior_probability_bias(0.3)).sigmoid() == pytest.approx(0.3)
