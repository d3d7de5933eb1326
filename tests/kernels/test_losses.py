"""Kernels of losses against the PyTorch code that defines them. A kernel takes part by being listed in `cases`."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lossatlas import kernels
from tests.kernels.case import Case, close, evaluate, exact, needs_kernels
from tests.kernels.cases import CASES, layouts
from tests.memory import PeakMemory

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_variant = pytest.mark.parametrize(
    ("case", "options"),
    [pytest.param(case, options, id=f"{case.name}-{i}") for case in CASES for i, options in enumerate(case.options)],
)
every_derivative = pytest.mark.parametrize("case", [case for case in CASES if case.derived], ids=lambda case: case.name)
IGNORING = [case for case in CASES if "ignore_index" in inspect.signature(case.loss).parameters]
pytestmark = needs_kernels


class Module(torch.nn.Module):
    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.loss(input, target)


class Operators(TorchDispatchMode):
    """Remembers the namespaces of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.namespaces.add(func.namespace)
        return func(*args, **(kwargs or {}))


def by_kernel(loss: Callable[..., Tensor], input: Tensor, target: Tensor) -> bool:
    with Operators() as operators:
        loss(input, target)
    return "lossatlas" in operators.namespaces


@every_variant
def test_equals_the_twin(case: Case, options: dict[str, Any], instruction_set: str) -> None:
    # The last shape is the large one.
    for seed, shape in enumerate(case.shapes if options == case.options[0] else case.shapes[:-1]):
        input, target = case.draw(seed, shape)
        for reduction in ("none", "sum"):
            actual = evaluate(case.loss, input, target, reduction=reduction, **options)
            close(case, actual, exact(case, input, target, reduction=reduction, **options))


@every_variant
def test_at_the_edges(case: Case, options: dict[str, Any], instruction_set: str) -> None:
    for input, target in case.edges:
        actual = evaluate(case.loss, input, target, reduction="none", **options)
        close(case, actual, exact(case, input, target, reduction="none", **options))
        assert actual[1].isfinite().all()


@every_case
def test_kernels_are_used(case: Case) -> None:
    input, target = case.draw()
    for leaf in (input, input.clone().requires_grad_(), torch.nn.Parameter(input), input.bfloat16()):
        assert by_kernel(case.loss, leaf, target)
    assert not by_kernel(case.loss, input.double(), target)
    with kernels.disabled():
        assert not by_kernel(case.loss, input, target)


@every_case
def test_weights_reductions_and_normalizers(case: Case) -> None:
    input, target = case.draw()
    generator = torch.Generator().manual_seed(1)
    for shape in (None, *case.weights):
        weight = None if shape is None else torch.rand(shape, generator=generator)
        for options in (
            {"reduction": "none"},
            {"reduction": "sum"},
            {},
            {"normalizer": 2.5},
            {"normalizer": torch.tensor(3)},
            {"normalizer": torch.tensor(0.0)},
        ):
            actual = evaluate(case.loss, input, target, weight=weight, **options)
            close(case, actual, exact(case, input, target, weight=weight, **options))


@pytest.mark.parametrize("case", IGNORING, ids=lambda case: case.name)
@pytest.mark.parametrize("poison", [1e4, torch.inf, torch.nan])
def test_ignored_elements_change_nothing(case: Case, poison: float) -> None:
    input, target = case.draw()
    ignored = torch.rand(target.shape, generator=torch.Generator().manual_seed(2)) < 0.2
    target = torch.where(ignored, case.ignored, target)
    everywhere = ignored if ignored.shape == input.shape else ignored.unsqueeze(1).expand(input.shape)
    poisoned = torch.where(everywhere, poison, input)
    for options in ({}, {"reduction": "none"}, {"normalizer": 4.0}):
        actual = evaluate(case.loss, poisoned, target, ignore_index=case.ignored, **options)
        close(case, actual, exact(case, input, target, ignore_index=case.ignored, **options))
        assert (actual[1][everywhere] == 0).all()
    nothing = torch.full_like(target, case.ignored)
    value, gradient = evaluate(case.loss, input, nothing, ignore_index=case.ignored)
    assert value == 0
    assert (gradient == 0).all()


