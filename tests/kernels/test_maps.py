"""Drawing on maps by kernels against the PyTorch code that defines it, on the same numbers and in double precision."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import kernels
from lossatlas.assign import CenterHeatmap
from lossatlas.kernels import maps
from lossatlas.targets import KeypointHeatmaps, PartAffinityFields, Skeleton, draw_gaussians, stack_people
from lossatlas.targets.gaussians import Overlap
from tests.assign.scenes import random_target
from tests.kernels.case import needs_kernels
from tests.memory import PeakMemory
from tests.targets.scenes import random_people

pytestmark = needs_kernels

Drawn = dict[str, Any]

SIZES = [(16, 64), (21, 37), (40, 3), (1, 1)]

HEATMAPS: dict[str, dict[str, Any]] = {
    "associative embedding": {"center": "floor", "window": "3sigma+1", "convention": "index"},
    "mmpose": {"sigma": 2.0, "center": "round", "convention": "index", "outside": "draw"},
    "UDP": {"sigma": 2.0, "convention": "ends", "outside": "draw"},
    "DARK": {"sigma": 2.0, "window": "full", "outside": "draw"},
    "OpenPose": {"sigma": 7 / 8, "window": "percent", "outside": "draw", "background": True},
    "OpenPose of 2017": {"sigma": 2.3, "window": "percent", "outside": "draw", "background": True, "overlap": "sum"},
    "scale-aware": {"sigma": 7.0, "scale_aware": True, "convention": "area"},
    "sums of whole Gaussians": {"sigma": 1.5, "window": "full", "overlap": "sum"},
    "peaks of 1": {"sigma": 1.2, "unit_peaks": True},
}

FIELDS: dict[str, dict[str, Any]] = {
    "capsules": {},
    "the paper's": {"region": "limb", "width": 1.3},
    "OpenPose": {"region": "box", "convention": "index"},
    "OpenPose of 2017": {"region": "box", "convention": "index", "overlap": "last"},
    "lightweight": {"region": "box_floor", "convention": "index", "overlap": "last"},
    "tensorboy": {"region": "box", "open_edge": True, "convention": "index"},
    "mmpose 0.x": {"region": "box_inclusive", "open_edge": True, "convention": "index"},
    "the last capsule, without its edge": {"open_edge": True, "overlap": "last", "width": 2.0},
}

STAR = Skeleton("star", ("a", "b", "c", "d", "e"), ((0, 1), (1, 2), (2, 0), (3, 1), (4, 0), (3, 4)))

Scene = Callable[[], Tensor]


def several_images() -> Tensor:
    """Unlabelled keypoints, keypoints outside, keypoints of several people in one place."""
    people = torch.stack([random_people(random.Random(seed), 4, 5, 84, 148) for seed in range(3)]).float()
    people[0, 1] = people[0, 0]
    return people


def between_crowds() -> Tensor:
    """As many people as the image with the most has, the others filled up with people without keypoints."""
    images = several_images()
    targets = [
        {"keypoints": image[: seed + 1], "iscrowd": torch.arange(seed + 1) == 1} for seed, image in enumerate(images)
    ]
    return stack_people(targets).keypoints


def on_cells() -> Tensor:
    """Whole and half cells, where what is rounded decides."""
    places = torch.arange(-4.0, 160.0, 2.0)
    points = torch.stack((places, places.flip(0), torch.ones_like(places)), 1)
    return points[:80].view(4, 4, 5, 3)


SCENES: dict[str, Scene] = {
    "several images": several_images,
    "between crowds": between_crowds,
    "on cells": on_cells,
    "one person": lambda: several_images()[0, :1],
    "nobody": lambda: several_images()[:, :0],
    "no image": lambda: several_images()[:0],
    "far away": lambda: several_images() * torch.tensor([1e6, -1e9, 1.0]),
}


def boxes_around(people: Tensor) -> Tensor:
    """Return boxes of random sizes, for what depends on the size of a person."""
    sides = torch.rand(people.shape[:-2], generator=torch.Generator().manual_seed(0)) * 150
    return torch.stack((sides * 0, sides * 0, sides, sides / 2), -1)


every_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())


def by_twin(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with kernels.disabled():
        return function(*arguments, **options)


def crossing_limbs() -> Tensor:
    """Twelve people with the same limbs about one place, level, upright and slanted, of whole cells and of none."""
    source = random.Random(0)
    places = [
        [[source.choice([36, 40, 44, 46, 60]), source.choice([20, 40, 42]), 1] for _ in range(5)] for _ in range(12)
    ]
    return torch.tensor(places, dtype=torch.float32)


def limbs_without_a_length() -> Tensor:
    people = several_images().nan_to_num(0.0)
    people[:, :2, 1] = people[:, :2, 0]
    return people


LIMBS = SCENES | {"crossing": crossing_limbs, "without a length": limbs_without_a_length}


@pytest.mark.parametrize("scene", LIMBS.values(), ids=LIMBS.keys())
@pytest.mark.parametrize("options", FIELDS.values(), ids=FIELDS.keys())
def test_fields_equal_the_twin(options: dict[str, Any], scene: Scene, instruction_set: str) -> None:
    people, draw = scene(), PartAffinityFields(STAR, **options)
    for size in ((5, 3), (21, 37)):
        found, twin = draw(people, size, 4), by_twin(draw, people, size, 4)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, twin, rtol=1e-6, atol=2.5e-7)
    assert not people.numel() or scene is SCENES["far away"] or (found != 0).any()


@pytest.mark.parametrize("options", FIELDS.values(), ids=FIELDS.keys())
def test_fields_in_double_precision(options: dict[str, Any], instruction_set: str) -> None:
    """Keypoints between the cells, so that no cell lies at exactly the width from a limb."""
    people = torch.stack([random_people(random.Random(seed), 6, 5, 84, 148) for seed in range(4)]).float()
    draw = PartAffinityFields(STAR, **options)
    exact = by_twin(draw, people.double(), (21, 37), 4)
    torch.testing.assert_close(draw(people, (21, 37), 4).double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5, 40.0])
def test_fields_of_any_direction_and_width(width: float, instruction_set: str) -> None:
    """Limbs about a cell in all directions, also exactly along the axes, on one field each."""
    angle = torch.arange(256) * (torch.pi / 128)
    middle = torch.tensor([50.0, 40.0])
    end = middle + 35 * torch.stack((angle.cos(), angle.sin()), -1)
    end[::64] = end[::64].round()
    people = torch.ones(256, 1, 2, 3)
    people[:, 0, 0, :2], people[:, 0, 1, :2] = 2 * middle - end, end
    draw = PartAffinityFields(Skeleton("arm", ("elbow", "wrist"), ((0, 1),)), width=width, convention="index")
    found, twin = draw(people, (80, 100), 1), by_twin(draw, people, (80, 100), 1)
    torch.testing.assert_close(found, twin, rtol=1e-6, atol=2.5e-7)


def random_gaussians(size: tuple[int, int], reach: int) -> Drawn:
    """Draw Gaussians on and beside five maps, some of them nowhere."""
    generator = torch.Generator().manual_seed(size[1] + reach)
    height, width = size
    center = (torch.rand(60, 2, generator=generator) * 1.4 - 0.2) * torch.tensor([width, height])
    return {
        "plane": torch.randint(-1, 5, (60,), generator=generator),
        "center": center,
        "sigma": torch.rand(60, generator=generator) * 4 + 0.3,
        "anchor": (center + torch.rand(60, 2, generator=generator)).floor().long(),
        "reach": torch.randint(reach, (60,), generator=generator),
    }


def in_double(drawn: Drawn) -> Drawn:
    return {name: value.double() if value.is_floating_point() else value for name, value in drawn.items()}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("reach", [8, 2**15])
@pytest.mark.parametrize("overlap", ["max", "sum"])
@pytest.mark.parametrize("least", [0.0, 0.2])
def test_gaussians(size: tuple[int, int], reach: int, least: float, overlap: Overlap, instruction_set: str) -> None:
    drawn = random_gaussians(size, reach)
    assert maps.usable(drawn["center"], *drawn.values())
    found = draw_gaussians(5, size, **drawn, least=least, overlap=overlap)
    exact = by_twin(draw_gaussians, 5, size, **in_double(drawn), least=least, overlap=overlap)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=2.5e-7)
    assert found.max() > 0
    assert found.max() <= 1


@every_scene
@pytest.mark.parametrize("options", HEATMAPS.values(), ids=HEATMAPS.keys())
def test_heatmaps_equal_the_twin(options: dict[str, Any], scene: Scene, instruction_set: str) -> None:
    people, draw = scene(), KeypointHeatmaps(**options)
    boxes = boxes_around(people)
    found, twin = draw(people, (21, 37), 4, boxes), by_twin(draw, people, (21, 37), 4, boxes)
    assert found.heatmaps.dtype == torch.float32
    assert torch.equal(found.drawn, twin.drawn)
    assert torch.equal(found.heatmaps == 1, twin.heatmaps == 1) or not draw.unit_peaks
    torch.testing.assert_close(found.heatmaps, twin.heatmaps, rtol=1e-5, atol=2.5e-7)
    assert not found.drawn.any() or found.heatmaps.max() > 0.1


def test_a_gaussian_reaches_cells_at_the_least_value_as_the_twin_does() -> None:
    """Cells whose value is the least but for its rounding: both decide by the same number."""
    distance = torch.sqrt(-2 * torch.log(torch.tensor(0.01))) * (1 + torch.arange(-50, 50) * 1e-7)
    center = torch.stack((20 + distance, torch.full_like(distance, 3.0)), 1)
    drawn: Drawn = {
        "plane": torch.arange(100),
        "center": center,
        "sigma": torch.ones(100),
        "anchor": center.long(),
        "reach": torch.full((100,), 9),
    }
    found = draw_gaussians(100, (7, 40), **drawn, least=0.01)
    twin = by_twin(draw_gaussians, 100, (7, 40), **drawn, least=0.01)
    assert torch.equal(found > 0, twin > 0)
    assert 10 < (found[:, 3, 20] > 0).sum() < 90


def test_objects_equal_the_twin(instruction_set: str) -> None:
    target = random_target(random.Random(0), 30, 120, 3, 0.1)
    assigner = CenterHeatmap(3, radius="cornernet")
    found, twin = assigner((32, 32), 4, target), by_twin(assigner, (32, 32), 4, target)
    torch.testing.assert_close(found.heatmap, twin.heatmap, rtol=1e-5, atol=2.5e-7)
    assert torch.equal(found.heatmap == 1, twin.heatmap == 1)
    assert (found.heatmap == 1).any()


@pytest.mark.parametrize("overlap", ["max", "sum"])
def test_what_is_not_a_number_is_seen(overlap: Overlap, instruction_set: str) -> None:
    drawn = random_gaussians((16, 64), 2**15)
    drawn["center"][7, 0] = torch.nan
    drawn["plane"][7:10] = 1
    found = draw_gaussians(5, (16, 64), **drawn, overlap=overlap)
    twin = by_twin(draw_gaussians, 5, (16, 64), **drawn, overlap=overlap)
    assert found[1].isnan().any()
    torch.testing.assert_close(found[twin.isfinite()], twin[twin.isfinite()], rtol=1e-5, atol=2.5e-7)


DRAW: dict[str, Callable[..., Tensor]] = {
    "heatmaps": lambda *people: KeypointHeatmaps(sigma=2.0, overlap="sum", unit_peaks=True)(*people).heatmaps,
    "fields": PartAffinityFields(STAR),
}

both = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())


@both
def test_the_number_of_threads_changes_nothing(draw: Callable[..., Tensor], threads: Callable[[int], None]) -> None:
    found = []
    for number in (1, 2, 5):
        threads(number)
        found.append(draw(several_images(), (160, 128), 1))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_layouts_of_gaussians_change_nothing() -> None:
    drawn = random_gaussians((16, 64), 8)
    strided: Drawn = {name: torch.stack((value, value), -1)[..., 0] for name, value in drawn.items()}
    assert torch.equal(draw_gaussians(5, (16, 64), **strided), draw_gaussians(5, (16, 64), **drawn))


@both
def test_layouts_of_people_change_nothing(draw: Callable[..., Tensor]) -> None:
    people = several_images()
    strided = torch.stack((people, people), -1)[..., 0]
    assert torch.equal(draw(strided, (21, 37), 4), draw(people, (21, 37), 4))


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(draw: Callable[..., Tensor], dtype: torch.dtype) -> None:
    people = several_images().nan_to_num(0.0, posinf=0.0).clamp(max=200).to(dtype)
    found, twin = draw(people, (21, 37), 4), by_twin(draw, people, (21, 37), 4)
    assert found.dtype == twin.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found, twin, rtol=1e-5, atol=2.5e-7)


@both
def test_gradients_of_places_come_from_the_twin(draw: Callable[..., Tensor]) -> None:
    people = limbs_without_a_length().clamp(max=200).requires_grad_()
    (gradient,) = torch.autograd.grad(draw(people, (21, 37), 4).sum(), people)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@both
def test_compiles_without_a_break(draw: Callable[..., Tensor]) -> None:
    people = several_images()
    compiled = torch.compile(lambda points: draw(points, (21, 37), 4), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(people), draw(people, (21, 37), 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_operators_are_registered_in_full() -> None:
    drawn = random_gaussians((16, 64), 8)
    torch.library.opcheck(torch.ops.lossatlas.gaussians.default, ((5, 16, 64), *drawn.values(), 4.6, True))
    numbers = [4.6, 0.0, 4.0, 4.0, 1.5, 0.0, 1.0, 1.0]
    people = several_images().nan_to_num(0.0)
    arguments = (people, torch.ones(3, 4), torch.full((3, 4), 3), (16, 64), numbers)
    torch.library.opcheck(torch.ops.lossatlas.heatmaps.default, arguments)
    limbs = torch.tensor(STAR.limbs)
    torch.library.opcheck(torch.ops.lossatlas.fields.default, (people, limbs, (16, 64), [4.0, 4.0, 1.5, 0, 1, 1, 0, 0]))


@both
def test_memory_is_that_of_the_result(draw: Callable[..., Tensor]) -> None:
    people = torch.rand(8, 5, 5, 3) * 250 + 1
    with PeakMemory() as memory:
        found = draw(people, (64, 64), 4)
    assert memory.peak < 1.2 * found.nbytes


def test_a_map_or_a_keypoint_that_is_not_there() -> None:
    drawn = random_gaussians((16, 64), 8)
    with pytest.raises(ValueError, match="gaussians: a plane is out of range"):
        draw_gaussians(4, (16, 64), **drawn)
    with pytest.raises(ValueError, match="fields: a limb has an end that is no keypoint"):
        torch.ops.lossatlas.fields(torch.ones(1, 1, 2, 3), torch.tensor([[0, 2]]), (4, 4), [1.0, 1.0, 0, 0, 1, 1, 0, 0])
