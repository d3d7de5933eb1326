"""What is true of every objective: of edges, precision and the order of objects."""

import pytest
import torch
from torch import Tensor

from lossatlas.objectives import LossTerms
from tests.objectives.cases import CASES, Case, Leaves
from tests.objectives.scenes import EMPTY, TARGETS, gradient

every_objective = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def run(case: Case, raw: Leaves, targets: list[dict[str, Tensor]]) -> LossTerms:
    """Terms of a fresh objective, with the gradients of their sum left at the leaves."""
    for tensor in raw.values():
        tensor.grad = None
    terms: LossTerms = case.objective()(case.outputs(raw), targets)
    terms.total.backward()
    return terms


@every_objective
def test_the_order_of_objects_does_not_matter(case: Case) -> None:
    raw = case.leaves(3)
    terms = run(case, raw, TARGETS)
    gradients = [gradient(tensor).clone() for tensor in raw.values()]
    assert all((tensor != 0).any() for tensor in gradients)
    assert all(term.item() > 0 for term in terms.values())
    backwards = [{key: value.flip(0) for key, value in target.items()} for target in TARGETS]
    again = run(case, raw, backwards)
    assert again.total.item() == pytest.approx(terms.total.item(), rel=1e-12)
    for before, tensor in zip(gradients, raw.values(), strict=True):
        torch.testing.assert_close(gradient(tensor), before, rtol=1e-9, atol=1e-15)


@every_objective
def test_without_objects_every_output_gets_a_gradient(case: Case) -> None:
    raw = case.leaves(3)
    terms = run(case, raw, EMPTY)
    assert all((gradient(tensor) == 0).all() for name, tensor in raw.items() if "logits" not in name)
    assert (terms.total.item() > 0) == case.trains_background
    assert terms.total.isfinite()


@every_objective
def test_crowd_regions_are_not_learned(case: Case) -> None:
    crowded = [{**target, "iscrowd": torch.ones(len(target["boxes"]), dtype=torch.bool)} for target in TARGETS]
    raw = case.leaves(3)
    run(case, raw, crowded)
    assert all((gradient(tensor) == 0).all() for name, tensor in raw.items() if "logits" not in name)
    # A region over the whole image: nothing inside it is background either.
    whole = {"boxes": torch.tensor([[-99.0, -99, 199, 199]]), "labels": torch.tensor([0]), "iscrowd": torch.tensor([1])}
    terms = run(case, raw, [whole] * 3)
    assert terms.total.item() == 0
    assert all((gradient(tensor) == 0).all() for tensor in raw.values())


@every_objective
def test_no_images(case: Case) -> None:
    raw = {name: tensor.detach()[:0].requires_grad_() for name, tensor in case.leaves(1).items()}
    assert run(case, raw, []).total.item() == 0
    assert all(gradient(tensor).shape == tensor.shape for tensor in raw.values())


@every_objective
def test_outputs_far_out_have_finite_gradients(case: Case) -> None:
    for factor in (1e4, -1e4, 0):
        raw = {name: (tensor.detach() * factor).requires_grad_() for name, tensor in case.leaves(3).items()}
        terms = run(case, raw, TARGETS)
        assert all(term.isfinite() for term in terms.values())
        assert all(gradient(tensor).isfinite().all() for tensor in raw.values())


@every_objective
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_give_a_float32_loss(case: Case, dtype: torch.dtype) -> None:
    half = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in case.leaves(3).items()}
    exact = {name: tensor.detach().float().requires_grad_() for name, tensor in half.items()}
    terms, expected = run(case, half, TARGETS), run(case, exact, TARGETS)
    assert terms.total.dtype == torch.float32
    for name, term in terms.items():
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-5)
    for tensor in half.values():
        assert gradient(tensor).dtype == dtype


@every_objective
def test_terms_are_divided_by_the_normalizer(case: Case) -> None:
    """Images with the same objects: their mean, their sum over all positives and one image alone agree."""
    single = {name: tensor.detach()[:1] for name, tensor in case.leaves(1).items()}
    alone = case.objective()(case.outputs(single), TARGETS[:1])
    triple = {name: tensor.expand(3, *tensor.shape[1:]) for name, tensor in single.items()}
    for mode in ("batch", "image", "all_reduce"):
        terms = case.objective(normalizer=mode)(case.outputs(triple), TARGETS[:1] * 3)
        for name, term in terms.items():
            assert term.item() == pytest.approx(alone[name].item(), rel=1e-9), (mode, name)
