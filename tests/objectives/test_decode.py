"""From outputs to detections."""

import functools
import math
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from lossatlas.boxes.coders import DeltaCoder, PointDistanceCoder
from lossatlas.boxes.nms import batched_nms, diou_nms, soft_nms
from lossatlas.objectives import FCOS, CenterNet, FCOSOutputs, RetinaNet, RetinaNetOutputs
from tests.objectives.scenes import TARGETS, centernet_outputs, fcos_outputs, retinanet_outputs


def test_retinanet_finds_the_objects_that_its_targets_describe() -> None:
    outputs = retinanet_outputs()
    logits, deltas = torch.full_like(outputs.class_logits, -20), torch.zeros_like(outputs.deltas)
    for image, (assignment, target) in enumerate(zip(RetinaNet().assign(outputs, TARGETS), TARGETS, strict=True)):
        for anchor in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[anchor]
            logits[image, anchor, target["labels"][row]] = 3 + row
            deltas[image, anchor] = DeltaCoder().encode(target["boxes"][row].double(), outputs.anchors[anchor])
    check_found(RetinaNet().decode(RetinaNetOutputs(logits, deltas, outputs.anchors)), power=1)


def test_fcos_finds_the_objects_that_its_targets_describe() -> None:
    outputs = fcos_outputs()
    logits, distances = torch.full_like(outputs.class_logits, -20), torch.zeros_like(outputs.distances)
    for image, (assignment, target) in enumerate(zip(FCOS().assign(outputs, TARGETS), TARGETS, strict=True)):
        for point in assignment.positive.nonzero().squeeze(1):
            row = assignment.matched[point]
            logits[image, point, target["labels"][row]] = 3 + row
            box = target["boxes"][row].double()
            distances[image, point] = PointDistanceCoder().encode(box, outputs.points[point], outputs.strides[point])
    sure = torch.full_like(outputs.centerness, 50)
    found = FCOS().decode(FCOSOutputs(logits, distances, sure, outputs.points, outputs.strides))
    check_found(found, power=0.5)


