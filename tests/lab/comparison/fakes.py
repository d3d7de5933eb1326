"""A small data set and a trainer that takes no time, for comparisons whose training does not matter."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas.lab.comparison import Trainer
from lossatlas.lab.data import DetectionData, DetectionSplit, ImageRecord, Kind, Problem
from lossatlas.lab.files import write_json
from lossatlas.lab.plan import Source
from lossatlas.lab.trial import TrialConfig

CLASS_NAMES = ("circle", "<square>")


class Scenes(DetectionSplit):
    """Noise with a few rectangles that are objects."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, CLASS_NAMES, [_record(index) for index in range(count)])

    def image(self, index: int) -> Tensor:
        return torch.randint(0, 256, (3, 48, 64), generator=torch.Generator().manual_seed(index)).to(torch.uint8)

    def image_digest(self, index: int) -> bytes:
        return bytes([index])


def _record(index: int) -> ImageRecord:
    count = index % 4  # the first image has no object
    corners = torch.tensor([[4.0 + 15 * number, 6.0 + 3 * index % 20] for number in range(count)]).reshape(-1, 2)
    return ImageRecord(
        image_id=100 + index,
        file_name=f"scene{index}.png",
        width=64,
        height=48,
        boxes=torch.cat([corners, corners + 14], dim=1),
        labels=torch.arange(count) % 2,
        iscrowd=torch.zeros(count, dtype=torch.bool),
        areas=torch.full((count,), 196.0),
    )


def fake_data(fingerprint: str = "f" * 64) -> DetectionData:
    warning = Problem(Kind.ZERO_AREA_BOX, "train.json", "[4, 5, 0, 9]", image_id=3, annotation_id=17)
    return DetectionData("scenes", Scenes("train", 6), Scenes("test", 12), CLASS_NAMES, fingerprint, [warning])


def noise(*key: object) -> float:
    """A number from 0 to 1 that depends on nothing but the key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4]) / 2**32


def fake_metrics(losses: dict[str, str], seed: int, advantage: dict[str, float] | None = None) -> dict[str, float]:
    """Final metrics: a seed shifts all variants alike, a variant's own noise is small."""
    text = losses.get("box", "")
    ap = 0.5 + 0.05 * noise("seed", seed) + 0.01 * noise(text, seed) + (advantage or {}).get(text, 0.0)
    return {"AP": ap, "AP50": ap + 0.3, "AP75": ap + 0.1, "AP50/circle": ap + 0.32, "AP50/<square>": ap + 0.28}


def write_trial(config: TrialConfig, data: DetectionData, folder: Path, metrics: dict[str, float]) -> None:
    """Leave in the folder of a trial what training leaves there."""
    rows: list[dict[str, Any]] = []
    for step in range(1, config.steps + 1):
        value = 2.0 / step + 0.1 * noise(config.losses, config.seed, step)
        rows.append({"kind": "train", "step": step, "seconds": step * 0.1, "terms": {"box": value, "class": value / 2}})
        if step % 5 == 0:
            share = step / config.steps
            scores = {name: share * metrics[name] for name in ("AP", "AP50", "AP75")}
            rows.append({"kind": "eval", "step": step, "seconds": step * 0.1, "metrics": scores})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(folder / "predictions.json", _predictions(config, data))
    write_json(folder / "result.json", {"metrics": metrics, "seconds": config.steps * 0.1})


def _predictions(config: TrialConfig, data: DetectionData) -> list[dict[str, Any]]:
    rng = np.random.default_rng(int(noise(config.losses, config.seed) * 2**31))
    found = []
    for annotation in data.test.coco["annotations"]:
        if rng.random() < 0.8:
            bbox = (np.array(annotation["bbox"]) + rng.normal(0, 1.0, 4)).tolist()
            label = annotation["category_id"] if rng.random() < 0.9 else 1 - annotation["category_id"]
            score = float(rng.uniform(0.3, 1.0))
            found.append({"image_id": annotation["image_id"], "category_id": label, "bbox": bbox, "score": score})
    return found


class FakeTraining:
    """Trains by writing down results; counts what it was asked to do.

    Args:
        advantage: added to the AP of a variant, by the text of its box loss.
        fails: says for which trials training raises.
        seconds: how long a trial takes.
    """

    def __init__(
        self,
        advantage: dict[str, float] | None = None,
        fails: Callable[[TrialConfig], bool] = lambda config: False,
        seconds: Callable[[TrialConfig], float] = lambda config: 0.0,
    ) -> None:
        self.advantage = advantage
        self.fails = fails
        self.seconds = seconds
        self.ran: list[tuple[str, int]] = []
        self.calibrated = 0

    def run(self, config: TrialConfig, data: DetectionData, folder: Path, *, on_event: Callable[..., None]) -> None:
        self.ran.append((config.losses.get("box", ""), config.seed))
        if self.fails(config):
            raise FloatingPointError("the loss became nan\nat step 3")
        (folder / "checkpoint.pt").write_text("half")
        with (folder / "runs.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(self.seconds(config))
        write_trial(config, data, folder, fake_metrics(dict(config.losses), config.seed, self.advantage))

    def calibrate(self, config: TrialConfig, data: DetectionData, minutes: float) -> int:
        self.calibrated += 1
        return round(10 * minutes)

    def trainer(self, data: DetectionData | None = None) -> Trainer:
        loaded = data or fake_data()
        return Trainer(run=self.run, calibrate=self.calibrate, load=lambda source, task: loaded)


def any_source() -> Source:
    """A source whose data is never read."""
    return Source("scenes")
