"""Ranking losses: oracles that compare every pair, from the published definitions, and edge inputs."""

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossatlas import losses
from tests.conformance.case import Array, Case, Edge, Identity, Pair

COUNT = 15
Indices: TypeAlias = NDArray[np.intp]


def sample(generator: torch.Generator) -> Pair:
    """Draw logits among which some are equal, some lie in each other's band and some do not."""
    input = (torch.randn(COUNT, generator=generator, dtype=torch.float64) * 6).round() / 4
    target = torch.randint(-1, 2, (COUNT,), generator=generator)
    target[:3] = torch.tensor([1, 0, 1])
    return input, target


def sample_quality(generator: torch.Generator) -> Pair:
    input, target = sample(generator)
    quality = torch.randint(1, 6, (COUNT,), generator=generator) / 5
    return input, torch.where(target == 1, quality, target).double()


def step(x: Array, delta: float) -> Array:
    return np.asarray(np.clip(x / (2 * delta) + 0.5, 0, 1))


def relations(input: Array, of: Indices, to: Indices, delta: float) -> Array:
    """Return H(s of - s to) with a row for each index in `to`."""
    return step(input[of][None, :] - input[to][:, None], delta)


def indices(target: Array) -> tuple[Indices, Indices]:
    return np.flatnonzero(target > 0), np.flatnonzero(target == 0)


def scattered(values: Array, places: Indices, size: int) -> Array:
    result = np.zeros(size)
    result[places] = values
    return result


def precisions(input: Array, target: Array, delta: float) -> tuple[Array, Array, Array]:
    """Return for each positive its precision and rank, and the steps of all negatives."""
    positives, negatives = indices(target)
    beats = relations(input, negatives, positives, delta)
    among = relations(input, positives, positives, delta)
    np.fill_diagonal(among, 0)
    rank_among = 1 + among.sum(1)
    rank = rank_among + beats.sum(1)
    return rank_among / rank, rank, beats


def interpolate(precision: Array, logits: Array) -> Array:
    """Return the largest precision of each positive and of those that have smaller or equal logits."""
    return np.array([max(precision[logits <= logit]) for logit in logits])


def ap(input: Array, target: Array, frozen: Array, delta: float = 1.0, interpolated: bool = True) -> Array:
    positives, _ = indices(target)
    precision, _, _ = precisions(input, target, delta)
    if interpolated:
        precision = interpolate(precision, input[positives])
    return scattered(1 - precision, positives, len(input))


def ap_gradient(input: Array, target: Array, delta: float = 1.0, interpolated: bool = True) -> Array:
    positives, negatives = indices(target)
    precision, rank, beats = precisions(input, target, delta)
    primary = beats / rank[:, None]
    if interpolated:
        best = interpolate(precision, input[positives])
        scale = [1.0 if b == p else (1 - b) / (1 - p) for b, p in zip(best, precision, strict=True)]
        primary *= np.array(scale)[:, None]
    return scattered(-primary.sum(1), positives, len(input)) + scattered(primary.sum(0), negatives, len(input))


def dr(
    input: Array,
    target: Array,
    frozen: Array,
    tau: float = 4.0,
    margin: float = 0.5,
    lambda_pos: float = 1.0,
    lambda_neg: float = 0.0798235600,
    smoothness: float = 6.0,
) -> Array:
    def mean(chosen: Indices, scale: float) -> float:
        p = [1 / (1 + math.exp(-s)) for s in input[chosen]]
        q = [math.exp(p_i * scale) for p_i in p]
        return sum(q_i * p_i for q_i, p_i in zip(q, p, strict=True)) / sum(q)

    positives, negatives = indices(target)
    gap = mean(negatives, 1 / lambda_neg) - mean(positives, -1 / lambda_pos) + margin
    return np.array(tau / smoothness * math.log(1 + math.exp(smoothness * gap)))


WRONG = torch.tensor(0.4, dtype=torch.float64)
ERRORS = torch.linspace(0.05, 1.2, COUNT, dtype=torch.float64).roll(4)


