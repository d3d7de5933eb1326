"""What YOLOv2 and YOLOv3 share: boxes that are regressed as the numbers that the network puts out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, Unpack, get_args

import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.boxes.formats import convert, normalize
from lossatlas.boxes.yolo_coders import YOLOCoder
from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.classification import binary_cross_entropy_with_logits
from lossatlas.objectives.dense import Positives, Target, check_targets
from lossatlas.objectives.slots import BoxPairs
from lossatlas.objectives.terms import Scale
from lossatlas.objectives.yolo import AnchorCoder, AnchorObjective, Assigner, YOLOAnchorOutputs, YOLOOptions

Center = Literal["cross_entropy", "sigmoid", "logit"]
SizeWeighting = Literal["size", "none"]


@dataclass(frozen=True, eq=False)
class DarknetOutputs(YOLOAnchorOutputs):
    """What a network of YOLOv2's or YOLOv3's kind puts out for a batch of B images, P anchors each and C classes.

    Args:
        class_logits: ``(B, P, C)``, one logit for each anchor and class.
        objectness_logits: ``(B, P)``.
        box_logits: ``(B, P, 4)`` t_x, t_y, t_w, t_h, as the objective's coder encodes them.
        anchors: ``(P, 4)`` xyxy pixels, the same for all images, each in the middle of its cell, as of `yolo_anchors`.
        strides: ``(P,)`` pixels.
        image_size: height and width in pixels of the images that the network was given.

    Raises:
        ValueError: shapes that do not fit together, or an `image_size` that is not above 0.
        TypeError: tensors that are not floating point.
    """

    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_size(self.image_size)


def check_image_size(image_size: tuple[int, int]) -> None:
    """Raise unless `image_size` is a height and a width above 0."""
    for extent in image_size:
        check_number("image_size", extent, above=0)


AnyOutputs = TypeVar("AnyOutputs", bound=DarknetOutputs)


class DarknetObjective(AnchorObjective[AnyOutputs]):
    """Coordinates by numbers: the centre in its cell, the logarithms of the sides, small boxes weighted up to 2."""

    def __init__(
        self,
        *,
        center: Center,
        box_weighting: SizeWeighting,
        assigner: Assigner,
        coder: AnchorCoder | None,
        **options: Unpack[YOLOOptions],
    ) -> None:
        super().__init__(**options)
        check_choice("center", center, get_args(Center))
        check_choice("box_weighting", box_weighting, get_args(SizeWeighting))
        self.center = center
        self.box_weighting = box_weighting
        self.assigner = assigner
        self.coder = coder or YOLOCoder()

    @torch.no_grad()
    def assign(self, outputs: AnyOutputs, targets: Sequence[Target]) -> list[Assignment]:
        """Return, for each image, which object each anchor answers for."""
        check_targets(targets, len(outputs.objectness_logits))
        return [
            self.assigner(outputs.anchors, outputs.strides, target, self.boxes(outputs, image))
            for image, target in enumerate(targets)
        ]

    def terms(
        self,
        outputs: AnyOutputs,
        assignments: Sequence[Assignment],
        positives: Positives,
        pairs: BoxPairs,
        scale: Scale,
    ) -> dict[str, Tensor]:
        """Return the terms ``box``, ``objectness`` and ``class``."""
        weight = self.size_weight(pairs, outputs.image_size)
        logits = outputs.class_logits[positives.image, positives.prediction]
        return {
            "box": self.coordinates_term(pairs, positives, scale, weight),
            "objectness": self.objectness_term(outputs.objectness_logits, assignments, positives, pairs, scale),
            "class": self.class_term(logits, positives, pairs, scale),
        }

    def size_weight(self, pairs: BoxPairs, image_size: tuple[int, int]) -> Tensor | None:
        """Return 2 - w h of the objects ``(N,)``, w and h in fractions of the image, or None for all 1."""
        if self.box_weighting == "none":
            return None
        boxes, _ = upcast(pairs.boxes, pairs.encoded_boxes)
        w, h = convert(normalize(boxes, image_size), "xyxy", "cxcywh")[:, 2:].clamp(0, 1).unbind(1)
        return 2 - w * h

    def coordinates_term(self, pairs: BoxPairs, positives: Positives, scale: Scale, weight: Tensor | None) -> Tensor:
        """Return the weighted regression term over the positives.

        Args:
            pairs: predictions and targets, the encoded ones as logits.
            positives: the positives they belong to.
            scale: what the sum is divided by.
            weight: ``(N,)`` factors of the positives.
        """
        if self.box_loss.regression == "boxes" or self.center == "logit":
            return self.box_term(pairs, positives, scale, weight)
        center, sides = upcast(pairs.encoded)[0].split(2, dim=-1)
        target_center, target_sides = pairs.encoded_boxes.split(2, dim=-1)
        if self.center == "sigmoid":
            numbers = torch.cat((center.sigmoid(), sides), dim=-1)
            target = torch.cat((target_center.sigmoid(), target_sides), dim=-1)
            return self.box_term(pairs._replace(encoded=numbers, encoded_boxes=target), positives, scale, weight)
        factor = scale.weigh(positives.image, weight)
        shift = binary_cross_entropy_with_logits(
            center,
            target_center.sigmoid(),
            weight=None if factor is None else factor[:, None],
            normalizer=scale.denominator,
        )
        rest = pairs._replace(encoded=sides, encoded_boxes=target_sides)
        return self.box_weight * shift + self.box_term(rest, positives, scale, weight)
