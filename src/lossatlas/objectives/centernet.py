"""CenterNet: a heatmap of object centres for each class, and size and offset of the box at each centre."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lossatlas.assign import Assignment, CenterHeatmap, CenterTargets
from lossatlas.assign.center_heatmap import Radius, SharedCell
from lossatlas.boxes.formats import convert
from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.quality import gaussian_focal_loss
from lossatlas.losses.regression import l1_loss
from lossatlas.objectives.dense import (
    NMS,
    BoxObjective,
    Detections,
    Positives,
    Target,
    check_predictions,
    check_targets,
    select_detections,
)
from lossatlas.objectives.slots import IGNORE, BoxPairs, ClassTarget, HeatmapLoss, LossFunction, Regression
from lossatlas.objectives.terms import LossTerms, NormalizerMode, PositiveNormalizer, Scale

BoxMean = Literal["objects", "coordinates"]


@dataclass(frozen=True, eq=False)
class CenterNetOutputs:
    """What a network of CenterNet's kind puts out for a batch of B images, C classes and a grid of H x W cells.

    Args:
        heatmap_logits: ``(B, C, H, W)``, one logit for each class and cell.
        sizes: ``(B, 2, H, W)`` width and height of the box, in cells.
        offsets: ``(B, 2, H, W)`` x and y of the centre from the corner of its cell, in cells: 0 to 1 where it fits.
        stride: pixels between two cells; 4 in the paper.

    Raises:
        ValueError: shapes that do not fit together, or a `stride` that is not above 0.
        TypeError: tensors that are not floating point.
    """

    heatmap_logits: Float[Tensor, "b c h w"]
    sizes: Float[Tensor, "b 2 h w"]
    offsets: Float[Tensor, "b 2 h w"]
    stride: float = 4.0

    def __post_init__(self) -> None:
        for name in ("heatmap_logits", "sizes", "offsets"):
            check_floating(name, getattr(self, name))
        check_predictions("heatmap_logits", self.heatmap_logits, (None, None, None, None), "B C H W")
        images, _, height, width = self.heatmap_logits.shape
        for name in ("sizes", "offsets"):
            check_predictions(name, getattr(self, name), (images, 2, height, width), "B 2 H W")
        check_number("stride", self.stride, above=0)


class CenterNet(BoxObjective):
    """The training objective of CenterNet, without a network.

    Formula:
        class  = 1/K Σ over classes and cells: class_loss(logit, Y),  Y: heatmap of the objects' gaussians
        size   = 1/N Σ over objects: box_loss((w, h) at the centre's cell, sides / stride)
        offset = 1/N Σ over objects: box_loss((x, y) at the centre's cell, centre / stride - ⌊centre / stride⌋)
        or, where `box_loss` takes boxes, in place of size and offset
        box    = 1/N Σ over objects: box_loss(box at the centre's cell, object)
        K: number of peaks of Y, N: number of objects that are regressed, both at least 1

    Args:
        class_loss: slot of the heatmaps; `gaussian_focal_loss` with α = 2, β = 4 by default. It, and a loss of
            qualities such as `quality_focal_loss`, gets the gaussians; a loss of yes/no targets, such as
            `sigmoid_focal_loss`, gets 1 at the peaks and 0 elsewhere.
        box_loss: slot of the regression; `l1_loss` by default. An elementwise loss gets sizes and offsets in cells, a
            loss of boxes decoded boxes in pixels and the objects' boxes.
        class_weight: factor of the class term.
        size_weight: factor of the size term.
        offset_weight: factor of the offset term.
        box_weight: factor of the box term.
        box_mean: ``"objects"``, N in the formula as in the paper, or ``"coordinates"``, 2 N in size and offset as in
            the authors' code, whose 2 N + 10⁻⁴ never is 0, and in mmdetection.
        radius: ``"fixed"`` or ``"cornernet"``, the published code, see `gaussian_radius`.
        min_overlap: see `gaussian_radius`.
        shared_cell: which of several objects with their centres in one cell is regressed: ``"both"``, ``"smallest"``
            or ``"last"``, see `CenterHeatmap`.
        class_target: ``"quality"`` for the gaussians or ``"binary"``; None reads it from the catalogue.
        regression: ``"boxes"`` or ``"encoded"``, what `box_loss` is given; None reads it from the catalogue.
        normalizer: a mode of `PositiveNormalizer`, or one; N is normalised in the same mode, with a state of its own.

    Raises:
        ValueError: a loss that does not fit its slot, a number out of its range or an unknown option.

    Example:
        >>> maps = torch.zeros(1, 2, 8, 8)
        >>> targets = [{"boxes": torch.tensor([[4.0, 4, 16, 12]]), "labels": torch.tensor([1])}]
        >>> CenterNet()(CenterNetOutputs(torch.full((1, 3, 8, 8), -2.0), maps, maps), targets)
        LossTerms({'class': tensor(1.9946), 'size': tensor(0.5000), 'offset': tensor(0.5000)})

    Note:
        The heatmap and what it says of the objects are outside the graph. Cells in a crowd region are left out of the
        class term, except peaks. An object without an area or with its centre outside the grid has no peak. In a batch
        without objects size and offset are 0, the class term is the sum over the background, as in the authors' code,
        and every output still gets a (zero) gradient.

    Reference:
        Zhou et al., "Objects as Points", 2019, arXiv 1904.07850, equations 1 to 4.
    """

    def __init__(
        self,
        *,
        class_loss: LossFunction = gaussian_focal_loss,
        box_loss: LossFunction = l1_loss,
        class_weight: float = 1.0,
        size_weight: float = 0.1,
        offset_weight: float = 1.0,
        box_weight: float = 1.0,
        box_mean: BoxMean = "objects",
        radius: Radius = "fixed",
        min_overlap: float = 0.7,
        shared_cell: SharedCell = "both",
        class_target: ClassTarget | None = None,
        regression: Regression | None = None,
        normalizer: NormalizerMode | PositiveNormalizer = "batch",
    ) -> None:
        super().__init__(box_loss=box_loss, regression=regression, box_weight=box_weight, normalizer=normalizer)
        for name, weight in (("class", class_weight), ("size", size_weight), ("offset", offset_weight)):
            check_number(f"{name}_weight", weight, at_least=0)
        check_choice("box_mean", box_mean, get_args(BoxMean))
        self.class_loss = HeatmapLoss(class_loss, class_target)
        self.class_weight = class_weight
        self.size_weight = size_weight
        self.offset_weight = offset_weight
        self.box_mean = box_mean
        self.drawing = CenterHeatmap(1, radius, min_overlap, shared_cell)
        self.box_normalizer = self.normalizer.with_floor(self.normalizer.floor)

    @torch.no_grad()
    def center_targets(self, outputs: CenterNetOutputs, targets: Sequence[Target]) -> list[CenterTargets]:
        """Return, for each image, the heatmaps of its objects and their cells."""
        images, classes, height, width = outputs.heatmap_logits.shape
        check_targets(targets, images)
        drawing = replace(self.drawing, num_classes=classes)
        return [drawing((height, width), outputs.stride, target) for target in targets]

    def assign(self, outputs: CenterNetOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each cell answers for, row by row.

        Of two objects that share a cell and are both regressed it names the smaller one.
        """
        return [target.to_assignment() for target in self.center_targets(outputs, targets)]

    def forward(self, outputs: CenterNetOutputs, targets: Sequence[Target]) -> LossTerms:
        """Return the terms ``class``, ``size`` and ``offset``, or ``class`` and ``box``.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``boxes`` (G, 4) xyxy pixels, ``labels`` (G,) from 0 and below C, optionally
                ``iscrowd`` (G,), on the device of the outputs.

        Raises:
            ValueError: another number of targets, or a target whose shapes do not fit.
        """
        drawn = self.center_targets(outputs, targets)
        return LossTerms(
            {"class": self._class_term(outputs.heatmap_logits, drawn), **self._box_terms(outputs, targets, drawn)}
        )

    def _class_term(self, logits: Tensor, drawn: Sequence[CenterTargets]) -> Tensor:
        heatmap = torch.stack([target.heatmap for target in drawn]) if drawn else torch.zeros_like(logits)
        peaks = heatmap == 1
        if self.class_loss.target == "binary":
            heatmap = peaks.to(heatmap.dtype)
        for image, target in enumerate(drawn):
            heatmap[image].masked_fill_(target.ignored & ~peaks[image], IGNORE)
        scale = self.normalizer(peaks.flatten(1).sum(1).to(torch.promote_types(logits.dtype, torch.float32)))
        weight = None if scale.image_weight is None else scale.image_weight[:, None, None, None]
        loss: Tensor = self.class_loss(logits, heatmap, weight=weight, normalizer=scale.denominator)
        return self.class_weight * loss

    def _box_terms(
        self, outputs: CenterNetOutputs, targets: Sequence[Target], drawn: Sequence[CenterTargets]
    ) -> dict[str, Tensor]:
        centers = _gather_centers(drawn, targets, outputs.sizes)
        scale = self.box_normalizer(centers.counts)
        image, cell = centers.image, centers.prediction
        if self.box_loss.regression == "boxes":
            predicted = _boxes_at(outputs, image, cell)
            return {"box": self.box_weight * self._mean(predicted, centers.boxes, centers, scale)}
        if self.box_mean == "coordinates":
            scale = scale._replace(denominator=2 * scale.denominator)
        center, sides = (convert(centers.boxes, "xyxy", "cxcywh") / outputs.stride).split(2, dim=1)
        offset = center - _corners(cell, outputs)

        return {
            "size": self.size_weight * self._mean(outputs.sizes.flatten(2)[image, :, cell], sides, centers, scale),
            "offset": self.offset_weight
            * self._mean(outputs.offsets.flatten(2)[image, :, cell], offset, centers, scale),
        }

    def _mean(self, input: Tensor, target: Tensor, centers: Positives, scale: Scale) -> Tensor:
        pairs = BoxPairs(input, target, input, target)
        loss: Tensor = self.box_loss(pairs, weight=scale.weight_of(centers.image), normalizer=scale.denominator)
        return loss

    @torch.no_grad()
    def decode(
        self,
        outputs: CenterNetOutputs,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        *,
        score_threshold: float = 0.0,
        iou_threshold: float = 0.5,
        max_candidates: int = 1000,
        max_detections: int = 100,
        nms: NMS | None = None,
    ) -> list[Detections]:
        """Return the detections of each image: ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels`` (D,).

        They are the peaks of each class, the cells that are not below any of their 8 neighbours, highest first. The
        score is σ(logit). Negative sizes count as 0.

        Args:
            outputs: of a batch of B images.
            image_sizes: height and width of each image in pixels, to which boxes are clipped; None clips nothing.
            score_threshold: scores must be above it.
            iou_threshold: of `nms`.
            max_candidates: peaks of an image, highest first, that enter `nms`.
            max_detections: detections that are returned for an image.
            nms: None for none, as in the paper, or a function with the arguments of
                `lossatlas.boxes.nms.batched_nms`, such as torchvision's.
        """
        valid = replace(outputs, sizes=outputs.sizes.clamp(min=0))

        def boxes_of(image: int, cell: Tensor) -> Tensor:
            return _boxes_at(valid, torch.full_like(cell, image), cell)

        (logits,) = upcast(outputs.heatmap_logits)
        # Logits and not scores: two logits of 20 and 30 have the same score, but only one is a peak.
        peaks = F.max_pool2d(logits, 3, stride=1, padding=1) == logits
        return select_detections(
            torch.where(peaks, logits.sigmoid(), 0).flatten(2).transpose(1, 2),
            boxes_of,
            image_sizes,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_candidates=max_candidates,
            max_detections=max_detections,
            nms=nms,
        )


def _gather_centers(drawn: Sequence[CenterTargets], targets: Sequence[Target], like: Tensor) -> Positives:
    """Return the objects of a batch that are regressed, each with its cell."""
    image = [torch.full_like(target.cells, index) for index, target in enumerate(drawn)]
    dtype = torch.promote_types(like.dtype, torch.float32)
    none = like.new_empty(0, dtype=torch.int64)
    return Positives(
        torch.cat([none, *image]),
        torch.cat([none, *(target.cells for target in drawn)]),
        torch.cat(
            [
                like.new_empty((0, 4), dtype=torch.float32),
                *(upcast(target["boxes"][one.matched])[0] for one, target in zip(drawn, targets, strict=True)),
            ]
        ),
        torch.cat([none, *(target["labels"][one.matched] for one, target in zip(drawn, targets, strict=True))]),
        like.new_tensor([len(target.cells) for target in drawn], dtype=dtype),
    )


def _corners(cell: Tensor, outputs: CenterNetOutputs) -> Tensor:
    """Return column and row of each cell, ``(N, 2)``."""
    width = max(outputs.sizes.shape[3], 1)
    return torch.stack((cell % width, cell // width), dim=1)


def _boxes_at(outputs: CenterNetOutputs, image: Tensor, cell: Tensor) -> Tensor:
    """Return the xyxy boxes in pixels that the given cells predict, ``(N, 4)``."""
    sizes, offsets = upcast(*(maps.flatten(2)[image, :, cell] for maps in (outputs.sizes, outputs.offsets)))
    boxes = torch.cat((_corners(cell, outputs) + offsets, sizes), dim=1)
    return convert(boxes * outputs.stride, "cxcywh", "xyxy")
