"""DETR's objective against its formula written as loops with every matching tried, its edges and its detections."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import Assignment
from lossatlas.losses import ciou_loss, giou_loss, sigmoid_focal_loss, smooth_l1_loss, varifocal_loss
from lossatlas.objectives import DETR, DETROutputs
from tests.objectives.scenes import EMPTY, TARGETS, gradient, leaf

QUERIES, LAYERS, CLASSES = 5, 3, 3
SIZES = torch.tensor([[48, 48], [40, 64], [48, 56]])


def scene(classes: int) -> tuple[Tensor, Tensor]:
    return leaf(LAYERS, 3, QUERIES, classes, seed=0), leaf(LAYERS, 3, QUERIES, 4, seed=1)


def outputs_of(logits: Tensor, boxes: Tensor) -> DETROutputs:
    return DETROutputs(logits, boxes.sigmoid(), SIZES)


def corners(box: Tensor) -> list[Tensor]:
    x, y, w, h = box
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def giou(a: list[Any], b: list[Any]) -> Any:
    zero = torch.zeros((), dtype=torch.float64)
    width, height = (torch.maximum(zero, torch.minimum(a[i + 2], b[i + 2]) - torch.maximum(a[i], b[i])) for i in (0, 1))
    around = [torch.maximum(a[i + 2], b[i + 2]) - torch.minimum(a[i], b[i]) for i in (0, 1)]
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - width * height
    return width * height / union - (around[0] * around[1] - union) / (around[0] * around[1])


def focal(logit: Tensor, positive: bool) -> Tensor:
    p = logit.sigmoid()
    return -0.25 * (1 - p) ** 2 * p.log() if positive else -0.75 * p**2 * (1 - p).log()


def parts(outputs: DETROutputs, layer: int, image: int, target: dict[str, Tensor], sigmoid: bool) -> list[Any]:
    """Sums of a layer and an image: class, box and iou terms, weights of the predictions and number of objects."""
    crowd = target.get("iscrowd", torch.zeros(len(target["labels"]))).tolist()
    height, width = SIZES[image].tolist()
    objects, regions = [], []
    for row, (x1, y1, x2, y2) in enumerate(target["boxes"].double().tolist()):
        if crowd[row]:
            regions.append((x1, y1, x2, y2))
        else:
            box = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            objects.append((torch.tensor(box, dtype=torch.float64), int(target["labels"][row])))
    logits, boxes = outputs.class_logits[layer, image], outputs.boxes[layer, image]

    def cost(query: int, place: int) -> float:
        box, label = objects[place]
        if sigmoid:
            said = 2 * (focal(logits[query, label], True) - focal(logits[query, label], False))
        else:
            said = -logits[query].softmax(0)[label]
        l1 = (boxes[query] - box).abs().sum()
        return (said + 5 * l1 - 2 * giou(corners(boxes[query]), corners(box))).item()  # type: ignore[no-any-return]

    costs = [[cost(query, place) for place in range(len(objects))] for query in range(QUERIES)]
    best = min(
        itertools.permutations(range(QUERIES), len(objects)),
        key=lambda queries: sum(costs[query][place] for place, query in enumerate(queries)),
    )
    owner = dict(zip(best, range(len(objects)), strict=True))
    zero = outputs.class_logits.sum() * 0 + outputs.boxes.sum() * 0
    class_sum, box_sum, iou_sum, weights = zero, zero, zero, 0.0
    for query in range(QUERIES):
        place = owner.get(query)
        x1, y1, x2, y2 = (c * s for c, s in zip(corners(boxes[query]), (width, height) * 2, strict=True))
        covered = any(
            max(min(x2, r2) - max(x1, r1), 0) * max(min(y2, b2) - max(y1, b1), 0) >= 0.5 * (x2 - x1) * (y2 - y1)
            for r1, b1, r2, b2 in regions
        )
        if place is None and covered:
            continue
        if sigmoid:
            label = None if place is None else objects[place][1]
            for index in range(CLASSES):
                class_sum = class_sum + focal(logits[query, index], index == label)
        else:
            label = CLASSES if place is None else objects[place][1]
            weight = 0.1 if place is None else 1.0
            class_sum = class_sum - weight * logits[query].log_softmax(0)[label]
            weights += weight
        if place is not None:
            box_sum = box_sum + (boxes[query] - objects[place][0]).abs().sum()
            iou_sum = iou_sum + 1 - giou(corners(boxes[query]), corners(objects[place][0]))
    return [class_sum, box_sum, iou_sum, weights, len(objects)]


@pytest.mark.parametrize("normalizer", ["batch", "image"])
@pytest.mark.parametrize("targets", [TARGETS, EMPTY], ids=["objects", "empty"])
@pytest.mark.parametrize("sigmoid", [False, True], ids=["softmax", "sigmoid"])
def test_formula(sigmoid: bool, targets: list[dict[str, Tensor]], normalizer: Any) -> None:
    leaves = scene(CLASSES if sigmoid else CLASSES + 1)
    again = [tensor.detach().clone().requires_grad_() for tensor in leaves]
    options: dict[str, Any] = {"class_loss": sigmoid_focal_loss, "class_weight": 2.0} if sigmoid else {}
    terms = DETR(normalizer=normalizer, auxiliary_weight=0.5, **options)(outputs_of(*leaves), targets)
    given = outputs_of(*again)
    found = [[parts(given, layer, i, target, sigmoid) for i, target in enumerate(targets)] for layer in range(LAYERS)]
    groups = [[0, 1, 2]] if normalizer == "batch" else [[0], [1], [2]]
    expected: dict[str, Tensor] = {}
    for layer in range(LAYERS):
        for images in groups:
            # The weights of the classes are the mean over the layers: they differ where crowd regions are left out.
            weights = sum(found[k][i][3] for k in range(LAYERS) for i in images) / LAYERS
            objects = max(sum(found[layer][i][4] for i in images), 1)
            for place, (name, factor) in enumerate((("class", 2 if sigmoid else 1), ("box", 5), ("iou", 2))):
                denominator = weights if name == "class" and not sigmoid else objects
                term = factor * sum(found[layer][i][place] for i in images) / denominator / len(groups)
                key, share = (name, 1.0) if layer == LAYERS - 1 else (f"aux_{name}", 0.5)
                expected[key] = expected.get(key, 0) + share * term
    assert sorted(terms) == sorted(expected)
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-9, atol=1e-12)
    terms.total.backward()
    torch.stack(list(expected.values())).sum().backward()
    for mine, other in zip(leaves, again, strict=True):
        torch.testing.assert_close(gradient(mine), gradient(other), rtol=1e-8, atol=1e-12)


def test_worked_by_hand() -> None:
    # Two queries, one object over the whole image of 10 x 20 pixels; the second query has its box and less of it.
    logits = torch.log(torch.tensor([[[[0.25, 0.75], [0.5, 0.5]]]]))
    boxes = torch.tensor([[[[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 0.75]]]])
    target = {"boxes": torch.tensor([[0.0, 0, 20, 10]]), "labels": torch.tensor([0])}
    terms = DETR()(DETROutputs(logits, boxes, torch.tensor([[10, 20]])), [target])
    # Costs: -0.25 + 5 · 0.75 - 2 · 0.5 and -0.5 + 5 · 0.25 - 2 · 0.75, so that the second is matched.
    assert list(terms) == ["class", "box", "iou"]
    assert terms["class"].item() == pytest.approx((math.log(2) + 0.1 * math.log(4 / 3)) / 1.1)
    assert terms["box"].item() == pytest.approx(5 * 0.25)
    assert terms["iou"].item() == pytest.approx(2 * (1 - 0.75))


def test_each_layer_is_matched_anew() -> None:
    logits, boxes = torch.zeros(2, 1, 2, 3), torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]])
    layers = torch.stack((boxes, boxes.flip(0)))[:, None]
    outputs = DETROutputs(logits, layers, torch.tensor([[8, 8]]))
    target = {"boxes": torch.tensor([[4.0, 4, 8, 8]]), "labels": torch.tensor([1])}
    assert [layer[0].matched.tolist() for layer in DETR().match(outputs, [target])] == [[-1, 0], [0, -1]]
    assert DETR().assign(outputs, [target])[0].matched.tolist() == [0, -1]


def test_losses_of_other_kinds_fit() -> None:
    logits, boxes = scene(CLASSES)
    given = outputs_of(logits, boxes)
    terms = DETR(class_loss=varifocal_loss, box_loss=smooth_l1_loss, iou_loss=ciou_loss)(given, TARGETS)
    assert terms["class"].item() > 0
    only = DETR(class_loss=sigmoid_focal_loss, box_loss=giou_loss, iou_weight=0, box_weight=2)(given, TARGETS)
    both = DETR(class_loss=sigmoid_focal_loss)(given, TARGETS)
    assert only["iou"].item() == 0
    assert only["box"].item() == pytest.approx(both["iou"].item())
    with pytest.raises(ValueError, match=r"`iou_loss` must be one of .*giou_loss.* but got sigmoid_focal_loss"):
        DETR(iou_loss=sigmoid_focal_loss)


def test_more_objects_than_queries() -> None:
    logits, boxes = leaf(1, 1, 2, CLASSES + 1, seed=3), leaf(1, 1, 2, 4, seed=4)
    terms = DETR()(DETROutputs(logits, boxes.sigmoid(), SIZES[:1]), TARGETS[:1])
    assigned = DETR().assign(DETROutputs(logits, boxes.sigmoid(), SIZES[:1]), TARGETS[:1])[0]
    assert assigned.positive.all()
    assert terms.total.isfinite()


def test_no_queries() -> None:
    logits = torch.zeros(2, 3, 0, CLASSES + 1, requires_grad=True)
    boxes = torch.zeros(2, 3, 0, 4, requires_grad=True)
    terms = DETR()(DETROutputs(logits, boxes, SIZES), TARGETS)
    assert terms.total.item() == 0
    terms.total.backward()
    assert gradient(logits).shape == logits.shape
    assert [len(found["scores"]) for found in DETR().decode(DETROutputs(logits, boxes, SIZES))] == [0, 0, 0]


def test_a_matching_of_ones_own() -> None:
    seen = []

    def first(logits: Tensor, boxes: Tensor, target: Any, image_size: tuple[int, int]) -> Assignment:
        seen.append((boxes, image_size))
        matched = torch.full((QUERIES,), -1)
        matched[: len(target["labels"])] = torch.arange(len(target["labels"]))
        return Assignment.build(matched, torch.zeros(QUERIES, dtype=torch.bool))

    logits, boxes = scene(CLASSES + 1)
    DETR(assigner=first)(outputs_of(logits, boxes), TARGETS)
    assert [size for _, size in seen] == [(48, 48), (40, 64), (48, 56)] * LAYERS
    x, y, w, h = (boxes.sigmoid()[1, 1] * torch.tensor([64, 40, 64, 40])).unbind(-1)
    torch.testing.assert_close(seen[4][0], torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=-1))


def test_softmax_detects_the_best_class_of_each_query_of_the_last_layer() -> None:
    logits, boxes = scene(CLASSES + 1)
    outputs = outputs_of(logits, boxes)
    for image, found in enumerate(DETR().decode(outputs)):
        height, width = SIZES[image].tolist()
        expected = []
        for query in range(QUERIES):
            scores = outputs.class_logits[-1, image, query].softmax(0)[:-1].tolist()
            box = [c * s for c, s in zip(corners(outputs.boxes[-1, image, query]), (width, height) * 2, strict=True)]
            expected.append((max(scores), scores.index(max(scores)), [c.item() for c in box]))
        expected.sort(reverse=True)
        assert found["scores"].tolist() == pytest.approx([score for score, _, _ in expected])
        assert found["labels"].tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(found["boxes"], torch.tensor([box for _, _, box in expected], dtype=torch.float64))


def test_sigmoid_detects_any_class_of_a_query() -> None:
    logits, boxes = scene(CLASSES)
    outputs = outputs_of(logits, boxes)
    (found, *_) = DETR(class_loss=sigmoid_focal_loss).decode(outputs, [(30, 30)] * 3, max_detections=8)
    scores = outputs.class_logits[-1, 0].sigmoid().flatten().sort(descending=True)
    assert found["scores"].tolist() == pytest.approx(scores.values[:8].tolist())
    assert found["labels"].tolist() == (scores.indices[:8] % CLASSES).tolist()
    assert found["boxes"].max().item() <= 30


def test_wrong_arguments_are_named() -> None:
    logits, boxes = torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 5, 4)
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(L, B, Q, K\), but got \(3, 5, 4\)"):
        DETROutputs(logits[0], boxes, SIZES)
    with pytest.raises(ValueError, match=r"`boxes` must have shape \(2, 3, 5, 4\), but got \(1, 3, 5, 4\)"):
        DETROutputs(logits, boxes[:1], SIZES)
    with pytest.raises(ValueError, match=r"`image_sizes` must have shape \(3, 2\), but got \(2, 2\)"):
        DETROutputs(logits, boxes, SIZES[:2])
    with pytest.raises(ValueError, match="`class_logits` must have at least one layer"):
        DETROutputs(logits[:0], boxes[:0], SIZES)
    with pytest.raises(ValueError, match="`no_object_weight` must be finite and above 0"):
        DETR(no_object_weight=0)
    with pytest.raises(ValueError, match="pass classifier='softmax' if it takes a vector of logits"):
        DETR(class_loss=lambda input, target, **options: input.sum())
    with pytest.raises(ValueError, match="`classifier` must be one of 'softmax', 'sigmoid'"):
        DETR(classifier="focal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`class_loss` must be one of .* but got cross_entropy"):
        DETR(classifier="sigmoid")
    assert DETR(class_loss=lambda input, target, **options: input.sum(), classifier="softmax").classifier == "softmax"
