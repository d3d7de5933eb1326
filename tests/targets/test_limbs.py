"""Line integrals as loops, the rules by name, matching against all possibilities, and people from limbs."""

import itertools
import math
import random
from typing import Any

import pytest
import torch

from lossatlas.targets import (
    LIMB_RULES,
    OPENPOSE_18,
    Limb,
    LimbRule,
    LimbScores,
    PartAffinityFields,
    Peaks,
    Skeleton,
    assemble_people,
    group_by_fields,
    limb_scores,
    match_limbs,
)


def by_the_rule(field: Any, a: Any, b: Any, rule: LimbRule, stride: float) -> tuple[float, bool]:
    """Score of one possible limb, and whether it is accepted, point by point."""
    height, width = len(field[0]), len(field[0][0])
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy)
    if length == 0:
        return 0.0, False
    number = rule.samples or max(5, min(25, round(math.sqrt(5 * stride * max(abs(dx), abs(dy))))))
    values = []
    for step in range(number):
        part = step / (number - 1) if rule.include_end else step / number
        x = min(max(math.floor(a[0] + part * dx + 0.5), 0), width - 1)
        y = min(max(math.floor(a[1] + part * dy + 0.5), 0), height - 1)
        values.append((field[0][y][x] * dx + field[1][y][x] * dy) / length)
    hits = [value for value in values if value > rule.floor]
    counted = values if rule.mean_of == "all" else hits
    score = sum(counted) / max(len(counted), 1)
    if rule.prior:
        score += min(height / 2 / length - 1, 0)
    return score, len(hits) > rule.share * number and score > 0


@pytest.mark.parametrize("name", LIMB_RULES)
def test_every_rule_point_by_point(name: str) -> None:
    rule, accepted = LIMB_RULES[name], 0
    for seed in range(6):
        source = random.Random(seed)
        limb = Skeleton("limb", ("a", "b"), ((0, 1),))
        people = torch.tensor(
            [[[source.uniform(0, 60), source.uniform(0, 44), 2.0] for _ in range(2)] for _ in range(4)]
        )
        field = PartAffinityFields(limb, region="box_inclusive")(people, (11, 15), 4)
        ends = (people[..., :2] - 1.5) / 4
        start, end = torch.cat((ends[:, 0], ends[:1, 1])), ends[:, 1]
        found = limb_scores(field, start, end, rule, stride=4)
        for i, j in itertools.product(range(5), range(4)):
            score, taken = by_the_rule(field.double().tolist(), start[i].tolist(), end[j].tolist(), rule, 4)
            assert bool(found.accepted[i, j]) == taken
            accepted += taken
            if i != 4 or j != 0:  # a limb without a length has no score
                assert found.scores[i, j].item() == pytest.approx(score, abs=1e-5)
    assert 12 < accepted < 6 * 20


def test_rules_differ_where_they_should() -> None:
    """A field on nine tenths of a limb that is longer than half of the height."""
    field = torch.zeros(2, 8, 30)
    field[0, 4, :18] = 1.0
    start, end = torch.tensor([[0.0, 4.0]]), torch.tensor([[19.0, 4.0]])
    found = {name: limb_scores(field, start, end, rule, stride=4) for name, rule in LIMB_RULES.items()}
    scores = {name: round(one.scores.item(), 4) for name, one in found.items()}
    prior = 4 / 19 - 1
    expected = {"realtime": 1 + prior, "lightweight": 1, "tensorboy": 0.9 + prior, "openpose": 1, "integral": 0.9}
    assert scores == pytest.approx(expected, abs=1e-4)
    accepted = {name: bool(one.accepted) for name, one in found.items()}
    assert accepted == {"realtime": True, "lightweight": True, "tensorboy": True, "openpose": False, "integral": True}


def test_a_limb_without_a_length_is_none() -> None:
    field = torch.ones(2, 5, 5)
    point = torch.tensor([[2.0, 2.0]])
    for rule in LIMB_RULES.values():
        assert not limb_scores(field, point, point, rule).accepted.any()
    assert limb_scores(field, point[:0], point).scores.shape == (0, 1)


