"""Faster R-CNN's second stage: softmax over classes and background for sampled regions, and their box offsets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, IoUBalancedSampler, MaxIoU, RandomSampler
from lossatlas.assign.assignment import ordered_objects
from lossatlas.assign.regions import check_rows, highest_iou
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.nms import batched_nms
from lossatlas.checks import check_floating
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import cross_entropy
from lossatlas.losses.regression import smooth_l1_loss
from lossatlas.objectives.background import Background, SoftmaxObjective, class_indices, foreground_scores
from lossatlas.objectives.dense import (
    NMS,
    Detections,
    Positives,
    Target,
    check_predictions,
    check_targets,
    gather_positives,
    select_of_image,
)
from lossatlas.objectives.slots import BoxPairs, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a batch that the second stage looks at.

    Args:
        boxes: of each image ``(R_b, 4)`` xyxy pixels; what RoI pooling takes.
        assignments: of each image, which object each region answers for; None where nothing is trained.

    Raises:
        ValueError: boxes of another shape, or assignments that do not fit them.
        TypeError: boxes that are not floating point.
    """

    boxes: Sequence[Tensor]
    assignments: Sequence[Assignment] | None = None

    def __post_init__(self) -> None:
        for image, boxes in enumerate(self.boxes):
            check_rows(f"boxes[{image}]", boxes)
        if self.assignments is not None and list(map(len, self.assignments)) != list(map(len, self.boxes)):
            raise ValueError(
                f"`assignments` must have the lengths of `boxes`, {list(map(len, self.boxes))}, but got "
                f"{list(map(len, self.assignments))}"
            )


