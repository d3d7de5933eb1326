"""The people of a batch, and the cells on which nothing is known about people."""

import random

import pytest
import torch

from lossatlas.targets.people import Masked, keypoint_boxes, people_mask, stack_people
from tests.targets.scenes import person


def test_crowds_and_people_without_keypoints_are_left_out() -> None:
    points = torch.tensor([[[1.0, 2, 2], [3, 5, 1]], [[7.0, 7, 0], [8, 8, 0]], [[4.0, 4, 2], [6, 1, 0]]])
    boxes = torch.tensor([[0.0, 0, 4, 8], [1, 1, 2, 2], [0, 0, 9, 9]])
    first = {"keypoints": points, "boxes": boxes, "iscrowd": torch.tensor([0, 0, 1])}
    second = {"keypoints": torch.full((0, 2, 3), 0.0)}
    third = {"keypoints": points[[0, 2]], "area": torch.tensor([5.0, 6.0])}
    people = stack_people([first, second, third])
    assert people.rows.tolist() == [[0, -1], [-1, -1], [0, 1]]
    assert people.keypoints[0].tolist() == [points[0].tolist(), [[0, 0, 0], [0, 0, 0]]]
    assert not people.keypoints[1].any()
    assert people.keypoints[2, 1].tolist() == [[4, 4, 2], [0, 0, 0]]
    assert people.boxes[0].tolist() == [[0, 0, 4, 8], [0, 0, 0, 0]]
    assert people.boxes[2].tolist() == [[1, 2, 3, 5], [4, 4, 4, 4]]
    assert people.areas.tolist() == [[16, 0], [0, 0], [5, 6]]


def test_coordinates_of_what_is_not_labelled_mean_nothing() -> None:
    points = torch.tensor([[[float("nan"), float("inf"), 0.0], [3.0, 4.0, 1.0]]])
    people = stack_people([{"keypoints": points}])
    assert people.keypoints.tolist() == [[[[0, 0, 0], [3, 4, 1]]]]
    assert keypoint_boxes(points).tolist() == [[3, 4, 3, 4]]
    assert keypoint_boxes(torch.zeros(2, 3, 3)).tolist() == [[0.0] * 4] * 2


def test_no_images() -> None:
    people = stack_people([], 17)
    assert (people.keypoints.shape, people.boxes.shape, people.rows.shape) == ((0, 0, 17, 3), (0, 0, 4), (0, 0))
    assert people_mask([], (3, 4), 8).shape == (0, 3, 4)


@pytest.mark.parametrize("masked", ["crowd", "crowd_and_unlabelled"])
@pytest.mark.parametrize("with_masks", [False, True])
def test_the_mask_cell_by_cell(masked: Masked, with_masks: bool) -> None:
    source, (height, width), stride = random.Random(1), (6, 7), 4
    left_out = []
    for _ in range(5):
        points = torch.tensor([[[1.0, 1.0, source.choice([0.0, 2.0])]] for _ in range(4)])
        crowd = torch.tensor([source.random() < 0.3 for _ in range(4)])
        boxes = torch.tensor([[source.uniform(-3, 15), source.uniform(-3, 12), 20, 18] for _ in range(4)])
        # The image ends before the map does.
        pixels = torch.tensor([[[source.random() < 0.4 for _ in range(25)] for _ in range(22)] for _ in range(4)])
        target = {"keypoints": points, "iscrowd": crowd, "boxes": boxes}
        target |= {"masks": pixels} if with_masks else {}
        found = people_mask([target], (height, width), stride, masked=masked)
        for row in range(height):
            for column in range(width):
                x, y = 4 * column + 1.5, 4 * row + 1.5
                hidden = False
                for g in range(4):
                    if not (crowd[g] or (masked == "crowd_and_unlabelled" and points[g, 0, 2] == 0)):
                        continue
                    if with_masks:
                        a, b = int(x + 0.5), int(y + 0.5)
                        hidden |= a < 25 and b < 22 and bool(pixels[g, b, a])
                    else:
                        x1, y1, x2, y2 = boxes[g].tolist()
                        hidden |= x1 <= x < x2 and y1 <= y < y2
                assert bool(found[0, row, column]) != hidden
                left_out.append(hidden)
    assert 0.05 < sum(left_out) / len(left_out) < 0.95


def test_a_person_without_keypoints_and_without_a_region_hides_nothing() -> None:
    assert people_mask([{"keypoints": torch.zeros(1, 3, 3)}], (2, 2), 4).all()


def test_wrong_targets_are_named() -> None:
    good = person((1.0, 2.0))
    with pytest.raises(ValueError, match=r"`targets\[1\]` must have the key 'keypoints', but has \['boxes'\]"):
        stack_people([good, {"boxes": torch.zeros(0, 4)}])
    with pytest.raises(ValueError, match=r"`targets\[1\]\['keypoints'\]` must have shape \(G, 1, 3\), but got \(1, 2"):
        stack_people([good, person((1.0, 2.0), (3.0, 4.0))])
    with pytest.raises(ValueError, match=r"`targets\[0\]\['boxes'\]` must have shape \(1, 4\), but got \(2, 4\)"):
        stack_people([{**good, "boxes": torch.zeros(2, 4)}])
    with pytest.raises(ValueError, match=r"`targets\[0\]\['masks'\]` must have shape \(1, H, W\), but got \(2, 3, 3\)"):
        people_mask([{**good, "masks": torch.zeros(2, 3, 3)}], (2, 2), 4)
    with pytest.raises(TypeError, match=r"`targets\[0\]\['iscrowd'\]` must have an integer dtype"):
        stack_people([{**good, "iscrowd": torch.zeros(1)}])
    with pytest.raises(TypeError, match=r"`targets\[0\]\['keypoints'\]` must have a floating-point dtype"):
        stack_people([{"keypoints": torch.zeros(1, 2, 3, dtype=torch.int64)}])
    with pytest.raises(ValueError, match="`targets` must have at least one entry, or `keypoints` must be given"):
        stack_people([])
    with pytest.raises(ValueError, match="`masked` must be one of 'crowd_and_unlabelled', 'crowd', but got 'all'"):
        people_mask([good], (2, 2), 4, masked="all")  # type: ignore[arg-type]
