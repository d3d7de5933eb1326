"""ATSS: the positives that stand out, with class, box and centerness at one anchor for each place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas import assign
from lossatlas.assign import Assignment
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.formats import convert, xyxy_to_ltrb
from lossatlas.checks import check_floating
from lossatlas.losses.boxes import giou_loss
from lossatlas.losses.focal import sigmoid_focal_loss
from lossatlas.objectives.centerness import BoxWeighting, CenternessObjective, centered_scores, centerness_target
from lossatlas.objectives.decoder import DetectionDecoder
from lossatlas.objectives.dense import (
    AnchorOutputs,
    Target,
    anchor_pairs,
    check_predictions,
    check_targets,
    gather_positives,
)
from lossatlas.objectives.slots import ClassTarget, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer


@dataclass(frozen=True, eq=False)
class ATSSOutputs(AnchorOutputs):
    """What a network of ATSS's kind puts out for a batch of B images with P anchors each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each anchor and class.
        deltas: ``(B, P, 4)`` dx, dy, dw, dh, as the objective's coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels, the same for all images, level by level.
        centerness: ``(B, P)`` logits.
        level_sizes: anchors of each level.

    Raises:
        ValueError: shapes that do not fit together, or sizes that do not add up.
        TypeError: tensors that are not floating point.
    """

    centerness: Float[Tensor, "b p"]
    level_sizes: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_floating("centerness", self.centerness)
        images, predictions, _ = self.class_logits.shape
        check_predictions("centerness", self.centerness, (images, predictions), "B P")
        if sum(self.level_sizes) != predictions:
            raise ValueError(f"`level_sizes` must add up to {predictions}, but got {list(self.level_sizes)}")


class ATSS(CenternessObjective, DetectionDecoder[ATSSOutputs]):
    """The training objective of ATSS, without a network.

    Formula:
        class      = 1/N Σ over anchors that are not ignored, and classes: class_loss(logit, target)
        box        = λ/Σc Σ over positive anchors: c · box_loss(decoded box, object)      λ = 2
        centerness = 1/N Σ over positive anchors: BCE(logit, c)
        c: `centerness_target` of the anchor's centre in its object, N: number of positives, at least 1

    Args:
        class_loss: slot of the classification; `sigmoid_focal_loss` with α = 0.25, γ = 2 by default. A loss of
            qualities, such as `quality_focal_loss`, gets the IoU of the decoded box with its object, detached, as
            target of the object's class.
        box_loss: slot of the regression; `giou_loss` by default. A loss of boxes gets decoded boxes in pixels and the
            objects' boxes, an elementwise one the deltas.
        class_weight: factor of the class term.
        box_weight: λ, the factor of the box term.
        centerness_weight: factor of the centerness term.
        box_weighting: ``"centerness"`` as in the formula, or ``"none"``: λ/N Σ box_loss.
        class_target: ``"binary"`` or ``"quality"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one; the sum of the centerness targets is normalised in the
            same mode, with a state of its own. The authors' code has ``"all_reduce"``.
        assigner: called as ``assigner(anchors, level_sizes, target)`` for each image; `lossatlas.assign.ATSS()` by
            default. With several anchors at each place it has to be told how many.
        coder: how boxes are written as deltas; `DeltaCoder` with weights (10, 10, 5, 5) by default.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown `box_weighting`.

    Example:
        >>> from lossatlas.boxes.priors import anchor_grid
        >>> anchors = anchor_grid([(4, 4), (2, 2)], [8, 16], octave_scales=[1], aspect_ratios=[1])
        >>> outputs = ATSSOutputs(
        ...     torch.zeros(1, 20, 3), torch.zeros(1, 20, 4), anchors, torch.zeros(1, 20), level_sizes=[16, 4]
        ... )
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 30, 32]]), "labels": torch.tensor([2])}]
        >>> sorted(ATSS()(outputs, targets))
        ['box', 'centerness', 'class']

    Note:
        Assignment, centerness and qualities as targets are outside the graph. An image without objects trains the
        background; a batch without positives has box and centerness terms of 0, and every output still gets a (zero)
        gradient. Positives are inside their objects, so that c is above 0. The published anchor is a square of 8
        strides: ``anchor_grid(..., base_size=8, octave_scales=[1], aspect_ratios=[1])``.

    Reference:
        Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
        Selection", 2019, arXiv 1912.02424, section 4; the weights are those of the authors' code.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = sigmoid_focal_loss,
        box_loss: LossFunction = giou_loss,
        class_weight: float = 1.0,
        box_weight: float = 2.0,
        centerness_weight: float = 1.0,
        box_weighting: BoxWeighting = "centerness",
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Sequence[int], Mapping[str, Tensor]], Assignment] | None = None,
        coder: DeltaCoder | None = None,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            class_target=class_target,
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            normalizer=normalizer,
            centerness_weight=centerness_weight,
            box_weighting=box_weighting,
        )
        self.assigner = assigner or assign.ATSS()
        self.coder = coder or DeltaCoder((10.0, 10.0, 5.0, 5.0))

    @torch.no_grad()
    def assign(self, outputs: ATSSOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor answers for."""
        check_targets(targets, len(outputs.class_logits))
        return [self.assigner(outputs.anchors, outputs.level_sizes, target) for target in targets]

    def forward(self, outputs: ATSSOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``box`` and ``centerness``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        assignments = self.assign(outputs, targets)
        positives = gather_positives(assignments, targets, outputs.deltas)
        pairs = anchor_pairs(self.coder, outputs.deltas, outputs.anchors, positives)
        centers = convert(outputs.anchors[positives.prediction].detach(), "xyxy", "cxcywh")[:, :2]
        target = centerness_target(xyxy_to_ltrb(positives.boxes.to(centers.dtype), centers))
        return self.centered_terms(outputs.class_logits, outputs.centerness, assignments, positives, pairs, target)

    def scores(self, outputs: ATSSOutputs) -> Tensor:
        """Return √(σ(class logit) · σ(centerness logit))."""
        return centered_scores(outputs.class_logits, outputs.centerness)

    def boxes(self, outputs: ATSSOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the decoded boxes."""
        return self.coder.decode(outputs.deltas[image, prediction], outputs.anchors[prediction])
