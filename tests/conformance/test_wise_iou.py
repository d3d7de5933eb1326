"""The state of `WIoULoss`: what its running mean is, when it moves, and how it is kept."""

import math
import pickle

import pytest
import torch
from torch import Tensor

from lossatlas.losses import WIoULoss, wiou_loss
from lossatlas.losses.catalog import find
from lossatlas.losses.wise_iou import WiseVersion
from tests.conformance.cases.boxes import iou, sample


def batch(seed: int) -> tuple[Tensor, Tensor]:
    input, target = sample(torch.Generator().manual_seed(seed))
    return input.float(), target.float()


def iou_losses(input: Tensor, target: Tensor) -> list[float]:
    return [1 - iou(b, t) for b, t in zip(input.tolist(), target.tolist(), strict=True)]


def expected_mean(batches: list[tuple[Tensor, Tensor]], momentum: float) -> float:
    mean = 1.0
    for input, target in batches:
        elements = iou_losses(input, target)
        mean = (1 - momentum) * mean + momentum * sum(elements) / len(elements)
    return mean


def test_running_mean_is_the_moving_average_of_the_iou_loss() -> None:
    loss = WIoULoss(momentum=0.3)
    batches = [batch(seed) for seed in range(4)]
    for input, target in batches:
        loss(input, target)
    assert loss.running_mean.item() == pytest.approx(expected_mean(batches, 0.3), rel=1e-6)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_factor_is_that_of_the_updated_mean(version: WiseVersion) -> None:
    loss = WIoULoss(version=version, gamma=0.7, alpha=1.7, delta=2.7, momentum=0.5)
    input, target = batch(0)
    mean = expected_mean([(input, target)], 0.5)
    elements = loss(input, target, reduction="none")
    plain = wiou_loss(input, target, reduction="none")
    for element, base, quality in zip(elements.tolist(), plain.tolist(), iou_losses(input, target), strict=True):
        beta = quality / mean
        factor = {1: 1.0, 2: beta**0.7, 3: beta / (2.7 * 1.7 ** (beta - 2.7))}[version]
        assert element == pytest.approx(factor * base, rel=1e-5)


@pytest.mark.parametrize("version", [2, 3])
def test_factor_is_outside_the_graph(version: WiseVersion) -> None:
    loss = WIoULoss(version=version).eval()
    input, target = batch(1)
    plain_leaf, leaf = input.clone().requires_grad_(), input.clone().requires_grad_()
    plain, elements = wiou_loss(plain_leaf, target, reduction="none"), loss(leaf, target, reduction="none")
    factor = (elements / plain).detach()
    (factor * plain).sum().backward()
    elements.sum().backward()
    torch.testing.assert_close(leaf.grad, plain_leaf.grad)


def test_box_whose_outlier_degree_is_delta_counts_once() -> None:
    loss = WIoULoss(version=3, delta=3.0).eval()
    loss.running_mean.fill_(0.2)
    input, target = torch.tensor([[1.0, 0, 3, 2]]), torch.tensor([[0.0, 0, 5, 2]])
    torch.testing.assert_close(loss(input, target), wiou_loss(input, target))


def test_evaluation_leaves_the_mean_alone() -> None:
    loss = WIoULoss().eval()
    loss(*batch(0))
    assert loss.running_mean == 1


def test_state_is_saved_and_continues_where_it_was() -> None:
    first = WIoULoss(version=2, momentum=0.2)
    first(*batch(0))
    second = WIoULoss(version=2, momentum=0.2)
    second.load_state_dict(first.state_dict())
    assert set(first.state_dict()) == {"running_mean"}
    for copy in (second, pickle.loads(pickle.dumps(first))):
        assert torch.equal(copy.running_mean, first.running_mean)
    assert torch.equal(second(*batch(1)), first(*batch(1)))


def test_batch_without_boxes_changes_nothing() -> None:
    loss = WIoULoss()
    empty = torch.zeros(0, 4, requires_grad=True)
    value = loss(empty, torch.zeros(0, 4))
    value.backward()
    assert value == 0
    assert loss.running_mean == 1


def test_nan_reaches_the_loss_but_not_the_state() -> None:
    loss = WIoULoss(momentum=0.5)
    input, target = batch(0)
    input[0, 0] = math.nan
    assert loss(input, target).isnan()
    assert loss.running_mean == 1
    assert loss(*batch(1)).isfinite()


@pytest.mark.parametrize("mean", [0.0, 1e-20, 1e-6])
@pytest.mark.parametrize("version", [2, 3])
def test_finite_for_a_mean_that_has_vanished(version: WiseVersion, mean: float) -> None:
    loss = WIoULoss(version=version).eval()
    loss.running_mean.fill_(mean)
    input, target = batch(0)
    leaf = input.requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert value.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_half_boxes_are_computed_in_single_precision(dtype: torch.dtype) -> None:
    loss = WIoULoss()
    input, target = (boxes.to(dtype) for boxes in batch(0))
    assert loss(input, target).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.running_mean.dtype == torch.float32


def test_arguments_of_the_call_are_those_of_the_function() -> None:
    loss = WIoULoss(version=1, reduction="sum")
    input, target = batch(0)
    weight = torch.linspace(0, 1, len(input))
    expected = wiou_loss(input, target, weight=weight, normalizer=2.0)
    assert torch.equal(loss(input, target, weight=weight, reduction="mean", normalizer=2.0), expected)
    assert torch.equal(loss(input, target), wiou_loss(input, target, reduction="sum"))
    assert "version=1" in repr(loss)


def test_captured_as_one_graph() -> None:
    loss, eager = WIoULoss(momentum=0.3), WIoULoss(momentum=0.3)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        torch.testing.assert_close(compiled(*batch(seed)), eager(*batch(seed)))
    torch.testing.assert_close(loss.running_mean, eager.running_mean)


def test_catalogue_knows_the_module() -> None:
    entry = find(WIoULoss())
    assert entry is not None
    assert entry.name == "wiou_loss"
    assert entry.stateful


@pytest.mark.parametrize(
    ("argument", "value"), [("version", 4), ("gamma", -1), ("alpha", 1), ("delta", 0), ("momentum", 0), ("momentum", 2)]
)
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"`{argument}` must be .* but got {value}"):
        WIoULoss(**{argument: value})  # type: ignore[arg-type]
