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
* ``predictions.json``: predictions on the test images after the last step, as the task writes them; detections in
  COCO's result format.
* ``result.json``: `TrialResult`; there is none before a trial is finished.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lossatlas.lab.augmentation import Augmentation
from lossatlas.lab.data import Data, ImageInfo, Split
from lossatlas.lab.facts import Facts
from lossatlas.lab.loading import Batch, scoring_batches, training_batch
from lossatlas.lab.networks.backbone import count_parameters
from lossatlas.lab.optimization import AveragedWeights, build_optimizer, learning_rate
from lossatlas.lab.registry import build_network, find_objective
from lossatlas.lab.tasks import task_of
from lossatlas.lab.trial import EvalEvent, Event, ResumeEvent, TrainEvent, TrialConfig, TrialResult
from lossatlas.lab.trial_folder import TrialFolder
from lossatlas.lab.variants import resolve_loss
from lossatlas.objectives import LossTerms

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

Resolver: TypeAlias = Callable[[str, str, str, int], Callable[..., Any]]
"""From the text of a loss, its slot, the objective and the number of classes to the loss, as `resolve_loss`."""

CHECKPOINT_SECONDS = 20.0
"""A trial that is killed loses at most about as much."""

LOGGED = 200
"""Lines about training in ``metrics.jsonl``, about."""


class NonFiniteError(ArithmeticError):
    """A term of the loss, or its gradient, is infinite or not a number; the message says which, and at which step."""


def build_objective(config: TrialConfig, facts: Facts, resolve: Resolver = resolve_loss) -> nn.Module:
    """Return the objective of a trial with the losses of its variant.

    Args:
        config: of the trial.
        facts: what is known of the data.
        resolve: gives the loss that a text names.
    """
    losses = {
        slot: resolve(text, slot, config.objective, facts.num_classes) for slot, text in sorted(config.losses.items())
    }
    return find_objective(config.objective).build(facts, losses)


class _Trainer:
    """The state of a trial and what changes it."""

    def __init__(self, config: TrialConfig, data: Data[Any], resolve: Resolver) -> None:
        self.config = config
        self.data = data
        self.spec = find_objective(config.objective)
        self.task = task_of(config.objective)
        self.fabric = Fabric(accelerator=config.accelerator, devices=1)
        self.fabric.launch()
        facts = self.task.facts(data, config.image_size)
        self.network = build_network(config.objective, facts, seed=config.seed)
        optimizer = build_optimizer(self.network, config)
        self.own_learner = self.spec.learner(self.network, build_objective(config, facts, resolve))
        self.learner, self.optimizer = self.fabric.setup(self.own_learner, optimizer)
        self.average = AveragedWeights(self.network, config.ema_decay)
        flip = config.horizontal_flip
        self.augmentation = Augmentation(
            image_size=config.image_size,
            scale_jitter=config.scale_jitter,
            color_jitter=config.color_jitter,
            horizontal_flip=data.flips if flip is None else flip,
            move=self.task.move,
            rotation=config.rotation,
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
            multiple=self.spec.multiple,
        )

    @contextlib.contextmanager
    def _own_chance(self) -> Iterator[None]:
        """Let what the objective draws depend on nothing but the seed and the step."""
        device = self.fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1)[0]))
            yield

    def update(self, batch: Batch) -> dict[str, float]:
        """Train one step and return the terms of the loss and their ``"total"``.

        Raises:
            NonFiniteError: a term or its gradient; the weights are left as they were.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        images, targets = self.fabric.to_device((batch.images, batch.targets))
        self.learner.train()
        with self._own_chance():
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
        with self._own_chance():
            terms = self.learner(images, targets)
        for name, term in terms.items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            if any(gradient is not None and not bool(gradient.isfinite().all()) for gradient in gradients):
                wrong.append(name)
        return f"the gradient of the {' and the '.join(wrong) or 'summed'} term of the loss is not finite"

    @torch.no_grad()
    def predict(self, split: Split[ImageInfo]) -> list[dict[str, Any]]:
        """Return what the averaged weights predict on images, as the task writes it."""
        self.average.network.eval()
        self.own_learner.eval()
        rows: list[dict[str, Any]] = []
        for indices, batch in scoring_batches(
            split,
            image_size=self.config.image_size,
            batch_size=self.config.batch_size,
            multiple=self.spec.multiple,
        ):
            images = self.fabric.to_device(batch.images)
            found = self.own_learner.predict(self.average.network, images, batch.sizes)
            for index, size, prediction in zip(indices, batch.sizes, found, strict=True):
                rows += self.task.serialize(prediction, split.records[index], size)
        return rows

    def score(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Return the metrics of predictions on the test images."""
        return self.task.score(rows, self.data.test, self.config)

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
    data: Data[Any],
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
    rows = trainer.predict(data.test)
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
            _tell_scores(trainer, progress, files, on_event, trainer.predict(trainer.data.test))
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
    data: Data[Any],
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
