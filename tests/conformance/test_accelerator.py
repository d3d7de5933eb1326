"""The losses on an accelerator: the values and gradients of the CPU, and no waiting of the host for the device."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.accelerator import on_device
from tests.conformance.case import Case, Edge
from tests.conformance.test_conformance import cast, draw, every_edge, every_variant, function_of

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)

ON_THE_HOST = (
    "boundary_loss",
    "border_weighted_cross_entropy",
    "distance_penalized_cross_entropy",
    "hausdorff_dt_loss",
)
"""Losses of distance maps, which are computed there."""

SINGLE_AND_HALF = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def host_must_not_wait() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def value_and_gradient(case: Case, input: Tensor, target: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    value = function_of(case)(leaf, target, reduction="none", **options)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_device_and_host_agree(case: Case, options: dict[str, Any], dtype: torch.dtype) -> None:
    input, target = (cast(tensor, dtype) for tensor in draw(case))
    options = case.required | options
    found = value_and_gradient(case, input.cuda(), target.cuda(), on_device(options))
    expected = value_and_gradient(case, input, target, options)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    for one, other in zip(found, expected, strict=True):
        assert one.is_cuda
        scale = float(other.abs().max())
        torch.testing.assert_close(one.cpu(), other, rtol=tolerance, atol=tolerance * max(scale, 1.0))


@every_edge
@pytest.mark.parametrize("dtype", SINGLE_AND_HALF, ids=str)
def test_edge_input_is_finite_on_the_device(case: Case, edge: Edge, dtype: torch.dtype) -> None:
    input, target = cast(edge.input, dtype).cuda(), cast(edge.target, dtype).cuda()
    for tensor in value_and_gradient(case, input, target, on_device(case.required | edge.options)):
        assert tensor.isfinite().all()


@every_variant
def test_the_host_does_not_wait(case: Case, options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if case.eager_only or case.name in ON_THE_HOST:
        pytest.skip(case.eager_only or "distances are computed on the host")
    input, target = on_device(draw(case))
    options = on_device(case.required | options)
    leaf = input.detach().clone().requires_grad_()
    request.getfixturevalue("host_must_not_wait")
    function_of(case)(leaf, target, **options).backward()
