"""A comparison that is killed, at any moment, loses nothing that was finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossatlas.lab.files import replacing, write_json

CHILD = """
import sys
from pathlib import Path
from lossatlas.lab.comparison import compare
from tests.lab.comparison.fakes import FakeTraining
compare("scenes", out=Path(sys.argv[1]), vary=["box=giou,ciou"], seeds=2, steps=10,
        trainer=FakeTraining(seconds=float(sys.argv[2])).trainer())
"""


def start(out: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Start a comparison of four trials in another process."""
    command = [sys.executable, "-c", CHILD, str(out), str(seconds)]
    path = os.pathsep.join(["src", ".", *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file is there."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.01)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process so that it can do nothing about it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_kill_minus_nine_loses_nothing_that_is_finished(tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    first = start(tmp_path, 600)
    wait_for(trials / "giou" / "seed0" / "runs.txt", first)
    kill(first)
    # As if training had got to its end just before the second kill.
    write_json(trials / "giou" / "seed0" / "result.json", {"metrics": {"AP": 0.123}, "seconds": 1.0})
    second = start(tmp_path, 600)
    wait_for(trials / "ciou" / "seed0" / "runs.txt", second)
    kill(second)
    assert not (trials / "ciou" / "seed0" / "result.json").exists()

    last = start(tmp_path, 0)
    output, _ = last.communicate()
    assert last.returncode == 0, output.decode()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["complete"]
    assert summary["variants"][0]["metrics"]["AP"]["values"][0] == 0.123
    runs = {path.parent.parent.name + path.parent.name: path for path in trials.glob("*/*/runs.txt")}
    counts = {name: len(path.read_text().splitlines()) for name, path in runs.items()}
    assert counts == {"giouseed0": 1, "ciouseed0": 2, "giouseed1": 1, "ciouseed1": 1}


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    first = start(tmp_path, 600)
    wait_for(tmp_path / "trials" / "giou" / "seed0" / "runs.txt", first)
    try:
        second = start(tmp_path, 0)
        output, _ = second.communicate()
        assert second.returncode != 0
        assert b"another process is running the comparison" in output
    finally:
        kill(first)


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
