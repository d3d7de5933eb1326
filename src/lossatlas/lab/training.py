"""One trial: a network trained with the losses of one variant and scored on the test images.

A trial is a function of its configuration and the data. Weights, order of the images and their changes are drawn from
the seed, so that trials that differ in their losses alone start from the same weights and see the same batches. A trial
that was killed goes on from its checkpoint and ends with the weights that it would have had, bit for bit on the same
machine with the same number of threads.

The folder of a trial:

* ``config.json``: `TrialConfig`, and the name and fingerprint of the data.
* ``metrics.jsonl``: a JSON object a line; ``{"kind": "train", "step", "seconds", "terms", "lr"}`` and
  ``{"kind": "eval", "step", "seconds", "metrics"}``.
* ``checkpoint.pt``: all that is needed to go on, and the averaged weights.
* ``predictions.json``: detections on the test images after the last step, in COCO's result format.
* ``result.json``: `TrialResult`; there is none before a trial is finished.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torchvision.ops import batched_nms

from lossatlas.lab.augmentation import Augmentation
from lossatlas.lab.data import DetectionData, DetectionSplit
from lossatlas.lab.evaluation import MAX_DETECTIONS, evaluate_detections, to_coco
from lossatlas.lab.loading import Batch, scoring_batches, training_batch
from lossatlas.lab.networks import COARSEST_STRIDE, build_network, count_parameters
from lossatlas.lab.optimization import AveragedWeights, build_optimizer, learning_rate
from lossatlas.lab.trial import EvalEvent, Event, ResumeEvent, TrainEvent, TrialConfig, TrialResult
from lossatlas.lab.trial_folder import TrialFolder
from lossatlas.lab.variants import resolve_loss
from lossatlas.objectives import FCOS, LossTerms, RetinaNet

__all__ = [
    "EvalEvent",
    "Event",
    "NonFiniteError",
    "ResumeEvent",
    "TrainEvent",
    "TrialConfig",
    "TrialResult",
    "calibrate_steps",
    "run_trial",
]

Resolver: TypeAlias = Callable[[str, str, str], Callable[..., Tensor]]
"""From the text of a loss, its slot and the objective to the loss, as `lossatlas.lab.variants.resolve_loss`."""

CHECKPOINT_SECONDS = 20.0
"""A trial that is killed loses at most about as much."""

LOGGED = 200
"""Lines about training in ``metrics.jsonl``, about."""

SLOT_ARGUMENTS: Mapping[str, str] = {"cls": "class_loss", "box": "box_loss"}
"""The argument of the objective that each slot is."""

OBJECTIVES: Mapping[str, Callable[..., FCOS | RetinaNet]] = {"fcos": FCOS, "retinanet": RetinaNet}
"""The objective of each name."""


class NonFiniteError(ArithmeticError):
    """A term of the loss, or its gradient, is infinite or not a number; the message says which, and at which step."""


def build_objective(config: TrialConfig, resolve: Resolver = resolve_loss) -> FCOS | RetinaNet:
    """Return the objective of a trial with the losses of its variant.

    Args:
        config: of the trial.
        resolve: gives the loss that a text names.
    """
    losses = {
        SLOT_ARGUMENTS[slot]: resolve(text, slot, config.objective) for slot, text in sorted(config.losses.items())
    }
    return OBJECTIVES[config.objective](**losses)


class _Learner(nn.Module):
    """Network and objective as one module from a batch to the terms of the loss: what several processes would share."""

    def __init__(self, network: nn.Module, objective: FCOS | RetinaNet) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return dict(self.objective(self.network(images), targets))


class _Trainer:
    """The state of a trial and what changes it."""

    def __init__(self, config: TrialConfig, data: DetectionData, resolve: Resolver) -> None:
        self.config = config
        self.data = data
        self.fabric = Fabric(accelerator=config.accelerator, devices=1)
        self.fabric.launch()
        self.network = build_network(config.objective, len(data.class_names), seed=config.seed)
        self.objective = build_objective(config, resolve)
        optimizer = build_optimizer(self.network, config)
        self.learner, self.optimizer = self.fabric.setup(_Learner(self.network, self.objective), optimizer)
        self.average = AveragedWeights(self.network, config.ema_decay)
        flip = config.horizontal_flip
        self.augmentation = Augmentation(
            image_size=config.image_size,
            scale_jitter=config.scale_jitter,
            color_jitter=config.color_jitter,
            horizontal_flip=data.name != "digits" if flip is None else flip,
        )
        self.step = 0

    def batch(self) -> Batch:
        """Return the images of the next step."""
        return training_batch(
            self.data.train,
            self.augmentation,
            seed=self.config.seed,
            step=self.step,
            batch_size=self.config.batch_size,
            multiple=COARSEST_STRIDE,
        )

    def update(self, batch: Batch) -> dict[str, float]:
        """Train one step and return the terms of the loss and their ``"total"``.

        Raises:
            NonFiniteError: a term or its gradient; the weights are left as they were.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        images, targets = self.fabric.to_device((batch.images, batch.targets))
        self.learner.train()
        terms = self.learner(images, targets)
        total = LossTerms(terms).total
        values = {name: term.item() for name, term in terms.items()} | {"total": total.item()}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            raise NonFiniteError(f"step {self.step + 1}: the {wrong[0]} term of the loss is {values[wrong[0]]}")
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        norm = self.fabric.clip_gradients(
            self.learner, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        if norm is None or not bool(norm.isfinite()):
            raise NonFiniteError(f"step {self.step + 1}: {self._blame(images, targets)}")
        self.optimizer.step()
        self.average.update(self.network, self.step)
        self.step += 1
        return values

    def _blame(self, images: Tensor, targets: list[dict[str, Tensor]]) -> str:
        """Say which terms have a gradient that is not finite."""
        parameters = list(self.network.parameters())
        wrong = []
        for name, term in self.learner(images, targets).items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            if any(gradient is not None and not bool(gradient.isfinite().all()) for gradient in gradients):
                wrong.append(name)
        return f"the gradient of the {' and the '.join(wrong) or 'summed'} term of the loss is not finite"

    @torch.no_grad()
    def detect(self, split: DetectionSplit) -> list[dict[str, Any]]:
        """Return what the averaged weights detect on images, in COCO's result format."""
        self.average.network.eval()
        rows: list[dict[str, Any]] = []
        for indices, batch in scoring_batches(
            split,
            image_size=self.config.image_size,
            batch_size=self.config.batch_size,
            multiple=COARSEST_STRIDE,
        ):
            outputs = self.average.network(self.fabric.to_device(batch.images))
            found = self.objective.decode(outputs, batch.sizes, max_detections=MAX_DETECTIONS, nms=batched_nms)
            for index, (height, width), detections in zip(indices, batch.sizes, found, strict=True):
                record = split.records[index]
                factor = torch.tensor([record.width / width, record.height / height] * 2)
                boxes = detections["boxes"].cpu() * factor
                rows += to_coco({**detections, "boxes": boxes}, record.image_id)
        return rows

    def score(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Return the metrics of detections on the test images."""
        return evaluate_detections(self.data.test.coco, rows, backend=self.config.backend)

    def state_dict(self) -> dict[str, Any]:
        """Return all that further steps depend on."""
        return {
            "step": self.step,
            "learner": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.step = state["step"]
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])


class _Progress:
    """What a trial has told so far: seconds of training, and the terms since the last line of its log."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, seconds: float, terms: Mapping[str, float]) -> None:
        self.seconds += seconds
        self.count += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take_means(self) -> dict[str, float]:
        means = {name: value / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def _tell_nobody(event: Event) -> None:
    del event


def run_trial(
    config: TrialConfig,
    data: DetectionData,
    folder: Path,
    *,
    on_event: Callable[[Event], None] = _tell_nobody,
    resolve: Resolver = resolve_loss,
) -> TrialResult:
    """Train and score one trial, from its checkpoint if there is one; of a finished trial return the result.

    Args:
        config: what to train.
        data: what to train and score on.
        folder: of the trial; it is created.
        on_event: is told how it gets on.
        resolve: gives the loss that a text of ``config.losses`` names.

    Returns:
        What the trial ended with.

    Raises:
        NonFiniteError: a term of the loss or its gradient is not finite.
        ValueError: a folder that holds another trial.
    """
    files = TrialFolder(folder)
    files.claim(config.to_json() | {"data": {"name": data.name, "fingerprint": data.fingerprint}})
    finished = files.result()
    if finished is not None:
        return finished
    trainer, progress = _Trainer(config, data, resolve), _Progress()
    state = files.load_checkpoint()
    if state is not None:
        trainer.load_state_dict(state["trainer"])
        vars(progress).update(state["progress"])
        on_event(ResumeEvent(trainer.step, config.steps, progress.seconds))
    _train(trainer, progress, files, on_event)
    rows = trainer.detect(data.test)
    metrics = _tell_scores(trainer, progress, files, on_event, rows)
    result = TrialResult(metrics, progress.seconds, trainer.step, count_parameters(trainer.network))
    files.finish(result, rows)
    return result


def _train(trainer: _Trainer, progress: _Progress, files: TrialFolder, on_event: Callable[[Event], None]) -> None:
    """Train to the last step, with a checkpoint behind it."""
    config = trainer.config
    evaluated = {round(config.steps * part / config.evaluations) for part in range(1, config.evaluations)}
    every = max(1, config.steps // LOGGED)
    saved = time.perf_counter()
    while trainer.step < config.steps:
        started = time.perf_counter()
        terms = trainer.update(trainer.batch())
        progress.add(time.perf_counter() - started, terms)
        step = trainer.step
        if step % every == 0 or step == config.steps:
            rate = learning_rate(step - 1, config)
            event = TrainEvent(step, config.steps, progress.seconds, progress.take_means(), rate)
            files.log("train", event)
            on_event(event)
        scored = step in evaluated and step < config.steps
        if scored:
            _tell_scores(trainer, progress, files, on_event, trainer.detect(trainer.data.test))
        if scored or step == config.steps or time.perf_counter() - saved > CHECKPOINT_SECONDS:
            files.save_checkpoint({"trainer": trainer.state_dict(), "progress": vars(progress)})
            saved = time.perf_counter()


def _tell_scores(
    trainer: _Trainer,
    progress: _Progress,
    files: TrialFolder,
    on_event: Callable[[Event], None],
    rows: list[dict[str, Any]],
) -> dict[str, float]:
    metrics = trainer.score(rows)
    event = EvalEvent(trainer.step, trainer.config.steps, progress.seconds, metrics)
    files.log("eval", event)
    on_event(event)
    return metrics


def calibrate_steps(
    config: TrialConfig,
    data: DetectionData,
    minutes: float,
    *,
    measured: int = 20,
    resolve: Resolver = resolve_loss,
) -> int:
    """Measure how many steps of a trial this machine trains in a time.

    Args:
        config: of one of the trials.
        data: what it trains on.
        minutes: of training.
        measured: number of steps that are timed, after three that are not.
        resolve: gives the loss that a text of ``config.losses`` names.

    Returns:
        At least 1.
    """
    trainer = _Trainer(config, data, resolve)
    seconds = []
    for _ in range(3 + measured):
        trainer.batch()  # an image is decoded once in a trial, and not timed here
        started = time.perf_counter()
        trainer.update(trainer.batch())
        seconds.append(time.perf_counter() - started)
    return max(1, int(minutes * 60 / median(seconds[3:])))