@pytest.mark.parametrize("shape", [(3, 4), (4, 2), (1, 1)])
def test_matching_against_every_possibility(shape: tuple[int, int]) -> None:
    differ = 0
    for seed in range(20):
        source = random.Random(seed)
        scores = torch.tensor([[source.random() for _ in range(shape[1])] for _ in range(shape[0])])
        accepted = torch.tensor([[source.random() < 0.7 for _ in range(shape[1])] for _ in range(shape[0])])
        candidates = LimbScores(scores, accepted)
        best = 0.0
        for choice in itertools.product(range(-1, shape[1]), repeat=shape[0]):
            taken = [c for c in choice if c >= 0]
            if len(set(taken)) == len(taken) and all(accepted[r, c] for r, c in enumerate(choice) if c >= 0):
                best = max(best, sum(scores[r, c].item() for r, c in enumerate(choice) if c >= 0))
        rest, greedy = [(scores[r, c].item(), r, c) for r, c in accepted.nonzero().tolist()], []
        while rest:
            r, c = max(rest)[1:]
            greedy.append((r, c))
            rest = [pair for pair in rest if pair[1] != r and pair[2] != c]
        hungarian, taken_first = match_limbs(candidates, "hungarian"), match_limbs(candidates)
        assert sum(limb.score for limb in hungarian) == pytest.approx(best)
        assert [(limb.first, limb.second) for limb in taken_first] == greedy
        differ += sum(limb.score for limb in taken_first) < best - 1e-6
    assert differ > 0 or shape == (1, 1)


CHAIN = Skeleton.chain("chain", "abcd", [(0, 1), (1, 2), (2, 3)])
HEIGHTS = torch.full((4, 3), 0.5)


def members(limbs: Any, skeleton: Skeleton = CHAIN, heights: torch.Tensor = HEIGHTS, **options: Any) -> list[list[int]]:
    options = {"min_keypoints": 1, "min_score": 0.0} | options
    found: list[list[int]] = assemble_people(limbs, heights, skeleton, **options).members.tolist()
    return found


def test_limbs_begin_continue_and_join_people() -> None:
    assert members([[Limb(0, 1, 0.9)], [Limb(1, 2, 0.8)], []]) == [[0, 1, 2, -1]]
    # Two people that a limb joins.
    assert members([[Limb(0, 1, 0.9)], [], [Limb(2, 0, 0.8)]]) == [[0, 1, -1, -1], [-1, -1, 2, 0]]
    late = Skeleton.chain("late", "abcd", [(0, 1), (2, 3), (1, 2)])
    assert members([[Limb(0, 1, 0.9)], [Limb(2, 0, 0.8)], [Limb(1, 2, 0.7)]], late) == [[0, 1, 2, 0]]
    # Two people with the same keypoint stay two.
    crossed = Skeleton.chain("crossed", "abc", [(0, 1), (0, 2), (1, 2)])
    found = members([[Limb(0, 0, 0.9), Limb(1, 1, 0.8)], [Limb(0, 0, 0.7)], [Limb(1, 0, 0.9)]], crossed)
    assert sorted(found) == [[0, 0, 0], [1, 1, -1]]
    # Who has such a keypoint already gets no second one.
    assert members(
        [[Limb(0, 0, 0.9)], [Limb(0, 0, 0.9)], []], Skeleton.chain("v", "abc", [(0, 1), (0, 1), (1, 2)])
    ) == [[0, 0, -1]]


def test_scores_and_limits() -> None:
    heights = torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.7, 0.1, 0.1], [0.6, 0.1, 0.1]])
    limbs = [[Limb(0, 0, 0.9), Limb(1, 1, 0.2)], [Limb(0, 0, 0.5), Limb(1, 1, 0.1)], []]
    found = assemble_people(limbs, heights, CHAIN, min_keypoints=1, min_score=0)
    assert found.members.tolist() == [[0, 0, 0, -1], [1, 1, 1, -1]]
    assert found.scores.tolist() == pytest.approx([(0.9 + 0.8 + 0.7 + 0.9 + 0.5) / 3, (0.3 + 0.3) / 3])
    assert members(limbs, heights=heights, min_score=0.21) == [[0, 0, 0, -1]]
    assert members(limbs, heights=heights, min_keypoints=4) == []
    assert members([[], [], []]) == []


