"""Skeletons over test images."""

import re

import torch
from torch import Tensor

from lossatlas.lab.data.dataset import ImageRecord, ObjectRow
from lossatlas.lab.data.pose import PoseRecord, PoseSplit
from lossatlas.lab.pictures.skeletons import draw_poses
from lossatlas.targets.skeletons import Skeleton

PEOPLE = [[[10, 10, 2], [20, 10, 2], [0, 0, 0]], [[10, 60, 2], [20, 60, 1], [30, 60, 2]]]


class TwoPeople(PoseSplit):
    def __init__(self) -> None:
        rows = [ObjectRow((0.0, y, 40.0, y + 40), 0, False, 900.0) for y in (0.0, 50.0)]
        record = PoseRecord.of(ImageRecord.from_rows(3, "two.png", 80, 100, rows), PEOPLE, 3)
        super().__init__("test", ["person"], [record])
        self.skeleton = Skeleton("person", ("a", "b", "c"), ((0, 1), (1, 2)))

    def image(self, index: int) -> Tensor:
        return torch.zeros(3, 100, 80, dtype=torch.uint8)

    def image_digest(self, index: int) -> bytes:
        return b""


def found(*people: list[list[float]]) -> list[dict[str, object]]:
    return [{"image_id": 3, "keypoints": [v for point in person for v in point], "score": 1.0} for person in people]


def groups(overlay: str) -> list[tuple[str, int, list[str]]]:
    """Class, number of limbs and outcomes of the keypoints of each person."""
    return [
        (kind, body.count("M") // 2, re.findall(r'class="joint (\w+)"', body))
        for kind, body in re.findall(r'<g class="person (\w+)">(.*?)</g>', overlay)
    ]


def test_the_ground_truth_shows_what_is_labelled() -> None:
    (picture,) = draw_poses(TwoPeople(), {"a": []})
    truth = picture.panels[0]
    assert groups(truth.overlay) == [("p0", 1, ["truth"] * 2), ("p1", 2, ["truth"] * 3)]
    assert truth.caption == "2 skeletons, 5 keypoints"


def test_predictions_have_the_colour_of_their_person_and_errors_are_marked() -> None:
    second = [[10, 61, 0.9], [20, 60, 0.9], [38, 60, 0.9]]
    first = [[10, 10, 0.8], [20, 10, 0.0], [50, 50, 0.8]]
    stranger = [[70, 90, 0.5], [75, 90, 0.5], [75, 95, 0.5]]
    (picture,) = draw_poses(TwoPeople(), {"a": found(second, first, stranger)})
    panel = picture.panels[1]
    assert groups(panel.overlay) == [
        ("p1", 2, ["right", "right", "wrong"]),
        ("p0", 0, ["right", "wrong"]),  # b was not found, and there is no c to find
        ("nobody", 2, ["wrong"] * 3),
    ]
    missed = re.findall(r'<circle class="joint missed" cx="([\d.]+)" cy="([\d.]+)"', panel.overlay)
    assert missed == [("20.0", "10.0"), ("30.0", "60.0")]
    assert panel.caption == "3 right, 2 wrong or missed"


def test_nobody_found() -> None:
    (picture,) = draw_poses(TwoPeople(), {"a": []})
    assert groups(picture.panels[1].overlay) == []
    assert picture.panels[1].caption == "0 right, 5 wrong or missed"
