"""Samplers: how many they take of what, which ones, and that the rest is ignored."""

import random
from collections import Counter

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from lossatlas.assign import Assignment
from lossatlas.assign.sampling import HardNegativeSampler, IoUBalancedSampler, OHEMSampler, RandomSampler


def assignment_of(positives: int, negatives: int, ignored: int, objects: int = 3, seed: int = 0) -> Assignment:
    codes = [i % objects for i in range(positives)] + [-1] * negatives + [-2] * ignored
    random.Random(seed).shuffle(codes)
    return Assignment.from_torchvision(torch.tensor(codes, dtype=torch.int64))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(assignment: Assignment) -> tuple[int, int]:
    return int(assignment.positive.sum()), int(assignment.negative.sum())


def assert_subset(sampled: Assignment, assignment: Assignment) -> None:
    """What is not ignored is as it was."""
    kept = ~sampled.ignored
    assert torch.equal(sampled.state[kept], assignment.state[kept])
    assert torch.equal(sampled.matched[kept], assignment.matched[kept])


SAMPLERS = [RandomSampler.rpn(), RandomSampler.roi(), RandomSampler(7, 0.3), RandomSampler(10, 0), RandomSampler(10, 1)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    "size", [(300, 900, 50), (3, 900, 0), (300, 4, 9), (0, 20, 1), (20, 0, 1), (0, 0, 3), (0, 0, 0)]
)
def test_random_counts_are_torchvisions(sampler: RandomSampler, size: tuple[int, int, int]) -> None:
    assignment = assignment_of(*size)
    theirs = BalancedPositiveNegativeSampler(sampler.count, sampler.positive_fraction)
    labels = torch.where(assignment.positive, 1, assignment.state.long())
    (positive,), (negative,) = theirs([labels])
    sampled = sampler(assignment, generator=seeded(0))
    assert counts(sampled) == (int(positive.sum()), int(negative.sum()))
    assert_subset(sampled, assignment)


def test_random_is_decided_by_the_generator_and_uniform() -> None:
    assignment = assignment_of(6, 6, 2)
    sampler = RandomSampler(4, 0.5)
    assert torch.equal(sampler(assignment, generator=seeded(5)).state, sampler(assignment, generator=seeded(5)).state)
    generator, taken = seeded(0), torch.zeros(14)
    for _ in range(600):
        taken += (~sampler(assignment, generator=generator).ignored).float()
    assert taken[assignment.ignored].tolist() == [0, 0]
    assert (taken[~assignment.ignored] - 200).abs().max() < 60  # each with probability 1/3: a deviation of 11.5


def by_the_rule(
    assignment: Assignment, losses: list[float], overlaps: list[float], ratio: float, limit: float, otherwise: int
) -> list[int]:
    states = assignment.state.tolist()
    eligible = [i for i, state in enumerate(states) if state == 0 and overlaps[i] < limit]
    positives = states.count(1)
    wanted = int(ratio * positives) if positives else otherwise
    hardest = sorted(eligible, key=lambda i: (-losses[i], i))[:wanted]
    return [1 if state == 1 else 0 if i in hardest else -1 for i, state in enumerate(states)]


@pytest.mark.parametrize("size", [(3, 40, 4), (20, 10, 0), (0, 20, 0), (2, 0, 0), (0, 0, 0)])
def test_hard_negatives_by_the_rule(size: tuple[int, int, int]) -> None:
    for seed in range(10):
        source = random.Random(seed)
        assignment = assignment_of(*size, seed=seed)
        losses = [float(source.randrange(6)) for _ in range(len(assignment))]
        overlaps = [source.choice([0.0, 0.3, 0.5, 0.6]) for _ in range(len(assignment))]
        for ratio, limit, otherwise in ((3.0, 0.5, 0), (1.5, 1.0, 7)):
            sampler = HardNegativeSampler(ratio, limit, otherwise)
            sampled = sampler(assignment, torch.tensor(losses), torch.tensor(overlaps))
            assert sampled.state.tolist() == by_the_rule(assignment, losses, overlaps, ratio, limit, otherwise)
            assert_subset(sampled, assignment)
            free = sampler(assignment, torch.tensor(losses))
            assert free.state.tolist() == by_the_rule(assignment, losses, [0.0] * len(losses), ratio, limit, otherwise)


