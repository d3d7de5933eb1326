"""The region proposal network: object or not for a sample of all anchors, and box offsets of the positive ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, MaxIoU, RandomSampler
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.nms import batched_nms
from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import binary_cross_entropy_with_logits, cross_entropy
from lossatlas.losses.regression import smooth_l1_loss
from lossatlas.objectives.background import foreground_scores
from lossatlas.objectives.dense import (
    NMS,
    BoxObjective,
    Detections,
    Positives,
    Target,
    anchor_pairs,
    check_predictions,
    check_targets,
    clip,
    gather_positives,
    sigmoid_term,
    suppress,
)
from lossatlas.objectives.slots import BoxPairs, ClassTarget, LossFunction, Regression, SigmoidLoss, SoftmaxLoss
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer, Scale

Objectness = Literal["sigmoid", "softmax"]
RPNNormalization = Literal["paper", "count", "sampled"]


@dataclass(frozen=True, eq=False)
class RPNOutputs:
    """What a region proposal network puts out for a batch of B images with P anchors each.

    Args:
        objectness: ``(B, P)`` logits of objects, or ``(B, P, 2)`` logits of background and object.
        deltas: ``(B, P, 4)`` dx, dy, dw, dh, as the objective's coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels, the same for all images, level by level.
        level_sizes: anchors of each level, which are proposed and suppressed level by level; empty for one level.
        image_sizes: height and width of each image in pixels. If they are given, anchors that cross the border are
            not trained.

    Raises:
        ValueError: shapes that do not fit together, or sizes that do not add up.
        TypeError: tensors that are not floating point.
    """

    objectness: Float[Tensor, "b p *two"]
    deltas: Float[Tensor, "b p 4"]
    anchors: Float[Tensor, "p 4"]
    level_sizes: Sequence[int] = ()
    image_sizes: Sequence[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        for name in ("objectness", "deltas", "anchors"):
            check_floating(name, getattr(self, name))
        check_predictions("deltas", self.deltas, (None, None, 4), "B P 4")
        images, predictions, _ = self.deltas.shape
        check_predictions("anchors", self.anchors, (predictions, 4), "P 4")
        if self.objectness.shape not in ((images, predictions), (images, predictions, 2)):
            raise ValueError(
                f"`objectness` must have shape ({images}, {predictions}) or ({images}, {predictions}, 2), but got "
                f"{tuple(self.objectness.shape)}"
            )
        if self.level_sizes and sum(self.level_sizes) != predictions:
            raise ValueError(f"`level_sizes` must add up to {predictions}, but got {list(self.level_sizes)}")
        if self.image_sizes is not None and len(self.image_sizes) != images:
            raise ValueError(f"`image_sizes` must have {images} entries, but has {len(self.image_sizes)}")


class RPN(BoxObjective):
    """The training objective of the region proposal network, Faster R-CNN's first stage, without a network.

    Formula:
        objectness = 1/N_cls Σ over sampled anchors: objectness_loss(logit, is it an object)
        box        = λ/N_reg Σ over sampled positive anchors: box_loss(deltas, encoded object)

        normalization  N_cls for B images   N_reg for B images     λ
        "paper"        B · 256              B · places             10
        "count"        B · 256              B · 256                1    detectron2
        "sampled"      sampled anchors      sampled anchors        1    torchvision, mmdetection

        256: the sampler's `count`;  places: P / anchors_per_place, about 2400 in the paper

    Args:
        objectness: ``"sigmoid"`` for one logit for each anchor, or ``"softmax"`` for two, background and object.
        objectness_loss: slot of the classification; `binary_cross_entropy_with_logits` by default, with ``"softmax"``
            `cross_entropy`.
        box_loss: slot of the regression; `smooth_l1_loss` with β = 1 by default. A loss of boxes, such as `giou_loss`,
            gets decoded boxes in pixels and the objects' boxes.
        objectness_weight: factor of the objectness term.
        box_weight: λ, the factor of the box term; None takes that of the table.
        normalization: see the table.
        anchors_per_place: anchors with the same centre; 9 in the paper, 3 with a feature pyramid. Only ``"paper"``
            reads it.
        class_target: ``"binary"`` or ``"quality"``, what a sigmoid `objectness_loss` is given; None reads it from the
            catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one: it is given the images' N_cls, and a second one, with a
            state of its own, their N_reg.
        assigner: called as ``assigner(anchors, target)`` for each image; `MaxIoU.rpn()` by default.
        sampler: called as ``sampler(assignment, generator=generator)`` for each image; `RandomSampler.rpn()`, 256 of
            which at most half are positive, by default.
        coder: how boxes are written as deltas.
        allowed_border: pixels by which an anchor may cross the border of the image and still be trained.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown word.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 16, 16], [16.0, 0, 32, 16], [0.0, 16, 16, 32], [16.0, 16, 32, 32]])
        >>> outputs = RPNOutputs(torch.zeros(1, 4), torch.zeros(1, 4, 4), anchors)
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([1])}]
        >>> RPN(normalization="sampled")(outputs, targets)
        LossTerms({'objectness': tensor(0.6931), 'box': tensor(0.)})

    Note:
        Assignment, sampling and encoded targets are outside the graph; labels are not read. Which anchors are sampled
        depends on the `generator` of the call alone.
        torchvision's losses are those of ``RPN(normalization="sampled", box_loss=SmoothL1Loss(beta=1/9))``,
        detectron2's those of ``RPN(normalization="count", box_loss=l1_loss)``. py-faster-rcnn divides both terms by the
        sampled anchors, with two logits and β = 1/9. None of the later ones leaves out anchors that cross the border:
        they do not say `image_sizes`.

    Reference:
        Ren et al., "Faster R-CNN", 2015, arXiv 1506.01497, equation 1 and section 3.1.3.
    """

    def __init__(
        self,
        *,
        objectness: Objectness = "sigmoid",
        objectness_loss: LossFunction | None = None,
        box_loss: LossFunction = smooth_l1_loss,
        objectness_weight: float = 1.0,
        box_weight: float | None = None,
        normalization: RPNNormalization = "paper",
        anchors_per_place: int = 9,
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Mapping[str, Tensor]], Assignment] | None = None,
        sampler: RandomSampler | None = None,
        coder: DeltaCoder | None = None,
        allowed_border: float = 0.0,
    ) -> None:
        check_choice("objectness", objectness, get_args(Objectness))
        check_choice("normalization", normalization, get_args(RPNNormalization))
        check_number("objectness_weight", objectness_weight, at_least=0)
        check_number("anchors_per_place", anchors_per_place, at_least=1)
        check_number("allowed_border", allowed_border)
        if class_target is not None and objectness == "softmax":
            raise ValueError(f"`class_target` is for objectness 'sigmoid', but got {class_target!r} for 'softmax'")
        if box_weight is None:
            box_weight = 10.0 if normalization == "paper" else 1.0
        super().__init__(box_loss=box_loss, regression=regression, box_weight=box_weight, normalizer=normalizer)
        self.objectness: Objectness = objectness
        self.objectness_loss = (
            SigmoidLoss(objectness_loss or binary_cross_entropy_with_logits, class_target, name="objectness_loss")
            if objectness == "sigmoid"
            else SoftmaxLoss(objectness_loss or cross_entropy, name="objectness_loss")
        )
        self.objectness_weight = objectness_weight
        self.normalization: RPNNormalization = normalization
        self.anchors_per_place = anchors_per_place
        self.box_normalizer = self.normalizer.with_floor(self.normalizer.floor)
        self.assigner = assigner or MaxIoU.rpn()
        self.sampler = sampler or RandomSampler.rpn()
        self.coder = coder or DeltaCoder()
        self.allowed_border = allowed_border

    @torch.no_grad()
    def assign(self, outputs: RPNOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor answers for, before anchors are sampled."""
        check_targets(targets, len(outputs.deltas))
        if outputs.image_sizes is None:
            return [self.assigner(outputs.anchors, target) for target in targets]
        return [
            self._assign_within(outputs.anchors, size, target)
            for size, target in zip(outputs.image_sizes, targets, strict=True)
        ]

    def _assign_within(self, anchors: Tensor, size: tuple[int, int], target: Target) -> Assignment:
        """Assign the anchors that do not cross the border; the others are ignored."""
        border = self.allowed_border
        inside = (anchors[:, :2] >= -border).all(1) & (anchors[:, 2:] <= anchors.new_tensor(size[::-1]) + border).all(1)
        part = self.assigner(anchors[inside], target)
        matched = torch.full((len(anchors),), -1, device=anchors.device).masked_scatter(inside, part.matched)
        return Assignment.build(matched, (~inside).masked_scatter(inside, part.ignored))

    @torch.no_grad()
    def sample(self, assignments: Sequence[Assignment], generator: torch.Generator | None = None) -> list[Assignment]:
        """Return the assignments in which the anchors that are not sampled are ignored."""
        return [self.sampler(assignment, generator=generator) for assignment in assignments]

    def forward(
        self, outputs: RPNOutputs, targets: Sequence[Target], *, generator: torch.Generator | None = None
    ) -> LossTerms:
        """Return the terms ``objectness`` and ``box``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,), optionally ``iscrowd`` (G,), on the
                device of the outputs.
            generator: of the random numbers that sampling takes; None takes torch's default.

        Raises:
            ValueError: another number of targets, a target whose shapes do not fit, or an objectness of another form.
        """
        return self.terms(outputs, targets, self.sample(self.assign(outputs, targets), generator))

    def terms(self, outputs: RPNOutputs, targets: Sequence[Target], assignments: Sequence[Assignment]) -> LossTerms:
        """Return the terms of anchors that are already sampled: one assignment for each image."""
        self._check_form(outputs)
        check_targets(targets, len(outputs.deltas))
        positives = gather_positives(assignments, targets, outputs.deltas)
        pairs = anchor_pairs(self.coder, outputs.deltas, outputs.anchors, positives)
        class_amounts, box_amounts = self._amounts(assignments, outputs)
        objectness = self._objectness_term(outputs, assignments, positives, pairs, self.normalizer(class_amounts))
        box = self.box_term(pairs, positives, self.box_normalizer(box_amounts))
        return LossTerms({"objectness": objectness, "box": box})

    def _amounts(self, assignments: Sequence[Assignment], outputs: RPNOutputs) -> tuple[Tensor, Tensor]:
        """Return N_cls and N_reg of each image."""
        (like,) = upcast(outputs.deltas.detach())
        if self.normalization == "sampled":
            sampled = like.new_tensor([float((~assignment.ignored).sum()) for assignment in assignments])
            return sampled, sampled
        counts = like.new_full((len(assignments),), self.sampler.count)
        if self.normalization == "count":
            return counts, counts
        return counts, torch.full_like(counts, len(outputs.anchors) / self.anchors_per_place)

    def _objectness_term(
        self,
        outputs: RPNOutputs,
        assignments: Sequence[Assignment],
        positives: Positives,
        pairs: BoxPairs,
        scale: Scale,
    ) -> Tensor:
        if isinstance(self.objectness_loss, SigmoidLoss):
            objects = positives._replace(labels=torch.zeros_like(positives.labels))
            logits = outputs.objectness[..., None]
            term = sigmoid_term(self.objectness_loss, logits, assignments, objects, pairs, scale)
            return self.objectness_weight * term
        index = torch.zeros(outputs.objectness.shape[:2], dtype=torch.int64, device=outputs.objectness.device)
        for image, assignment in enumerate(assignments):
            index[image] = assignment.state  # 1 object, 0 background, -1 ignored
        weight = None if scale.image_weight is None else scale.image_weight[:, None]
        loss: Tensor = self.objectness_loss(outputs.objectness, index, weight=weight, normalizer=scale.denominator)
        return self.objectness_weight * loss

    def _check_form(self, outputs: RPNOutputs) -> None:
        expected = 2 if self.objectness == "sigmoid" else 3
        if outputs.objectness.ndim != expected:
            form = "(B, P)" if self.objectness == "sigmoid" else "(B, P, 2)"
            raise ValueError(
                f"`objectness` must have shape {form} for {self.objectness!r}, but got "
                f"{tuple(outputs.objectness.shape)}"
            )

    @torch.no_grad()
    def decode(
        self,
        outputs: RPNOutputs,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        *,
        score_threshold: float = 0.0,
        iou_threshold: float = 0.7,
        max_candidates: int = 2000,
        max_detections: int = 2000,
        min_side: float = 1e-3,
        nms: NMS | None = batched_nms,
    ) -> list[Detections]:
        """Return the proposals of each image: ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels``, all 0.

        The defaults are those of training in the paper; with a feature pyramid, `max_candidates` counts for each
        level. In testing the paper takes 300 proposals, detectron2 and torchvision 1000.

        Args:
            outputs: of a batch of B images.
            image_sizes: height and width of each image in pixels, to which boxes are clipped; None clips nothing.
            score_threshold: scores must be at least this.
            iou_threshold: of non-maximum suppression within a level.
            max_candidates: anchors of a level, highest score first, that are decoded.
            max_detections: proposals that are returned for an image.
            min_side: pixels; smaller boxes are left out, once they are clipped.
            nms: a function with the arguments of `lossatlas.boxes.nms.batched_nms`; None suppresses nothing.
        """
        check_number("score_threshold", score_threshold, at_least=0, at_most=1)
        check_number("max_candidates", max_candidates, at_least=1)
        check_number("max_detections", max_detections, at_least=1)
        self._check_form(outputs)
        if self.objectness == "sigmoid":
            scores = upcast(outputs.objectness)[0].sigmoid()
        else:
            scores = foreground_scores(outputs.objectness, "first")[..., 0]
        if image_sizes is not None and len(image_sizes) != len(scores):
            raise ValueError(f"`image_sizes` must have {len(scores)} entries, but has {len(image_sizes)}")
        sizes = list(outputs.level_sizes) or [scores.shape[1]]
        level_of = torch.arange(len(sizes), device=scores.device).repeat_interleave(scores.new_tensor(sizes).long())
        detections = []
        for image, score in enumerate(scores):
            best = [part.sort(descending=True, stable=True).indices[:max_candidates] for part in score.split(sizes)]
            starts = [sum(sizes[:level]) for level in range(len(sizes))]
            chosen = torch.cat([start + rows for start, rows in zip(starts, best, strict=True)])
            boxes = self.coder.decode(outputs.deltas[image, chosen], outputs.anchors[chosen])
            boxes = clip(boxes, None if image_sizes is None else image_sizes[image])
            usable = (score[chosen] >= score_threshold) & (boxes[:, 2:] - boxes[:, :2] >= min_side).all(1)
            boxes, chosen = boxes[usable], chosen[usable]
            kept, kept_scores = suppress(nms, boxes, score[chosen], level_of[chosen], iou_threshold)
            kept = kept[:max_detections]
            labels = torch.zeros_like(kept)
            detections.append({"boxes": boxes[kept], "scores": kept_scores[:max_detections], "labels": labels})
        return detections
