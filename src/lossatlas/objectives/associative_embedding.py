"""Associative embedding: heatmaps of the keypoints of all people, and tags that say whose they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.pose import associative_embedding_loss, heatmap_mse_loss
from lossatlas.objectives.map_slots import MapLoss, MapReduction, TagLoss
from lossatlas.objectives.pose_maps import (
    Poses,
    check_maps,
    check_stages,
    heatmap_term,
    people_of,
    stage_stride,
    to_poses,
)
from lossatlas.objectives.slots import LossFunction
from lossatlas.objectives.terms import LossTerms
from lossatlas.targets.embedding import embedding_indices
from lossatlas.targets.grid import to_pixels
from lossatlas.targets.grouping import TagCost, TagDistance, fill_missing, group_by_tags, peak_tags
from lossatlas.targets.heatmaps import KeypointHeatmaps
from lossatlas.targets.peaks import Refinement, find_peaks, refine_peaks
from lossatlas.targets.people import Masked, Target

Weighting: TypeAlias = Literal["normalized", "reference"]


class TermWeights(NamedTuple):
    """Factors of the three terms."""

    heatmap: float
    pull: float
    push: float


WEIGHTINGS: dict[str, TermWeights] = {
    "normalized": TermWeights(0.999, 0.001, 0.001),
    "reference": TermWeights(1.0, 1e-3, 1e-3),
}
"""Factors by name: those that add up to 1 for detection and grouping, and those of the authors' code."""


@dataclass(frozen=True, eq=False)
class AssociativeEmbeddingOutputs:
    """What a network of associative embedding's kind puts out for a batch of B images with K keypoints.

    Args:
        heatmaps: ``(B, K, H, W)``.
        tags: ``(B, D K, H', W')`` for tags of D dimensions, all maps of a dimension together, or ``(B, D, H', W')``,
            one tag map for all keypoints; at another resolution than the heatmaps', if you like.
        stride: pixels of the image between two cells of the heatmaps.
        stages: heatmaps of earlier stages of the network, which are trained too; each covers the same image.
        tag_stages: tags of earlier stages, likewise.

    Raises:
        ValueError: shapes that do not fit together, or a `stride` that is not above 0.
        TypeError: tensors that are not floating point.
    """

    heatmaps: Float[Tensor, "b k h w"]
    tags: Float[Tensor, "b t i j"]
    stride: float
    stages: tuple[Tensor, ...] = ()
    tag_stages: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        check_number("stride", self.stride, above=0)
        check_maps("heatmaps", self.heatmaps)
        check_maps("tags", self.tags)
        if len(self.tags) != len(self.heatmaps):
            raise ValueError(f"`tags` must be of {len(self.heatmaps)} images, but are of {len(self.tags)}")
        check_stages("stages", self.stages, self.heatmaps)
        check_stages("tag_stages", self.tag_stages, self.tags)


