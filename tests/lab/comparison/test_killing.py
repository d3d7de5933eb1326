"""A comparison that is killed, at any moment, loses nothing that was finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossatlas.lab.comparison import Listener, compare
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.files import replacing, write_json
from tests.lab.comparison.fakes import FakeTraining

CHILD = """
import sys
from pathlib import Path
from tests.lab.comparison.test_killing import run
run(Path(sys.argv[1]), slow_loss="ciou")
"""


class KilledError(BaseException):
    """Stands for a kill: no handler of the library sees it as a failure of the trial."""


def run(out: Path, slow_loss: str = "") -> FakeTraining:
    """Compare two losses with two seeds; a trial with the slow loss takes ten minutes."""
    training = FakeTraining(seconds=lambda config: 600.0 if config.losses["box"] == slow_loss else 0.0)
    compare("scenes", out=out, vary=["box=giou,ciou"], seeds=2, steps=6, trainer=training.trainer())
    return training


def contents(out: Path) -> dict[str, str]:
    """The files of a comparison by their names, without what notes when and where it ran."""
    return {
        str(path.relative_to(out)): path.read_text().replace(str(out), "OUT")
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("runs.txt", ".lock")
    }


def test_kill_minus_nine_loses_nothing_that_is_finished(tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["src", ".", *sys.path]), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while not (trials / "ciou" / "seed0" / "runs.txt").exists():
        assert child.poll() is None, child.communicate()[0].decode()
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()

    finished = (trials / "giou" / "seed0" / "result.json").read_bytes()
    partial = json.loads((tmp_path / "summary.json").read_text())
    assert not partial["complete"]
    assert partial["variants"][1]["verdict"] == "not finished"
    resumed = run(tmp_path)
    assert resumed.ran == [("ciou", 0), ("giou", 1), ("ciou", 1)]
    assert (trials / "giou" / "seed0" / "result.json").read_bytes() == finished
    assert json.loads((tmp_path / "summary.json").read_text())["complete"]


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_file_ends_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    run(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    replace = Path.replace
    for count in range(1, 100):
        out = tmp_path / f"killed{count}"
        left = count

        def killing_replace(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0 and before:
                raise KilledError
            result = replace(self, target)
            if left == 0:
                raise KilledError
            return result

        monkeypatch.setattr(Path, "replace", killing_replace)
        try:
            run(out)
        except KilledError:
            run(out)
            assert contents(out) == whole
        else:
            break
    assert count > 15  # plan, 4 trials of several files, 5 summaries, report


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    class Second(Listener):
        def trial_started(self, number: int, variant: str, seed: int, *, resumed: bool) -> None:
            with pytest.raises(ArgumentError) as error:
                run(tmp_path)
            refused.append(str(error.value))

    trainer = FakeTraining().trainer()
    compare("scenes", out=tmp_path, vary=["box=giou"], seeds=1, steps=5, trainer=trainer, listener=Second())
    assert refused == [f"another process is running the comparison in {tmp_path}"]


def test_a_file_that_is_being_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})

    def fail_halfway() -> None:
        with replacing(path) as file:
            file.write(b'{"new": ')
            assert json.loads(path.read_text()) == {"old": 1}
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_halfway()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "result.json", {"AP": float("nan")})
    assert list(tmp_path.iterdir()) == []
