"""Places of tags, and people from tags."""

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from lossatlas.targets import Peaks, embedding_indices, fill_missing, group_by_tags, peak_tags
from tests.targets.scenes import random_people


@pytest.mark.parametrize("per_keypoint", [True, False])
@pytest.mark.parametrize("center", ["exact", "round", "floor"])
def test_places_keypoint_by_keypoint(per_keypoint: bool, center: str) -> None:
    people = torch.stack([random_people(random.Random(seed), 3, 4, 44, 56) for seed in range(3)])
    found = embedding_indices(people, (11, 14), 4, per_keypoint=per_keypoint, center=center)  # type: ignore[arg-type]
    inside = 0
    for b, n, k in itertools.product(range(3), range(3), range(4)):
        x, y, visibility = people[b, n, k].tolist()
        place = -1
        if visibility:
            shift = 0.0 if center == "floor" else 0.5
            column, row = math.floor((x - 1.5) / 4 + shift), math.floor((y - 1.5) / 4 + shift)
            if 0 <= column < 14 and 0 <= row < 11:
                place = k * per_keypoint * 154 + row * 14 + column
                inside += 1
        assert found[b, n, k] == place
    assert 10 < inside < 30
    assert torch.equal(embedding_indices(people[0], (11, 14), 4), embedding_indices(people, (11, 14), 4)[0])


def peaks_of(scores: Tensor) -> Peaks:
    return Peaks(torch.zeros(*scores.shape, 2, dtype=torch.int64), scores, scores > 0)


def test_tags_are_read_at_the_peaks() -> None:
    maps = torch.arange(2.0 * 3 * 4 * 5).view(6, 4, 5)
    cells = torch.tensor([[[0, 0], [4, 3]], [[1, 2], [0, 1]], [[2, 2], [3, 0]]])
    peaks = Peaks(cells, torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
    found = peak_tags(maps, peaks, dimensions=2)
    for k, m, d in itertools.product(range(3), range(2), range(2)):
        x, y = cells[k, m].tolist()
        assert found[k, m, d] == maps[d * 3 + k, y, x]
    shared = peak_tags(maps[:2], peaks, dimensions=2)
    for k, m, d in itertools.product(range(3), range(2), range(2)):
        x, y = cells[k, m].tolist()
        assert shared[k, m, d] == maps[d, y, x]
    with pytest.raises(ValueError, match=r"`tags` must have shape \(2 or 6, H, W\), but got \(4, 4, 5\)"):
        peak_tags(maps[:4], peaks, dimensions=2)


def best_assignment(price: list[list[float]], unmatched: float) -> list[tuple[int, int]]:
    """The pairs of peaks and people that cost least together, by trying all."""
    best, pairs = math.inf, []
    rows, columns = len(price), len(price[0])
    for choice in itertools.product(range(-1, columns), repeat=rows):
        taken = [c for c in choice if c >= 0]
        if len(set(taken)) < len(taken):
            continue
        free = min(rows, columns) - len(taken)
        cost = sum(price[r][c] for r, c in enumerate(choice) if c >= 0) + max(free, 0) * unmatched
        if cost < best - 1e-9:
            best, pairs = cost, [(r, c) for r, c in enumerate(choice) if c >= 0]
    return pairs


@pytest.mark.parametrize("cost", ["rounded", "distance"])
def test_rule(cost: str) -> None:
    """Peak by peak with the mean tags, and the best assignment found by trying every one."""
    merged = 0
    for seed in range(12):
        source = random.Random(seed)
        kinds, number = 4, 3
        scores = torch.tensor(
            [[source.choice([0.0, source.uniform(0.2, 1)]) for _ in range(number)] for _ in range(kinds)]
        )
        tags = torch.tensor([[[source.uniform(0, 4)] for _ in range(number)] for _ in range(kinds)])
        order = source.sample(range(kinds), kinds)
        people: list[dict[int, int]] = []
        for kind in order:
            candidates = [m for m in range(number) if scores[kind, m] > 0]
            taken = {}
            if people and candidates:
                means = [sum(tags[k, m].item() for k, m in one.items()) / len(one) for one in people]
                distance = [[abs(tags[kind, m].item() - mean) for mean in means] for m in candidates]
                price = [
                    [
                        math.inf if d >= 1 else d if cost == "distance" else 100 * round(d) - scores[kind, m].item()
                        for d in row
                    ]
                    for m, row in zip(candidates, distance, strict=True)
                ]
                taken = dict(best_assignment(price, 1.0 if cost == "distance" else 100.0))
            people_before = len(people)
            for place, m in enumerate(candidates):
                if place in taken:
                    people[taken[place]][kind] = m
                else:
                    people.append({kind: m})
            merged += len(taken) if people_before else 0
        found = group_by_tags(peaks_of(scores), tags, order=order, cost=cost)  # type: ignore[arg-type]
        expected = {tuple(one.get(kind, -1) for kind in range(kinds)) for one in people}
        assert {tuple(row) for row in found.tolist()} == expected
        heights = [sum(scores[k, m].item() for k, m in enumerate(row) if m >= 0) for row in found.tolist()]
        assert heights == sorted(heights, reverse=True)
    assert merged > 20


def test_equal_tags_never_merge_people() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]])
    for cost in ("rounded", "distance"):
        found = group_by_tags(peaks_of(scores), torch.zeros(2, 3, 1), cost=cost)
        assert len(found) == 3
        assert sorted(found[:, 0].tolist()) == sorted(found[:, 1].tolist()) == [0, 1, 2]