def test_ohem_takes_the_largest_losses() -> None:
    assignment = Assignment.from_torchvision(torch.tensor([0, -1, 1, -1, -2, -1, 0]))
    losses = torch.tensor([1.0, 6.0, 5.0, 2.0, 99.0, 6.0, 4.0])
    assert OHEMSampler(3)(assignment, losses).state.tolist() == [-1, 0, 1, -1, -1, 0, -1]
    assert OHEMSampler(1)(assignment, losses).state.tolist() == [-1, 0, -1, -1, -1, -1, -1]
    balanced = OHEMSampler(4, positive_fraction=0.5)(assignment, losses)
    assert balanced.state.tolist() == [-1, 0, 1, -1, -1, 0, 1]
    assert_subset(balanced, assignment)


def test_ohem_counts_overlapping_regions_once() -> None:
    assignment = Assignment.from_torchvision(torch.tensor([0, 0, -1, -2]))
    losses = torch.tensor([1.0, 3.0, 2.0, 9.0])
    boxes = torch.tensor([[50.0, 0, 60, 10], [0.0, 0, 10, 10], [0.0, 0, 10, 9], [0.0, 0, 10, 10]])
    assert OHEMSampler(2)(assignment, losses, boxes).state.tolist() == [1, 1, -1, -1]
    assert OHEMSampler(2, iou_threshold=0.95)(assignment, losses, boxes).state.tolist() == [-1, 1, 0, -1]


def sample_bins(overlaps: Tensor, count: int, bins: int, seed: int) -> list[int]:
    """How many of the intervals' negatives are taken."""
    assignment = assignment_of(0, len(overlaps), 0)
    sampled = IoUBalancedSampler(count, 0.25, bins)(assignment, overlaps, generator=seeded(seed))
    highest = float(overlaps.max())
    taken = Counter(min(int(value / highest * bins), bins - 1) for value in overlaps[sampled.negative].tolist())
    return [taken[k] for k in range(bins)]


def test_negatives_are_taken_evenly_from_the_intervals() -> None:
    overlaps = torch.cat((torch.full((500,), 0.03), torch.full((30,), 0.2), torch.full((15,), 0.4)))
    for seed in range(5):
        assert sample_bins(overlaps, 30, 3, seed) == [10, 10, 10]
        scarce = sample_bins(overlaps, 90, 3, seed)  # 15 missing in the last one, taken from the rest
        assert sum(scarce) == 90
        assert scarce[0] >= 30
        assert scarce[1:] == [30, 15]
        assert sample_bins(overlaps, 1000, 3, seed) == [500, 30, 15]


def test_positives_are_taken_evenly_from_the_objects() -> None:
    codes = torch.tensor([0] * 40 + [1] * 3 + [2] * 40 + [-1] * 10)
    assignment = Assignment.from_torchvision(codes)
    for seed in range(5):
        sampled = IoUBalancedSampler(52, 0.25)(assignment, torch.zeros(93), generator=seeded(seed))
        taken = Counter(sampled.matched[sampled.positive].tolist())
        assert taken == {0: 5, 1: 3, 2: 5}
        assert counts(sampled) == (13, 10)
        assert_subset(sampled, assignment)
    firsts: Counter[int] = Counter()
    for seed in range(60):
        sampled = IoUBalancedSampler(4, 0.25)(assignment, torch.zeros(93), generator=seeded(seed))
        firsts.update(sampled.matched[sampled.positive].tolist())
    assert set(firsts) == {0, 1, 2}


@pytest.mark.parametrize("size", [(0, 0, 0), (0, 0, 4), (5, 0, 0), (0, 5, 0)])
def test_nothing_to_sample(size: tuple[int, int, int]) -> None:
    assignment = assignment_of(*size)
    values = torch.zeros(len(assignment))
    for sampled in (
        IoUBalancedSampler(2, 0.5)(assignment, values),
        OHEMSampler(2)(assignment, values),
        OHEMSampler(2)(assignment, values, torch.zeros(len(assignment), 4)),
    ):
        assert len(sampled) == len(assignment)
        assert sum(counts(sampled)) <= 2
        assert_subset(sampled, assignment)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`positive_fraction` must be finite and at least 0 and at most 1"):
        RandomSampler(4, 1.5)
    with pytest.raises(ValueError, match="`without_positives` must be finite and at least 0"):
        HardNegativeSampler(without_positives=-1)
    with pytest.raises(ValueError, match=r"`losses` must have shape \(4,\), but got \(3,\)"):
        HardNegativeSampler()(assignment_of(2, 2, 0), torch.zeros(3))
    with pytest.raises(ValueError, match=r"`overlaps` must have shape \(4,\)"):
        IoUBalancedSampler()(assignment_of(2, 2, 0), torch.zeros(3))
