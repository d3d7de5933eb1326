import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lossatlas.lab import registry
from lossatlas.lab.comparison import Listener, compare
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.plan import command_line, read_plan
from lossatlas.lab.summary import Summary, Trial
from lossatlas.lab.trial import TrialConfig
from tests.lab.comparison.fakes import FakeTraining, fake_data

TWO = ["box=giou,ciou"]


def run(out: Path, training: FakeTraining, **changes: Any) -> Summary:
    """Compare two losses with two seeds on the small data, with what is changed."""
    arguments: dict[str, Any] = {"data": "scenes", "vary": TWO, "seeds": 2, "steps": 10} | changes
    return compare(out=out, trainer=training.trainer(), **arguments)


def test_pairs_are_trained_seed_by_seed(tmp_path: Path) -> None:
    training = FakeTraining()
    run(tmp_path, training)
    assert training.ran == [("giou", 0), ("ciou", 0), ("giou", 1), ("ciou", 1)]


def test_the_folder_holds_plan_summary_report_and_trials(tmp_path: Path) -> None:
    summary = run(tmp_path, FakeTraining(advantage={"ciou": 0.1}), seeds=3)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content == json.loads(json.dumps(summary.to_json()))
    assert content["variants"][1]["verdict"] == "better"
    assert content["complete"]
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["ciou", "giou"]
    assert (tmp_path / "trials" / "ciou" / "seed2" / "result.json").exists()


def test_finished_trials_are_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path, FakeTraining())
    again = FakeTraining()
    assert run(tmp_path, again) == first
    assert again.ran == []


def test_more_seeds_and_more_variants_extend_a_comparison(tmp_path: Path) -> None:
    run(tmp_path, FakeTraining())
    more = FakeTraining()
    run(tmp_path, more, seeds=3)
    assert more.ran == [("giou", 2), ("ciou", 2)]
    more = FakeTraining()
    summary = run(tmp_path, more, seeds=3, vary=["box=giou,diou,ciou"])
    assert more.ran == [("diou", 0), ("diou", 1), ("diou", 2)]
    assert [variant.name for variant in summary.variants] == ["giou", "diou", "ciou"]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"steps": 11}, "training time: 10 steps there, 11 steps now"),
        ({"steps": None, "minutes": 1.0}, "training time: 10 steps there, 1 minutes now"),
        ({"objective": "retinanet"}, "objective: fcos there, retinanet now"),
        ({"seeds": 1}, "seeds: 2 there, 1 now"),
        ({"vary": ["box=giou,diou"]}, "variants: ciou there, not now"),
        ({"vary": ["box=ciou,giou"]}, "first variant: giou there, ciou now"),
        ({"recipe": {"batch_size": 4}}, "settings of training: defaults there, {'batch_size': 4} now"),
    ],
)
def test_another_comparison_is_refused(tmp_path: Path, changes: dict[str, Any], difference: str) -> None:
    run(tmp_path, FakeTraining())
    before = (tmp_path / "comparison.json").read_text()
    training = FakeTraining()
    with pytest.raises(ArgumentError, match="holds another comparison") as error:
        run(tmp_path, training, **changes)
    assert difference in str(error.value)
    assert "lossatlas compare --data scenes" in str(error.value)
    assert training.ran == []
    assert (tmp_path / "comparison.json").read_text() == before


def test_other_data_of_the_same_name_is_refused(tmp_path: Path) -> None:
    run(tmp_path, FakeTraining())
    other = FakeTraining().trainer(fake_data(fingerprint="0" * 64))
    with pytest.raises(ArgumentError, match=r"data: scenes \(f{12}\) there, scenes \(0{12}\) now"):
        compare("scenes", out=tmp_path, vary=TWO, seeds=2, steps=10, trainer=other)


def test_data_that_moved_is_the_same_data(tmp_path: Path) -> None:
    run(tmp_path, FakeTraining())
    again = FakeTraining()
    run(tmp_path, again, data="elsewhere/scenes")
    assert again.ran == []


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, FakeTraining())
    monkeypatch.setattr("lossatlas.lab.plan.__version__", "99.0")
    with pytest.raises(ArgumentError, match=r"versions: .* there, lossatlas 99\.0"):
        run(tmp_path, FakeTraining())


def test_minutes_are_measured_once(tmp_path: Path) -> None:
    first, again = FakeTraining(), FakeTraining()
    run(tmp_path, first, steps=None, minutes=2.0)
    plan = read_plan(tmp_path)
    assert (plan.minutes, plan.steps) == (2.0, 20)
    run(tmp_path, again, steps=None, minutes=2.0, seeds=3)
    assert (first.calibrated, again.calibrated) == (1, 0)
    assert read_plan(tmp_path).steps == 20


def test_the_measured_steps_continue_a_comparison_by_minutes(tmp_path: Path) -> None:
    run(tmp_path, FakeTraining(), steps=None, minutes=2.0)
    again = FakeTraining()
    run(tmp_path, again, steps=20)
    assert again.ran == []
    assert read_plan(tmp_path).minutes == 2.0


def test_steps_win_over_minutes(tmp_path: Path) -> None:
    training = FakeTraining()
    assert run(tmp_path, training, steps=7, minutes=3.0).steps == 7
    assert training.calibrated == 0


def test_a_failed_trial_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    training = FakeTraining(fails=lambda config: config.losses["box"] == "ciou" and config.seed == 0)
    summary = run(tmp_path, training)
    assert len(training.ran) == 4
    error = json.loads((tmp_path / "trials" / "ciou" / "seed0" / "error.json").read_text())
    assert error["error"] == "the loss became nan at step 3"
    assert error["kind"] == "FloatingPointError"
    assert "fakes.py" in error["traceback"]
    assert summary.failed
    assert summary.variants[1].errors == {0: "the loss became nan at step 3"}
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["variants"][1]["errors"] == {"0": "the loss became nan at step 3"}
    assert content["variants"][1]["metrics"]["AP"]["values"][0] is None


