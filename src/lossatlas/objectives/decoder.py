"""From raw outputs to detections, written once for the objectives that say what scores and boxes outputs stand for."""

import functools
from collections.abc import Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from lossatlas.boxes.nms import batched_nms
from lossatlas.objectives.dense import NMS, Detections, Voting, select_detections

AnyOutputs = TypeVar("AnyOutputs")


class Decoding(NamedTuple):
    """What `DetectionDecoder.decode` takes where nothing else is said."""

    score_threshold: float = 0.05
    iou_threshold: float = 0.6
    max_candidates: int = 1000
    max_detections: int = 100


class DetectionDecoder(Generic[AnyOutputs]):
    """From raw outputs to detections, for objectives that say what scores and boxes the outputs stand for."""

    decoding: ClassVar[Decoding] = Decoding()
    """Limits that are usual for the detector."""

    def scores(self, outputs: AnyOutputs) -> Tensor:
        """Return the ``(B, P, C)`` scores from 0 to 1."""
        raise NotImplementedError

    def boxes(self, outputs: AnyOutputs, image: int, prediction: Tensor) -> Tensor:
        """Return the ``(K, 4)`` xyxy boxes of the given predictions ``(K,)`` of an image of the batch."""
        raise NotImplementedError

    def variances(self, outputs: AnyOutputs, image: int, prediction: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the ``(K, 4)`` variances of the coordinates of `boxes`, None if the network says nothing of them."""
        return None

    @torch.no_grad()
    def decode(
        self,
        outputs: AnyOutputs,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_candidates: int | None = None,
        max_detections: int | None = None,
        nms: NMS | None = batched_nms,
        voting: Voting | None = None,
    ) -> list[Detections]:
        """Return the detections of each image: ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels`` (D,).

        Args:
            outputs: of a batch of B images.
            image_sizes: height and width of each image in pixels, to which boxes are clipped; None clips nothing.
            score_threshold: scores must be above it; None, here and below, takes what `decoding` says.
            iou_threshold: of non-maximum suppression within a class.
            max_candidates: pairs of prediction and class of an image, highest score first, that are decoded. Some
                other implementations take as many from each level or of each class.
            max_detections: detections that are returned for an image.
            nms: a function with the arguments of `lossatlas.boxes.nms.batched_nms`, such as `soft_nms` or
                torchvision's; None suppresses nothing.
            voting: moves the boxes that are kept by the variances that the network puts out, such as
                `lossatlas.boxes.voting.vote_boxes`; None moves none. FCOS and RetinaNet take variances.

        Raises:
            ValueError: a limit out of its range, another number of sizes than of images, or a `voting` without
                variances.
        """
        limits = self.decoding
        return select_detections(
            self.scores(outputs),
            functools.partial(self.boxes, outputs),
            image_sizes,
            score_threshold=limits.score_threshold if score_threshold is None else score_threshold,
            iou_threshold=limits.iou_threshold if iou_threshold is None else iou_threshold,
            max_candidates=limits.max_candidates if max_candidates is None else max_candidates,
            max_detections=limits.max_detections if max_detections is None else max_detections,
            nms=nms,
            variance=functools.partial(self.variances, outputs),
            voting=voting,
        )
