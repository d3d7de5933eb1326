"""The properties that every public loss keeps. A loss takes part by being listed in `tests.conformance.cases`."""

import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped
from torch import Tensor

from lossatlas import losses
from lossatlas.losses import CATALOG, module_form
from tests.conformance.case import Array, Case, Edge, Identity, central_difference
from tests.conformance.cases import CASES

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
IGNORED = -7

every_loss = pytest.mark.parametrize("name", sorted(CATALOG))
every_variant = pytest.mark.parametrize(
    ("case", "options"),
    [
        pytest.param(case, options, id=f"{case.name}-{i}")
        for case in CASES.values()
        for i, options in enumerate(case.options)
    ],
)
every_edge = pytest.mark.parametrize(
    ("case", "edge"),
    [pytest.param(case, edge, id=f"{case.name}-{edge.name}") for case in CASES.values() for edge in case.edges],
)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


def takes_target(name: str) -> bool:
    return "target" in inspect.signature(CATALOG[name].function).parameters


def function_of(case: Case) -> Callable[..., Tensor]:
    function, combine = CATALOG[case.name].function, case.combine
    if not takes_target(case.name):
        return lambda input, _, **kwargs: function(input, **kwargs)
    if combine is None and not case.required:
        return function

    @functools.wraps(function)
    def completed(*args: Any, **kwargs: Any) -> Tensor:
        value = function(*args, **(case.required | kwargs))
        return value if combine is None else combine(value)

    return completed


def draw(case: Case, seed: int = 0) -> tuple[Tensor, Tensor]:
    return case.sample(torch.Generator().manual_seed(seed))


def tensors_of(case: Case) -> tuple[Tensor, ...]:
    return draw(case) if takes_target(case.name) else draw(case)[:1]


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def gradient(function: Callable[..., Tensor], input: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    value = function(leaf, target, **options)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


def test_every_listed_loss_has_a_case() -> None:
    assert sorted(CASES) == sorted(CATALOG)


def test_every_listed_loss_is_exported_with_its_module() -> None:
    exported = set(losses.__all__)
    missing = [entry.name for entry in CATALOG.values() if not {entry.name, entry.module.__name__} <= exported]
    assert not missing


@every_loss
def test_signature_keeps_the_contract(name: str) -> None:
    parameters = inspect.signature(CATALOG[name].function).parameters
    tensors = ["input", "target"] if takes_target(name) else ["input"]
    assert list(parameters)[: len(tensors)] == tensors
    rest = list(parameters.values())[len(tensors) :]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in rest)
    assert [parameter.name for parameter in rest[-3:]] == ["weight", "reduction", "normalizer"]
    assert [parameter.default for parameter in rest[-3:]] == [None, "mean", None]


@every_loss
def test_docstring_has_every_section(name: str) -> None:
    entry = CATALOG[name]
    assert entry.summary.endswith((".", ":"))
    for section in ("Formula", "Args", "Returns", "Raises", "Example", "Reference"):
        assert entry.section(section), section
    for parameter in inspect.signature(entry.function).parameters:
        assert f"{parameter}:" in entry.section("Args"), parameter


def published_gradient(case: Case, at: Array, target: Array, options: dict[str, Any]) -> Array:
    if case.gradient_oracle is not None:
        return case.gradient_oracle(at, target, **options)
    return central_difference(lambda x: float(case.oracle(x, target, at, **options).sum()), at)


@every_variant
def test_value_equals_the_formula(case: Case, options: dict[str, Any]) -> None:
    for seed in range(3):
        input, target = draw(case, seed)
        expected = case.oracle(array(input), array(target), array(input), **options)
        value = function_of(case)(input, target, reduction="none", **options)
        assert value.shape == expected.shape
        np.testing.assert_allclose(array(value), expected, rtol=1e-8, atol=1e-10)


@every_variant
def test_gradient_equals_the_derivative_of_the_formula(case: Case, options: dict[str, Any]) -> None:
    for seed in range(3):
        input, target = draw(case, seed)
        expected = published_gradient(case, array(input), array(target), options)
        _, grad = gradient(function_of(case), input, target, reduction="sum", **options)
        np.testing.assert_allclose(array(grad), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.detached], ids=lambda case: case.name)
