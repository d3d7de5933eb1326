"""The places of a pose objective that a loss is put into: which losses fit, and how each of them is called."""

import functools
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lossatlas.checks import check_choice
from lossatlas.dtypes import upcast
from lossatlas.objectives.slots import LossFunction, Slot
from lossatlas.targets.heatmaps import KeypointHeatmaps

MapReduction: TypeAlias = Literal["mean", "mean_all", "half_batch", "keypoints"]
"""What the sum over the cells of all maps is divided by: the number of cells that are trained; that of all cells, as
associative embedding and HigherHRNet do; twice the number of images, as OpenPose's Caffe does; or the number of
keypoints that are drawn, as CenterNet does."""

LOGIT_KINDS = frozenset({"heatmap_logits", "quality_logits", "binary_logits"})
"""Losses of logits: the network's maps are heatmaps after a sigmoid."""

MAP_KINDS = LOGIT_KINDS | {"keypoint_maps", "elementwise"}
"""Losses of heatmaps of keypoints."""

FIELD_KINDS = frozenset({"part_fields", "elementwise"})
"""Losses of part affinity fields."""

TAG_KINDS = frozenset({"tag_maps"})
"""Losses of tags."""

COORDINATE_KINDS = frozenset({"keypoints", "scaled_keypoints", "coordinate_logits", "elementwise"})
"""Losses of the coordinates of keypoints."""

COCO_MEAN_SIGMA = 0.067
"""Mean of the sigmas that COCO's keypoint evaluation gives its 17 keypoints."""

_IGNORED = -1.0


