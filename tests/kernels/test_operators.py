"""What the operators promise to PyTorch, and what the compiled module refuses."""

from collections.abc import Callable

import pytest
import torch

from lossatlas import kernels
from lossatlas.kernels import native
from lossatlas.losses import (
    alrp_loss,
    binary_cross_entropy_with_logits,
    cross_entropy,
    lovasz_hinge_loss,
    lovasz_softmax_loss,
)
from lossatlas.typing import Reduction
from tests.kernels.case import needs_kernels

pytestmark = needs_kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_elementwise_is_registered_in_full(dtype: torch.dtype, reduction: str) -> None:
    x = torch.randn(3, 5, dtype=dtype, requires_grad=True)
    arguments = (x, torch.ones(3, 5), torch.rand(5), "sigmoid_focal", [1.0, 1.0, 2.0], None, reduction, None, None)
    torch.library.opcheck(torch.ops.lossatlas.elementwise.default, arguments)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_class_costs_is_registered_in_full(reduction: str) -> None:
    x = torch.randn(3, 5, 2, requires_grad=True)
    arguments = (x, torch.ones(3, 2, dtype=torch.long), torch.rand(2), torch.ones(5), 2.0, 0.0, None, reduction, None)
    torch.library.opcheck(torch.ops.lossatlas.class_costs.default, arguments)


@pytest.mark.parametrize("errors", ["softmax", "sigmoid", "hinge"])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_lovasz_is_registered_in_full(errors: str, per_image: bool) -> None:
    x = torch.randn(2, 3, 5, requires_grad=True)
    index = torch.tensor([[0, 1, 2, 1, 0], [1, 2, -100, 1, 0]])
    torch.library.opcheck(torch.ops.lossatlas.lovasz.default, (x, index, errors, -100, per_image, True, 1))


@pytest.mark.parametrize(
    "kernel", ["ap", "interpolated_ap", "alrp_classification", "alrp_localization", "rank_sort_sorting"]
)
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_ranking_is_registered_in_full(kernel: str, reduction: str) -> None:
    x = torch.randn(3, 5, requires_grad=True)
    target = torch.tensor([0.0, 0.5, -1, 1, 0]).expand(3, 5)
    arguments = (x, target, torch.rand(5), kernel, torch.rand(3, 5), 1.0, -1.0, reduction, None)
    torch.library.opcheck(torch.ops.lossatlas.ranking.default, arguments)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("shape", [(), (7,), (5, 1), (3, 5, 7)])
def test_errors_of_boxes_learn_from_their_ranks(reduction: Reduction, shape: tuple[int, ...]) -> None:
    x, target = torch.randn(3, 5, 7), (torch.rand(3, 5, 7) < 0.3).float()
    weight = torch.rand(7)

    def gradients(dtype: torch.dtype) -> list[torch.Tensor]:
        logits, error = x.to(dtype).requires_grad_(), torch.full(shape, 0.4, dtype=dtype).requires_grad_()
        terms = alrp_loss(logits, target, localization_error=error, weight=weight, reduction=reduction)
        upstream = torch.linspace(1, 2, terms.localization.numel()).view(terms.localization.shape)
        gradient, nothing = torch.autograd.grad(
            (terms.localization * upstream).sum(), (error, logits), allow_unused=True
        )
        assert nothing is None or (nothing == 0).all()
        return [gradient, *torch.autograd.grad(terms.classification.sum(), logits)]

    with kernels.disabled():
        exact = gradients(torch.float64)
    for actual, expected in zip(gradients(torch.float32), exact, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", [lovasz_softmax_loss, lovasz_hinge_loss])
def test_an_index_that_is_no_class_of_a_lovasz_loss(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="a class index is out of range"):
            loss(torch.zeros(1, 3, 4), torch.tensor([[0, 1, wrong, -100]]))


def test_many_classes_and_an_index_that_is_none() -> None:
    x = torch.randn(70, 300, requires_grad=True)
    index = torch.arange(70) * 4
    (gradient,) = torch.autograd.grad(cross_entropy(x, index), x)
    expected = (x.detach().double().softmax(1) - torch.nn.functional.one_hot(index, 300)) / 70
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-9)
    for wrong in (300, -1):
        with pytest.raises(ValueError, match="a class index is out of range"):
            cross_entropy(x, torch.full((70,), wrong))


def test_factors_of_channels_and_their_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 4, generator=generator)
    y = torch.rand(2, 3, 5, 4, generator=generator)
    factor = torch.tensor([0.5, 2.0, 0.0]).view(3, 1, 1)

    def evaluate(x: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaf = x.requires_grad_()
        value = binary_cross_entropy_with_logits(leaf, y, pos_weight=factor)
        return value.detach(), *torch.autograd.grad(value, [leaf, *([factor] if factor.requires_grad else [])])

    found = evaluate(x.clone(), factor)
    with kernels.disabled():
        expected = evaluate(x.double(), factor.double())
    for actual, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(actual.double(), exact, rtol=2e-6, atol=1e-8)
    assert evaluate(x.clone(), factor.clone().requires_grad_())[2].shape == factor.shape


def test_status_names_the_instruction_set() -> None:
    assert native.module is not None
    status = kernels.status()
    assert status.instruction_set == native.module.instruction_sets()[0]
    assert status.threads == torch.get_num_threads()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no_such", (torch.ones(2),), ()), "unknown kernel no_such"),
        (("scale", (torch.ones(2, dtype=torch.complex64), torch.ones(())), ()), "dtype that kernels do not know"),
        (("scale", (torch.ones(2), torch.ones(2)), ()), "scale: a tensor with one element is needed"),
        (("scale", (torch.ones(2),), ()), "scale: a tensor is missing"),
        (("scale", (torch.ones([1] * 9), torch.ones(())), ()), "more than 8 axes"),
    ],
)
def test_wrong_arguments_of_a_kernel(
    arguments: tuple[str, tuple[torch.Tensor, ...], tuple[float, ...]], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        native.run(*arguments)
