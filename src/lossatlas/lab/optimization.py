"""How weights are updated: AdamW, the course of its learning rate, and a running average of the weights."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.lab.trial import TrialConfig


def build_optimizer(network: nn.Module, config: TrialConfig) -> torch.optim.AdamW:
    """Return AdamW over the weights of a network; only convolutions' weights decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(step: int, config: TrialConfig) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine down to zero behind the last step.

    Args:
        step: from 0.
        config: its `steps`, `warmup` and `learning_rate`.

    Example:
        >>> config = TrialConfig("fcos", {}, seed=0, steps=100, warmup=0.1, learning_rate=1.0)
        >>> [round(learning_rate(step, config), 3) for step in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    rising = max(1, round(config.warmup * config.steps))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, config.steps - rising)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class AveragedWeights:
    """An exponential moving average of a network's weights and of its running statistics.

    Formula:
        average ← d · average + (1 - d) · weights,  d = min(decay, (1 + step) / (10 + step))

    Args:
        network: whose weights are averaged; the average starts with them.
        decay: from 0, no averaging, to below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take the weights after step `step`, counted from 0, into the average."""
        new = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, values = _floating(self.network), _floating(network)
        torch._foreach_lerp_(averages, values, new)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved averages."""
        self.network.load_state_dict(state)


def _floating(network: nn.Module) -> list[Tensor]:
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
