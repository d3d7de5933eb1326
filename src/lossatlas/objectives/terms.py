"""What an objective returns, and what its terms are divided by."""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Self, get_args

import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor, nn

from lossatlas.checks import check_choice, check_number

NormalizerMode = Literal["batch", "image", "all_reduce", "moving_average"]

LEAST_WEIGHT = 1e-6
"""Floor of a sum of weights that a term is divided by: without positives it is 0."""


class LossTerms(Mapping[str, Tensor]):
    """The terms of an objective by name: scalars that already carry their weights.

    Example:
        >>> terms = LossTerms({"class": torch.tensor(1.0), "box": torch.tensor(0.5)})
        >>> terms["box"], terms.total
        (tensor(0.5000), tensor(1.5000))
    """

    def __init__(self, terms: Mapping[str, Tensor]) -> None:
        if not terms:
            raise ValueError("`terms` must hold at least one term, but is empty")
        self._terms = dict(terms)

    @property
    def total(self) -> Tensor:
        """Sum of the terms: what to call ``backward()`` on."""
        return torch.stack(tuple(self._terms.values())).sum()

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __repr__(self) -> str:
        return f"LossTerms({self._terms!r})"


class Scale(NamedTuple):
    """How the sum of a term is scaled: Σ image_weight[image of i] · lᵢ / denominator."""

    denominator: Tensor
    """0-d, above 0."""
    image_weight: Tensor | None
    """``(B,)`` factors of the images, or None for all 1."""

    def weight_of(self, image: Tensor) -> Tensor | None:
        """Return the factors of elements that belong to the given images, None for all 1."""
        return None if self.image_weight is None else self.image_weight[image]

    def weigh(self, image: Tensor, weight: Tensor | None) -> Tensor | None:
        """Return the product of `weight_of` the images and the elements' own factors, None for all 1."""
        factor = self.weight_of(image)
        return weight if factor is None else factor if weight is None else weight * factor


class PositiveNormalizer(nn.Module):
    """What a detector's terms are divided by: an amount of positives, such as their number.

    Formula:
        n_b: amount in image b of B, N = Σ n_b, R: number of processes
        batch:           Σ l / max(N, floor)
        image:           1/B Σ_b (Σ l in image b / max(n_b, floor))
        all_reduce:      Σ l / (max(N of all processes, floor) / R)
        moving_average:  Σ l / A,  A ← momentum · A + (1 - momentum) · max(N, floor) at each call in training mode

    Args:
        mode: ``"batch"``; ``"image"``, as torchvision's RetinaNet; ``"all_reduce"``, which gives the mean of the
            processes' gradients, what DistributedDataParallel computes, the value of the batch on a single process,
            and is ``"batch"`` where torch.distributed is not initialised; or ``"moving_average"``, as detectron2's
            RetinaNet, each process its own.
        momentum: of the moving average, from 0 to below 1.
        start: first value of the moving average; detectron2 uses 100 for RetinaNet and 300 for FCOS.
        floor: least amount, above 0.

    Raises:
        ValueError: unknown `mode` or a number out of its range.

    Example:
        >>> PositiveNormalizer("batch")(torch.tensor([3.0, 0.0])).denominator
        tensor(3.)

    Note:
        The floor of ``"all_reduce"`` applies to the sum over the processes. mmdetection applies it to the mean, which
        is not the single process's value when there are fewer positives than processes.
        The moving average is a buffer: it is saved with the objective.
    """

    average: Tensor

    def __init__(
        self, mode: NormalizerMode = "batch", *, momentum: float = 0.9, start: float = 100.0, floor: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("mode", mode, get_args(NormalizerMode))
        check_number("momentum", momentum, at_least=0, below=1)
        check_number("start", start, above=0)
        check_number("floor", floor, above=0)
        self.mode = mode
        self.momentum = momentum
        self.start = start
        self.floor = floor
        self.register_buffer("average", torch.tensor(float(start)) if mode == "moving_average" else None)

    def with_floor(self, floor: float) -> Self:
        """Return a normaliser of the same mode, with a state of its own, for another amount."""
        return type(self)(self.mode, momentum=self.momentum, start=self.start, floor=floor)

    def extra_repr(self) -> str:
        """Return the mode."""
        return repr(self.mode)

    @torch.no_grad()
    def forward(self, amounts: Float[Tensor, " b"]) -> Scale:
        """Return how to scale the sums of a batch.

        Args:
            amounts: ``(B,)`` amount of positives of each image.
        """
        if self.mode == "image":
            images = amounts.new_tensor(max(len(amounts), 1))
            return Scale(images, 1 / amounts.clamp(min=self.floor))
        total = amounts.sum()
        if self.mode == "all_reduce" and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
            return Scale(total.clamp(min=self.floor) / torch.distributed.get_world_size(), None)
        total = total.clamp(min=self.floor)
        if self.mode != "moving_average":
            return Scale(total, None)
        if self.training:
            self.average.mul_(self.momentum).add_(total.to(self.average.dtype), alpha=1 - self.momentum)
        return Scale(self.average.clone(), None)
