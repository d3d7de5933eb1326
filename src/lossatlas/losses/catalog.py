"""The list of every loss: what ``lossatlas ls`` prints and what the conformance suite runs over.

A loss that is not listed here is not public. What can be read from its docstring is read from it.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn

from lossatlas.losses import (
    boundary,
    box_transforms,
    box_variants,
    boxes,
    classification,
    cldice,
    compound,
    equalized,
    focal,
    generalized_overlap,
    ghm,
    information,
    keypoints,
    long_tail,
    lovasz,
    overlap,
    pixel,
    pose,
    quality,
    ranking,
    regression,
    robust,
    rotated,
    squared,
    uncertainty,
    unified,
    wing,
    wise_iou,
)
from lossatlas.losses.modules import LossModule, ModuleForm

InputKind: TypeAlias = Literal[
    "elementwise",
    "joint_numbers",
    "boxes",
    "rotated_boxes",
    "binary_logits",
    "binary_probabilities",
    "quality_logits",
    "heatmap_logits",
    "bin_logits",
    "class_logits",
    "class_log_probabilities",
    "distributions",
    "probabilities",
    "ranking_logits",
    "ranking_qualities",
    "segmentation",
    "binary_segmentation",
    "keypoint_maps",
    "part_fields",
    "tag_maps",
    "keypoints",
    "scaled_keypoints",
    "coordinate_logits",
]
"""What a loss takes:

