import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lossatlas.lab import training
from lossatlas.lab.evaluation import evaluate_detections
from lossatlas.lab.training import (
    EvalEvent,
    NonFiniteError,
    ResumeEvent,
    TrainEvent,
    TrialConfig,
    calibrate_steps,
    run_trial,
)
from lossatlas.lab.variants import resolve_loss
from lossatlas.losses.boxes import giou_loss
from lossatlas.objectives.slots import BoxLoss
from tests.lab.training.squares import Squares, Subset, squares_data

CONFIG = TrialConfig("fcos", {"box": "giou"}, seed=3, steps=8, batch_size=3, image_size=96, evaluations=2)
"""A checkpoint is written after steps 4 and 8."""

KILLED_AT = 6


class StoppedError(Exception):
    pass


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["trainer"]


def log_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds") > 0
    return rows


def assert_same(one, two):
    """Compare nested containers of tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one:
            assert_same(one[name], two[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            assert_same(first, second)
    else:
        assert one == two


def assert_same_trials(one, two):
    assert_same(weights(one), weights(two))
    assert log_of(one) == log_of(two)
    assert (one / "predictions.json").read_bytes() == (two / "predictions.json").read_bytes()


@pytest.fixture(scope="module", params=["fcos", "retinanet"])
def finished(request, tmp_path_factory):
    """A trial that nothing disturbed: its configuration, folder, result and events."""
    config, folder, events = replace(CONFIG, objective=request.param), tmp_path_factory.mktemp("trial"), []
    result = run_trial(config, squares_data(), folder, on_event=events.append)
    return config, folder, result, events


def test_tells_how_it_gets_on(finished):
    config, folder, result, events = finished
    assert [type(event) for event in events] == [*[TrainEvent] * 4, EvalEvent, *[TrainEvent] * 4, EvalEvent]
    terms = {"class", "box", "centerness", "total"} if config.objective == "fcos" else {"class", "box", "total"}
    for event in events:
        assert event.steps == 8
        if isinstance(event, TrainEvent):
            assert event.terms.keys() == terms
            assert event.terms["total"] == pytest.approx(sum(event.terms[name] for name in terms - {"total"}))
    assert events[-1].metrics == result.metrics
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)
    logged = [
        {"kind": "eval", "step": event.step, "metrics": event.metrics}
        if isinstance(event, EvalEvent)
        else {"kind": "train", "step": event.step, "terms": event.terms, "lr": event.lr}
        for event in events
    ]
    assert log_of(folder) == logged


def test_leaves_what_a_report_needs(finished):
    config, folder, result, _ = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.jsonl",
        "predictions.json",
        "result.json",
    ]
    data = squares_data()
    rows = json.loads((folder / "predictions.json").read_text())
    assert evaluate_detections(data.test.coco, rows) == pytest.approx(result.metrics)
    assert {row["image_id"] for row in rows} <= {record.image_id for record in data.test.records}
    for row in rows:
        x, y, width, height = row["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= 96.001
        assert y + height <= 64.001
    stored = json.loads((folder / "config.json").read_text())
    assert stored["data"] == {"name": "squares", "fingerprint": data.fingerprint}
    assert {name: stored[name] for name in ("objective", "losses", "seed", "steps")} == {
        "objective": config.objective,
        "losses": {"box": "giou"},
        "seed": 3,
        "steps": 8,
    }


def test_the_same_seed_trains_the_same_weights(finished, tmp_path):
    config, folder, result, _ = finished
    again = run_trial(config, squares_data(), tmp_path)
    assert_same_trials(folder, tmp_path)
    assert again.metrics == result.metrics
    assert again.parameters == result.parameters


def test_goes_on_after_an_error_as_if_nothing_had_happened(finished, tmp_path):
    config, folder, result, events = finished

    def stop(event):
        if event.step == KILLED_AT:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_trial(config, squares_data(), tmp_path, on_event=stop)
    assert weights(tmp_path)["step"] == 4
    assert log_of(tmp_path)[-1]["step"] == KILLED_AT
    told = []
    resumed = run_trial(config, squares_data(), tmp_path, on_event=told.append)
    assert isinstance(told[0], ResumeEvent)
    assert told[0].step == 4
    assert [event.step for event in told[1:]] == [event.step for event in events[5:]]
    assert_same_trials(folder, tmp_path)
    assert resumed.metrics == result.metrics


STATEFUL = [
    {"box": "wiou(version=3, momentum=0.5)"},
    {"cls": "ghmc"},
    {"box": "ghmr", "cls": "equalized_focal"},
]


@pytest.mark.parametrize("losses", STATEFUL, ids=lambda losses: "+".join(losses.values()))
def test_the_state_of_a_loss_is_trained_on_after_an_interruption(tmp_path, losses):
    config = replace(CONFIG, objective="retinanet", losses=losses)

    def stop(event):
        if event.step == KILLED_AT:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_trial(config, squares_data(), tmp_path / "killed", on_event=stop)
    run_trial(config, squares_data(), tmp_path / "killed")
    run_trial(config, squares_data(), tmp_path / "whole")
    assert_same_trials(tmp_path / "killed", tmp_path / "whole")
    start = training._Trainer(config, squares_data(), resolve_loss).learner.state_dict()
    moved = [
        name
        for name, value in weights(tmp_path / "whole")["learner"].items()
        if name.startswith("objective.") and not torch.equal(value, start[name])
    ]
    assert {name.split(".")[1] for name in moved} == {{"box": "box_loss", "cls": "class_loss"}[slot] for slot in losses}


@pytest.mark.parametrize("loss", ["ap", "alrp", "rank_sort", "binary_cross_entropy", "smooth_l1"])
def test_a_class_slot_takes_losses_that_rank_and_losses_of_probabilities(tmp_path, loss):
    config = replace(CONFIG, steps=2, losses={"cls": loss}, evaluations=1)
    run_trial(config, squares_data(), tmp_path)
    assert all(row["terms"]["class"] >= 0 for row in log_of(tmp_path) if row["kind"] == "train")


KILLED = """
import os, signal, sys
from pathlib import Path
from lossatlas.lab.training import TrialConfig, run_trial
from tests.lab.training.squares import squares_data
from tests.lab.training.test_training import CONFIG, KILLED_AT

