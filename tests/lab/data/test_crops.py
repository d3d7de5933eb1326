"""People cut out of their images, and limbs that join all keypoints."""

import torch
from torch import Tensor

from lossatlas.lab.data.crops import MARGIN, SIDE, one_person_each
from lossatlas.lab.data.dataset import ImageRecord, ObjectRow, fingerprint
from lossatlas.lab.data.limbs import connect_limbs
from lossatlas.lab.data.pose import PoseData, PoseRecord, PoseSplit
from lossatlas.targets.skeletons import Skeleton


class PairSplit(PoseSplit):
    """An image of 100 x 80 with two people, an unlabelled one and a crowd; red is the column, green the row."""

    def __init__(self, name: str, people: int) -> None:
        boxes = [(10.0, 20.0, 30.0, 60.0), (70.0, 50.0, 100.0, 80.0), (0.0, 0.0, 9.0, 9.0), (40.0, 0.0, 60.0, 20.0)]
        rows = [ObjectRow(box, 0, number == 3, 100.0) for number, box in enumerate(boxes)]
        keypoints = [
            [[12.5, 22.5, 2], [28.5, 58.5, 1]],
            [[90.5, 70.5, 2], [0, 0, 0]],
            [[0, 0, 0]] * 2,
            [[50, 10, 2]] * 2,
        ]
        record = ImageRecord.from_rows(7, "pair.png", 100, 80, rows[:people])
        super().__init__(name, ["person"], [PoseRecord.of(record, keypoints[:people], 2)])
        self.skeleton = Skeleton("person", ("head", "foot"), ((0, 1),))

    def image(self, index: int) -> Tensor:
        column, row = torch.arange(100).expand(80, 100), torch.arange(80)[:, None].expand(80, 100)
        return torch.stack((column, row, torch.full_like(row, 200))).to(torch.uint8)

    def image_digest(self, index: int) -> bytes:
        return b"pair"


def data(people: int) -> PoseData:
    splits = PairSplit("train", people), PairSplit("test", people)
    return PoseData("pairs", *splits, ("person",), fingerprint(splits))


def test_images_of_one_person_stay_as_they_are() -> None:
    whole = data(people=1)
    assert one_person_each(whole) is whole


def test_people_with_keypoints_are_cut_out() -> None:
    cut = one_person_each(data(people=4))
    assert (cut.name, len(cut.train), len(cut.test)) == ("pairs, people cut out", 2, 2)
    assert [record.file_name for record in cut.train.records] == ["pair.png person 1", "pair.png person 2"]
    assert [record.keypoints[0, :, 2].tolist() for record in cut.train.records] == [[2, 1], [2, 0]]
    assert cut.fingerprint != data(people=4).fingerprint


def test_keypoints_boxes_and_areas_are_in_pixels_of_the_cut() -> None:
    cut = one_person_each(data(people=4)).train
    first, second = cut[0], cut[1]
    assert first.image.shape == (3, SIDE, SIDE)
    factor = SIDE / (MARGIN * 40)
    torch.testing.assert_close(
        first.target["boxes"][0, 2:] - first.target["boxes"][0, :2], torch.tensor([20, 40]) * factor
    )
    torch.testing.assert_close(first.target["area"], torch.tensor([100 * factor**2]))
    for sample, original in ((first, [12.5, 22.5]), (second, [90.5, 70.5])):
        x, y = sample.target["keypoints"][0, 0, :2].tolist()
        red, green, blue = sample.image[:, int(y), int(x)].tolist()
        assert abs(red + 0.5 - original[0]) <= 1
        assert abs(green + 0.5 - original[1]) <= 1
        assert blue == 200


def test_a_cut_is_black_beyond_the_image() -> None:
    second = one_person_each(data(people=4)).train[1]
    assert second.image[2, -1, -1] == 0
    assert second.image[2, 0, 0] == 200


def test_limbs_in_one_piece_stay_as_they_are() -> None:
    people = torch.rand(3, 4, 3) + torch.tensor([0.0, 0.0, 1.0])
    assert connect_limbs([(3, 1), (1, 0), (0, 2)], people) == ((3, 1), (1, 0), (0, 2))


def test_the_shortest_limbs_join_the_pieces() -> None:
    """The median of the labelled lengths counts, and a length to what is not labelled does not."""
    people = torch.tensor(
        [
            [[0.0, 0, 2], [10, 0, 2], [11, 0, 2], [40, 0, 2]],
            [[0.0, 0, 2], [10, 0, 2], [13, 0, 2], [16, 0, 0]],
            [[0.0, 0, 2], [10, 0, 2], [15, 0, 2], [40, 0, 2]],
        ]
    )
    assert connect_limbs([(0, 1)], people) == ((0, 1), (1, 2), (2, 3))


def test_what_is_never_labelled_is_not_joined() -> None:
    people = torch.tensor([[[0.0, 0, 2], [10, 0, 2], [11, 0, 0]]])
    assert connect_limbs([], people) == ((0, 1),)