* elementwise: numbers and numbers
* joint_numbers: numbers and numbers, several of which make one element
* boxes: pairs of xyxy boxes
* rotated_boxes: pairs of boxes given by centre, sides and angle in radians
* binary_logits, binary_probabilities: one number for each yes/no target
* quality_logits: one logit for each quality from 0 to 1
* heatmap_logits: one logit for each number of a map of Gaussians, 1 at the centres of objects
* bin_logits: a vector of logits of the numbers 0 to n (last axis) for each number from 0 to n
* class_logits, class_log_probabilities: a vector of the classes (axis 1) for each class index
* distributions: pairs of probability distributions (last axis)
* probabilities: probabilities (last axis) without a target
* ranking_logits: one logit for each yes/no target, all ranked against each other
* ranking_qualities: one logit for each quality from 0 to 1, all ranked against each other
* segmentation: a map of class logits (axis 1) for each map of class indices, one-hot or soft targets
* binary_segmentation: maps of independent logits (axis 1) for maps of 0 and 1
* keypoint_maps: pairs of heatmaps, one for each keypoint (axis 1)
* part_fields: pairs of fields of vectors, two maps for each limb (axis 1)
* tag_maps: maps of tags, one for each keypoint (axis 1), for the places of the keypoints of each person
* keypoints: pairs of coordinates (last axis) of the keypoints (axis before it) of people with an area
* scaled_keypoints: pairs of such coordinates, and a predicted scale of the error
* coordinate_logits: a vector of logits of the bins of an axis (last axis) for each coordinate in bins
"""


@dataclass(frozen=True)
class LossEntry:
    """One public loss. Its function returns a tensor, or a named tuple of several terms."""

    function: Callable[..., Any]
    module: ModuleForm[Any] | type[nn.Module]
    family: str
    input_kind: InputKind
    own_mean: bool = False
    """Whether the mean is part of the loss: a number of positives in its place would scale it by thousands."""

    @property
    def name(self) -> str:
        """Name of the function."""
        return self.function.__name__

    @property
    def stateful(self) -> bool:
        """Whether the module keeps a state of its own, beyond the arguments of the function."""
        return not (isinstance(self.module, type) and issubclass(self.module, LossModule))

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self._doc.partition("\n")[0]

    @property
    def formula(self) -> str:
        """The formula, as the docstring writes it."""
        return self.section("Formula")

    @property
    def reference(self) -> str:
        """Where the loss was published."""
        return " ".join(self.section("Reference").split())

    def section(self, title: str) -> str:
        """Return the dedented text of a section of the docstring, empty if it has none."""
        lines = iter(self._doc.splitlines())
        for line in lines:
            if line == f"{title}:":
                return inspect.cleandoc("\n" + "\n".join(_indented(lines))).rstrip()
        return ""

    @property
    def _doc(self) -> str:
        return inspect.getdoc(self.function) or ""


def _indented(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line and not line.startswith(" "):
            return
        yield line


_ENTRIES = (
    LossEntry(information.information_content, information.InformationContent, "information", "probabilities"),
    LossEntry(information.entropy, information.Entropy, "information", "probabilities"),
    LossEntry(
        information.distribution_cross_entropy, information.DistributionCrossEntropy, "information", "distributions"
    ),
    LossEntry(information.kl_divergence, information.KLDivergence, "information", "distributions"),
    LossEntry(
        classification.binary_cross_entropy, classification.BinaryCrossEntropy, "classification", "binary_probabilities"
    ),
    LossEntry(
        classification.binary_cross_entropy_with_logits,
        classification.BinaryCrossEntropyWithLogits,
        "classification",
        "binary_logits",
    ),
    LossEntry(classification.cross_entropy, classification.CrossEntropy, "classification", "class_logits"),
    LossEntry(classification.nll_loss, classification.NLLLoss, "classification", "class_log_probabilities"),
    LossEntry(focal.sigmoid_focal_loss, focal.SigmoidFocalLoss, "classification", "binary_logits"),
    LossEntry(focal.softmax_focal_loss, focal.SoftmaxFocalLoss, "classification", "class_logits"),
    LossEntry(focal.sigmoid_focal_star_loss, focal.SigmoidFocalStarLoss, "classification", "binary_logits"),
    LossEntry(focal.asymmetric_loss, focal.AsymmetricLoss, "classification", "binary_logits"),
    LossEntry(quality.quality_focal_loss, quality.QualityFocalLoss, "classification", "quality_logits"),
    LossEntry(quality.varifocal_loss, quality.VarifocalLoss, "classification", "quality_logits"),
    LossEntry(quality.gaussian_focal_loss, quality.GaussianFocalLoss, "classification", "heatmap_logits"),
    LossEntry(quality.distribution_focal_loss, quality.DistributionFocalLoss, "classification", "bin_logits"),
    LossEntry(
        long_tail.balanced_binary_cross_entropy_with_logits,
        long_tail.BalancedBinaryCrossEntropyWithLogits,
        "classification",
        "binary_logits",
    ),
    LossEntry(long_tail.seesaw_loss, long_tail.SeesawLoss, "classification", "class_logits"),
    LossEntry(equalized.equalized_focal_loss, equalized.EqualizedFocalLoss, "classification", "binary_logits"),
    LossEntry(ghm.ghmc_loss, ghm.GHMCLoss, "classification", "binary_logits", own_mean=True),
    LossEntry(ghm.ghmr_loss, ghm.GHMRLoss, "regression", "elementwise"),
    LossEntry(robust.poly_loss, robust.PolyLoss, "classification", "class_logits"),
    LossEntry(robust.bi_tempered_loss, robust.BiTemperedLoss, "classification", "class_logits"),
    LossEntry(ranking.ap_loss, ranking.APLoss, "ranking", "ranking_logits"),
    LossEntry(ranking.dr_loss, ranking.DRLoss, "ranking", "ranking_logits", own_mean=True),
    LossEntry(ranking.alrp_loss, ranking.ALRPLoss, "ranking", "ranking_logits"),
    LossEntry(ranking.rank_sort_loss, ranking.RankSortLoss, "ranking", "ranking_qualities"),
    LossEntry(regression.l1_loss, regression.L1Loss, "regression", "elementwise"),
    LossEntry(regression.smooth_l1_loss, regression.SmoothL1Loss, "regression", "elementwise"),
    LossEntry(regression.balanced_l1_loss, regression.BalancedL1Loss, "regression", "elementwise"),
    LossEntry(squared.mse_loss, squared.MSELoss, "regression", "elementwise"),
    LossEntry(squared.rmse_loss, squared.RMSELoss, "regression", "joint_numbers"),
    LossEntry(squared.l2_loss, squared.L2Loss, "regression", "elementwise"),
    LossEntry(regression.smooth_l1_sigma_loss, regression.SmoothL1SigmaLoss, "regression", "elementwise"),
    LossEntry(regression.huber_loss, regression.HuberLoss, "regression", "elementwise"),
    LossEntry(regression.focal_l1_loss, regression.FocalL1Loss, "regression", "elementwise"),
    LossEntry(uncertainty.kl_box_loss, uncertainty.KLBoxLoss, "regression", "elementwise"),
    LossEntry(wing.wing_loss, wing.WingLoss, "regression", "elementwise"),
    LossEntry(wing.adaptive_wing_loss, wing.AdaptiveWingLoss, "regression", "elementwise"),
    LossEntry(boxes.iou_loss, boxes.IoULoss, "boxes", "boxes"),
    LossEntry(boxes.giou_loss, boxes.GIoULoss, "boxes", "boxes"),
    LossEntry(boxes.diou_loss, boxes.DIoULoss, "boxes", "boxes"),
    LossEntry(boxes.ciou_loss, boxes.CIoULoss, "boxes", "boxes"),
    LossEntry(boxes.eiou_loss, boxes.EIoULoss, "boxes", "boxes"),
    LossEntry(boxes.focal_eiou_loss, boxes.FocalEIoULoss, "boxes", "boxes"),
    LossEntry(box_variants.siou_loss, box_variants.SIoULoss, "boxes", "boxes"),
    LossEntry(box_transforms.alpha_iou_loss, box_transforms.AlphaIoULoss, "boxes", "boxes"),
    LossEntry(wise_iou.wiou_loss, wise_iou.WIoULoss, "boxes", "boxes"),
    LossEntry(box_variants.mpdiou_loss, box_variants.MPDIoULoss, "boxes", "boxes"),
    LossEntry(box_transforms.inner_iou_loss, box_transforms.InnerIoULoss, "boxes", "boxes"),
    LossEntry(box_variants.shape_iou_loss, box_variants.ShapeIoULoss, "boxes", "boxes"),
    LossEntry(box_transforms.focaler_iou_loss, box_transforms.FocalerIoULoss, "boxes", "boxes"),
    LossEntry(box_variants.powerful_iou_loss, box_variants.PowerfulIoULoss, "boxes", "boxes"),
    LossEntry(box_variants.nwd_loss, box_variants.NWDLoss, "boxes", "boxes"),
    LossEntry(box_variants.bounded_iou_loss, box_variants.BoundedIoULoss, "boxes", "boxes"),
    LossEntry(rotated.gwd_loss, rotated.GWDLoss, "rotated boxes", "rotated_boxes"),
    LossEntry(rotated.kld_loss, rotated.KLDLoss, "rotated boxes", "rotated_boxes"),
    LossEntry(rotated.probiou_loss, rotated.ProbIoULoss, "rotated boxes", "rotated_boxes"),
    LossEntry(overlap.dice_loss, overlap.DiceLoss, "segmentation", "segmentation"),
    LossEntry(overlap.jaccard_loss, overlap.JaccardLoss, "segmentation", "segmentation"),
    LossEntry(overlap.tversky_loss, overlap.TverskyLoss, "segmentation", "segmentation"),
    LossEntry(overlap.focal_tversky_loss, overlap.FocalTverskyLoss, "segmentation", "segmentation"),
    LossEntry(overlap.asymmetric_similarity_loss, overlap.AsymmetricSimilarityLoss, "segmentation", "segmentation"),
    LossEntry(
        generalized_overlap.generalized_dice_loss,
        generalized_overlap.GeneralizedDiceLoss,
        "segmentation",
        "segmentation",
    ),
    LossEntry(
        generalized_overlap.penalty_generalized_dice_loss,
        generalized_overlap.PenaltyGeneralizedDiceLoss,
        "segmentation",
        "segmentation",
    ),
    LossEntry(
        generalized_overlap.wasserstein_dice_loss,
        generalized_overlap.WassersteinDiceLoss,
        "segmentation",
        "segmentation",
    ),
    LossEntry(generalized_overlap.mcc_loss, generalized_overlap.MCCLoss, "segmentation", "segmentation"),
    LossEntry(
        generalized_overlap.sensitivity_specificity_loss,
        generalized_overlap.SensitivitySpecificityLoss,
        "segmentation",
        "segmentation",
    ),
    LossEntry(lovasz.lovasz_softmax_loss, lovasz.LovaszSoftmaxLoss, "segmentation", "segmentation"),
    LossEntry(lovasz.lovasz_hinge_loss, lovasz.LovaszHingeLoss, "segmentation", "binary_segmentation"),
    LossEntry(pixel.topk_cross_entropy, pixel.TopkCrossEntropy, "segmentation", "segmentation"),
    LossEntry(pixel.ohem_cross_entropy, pixel.OHEMCrossEntropy, "segmentation", "segmentation"),
    LossEntry(
        pixel.distance_penalized_cross_entropy, pixel.DistancePenalizedCrossEntropy, "segmentation", "segmentation"
    ),
    LossEntry(pixel.border_weighted_cross_entropy, pixel.BorderWeightedCrossEntropy, "segmentation", "segmentation"),
    LossEntry(boundary.boundary_loss, boundary.BoundaryLoss, "segmentation", "segmentation"),
    LossEntry(boundary.hausdorff_dt_loss, boundary.HausdorffDTLoss, "segmentation", "segmentation"),
    LossEntry(boundary.hausdorff_erosion_loss, boundary.HausdorffErosionLoss, "segmentation", "segmentation"),
    LossEntry(cldice.soft_cldice_loss, cldice.SoftClDiceLoss, "segmentation", "segmentation"),
    LossEntry(compound.dice_cross_entropy_loss, compound.DiceCrossEntropyLoss, "segmentation", "segmentation"),
    LossEntry(compound.dice_focal_loss, compound.DiceFocalLoss, "segmentation", "segmentation"),
    LossEntry(compound.dice_topk_loss, compound.DiceTopkLoss, "segmentation", "segmentation"),
    LossEntry(compound.generalized_dice_focal_loss, compound.GeneralizedDiceFocalLoss, "segmentation", "segmentation"),
    LossEntry(unified.combo_loss, unified.ComboLoss, "segmentation", "segmentation"),
    LossEntry(unified.exponential_logarithmic_loss, unified.ExponentialLogarithmicLoss, "segmentation", "segmentation"),
    LossEntry(unified.unified_focal_loss, unified.UnifiedFocalLoss, "segmentation", "segmentation"),
    LossEntry(pose.heatmap_mse_loss, pose.HeatmapMSELoss, "pose", "keypoint_maps"),
    LossEntry(pose.joint_ohkm_loss, pose.JointOHKMLoss, "pose", "keypoint_maps"),
    LossEntry(pose.part_affinity_loss, pose.PartAffinityLoss, "pose", "part_fields"),
    LossEntry(pose.associative_embedding_loss, pose.AssociativeEmbeddingLoss, "pose", "tag_maps"),
    LossEntry(keypoints.oks_loss, keypoints.OKSLoss, "pose", "keypoints"),
    LossEntry(keypoints.rle_loss, keypoints.RLELoss, "pose", "scaled_keypoints"),
    LossEntry(keypoints.simcc_loss, keypoints.SimCCLoss, "pose", "coordinate_logits"),
)

CATALOG: dict[str, LossEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every public loss by the name of its function."""


def find(loss: object) -> LossEntry | None:
    """Return the entry of a loss function, its module or a `functools.partial` of it; None for anything else."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    if isinstance(loss, nn.Module):
        loss = getattr(type(loss), "function", None)
    entry = CATALOG.get(getattr(loss, "__name__", ""))
    return entry if entry is not None and entry.function is loss else None
