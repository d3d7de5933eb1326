"""Part affinity fields: heatmaps of the keypoints of all people, and fields of vectors along their limbs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.pose import heatmap_mse_loss, part_affinity_loss
from lossatlas.objectives.map_slots import MapLoss, MapReduction
from lossatlas.objectives.pose_maps import (
    Poses,
    check_maps,
    check_stages,
    heatmap_term,
    people_of,
    stage_stride,
    to_poses,
    trained_cells,
)
from lossatlas.objectives.slots import LossFunction
from lossatlas.objectives.terms import LossTerms
from lossatlas.targets.assembly import group_by_fields
from lossatlas.targets.fields import PartAffinityFields
from lossatlas.targets.grid import to_cells, to_pixels
from lossatlas.targets.heatmaps import KeypointHeatmaps
from lossatlas.targets.limbs import LIMB_RULES, LimbRule, Matching
from lossatlas.targets.peaks import Refinement, find_peaks, refine_peaks
from lossatlas.targets.people import Masked, Target
from lossatlas.targets.skeletons import Skeleton


@dataclass(frozen=True, eq=False)
class PartAffinityOutputs:
    """What a network of OpenPose's kind puts out for a batch of B images with K keypoints and L limbs.

    Args:
        heatmaps: ``(B, K, H, W)``, one map more if the objective has a background.
        fields: ``(B, 2 L, H, W)``, for each limb the map of x and then that of y.
        stride: pixels of the image between two cells.
        stages: heatmaps of earlier stages of the network, which are trained too; each covers the same image.
        field_stages: fields of earlier stages, likewise.

    Raises:
        ValueError: shapes that do not fit together, or a `stride` that is not above 0.
        TypeError: tensors that are not floating point.
    """

    heatmaps: Float[Tensor, "b k h w"]
    fields: Float[Tensor, "b f h w"]
    stride: float
    stages: tuple[Tensor, ...] = ()
    field_stages: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        check_number("stride", self.stride, above=0)
        check_maps("heatmaps", self.heatmaps)
        check_maps("fields", self.fields, self.heatmaps)
        check_stages("stages", self.stages, self.heatmaps)
        check_stages("field_stages", self.field_stages, self.fields)


class PartAffinity(nn.Module):
    """The training objective of part affinity fields, without a network.

    Formula:
        heatmap = w_h Σ over stages: heatmap_loss(maps, Gaussians at the keypoints of all people)
        field   = w_f Σ over stages: field_loss(fields, unit vectors along the limbs of all people)

    Args:
        skeleton: the K keypoints and L limbs.
        heatmap_loss: slot of the loss of the heatmaps, as `Heatmap`'s.
        field_loss: slot of the loss of the fields, `part_affinity_loss` by default; elementwise losses fit too.
        heatmap_weight: w_h.
        field_weight: w_f.
        heatmaps: how the Gaussians are drawn.
        fields: how the limbs are drawn; its skeleton must be `skeleton`.
        reduction: what both losses are divided by, see `lossatlas.objectives.map_slots.MapReduction`. OpenPose's code
            takes ``"half_batch"``, a sum that is 10³ to 10⁴ times larger, with a learning rate to match.
        masked: where the maps are not trained, see `lossatlas.targets.people.Masked`.

    Raises:
        ValueError: a loss that does not fit its slot, a weight below 0, `fields` of another skeleton, or an unknown
            name.

    Example:
        >>> arm = Skeleton("arm", ("elbow", "wrist"), ((0, 1),))
        >>> targets = [{"keypoints": torch.tensor([[[6.0, 6.0, 2.0], [22.0, 6.0, 2.0]]])}]
        >>> objective = PartAffinity(arm, heatmaps=KeypointHeatmaps(sigma=1.0))
        >>> maps = objective.heatmaps(targets[0]["keypoints"], (4, 8), 4).heatmaps[None]
        >>> fields = objective.fields(targets[0]["keypoints"], (4, 8), 4)[None]
        >>> outputs = PartAffinityOutputs(maps, fields, 4)
        >>> objective(outputs, targets).total, objective.decode(outputs, min_keypoints=2)[0]["keypoints"].shape
        (tensor(0.), torch.Size([1, 2, 3]))

    Note:
        Targets are outside the graph. OpenPose's code weighs every stage and both kinds of maps alike.

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        section 2.1.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        heatmap_loss: LossFunction = heatmap_mse_loss,
        field_loss: LossFunction = part_affinity_loss,
        heatmap_weight: float = 1.0,
        field_weight: float = 1.0,
        heatmaps: KeypointHeatmaps | None = None,
        fields: PartAffinityFields | None = None,
        reduction: MapReduction | None = None,
        masked: Masked = "crowd_and_unlabelled",
    ) -> None:
        super().__init__()
        check_number("heatmap_weight", heatmap_weight, at_least=0)
        check_number("field_weight", field_weight, at_least=0)
        self.skeleton = skeleton
        self.heatmaps = heatmaps or KeypointHeatmaps()
        self.fields = fields or PartAffinityFields(skeleton, convention=self.heatmaps.convention)
        if self.fields.skeleton != skeleton:
            raise ValueError(
                f"`fields` must be of the skeleton {skeleton.name!r}, but is of {self.fields.skeleton.name!r}"
            )
        self.heatmap_loss = MapLoss(heatmap_loss, reduction)
        self.field_loss = MapLoss(field_loss, reduction, fields=True, name="field_loss")
        self.heatmap_weight = heatmap_weight
        self.field_weight = field_weight
        self.masked = masked

    def forward(self, outputs: PartAffinityOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``heatmap`` and ``field``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``keypoints`` (G, K, 3), x, y in pixels and a visibility, 0 for those that are not
                labelled; optionally ``boxes`` (G, 4) xyxy pixels, ``masks`` (G, H, W) and ``iscrowd`` (G,), on the
                device of the outputs.

        Raises:
            ValueError: another number of targets, or shapes that do not fit.
        """
        self._check(outputs)
        people = people_of(targets, outputs.heatmaps, len(self.skeleton))
        stages = (*outputs.stages, outputs.heatmaps)
        heatmap = heatmap_term(self.heatmap_loss, self.heatmaps, stages, outputs.stride, people, targets, self.masked)
        field = []
        for maps in (*outputs.field_stages, outputs.fields):
            stride = stage_stride(outputs.heatmaps, outputs.stride, maps)
            trained = trained_cells(targets, maps, stride, self.masked, self.fields.convention)
            target = self.fields(people.keypoints, (maps.shape[2], maps.shape[3]), stride)
            valid = trained.expand(-1, len(self.skeleton.limbs), -1, -1)
            field.append(self.field_loss(maps, target, valid, (people.keypoints[..., 2] > 0).sum()))
        return LossTerms(
            {
                "heatmap": self.heatmap_weight * heatmap,
                "field": self.field_weight * torch.stack(field).sum(),
            }
        )

    @torch.no_grad()
    def decode(
        self,
        outputs: PartAffinityOutputs,
        *,
        threshold: float = 0.1,
        kernel: int = 3,
        refinement: Refinement = "dark",
        rule: LimbRule | str = "realtime",
        matching: Matching = "greedy",
        max_people: int = 30,
        min_keypoints: int = 3,
        min_score: float = 0.2,
    ) -> list[Poses]:
        """Return the people of each image.

        Args:
            outputs: of a batch of B images.
            threshold: of the height of a peak; 0.1 in the authors' code, 0.05 in OpenPose.
            kernel: side in cells of the window that a peak is the highest of.
            refinement: where between the cells a keypoint lies, see `lossatlas.targets.peaks.Refinement`.
            rule: what can be a limb, or the name of one of `lossatlas.targets.limbs.LIMB_RULES`.
            matching: which of the possible limbs are taken, see `lossatlas.targets.limbs.Matching`.
            max_people: peaks of a kind of keypoint that are looked at.
            min_keypoints: people with fewer keypoints are left out.
            min_score: people with a lower score are left out.

        Returns:
            For each image ``keypoints`` (P, K, 3), x, y in pixels and the height, 0 where none was found, and
            ``scores`` (P,), see `lossatlas.targets.assembly.Grouping`.

        Raises:
            ValueError: an unknown name.
            ImportError: scipy is not installed, for ``matching="hungarian"``.
        """
        self._check(outputs)
        if isinstance(rule, str):
            check_choice("rule", rule, LIMB_RULES)
            rule = LIMB_RULES[rule]
        heatmaps, fields = upcast(outputs.heatmaps, outputs.fields)
        heatmaps = heatmaps[:, : len(self.skeleton)]
        heatmaps = heatmaps.sigmoid() if self.heatmap_loss.logits else heatmaps
        size = (heatmaps.shape[2], heatmaps.shape[3])
        found = []
        for maps, limb_maps in zip(heatmaps, fields, strict=True):
            peaks = find_peaks(maps, threshold=threshold, kernel=kernel, max_peaks=max_people)
            place = refine_peaks(maps, peaks.cells, refinement) + self.heatmaps.shift
            pixels = to_pixels(place, size, outputs.stride, self.heatmaps.convention)
            grouping = group_by_fields(
                peaks,
                to_cells(pixels, size, outputs.stride, self.fields.convention),
                limb_maps,
                self.skeleton,
                rule=rule,
                matching=matching,
                stride=outputs.stride,
                min_keypoints=min_keypoints,
                min_score=min_score,
            )
            found.append(to_poses(pixels, peaks.scores, grouping.members, grouping.scores))
        return found

    def _check(self, outputs: PartAffinityOutputs) -> None:
        """Raise unless there are as many maps as the skeleton needs."""
        heatmaps = len(self.skeleton) + self.heatmaps.background
        for name, maps, count in (
            ("heatmaps", outputs.heatmaps, heatmaps),
            ("fields", outputs.fields, 2 * len(self.skeleton.limbs)),
        ):
            if maps.shape[1] != count:
                raise ValueError(f"`{name}` must have {count} maps, but have {maps.shape[1]}")
