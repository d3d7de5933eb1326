"""One picture for each person, for objectives that find one: cut out of the image around the person's box."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas.lab.data.dataset import ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit

SIDE = 192
"""Height and width of a cut in pixels."""
MARGIN = 1.25
"""Side of what is cut out, in longest sides of the person's box."""


class CropSplit(PoseSplit):
    """People with a labelled keypoint, each in a picture of its own; who else is seen there is no target.

    Args:
        base: the images that they are cut out of.
    """

    def __init__(self, base: PoseSplit) -> None:
        self._base = base
        self._cuts: list[tuple[int, int, int, int]] = []  # image; left, top and side of the square
        records = []
        for index, record in enumerate(base.records):
            for person in range(len(record.keypoints)):
                if not record.iscrowd[person] and bool((record.keypoints[person, :, 2] > 0).any()):
                    left, top, side = _square(record.boxes[person])
                    self._cuts.append((index, left, top, side))
                    records.append(_cut(record, person, (left, top, side), len(self._cuts)))
        super().__init__(base.name, base.class_names, records)
        self.skeleton = base.skeleton

    def image(self, index: int) -> Tensor:
        """Pixels of a cut, (3, H, W) uint8, black where it reaches beyond the image."""
        image, left, top, side = self._cuts[index]
        whole = self._base.image(image)
        height, width = whole.shape[1:]
        inside = whole[:, max(0, top) : top + side, max(0, left) : left + side]
        beyond = (max(0, -left), max(0, left + side - width), max(0, -top), max(0, top + side - height))
        square = F.pad(inside, beyond)[None]
        return F.interpolate(square, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0]

    def image_digest(self, index: int) -> bytes:
        """What is cut out of which image."""
        return repr(self._cuts[index]).encode() + self._base.image_digest(self._cuts[index][0])


def _square(box: Tensor) -> tuple[int, int, int]:
    """Left, top and side of the square that is cut out around a box, in whole pixels; it overlaps the image."""
    x1, y1, x2, y2 = box.tolist()
    side = max(1, round(MARGIN * max(x2 - x1, y2 - y1)))
    return round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2), side


def _cut(record: PoseRecord, person: int, square: tuple[int, int, int], number: int) -> PoseRecord:
    left, top, side = square
    factor = SIDE / side
    corner = torch.tensor([left, top], dtype=torch.float32)
    x1, y1, x2, y2 = ((record.boxes[person].view(2, 2) - corner) * factor).flatten().tolist()
    keypoints = record.keypoints[person].clone()
    keypoints[:, :2] = (keypoints[:, :2] - corner) * factor
    row = ObjectRow((x1, y1, x2, y2), int(record.labels[person]), False, float(record.areas[person]) * factor**2)
    cut = ImageRecord.from_rows(number, f"{record.file_name} person {person + 1}", SIDE, SIDE, [row])
    return PoseRecord.of(cut, keypoints[None], len(keypoints))


def one_person_each(data: PoseData) -> PoseData:
    """Return data whose images show one person each: as it is, if it is such data, and cuts of people otherwise.

    Args:
        data: for pose.

    Returns:
        The data, with pixels of the cuts as unit where people were cut out.
    """
    if all(len(record.keypoints) <= 1 for split in (data.train, data.test) for record in split.records):
        return data
    splits = CropSplit(data.train), CropSplit(data.test)
    return replace(
        data, name=f"{data.name}, people cut out", train=splits[0], test=splits[1], fingerprint=fingerprint(splits)
    )
