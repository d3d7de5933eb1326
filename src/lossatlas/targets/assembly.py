"""From limbs to people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.dtypes import upcast
from lossatlas.targets.limbs import Limb, LimbRule, Matching, limb_scores, match_limbs
from lossatlas.targets.peaks import Peaks
from lossatlas.targets.skeletons import Skeleton


class Grouping(NamedTuple):
    """People as places among the peaks."""

    members: Int[Tensor, "n k"]
    """Place among the M peaks of each keypoint, -1 where there is none."""
    scores: Float[Tensor, " n"]
    """Sum of the heights of a person's peaks and of the scores of its limbs, over the number of its keypoints."""


@dataclass(eq=False)
class _Person:
    peaks: dict[int, int] = field(default_factory=dict)
    """Place among the peaks, by kind of keypoint."""
    total: float = 0.0
    counted: int = 0
    """Keypoints that the score is about."""

    @property
    def score(self) -> float:
        return self.total / self.counted


class _Assembly:
    """People while they are put together, and who has which peak, given by kind of keypoint and place."""

    def __init__(self, heights: list[list[float]]) -> None:
        self.heights = heights
        self.people: list[_Person] = []
        self.owner: dict[tuple[int, int], _Person] = {}

    def connect(self, first: tuple[int, int], second: tuple[int, int], score: float) -> None:
        """Take a limb between two peaks."""
        one, other = self.owner.get(first), self.owner.get(second)
        if one is None and other is None:
            one = _Person()
            self.people.append(one)
            self._add(one, first)
            self._add(one, second)
        elif one is None or other is None:
            one, end = (other, first) if one is None else (one, second)
            assert one is not None
            if end[0] in one.peaks:
                return
            self._add(one, end)
        elif one is not other:
            if one.peaks.keys() & other.peaks.keys():
                return
            self._merge(one, other)
        one.total += score

    def fill(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        """Add the other end of a limb to the person that has one."""
        for end, other in ((first, second), (second, first)):
            person = self.owner.get(other)
            if person is not None and end not in self.owner and end[0] not in person.peaks:
                person.peaks[end[0]] = end[1]
                self.owner[end] = person

    def _add(self, person: _Person, end: tuple[int, int]) -> None:
        person.peaks[end[0]] = end[1]
        person.total += self.heights[end[0]][end[1]]
        person.counted += 1
        self.owner[end] = person

    def _merge(self, one: _Person, other: _Person) -> None:
        one.peaks |= other.peaks
        one.total += other.total
        one.counted += other.counted
        self.owner |= dict.fromkeys(other.peaks.items(), one)
        self.people.remove(other)


def assemble_people(
    limbs: Sequence[Sequence[Limb]],
    peak_scores: Float[Tensor, "k m"],
    skeleton: Skeleton,
    *,
    min_keypoints: int = 3,
    min_score: float = 0.2,
) -> Grouping:
    """Put limbs together to people.

    The kinds of limbs are visited in the skeleton's order. A limb between two keypoints of nobody begins a person. A
    limb at one keypoint of a person adds its other end, unless the person has such a keypoint already. A limb between
    two people makes them one, unless both have the same kind of keypoint. A limb that is `Skeleton.filling` only adds
    its other end to a person, and counts for nothing in the score.

    Args:
        limbs: for each kind of limb those that were taken.
        peak_scores: ``(K, M)`` heights of the peaks.
        skeleton: what is put together.
        min_keypoints: people with fewer keypoints, those that a filling limb has added not counted, are left out.
        min_score: people with a lower score are left out.

    Returns:
        The people, best first.

    Raises:
        ValueError: another number of kinds of limbs than the skeleton has.

    Example:
        >>> arm = Skeleton.chain("arm", ["shoulder", "elbow", "wrist"], [(0, 1), (1, 2)])
        >>> heights = torch.tensor([[0.9, 0.8], [0.9, 0.8], [0.7, 0.6]])
        >>> limbs = [[Limb(0, 1, 0.9), Limb(1, 0, 0.8)], [Limb(1, 0, 0.7)]]
        >>> assemble_people(limbs, heights, arm, min_keypoints=2).members.tolist()
        [[0, 1, 0], [1, 0, -1]]

    Note:
        The published codes let a limb replace a keypoint that a person has already; here the limb visited first wins.

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        section 2.4; the ends of limbs from ear to shoulder: the authors' code.
    """
    if len(limbs) != len(skeleton.limbs):
        raise ValueError(f"`limbs` must have {len(skeleton.limbs)} entries, one for each kind, but has {len(limbs)}")
    assembly = _Assembly(peak_scores.tolist())
    for kind, (found, (start, end)) in enumerate(zip(limbs, skeleton.limbs, strict=True)):
        for limb in found:
            first, second = (start, limb.first), (end, limb.second)
            if kind in skeleton.filling:
                assembly.fill(first, second)
            else:
                assembly.connect(first, second, limb.score)
    people = [one for one in assembly.people if one.counted >= min_keypoints and one.score >= min_score]
    people.sort(key=lambda person: -person.score)
    index = torch.full((len(people), len(skeleton)), -1, dtype=torch.int64)
    for row, person in enumerate(people):
        index[row, list(person.peaks.keys())] = torch.tensor(list(person.peaks.values()))
    scores = peak_scores.new_tensor([person.score for person in people])
    return Grouping(index.to(peak_scores.device), scores)


def group_by_fields(
    peaks: Peaks,
    places: Float[Tensor, "k m 2"],
    fields: Float[Tensor, "maps h w"],
    skeleton: Skeleton,
    *,
    rule: LimbRule | None = None,
    matching: Matching = "greedy",
    stride: float = 1.0,
    min_keypoints: int = 3,
    min_score: float = 0.2,
) -> Grouping:
    """Put the peaks of one image together to people along part affinity fields.

    Args:
        peaks: ``(K, M)`` of the heatmaps.
        places: ``(K, M, 2)`` x, y of the peaks in cells of the fields.
        fields: ``(2 L, H, W)``, for each limb the map of x and then that of y.
        skeleton: of K keypoints and L limbs.
        rule: see `limb_scores`; `LIMB_RULES` has those of the published codes.
        matching: see `Matching`.
        stride: pixels between two cells.
        min_keypoints: people with fewer keypoints are left out; 3 in the published codes.
        min_score: people with a lower score are left out; 0.2 in the authors' code, 0.4 in OpenPose.

    Returns:
        The people, best first.

    Raises:
        ValueError: shapes that do not fit the skeleton, or a bad `matching`.
        ImportError: scipy is not installed, for ``"hungarian"``.

    Example:
        >>> from lossatlas.targets import KeypointHeatmaps, PartAffinityFields, find_peaks
        >>> arm = Skeleton.chain("arm", ["elbow", "wrist"], [(0, 1)])
        >>> people = torch.tensor([[[2.0, 2.0, 2.0], [9.0, 2.0, 2.0]], [[2.0, 9.0, 2.0], [9.0, 9.0, 2.0]]])
        >>> peaks = find_peaks(KeypointHeatmaps(sigma=1.0)(people, (12, 12), 1).heatmaps)
        >>> fields = PartAffinityFields(arm)(people, (12, 12), 1)
        >>> group_by_fields(peaks, peaks.cells.float(), fields, arm, min_keypoints=2).members.tolist()
        [[0, 0], [1, 1]]

    Reference:
        Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", 2017, arXiv 1611.08050,
        section 2.4.
    """
    if len(fields) != 2 * len(skeleton.limbs):
        raise ValueError(f"`fields` must have {2 * len(skeleton.limbs)} maps, two for each limb, but has {len(fields)}")
    if len(peaks.scores) != len(skeleton):
        raise ValueError(f"`peaks` must be of the skeleton's {len(skeleton)} keypoints, but are of {len(peaks.scores)}")
    fields, places = upcast(fields, places)
    fields, places, found = fields.cpu(), places.cpu(), peaks.found.cpu()
    limbs = []
    for pair, (first, second) in zip(fields.split(2), skeleton.limbs, strict=True):
        # Peaks that were found come before those that were not.
        start, end = places[first][found[first]], places[second][found[second]]
        candidates = limb_scores(pair, start, end, rule, stride=stride)
        limbs.append(match_limbs(candidates, matching))
    grouping = assemble_people(limbs, peaks.scores.cpu(), skeleton, min_keypoints=min_keypoints, min_score=min_score)
    return Grouping(grouping.members.to(peaks.scores.device), grouping.scores.to(peaks.scores.device))
