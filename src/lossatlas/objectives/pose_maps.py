"""What the pose objectives share: checks of maps and stages, and the heatmap term of several people."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lossatlas.checks import check_floating
from lossatlas.objectives.map_slots import MapLoss
from lossatlas.targets.grid import Convention
from lossatlas.targets.heatmaps import KeypointHeatmaps
from lossatlas.targets.people import Masked, People, Target, people_mask, stack_people

Poses: TypeAlias = dict[str, Tensor]
"""The people of an image: ``keypoints`` (P, K, 3), x, y in pixels and a score, 0 where none was found, and ``scores``
(P,), best first."""


def check_maps(name: str, maps: Tensor, like: Tensor | None = None) -> None:
    """Raise unless maps are floating point with four axes, and cover the same images and cells as others."""
    check_floating(name, maps)
    if maps.ndim != 4:
        raise ValueError(f"`{name}` must have shape (B, maps, H, W), but got {tuple(maps.shape)}")
    if like is not None and (maps.shape[0], maps.shape[2:]) != (like.shape[0], like.shape[2:]):
        expected = f"({like.shape[0]}, maps, {like.shape[2]}, {like.shape[3]})"
        raise ValueError(f"`{name}` must have shape {expected}, but got {tuple(maps.shape)}")


def check_stages(name: str, stages: Sequence[Tensor], last: Tensor) -> None:
    """Raise unless there are as many images and maps in each earlier stage as in the last."""
    for index, maps in enumerate(stages):
        check_maps(f"{name}[{index}]", maps)
        if maps.shape[:2] != last.shape[:2]:
            expected = f"({last.shape[0]}, {last.shape[1]}, *, *)"
            raise ValueError(f"`{name}[{index}]` must have shape {expected}, but got {tuple(maps.shape)}")


def stage_stride(last: Tensor, stride: float, maps: Tensor) -> float:
    """Return the stride of maps that cover the same image as the last ones, whose stride is given."""
    return stride * last.shape[2] / max(maps.shape[2], 1)


def people_of(targets: Sequence[Target], maps: Tensor, keypoints: int) -> People:
    """Return the people of a batch, for maps of which the first axis is the images'.

    Raises:
        ValueError: another number of targets, or targets that do not fit.
    """
    if len(targets) != len(maps):
        raise ValueError(f"`targets` must have one entry for each of the {len(maps)} images, but has {len(targets)}")
    return stack_people(targets, keypoints, device=maps.device)


def trained_cells(
    targets: Sequence[Target], maps: Tensor, stride: float, masked: Masked, convention: Convention
) -> Tensor:
    """Return which cells of maps are trained, ``(B, 1, H, W)``."""
    mask = people_mask(targets, (maps.shape[2], maps.shape[3]), stride, masked=masked, convention=convention)
    return mask[:, None].to(maps.device)


def heatmap_term(
    loss: MapLoss,
    draw: KeypointHeatmaps,
    stages: Sequence[Tensor],
    stride: float,
    people: People,
    targets: Sequence[Target],
    masked: Masked,
) -> Tensor:
    """Return the loss of the heatmaps of several people, added over the stages.

    Args:
        loss: slot of the loss.
        draw: how the Gaussians are drawn.
        stages: maps ``(B, K, H, W)`` of each stage, one map more with a background, those of the last stage last.
        stride: pixels between two cells of the last stage.
        people: of the batch.
        targets: the people come from, and what is masked.
        masked: where the maps are not trained.
    """
    terms = []
    for maps in stages:
        step = stage_stride(stages[-1], stride, maps)
        target, drawn = loss.fit(draw)(people.keypoints, (maps.shape[2], maps.shape[3]), step, people.boxes)
        trained = trained_cells(targets, maps, step, masked, draw.convention)
        terms.append(loss(maps, target, trained.expand(maps.shape), drawn.sum()))
    return torch.stack(terms).sum()


def to_poses(places: Tensor, heights: Tensor, members: Tensor, scores: Tensor) -> Poses:
    """Return the people of one image from the peaks that they have.

    Args:
        places: ``(K, M, 2)`` x, y of the peaks in pixels.
        heights: ``(K, M)`` of the peaks.
        members: ``(P, K)`` place among the peaks, -1 where there is none.
        scores: ``(P,)`` of the people.
    """
    kinds = torch.arange(members.shape[1], device=members.device)
    index = members.clamp(min=0)
    if not places.shape[1]:
        return {"keypoints": places.new_zeros(len(members), len(kinds), 3), "scores": scores}
    found = torch.cat((places[kinds, index], heights[kinds, index][..., None]), -1)
    return {"keypoints": torch.where(members[..., None] >= 0, found, 0), "scores": scores}
