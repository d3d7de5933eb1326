"""One training of a comparison: what it is made with, what it tells while it runs, what it ends with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from lossatlas.lab.registry import find_objective

Backend: TypeAlias = Literal["faster-coco-eval", "pycocotools"]


@dataclass(frozen=True)
class TrialConfig:
    """What a trial is trained with.

    Args:
        objective: its name in `lossatlas.lab.registry`.
        losses: the loss of each slot that differs from the objective's own, such as ``{"box": "giou"}``.
        seed: of the initial weights, the order of the images and their augmentation.
        steps: number of weight updates; the schedule of the learning rate spans them.
        batch_size: images of a step.
        learning_rate: highest rate of AdamW.
        weight_decay: decoupled, of the convolutions' weights alone.
        warmup: the part of the steps in which the learning rate rises.
        clip_norm: the longest the gradient of all weights may be.
        ema_decay: of the averaged weights, which are the ones that are scored.
        image_size: longest side of an image in pixels; larger images are made smaller, smaller ones stay.
        scale_jitter: images are zoomed by a random factor between 1 / (1 + this) and 1 + this.
        color_jitter: brightness and contrast change by a random part of at most this.
        horizontal_flip: whether half of the images are mirrored; None means as the data says: yes, but for the built-in
            digits, where a mirrored object is none of the classes.
        rotation: images are turned by a random angle of at most so many degrees either way, in tasks that can do it.
        evaluations: how often the trial is scored, the last time at its end.
        backend: of average precision.
        accelerator: the device to train on, as Lightning Fabric names it.
    """

    objective: str
    losses: Mapping[str, str]
    seed: int
    steps: int
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip_norm: float = 10.0
    ema_decay: float = 0.99
    image_size: int = 320
    scale_jitter: float = 0.25
    color_jitter: float = 0.1
    horizontal_flip: bool | None = None
    rotation: float = 0.0
    evaluations: int = 5
    backend: Backend = "faster-coco-eval"
    accelerator: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "image_size", "evaluations"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, but got {value!r}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, but got {getattr(self, name)!r}")
        for name in ("weight_decay", "scale_jitter"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, but got {getattr(self, name)!r}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"`rotation` must be from 0 to 180 degrees, but got {self.rotation!r}")
        for name in ("warmup", "ema_decay", "color_jitter"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 0 and below 1, but got {getattr(self, name)!r}")
        find_objective(self.objective)
        if self.backend not in ("faster-coco-eval", "pycocotools"):
            raise ValueError(f"`backend` must be 'faster-coco-eval' or 'pycocotools', but got {self.backend!r}")

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``config.json``.

        Example:
            >>> TrialConfig("fcos", {"box": "giou"}, seed=0, steps=100).to_json()["losses"]
            {'box': 'giou'}
        """
        return asdict(self) | {"losses": dict(self.losses)}


@dataclass(frozen=True)
class TrainEvent:
    """A trial has trained for a while.

    Args:
        step: updates made so far.
        steps: updates in all.
        seconds: of training so far, in every process that worked on the trial; scoring does not count.
        terms: mean of every term of the loss since the event before, and their ``"total"``.
        lr: learning rate of the last update.
    """

    step: int
    steps: int
    seconds: float
    terms: Mapping[str, float]
    lr: float


@dataclass(frozen=True)
class EvalEvent:
    """A trial has been scored on the test images.

    Args:
        step: updates made so far.
        steps: updates in all.
        seconds: of training so far.
        metrics: as the task's `score` returns them.
    """

    step: int
    steps: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ResumeEvent:
    """A trial goes on from its checkpoint.

    Args:
        step: updates made so far.
        steps: updates in all.
        seconds: of training so far.
    """

    step: int
    steps: int
    seconds: float


Event: TypeAlias = TrainEvent | EvalEvent | ResumeEvent


@dataclass(frozen=True)
class TrialResult:
    """What a trial ended with, as ``result.json`` holds it.

    Args:
        metrics: on the test images, with the averaged weights after the last step.
        seconds: of training; scoring does not count.
        steps: updates made.
        parameters: trained numbers of the network.
    """

    metrics: dict[str, float]
    seconds: float
    steps: int
    parameters: int
