"""Data for pose: images of people or animals with their keypoints, in two splits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lossatlas.lab.data.dataset import Data, DetectionSplit, ImageRecord
from lossatlas.lab.data.skeleton import to_coco
from lossatlas.targets.skeletons import Skeleton


@dataclass(frozen=True)
class PoseRecord(ImageRecord):
    """What is known of an image and the keypoints of its objects without decoding it.

    Args:
        keypoints: (G, K, 3) float32: x and y in pixels and 0 if not labelled, 1 if labelled but hidden, 2 if seen.
    """

    keypoints: Tensor

    def content(self) -> Iterable[bytes]:
        """The objects with their keypoints."""
        return [*super().content(), self.keypoints.numpy().tobytes()]

    @classmethod
    def of(cls, record: ImageRecord, keypoints: Any, count: int) -> "PoseRecord":
        """A record with the keypoints of its objects, `count` each; x and y become 0 where nothing is labelled.

        Example:
            >>> from lossatlas.lab.data.dataset import ObjectRow
            >>> record = ImageRecord.from_rows(1, "a.png", 32, 32, [ObjectRow((0, 0, 9, 9), 0, False, 81.0)])
            >>> PoseRecord.of(record, [[[4, 5, 2], [7, 7, 0]]], count=2).keypoints.tolist()
            [[[4.0, 5.0, 2.0], [0.0, 0.0, 0.0]]]
        """
        points = torch.as_tensor(keypoints, dtype=torch.float32).reshape(-1, count, 3)
        return cls(**vars(record), keypoints=torch.where(points[..., 2:] > 0, points, 0.0))


class PoseSplit(DetectionSplit):
    """One split of a data set for pose: a sequence of samples with the keypoints of people.

    Attributes:
        skeleton: what the keypoints are.
    """

    records: tuple[PoseRecord, ...]
    skeleton: Skeleton

    def target(self, index: int) -> dict[str, Tensor]:
        """Ground truth of an image: ``boxes``, ``labels``, ``iscrowd``, ``area`` and ``keypoints`` (G, K, 3).

        Where the keypoints of a mirror image are known there is ``mirror`` (K,), too, the keypoint that each becomes.
        """
        record = self.records[index]
        target = super().target(index) | {"area": record.areas, "keypoints": record.keypoints}
        return target | {"mirror": torch.tensor(self.skeleton.flip())} if self.skeleton.mirrored else target

    @property
    def coco(self) -> dict[str, list[dict[str, Any]]]:
        """Ground truth in COCO's format, for its evaluators, with keypoints."""
        content = super().coco
        keypoints = (rows for record in self.records for rows in record.keypoints)
        for annotation, rows in zip(content["annotations"], keypoints, strict=True):
            annotation["keypoints"] = rows.flatten().tolist()
            annotation["num_keypoints"] = int((rows[:, 2] > 0).sum())
        for category in content["categories"]:
            category.update(to_coco(self.skeleton))
        return content


PoseData: TypeAlias = Data[PoseSplit]
"""A data set for pose."""