def test_a_person_seen_late_pushes_nobody_off() -> None:
    """Of tags 0 to 3 the last has no first keypoint; in a chain each could be one off instead."""
    scores = torch.tensor([[0.9, 0.9, 0.9, 0.0], [0.9, 0.9, 0.9, 0.9]])
    tags = torch.arange(4.0).expand(2, 4)[..., None]
    found = group_by_tags(peaks_of(scores), tags)
    assert sorted(found.tolist()) == [[-1, 3], [0, 0], [1, 1], [2, 2]]


def test_the_higher_of_two_peaks_wins_with_rounded_costs_and_the_nearer_without() -> None:
    scores, tags = torch.tensor([[0.9, 0.0], [0.3, 0.8]]), torch.tensor([[[1.0], [0.0]], [[1.0], [1.4]]])
    assert group_by_tags(peaks_of(scores), tags, cost="rounded")[0].tolist() == [0, 1]
    assert group_by_tags(peaks_of(scores), tags, cost="distance")[0].tolist() == [0, 0]


def test_distances_of_tags_of_several_dimensions() -> None:
    scores, tags = torch.tensor([[0.9], [0.8]]), torch.tensor([[[0.0, 0.0]], [[0.9, 0.9]]])
    assert len(group_by_tags(peaks_of(scores), tags)) == 2
    assert len(group_by_tags(peaks_of(scores), tags, distance="rms")) == 1


def test_nobody_and_too_many() -> None:
    none = peaks_of(torch.zeros(3, 4))
    assert group_by_tags(none, torch.zeros(3, 4, 1)).shape == (0, 3)
    assert group_by_tags(peaks_of(torch.zeros(3, 0)), torch.zeros(3, 0, 1)).shape == (0, 3)
    many = peaks_of(torch.tensor([[0.5, 0.9, 0.7]]))
    assert group_by_tags(many, torch.zeros(1, 3, 1), max_people=2).tolist() == [[1], [2]]


def test_filling_in_cell_by_cell() -> None:
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.rand(2, 4, 5, generator=generator)
    tags, means = 4 * torch.rand(2, 4, 5, generator=generator), torch.tensor([[0.5], [3.0]])
    cells, heights = fill_missing(heatmaps, tags, means)
    for n, k in itertools.product(range(2), range(2)):
        value, x, y = max(
            (heatmaps[k, y, x].item() - round(abs(tags[k, y, x].item() - means[n].item())), x, y)
            for x in range(5)
            for y in range(4)
        )
        assert cells[n, k].tolist() == [x, y]
        assert heights[n, k] == heatmaps[k, y, x]
        assert value <= heights[n, k]
    assert fill_missing(heatmaps, tags, torch.zeros(0, 1))[0].shape == (0, 2, 2)


def test_wrong_arguments_are_named() -> None:
    peaks = peaks_of(torch.ones(2, 3))
    with pytest.raises(ValueError, match="`order` must name each of the 2 keypoints once"):
        group_by_tags(peaks, torch.zeros(2, 3, 1), order=[0, 0])
    with pytest.raises(ValueError, match=r"`tags` must have shape \(2, 3, D\), but got \(2, 3\)"):
        group_by_tags(peaks, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="`tag_threshold` must be finite and above 0"):
        group_by_tags(peaks, torch.zeros(2, 3, 1), tag_threshold=0)
    with pytest.raises(ValueError, match="`cost` must be one of 'rounded', 'distance'"):
        group_by_tags(peaks, torch.zeros(2, 3, 1), cost="tag")  # type: ignore[arg-type]
