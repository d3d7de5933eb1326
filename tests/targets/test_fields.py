"""Part affinity fields as loops over people, limbs and cells, and their named variants."""

import math
import random
from typing import Any

import pytest
import torch

from lossatlas.targets.fields import PartAffinityFields
from lossatlas.targets.skeletons import Skeleton
from tests.targets.scenes import random_people

TRIANGLE = Skeleton("triangle", ("a", "b", "c"), ((0, 1), (2, 1), (0, 2)))


def by_the_rule(
    people: list[Any], limbs: Any, size: tuple[int, int], stride: float, **options: Any
) -> list[list[list[float]]]:
    """The fields of one image, cell by cell."""
    height, width = size
    region, thick = options.get("region", "capsule"), options.get("width", 1.0)
    shift = {"center": stride / 2 - 0.5, "index": 0.0}[options.get("convention", "center")]
    fields = [[[0.0] * width for _ in range(height)] for _ in range(2 * len(limbs))]
    for limb, (first, second) in enumerate(limbs):
        for row in range(height):
            for column in range(width):
                vectors = []
                for person in people:
                    if not (person[first][2] and person[second][2]):
                        continue
                    ax, ay, bx, by = (
                        (person[end][axis] - shift) / stride for end in (first, second) for axis in (0, 1)
                    )
                    length = math.hypot(bx - ax, by - ay)
                    if length < 1e-7:
                        continue
                    vx, vy = (bx - ax) / length, (by - ay) / length
                    along = (column - ax) * vx + (row - ay) * vy
                    across = abs((column - ax) * vy - (row - ay) * vx)
                    if region == "capsule":
                        nearest = min(max(along, 0.0), length)
                        across = math.hypot(column - ax - nearest * vx, row - ay - nearest * vy)
                    close = across < thick if options.get("open_edge") else across <= thick
                    if region == "limb":
                        close = close and 0 <= along <= length
                    elif region != "capsule":
                        for cell, low, high in (
                            (column, min(ax, bx) - thick, max(ax, bx) + thick),
                            (row, min(ay, by) - thick, max(ay, by) + thick),
                        ):
                            if region == "box":
                                close = close and math.floor(low + 0.5) <= cell < math.floor(high + 0.5)
                            elif region == "box_floor":
                                close = close and math.floor(low) <= cell < math.floor(high)
                            else:
                                close = close and math.floor(low) <= cell <= math.ceil(high)
                    if close:
                        vectors.append((vx, vy))
                if vectors:
                    kept = vectors[-1:] if options.get("overlap") == "last" else vectors
                    for axis in (0, 1):
                        fields[2 * limb + axis][row][column] = sum(v[axis] for v in kept) / len(kept)
    return fields


VARIANTS: list[dict[str, Any]] = [
    {},
    {"region": "limb", "width": 1.3},
    {"region": "box", "convention": "index"},
    {"region": "box", "convention": "index", "overlap": "last"},
    {"region": "box_floor", "convention": "index", "overlap": "last", "width": 0.8},
    {"region": "box", "open_edge": True, "width": 1.5},
    {"region": "box_inclusive", "open_edge": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_rule(options: dict[str, Any]) -> None:
    for seed in range(3):
        people = random_people(random.Random(seed), 4, 3, 36, 44)
        expected = torch.tensor(by_the_rule(people.tolist(), TRIANGLE.limbs, (9, 11), 4, **options)).double()
        found = PartAffinityFields(TRIANGLE, **options)(people, (9, 11), 4)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        assert (found != 0).any()
        batch = PartAffinityFields(TRIANGLE, **options)(people.expand(2, 3, 4, 3, 3), (9, 11), 4)
        assert torch.equal(batch[1, 2], found)


def cells(start: tuple[float, float], end: tuple[float, float], size: tuple[int, int], **options: Any) -> set[Any]:
    limb = Skeleton("limb", ("a", "b"), ((0, 1),))
    people = torch.tensor([[[*start, 2.0], [*end, 2.0]]])
    fields = PartAffinityFields(limb, convention="index", **options)(people, size, 1)
    return {(column, row) for row, column in fields.norm(dim=0).nonzero().tolist()}


def test_the_published_variants_on_a_level_limb_and_on_a_diagonal() -> None:
    """From (2, 3) to (6, 3) on 7 x 9 cells: the boxes of the codes are lopsided or thin."""
    level: Any = {"start": (2.0, 3.0), "end": (6.0, 3.0), "size": (7, 9)}
    paper = {(x, y) for x in range(2, 7) for y in (2, 3, 4)}
    assert cells(**level, region="limb") == paper
    assert cells(**level) == paper | {(1, 3), (7, 3)}
    assert cells(**level, region="box") == {(x, y) for x in range(1, 7) for y in (2, 3)}
    assert cells(**level, region="box_inclusive", open_edge=True) == {(x, 3) for x in range(1, 8)}
    diagonal: Any = {"start": (1.0, 1.0), "end": (3.0, 3.0), "size": (5, 5)}
    counts = [
        len(cells(**diagonal, region="limb")),
        len(cells(**diagonal, region="box")),
        len(cells(**diagonal, region="box_inclusive", open_edge=True)),
    ]
    assert counts == [7, 10, 13]


def test_overlapping_limbs_are_averaged_or_the_last_one_wins() -> None:
    limb = Skeleton("limb", ("a", "b"), ((0, 1),))
    people = torch.tensor([[[0.0, 2.0, 2.0], [4.0, 2.0, 2.0]], [[2.0, 0.0, 2.0], [2.0, 4.0, 2.0]]])
    mean = PartAffinityFields(limb, width=0.4, convention="index")(people, (5, 5), 1)
    assert mean[:, 2, 2].tolist() == [0.5, 0.5]
    assert mean[:, 2, 1].tolist() == [1, 0]
    last = PartAffinityFields(limb, width=0.4, overlap="last", convention="index")(people, (5, 5), 1)
    assert last[:, 2, 2].tolist() == [0, 1]


def test_limbs_without_a_length_contribute_nothing() -> None:
    limb = Skeleton("limb", ("a", "b"), ((0, 1),))
    point = torch.tensor([[[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]])
    line = torch.tensor([[[0.0, 2.0, 2.0], [4.0, 2.0, 2.0]]])
    draw = PartAffinityFields(limb, convention="index")
    assert not draw(point, (5, 5), 1).any()
    assert torch.equal(draw(torch.cat((line, point)), (5, 5), 1), draw(line, (5, 5), 1))


def test_nothing_to_draw() -> None:
    for shape in ((0, 3, 3), (2, 0, 3, 3), (0, 2, 3, 3), (2, 2, 3, 3)):
        fields = PartAffinityFields(TRIANGLE)(torch.zeros(shape), (4, 5), 4)
        assert fields.shape == (*shape[:-3], 6, 4, 5)
        assert not fields.any()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`region` must be one of 'limb', 'capsule', 'box'"):
        PartAffinityFields(TRIANGLE, region="ellipse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`width` must be finite and above 0"):
        PartAffinityFields(TRIANGLE, width=0)
    with pytest.raises(ValueError, match=r"`keypoints` must have shape \(\*batch, N, 3, 3\), but got \(2, 4, 3\)"):
        PartAffinityFields(TRIANGLE)(torch.zeros(2, 4, 3), (4, 4), 4)