def alrp_parts(input: Array, target: Array, errors: Tensor, delta: float) -> tuple[Array, Array, Array, Array]:
    """Return for each positive FP, the errors of the others that beat it, its own error and its rank."""
    positives, negatives = indices(target)
    error = np.broadcast_to(errors.double().numpy(), input.shape)[positives]
    among = relations(input, positives, positives, delta)
    np.fill_diagonal(among, 0)
    false = relations(input, negatives, positives, delta).sum(1)
    return false, among @ error, error, 1 + among.sum(1) + false


def alrp(input: Array, target: Array, frozen: Array, localization_error: Tensor = WRONG, delta: float = 1.0) -> Array:
    positives, _ = indices(target)
    false, others, own, rank = alrp_parts(input, target, localization_error, delta)
    return scattered((false + own + others) / rank, positives, len(input))


def alrp_gradient(input: Array, target: Array, localization_error: Tensor = WRONG, delta: float = 1.0) -> Array:
    positives, negatives = indices(target)
    beats = relations(input, negatives, positives, delta)
    false, others, _, rank = alrp_parts(input, target, localization_error, delta)
    update = np.where(false > 1e-5, (false + others) / rank, 0)
    shared = [row * (u / f) if f > 1e-5 else row * 0 for row, u, f in zip(beats, update, false, strict=True)]
    return scattered(-update, positives, len(input)) + scattered(sum(shared), negatives, len(input))


def rank_sort_parts(input: Array, target: Array, delta: float) -> tuple[Array, Array, Array, Array, Array]:
    """Return ranking and sorting errors, the steps of negatives, and which positives beat which, rightly or not."""
    positives, negatives = indices(target)
    quality = target[positives]
    false = relations(input, negatives, positives, delta)
    among = relations(input, positives, positives, delta)
    ranking = false.sum(1) / (among.sum(1) + false.sum(1))
    right = among * (quality[None, :] >= quality[:, None])
    sorting = (among * (1 - quality)).sum(1) / among.sum(1) - (right * (1 - quality)).sum(1) / right.sum(1)
    return ranking, sorting, false, among, right


def rank_sort(input: Array, target: Array, frozen: Array, delta: float = 0.5) -> Array:
    ranking, sorting, *_ = rank_sort_parts(input, target, delta)
    return scattered(ranking + sorting, indices(target)[0], len(input))


def rank_sort_gradient(input: Array, target: Array, delta: float = 0.5) -> Array:
    positives, negatives = indices(target)
    ranking, sorting, false, among, right = rank_sort_parts(input, target, delta)
    gradient = np.zeros(len(input))
    for row, i in enumerate(positives):
        if false[row].sum() > 1e-10:
            gradient[i] -= ranking[row]
            gradient[negatives] += ranking[row] * false[row] / false[row].sum()
        wrong = among[row] - right[row]
        if wrong.sum() > 1e-10:
            gradient[i] -= sorting[row]
            gradient[positives] += sorting[row] * wrong / wrong.sum()
    return gradient


LOGITS = torch.tensor([1.0, -0.5, 0.25, 0.0, -2.0], dtype=torch.float64)
MANY = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FEW = torch.zeros(100_000, dtype=torch.int64).index_fill(0, torch.arange(0, 100_000, 9973), 1)
RANKING_EDGES = (
    Edge("no positives", LOGITS, torch.zeros(5, dtype=torch.int64)),
    Edge("no negatives", LOGITS, torch.ones(5, dtype=torch.int64)),
    Edge("all ignored", LOGITS, torch.full((5,), -1)),
    Edge("one positive", LOGITS, torch.tensor([0, 1, 0, 0, 0])),
    Edge("one positive alone", LOGITS[:1], torch.tensor([1])),
    Edge("logits of 1e4", LOGITS.sign() * 1e4, torch.tensor([0, 1, 1, 0, 1])),
    Edge("far apart", LOGITS * 2e4, torch.tensor([1, 1, 0, 1, 0])),
    Edge("equal logits", LOGITS * 0, torch.tensor([1, 0, 1, 0, -1])),
    Edge("a tensor of an image", LOGITS[:4].view(1, 2, 2), torch.tensor([[[1, 0], [0, 1]]])),
    Edge("a hundred thousand negatives", MANY, FEW),
)
FIRST = torch.zeros(100_001).index_fill(0, torch.tensor([0]), 1)
PERFECT = torch.tensor([3.0, 1.0, -0.5, -0.5], dtype=torch.float64), torch.tensor([1, 1, 0, 0])


