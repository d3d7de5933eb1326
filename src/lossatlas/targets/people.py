"""The people of a batch in tensors of one shape, and where on a map nothing is known about them."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lossatlas.checks import check_choice, check_floating, check_integer
from lossatlas.targets.grid import Convention, cell_centers

Target: TypeAlias = Mapping[str, Tensor]
Masked: TypeAlias = Literal["crowd_and_unlabelled", "crowd"]
"""Where a map is not trained: in crowd regions and on people without a labelled keypoint, or in crowd regions alone."""


class People(NamedTuple):
    """The people of a batch, padded with people without keypoints to the same number in each image."""

    keypoints: Float[Tensor, "b n k 3"]
    """x and y in pixels and a visibility, 0 for keypoints that are not labelled and for padding."""
    boxes: Float[Tensor, "b n 4"]
    """xyxy pixels: the targets' boxes, or where there are none the boxes around the labelled keypoints."""
    areas: Float[Tensor, "b n"]
    """In pixels: the targets' areas, or where there are none half of the boxes', as COCO's people fill them."""
    rows: Int[Tensor, "b n"]
    """Row of each person in the target, -1 for padding."""


def check_people(name: str, target: Target, keypoints: int | None = None) -> None:
    """Raise unless a target holds ``keypoints`` (G, K, 3) and what else it has fits.

    Args:
        name: of the target, for messages.
        target: of one image.
        keypoints: K; None takes any.

    Raises:
        ValueError: a missing key or another shape.
        TypeError: another dtype.
    """
    if "keypoints" not in target:
        raise ValueError(f"`{name}` must have the key 'keypoints', but has {sorted(target)}")
    points = target["keypoints"]
    check_floating(f"{name}['keypoints']", points)
    if points.ndim != 3 or points.shape[2] != 3 or keypoints not in (None, points.shape[1]):
        kinds = "K" if keypoints is None else keypoints
        raise ValueError(f"`{name}['keypoints']` must have shape (G, {kinds}, 3), but got {tuple(points.shape)}")
    for key, shape in (("boxes", (len(points), 4)), ("area", (len(points),)), ("iscrowd", (len(points),))):
        if key in target and target[key].shape != shape:
            raise ValueError(f"`{name}[{key!r}]` must have shape {shape}, but got {tuple(target[key].shape)}")
    if "iscrowd" in target and target["iscrowd"].dtype != torch.bool:
        check_integer(f"{name}['iscrowd']", target["iscrowd"])
    if "masks" in target and (target["masks"].ndim != 3 or len(target["masks"]) != len(points)):
        got = tuple(target["masks"].shape)
        raise ValueError(f"`{name}['masks']` must have shape ({len(points)}, H, W), but got {got}")


def stack_people(
    targets: Sequence[Target], keypoints: int | None = None, *, device: torch.device | None = None
) -> People:
    """Return the people of a batch, without crowds and without people of whom no keypoint is labelled.

    Args:
        targets: for each image a dict with ``keypoints`` (G, K, 3): x, y in pixels and a visibility, 0 for one that
            is not labelled (COCO's 1 and 2 are both labelled); optionally ``boxes`` (G, 4) xyxy pixels, ``area`` (G,)
            in pixels and ``iscrowd`` (G,).
        keypoints: K; None reads it from the targets.
        device: of the result if there are no targets.

    Returns:
        The people of all images.

    Raises:
        ValueError: targets whose shapes do not fit, or no targets without `keypoints`.
        TypeError: another dtype.

    Example:
        >>> one = {"keypoints": torch.tensor([[[3.0, 4.0, 2.0], [0.0, 0.0, 0.0]]])}
        >>> stack_people([one, {"keypoints": torch.zeros(0, 2, 3)}]).keypoints.shape
        torch.Size([2, 1, 2, 3])
    """
    if keypoints is None:
        if not targets:
            raise ValueError("`targets` must have at least one entry, or `keypoints` must be given")
        check_people("targets[0]", targets[0])
        keypoints = targets[0]["keypoints"].shape[1]
    if not targets:
        none = torch.zeros(0, 0, device=device)
        return People(none.new_zeros(0, 0, keypoints, 3), none.new_zeros(0, 0, 4), none, none.long())
    found, boxes, areas, rows = [], [], [], []
    for index, target in enumerate(targets):
        check_people(f"targets[{index}]", target, keypoints)
        points = target["keypoints"].to(torch.promote_types(target["keypoints"].dtype, torch.float32))
        labelled = points[..., 2] > 0
        kept = labelled.any(1) & ~crowd_flags(target)
        found.append(torch.where(labelled[..., None], points, 0)[kept])
        around = target["boxes"].to(points.dtype) if "boxes" in target else keypoint_boxes(points)
        boxes.append(around[kept])
        sides = (around[:, 2:] - around[:, :2]).clamp(min=0)
        areas.append((target["area"].to(points.dtype) if "area" in target else sides.prod(1) / 2)[kept])
        rows.append(kept.nonzero().squeeze(1))
    keypoint_rows, box_rows, area_rows = (pad_sequence(each, True) for each in (found, boxes, areas))
    return People(keypoint_rows, box_rows, area_rows, pad_sequence(rows, True, -1))


