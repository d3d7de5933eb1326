"""Training of pose: every objective, every loss that fits one, and a whole comparison with its report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lossatlas.lab.comparison import Trainer, compare
from lossatlas.lab.data import PoseData
from lossatlas.lab.data.figures import load_figures
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.plan import Source
from lossatlas.lab.registry import OBJECTIVES, find_objective
from lossatlas.lab.tasks import TASKS, default_recipe
from lossatlas.lab.training import TrialConfig, _Trainer
from lossatlas.lab.variants import resolve_loss, slot_losses
from lossatlas.losses.catalog import CATALOG

POSE = [name for name, spec in OBJECTIVES.items() if spec.task == "pose"]
CASES = [
    (objective, slot, loss)
    for objective in POSE
    for slot in OBJECTIVES[objective].slots
    for loss, entry in slot_losses(slot, objective).items()
    if entry.family in ("pose", "heatmap") or entry.input_kind == "heatmap_logits"
]


@pytest.fixture(scope="module")
def figures() -> PoseData:
    return load_figures(train_scenes=3, test_scenes=2)


def trainer_of(objective: str, data: PoseData, losses: dict[str, str] | None = None) -> _Trainer:
    config = TrialConfig(
        objective, losses or {}, seed=1, steps=4, **default_recipe(objective) | {"image_size": 64, "batch_size": 2}
    )
    return _Trainer(config, find_objective(objective).see(data), resolve_loss)


@pytest.mark.parametrize("objective", POSE)
def test_every_weight_learns(objective: str, figures: PoseData) -> None:
    trainer = trainer_of(objective, figures)
    values = [trainer.update(trainer.batch()) for _ in range(2)]
    assert all(value["total"] > 0 for value in values)
    # What starts at zero passes no gradient on in the first step, but in the second.
    silent = [name for name, p in trainer.network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("objective", "slot", "loss"), CASES)
def test_every_pose_loss_trains(objective: str, slot: str, loss: str, figures: PoseData) -> None:
    trainer = trainer_of(objective, figures, {slot: loss})
    before = torch.cat([p.detach().flatten() for p in trainer.network.parameters()])
    assert trainer.update(trainer.batch())["total"] != 0
    after = torch.cat([p.detach().flatten() for p in trainer.network.parameters()])
    assert bool(after.isfinite().all())
    assert (before != after).float().mean() > 0.5


def test_no_pose_loss_is_left_out() -> None:
    tried = {find.name for objective, slot, loss in CASES for find in [slot_losses(slot, objective)[loss]]}
    assert {name for name, entry in CATALOG.items() if entry.family == "pose"} <= tried


@pytest.mark.parametrize("objective", POSE)
def test_images_without_people_are_ordinary(objective: str, figures: PoseData) -> None:
    trainer = trainer_of(objective, figures)
    batch = trainer.batch()
    empty = [{key: value if key == "mirror" else value[:0] for key, value in t.items()} for t in batch.targets]
    assert trainer.update(replace(batch, targets=empty))["total"] >= 0
    for row in trainer.predict(trainer.data.test):
        assert len(row["keypoints"]) == 3 * 14
        assert all(0 <= value <= 192 for value in row["keypoints"])


@pytest.mark.parametrize("objective", POSE)
def test_training_goes_on_as_if_nothing_had_happened(objective: str, figures: PoseData) -> None:
    one, two = trainer_of(objective, figures), trainer_of(objective, figures)
    one.update(one.batch())
    two.load_state_dict(one.state_dict())
    torch.manual_seed(99)
    assert one.update(one.batch()) == two.update(two.batch())


def test_one_person_is_cut_out_for_heatmaps_alone(figures: PoseData) -> None:
    people = sum(len(record.keypoints) for record in figures.train.records)
    assert people > len(figures.train)
    assert len(find_objective("heatmap").see(figures).train) == people


@pytest.mark.slow
@pytest.mark.parametrize("objective", POSE)
def test_a_whole_comparison(objective: str, figures: PoseData, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "out": tmp_path,
        "objective": objective,
        "seeds": 2,
        "steps": 2,
        "recipe": {"batch_size": 2, "image_size": 64, "evaluations": 1},
        "trainer": Trainer(load=lambda source, task: figures),
    }
    summary = compare("figures", **arguments)
    assert (summary.complete, summary.failed) == (True, False)
    metrics = summary.baseline.metrics
    assert {"AP", "PCK", "grouping", "median error"} <= set(metrics)
    assert json.loads((tmp_path / "summary.json").read_text())["task"] == "pose"
    report = (tmp_path / "report.html").read_text()
    assert 'class="joint truth"' in report
    assert "median error (px)" in report
    assert compare("figures", **arguments) == summary


def test_only_pose_data_can_be_composed() -> None:
    with pytest.raises(ArgumentError, match="compose is not for detection"):
        Source("digits", compose="2-4").load(TASKS["detection"])


@pytest.mark.parametrize("text", ["", "2-", "two", "2-4-6"])
def test_a_range_that_cannot_be_read_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(TASKS["pose"]), "load", lambda *args, **options: None)
    with pytest.raises(ArgumentError, match="expected a number or a range such as 2-4"):
        Source("flies", compose=text).load(TASKS["pose"])
