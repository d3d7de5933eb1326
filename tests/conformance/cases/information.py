"""Information measures: oracles from their definitions, edge inputs and published numbers."""

import math
from collections.abc import Sequence

import torch

from lossatlas import losses
from tests.conformance.case import Case, Edge, Identity, Pair, per_element, per_row


def sample_distributions(generator: torch.Generator) -> Pair:
    logits = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64).softmax(-1)
    return logits.softmax(-1), target


def logarithm(p: float, base: float | None) -> float:
    return math.log(p) if base is None else math.log(p, base)


def surprise(p: float, _: float, base: float | None = None) -> float:
    return -logarithm(p, base)


def entropy(p: Sequence[float], _: Sequence[float], __: Sequence[float], base: float | None = None) -> float:
    return -sum(share * logarithm(share, base) for share in p)


def cross_entropy(q: Sequence[float], p: Sequence[float], _: Sequence[float], base: float | None = None) -> float:
    return -sum(share * logarithm(other, base) for share, other in zip(p, q, strict=True))


def divergence(q: Sequence[float], p: Sequence[float], _: Sequence[float], base: float | None = None) -> float:
    return sum(share * logarithm(share / other, base) for share, other in zip(p, q, strict=True))


CERTAIN = torch.eye(3, dtype=torch.float64)
EVEN = torch.full((3, 3), 1 / 3, dtype=torch.float64)
TINY = torch.tensor([[1e-40, 6e-8, 1.0]], dtype=torch.float64).expand(3, 3)
PAIRS = {"certain": (CERTAIN, CERTAIN), "impossible": (CERTAIN, CERTAIN.roll(1, 0)), "tiny": (TINY, EVEN)}
EDGES = tuple(Edge(name, input, target) for name, (input, target) in PAIRS.items())
IN_BITS: tuple[dict[str, float], ...] = ({}, {"base": 2.0}, {"base": 10.0})
P, Q = torch.tensor([0.5, 0.25, 0.25, 0.0]).double(), torch.tensor([0.25, 0.25, 0.25, 0.25]).double()


def nothing() -> Pair:
    return torch.zeros(0, 3), torch.zeros(0, 3)


CASES = (
    Case(
        "information_content",
        sample_distributions,
        per_element(surprise),
        EDGES,
        options=IN_BITS,
        identities=(
            Identity("a coin is one bit", lambda: losses.information_content(P[:1], base=2), lambda: 1.0),
            Identity("the impossible has 100 nats", lambda: losses.information_content(P[3:]), lambda: 100.0),
        ),
    ),
    Case(
        "entropy",
        sample_distributions,
        per_row(entropy),
        EDGES,
        options=IN_BITS,
        identities=(
            Identity("even odds of four are two bits", lambda: losses.entropy(Q, base=2), lambda: 2.0),
            Identity("0 ln 0 is 0", lambda: losses.entropy(P, base=2), lambda: 1.5),
            Identity("certainty has none", lambda: losses.entropy(CERTAIN, reduction="none"), lambda: 0.0),
            Identity(
                "along another axis",
                lambda: losses.entropy(torch.stack((P, Q), 1), dim=0, base=2, reduction="none"),
                lambda: torch.tensor([1.5, 2.0]),
            ),
        ),
        empty=nothing,
    ),
    Case(
        "distribution_cross_entropy",
        sample_distributions,
        per_row(cross_entropy),
        EDGES,
        options=IN_BITS,
        identities=(
            Identity(
                "with itself it is the entropy",
                lambda: losses.distribution_cross_entropy(P, P),
                lambda: losses.entropy(P),
            ),
            Identity(
                "entropy and divergence",
                lambda: losses.distribution_cross_entropy(Q, P, base=3),
                lambda: losses.entropy(P, base=3) + losses.kl_divergence(Q, P, base=3),
            ),
        ),
        empty=nothing,
    ),
    Case(
        "kl_divergence",
        sample_distributions,
        per_row(divergence),
        EDGES,
        options=IN_BITS,
        identities=(
            Identity("none from itself", lambda: losses.kl_divergence(P, P), lambda: 0.0),
            Identity("of even odds it is what is missing", lambda: losses.kl_divergence(Q, P, base=2), lambda: 0.5),
            Identity(
                "the impossible costs 100 nats",
                lambda: losses.kl_divergence(CERTAIN, CERTAIN.roll(1, 0)),
                lambda: 100.0,
            ),
            Identity(
                "along another axis",
                lambda: losses.kl_divergence(torch.stack((Q, P), 1), torch.stack((P, P), 1), dim=0, reduction="none"),
                lambda: torch.tensor([0.5 * math.log(2), 0.0]),
            ),
        ),
        empty=nothing,
    ),
)