def crowd_flags(target: Target) -> Bool[Tensor, " g"]:
    """Return which entries of a target are crowd regions."""
    if "iscrowd" in target:
        return target["iscrowd"].bool()
    return torch.zeros(len(target["keypoints"]), dtype=torch.bool, device=target["keypoints"].device)


def keypoint_boxes(keypoints: Float[Tensor, "*n k 3"]) -> Float[Tensor, "*n 4"]:
    """Return the xyxy boxes around the labelled keypoints, zeros where none is."""
    if not keypoints.shape[-2]:
        return keypoints.new_zeros(*keypoints.shape[:-2], 4)
    labelled = keypoints[..., 2:] > 0
    low = torch.where(labelled, keypoints[..., :2], torch.inf).amin(-2)
    high = torch.where(labelled, keypoints[..., :2], -torch.inf).amax(-2)
    return torch.where(labelled.any(-2), torch.cat((low, high), -1), 0)


def people_mask(
    targets: Sequence[Target],
    size: tuple[int, int],
    stride: float,
    *,
    masked: Masked = "crowd_and_unlabelled",
    convention: Convention = "center",
) -> Bool[Tensor, "b h w"]:
    """Return which cells of the maps are trained: all but those on people whose keypoints are not known.

    Args:
        targets: as `stack_people` takes them. Regions come from ``masks`` (G, H, W) at the resolution of the image
            where there are any, else from ``boxes``; a target with neither has none.
        size: height and width of the maps in cells.
        stride: pixels between two cells.
        masked: ``"crowd_and_unlabelled"`` as in HigherHRNet, or ``"crowd"`` as in the code of associative embedding.
        convention: where the cells lie.

    Returns:
        ``(B, H, W)``, False where the middle of a cell lies in a region that is left out.

    Raises:
        ValueError: targets whose shapes do not fit, or a bad `masked` or `convention`.
        TypeError: another dtype.

    Example:
        >>> crowd = {"keypoints": torch.zeros(1, 17, 3), "boxes": torch.tensor([[0.0, 0, 8, 4]])}
        >>> people_mask([crowd], (2, 3), 4)
        tensor([[[False, False,  True],
                 [ True,  True,  True]]])
    """
    check_choice("masked", masked, get_args(Masked))
    images = []
    for index, target in enumerate(targets):
        check_people(f"targets[{index}]", target)
        points = target["keypoints"]
        left_out = crowd_flags(target)
        if masked == "crowd_and_unlabelled":
            left_out = left_out | ~(points[..., 2] > 0).any(1)
        x, y = cell_centers(size, stride, convention, device=points.device)
        region = torch.zeros(0, *size, dtype=torch.bool, device=points.device)
        if "masks" in target:
            region = _sample(target["masks"][left_out].bool(), x, y)
        elif "boxes" in target:
            x1, y1, x2, y2 = target["boxes"][left_out][..., None].unbind(1)
            region = ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None, :]
        images.append(~region.any(0))
    return torch.stack(images) if images else torch.ones(0, *size, dtype=torch.bool)


def _sample(masks: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the masks ``(G, H, W)`` at the pixels nearest to columns x and rows y; False outside."""
    height, width = masks.shape[1:]
    column, row = (x + 0.5).floor().long(), (y + 0.5).floor().long()
    inside = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))
    if not height or not width:
        return inside.expand(len(masks), -1, -1)
    return masks[:, row.clamp(0, height - 1)[:, None], column.clamp(0, width - 1)] & inside
