"""Encoding people and decoding the ideal maps gives the same people back; every keypoint that is lost is explained."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lossatlas.objectives import (
    AssociativeEmbedding,
    AssociativeEmbeddingOutputs,
    PartAffinity,
    PartAffinityOutputs,
)
from lossatlas.targets import COCO, OPENPOSE_18, KeypointHeatmaps, Skeleton, coco_to_openpose

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiny_coco"
STRIDE = 4
NEAR = 2.0 * STRIDE
"""Two peaks closer than two cells are not always two."""

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs the small COCO set beside the repository")


@dataclass
class Tally:
    """Keypoints of all images, those that came back in the right person, and why the others did not."""

    labelled: int
    joined: int
    """Those of them in the largest part of their person that limbs hold together."""
    right: int
    reasons: Counter[str | None]
    unexplained: list[str]

    @property
    def share(self) -> float:
        return self.right / self.labelled


def images() -> Iterator[tuple[str, tuple[int, int], Tensor]]:
    """File, size of the maps and people of every image with people, all of COCO's keypoints."""
    for split in ("train", "val"):
        content = json.loads((DATA / f"{split}.json").read_text(encoding="utf-8"))
        people = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation.get("num_keypoints", 0) and not annotation["iscrowd"]:
                people[annotation["image_id"]].append(annotation["keypoints"])
        for image in content["images"]:
            if found := people[image["id"]]:
                size = (-(-image["height"] // STRIDE), -(-image["width"] // STRIDE))
                yield image["file_name"], size, torch.tensor(found, dtype=torch.float32).view(len(found), -1, 3)


def right_people(people: Tensor, found: Tensor) -> Tensor:
    """Which keypoints ``(N, K)`` came back within a cell, in the one person that is found for theirs."""
    apart = (found[None, ..., :2] - people[:, None, :, :2]).norm(dim=-1)
    back = (apart < STRIDE) & (found[None, ..., 2] > 0) & (people[:, None, :, 2] > 0)
    right = torch.zeros(people.shape[:2], dtype=torch.bool)
    rows, columns = linear_sum_assignment(back.sum(-1).numpy(), maximize=True)
    for row, column in zip(rows, columns, strict=True):
        right[row] = back[row, column]
    return right


def parts(person: Tensor, skeleton: Skeleton) -> list[set[int]]:
    """The labelled keypoints in parts that hang together by limbs between labelled keypoints, the largest first."""
    part = {k: {k} for k in range(len(person)) if person[k, 2] > 0}
    for limb, (a, b) in enumerate(skeleton.limbs):
        # Limbs that only fill in join no parts.
        if limb not in skeleton.filling and a in part and b in part and part[a] is not part[b]:
            part[a] |= part[b]
            for k in part[b]:
                part[k] = part[a]
    distinct = {id(one): one for one in part.values()}
    return sorted(distinct.values(), key=len, reverse=True)


def near_others(people: Tensor, n: int) -> list[int]:
    """Keypoints of a person that lie beside the same keypoint of another person."""
    labelled = people[..., 2] > 0
    apart = (people[n, None, :, :2] - people[..., :2]).norm(dim=-1)
    both = labelled & labelled[n]
    both[n] = False
    return [int(k) for k in (both & (apart < NEAR)).any(0).nonzero().squeeze(1)]


def reason(people: Tensor, n: int, k: int, skeleton: Skeleton, limbs: bool) -> str | None:
    """Why a keypoint cannot be expected back."""
    beside = near_others(people, n)
    if k in beside:
        return "another person's lies less than two cells away"
    torn = parts(people[n], skeleton)
    own = next(part for part in torn if k in part)
    # Only one part can be the person; of parts of the same size it may be any.
    if limbs and (len(own) == 1 or any(other is not own and len(other) >= len(own) for other in torn)):
        return "no labelled limb joins it to the rest of its person"
    if limbs and beside:
        return "its person lies on another's, less than two cells away"
    return None


def round_trip(decode: Callable[..., Tensor], skeleton: Skeleton, limbs: bool, convert: Any = None) -> Tally:
    tally = Tally(0, 0, 0, Counter(), [])
    for file, size, coco in images():
        people: Tensor = coco if convert is None else convert(coco)
        found = decode(people, size)
        right = right_people(people, found)
        lost = (people[..., 2] > 0) & ~right
        tally.labelled += int((people[..., 2] > 0).sum())
        tally.joined += sum(len(parts(person, skeleton)[0]) for person in people)
        tally.right += int(right.sum())
        for n, k in lost.nonzero().tolist():
            why = reason(people, n, k, skeleton, limbs)
            tally.reasons[why] += 1
            if why is None:
                tally.unexplained.append(f"{file}, person {n}, {skeleton.keypoints[k]}")
    return tally


@pytest.mark.parametrize("cost", ["rounded", "distance"])
def test_associative_embedding(cost: Any) -> None:
    objective = AssociativeEmbedding(heatmaps=KeypointHeatmaps(sigma=2.0), order=COCO.grouping_order)

    def decode(people: Tensor, size: tuple[int, int]) -> Tensor:
        each = objective.heatmaps(people[:, None], size, STRIDE).heatmaps
        height, tag = each.max(0)
        outputs = AssociativeEmbeddingOutputs(height[None], tag[None].float(), STRIDE)
        (poses,) = objective.decode(outputs, cost=cost, max_people=40)
        return poses["keypoints"]

    tally = round_trip(decode, COCO, limbs=False)
    assert tally.labelled > 1000
    assert tally.share >= 0.97
    assert not tally.unexplained


def field_decoder(skeleton: Skeleton, **options: Any) -> Callable[..., Tensor]:
    objective = PartAffinity(skeleton, heatmaps=KeypointHeatmaps(sigma=2.0))

    def decode(people: Tensor, size: tuple[int, int]) -> Tensor:
        maps = objective.heatmaps(people, size, STRIDE).heatmaps
        outputs = PartAffinityOutputs(maps[None], objective.fields(people, size, STRIDE)[None], STRIDE)
        (poses,) = objective.decode(outputs, min_keypoints=2, min_score=0, **options)
        return poses["keypoints"]

    return decode


@pytest.mark.parametrize(
    ("skeleton", "convert"), [(COCO, None), (OPENPOSE_18, coco_to_openpose)], ids=["coco", "openpose"]
)
def test_part_affinity_fields(skeleton: Skeleton, convert: Any) -> None:
    """A person falls into parts where keypoints are hidden: of the largest parts 97 % come back."""
    tally = round_trip(field_decoder(skeleton), skeleton, limbs=True, convert=convert)
    assert tally.joined < 0.97 * tally.labelled
    assert tally.right >= 0.97 * tally.joined
    assert not tally.unexplained


def test_part_affinity_fields_with_more_limbs() -> None:
    skeleton = OPENPOSE_18.denser(2)
    tally = round_trip(field_decoder(skeleton, matching="hungarian"), skeleton, limbs=True, convert=coco_to_openpose)
    assert tally.share >= 0.97
    assert not tally.unexplained
