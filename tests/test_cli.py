import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.models import CommandInfo
from typer.testing import CliRunner, Result

from lossatlas import cli, kernels
from lossatlas.lab import comparison
from lossatlas.lab.commands import app
from lossatlas.lab.plan import TRIAL_SETTINGS
from lossatlas.lab.registry import OBJECTIVES
from lossatlas.lab.summary import table
from lossatlas.losses.catalog import CATALOG
from tests.lab.comparison.fakes import FakeTraining, fake_data

LAB = ["PIL", "faster_coco_eval", "jinja2", "lightning", "lightning_fabric", "matplotlib", "rich", "scipy", "sklearn"]

Run = Callable[..., Result]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """Let the command train in no time."""
    fake = FakeTraining()
    monkeypatch.setattr(comparison, "Trainer", fake.trainer)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="lossatlas")

    return invoke


def test_help_has_an_example_and_every_setting(run: Run) -> None:
    assert "compare" in run("--help").output
    shown = run("compare", "--help")
    assert shown.exit_code == 0
    assert "lossatlas compare --vary box=giou,ciou" in shown.output
    for name in TRIAL_SETTINGS:
        assert f"--{name.replace('_', '-')}" in shown.output


def test_objectives_are_listed_with_their_task_and_slots(run: Run) -> None:
    lines = run("ls", "--objectives").output.splitlines()
    assert len(lines) == len(OBJECTIVES)
    (line,) = (line for line in lines if line.split()[1] == "retinanet")
    assert line.startswith("detection ")
    assert line.endswith("[box, cls]")


def test_the_help_shows_the_defaults_of_a_trial(run: Run) -> None:
    text = run("compare", "--help").output
    for name in ("batch_size", "image_size", "learning_rate", "evaluations", "backend", "accelerator"):
        of_flag = text.partition(f"--{name.replace('_', '-')} ")[2].partition("--")[0]
        assert f"[default: ({TRIAL_SETTINGS[name].default})]" in of_flag


@pytest.mark.parametrize("stub", app.registered_commands, ids=lambda stub: stub.name)
def test_the_list_of_commands_says_what_the_command_says_of_itself(stub: CommandInfo) -> None:
    assert stub.callback is not None
    summary = str(inspect.getdoc(stub.callback()))
    assert inspect.getdoc(stub.callback) == summary.partition("\n")[0]


def test_the_list_of_commands_loads_no_torch() -> None:
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    code += "from lossatlas import cli; cli.main()"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert "Train several losses" in done.stdout
    assert done.stdout.endswith("False\n")


def test_version(run: Run) -> None:
    assert run("--version").output.startswith("lossatlas 0.")


def test_compare_prints_the_table_and_the_report(run: Run, training: FakeTraining) -> None:
    shown = run("compare", "--vary", "box=giou,ciou", "--seeds", "2", "--steps", "10", "--out", "runs/x")
    assert shown.exit_code == 0, shown.output
    assert len(training.ran) == 4
    lines = shown.output.splitlines()
    assert lines[:3] == [
        "Warnings about the data:",
        "zero-area box (left out): 1",
        "  train.json, image 3, annotation 17: [4, 5, 0, 9]",
    ]
    assert lines[3] == "Comparing giou, ciou of fcos on scenes in runs/x"
    assert lines[4] == "4 trials of 10 steps: 2 variants, 2 seeds."
    content = json.loads(Path("runs/x/summary.json").read_text())
    for variant in content["variants"]:
        (row,) = [line for line in lines if line.startswith(f"{variant['name']} ")]
        assert f"{variant['metrics']['AP']['mean']:.3f}" in row
        assert row.endswith(variant["verdict"])
    assert "report:  runs/x/report.html" in lines
    assert Path("runs/x/report.html").exists()


def test_compare_again_trains_nothing(run: Run, training: FakeTraining) -> None:
    arguments = ["compare", "--vary", "box=giou,ciou", "--seeds", "1", "--steps", "10"]
    first = run(*arguments)
    again = run(*arguments)
    assert len(training.ran) == 2
    assert "2 finished already" in again.output
    assert first.output.splitlines()[-6:] == again.output.splitlines()[-6:]


def test_settings_are_passed_on(run: Run, training: FakeTraining) -> None:
    shown = run("compare", "--seeds", "1", "--steps", "10", "--batch-size", "4", "--no-horizontal-flip")
    assert shown.exit_code == 0, shown.output
    plan = json.loads(Path("runs/compare/comparison.json").read_text())
    assert plan["recipe"] == {"batch_size": 4, "horizontal_flip": False}
    assert plan["command"].endswith("--batch-size 4 --no-horizontal-flip --out runs/compare")


def test_a_failed_trial_gives_exit_status_1(run: Run, training: FakeTraining) -> None:
    training.fails = lambda config: config.losses["box"] == "ciou"
    shown = run("compare", "--vary", "box=giou,ciou", "--seeds", "1", "--steps", "10")
    assert shown.exit_code == 1
    assert "failed: the loss became nan at step 3" in shown.output
    assert "report:" in shown.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "box=gio"], "Error: unknown loss 'gio' for slot box of fcos; did you mean giou?"),
        (["--vary", "bix=giou"], "unknown slot 'bix'"),
        (["--objective", "focs"], "unknown objective 'focs'; did you mean fcos?"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--batch-size", "0"], "`batch_size` must be a whole number of at least 1"),
        (["--train", "a.json"], "--train and --test go together"),
    ],
)
def test_bad_arguments_give_one_message_and_exit_status_2(
    run: Run, training: FakeTraining, arguments: list[str], message: str
) -> None:
    shown = run("compare", *arguments)
    assert shown.exit_code == 2
    assert message in shown.stderr
    assert "Traceback" not in shown.output
    assert training.ran == []


