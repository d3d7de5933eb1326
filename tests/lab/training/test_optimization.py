import pytest
import torch
from torch import nn

from lossatlas.lab.optimization import AveragedWeights, build_optimizer, learning_rate
from lossatlas.lab.trial import TrialConfig


def config_of(**changes):
    return TrialConfig("fcos", {}, seed=0, **{"steps": 50, **changes})


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 57])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_the_rate_rises_to_its_highest_value_once_and_then_falls(steps, warmup):
    config = config_of(steps=steps, warmup=warmup, learning_rate=0.5)
    rates = [learning_rate(step, config) for step in range(steps)]
    assert max(rates) == pytest.approx(0.5)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0


def test_only_weights_of_more_than_one_axis_decay():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decays = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(network, config_of(weight_decay=0.3)).param_groups
        for parameter in group["params"]
    }
    assert [decays[id(parameter)] for parameter in network.parameters()] == [0.3, 0.0, 0.0, 0.0]


def test_the_average_of_the_weights_follows_its_formula():
    network = nn.BatchNorm1d(1)
    average = AveragedWeights(network, decay=0.5)
    values, expected = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0], 1.0
    for step, value in enumerate(values):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_var.fill_(value)
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-5)
        assert average.network.running_var.item() == pytest.approx(expected, rel=1e-5)
    assert not average.network.training
    assert not average.network.weight.requires_grad