DRAWN = sample(torch.Generator().manual_seed(5))
QUALITY = torch.tensor([0.4, 0.8], dtype=torch.float64)
CERTAIN = torch.cat((LOGITS, LOGITS.new_tensor([60.0]))), torch.tensor([0, 0, 0, 0, 0, 1])


def positives(input: Tensor, target: Tensor, **options: Any) -> int:
    return int((target > 0).sum())


def total(terms: tuple[Tensor, Tensor]) -> Tensor:
    return terms[0] + terms[1]


CASES = (
    Case(
        "rank_sort_loss",
        sample_quality,
        rank_sort,
        (*RANKING_EDGES, Edge("equal qualities", LOGITS, torch.full((5,), 0.5, dtype=torch.float64))),
        options=({}, {"delta": 1.5}),
        identities=(
            Identity("the right order costs nothing", lambda: total(losses.rank_sort_loss(*PERFECT)), lambda: 0.0),
            Identity(
                "two in the wrong order",
                lambda: losses.rank_sort_loss(PERFECT[0][:2], QUALITY, reduction="sum").sorting,
                # The second positive: (0.6 + 0.2 / 2) / 1.5 instead of 0.2.
                lambda: 0.7 / 1.5 - 0.2,
            ),
        ),
        gradient_oracle=rank_sort_gradient,
        combine=total,
        count=positives,
        eager_only="the positives, whose number depends on values, are gathered",
    ),
    Case(
        "ap_loss",
        sample,
        ap,
        RANKING_EDGES,
        options=({}, {"interpolated": False}, {"delta": 0.3}, {"delta": 2.5, "interpolated": False}),
        identities=(
            Identity("every positive beats every negative by delta", lambda: losses.ap_loss(*PERFECT), lambda: 0.0),
            # Of 1e5 negatives that all beat the only positive: 1 - 1 / (1 + 1e5).
            Identity(
                "last of many",
                lambda: losses.ap_loss(torch.cat((torch.tensor([-9.0]), MANY)).double(), FIRST),
                lambda: 1 - 1 / (1 + 1e5),
            ),
        ),
        gradient_oracle=ap_gradient,
        count=positives,
    ),
    Case(
        "dr_loss",
        sample,
        dr,
        RANKING_EDGES,
        options=({}, {"tau": 1.0, "margin": 0.2, "lambda_pos": 0.5, "lambda_neg": 0.3, "smoothness": 10.0}),
        identities=(
            Identity(
                "without positives they count as certain",
                lambda: losses.dr_loss(LOGITS, torch.zeros(5)),
                lambda: losses.dr_loss(
                    torch.cat((LOGITS, LOGITS.new_tensor([60.0]))), torch.tensor([0, 0, 0, 0, 0, 1])
                ),
            ),
        ),
    ),
    Case(
        "alrp_loss",
        sample,
        alrp,
        RANKING_EDGES,
        options=({}, {"localization_error": ERRORS}, {"localization_error": ERRORS, "delta": 0.4}),
        identities=(
            Identity(
                "exact boxes leave the precision",
                lambda: total(losses.alrp_loss(*DRAWN, localization_error=WRONG * 0)),
                lambda: losses.ap_loss(*DRAWN, interpolated=False),
            ),
            Identity(
                "equally wrong boxes of a right ranking cost their error",
                lambda: total(losses.alrp_loss(*PERFECT, localization_error=WRONG)),
                lambda: 0.4,
            ),
        ),
        gradient_oracle=alrp_gradient,
        combine=total,
        count=positives,
        required={"localization_error": WRONG},
    ),
)