class AssociativeEmbedding(nn.Module):
    """The training objective of associative embedding, without a network.

    Formula:
        heatmap = w_h Σ over stages: heatmap_loss(maps, Gaussians at the keypoints of all people)
        pull    = w_l Σ over stages: tag_loss(tags, places).pull
        push    = w_s Σ over stages: tag_loss(tags, places).push

    Args:
        heatmap_loss: slot of the loss of the heatmaps, as `Heatmap`'s.
        tag_loss: slot of the loss of the tags, `associative_embedding_loss` by default.
        weights: factors w of heatmap, pull and push: ``"normalized"``, 0.999 for detection and 0.001 for grouping,
            ``"reference"``, 1 and 10⁻³ as in the authors' code, or three numbers.
        heatmaps: how the Gaussians are drawn.
        reduction: what the heatmap loss is divided by, see `lossatlas.objectives.map_slots.MapReduction`. The authors
            and HigherHRNet take ``"mean_all"``.
        masked: where the heatmaps are not trained, see `lossatlas.targets.people.Masked`.
        dimensions: D of a tag.
        order: keypoints in the order in which people are put together, see `Skeleton.order`; None is from the first.

    Raises:
        ValueError: a loss that does not fit its slot, a weight below 0, or an unknown name.

    Example:
        >>> targets = [{"keypoints": torch.tensor([[[6.0, 6.0, 2.0]], [[26.0, 6.0, 2.0]]])}]
        >>> objective = AssociativeEmbedding(heatmaps=KeypointHeatmaps(sigma=1.0))
        >>> maps = objective.heatmaps(targets[0]["keypoints"], (4, 8), 4).heatmaps[None]
        >>> tags = torch.arange(8.0).expand(1, 1, 4, 8)
        >>> outputs = AssociativeEmbeddingOutputs(maps, tags, 4)
        >>> objective(outputs, targets)["heatmap"], objective.decode(outputs)[0]["keypoints"].shape
        (tensor(0.), torch.Size([2, 1, 3]))

    Note:
        Targets are outside the graph. Keypoints with a visibility of 1 are trained like those with 2. Images without
        people train the background of the heatmaps; crowds and people without a labelled keypoint are masked out.
        Push has no slope where all tags are equal. The published factors are for long trainings: with them some hundred
        steps do not part the tags. Factors such as ``weights=(1.0, 0.05, 0.05)`` do, best with the variant
        ``"reference"`` of the loss, whose pull is a mean over the keypoints and not their sum.

    Reference:
        Newell et al., "Associative Embedding", 2017, arXiv 1611.05424. Several resolutions: Cheng et al.,
        "HigherHRNet", 2019, arXiv 1908.10357.
    """

    def __init__(
        self,
        *,
        heatmap_loss: LossFunction = heatmap_mse_loss,
        tag_loss: LossFunction = associative_embedding_loss,
        weights: Weighting | tuple[float, float, float] = "normalized",
        heatmaps: KeypointHeatmaps | None = None,
        reduction: MapReduction | None = None,
        masked: Masked = "crowd_and_unlabelled",
        dimensions: int = 1,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(weights, str):
            check_choice("weights", weights, WEIGHTINGS)
            weights = WEIGHTINGS[weights]
        for weight in weights:
            check_number("weights", weight, at_least=0)
        check_number("dimensions", dimensions, at_least=1)
        self.weights = TermWeights(*weights)
        self.heatmaps = heatmaps or KeypointHeatmaps()
        if self.heatmaps.background:
            raise ValueError("`heatmaps` must have no background: tags have none")
        self.heatmap_loss = MapLoss(heatmap_loss, reduction)
        self.tag_loss = TagLoss(tag_loss, dimensions)
        self.masked = masked
        self.dimensions = dimensions
        self.order = order

    def forward(self, outputs: AssociativeEmbeddingOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``heatmap``, ``pull`` and ``push``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``keypoints`` (G, K, 3), x, y in pixels and a visibility, 0 for those that are not
                labelled; optionally ``boxes`` (G, 4) xyxy pixels, ``masks`` (G, H, W) and ``iscrowd`` (G,), on the
                device of the outputs.

        Raises:
            ValueError: another number of targets, or shapes that do not fit.
        """
        kinds = outputs.heatmaps.shape[1]
        people = people_of(targets, outputs.heatmaps, kinds)
        stages = (*outputs.stages, outputs.heatmaps)
        heatmap = heatmap_term(self.heatmap_loss, self.heatmaps, stages, outputs.stride, people, targets, self.masked)
        pull, push = [], []
        for tags in (*outputs.tag_stages, outputs.tags):
            per_keypoint = self._per_keypoint(tags, kinds)
            indices = embedding_indices(
                people.keypoints,
                (tags.shape[2], tags.shape[3]),
                stage_stride(outputs.heatmaps, outputs.stride, tags),
                per_keypoint=per_keypoint,
                center=self.heatmaps.center,
                convention=self.heatmaps.convention,
            )
            terms = self.tag_loss(tags, indices)
            pull.append(terms[0])
            push.append(terms[1])
        return LossTerms(
            {
                "heatmap": self.weights.heatmap * heatmap,
                "pull": self.weights.pull * torch.stack(pull).sum(),
                "push": self.weights.push * torch.stack(push).sum(),
            }
        )

    @torch.no_grad()
    def decode(
        self,
        outputs: AssociativeEmbeddingOutputs,
        *,
        threshold: float = 0.1,
        kernel: int = 3,
        refinement: Refinement = "dark",
        tag_threshold: float = 1.0,
        cost: TagCost = "rounded",
        distance: TagDistance = "norm",
        max_people: int = 30,
        fill: bool = False,
    ) -> list[Poses]:
        """Return the people of each image.

        Args:
            outputs: of a batch of B images.
            threshold: of the height of a peak.
            kernel: side in cells of the window that a peak is the highest of.
            refinement: where between the cells a keypoint lies, see `lossatlas.targets.peaks.Refinement`; the published
                codes take ``"quarter"``.
            tag_threshold: a peak whose tag is as far from a person's mean tag is not the person's.
            cost: what people and peaks are matched by, see `lossatlas.targets.grouping.TagCost`.
            distance: of tags of several dimensions, see `lossatlas.targets.grouping.TagDistance`.
            max_people: of an image.
            fill: whether to put the keypoints that a person lacks where height and tag fit best, as the published
                codes do; these then have the height there as their score.

        Returns:
            For each image ``keypoints`` (P, K, 3), x, y in pixels and the height, 0 where none was found, and
            ``scores`` (P,), the mean height over all K.

        Raises:
            ImportError: scipy is not installed.
        """
        heatmaps, tags = upcast(outputs.heatmaps, outputs.tags)
        heatmaps = heatmaps.sigmoid() if self.heatmap_loss.logits else heatmaps
        self._per_keypoint(tags, heatmaps.shape[1])
        size = (heatmaps.shape[2], heatmaps.shape[3])
        if tags.shape[2:] != heatmaps.shape[2:] and len(tags):
            tags = F.interpolate(tags, size, mode="bilinear", align_corners=False)
        found = []
        for maps, tag_maps in zip(heatmaps, tags, strict=True):
            peaks = find_peaks(maps, threshold=threshold, kernel=kernel, max_peaks=max_people)
            peak_tag = peak_tags(tag_maps, peaks, self.dimensions)
            members = group_by_tags(
                peaks,
                peak_tag,
                order=self.order,
                tag_threshold=tag_threshold,
                cost=cost,
                distance=distance,
                max_people=max_people,
            )
            poses = to_poses(
                self._pixels(maps, peaks.cells, refinement, outputs.stride),
                peaks.scores,
                members,
                peaks.scores.new_zeros(len(members)),
            )
            if fill:
                self._fill(poses, maps, tag_maps, members, peak_tag, refinement, outputs.stride)
            poses["scores"] = poses["keypoints"][..., 2].sum(1) / max(maps.shape[0], 1)
            found.append(poses)
        return found

    def _pixels(self, maps: Tensor, cells: Tensor, refinement: Refinement, stride: float) -> Tensor:
        place = refine_peaks(maps, cells, refinement) + self.heatmaps.shift
        return to_pixels(place, (maps.shape[1], maps.shape[2]), stride, self.heatmaps.convention)

    def _fill(
        self,
        poses: Poses,
        maps: Tensor,
        tags: Tensor,
        members: Tensor,
        peak_tag: Tensor,
        refinement: Refinement,
        stride: float,
    ) -> None:
        """Fill in the keypoints that people lack."""
        if not members.numel():
            return
        has = members >= 0
        own = peak_tag[torch.arange(members.shape[1], device=members.device), members.clamp(min=0)]
        mean = torch.where(has[..., None], own, 0).sum(1) / has.sum(1, keepdim=True)
        cells, heights = fill_missing(maps, tags, mean)
        pixels = self._pixels(maps, cells.transpose(0, 1), refinement, stride).transpose(0, 1)
        filled = torch.cat((pixels, heights[..., None]), -1)
        poses["keypoints"] = torch.where(has[..., None], poses["keypoints"], filled)

    def _per_keypoint(self, tags: Tensor, kinds: int) -> bool:
        """Return whether each keypoint has a tag map of its own."""
        if tags.shape[1] not in (self.dimensions, self.dimensions * kinds):
            expected = f"{self.dimensions} or {self.dimensions * kinds}"
            raise ValueError(f"`tags` must have {expected} maps, but have {tags.shape[1]}")
        return tags.shape[1] == self.dimensions * kinds
