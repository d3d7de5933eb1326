"""The assignment result, its encodings, and the order of objects."""

import itertools

import pytest
import torch

from lossatlas.assign import Assignment, canonical_order
from lossatlas.assign.assignment import check_target

ASSIGNMENT = Assignment(torch.tensor([1, -1, -1, 0]), torch.tensor([1, 0, -1, 1], dtype=torch.int8))


def test_masks_part_the_predictions() -> None:
    assert ASSIGNMENT.positive.tolist() == [True, False, False, True]
    assert ASSIGNMENT.negative.tolist() == [False, True, False, False]
    assert ASSIGNMENT.ignored.tolist() == [False, False, True, False]
    assert len(ASSIGNMENT) == 4


def test_encodings_of_other_libraries() -> None:
    assert ASSIGNMENT.to_mmdetection().tolist() == [2, 0, -1, 1]
    assert ASSIGNMENT.to_torchvision().tolist() == [1, -1, -2, 0]
    matches, labels = ASSIGNMENT.to_detectron2()
    assert matches.tolist() == [1, 0, 0, 0]
    assert labels.tolist() == [1, 0, -1, 1]
    assert (matches.dtype, labels.dtype) == (torch.int64, torch.int8)


def test_encodings_read_back() -> None:
    back = (
        Assignment.from_mmdetection(ASSIGNMENT.to_mmdetection()),
        Assignment.from_torchvision(ASSIGNMENT.to_torchvision()),
        Assignment.from_detectron2(*ASSIGNMENT.to_detectron2()),
        # detectron2 names a best object for every prediction, and its labels come in other integer dtypes too.
        Assignment.from_detectron2(torch.tensor([1, 3, 2, 0]), torch.tensor([1, 0, -1, 1])),
    )
    for assignment in back:
        assert torch.equal(assignment.matched, ASSIGNMENT.matched)
        assert torch.equal(assignment.state, ASSIGNMENT.state)


def test_empty() -> None:
    empty = Assignment.from_mmdetection(torch.zeros(0, dtype=torch.int64))
    assert len(empty) == 0
    assert empty.to_torchvision().shape == (0,)


def test_wrong_tensors_are_named() -> None:
    with pytest.raises(ValueError, match=r"`matched` and `state` must both have shape \(P,\)"):
        Assignment(torch.zeros(3, dtype=torch.int64), torch.zeros(2, dtype=torch.int8))
    with pytest.raises(TypeError, match="`matched` must be int64 and `state` int8"):
        Assignment(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))


def test_canonical_order_is_area_then_coordinates_then_label() -> None:
    rows = [
        ([0.0, 0.0, 2.0, 2.0], 5),
        ([0.0, 0.0, 2.0, 2.0], 7),
        ([0.0, 0.0, 4.0, 1.0], 0),
        ([0.0, 1.0, 2.0, 3.0], 0),
        ([9.0, 9.0, 9.0, 12.0], 1),  # no area
    ]
    boxes, labels = torch.tensor([box for box, _ in rows]), torch.tensor([label for _, label in rows])
    assert canonical_order(boxes, labels).tolist() == [4, 0, 1, 2, 3]
    for permutation in itertools.permutations(range(5)):
        order = canonical_order(boxes[list(permutation)], labels[list(permutation)])
        assert [permutation[row] for row in order.tolist()] == [4, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ({"boxes": torch.zeros(0, 4)}, ValueError, "must have the key 'labels', but has"),
        (
            {"boxes": torch.zeros(0), "labels": torch.zeros(0).long()},
            ValueError,
            r"shape \(\.\.\., 4\), but got \(0,\)",
        ),
        ({"boxes": torch.zeros(1, 2, 4), "labels": torch.zeros(1).long()}, ValueError, r"shape \(G, 4\)"),
        ({"boxes": torch.zeros(2, 4), "labels": torch.zeros(3).long()}, ValueError, r"'labels'.*shape \(2,\)"),
        ({"boxes": torch.zeros(2, 4), "labels": torch.zeros(2)}, TypeError, "'labels'.*integer"),
        ({"boxes": torch.zeros(2, 4).long(), "labels": torch.zeros(2).long()}, TypeError, "'boxes'.*floating"),
        (
            {"boxes": torch.zeros(2, 4), "labels": torch.zeros(2).long(), "iscrowd": torch.zeros(1, dtype=torch.bool)},
            ValueError,
            r"'iscrowd'.*shape \(2,\)",
        ),
    ],
)
def test_malformed_targets_are_named(target: dict[str, torch.Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        check_target("targets[3]", target)
    assert "targets[3]" in str(raised.value)