@every_variant
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision(case: Case, options: dict[str, Any], dtype: torch.dtype) -> None:
    input, target = case.draw()
    input = input.to(dtype)
    target = target.to(dtype) if target.is_floating_point() else target
    half = {torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    for reduction in ("none", "sum"):
        actual = evaluate(case.loss, input, target, reduction=reduction, **options)
        assert actual[1].dtype == dtype
        close(case, actual, exact(case, input, target, reduction=reduction, **options), half)


@every_case
def test_a_scaled_loss_keeps_its_gradient_in_half_precision(case: Case) -> None:
    input, target = case.draw()
    leaf = input.half().requires_grad_()
    (gradient,) = torch.autograd.grad(case.loss(leaf, target, normalizer=1e9) * 1e9, leaf)
    (expected,) = torch.autograd.grad(case.loss(leaf, target, reduction="sum"), leaf)
    torch.testing.assert_close(gradient, expected)


@every_case
def test_layouts(case: Case) -> None:
    input, target = case.draw()
    value, gradient = evaluate(case.loss, input, target)
    for other in layouts(input):
        for other_target in (target, *layouts(target)):
            leaf = other.detach().requires_grad_()
            again = case.loss(leaf, other_target)
            (other_gradient,) = torch.autograd.grad(again, leaf)
            torch.testing.assert_close(again.detach(), value, rtol=1e-6, atol=0)
            torch.testing.assert_close(other_gradient, gradient, rtol=1e-6, atol=1e-9)


@every_case
def test_nan_is_not_hidden(case: Case) -> None:
    for place in (0, -1):
        input, target = case.draw()
        input.view(-1)[place] = torch.nan
        value, gradient = evaluate(case.loss, input, target)
        assert value.isnan()
        assert gradient.view(-1)[place].isnan()


@every_case
def test_no_elements(case: Case) -> None:
    input, target = case.draw()
    value, gradient = evaluate(case.loss, input[:0], target[:0])
    assert value == 0
    assert gradient.shape == input[:0].shape


@every_case
def test_the_number_of_threads_changes_nothing(case: Case, threads: Callable[[int], None]) -> None:
    input, target = case.draw(shape=case.shapes[-1])
    results = []
    for number in (1, 2, 3, 5):
        threads(number)
        results.append(evaluate(case.loss, input, target))
    for value, gradient in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(gradient, results[0][1])


@every_case
def test_going_back_twice(case: Case) -> None:
    input, target = case.draw()
    leaf = input.requires_grad_()
    value = case.loss(leaf, target) * 3
    (first,) = torch.autograd.grad(value, leaf, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(value, leaf)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, kept)


@pytest.mark.parametrize("case", [case for case in CASES if not case.derived], ids=lambda case: case.name)
def test_updates_are_constants(case: Case) -> None:
    input, target = case.draw()
    _, update = evaluate(case.loss, input, target)
    leaf = input.requires_grad_()
    value = case.loss(leaf, target)
    (gradient,) = torch.autograd.grad(value.exp(), leaf, create_graph=True)
    torch.testing.assert_close(gradient.detach(), update * value.detach().exp())
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@every_derivative
def test_gradients_of_gradients(case: Case) -> None:
    input, target = case.draw()

    def second(input: Tensor) -> tuple[Tensor, Tensor]:
        leaf = input.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(case.loss(leaf.sin(), target).exp(), leaf, create_graph=True)
        return gradient.detach(), torch.autograd.grad((gradient**2).sum(), leaf)[0]

    gradient, curvature = second(input)
    with kernels.disabled():
        expected = second(input.double())
    torch.testing.assert_close(gradient.double(), expected[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(curvature.double(), expected[1], rtol=1e-4, atol=1e-6)


@every_derivative
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_transforms_of_functions(case: Case) -> None:
    input, target = case.draw()
    _, gradient = evaluate(case.loss, input, target)
    by_transform = torch.func.grad(case.loss)(input, target)
    torch.testing.assert_close(by_transform, gradient, rtol=1e-4, atol=1e-6)
    slope = torch.func.jvp(lambda x: case.loss(x, target), (input,), (torch.ones_like(input),))[1]
    torch.testing.assert_close(slope, gradient.sum(), rtol=1e-4, atol=1e-6)
    many = torch.func.vmap(case.loss)(torch.stack((input, input)), torch.stack((target, target)))
    torch.testing.assert_close(many, case.loss(input, target).expand(2), rtol=1e-5, atol=1e-6)


@every_case
def test_captured_as_one_graph(case: Case) -> None:
    input, target = case.draw()
    options = case.options[-1]
    torch._dynamo.reset()
    compiled = torch.compile(case.loss, fullgraph=True, backend="aot_eager")
    value, gradient = evaluate(compiled, input, target, normalizer=2.0, **options)
    expected, expected_gradient = evaluate(case.loss, input, target, normalizer=2.0, **options)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.slow
@every_case
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch 2.13 calls it, and warns of it
def test_compiles(case: Case) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(case.loss, fullgraph=True)
    for shape in case.shapes[:2]:
        input, target = case.draw(shape=shape)
        value, gradient = evaluate(compiled, input, target)
        expected, expected_gradient = evaluate(case.loss, input, target)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("case", [case for case in CASES if case.one_graph], ids=lambda case: case.name)
def test_an_exported_program_needs_no_kernels(case: Case) -> None:
    input, target = case.draw()
    module = Module(case.loss)
    program = torch.export.export(module, (input, target))
    assert "lossatlas" not in str(program.graph)
    torch.testing.assert_close(program.module()(input, target), module(input, target))


@every_case
def test_autocast(case: Case) -> None:
    input, target = case.draw()
    expected = evaluate(case.loss, input, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = evaluate(case.loss, input, target)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])


@every_case
def test_memory(case: Case) -> None:
    input, target = case.draw(shape=case.shapes[-1])
    leaf = input.requires_grad_()
    with PeakMemory() as memory:
        case.loss(leaf, target).backward()
    assert memory.peak <= case.memory * input.nbytes


@every_case
def test_targets_and_weights_with_a_gradient(case: Case) -> None:
    input, target = case.draw()
    weight = torch.ones(()).requires_grad_()
    (by_weight,) = torch.autograd.grad(case.loss(input, target, weight=weight), weight)
    torch.testing.assert_close(by_weight, case.loss(input, target), rtol=1e-5, atol=1e-6)