def test_a_failed_trial_is_tried_again(tmp_path: Path) -> None:
    run(tmp_path, FakeTraining(fails=lambda config: config.seed == 1))
    mended = FakeTraining()
    summary = run(tmp_path, mended)
    assert mended.ran == [("giou", 1), ("ciou", 1)]
    assert not summary.failed
    assert not (tmp_path / "trials" / "ciou" / "seed1" / "error.json").exists()


def test_the_summary_is_written_after_every_trial(tmp_path: Path) -> None:
    finished: list[list[float | None]] = []

    class Watcher(Listener):
        def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
            if number > 1:
                content = json.loads((tmp_path / "summary.json").read_text())
                finished.append([value for row in content["variants"] for value in row["metrics"]["AP"]["values"]])
                assert not content["complete"]

    compare("scenes", out=tmp_path, vary=TWO, seeds=2, steps=5, trainer=FakeTraining().trainer(), listener=Watcher())
    assert [sum(value is not None for value in values) for values in finished] == [1, 2, 3]


def test_listeners_hear_of_every_trial(tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []

    class Watcher(Listener):
        def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
            heard.append((f"{number} {variant} {seed}", resumed))

        def trial_ended(self, trial: Trial) -> None:
            heard.append((f"{trial.variant} {trial.seed}", trial.metrics is not None))

    half_done = tmp_path / "trials" / "giou" / "seed0"
    trainer = FakeTraining(fails=lambda config: config.seed == 0).trainer()
    compare("scenes", out=tmp_path, vary=["box=giou"], seeds=1, steps=5, trainer=trainer)
    (half_done / "checkpoint.pt").write_text("half")
    compare(
        "scenes",
        out=tmp_path,
        vary=["box=giou"],
        seeds=1,
        steps=5,
        trainer=FakeTraining().trainer(),
        listener=Watcher(),
    )
    assert heard == [("1 giou 0", True), ("giou 0", True)]


def test_settings_reach_every_trial(tmp_path: Path) -> None:
    seen: list[TrialConfig] = []

    def watch(config: TrialConfig) -> bool:
        seen.append(config)
        return False

    run(tmp_path, FakeTraining(fails=watch), recipe={"batch_size": 4, "learning_rate": 2e-3})
    assert {config.batch_size for config in seen} == {4}
    assert {(config.losses["box"], config.seed, config.steps) for config in seen} == {
        (name, seed, 10) for name in ("giou", "ciou") for seed in (0, 1)
    }
    assert read_plan(tmp_path).recipe == {"batch_size": 4}  # what equals the default is no setting


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"minutes": 0.0, "steps": None}, "minutes of a trial must be above 0"),
        ({"steps": 0}, "steps of a trial must be at least 1"),
        ({"recipe": {"batchsize": 4}}, "unknown setting of training 'batchsize'; valid: batch_size"),
        ({"recipe": {"batch_size": 0}}, "`batch_size` must be a whole number of at least 1"),
        ({"train": "a.json"}, "--train and --test go together"),
        ({"train": "a.json", "test": "b.json"}, "either --data, or --train and --test"),
    ],
)
def test_bad_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(tmp_path, FakeTraining(), **changes)
    assert not (tmp_path / "comparison.json").exists()


def test_trials_without_a_plan_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    with pytest.raises(ArgumentError, match=r"holds trials but no comparison\.json"):
        run(tmp_path, FakeTraining())


def test_out_must_be_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ArgumentError, match="is a file"):
        run(path, FakeTraining())


def test_an_unreadable_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(ArgumentError, match=r"comparison\.json cannot be read"):
        run(tmp_path, FakeTraining())


def test_the_command_starts_the_same_comparison(tmp_path: Path) -> None:
    run(
        tmp_path,
        FakeTraining(),
        vary=["box=giou,focal_eiou(gamma=1.0)", "cls=sigmoid_focal"],
        recipe={"horizontal_flip": False, "image_size": 64},
    )
    assert command_line(read_plan(tmp_path), Path("runs/x")) == (
        "lossatlas compare --data scenes --objective fcos --vary 'box=giou,focal_eiou(gamma=1.0)'"
        " --vary cls=sigmoid_focal --seeds 2 --steps 10 --no-horizontal-flip --image-size 64 --out runs/x"
    )


def test_the_command_says_what_scenes_are_composed_of(tmp_path: Path) -> None:
    run(tmp_path, FakeTraining(), compose="2-4")
    plan = read_plan(tmp_path)
    assert plan.source.compose == "2-4"
    assert command_line(plan, Path("runs/x")).startswith("lossatlas compare --data scenes --compose 2-4 ")


def test_an_objective_may_have_defaults_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(registry.OBJECTIVES["fcos"], recipe={"learning_rate": 0.5, "batch_size": 3})
    monkeypatch.setattr(registry, "OBJECTIVES", {**registry.OBJECTIVES, "fcos": spec})
    run(tmp_path, FakeTraining(), recipe={"batch_size": 8, "learning_rate": 0.5})
    plan = read_plan(tmp_path)
    assert dict(plan.recipe) == {"batch_size": 8}  # what is no default of this objective
    config = plan.config(plan.variants[0], 0)
    assert (config.learning_rate, config.batch_size) == (0.5, 8)


def test_an_objective_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="unknown task 'detektion'; did you mean detection"):
        run(tmp_path, FakeTraining(), task="detektion")
