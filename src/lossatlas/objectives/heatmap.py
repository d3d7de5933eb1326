"""Heatmaps of the keypoints of one person, and coordinates read from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.pose import heatmap_mse_loss
from lossatlas.objectives.map_slots import CoordinateLoss, MapLoss, MapReduction, moments
from lossatlas.objectives.pose_maps import Poses, check_maps, check_stages, people_of, stage_stride
from lossatlas.objectives.slots import LossFunction
from lossatlas.objectives.terms import LossTerms
from lossatlas.targets.grid import to_cells, to_pixels
from lossatlas.targets.heatmaps import KeypointHeatmaps
from lossatlas.targets.peaks import Refinement, refine_peaks
from lossatlas.targets.people import People, Target

Unlabelled: TypeAlias = Literal["ignore", "negative"]


@dataclass(frozen=True, eq=False)
class HeatmapOutputs:
    """What a network puts out for a batch of B images with one person each.

    Args:
        heatmaps: ``(B, K, H, W)``, one map for each keypoint.
        stride: pixels of the image between two cells.
        stages: maps of earlier stages of the network, ``(B, K, H', W')``, which are trained too. One of another size
            covers the same image.

    Raises:
        ValueError: shapes that do not fit together, or a `stride` that is not above 0.
        TypeError: tensors that are not floating point.
    """

    heatmaps: Float[Tensor, "b k h w"]
    stride: float
    stages: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        check_number("stride", self.stride, above=0)
        check_maps("heatmaps", self.heatmaps)
        check_stages("stages", self.stages, self.heatmaps)


class Heatmap(nn.Module):
    """The training objective of a network that finds the keypoints of one person, without the network.

    Formula:
        heatmap    = w_h Σ over stages: heatmap_loss(maps, Gaussians at the keypoints)
        coordinate = w_c coordinate_loss(mean of softmax(β maps), keypoints)

    Args:
        heatmap_loss: slot of the loss of the maps; None trains them by their coordinates alone. Fitting are losses of
            keypoint maps, elementwise ones such as `adaptive_wing_loss`, and losses of logits such as
            `gaussian_focal_loss`, with which the heatmaps are σ(maps).
        coordinate_loss: slot of a loss of the coordinates, such as `oks_loss`, `rle_loss`, `simcc_loss` or an
            elementwise one; None has no such term.
        heatmap_weight: w_h.
        coordinate_weight: w_c.
        heatmaps: how the Gaussians are drawn.
        reduction: what the heatmap loss is divided by, see `lossatlas.objectives.map_slots.MapReduction`; None is
            ``"keypoints"`` for `gaussian_focal_loss` and ``"mean"`` for others.
        unlabelled: what becomes of the map of a keypoint that is not labelled or not on the map: ``"ignore"`` does
            not train it, ``"negative"`` trains it to be 0 everywhere.
        keypoint_weights: ``(K,)`` factors of the keypoints' maps in the heatmap loss, which do not change the
            denominator; mmpose has 1.2 for elbows and knees and 1.5 for wrists and ankles. None is 1 for all.
        beta: β > 0, what the maps are multiplied by before the softmax.
        sigmas: ``(K,)`` the keypoints' sigmas of `oks_loss`; None is 0.067 for all, the mean of COCO's.

    Raises:
        ValueError: a loss that does not fit its slot, no loss at all, a weight below 0, or a bad `unlabelled`.

    Example:
        >>> targets = [{"keypoints": torch.tensor([[[9.5, 5.5, 2.0], [0.0, 0.0, 0.0]]])}]
        >>> objective = Heatmap(heatmaps=KeypointHeatmaps(sigma=1.0))
        >>> maps = objective.heatmaps(targets[0]["keypoints"], (6, 8), 4).heatmaps
        >>> outputs = HeatmapOutputs(maps[None], 4)
        >>> objective(outputs, targets)["heatmap"], objective.decode(outputs)[0]["keypoints"][0, 0]
        (tensor(0.), tensor([9.5000, 5.5000, 1.0000]))

    Note:
        Targets are outside the graph. An image without a person, or without a labelled keypoint, is ordinary; an
        image with several is an error: crop them, or use `AssociativeEmbedding` or `PartAffinity`.
        The mean and the standard deviation of softmax(β maps) stand for the coordinates and scales that regression
        networks put out, and the logarithms of its sums over rows or columns for the bins of SimCC; so every network
        with a map for each keypoint can be trained with these losses.

    Reference:
        Tompson et al., 2014, arXiv 1406.2984. Stages: Newell et al., "Stacked Hourglass Networks", 2016, arXiv
        1603.06937. Coordinates: Sun et al., "Integral Human Pose Regression", 2017, arXiv 1711.08229.
    """

    def __init__(
        self,
        *,
        heatmap_loss: LossFunction | None = heatmap_mse_loss,
        coordinate_loss: LossFunction | None = None,
        heatmap_weight: float = 1.0,
        coordinate_weight: float = 1.0,
        heatmaps: KeypointHeatmaps | None = None,
        reduction: MapReduction | None = None,
        unlabelled: Unlabelled = "ignore",
        keypoint_weights: Tensor | None = None,
        beta: float = 1.0,
        sigmas: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_number("heatmap_weight", heatmap_weight, at_least=0)
        check_number("coordinate_weight", coordinate_weight, at_least=0)
        check_choice("unlabelled", unlabelled, get_args(Unlabelled))
        check_number("beta", beta, above=0)
        if heatmap_loss is None and coordinate_loss is None:
            raise ValueError("`heatmap_loss` or `coordinate_loss` must be a loss, but both are None")
        self.heatmaps = heatmaps or KeypointHeatmaps()
        if self.heatmaps.background:
            raise ValueError("`heatmaps` must have no background, which is a map of several people")
        self.heatmap_loss = None if heatmap_loss is None else MapLoss(heatmap_loss, reduction)
        if keypoint_weights is not None and (self.heatmap_loss is None or self.heatmap_loss.own_mean):
            raise ValueError(
                "`keypoint_weights` must be None without a heatmap loss, or with one with a mean of its own"
            )
        self.keypoint_weights: Tensor | None
        self.register_buffer("keypoint_weights", keypoint_weights)
        self.coordinate_loss = None
        if coordinate_loss is not None:
            self.coordinate_loss = CoordinateLoss(coordinate_loss, sigmas=sigmas, bin_sigma=self.heatmaps.sigma)
        self.heatmap_weight = heatmap_weight
        self.coordinate_weight = coordinate_weight
        self.unlabelled = unlabelled
        self.beta = beta

    def forward(self, outputs: HeatmapOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``heatmap`` and ``coordinate``, those that there is a loss for.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``keypoints`` (G, K, 3), x, y in pixels and a visibility, 0 for those that are not
                labelled; G is 1, or 0 for an image without a person. Optionally ``boxes`` (G, 4) xyxy pixels, ``area``
                (G,) in pixels, for `oks_loss`, and ``iscrowd`` (G,), of which crowds are left out.

        Raises:
            ValueError: another number of targets, several people in an image, or shapes that do not fit.
        """
        people = self._people(outputs, targets)
        kinds = outputs.heatmaps.shape[1]
        if self.keypoint_weights is not None and self.keypoint_weights.shape != (kinds,):
            got = tuple(self.keypoint_weights.shape)
            raise ValueError(f"`keypoint_weights` must have shape ({kinds},), but got {got}")
        terms = {}
        if self.heatmap_loss is not None:
            stages = [*outputs.stages, outputs.heatmaps]
            total = torch.stack([self._heatmap_term(maps, outputs, people) for maps in stages]).sum()
            terms["heatmap"] = self.heatmap_weight * total
        if self.coordinate_loss is not None:
            terms["coordinate"] = self.coordinate_weight * self._coordinate_term(outputs, people)
        return LossTerms(terms)

    @torch.no_grad()
    def decode(self, outputs: HeatmapOutputs, *, refinement: Refinement | None = None) -> list[Poses]:
        """Return the person of each image.

        Args:
            outputs: of a batch of B images.
            refinement: where between the cells a keypoint lies, see `lossatlas.targets.peaks.Refinement`. None is the
                mean of softmax(β maps) for maps that are trained by their coordinates alone, and ``"dark"`` for
                others.

        Returns:
            For each image ``keypoints`` (1, K, 3): x, y in pixels and the height of the heatmap; and ``scores`` (1,),
            their mean. The height of maps that are trained by their coordinates alone is the highest probability.
        """
        (maps,) = upcast(outputs.heatmaps)
        images, kinds, height, width = maps.shape
        if self.heatmap_loss is None:
            probability = (self.beta * maps).flatten(2).softmax(2).view(maps.shape)
        else:
            probability = maps.sigmoid() if self.heatmap_loss.logits else maps
        scores, index = probability.flatten(2).max(2)
        cells = torch.stack((index % width, index // width), -1)
        if self.heatmap_loss is None and refinement is None:
            place = moments(self.beta * maps)[0]
        else:
            place = refine_peaks(probability, cells[:, :, None], refinement or "dark")[:, :, 0]
            place = place + (self.heatmaps.shift if self.heatmap_loss is not None else 0.0)
        pixels = to_pixels(place, (height, width), outputs.stride, self.heatmaps.convention)
        keypoints = torch.cat((pixels, scores[..., None]), -1).view(images, 1, kinds, 3)
        return [{"keypoints": person, "scores": person[..., 2].mean(1)} for person in keypoints]

    def _people(self, outputs: HeatmapOutputs, targets: Sequence[Target]) -> People:
        people = people_of(targets, outputs.heatmaps, outputs.heatmaps.shape[1])
        if people.rows.shape[1] > 1:
            index, number = max(enumerate((people.rows >= 0).sum(1).tolist()), key=lambda pair: pair[1])
            raise ValueError(
                f"`targets[{index}]` must have at most one person, but has {number}: Heatmap finds one in each image"
            )
        return people

    def _heatmap_term(self, maps: Tensor, outputs: HeatmapOutputs, people: People) -> Tensor:
        assert self.heatmap_loss is not None
        stride = stage_stride(outputs.heatmaps, outputs.stride, maps)
        size = (maps.shape[2], maps.shape[3])
        target, drawn = self.heatmap_loss.fit(self.heatmaps)(people.keypoints, size, stride, people.boxes)
        valid = drawn.any(1) if self.unlabelled == "ignore" else torch.ones_like(maps[:, :, 0, 0], dtype=torch.bool)
        trained = valid[..., None, None].expand(maps.shape)
        value: Tensor = self.heatmap_loss(maps, target, trained, drawn.sum(), self.keypoint_weights)
        return value

    def _coordinate_term(self, outputs: HeatmapOutputs, people: People) -> Tensor:
        assert self.coordinate_loss is not None
        images, kinds, height, width = outputs.heatmaps.shape
        # One more person, without a keypoint, for a batch without people.
        keypoints = F.pad(people.keypoints, (0, 0, 0, 0, 0, 1))[:, 0].view(images, kinds, 3)
        areas = F.pad(people.areas, (0, 1))[:, 0] / outputs.stride**2
        target = to_cells(keypoints[..., :2], (height, width), outputs.stride, self.heatmaps.convention)
        limit = target.new_tensor([width, height]) - 0.5
        visible = (keypoints[..., 2] > 0) & ((target >= -0.5) & (target < limit)).all(-1)
        value: Tensor = self.coordinate_loss(self.beta * outputs.heatmaps, target, visible, areas)
        return value