def test_what_is_held_constant_is_outside_the_graph(case: Case) -> None:
    input, target = draw(case)
    at, other = array(input), array(target)
    moving = central_difference(lambda x: float(case.oracle(x, other, x).sum()), at)
    _, grad = gradient(function_of(case), input, target, reduction="sum")
    assert np.abs(array(grad) - moving).max() > 1e-3


@pytest.mark.parametrize(
    "identity",
    [pytest.param(i, id=f"{case.name}-{i.name}") for case in CASES.values() for i in case.identities],
)
def test_identity(identity: Identity) -> None:
    left = identity.left()
    right = torch.as_tensor(identity.right(), dtype=left.dtype)
    torch.testing.assert_close(left, right.expand_as(left), rtol=1e-9, atol=1e-9)


@every_edge
@every_dtype
def test_edge_input_is_finite(case: Case, edge: Edge, dtype: torch.dtype) -> None:
    input, target = cast(edge.input, dtype), cast(edge.target, dtype)
    value, grad = gradient(function_of(case), input, target, reduction="none", **edge.options)
    assert value.isfinite().all(), value
    assert grad.isfinite().all(), grad


@every_variant
@every_dtype
def test_arithmetic_is_in_single_precision_at_least(case: Case, options: dict[str, Any], dtype: torch.dtype) -> None:
    input, target = draw(case)
    input, target = cast(input, dtype), cast(target, dtype)
    value, grad = gradient(function_of(case), input, target, **options)
    exact, exact_grad = gradient(function_of(case), input.double(), cast(target, torch.float64), **options)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad.dtype == dtype
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    half = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-4)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=half, atol=half * float(exact_grad.abs().max()))


@every_variant
def test_reductions_agree(case: Case, options: dict[str, Any]) -> None:
    function = function_of(case)
    input, target = draw(case)
    elements = function(input, target, reduction="none", **options)
    weight = torch.linspace(0, 2, elements.numel(), dtype=elements.dtype).view(elements.shape)
    count = elements.numel() if case.count is None else case.count(input, target, **options)
    torch.testing.assert_close(function(input, target, **options), elements.sum() / count)
    torch.testing.assert_close(function(input, target, reduction="sum", **options), elements.sum())
    torch.testing.assert_close(function(input, target, normalizer=2.5, **options), elements.sum() / 2.5)
    torch.testing.assert_close(function(input, target, normalizer=torch.tensor(4), **options), elements.sum() / 4)
    torch.testing.assert_close(function(input, target, weight=weight, **options), (elements * weight).sum() / count)
    torch.testing.assert_close(function(input, target, weight=weight, reduction="none", **options), elements * weight)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_empty_input_gives_an_attached_zero(case: Case, reduction: str) -> None:
    input, target = case.empty()
    value, grad = gradient(function_of(case), input, target, reduction=reduction)
    assert value.shape == ()
    assert value == 0
    assert grad.shape == input.shape
    assert (grad == 0).all()


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_nothing_to_divide_by_gives_zero_and_not_nan(case: Case) -> None:
    input, target = case.empty()
    value, _ = gradient(function_of(case), input, target, normalizer=torch.tensor(0.0))
    assert value == 0


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_nan_is_not_hidden(case: Case) -> None:
    input, target = draw(case)
    input.view(-1)[0] = torch.nan
    assert function_of(case)(input, target).isnan()


ignoring = [case for case in CASES.values() if "ignore_index" in inspect.signature(function_of(case)).parameters]


@pytest.mark.parametrize("case", ignoring, ids=lambda case: case.name)
@pytest.mark.parametrize("poison", [1e4, torch.inf, torch.nan])
def test_ignored_elements_change_nothing(case: Case, poison: float) -> None:
    function = function_of(case)
    input, target = draw(case)
    dense = target.shape == input.shape
    first = (slice(None),) * (target.ndim - 1) + (0,)
    target[first] = IGNORED
    kept_target = target[..., 1:]
    kept_input = input[..., 1:]
    poisoned = input.clone()
    poisoned[first if dense else (..., 0)] = poison
    value, grad = gradient(function, poisoned, target, ignore_index=IGNORED)
    expected, expected_grad = gradient(function, kept_input, kept_target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad[..., 1:], expected_grad)
    assert (grad[..., 0] == 0).all()