@dataclass(frozen=True, eq=False)
class RoIOutputs:
    """What the second stage puts out for the R regions of a batch, image after image, and C classes.

    Args:
        class_logits: ``(R, C + 1)``, one logit for each class and one for the background.
        deltas: ``(R, K, 4)`` dx, dy, dw, dh: K = 1 for all classes together, C of each class, or C + 1 in the order of
            the logits.
        regions: what was looked at.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    class_logits: Float[Tensor, "r c"]
    deltas: Float[Tensor, "r k 4"]
    regions: Regions

    def __post_init__(self) -> None:
        check_floating("class_logits", self.class_logits)
        check_floating("deltas", self.deltas)
        count = sum(len(boxes) for boxes in self.regions.boxes)
        check_predictions("class_logits", self.class_logits, (count, None), "R C+1")
        classes = self.class_logits.shape[1]
        check_predictions("deltas", self.deltas, (count, None, 4), "R K 4")
        if self.deltas.shape[1] not in (1, classes - 1, classes):
            raise ValueError(
                f"`deltas` must have 1, {classes - 1} or {classes} boxes for {classes} logits of a region, but has "
                f"{self.deltas.shape[1]}"
            )


class RoIHead(SoftmaxObjective):
    """The training objective of Faster R-CNN's second stage, which is that of Fast R-CNN, without a network.

    Formula:
        class = 1/R Σ over sampled regions: class_loss(logits, class or background)
        box   = λ/R Σ over sampled positive regions: box_loss(deltas of the object's class, encoded object)
        R: number of sampled regions, 512 of each image if there are as many

    Args:
        class_loss: slot of the classification; `cross_entropy` by default. It takes class indices.
        box_loss: slot of the regression; `smooth_l1_loss` with β = 1 by default. A loss of boxes, such as `giou_loss`,
            gets decoded boxes in pixels and the objects' boxes.
        class_weight: factor of the class term.
        box_weight: λ, the factor of the box term.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        background: index of the background among the C + 1 classes, ``"first"`` or ``"last"``.
        normalizer: a mode of `PositiveNormalizer`, or one; it is given the sampled regions of the images.
        assigner: called as ``assigner(boxes, target)`` for each image; `MaxIoU.roi()` by default.
        sampler: which regions of an image are trained; `RandomSampler.roi()`, 512 of which at most a quarter is
            positive, by default. `IoUBalancedSampler()` is that of Libra R-CNN.
        coder: how boxes are written as deltas; `DeltaCoder` with weights (10, 10, 5, 5) by default.
        append_objects: whether the objects' own boxes are among the regions that are sampled.

    Raises:
        ValueError: a loss that does not fit its slot, a negative weight or an unknown `background`.

    Example:
        >>> head = RoIHead()
        >>> targets = [{"boxes": torch.tensor([[0.0, 0, 16, 16]]), "labels": torch.tensor([1])}]
        >>> regions = head.sample([torch.tensor([[32.0, 0, 48, 16]])], targets)
        >>> regions.boxes[0]
        tensor([[32.,  0., 48., 16.],
                [ 0.,  0., 16., 16.]])
        >>> head(RoIOutputs(torch.zeros(2, 3), torch.zeros(2, 1, 4), regions), targets)
        LossTerms({'class': tensor(1.0986), 'box': tensor(0.)})

    Note:
        Proposals are constants: assignment, sampling, encoded targets and the regions that deltas refer to are outside
        the graph. torchvision has β = 1/9, detectron2 L1 (``box_loss=l1_loss``), and detectron2 and mmdetection put
        the background last. Fast R-CNN took 128 regions, and as background only those that overlap an object by 0.1 or
        more: ``RandomSampler(128, 0.25)`` does the first.

    Reference:
        Girshick, "Fast R-CNN", 2015, arXiv 1504.08083, equations 1 to 3; Ren et al., "Faster R-CNN", 2015,
        arXiv 1506.01497.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = cross_entropy,
        box_loss: LossFunction = smooth_l1_loss,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        regression: Regression | None = None,
        background: Background = "first",
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
        assigner: Callable[[Tensor, Mapping[str, Tensor]], Assignment] | None = None,
        sampler: RandomSampler | IoUBalancedSampler | None = None,
        coder: DeltaCoder | None = None,
        append_objects: bool = True,
    ) -> None:
        super().__init__(
            class_loss=class_loss,
            box_loss=box_loss,
            regression=regression,
            class_weight=class_weight,
            box_weight=box_weight,
            background=background,
            normalizer=normalizer,
        )
        self.assigner = assigner or MaxIoU.roi()
        self.sampler = sampler or RandomSampler.roi()
        self.coder = coder or DeltaCoder((10.0, 10.0, 5.0, 5.0))
        self.append_objects = append_objects

    @torch.no_grad()
    def assign(self, boxes: Sequence[Tensor], targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each of its regions ``(R_b, 4)`` answers for."""
        check_targets(targets, len(boxes))
        return [self.assigner(regions, target) for regions, target in zip(boxes, targets, strict=True)]

    @torch.no_grad()
    def sample(
        self, proposals: Sequence[Tensor], targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> Regions:
        """Return the regions to train on: a sample of the proposals and the objects themselves.

        Args:
            proposals: of each image ``(N_b, 4)`` xyxy pixels; they are detached.
            targets: as in `forward`.
            generator: of the random numbers that sampling takes; None takes torch's default.
        """
        check_targets(targets, len(proposals))
        boxes = [upcast(proposal)[0] for proposal in proposals]
        if self.append_objects:
            boxes = [torch.cat((one, _objects(target, one))) for one, target in zip(boxes, targets, strict=True)]
        assignments = [
            self._draw(assignment, one, target, generator)
            for assignment, one, target in zip(self.assign(boxes, targets), boxes, targets, strict=True)
        ]
        kept = [~assignment.ignored for assignment in assignments]
        return Regions(
            [one[rows] for one, rows in zip(boxes, kept, strict=True)],
            [Assignment(one.matched[rows], one.state[rows]) for one, rows in zip(assignments, kept, strict=True)],
        )

    def _draw(
        self, assignment: Assignment, boxes: Tensor, target: Target, generator: torch.Generator | None
    ) -> Assignment:
        if isinstance(self.sampler, RandomSampler):
            return self.sampler(assignment, generator=generator)
        overlaps = highest_iou(boxes, ordered_objects(target, boxes.dtype).boxes)
        return self.sampler(assignment, overlaps, generator=generator)

    def forward(self, outputs: RoIOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class`` and ``box``.

        Args:
            outputs: for regions of a batch of B images. Regions without assignments are assigned and all trained.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0, optionally ``iscrowd`` (G,),
                on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        regions, logits = outputs.regions, outputs.class_logits
        check_targets(targets, len(regions.boxes))
        assignments = regions.assignments or self.assign(regions.boxes, targets)
        positives = gather_positives(assignments, targets, outputs.deltas)
        trained = [float((~assignment.ignored).sum()) for assignment in assignments]
        scale = self.normalizer(upcast(logits.detach())[0].new_tensor(trained))
        image = torch.arange(len(targets), device=logits.device).repeat_interleave(_lengths(regions, logits))
        index = [
            class_indices(assignment, target["labels"], logits, self.background)
            for assignment, target in zip(assignments, targets, strict=True)
        ]
        every_index = torch.cat([image.new_empty(0), *index])
        return LossTerms(
            {
                "class": self.class_term(logits, every_index, scale, scale.weight_of(image)),
                "box": self.box_term(self._pairs(outputs, positives), positives, scale),
            }
        )

    def _pairs(self, outputs: RoIOutputs, positives: Positives) -> BoxPairs:
        """Return the predictions of the positives, each for its own class, and their objects."""
        lengths = _lengths(outputs.regions, outputs.deltas)
        rows = (lengths.cumsum(0) - lengths)[positives.image] + positives.prediction
        deltas = outputs.deltas[rows, self._column(outputs, positives.labels)]
        regions = torch.cat([outputs.deltas.new_empty((0, 4)), *outputs.regions.boxes])[rows].detach()
        encoded_boxes = self.coder.encode(positives.boxes, regions)
        return BoxPairs(self.coder.decode(deltas, regions), positives.boxes, deltas, encoded_boxes)

    def _column(self, outputs: RoIOutputs, labels: Tensor) -> Tensor:
        """Return which of the boxes of a region belongs to a class."""
        boxes, classes = outputs.deltas.shape[1], outputs.class_logits.shape[1]
        if boxes == classes and self.background == "first":
            return labels + 1
        return torch.zeros_like(labels) if boxes == 1 else labels

    @torch.no_grad()
    def decode(
        self,
        outputs: RoIOutputs,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        *,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_candidates: int = 10_000,
        max_detections: int = 100,
        nms: NMS | None = batched_nms,
    ) -> list[Detections]:
        """Return the detections of each image: ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels`` (D,).

        The score is the softmax of the class.

        Args:
            outputs: for regions of a batch of B images.
            image_sizes: height and width of each image in pixels, to which boxes are clipped; None clips nothing.
            score_threshold: scores must be above it.
            iou_threshold: of non-maximum suppression within a class.
            max_candidates: pairs of region and class of an image, highest score first, that are decoded.
            max_detections: detections that are returned for an image.
            nms: a function with the arguments of `lossatlas.boxes.nms.batched_nms`; None suppresses nothing.
        """
        images = len(outputs.regions.boxes)
        if image_sizes is not None and len(image_sizes) != images:
            raise ValueError(f"`image_sizes` must have {images} entries, but has {len(image_sizes)}")
        lengths = list(map(len, outputs.regions.boxes))
        scores = foreground_scores(outputs.class_logits, self.background).split(lengths)
        deltas = outputs.deltas.split(lengths)

        def of_image(image: int) -> Detections:
            def boxes_of(region: Tensor, labels: Tensor) -> Tensor:
                own = deltas[image][region, self._column(outputs, labels)]
                return self.coder.decode(own, outputs.regions.boxes[image][region])

            return select_of_image(
                scores[image],
                boxes_of,
                None if image_sizes is None else image_sizes[image],
                score_threshold=score_threshold,
                iou_threshold=iou_threshold,
                max_candidates=max_candidates,
                max_detections=max_detections,
                nms=nms,
            )

        return [of_image(image) for image in range(images)]


def _objects(target: Target, like: Tensor) -> Tensor:
    """Return the boxes of the objects that are no crowd regions."""
    boxes, crowd = target["boxes"].to(like.dtype), target.get("iscrowd")
    return boxes if crowd is None else boxes[~crowd.bool()]


def _lengths(regions: Regions, like: Tensor) -> Tensor:
    return torch.tensor(list(map(len, regions.boxes)), dtype=torch.int64, device=like.device)
