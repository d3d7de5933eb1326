"""The files of one trial, written so that it can be killed at any moment."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lossatlas.lab.files import replacing, write_json, write_text
from lossatlas.lab.trial import EvalEvent, TrainEvent, TrialResult

CONFIG_FILE = "config.json"
LOG_FILE = "metrics.jsonl"
CHECKPOINT_FILE = "checkpoint.pt"
PREDICTIONS_FILE = "predictions.json"
RESULT_FILE = "result.json"


class TrialFolder:
    """The folder of one trial.

    The log is only ever appended to; a checkpoint says how long it was, and what was written behind it by a process
    that was killed is cut off before it is written again.

    Args:
        path: the folder; it is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def claim(self, config: Mapping[str, Any]) -> None:
        """Write down what is trained here.

        Raises:
            ValueError: something else was.
        """
        file = self.path / CONFIG_FILE
        wanted = json.loads(json.dumps(config))
        if not file.exists():
            write_json(file, wanted)
            return
        stored = json.loads(file.read_text())
        different = [name for name in {**stored, **wanted} if stored.get(name) != wanted.get(name)]
        if different:
            found = "; ".join(f"{name}: {stored.get(name)!r} there, {wanted.get(name)!r} now" for name in different)
            raise ValueError(f"{self.path} holds another trial: {found}")

    def result(self) -> TrialResult | None:
        """Return the result of a finished trial."""
        file = self.path / RESULT_FILE
        return TrialResult(**json.loads(file.read_text())) if file.exists() else None

    def finish(self, result: TrialResult, predictions: list[dict[str, Any]]) -> None:
        """Write the detections and the result of a trial; it is finished with the latter."""
        write_text(self.path / PREDICTIONS_FILE, json.dumps(predictions, allow_nan=False))
        write_json(self.path / RESULT_FILE, asdict(result))

    def log(self, kind: str, event: TrainEvent | EvalEvent) -> None:
        """Append an event to the log."""
        row = {"kind": kind, **asdict(event)}
        del row["steps"]
        with (self.path / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        log_bytes = 0
        if (self.path / LOG_FILE).exists():
            with (self.path / LOG_FILE).open("rb+") as log:
                os.fsync(log.fileno())
                log_bytes = log.seek(0, os.SEEK_END)
        with replacing(self.path / CHECKPOINT_FILE) as file:
            torch.save({**state, "log_bytes": log_bytes}, file)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the state of the checkpoint, None without one, and cut the log back to what it was then.

        Raises:
            ValueError: a log that is shorter than the checkpoint says.
        """
        state: dict[str, Any] | None = None
        if (self.path / CHECKPOINT_FILE).exists():
            state = torch.load(self.path / CHECKPOINT_FILE, map_location="cpu", weights_only=True)
        length = 0 if state is None else int(state["log_bytes"])
        log = self.path / LOG_FILE
        log.touch()
        if log.stat().st_size < length:
            raise ValueError(
                f"{log} is shorter than at the last checkpoint: it was changed; delete {self.path} to train anew"
            )
        os.truncate(log, length)
        return state