@pytest.mark.parametrize("case", ignoring, ids=lambda case: case.name)
def test_all_ignored_gives_an_attached_zero(case: Case) -> None:
    input, target = draw(case)
    value, grad = gradient(function_of(case), input, torch.full_like(target, IGNORED), ignore_index=IGNORED)
    assert value == 0
    assert (grad == 0).all()


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_memory_layout_does_not_matter(case: Case) -> None:
    function = function_of(case)
    input, target = draw(case)
    strided = torch.stack((input, input), dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(function(strided, target, reduction="none"), function(input, target, reduction="none"))


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_bad_arguments_are_named(case: Case) -> None:
    function = function_of(case)
    input, target = draw(case)
    with pytest.raises(ValueError, match=r"`reduction` must be one of 'none', 'mean', 'sum'.*, but got 'maen'"):
        function(input, target, reduction="maen")
    with pytest.raises(ValueError, match=r"`normalizer` replaces the count .* `reduction` is 'sum'"):
        function(input, target, reduction="sum", normalizer=2.0)
    with pytest.raises(ValueError, match=r"`normalizer` must be finite and above 0, but got -1"):
        function(input, target, normalizer=-1)
    with pytest.raises(ValueError, match=r"`normalizer` must be a 0-d tensor, but got shape \(2,\)"):
        function(input, target, normalizer=torch.ones(2))
    with pytest.raises(ValueError, match=r"`weight` must broadcast to"):
        function(input, target, weight=torch.ones(17))
    with pytest.raises(TypeError, match=r"`weight` must be a tensor, but got float"):
        function(input, target, weight=2.0)
    with pytest.raises(TypeError, match=r"`input` must have a floating-point dtype, but got torch.int64"):
        function(input.long(), target)
    if takes_target(case.name):
        with pytest.raises(ValueError, match=r"`target` .*but got"):
            function(input, target[:-1])


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_shapes_are_as_annotated(case: Case) -> None:
    checked = jaxtyped(typechecker=beartype)(CATALOG[case.name].function)
    for reduction in ("none", "mean"):
        value = checked(*tensors_of(case), reduction=reduction, **case.required)
        assert isinstance(value if case.combine is None else case.combine(value), Tensor)


@every_variant
def test_module_form_is_the_function(case: Case, options: dict[str, Any]) -> None:
    entry = CATALOG[case.name]
    if entry.stateful:
        pytest.skip("a module with a state has tests of its own")
    tensors = tensors_of(case)
    options = case.required | options
    module = entry.module(**options)
    combine = case.combine or (lambda value: value)
    expected = combine(entry.function(*tensors, **options))
    assert torch.equal(combine(module(*tensors)), expected)
    assert torch.equal(combine(pickle.loads(pickle.dumps(module))(*tensors)), expected)
    assert set(module.state_dict()) == {name for name, value in options.items() if isinstance(value, Tensor)}
    assert all(f"{name}=" in repr(module) for name in options)
    total = combine(entry.function(*tensors, reduction="sum", **options))
    assert torch.equal(combine(module(*tensors, reduction="sum")), total)


@pytest.mark.parametrize("name", sorted(name for name, entry in CATALOG.items() if not entry.stateful))
def test_module_form_refuses_unknown_arguments(name: str) -> None:
    with pytest.raises(TypeError, match=r"has no argument `gama`; its arguments are"):
        CATALOG[name].module(gama=2.0)


def compiled_equals_eager(case: Case, backend: str, options: dict[str, Any]) -> None:
    function = function_of(case)
    input, target = draw(case)
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    value, grad = gradient(compiled, input, target, **options)
    expected, expected_grad = gradient(function, input, target, **options)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@every_variant
def test_captured_as_one_graph(case: Case, options: dict[str, Any]) -> None:
    if case.eager_only:
        pytest.skip(case.eager_only)
    compiled_equals_eager(case, "aot_eager", options)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_exports(case: Case) -> None:
    if case.eager_only:
        pytest.skip(case.eager_only)
    tensors = tensors_of(case)
    module = module_form("Form", CATALOG[case.name].function)(**case.required)
    program = torch.export.export(module, tensors)
    torch.testing.assert_close(program.module()(*tensors), module(*tensors))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    {CATALOG[case.name].family: case for case in CASES.values() if not case.eager_only}.values(),
    ids=lambda case: case.name,
)
def test_compiles(case: Case) -> None:
    compiled_equals_eager(case, "inductor", case.options[-1])