class MapLoss(Slot):
    """The slot of a loss of maps: of heatmaps of keypoints, or of part affinity fields.

    ================= ===================================================================================
    kind              what the loss is given
    ================= ===================================================================================
    keypoint_maps     the maps and those of the target
    part_fields       likewise, for part affinity fields
    elementwise       likewise, number by number
    heatmap_logits    logits and heights from 0 to 1, 1 at the cell nearest to each keypoint; for heatmaps only
    quality_logits,   logits and heights from 0 to 1, maps last; for heatmaps only
    binary_logits
    ================= ===================================================================================

    A callable of your own is called as ``loss(input, target, weight=..., reduction="mean", normalizer=...)``, with a
    weight of 0 and 1 that broadcasts.

    Args:
        loss: what is put into the slot.
        reduction: see `MapReduction`; None is ``"keypoints"`` for a loss of logits of heatmaps, such as
            `gaussian_focal_loss`, and ``"mean"`` for others.
        fields: whether the maps are part affinity fields.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind, without an argument that it needs, or that cannot be reduced so.
        TypeError: a loss that is not callable.
    """

    def __init__(
        self,
        loss: LossFunction,
        reduction: MapReduction | None = None,
        *,
        fields: bool = False,
        name: str = "heatmap_loss",
    ) -> None:
        kinds = FIELD_KINDS if fields else MAP_KINDS
        super().__init__(name, loss, kinds)
        if reduction is not None:
            check_choice("reduction", reduction, get_args(MapReduction))
        self.own_mean = self.entry is not None and (self.entry.own_mean or self.entry.name == "joint_ohkm_loss")
        if self.entry is not None and self.own_mean and reduction not in (None, "mean"):
            raise ValueError(f"`reduction` must be 'mean' for {self.entry.name}, but got {reduction!r}")
        self.reduction = reduction or ("keypoints" if self.kind == "heatmap_logits" else "mean")

    @property
    def logits(self) -> bool:
        """Whether the network's maps are logits."""
        return self.kind in LOGIT_KINDS

    def fit(self, draw: KeypointHeatmaps) -> KeypointHeatmaps:
        """Return how the Gaussians are drawn that the loss takes."""
        return replace(draw, unit_peaks=True) if self.kind == "heatmap_logits" else draw

    def forward(
        self, input: Tensor, target: Tensor, valid: Tensor, keypoints: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss of the maps of B images.

        Args:
            input: ``(B, M, H, W)``.
            target: ``(B, M, H, W)``.
            valid: ``(B, M, H, W)`` mask of the cells that are trained, or ``(B, M / 2, H, W)`` for fields.
            keypoints: 0-d, number of keypoints that are drawn.
            weight: ``(M,)`` factors of the maps, for a loss without a mean of its own; they do not change the
                denominator.
        """
        options: dict[str, Any] = {"reduction": "mean"}
        if weight is not None:
            options["weight"] = weight.to(input)[:, None, None]
        input, target = upcast(input, target)
        if self.entry is not None and self.entry.name == "joint_ohkm_loss":
            options["visibility"] = valid.flatten(2).any(2)
            input, target = torch.where(valid, input, 0), torch.where(valid, target, 0)
            return self._value(input, target, options)
        if valid.shape != input.shape and self.kind != "part_fields":
            valid = valid.repeat_interleave(2, dim=1)
        if self.logits:
            target = torch.where(valid, target, _IGNORED)
            input, target = input.movedim(1, -1), target.movedim(1, -1)
            options["ignore_index"] = _IGNORED
            if weight is not None:
                options["weight"] = weight.to(input)
        elif self.kind in ("keypoint_maps", "part_fields"):
            options["mask"] = valid
        else:
            options["weight"] = valid.to(input.dtype) * options.get("weight", 1)
            input, target = torch.where(valid, input, 0), torch.where(valid, target, 0)
        if not self.own_mean:
            options["normalizer"] = self._denominator(valid, keypoints)
        return self._value(input, target, options)

    def _denominator(self, valid: Tensor, keypoints: Tensor) -> Tensor | float:
        if self.reduction == "mean":
            return valid.sum()
        if self.reduction == "keypoints":
            return keypoints
        return max(valid.numel() if self.reduction == "mean_all" else 2 * len(valid), 1)

    def _value(self, input: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
        value: Tensor = self.loss(input, target, **options)
        return value


class CoordinateLoss(Slot):
    """The slot of a loss of the coordinates of keypoints, each of which is predicted by a distribution over cells.

    ================== ========================================================================================
    kind               what the loss is given
    ================== ========================================================================================
    keypoints          the means of the distributions and the keypoints in cells, areas in cells
    scaled_keypoints   means and keypoints as fractions of the map, and the standard deviations as scales
    coordinate_logits  for each axis the logits of its columns or rows, and the keypoints in cells
    elementwise        means and keypoints in cells
    ================== ========================================================================================

    A callable of your own is called like an elementwise loss.

    Args:
        loss: what is put into the slot.
        sigmas: ``(K,)`` the keypoints' sigmas of `oks_loss`, unless it has them bound; None is COCO's mean for all.
        bin_sigma: σ of `simcc_loss` in cells, unless it has one bound; None is the loss's own.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind, or without an argument that it needs.
        TypeError: a loss that is not callable.
    """

    def __init__(
        self,
        loss: LossFunction,
        *,
        sigmas: Tensor | None = None,
        bin_sigma: float | None = None,
        name: str = "coordinate_loss",
    ) -> None:
        super().__init__(name, loss, COORDINATE_KINDS, supplied=("areas", "sigma", "sigmas"))
        self.register_buffer("sigmas", sigmas)
        self.bin_sigma = bin_sigma
        self.bound = {argument for argument in ("areas", "sigma", "sigmas") if is_bound(loss, argument)}

    def forward(self, logits: Tensor, target: Tensor, visible: Tensor, areas: Tensor) -> Tensor:
        """Return the mean loss of the labelled keypoints, with `oks_loss` of the people.

        Args:
            logits: ``(B, K, H, W)`` of the distributions.
            target: ``(B, K, 2)`` x, y in cells.
            visible: ``(B, K)`` mask of the keypoints that are labelled.
            areas: ``(B,)`` areas of the people in cells.
        """
        logits, target = upcast(logits, target)
        if self.kind == "coordinate_logits":
            return self._of_bins(logits, target, visible)
        mean, deviation = moments(logits)
        options: dict[str, Any]
        if self.kind == "keypoints":
            sigmas = logits.new_full(visible.shape[1:], COCO_MEAN_SIGMA) if self.sigmas is None else self.sigmas
            options = {"areas": areas, "sigmas": sigmas, "visibility": visible}
        elif self.kind == "scaled_keypoints":
            size = target.new_tensor([logits.shape[3], logits.shape[2]])
            mean, target = mean / size, target / size
            options = {"sigma": deviation / size, "visibility": visible}
        else:
            labelled = visible[..., None]
            mean, target = torch.where(labelled, mean, 0), torch.where(labelled, target, 0)
            options = {"weight": labelled.to(mean.dtype), "reduction": "mean", "normalizer": 2 * visible.sum()}
        value: Tensor = self.loss(mean, target, **{name: options[name] for name in options if name not in self.bound})
        return value

    def _of_bins(self, logits: Tensor, target: Tensor, visible: Tensor) -> Tensor:
        sigma = {} if self.bin_sigma is None or "sigma" in self.bound else {"sigma": self.bin_sigma}
        columns, rows = logits.logsumexp(2), logits.logsumexp(3)
        x: Tensor = self.loss(columns, target[..., 0], visibility=visible, **sigma)
        y: Tensor = self.loss(rows, target[..., 1], visibility=visible, **sigma)
        return x + y


class TagLoss(Slot):
    """The slot of a loss of tag maps, which has two terms, such as `associative_embedding_loss`.

    A callable of your own is called as ``loss(tags, indices)`` and returns the pair of both, pull first.

    Args:
        loss: what is put into the slot.
        dimensions: of a tag, unless the loss has them bound.
        name: argument of the objective, for messages.

    Raises:
        ValueError: a loss of another kind, or without an argument that it needs.
        TypeError: a loss that is not callable.
    """

    def __init__(self, loss: LossFunction, dimensions: int = 1, *, name: str = "tag_loss") -> None:
        super().__init__(name, loss, TAG_KINDS)
        known = self.entry is not None and not is_bound(loss, "dimensions")
        self.options = {"dimensions": dimensions} if known else {}

    def forward(self, tags: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms of pull and push.

        Args:
            tags: ``(B, D K, H, W)`` or ``(B, D, H, W)``.
            indices: ``(B, N, K)``, see `lossatlas.targets.embedding.embedding_indices`.
        """
        pull, push = self.loss(tags, indices, **self.options)
        return pull, push


def moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation ``(B, K, 2)``, in cells, of the distributions with the given logits.

    A twelfth is added to the variance: that of a place in a cell, so that a distribution on one cell has a scale too.
    """
    means, deviations = [], []
    for axis in (2, 3):
        p = logits.logsumexp(axis).softmax(-1)
        cell = torch.arange(p.shape[-1], dtype=p.dtype, device=p.device)
        mean = (p * cell).sum(-1)
        means.append(mean)
        deviations.append(((p * (cell - mean[..., None]) ** 2).sum(-1) + 1 / 12).sqrt())
    return torch.stack(means, -1), torch.stack(deviations, -1)


def is_bound(loss: object, argument: str) -> bool:
    """Return whether a loss has been given a keyword argument already, by its module form or a partial."""
    while isinstance(loss, functools.partial):
        if argument in loss.keywords:
            return True
        loss = loss.func
    return isinstance(loss, nn.Module) and hasattr(loss, argument)
