"""Assignment, targets, objectives and decoding on an accelerator give what they give on the CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import SoftAssignment
from lossatlas.targets import KeypointHeatmaps, PartAffinityFields
from tests.accelerator import on_device
from tests.assign.cases import CASES as ASSIGNERS
from tests.assign.cases import Case as Assigner
from tests.assign.test_properties import scenes
from tests.kernels.test_maps import FIELDS, HEATMAPS, LIMBS, SCENES, STAR, Scene, boxes_around, by_twin
from tests.objectives import cases, test_people
from tests.objectives.scenes import TARGETS

if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device", allow_module_level=True)

OBJECTIVES = {name: (case.objective, case, TARGETS) for name, case in cases.CASES.items()} | {
    name: (case.make, case, test_people.TARGETS) for name, case in test_people.CASES.items()
}

every_objective = pytest.mark.parametrize(("make", "case", "targets"), OBJECTIVES.values(), ids=OBJECTIVES.keys())


def agree(found: Any, expected: Any) -> None:
    """Check that all is on the device, and what it is on the host."""
    if isinstance(expected, Tensor):
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        agree(list(found.values()), list(expected.values()))
    else:
        for one, other in zip(found, expected, strict=True):
            agree(one, other)


@pytest.mark.parametrize("case", ASSIGNERS.values(), ids=ASSIGNERS.keys())
def test_assignments(case: Assigner) -> None:
    for predictions, target, _ in scenes(4):
        found, expected = case.run(on_device(predictions), on_device(target), None), case.run(predictions, target, None)
        agree([found.state, found.matched], [expected.state, expected.matched])
        if isinstance(expected, SoftAssignment):
            assert isinstance(found, SoftAssignment)
            agree(found.quality, expected.quality)


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES.keys())
@pytest.mark.parametrize("options", HEATMAPS.values(), ids=HEATMAPS.keys())
def test_heatmaps(options: dict[str, Any], scene: Scene) -> None:
    draw, people = KeypointHeatmaps(**options), scene()
    boxes = boxes_around(people)
    found, expected = draw(people.cuda(), (21, 37), 4, boxes.cuda()), by_twin(draw, people, (21, 37), 4, boxes)
    agree([found.heatmaps, found.drawn], [expected.heatmaps, expected.drawn])


@pytest.mark.parametrize("scene", LIMBS.values(), ids=LIMBS.keys())
@pytest.mark.parametrize("options", FIELDS.values(), ids=FIELDS.keys())
def test_fields(options: dict[str, Any], scene: Scene) -> None:
    draw = PartAffinityFields(STAR, **options)
    agree(draw(scene().cuda(), (21, 37), 4), by_twin(draw, scene(), (21, 37), 4))


@every_objective
def test_objectives(make: Any, case: Any, targets: list[dict[str, Tensor]]) -> None:
    raw = case.leaves(3)
    there = {name: tensor.detach().cuda().requires_grad_() for name, tensor in raw.items()}
    expected, found = make()(case.outputs(raw), targets), make().cuda()(case.outputs(there), on_device(targets))
    agree(dict(found), dict(expected))
    expected.total.backward()
    found.total.backward()
    agree([tensor.grad for tensor in there.values()], [tensor.grad for tensor in raw.values()])


@every_objective
def test_detections(make: Any, case: Any, targets: list[dict[str, Tensor]]) -> None:
    raw = {name: tensor.detach() for name, tensor in case.leaves(3).items()}
    objective: Any = make()
    expected = objective.decode(case.outputs(raw))
    agree(objective.cuda().decode(case.outputs(on_device(raw))), expected)
    assert any(len(next(iter(image.values()))) for image in expected)
