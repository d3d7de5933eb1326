"""From peaks and tags to people: the grouping of associative embedding."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.checks import check_choice, check_number
from lossatlas.dtypes import upcast
from lossatlas.matching import least_cost_pairs
from lossatlas.targets.peaks import Peaks

TagCost: TypeAlias = Literal["rounded", "distance"]
"""What a match of a peak and a person costs: 100 · round(distance of their tags) - height of the peak, so that the
higher of two peaks with about the right tag wins (the authors' code), or the distance alone."""

TagDistance: TypeAlias = Literal["norm", "rms"]
"""Distance of tags of several dimensions: the Euclidean one (HigherHRNet, mmpose), or that divided by the square root
of the number of dimensions (the authors' code)."""


def peak_tags(tags: Float[Tensor, "maps h w"], peaks: Peaks, dimensions: int = 1) -> Float[Tensor, "k m d"]:
    """Return the tags at the peaks of one image.

    Args:
        tags: ``(D K, H, W)``, all maps of a dimension of the tag together, or ``(D, H, W)``, one map for all keypoints.
        peaks: ``(K, M)`` of the heatmaps.
        dimensions: D.

    Returns:
        ``(K, M, D)``.

    Raises:
        ValueError: tags of another number of maps.
    """
    kinds, places = peaks.scores.shape
    if tags.ndim != 3 or tags.shape[0] not in (dimensions, dimensions * kinds):
        expected = f"({dimensions} or {dimensions * kinds}, H, W)"
        raise ValueError(f"`tags` must have shape {expected}, but got {tuple(tags.shape)}")
    (tags,) = upcast(tags)
    maps = tags.flatten(1).unflatten(0, (dimensions, len(tags) // dimensions)).expand(-1, kinds, -1)
    index = peaks.cells[..., 1] * tags.shape[2] + peaks.cells[..., 0]
    found: Tensor = maps.gather(2, index.expand(dimensions, kinds, places)).movedim(0, -1)
    return found


def group_by_tags(
    peaks: Peaks,
    tags: Float[Tensor, "k m d"],
    *,
    order: Sequence[int] | None = None,
    tag_threshold: float = 1.0,
    cost: TagCost = "rounded",
    distance: TagDistance = "norm",
    max_people: int = 30,
) -> Int[Tensor, "n k"]:
    """Put the peaks of one image together to people whose tags agree.

    Each kind of keypoint in turn is matched with the people found so far, one peak to one person, at the least total
    cost, the distance of its tag to the mean tag of the person's. A match is taken if the distance is below
    `tag_threshold`; every other peak begins a new person.

    Args:
        peaks: ``(K, M)`` of the heatmaps.
        tags: ``(K, M, D)`` at the peaks, see `peak_tags`.
        order: kinds of keypoints in the order in which they are looked at; None is from 0 to K - 1. The first should
            be easy to find, see `lossatlas.targets.skeletons.Skeleton.order`.
        tag_threshold: above 0, in units of a tag.
        cost: see `TagCost`.
        distance: see `TagDistance`.
        max_people: people that are returned, those with the highest sum of heights.

    Returns:
        ``(N, K)`` int64: for each person the place among the M peaks of each keypoint, -1 where there is none; the
        highest sum of heights first.

    Raises:
        ValueError: shapes that do not fit, a `tag_threshold` that is not above 0, or a bad `order` or name.
        ImportError: scipy is not installed.

    Example:
        >>> cells, scores = torch.zeros(2, 2, 2, dtype=torch.int64), torch.tensor([[0.9, 0.8], [0.7, 0.6]])
        >>> peaks = Peaks(cells, scores, scores > 0)
        >>> group_by_tags(peaks, torch.tensor([[[1.0], [5.0]], [[5.1], [1.2]]])).tolist()
        [[0, 1], [1, 0]]

    Note:
        A pair that is too far apart costs as if it were just not. In the published codes it costs its distance: a peak
        whose person is not found yet then pushes peaks of others off their people, to be less far from one itself.
        People are told apart by number, not by tag, so that two of one kind of keypoint are never one person, even
        with equal tags: the published codes, which look people up by the tag, then lose one of them. Of people with
        equal tags the least cost, and then the earlier person, decides. The codes cut to `max_people` in the order in
        which people were found.

    Reference:
        Newell et al., "Associative Embedding", 2017, arXiv 1611.05424, section 3.2.
    """
    check_choice("cost", cost, get_args(TagCost))
    check_choice("distance", distance, get_args(TagDistance))
    check_number("tag_threshold", tag_threshold, above=0)
    check_number("max_people", max_people, at_least=1)
    kinds = len(peaks.scores)
    if tags.ndim != 3 or tags.shape[:2] != peaks.scores.shape:
        expected = (*peaks.scores.shape, "D")
        raise ValueError(f"`tags` must have shape ({', '.join(map(str, expected))}), but got {tuple(tags.shape)}")
    order = range(kinds) if order is None else order
    if sorted(order) != list(range(kinds)):
        raise ValueError(f"`order` must name each of the {kinds} keypoints once, but is {list(order)}")
    found, scores = peaks.found.cpu(), peaks.scores.cpu()
    places = tags.detach().cpu()
    people: list[list[int]] = []
    # Sum and number of the tags of each person.
    total, count = places.new_zeros(0, places.shape[2]), places.new_zeros(0, 1)
    for kind in order:
        candidates = found[kind].nonzero().squeeze(1)
        rest = set(candidates.tolist())
        if people and len(candidates):
            own = places[kind, candidates], total / count, scores[kind, candidates]
            for row, person in _agreeing(*own, tag_threshold, cost, distance):
                peak = int(candidates[row])
                people[person][kind] = peak
                total[person] += places[kind, peak]
                count[person] += 1
                rest.remove(peak)
        new = sorted(rest)
        people += [[peak if other == kind else -1 for other in range(kinds)] for peak in new]
        total = torch.cat((total, places[kind, new]))
        count = torch.cat((count, count.new_ones(len(new), 1)))
    index = torch.tensor(people, dtype=torch.int64).view(-1, kinds)
    height = torch.where(index >= 0, scores.gather(1, index.clamp(min=0).T).T, 0).sum(1)
    best = height.sort(descending=True, stable=True).indices[:max_people]
    return index[best].to(peaks.scores.device)


def _agreeing(
    tags: Tensor, mean_tags: Tensor, scores: Tensor, threshold: float, cost: TagCost, distance: TagDistance
) -> list[tuple[int, int]]:
    """Return which peaks of a kind go to which people, one to one at the least total cost.

    Args:
        tags: ``(M, D)`` of the peaks.
        mean_tags: ``(N, D)`` of the people.
        scores: ``(M,)`` heights of the peaks.
        threshold: distances from which on they do not agree.
        cost: see `TagCost`.
        distance: see `TagDistance`.
    """
    apart = (tags[:, None] - mean_tags).norm(dim=-1)
    if distance == "rms":
        apart = apart / max(tags.shape[1], 1) ** 0.5
    unit = 1.0 if cost == "distance" else 100.0
    price = apart if cost == "distance" else unit * apart.round() - scores[:, None]
    # What is not taken costs as much as what just is, however far apart.
    price = torch.where(apart < threshold, price, unit * threshold)
    pairs = zip(*least_cost_pairs(price, "group_by_tags"), strict=True)
    return [(int(peak), int(person)) for peak, person in pairs if apart[peak, person] < threshold]


def fill_missing(
    heatmaps: Float[Tensor, "k h w"],
    tags: Float[Tensor, "maps h w"],
    mean_tags: Float[Tensor, "n d"],
) -> tuple[Int[Tensor, "n k 2"], Float[Tensor, "n k"]]:
    """Return for each person and keypoint the best place by height and tag, for keypoints that no peak was found for.

    Formula:
        argmax over the cells of h_k - round(|tag_k - mean tag of the person|)

    Args:
        heatmaps: ``(K, H, W)``.
        tags: ``(D K, H, W)`` or ``(D, H, W)``.
        mean_tags: ``(N, D)``.

    Returns:
        ``(N, K, 2)`` column and row, and ``(N, K)`` the height there.

    Example:
        >>> heatmap, tags = torch.tensor([[[0.9, 0.2, 0.8]]]), torch.tensor([[[5.0, 1.0, 1.0]]])
        >>> fill_missing(heatmap, tags, torch.tensor([[1.2]]))[0].tolist()
        [[[2, 0]]]

    Reference:
        The code of Newell et al., 2017, arXiv 1611.05424; the height as in HigherHRNet's, where the first takes 1.
    """
    heatmaps, tags, mean_tags = upcast(heatmaps, tags, mean_tags)
    kinds, width = heatmaps.shape[0], heatmaps.shape[2]
    people, dimensions = mean_tags.shape
    maps = tags.flatten(1).unflatten(0, (dimensions, len(tags) // dimensions)).expand(-1, kinds, -1)
    cells, heights = [], []
    for mean in mean_tags:  # one after the other, so that memory is that of the maps
        apart = (maps - mean[:, None, None]).norm(dim=0)
        place = (heatmaps.flatten(1) - apart.round()).argmax(1)
        cells.append(torch.stack((place % width, place // width), -1))
        heights.append(heatmaps.flatten(1).gather(1, place[:, None])[:, 0])
    if not people:
        return heatmaps.new_zeros(0, kinds, 2, dtype=torch.int64), heatmaps.new_zeros(0, kinds)
    return torch.stack(cells), torch.stack(heights)
