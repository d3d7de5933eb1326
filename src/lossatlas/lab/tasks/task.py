"""What a task is: everything that the lab must know of detection, segmentation or pose, in one object.

The trainer, the comparison, its statistics and its report know no task; they ask a `Task`. How a trial goes:

1. `Task.load` reads the data: two splits of samples, each an image with a dict of tensors, its target.
2. `Task.facts` says what a network may know of the data; the registry's entry of the objective builds network,
   objective and learner from it.
3. Images are zoomed, moved and mirrored by `Augmentation`, which asks `Task.move` to do the same to the target.
   A batch is a tensor of images, smaller ones in the upper left corner, and the list of their targets, each in pixels
   of its own image: what pads or stacks targets is the learner.
4. The learner turns a batch into terms, and with the averaged weights into predictions, one dict of tensors for each
   image in pixels of the image as the network saw it. `Task.serialize` brings them back to pixels of the original, as
   what JSON can hold; ``predictions.json`` is the list of all of them.
5. `Task.score` scores that list. What it returns is logged, averaged over seeds and compared; `Task.metrics` says which
   of it heads the tables and which way is better.
6. `Task.pictures` draws that list for the report.

A new task is a subclass in a file of its own, an entry in ``tasks/__init__``, and entries of its objectives in
`lossatlas.lab.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lossatlas.lab.augmentation import Motion
from lossatlas.lab.data import Data
from lossatlas.lab.facts import Facts
from lossatlas.lab.learner import Prediction
from lossatlas.lab.metrics import Metric
from lossatlas.lab.pictures.picture import Picture
from lossatlas.lab.trial import TrialConfig

Predictions = Sequence[Mapping[str, Any]]
"""The rows of ``predictions.json`` of a trial."""


class Task(ABC):
    """One task of the lab.

    Attributes:
        name: what ``--task`` calls it.
        objective: name of the objective that is trained if none is named.
        builtin: name of the data set that needs no file, and is taken if none is named.
        metrics: what tables show, in this order; verdicts are about the first.
        class_metric: the report tabulates every metric ``"{class_metric}/CLASS"``, a number from 0 to 1; empty: none.
        turns: whether `move` can turn targets by any angle, so that the setting `rotation` may be other than 0.
        recipe: settings of training whose default is another than `TrialConfig`'s, by their names there. An objective
            may have its own again.
        reading: how to read the pictures of the report, in a few sentences.
        legend: class of the style sheet and meaning of each colour of the pictures.
    """

    name: ClassVar[str]
    objective: ClassVar[str]
    builtin: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    class_metric: ClassVar[str] = ""
    turns: ClassVar[bool] = False
    recipe: ClassVar[Mapping[str, Any]] = {}
    reading: ClassVar[str] = ""
    legend: ClassVar[tuple[tuple[str, str], ...]] = ()

    @abstractmethod
    def load(
        self, data: str | Path | None = None, *, train: str | Path | None = None, test: str | Path | None = None
    ) -> Data[Any]:
        """Read a data set by what a user says of it: `builtin` or a path, or a path for each split.

        Raises:
            ValueError: there is no data, or it is not said which.
            DataError: data that cannot be trained on, with all that is wrong with it.
        """

    def compose(self, data: Data[Any], count: tuple[int, int]) -> Data[Any]:
        """Return data whose images are composed of several of `data`'s, between the two numbers of `count`.

        Raises:
            ValueError: data that cannot be composed, or a task for which none can.
        """
        del data, count
        raise ValueError(f"compose is not for {self.name}, only for pose")

    @abstractmethod
    def facts(self, data: Data[Any], image_size: int) -> Facts:
        """Return what a network may know of the data, when the longest side of images is `image_size`."""

    @abstractmethod
    def move(self, target: Mapping[str, Tensor], motion: Motion) -> dict[str, Tensor]:
        """Do to a target what was done to its picture."""

    @abstractmethod
    def serialize(self, prediction: Prediction, record: Any, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return the rows of an image for ``predictions.json``, in pixels of the original.

        Args:
            prediction: of the learner, on any device.
            record: of the image in its split.
            size: height and width of the image as the network saw it.
        """

    @abstractmethod
    def score(self, predictions: Predictions, split: Any, config: TrialConfig) -> dict[str, float]:
        """Return the metrics of predictions on a split, by name; what cannot be said is left out."""

    @abstractmethod
    def pictures(self, split: Any, predictions: Mapping[str, Predictions], class_names: Sequence[str]) -> list[Picture]:
        """Draw images of a split with their ground truth and the predictions of each variant, by its name."""