@pytest.mark.parametrize("arguments", [["--seeds", "many"], ["--sedes", "3"]])
def test_flags_are_typed(run: Run, arguments: list[str]) -> None:
    shown = run("compare", *arguments)
    assert shown.exit_code == 2
    assert "Traceback" not in shown.output


def test_data_that_is_not_there(run: Run) -> None:
    shown = run("compare", "--data", "nowhere")
    assert shown.exit_code == 2
    assert "nowhere" in shown.stderr
    assert "Traceback" not in shown.output


def test_bad_data_is_named(run: Run) -> None:
    Path("cells").mkdir()
    for name in ("train", "test"):
        content = {
            "images": [{"id": 5, "file_name": "gone.png", "width": 8, "height": 8}],
            "annotations": [{"id": 7, "image_id": 5, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}],
            "categories": [{"id": 1, "name": "cell"}],
        }
        Path(f"cells/{name}.json").write_text(json.dumps(content))
    shown = run("compare", "--data", "cells")
    assert shown.exit_code == 2
    assert "image 5" in shown.stderr
    assert "gone.png" in shown.stderr
    assert not Path("runs").exists()


def test_interrupting_says_how_to_go_on(run: Run, training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(config: object) -> bool:
        raise KeyboardInterrupt

    training.fails = interrupt
    arguments = ["compare", "--vary", "box=giou,iou(mode=log)", "--steps", "10"]
    monkeypatch.setattr(sys, "argv", ["lossatlas", *arguments])
    shown = run(*arguments)
    assert shown.exit_code == 130
    assert "Nothing finished is lost" in shown.stderr
    assert "lossatlas compare --vary 'box=giou,iou(mode=log)' --steps 10" in shown.stderr


def test_report_is_written_again(run: Run, training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    run("compare", "--vary", "box=giou,ciou", "--seeds", "1", "--steps", "10")
    path = Path("runs/compare/report.html")
    before = path.read_text()
    path.unlink()
    monkeypatch.setattr("lossatlas.lab.plan.Source.load", lambda self, task: fake_data())
    shown = run("report", "runs/compare")
    assert shown.output.strip() == str(path)
    assert path.read_text() == before


def test_report_of_changed_data_is_refused(run: Run, training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    run("compare", "--seeds", "1", "--steps", "10")
    monkeypatch.setattr("lossatlas.lab.plan.Source.load", lambda self, task: fake_data(fingerprint="0" * 64))
    shown = run("report", "runs/compare")
    assert shown.exit_code == 2
    assert "not what its trials were trained on" in shown.stderr


def test_report_of_no_comparison(run: Run) -> None:
    shown = run("report", ".")
    assert shown.exit_code == 2
    assert "holds no comparison" in shown.stderr


def test_ls_lists_every_loss(run: Run) -> None:
    lines = run("ls").output.splitlines()
    assert len(lines) == len(CATALOG)
    for entry, line in zip(CATALOG.values(), lines, strict=True):
        assert line.startswith(entry.family)
        assert entry.name in line
        assert entry.summary in line
        assert entry.reference in line


def test_show_prints_and_draws(run: Run) -> None:
    shown = run("show", "focal_eiou(gamma=1.0)", "--out", "plot.svg")
    assert shown.exit_code == 0, shown.output
    for text in ("focal_eiou_loss", "FocalEIoULoss", "W = IoU^γ", "gamma: γ, at least 0", "arXiv 2101.08158"):
        assert text in shown.output
    assert "def focal_eiou_loss(" in shown.output
    assert '"""' not in shown.output
    assert Path("plot.svg").read_text().startswith("<?xml")


def test_show_draws_into_a_file_of_its_own(run: Run) -> None:
    assert run("show", "giou").exit_code == 0
    assert Path("giou.png").exists()
    run("show", "diou", "--no-plot")
    assert not Path("diou.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["gio"], "did you mean giou?"), (["giou", "--out", "plot.jpg"], "must be one of .png, .svg, .pdf")],
)
def test_show_errors(run: Run, arguments: list[str], message: str) -> None:
    shown = run("show", *arguments)
    assert shown.exit_code == 2
    assert message in shown.stderr


def test_env_says_what_computes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kernels.status()
    monkeypatch.setattr(kernels, "status", lambda: found._replace(kernels=True, instruction_set="avx2", threads=3))
    assert "fused kernels (avx2) on the CPU" in run("env").output
    monkeypatch.setattr(kernels, "status", lambda: found._replace(kernels=False, reason="not built"))
    shown = run("env").output
    assert "PyTorch only: the kernels are not built" in shown
    assert f"torch      {torch.__version__}" in shown


def forget_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command be imported anew."""
    for name in [name for name in sys.modules if name.startswith("lossatlas.lab.commands")]:
        monkeypatch.delitem(sys.modules, name)


def test_without_the_lab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    forget_commands(monkeypatch)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert 'pip install "lossatlas[lab]"' in capsys.readouterr().err


def test_a_defect_is_not_taken_for_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lossatlas.losses.catalog", None)
    forget_commands(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["lossatlas", "ls"])
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_the_library_does_not_need_the_lab() -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in [*LAB, "torchvision", "typer", "markupsafe"])
    code = f"import sys; {blocked}; import lossatlas, lossatlas.losses, lossatlas.objectives, lossatlas.cli"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})


def test_compare_is_callable_from_python(tmp_path: Path, training: FakeTraining) -> None:
    from lossatlas import lab

    arguments: dict[str, Any] = {"vary": ["box=giou,ciou"], "seeds": 2, "steps": 10}
    summary = lab.compare(out=tmp_path, **arguments)
    assert [row[0] for row in table(summary)[1]] == ["giou", "ciou"]
