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
from lossatlas.targets import KeypointHeatmaps, draw_gaussians, stack_people
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

every_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())


def by_twin(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with kernels.disabled():
        return function(*arguments, **options)


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
    sides = torch.rand(people.shape[:-2], generator=torch.Generator().manual_seed(0)) * 150
    boxes = torch.stack((sides * 0, sides * 0, sides, sides / 2), -1)
    found, twin = draw(people, (21, 37), 4, boxes), by_twin(draw, people, (21, 37), 4, boxes)
    assert found.heatmaps.dtype == torch.float32
    assert torch.equal(found.drawn, twin.drawn)
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


def test_layouts_change_nothing() -> None:
    drawn = random_gaussians((16, 64), 8)
    strided: Drawn = {name: torch.stack((value, value), -1)[..., 0] for name, value in drawn.items()}
    assert torch.equal(draw_gaussians(5, (16, 64), **strided), draw_gaussians(5, (16, 64), **drawn))


def test_the_number_of_threads_changes_nothing(threads: Callable[[int], None]) -> None:
    people, draw = several_images(), KeypointHeatmaps(window="full", overlap="sum")
    found = []
    for number in (1, 2, 5):
        threads(number)
        found.append(draw(people, (160, 128), 1).heatmaps)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    people, draw = several_images().nan_to_num(0.0, posinf=0.0).clamp(max=200).to(dtype), KeypointHeatmaps()
    found, twin = draw(people, (21, 37), 4).heatmaps, by_twin(draw, people, (21, 37), 4).heatmaps
    assert found.dtype == twin.dtype
    torch.testing.assert_close(found, twin, rtol=1e-5, atol=2.5e-7)


def test_gradients_of_places_come_from_the_twin() -> None:
    people = several_images().nan_to_num(0.0).clamp(max=200).requires_grad_()
    (found,) = torch.autograd.grad(KeypointHeatmaps()(people, (21, 37), 4).heatmaps.sum(), people)
    assert found.abs().sum() > 0


def test_compiles_without_a_break() -> None:
    people, draw = several_images(), KeypointHeatmaps(sigma=2.0)
    compiled = torch.compile(lambda points: draw(points, (21, 37), 4).heatmaps, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(people), draw(people, (21, 37), 4).heatmaps)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_gaussians_are_registered_in_full() -> None:
    drawn = random_gaussians((16, 64), 8)
    torch.library.opcheck(torch.ops.lossatlas.gaussians.default, ((5, 16, 64), *drawn.values(), 4.6, True))


def test_memory_is_that_of_the_result() -> None:
    people = torch.rand(8, 5, 17, 3) * 250 + 1
    draw = KeypointHeatmaps(sigma=2.0, window="full", outside="draw")
    with PeakMemory() as memory:
        found = draw(people, (64, 64), 4).heatmaps
    assert memory.peak < 1.2 * found.nbytes


def test_a_map_that_is_not_there() -> None:
    drawn = random_gaussians((16, 64), 8)
    with pytest.raises(ValueError, match="gaussians: a plane is out of range"):
        draw_gaussians(4, (16, 64), **drawn)