def check_found(found: list[dict[str, Tensor]], power: float) -> None:
    """One detection for each object that is no crowd region, the last of an image first."""
    for detections, rows, target in zip(found, ([2, 1, 0], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"].float(), target["boxes"][rows], rtol=0, atol=1e-4)
        scores = [(1 / (1 + math.exp(-3 - row))) ** power for row in rows]
        assert detections["scores"].tolist() == pytest.approx(scores)


def dense(logits: Tensor, centerness: Tensor) -> FCOSOutputs:
    """Points 100 pixels apart with boxes of 20 pixels around them: nothing overlaps."""
    count = logits.shape[1]
    points = torch.stack((torch.arange(count) * 100.0, torch.zeros(count)), dim=1)
    return FCOSOutputs(logits, torch.full((len(logits), count, 4), 10.0), centerness, points, torch.ones(count))


def test_scores_of_fcos_are_the_root_of_class_and_centerness() -> None:
    class_score, centerness = torch.tensor([[[0.9, 0.2], [0.4, 0.6]]]), torch.tensor([[0.5, 0.8]])
    (found,) = FCOS().decode(dense(class_score.logit(), centerness.logit()))
    expected = sorted([(0.45, 0), (0.1, 1), (0.32, 0), (0.48, 1)], reverse=True)
    assert found["scores"].square().tolist() == pytest.approx([score for score, _ in expected])
    assert found["labels"].tolist() == [label for _, label in expected]


def test_limits() -> None:
    scores = torch.tensor([0.9, 0.05, 0.3, 0.6, 0.04]).square()
    outputs = dense(scores.logit()[None, :, None], torch.full((1, 5), 50.0))

    def found(**options: Any) -> list[float]:
        return [round(score, 3) for score in FCOS().decode(outputs, **options)[0]["scores"].tolist()]

    assert found(score_threshold=0.2) == [0.9, 0.6, 0.3]
    assert found(score_threshold=0.045) == [0.9, 0.6, 0.3, 0.05]
    assert found(score_threshold=0) == [0.9, 0.6, 0.3, 0.05, 0.04]
    assert found(max_detections=2) == [0.9, 0.6]
    assert found(max_candidates=1) == [0.9]
    assert found(score_threshold=1) == []


def test_boxes_are_clipped_to_each_image() -> None:
    outputs = dense(torch.zeros(2, 2, 1), torch.zeros(2, 2))
    free = FCOS().decode(outputs)
    assert free[0]["boxes"].tolist() == [[-10, -10, 10, 10], [90, -10, 110, 10]]
    clipped = FCOS().decode(outputs, [(8, 100), (20, 200)])
    assert clipped[0]["boxes"].tolist() == [[0, 0, 10, 8], [90, 0, 100, 8]]
    assert clipped[1]["boxes"].tolist() == [[0, 0, 10, 10], [90, 0, 110, 10]]


def test_equal_scores_keep_the_order_of_the_predictions() -> None:
    outputs = dense(torch.zeros(1, 400, 2), torch.zeros(1, 400))
    (found,) = FCOS().decode(outputs, max_candidates=301, max_detections=300)
    assert found["boxes"][:, 0].tolist() == [100 * (rank // 2) - 10 for rank in range(300)]
    assert found["labels"].tolist() == [0, 1] * 150


def test_another_suppression_can_take_its_place() -> None:
    def keep_the_last(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
        assert threshold == 0.25
        return torch.tensor([len(boxes) - 1])

    outputs = retinanet_outputs(1)
    (found,) = RetinaNet().decode(outputs, iou_threshold=0.25, nms=keep_the_last)
    assert found["boxes"].shape == (1, 4)
    assert not found["boxes"].requires_grad


SUPPRESSIONS: dict[str, Any] = {
    "none": None,
    "hard": batched_nms,
    "torchvision": torchvision.ops.batched_nms,
    "torchvision, all classes alike": lambda boxes, scores, labels, limit: torchvision.ops.nms(boxes, scores, limit),
    "DIoU": diou_nms,
    "soft": soft_nms,
    "gaussian": functools.partial(soft_nms, decay="gaussian", sigma=0.2),
}


@pytest.mark.parametrize("name", SUPPRESSIONS)
@pytest.mark.parametrize("kind", ["fcos", "retinanet", "centernet"])
def test_every_suppression_fits_every_objective(kind: str, name: str) -> None:
    pairs: dict[str, Any] = {
        "fcos": (FCOS(), fcos_outputs()),
        "retinanet": (RetinaNet(), retinanet_outputs()),
        "centernet": (CenterNet(), centernet_outputs()),
    }
    objective, outputs = pairs[kind]
    nms = SUPPRESSIONS[name]
    options: Any = {"score_threshold": 0.3, "iou_threshold": 0.4, "max_detections": 60}
    raw = objective.decode(outputs, nms=None, **options | {"max_detections": 1000})
    found = objective.decode(outputs, nms=nms, **options)
    for every, detections in zip(raw, found, strict=True):
        scores = every["scores"]
        kept = torch.arange(len(scores)) if nms is None else nms(every["boxes"], scores, every["labels"], 0.4)
        if isinstance(kept, tuple):
            kept, scores = kept
        else:
            scores = scores[kept]
        assert len(kept) > 5
        assert torch.equal(detections["boxes"], every["boxes"][kept[:60]])
        assert torch.equal(detections["labels"], every["labels"][kept[:60]])
        assert torch.equal(detections["scores"], scores[:60])


@pytest.mark.parametrize(("images", "places"), [(0, 5), (2, 0)])
def test_nothing_to_decode(images: int, places: int) -> None:
    outputs = RetinaNetOutputs(torch.zeros(images, places, 3), torch.zeros(images, places, 4), torch.zeros(places, 4))
    found = RetinaNet().decode(outputs)
    assert [len(detections["scores"]) for detections in found] == [0] * images


def test_wrong_arguments_are_named() -> None:
    outputs = retinanet_outputs(2)
    with pytest.raises(ValueError, match="`image_sizes` must have one entry for each of the 2 images, but has 1"):
        RetinaNet().decode(outputs, [(10, 10)])
    with pytest.raises(ValueError, match="`max_detections` must be finite and at least 1"):
        RetinaNet().decode(outputs, max_detections=0)
    with pytest.raises(ValueError, match="`score_threshold` must be finite and at least 0 and at most 1"):
        RetinaNet().decode(outputs, score_threshold=5)