def test_filling_limbs_only_fill_in() -> None:
    """Nose, shoulder and ear: the limb from shoulder to ear begins nobody, joins nobody, and counts for nothing."""
    face = Skeleton("face", ("nose", "shoulder", "ear", "eye"), ((0, 1), (3, 2), (1, 2)), filling=(2,))
    heights = torch.full((4, 2), 0.5)

    def found(*limbs: Any, **options: Any) -> Any:
        return assemble_people(limbs, heights, face, **({"min_keypoints": 1, "min_score": 0.0} | options))

    assert found([], [], [Limb(0, 0, 0.9)]).members.tolist() == []
    filled = found([Limb(0, 0, 0.8)], [], [Limb(0, 1, 0.9)])
    assert filled.members.tolist() == [[0, 0, 1, -1]]
    assert filled.scores.tolist() == pytest.approx([(0.5 + 0.5 + 0.8) / 2])
    assert found([Limb(0, 0, 0.8)], [], [Limb(0, 1, 0.9)], min_keypoints=3).members.tolist() == []
    shoulder = found([], [Limb(0, 0, 0.8)], [Limb(1, 0, 0.9)])
    assert shoulder.members.tolist() == [[-1, 1, 0, 0]]
    apart = found([Limb(0, 0, 0.8)], [Limb(0, 0, 0.7)], [Limb(0, 0, 0.9)])
    assert sorted(apart.members.tolist()) == [[-1, -1, 0, 0], [0, 0, -1, -1]]
    has_one = found([Limb(0, 0, 0.8), Limb(1, 1, 0.8)], [], [Limb(0, 0, 0.9), Limb(1, 0, 0.9)])
    assert sorted(has_one.members.tolist()) == [[0, 0, 0, -1], [1, 1, -1, -1]]


def test_people_from_an_ideal_field() -> None:
    """Two people side by side, of whom one hides a wrist; a peak on no limb is nobody's."""
    skeleton = OPENPOSE_18
    source = random.Random(0)
    people = torch.zeros(2, 18, 3)
    for n, k in itertools.product(range(2), range(18)):
        people[n, k] = torch.tensor([12.0 + 30 * n + source.uniform(-9, 9), 3 + 3.0 * k, 2.0])
    people[1, 4, 2] = 0
    places = people[..., :2].transpose(0, 1).contiguous()
    found = (people[..., 2] > 0).T
    order = found.int().sort(dim=1, descending=True, stable=True).indices
    places = places.gather(1, order[..., None].expand(-1, -1, 2))
    found = found.gather(1, order)
    peaks = Peaks(places.long(), torch.where(found, 0.9, 0.0), found)
    fields = PartAffinityFields(skeleton, convention="index")(people, (64, 64), 1)
    grouping = group_by_fields(peaks, places, fields, skeleton)
    rows = sorted(grouping.members.tolist())
    assert rows == sorted([[0] * 18, [1] * 4 + [-1] + [1] * 13])
    assert group_by_fields(peaks, places, torch.zeros_like(fields), skeleton).members.shape == (0, 18)


def test_wrong_arguments_are_named() -> None:
    peaks = Peaks(torch.zeros(4, 1, 2, dtype=torch.int64), torch.ones(4, 1), torch.ones(4, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="`fields` must have 6 maps, two for each limb, but has 4"):
        group_by_fields(peaks, torch.zeros(4, 1, 2), torch.zeros(4, 5, 5), CHAIN)
    with pytest.raises(ValueError, match="`peaks` must be of the skeleton's 18 keypoints, but are of 4"):
        group_by_fields(peaks, torch.zeros(4, 1, 2), torch.zeros(38, 5, 5), OPENPOSE_18)
    with pytest.raises(ValueError, match="`limbs` must have 3 entries, one for each kind, but has 1"):
        assemble_people([[]], HEIGHTS, CHAIN)
    with pytest.raises(ValueError, match="`matching` must be one of 'greedy', 'hungarian'"):
        match_limbs(LimbScores(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)), "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`field` must have shape \(2, H, W\), but got \(4, 5, 5\)"):
        limb_scores(torch.zeros(4, 5, 5), torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="`samples` must be finite and at least 2"):
        LimbRule(samples=1)
