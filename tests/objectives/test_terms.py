"""Loss terms and normalisers, the distributed one in two real processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lossatlas.objectives import FCOS, LossTerms, PositiveNormalizer
from tests.objectives.cases import CASES


def test_terms_are_a_mapping_whose_total_backpropagates() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    terms = LossTerms({"class": 3 * x, "box": x**2})
    assert list(terms) == ["class", "box"]
    assert len(terms) == 2
    assert terms.total.item() == 10
    terms.total.backward()
    assert x.grad is not None
    assert x.grad.item() == 7


def test_terms_do_not_change() -> None:
    given = {"box": torch.tensor(1.0)}
    terms = LossTerms(given)
    given["box"] = torch.tensor(5.0)
    assert terms.total.item() == 1
    with pytest.raises(TypeError):
        terms["box"] = torch.tensor(2.0)  # type: ignore[index]
    with pytest.raises(ValueError, match="`terms` must hold at least one term"):
        LossTerms({})


def test_batch_and_image() -> None:
    amounts = torch.tensor([3.0, 0.0, 5.0])
    batch = PositiveNormalizer("batch")(amounts)
    assert batch.denominator.item() == 8
    assert batch.weight_of(torch.tensor([0, 2])) is None
    image = PositiveNormalizer("image")(amounts)
    assert image.denominator.item() == 3
    weight = image.weight_of(torch.tensor([0, 2, 1]))
    assert weight is not None
    assert weight.tolist() == pytest.approx([1 / 3, 1 / 5, 1])


@pytest.mark.parametrize("mode", ["batch", "all_reduce"])
def test_no_positives_divide_by_the_floor(mode: str) -> None:
    assert PositiveNormalizer(mode)(torch.zeros(2)).denominator.item() == 1  # type: ignore[arg-type]
    assert PositiveNormalizer(mode, floor=0.5)(torch.zeros(0)).denominator.item() == 0.5  # type: ignore[arg-type]


def test_moving_average_is_saved_and_rests_in_evaluation() -> None:
    normalizer = PositiveNormalizer("moving_average")
    assert normalizer(torch.tensor([6.0, 4.0])).denominator.item() == pytest.approx(91)
    assert normalizer(torch.tensor([0.0])).denominator.item() == pytest.approx(0.9 * 91 + 0.1)
    normalizer.eval()
    assert normalizer(torch.tensor([50.0])).denominator.item() == pytest.approx(82)
    other = PositiveNormalizer("moving_average", start=1)
    other.load_state_dict(normalizer.state_dict())
    other.eval()
    assert other(torch.tensor([7.0])).denominator.item() == pytest.approx(82)
    assert list(PositiveNormalizer("batch").state_dict()) == []


def test_moving_average_of_an_objective_is_part_of_its_state() -> None:
    objective = FCOS(normalizer=PositiveNormalizer("moving_average", start=300))
    assert sorted(objective.state_dict()) == ["box_normalizer.average", "normalizer.average"]
    assert not list(objective.parameters())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`mode` must be one of 'batch', 'image', 'all_reduce', 'moving_average'"):
        PositiveNormalizer("mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`momentum` must be finite and at least 0 and below 1"):
        PositiveNormalizer("moving_average", momentum=1)


IMAGES = 4

# The second process of two has no positive at all, the first has many.
OBJECTS = [[[2.0, 2, 30, 28]], [[0.0, 0, 12, 12], [10.0, 4, 32, 30]], [], []]


def gradients(start: int, stop: int) -> dict[str, Tensor]:
    """Gradients of parameters that the images from `start` to `stop` share: a factor of each output."""
    targets = [
        {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.zeros(len(boxes), dtype=torch.int64)}
        for boxes in OBJECTS[start:stop]
    ]
    found = {}
    for name, case in CASES.items():
        leaves = case.leaves(IMAGES)
        factor = torch.ones(len(leaves), dtype=torch.float64, requires_grad=True)
        scaled = {key: leaf.detach()[start:stop] * factor[i] for i, (key, leaf) in enumerate(leaves.items())}
        case.objective(normalizer="all_reduce")(case.outputs(scaled), targets).total.backward()
        assert factor.grad is not None
        found[name] = factor.grad
    return found


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found = gradients(2 * rank, 2 * rank + 2)
        # One positive in all: the mean over the processes is below the floor, the sum is not.
        found["few"] = PositiveNormalizer("all_reduce")(torch.tensor([1.0 - rank])).denominator
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    mp.spawn(_process, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    single = gradients(0, IMAGES)
    for name, gradient in single.items():
        assert (gradient != 0).any()
        torch.testing.assert_close((first[name] + second[name]) / 2, gradient, rtol=1e-10, atol=1e-12)
    assert first["few"].item() == second["few"].item() == 0.5
