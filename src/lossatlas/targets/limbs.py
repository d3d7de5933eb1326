"""From peaks and part affinity fields to limbs: line integrals, and which of the possible limbs are taken."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.matching import least_cost_pairs

Matching: TypeAlias = Literal["greedy", "hungarian"]
"""Which of the possible limbs of a kind are taken: the best first (the codes), or those with the highest total score
(the text of the paper)."""


@dataclass(frozen=True)
class LimbRule:
    """How the score of a possible limb is measured, and from when on it is one.

    Args:
        samples: points between the two ends at which the field is read; None is OpenPose's number, √(5 · the longer
            side in pixels) rounded, from 5 to 25.
        include_end: whether the last point is the end of the limb; else the points are the starts of as many parts.
        floor: a point counts as on the limb if the field along it is above it.
        share: more than this share of the points must be on the limb.
        mean_of: whether the score is the mean over the points ``"on_limb"``, or over ``"all"``.
        prior: whether limbs longer than half the height of the image lose ½ height / length - 1.

    Raises:
        ValueError: a number out of its range or an unknown name.
    """

    samples: int | None = 10
    include_end: bool = True
    floor: float = 0.05
    share: float = 0.8
    mean_of: Literal["on_limb", "all"] = "on_limb"
    prior: bool = True

    def __post_init__(self) -> None:
        if self.samples is not None:
            check_number("samples", self.samples, at_least=2)
        check_number("share", self.share, at_least=0, below=1)
        check_number("floor", self.floor)
        check_choice("mean_of", self.mean_of, ("on_limb", "all"))


LIMB_RULES = {
    "realtime": LimbRule(),
    "lightweight": LimbRule(prior=False),
    "tensorboy": LimbRule(mean_of="all"),
    "openpose": LimbRule(samples=None, include_end=False, share=0.95, prior=False),
    "integral": LimbRule(floor=-2.0, share=0.0, mean_of="all", prior=False),
}
"""Rules by name: those of the authors' MATLAB of 2017, the lightweight port, tensorboy's port and OpenPose, and the
paper's line integral alone, which takes every limb with a score above 0."""

_MOST_SAMPLES = 25


class LimbScores(NamedTuple):
    """Possible limbs between A starts and C ends."""

    scores: Float[Tensor, "a c"]
    """Mean of the field along the limb, at most 1 for a field of unit vectors."""
    accepted: Bool[Tensor, "a c"]
    """Whether it can be a limb."""


class Limb(NamedTuple):
    """A limb that was taken: the places of its ends among the peaks, and its score."""

    first: int
    second: int
    score: float


def limb_scores(
    field: Float[Tensor, "2 h w"],
    start: Float[Tensor, "a 2"],
    end: Float[Tensor, "c 2"],
    rule: LimbRule | None = None,
    *,
    stride: float = 1.0,
) -> LimbScores:
    """Return how well a part affinity field supports each limb from one of the starts to one of the ends.

    Formula:
        e = mean of F(g_i) · v over points g_i from a to b, v = (b - a) / |b - a|, F read at the nearest cell

    Args:
        field: ``(2, H, W)`` x and y of the vectors of one kind of limb.
        start: ``(A, 2)`` x, y in cells.
        end: ``(C, 2)`` x, y in cells.
        rule: what the mean is over, and what can be a limb; None is `LimbRule()`.
        stride: pixels between two cells, for a rule whose number of points depends on the length in pixels.

    Returns:
        Scores and whether a limb is accepted, both ``(A, C)``. A limb without a length has no direction, and is not.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> field = torch.tensor([[[1.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])
        >>> ends = torch.tensor([[2.0, 0.0], [3.0, 0.0]])
        >>> limb_scores(field, torch.zeros(1, 2), ends, LIMB_RULES["integral"]).scores
        tensor([[1.0000, 0.8000]])

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        section 2.3. What is accepted: the authors' code.
    """
    rule = rule or LimbRule()
    if field.ndim != 3 or len(field) != 2:
        raise ValueError(f"`field` must have shape (2, H, W), but got {tuple(field.shape)}")
    field, start, end = upcast(field, start, end)
    height, width = field.shape[1:]
    vector = end - start[:, None]
    length = vector.norm(dim=-1)
    if rule.samples is None:
        number = (5 * stride * vector.abs().amax(-1)).sqrt().round().clamp(5, _MOST_SAMPLES)
    else:
        number = torch.full_like(length, float(rule.samples))
    step = torch.arange(rule.samples or _MOST_SAMPLES, dtype=field.dtype, device=field.device)
    read = step < number[..., None]
    part = step / (number - 1 if rule.include_end else number)[..., None]
    point = start[:, None, None] + part[..., None] * vector[:, :, None]
    x, y = (point + 0.5).floor().long().unbind(-1)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    direction = vector / torch.where(length > 0, length, 1)[..., None]
    along = (field.flatten(1)[:, index] * direction.movedim(-1, 0)[..., None]).sum(0)
    on_limb = read & (along > rule.floor)
    hits = on_limb.sum(-1)
    counted = on_limb if rule.mean_of == "on_limb" else read
    mean = torch.where(counted, along, 0).sum(-1) / counted.sum(-1).clamp(min=1)
    if rule.prior:
        mean = mean + (height / 2 / torch.where(length > 0, length, 1) - 1).clamp(max=0)
    return LimbScores(mean, (length > 0) & (hits > rule.share * number) & (mean > 0))


def match_limbs(candidates: LimbScores, matching: Matching = "greedy") -> list[Limb]:
    """Return limbs no two of which share an end, best first.

    Args:
        candidates: ``(A, C)`` possible limbs of one kind.
        matching: see `Matching`.

    Raises:
        ValueError: a bad `matching`.
        ImportError: scipy is not installed, for ``"hungarian"``.

    Example:
        >>> scores = torch.tensor([[0.9, 0.8], [0.7, 0.1]])
        >>> candidates = LimbScores(scores, scores > 0)
        >>> [(limb.first, limb.second) for limb in match_limbs(candidates)]
        [(0, 0), (1, 1)]
        >>> [(limb.first, limb.second) for limb in match_limbs(candidates, "hungarian")]
        [(0, 1), (1, 0)]
    """
    check_choice("matching", matching, get_args(Matching))
    scores, accepted = candidates.scores.detach().cpu(), candidates.accepted.cpu()
    if matching == "hungarian":
        rows, columns = least_cost_pairs(-torch.where(accepted, scores, 0), "match_limbs")
        kept = accepted[rows, columns]
        pairs = torch.stack((rows[kept], columns[kept]), 1)
    else:
        pairs = accepted.nonzero()
    order = scores[pairs[:, 0], pairs[:, 1]].sort(descending=True, stable=True).indices
    limbs: list[Limb] = []
    starts, ends = set(), set()
    for start, end in pairs[order].tolist():
        if start not in starts and end not in ends:
            limbs.append(Limb(start, end, float(scores[start, end])))
            starts.add(start)
            ends.add(end)
    return limbs