def kill(event):
    if event.step == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)

run_trial(CONFIG, squares_data(), Path(sys.argv[1]), on_event=kill)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_goes_on_after_being_killed_as_if_nothing_had_happened(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert weights(tmp_path / "killed")["step"] == 4
    run_trial(CONFIG, squares_data(), tmp_path / "killed")
    run_trial(CONFIG, squares_data(), tmp_path / "whole")
    assert_same_trials(tmp_path / "killed", tmp_path / "whole")


def test_an_unfinished_log_line_does_not_survive(tmp_path):
    def stop(event):
        if event.step == KILLED_AT:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_trial(CONFIG, squares_data(), tmp_path, on_event=stop)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    run_trial(CONFIG, squares_data(), tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]


def test_a_finished_trial_is_not_trained_again(finished):
    config, folder, result, _ = finished
    events = []
    assert run_trial(config, squares_data(), folder, on_event=events.append) == result
    assert events == []


def test_refuses_the_folder_of_another_trial(finished):
    config, folder, _, _ = finished
    with pytest.raises(ValueError, match="holds another trial: seed: 3 there, 4 now"):
        run_trial(replace(config, seed=4), squares_data(), folder)
    with pytest.raises(ValueError, match="holds another trial: data"):
        run_trial(config, squares_data(test=Squares("test", 4, seed=9)), folder)


def test_refuses_a_log_that_was_cut(finished, tmp_path):
    config, folder, _, _ = finished
    for name in ("config.json", "checkpoint.pt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is shorter than at the last checkpoint"):
        run_trial(config, squares_data(), tmp_path)


def watch_trial(monkeypatch, config, folder):
    """Return the first weights of a trial and the batches it was trained with."""
    starts, batches = [], []
    update = training._Trainer.update

    def watched(trainer, batch):
        if not batches:
            starts.append({name: value.clone() for name, value in trainer.network.state_dict().items()})
        batches.append(batch)
        return update(trainer, batch)

    monkeypatch.setattr(training._Trainer, "update", watched)
    run_trial(config, squares_data(), folder)
    monkeypatch.undo()
    return starts[0], batches


@pytest.mark.parametrize("losses", [{"box": "ciou"}, {"cls": "quality_focal"}])
def test_variants_start_alike_and_see_the_same_batches(monkeypatch, tmp_path, losses):
    config = replace(CONFIG, steps=4, evaluations=1)
    start, batches = watch_trial(monkeypatch, config, tmp_path / "one")
    other_start, other_batches = watch_trial(monkeypatch, replace(config, losses=losses), tmp_path / "two")
    assert_same(start, other_start)
    assert len(batches) == 4
    assert_same([vars(batch) for batch in batches], [vars(batch) for batch in other_batches])
    one, two = (weights(tmp_path / name)["average"] for name in ("one", "two"))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_another_seed_starts_and_goes_on_differently(monkeypatch, tmp_path):
    config = replace(CONFIG, steps=1, evaluations=1)
    start, batches = watch_trial(monkeypatch, config, tmp_path / "one")
    other_start, other_batches = watch_trial(monkeypatch, replace(config, seed=4), tmp_path / "two")
    assert not torch.equal(start["pyramid.stem.0.0.weight"], other_start["pyramid.stem.0.0.weight"])
    assert not torch.equal(batches[0].images, other_batches[0].images)


def loss_that_goes_wrong(make_wrong, after):
    """A factory of losses that turn wrong after some calls."""
    calls = []

    def loss(input, target, **options):
        calls.append(len(input))
        value = giou_loss(input, target, **options)
        return make_wrong(value) if len(calls) > after else value

    def resolve(text, slot, objective, num_classes):
        del text, slot, objective, num_classes
        return loss

    return resolve


def resolve_with_regression(monkeypatch, resolve):
    """Let an objective take a loss that is not the library's."""
    build = training.build_objective

    def build_with_regression(config, facts, _):
        objective = build(replace(config, losses={}), facts, resolve)
        objective.box_loss = BoxLoss(resolve("", "", "", 0), "boxes")
        return objective

    monkeypatch.setattr(training, "build_objective", build_with_regression)


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (lambda value: value * float("nan"), "step 3: the box term of the loss is nan"),
        (lambda value: value + float("inf"), "step 3: the box term of the loss is inf"),
        # The value is finite, and so is the loss; the derivative of the root at 0 is not.
        (lambda value: value + (value * 0).sqrt(), "step 3: the gradient of the box term of the loss is not finite"),
    ],
)
def test_stops_at_a_loss_that_is_not_finite(monkeypatch, tmp_path, make_wrong, message):
    resolve_with_regression(monkeypatch, loss_that_goes_wrong(make_wrong, after=2))
    with pytest.raises(NonFiniteError, match=message):
        run_trial(CONFIG, squares_data(), tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == [1, 2]
    assert not (tmp_path / "result.json").exists()


def test_trains_on_images_without_objects(tmp_path):
    empty = Subset(Squares("train", 7, seed=1), [0, 3, 6])
    result = run_trial(replace(CONFIG, steps=2), squares_data(train=empty), tmp_path)
    assert all(row["terms"]["box"] == 0 for row in log_of(tmp_path) if row["kind"] == "train")
    assert result.steps == 2


def test_scores_images_without_objects(tmp_path):
    empty = Subset(Squares("test", 7, seed=1), [0, 3, 6])
    assert run_trial(replace(CONFIG, steps=2), squares_data(test=empty), tmp_path).metrics == {}


@pytest.mark.parametrize("objective", ["fcos", "retinanet"])
def test_overfits_four_images(tmp_path, objective):
    few = Subset(Squares("train", 7, seed=1), [1, 2, 4, 5])
    config = TrialConfig(
        objective,
        {},
        seed=0,
        steps=90,
        batch_size=4,
        scale_jitter=0.0,
        color_jitter=0.0,
        horizontal_flip=False,
        evaluations=1,
    )
    result = run_trial(config, squares_data(train=few, test=few), tmp_path)
    assert result.metrics["AP50"] > 0.95
    totals = [row["terms"]["total"] for row in log_of(tmp_path) if row["kind"] == "train"]
    assert totals[-1] < totals[0] / 2


def test_detections_are_in_pixels_of_the_original(tmp_path):
    few = Subset(Squares("train", 7, seed=1), [1, 2, 4, 5])
    config = replace(CONFIG, steps=90, batch_size=4, image_size=64, scale_jitter=0.0, horizontal_flip=False)
    assert run_trial(config, squares_data(train=few, test=few), tmp_path).metrics["AP50"] > 0.9


def test_turns_minutes_into_steps(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(training.time, "perf_counter", lambda: 0.5 * next(clock))  # every step takes half a second
    assert calibrate_steps(CONFIG, squares_data(), minutes=2.0, measured=2) == 240
    assert calibrate_steps(CONFIG, squares_data(), minutes=0.001, measured=1) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "`steps` must be a whole number of at least 1, but got 0"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number"),
        ({"objective": "yolo"}, "unknown objective 'yolo'"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be above 0"),
        ({"ema_decay": 1.0}, "`ema_decay` must be at least 0 and below 1"),
        ({"scale_jitter": -0.1}, "`scale_jitter` must be at least 0"),
        ({"backend": "coco"}, "`backend` must be"),
    ],
)
def test_refuses_a_configuration_that_cannot_be_trained(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
