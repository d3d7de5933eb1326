"""The second stage's objective, and both stages together."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import IoUBalancedSampler, MaxIoU, RandomSampler
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.geometry import pairwise_iou
from lossatlas.boxes.priors import anchor_grid
from lossatlas.losses import giou_loss, sigmoid_focal_loss
from lossatlas.objectives import RPN, FasterRCNN, FasterRCNNOutputs, Regions, RoIHead, RoIOutputs, RPNOutputs
from tests.objectives.cases import CASES, roi_leaves, roi_outputs, rpn_leaves, rpn_outputs
from tests.objectives.scenes import CLASSES, SIZES, STRIDES, TARGETS, gradient, leaf
from tests.objectives.test_retinanet import smooth_l1
from tests.objectives.test_ssd import costs

PROPOSALS = [anchor_grid(SIZES, STRIDES, base_size=2, octave_scales=(0.75, 1.25, 1.75), dtype=torch.float64)] * 3


def sampled(seed: int = 0) -> Regions:
    head = RoIHead(sampler=RandomSampler(16, 0.25))
    return head.sample(PROPOSALS, TARGETS, torch.Generator().manual_seed(seed))


def test_sampled_regions() -> None:
    regions, again, other = sampled(), sampled(), sampled(1)
    assert regions.assignments is not None
    assert [len(boxes) for boxes in regions.boxes] == [16, 16, 16]
    assert [int(one.positive.sum()) for one in regions.assignments] == [4, 0, 4]
    for boxes, assignment, target in zip(regions.boxes, regions.assignments, TARGETS, strict=True):
        alone = MaxIoU.roi()(boxes, target)
        assert torch.equal(alone.state, assignment.state)
        assert torch.equal(alone.matched, assignment.matched)
    assert all(map(torch.equal, regions.boxes, again.boxes))
    assert not all(map(torch.equal, regions.boxes, other.boxes))


def test_objects_are_among_the_regions_but_crowds_are_not() -> None:
    nothing = [torch.zeros(0, 4)] * 3
    regions = RoIHead().sample(nothing, TARGETS)
    assert [boxes.tolist() for boxes in regions.boxes] == [TARGETS[0]["boxes"].tolist(), [], [[4, 4, 20, 18]]]
    assert [len(boxes) for boxes in RoIHead(append_objects=False).sample(nothing, TARGETS).boxes] == [0, 0, 0]


def test_negatives_can_be_balanced_by_their_overlap() -> None:
    def by_thirds(head: RoIHead) -> list[float]:
        regions = head.sample(PROPOSALS, TARGETS, torch.Generator().manual_seed(0))
        assert regions.assignments is not None
        negative = regions.boxes[0][regions.assignments[0].negative]
        best = pairwise_iou(negative, TARGETS[0]["boxes"].double()).amax(1)
        return torch.histc(best, 3, 0, 0.5).tolist()

    random, balanced = (RoIHead(sampler=sampler(24, 0.25)) for sampler in (RandomSampler, IoUBalancedSampler))
    assert by_thirds(balanced) == [6, 6, 6]
    assert by_thirds(random) != [6, 6, 6]


@pytest.mark.parametrize("boxes", [1, CLASSES, CLASSES + 1])
@pytest.mark.parametrize("background", ["first", "last"])
def test_formula(boxes: int, background: Any) -> None:
    regions = sampled()
    assert regions.assignments is not None
    logits, deltas = leaf(48, CLASSES + 1, seed=0), leaf(48, boxes, 4, seed=1)
    class_sum = box_sum = 0.0
    row = 0
    for image, assignment in enumerate(regions.assignments):
        for region, (state, matched) in enumerate(
            zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)
        ):
            label = int(TARGETS[image]["labels"][matched]) if state else -1
            index = label + 1 if background == "first" else label % (CLASSES + 1)
            class_sum += costs(logits[row].tolist())[index if state or background == "first" else CLASSES]
            if state:
                rx1, ry1, rx2, ry2 = regions.boxes[image][region].tolist()
                x1, y1, x2, y2 = TARGETS[image]["boxes"][matched].tolist()
                rw, rh, w, h = rx2 - rx1, ry2 - ry1, x2 - x1, y2 - y1
                encoded = [
                    10 * (x1 + x2 - rx1 - rx2) / 2 / rw, 10 * (y1 + y2 - ry1 - ry2) / 2 / rh,
                    5 * math.log(w / rw), 5 * math.log(h / rh),
                ]  # fmt: skip
                column = {1: 0, CLASSES: label, CLASSES + 1: index}[boxes]
                box_sum += sum(smooth_l1(d - e, 1) for d, e in zip(deltas[row, column].tolist(), encoded, strict=True))
            row += 1
    assert row == 48
    terms = RoIHead(background=background, class_weight=2, box_weight=3)(RoIOutputs(logits, deltas, regions), TARGETS)
    assert terms["class"].item() == pytest.approx(2 * class_sum / 48, rel=1e-6)
    assert terms["box"].item() == pytest.approx(3 * box_sum / 48, rel=1e-6)
    terms.total.backward()
    positive = torch.cat([one.positive for one in regions.assignments])
    assert ((gradient(deltas) != 0).any(-1).sum(1) == positive).all()


def test_a_case_by_hand() -> None:
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1])}
    regions = Regions([torch.tensor([[0.0, 0, 10, 10], [0.0, 1, 10, 11], [30.0, 0, 40, 10]])])
    logits = torch.tensor([[0.0, 0.0, math.log(2)], [0.0, 0.0, 0.0], [math.log(6), 0.0, 0.0]])
    # -ln 2/4, -ln 1/3, -ln 6/8. The second region is a tenth too low: encoded -1, L1 of 1 less 1/2.
    terms = RoIHead()(RoIOutputs(logits, torch.zeros(3, 2, 4), regions), [target])
    assert terms["class"].item() == pytest.approx((math.log(2) + math.log(3) + math.log(4 / 3)) / 3)
    assert terms["box"].item() == pytest.approx(0.5 / 3)


def detected(boxes: int, background: Any) -> list[dict[str, Tensor]]:
    """Detections of regions whose outputs describe the targets."""
    head = RoIHead(background=background)
    regions = Regions(PROPOSALS)
    count = sum(map(len, PROPOSALS))
    first = int(background == "first")
    logits, deltas = torch.zeros(count, CLASSES + 1).double(), torch.zeros(count, boxes, 4).double()
    logits[:, 0 if first else CLASSES] = 20
    for image, (assignment, target) in enumerate(zip(head.assign(PROPOSALS, TARGETS), TARGETS, strict=True)):
        for region in assignment.positive.nonzero().squeeze(1).tolist():
            row, matched = image * len(PROPOSALS[0]) + region, int(assignment.matched[region])
            label = int(target["labels"][matched])
            logits[row] = 0
            logits[row, label + first] = 3 + matched
            column = {1: 0, CLASSES: label, CLASSES + 1: label + first}[boxes]
            deltas[row, column] = DeltaCoder((10, 10, 5, 5)).encode(
                target["boxes"][matched].double(), PROPOSALS[image][region]
            )
    return head.decode(RoIOutputs(logits, deltas, regions), score_threshold=0.5)


@pytest.mark.parametrize("boxes", [1, CLASSES, CLASSES + 1])
@pytest.mark.parametrize("background", ["first", "last"])
def test_finds_the_objects_that_its_targets_describe(boxes: int, background: Any) -> None:
    for detections, rows, target in zip(detected(boxes, background), ([2, 1, 0], [], [0]), TARGETS, strict=True):
        assert detections["labels"].tolist() == target["labels"][rows].tolist()
        torch.testing.assert_close(detections["boxes"].float(), target["boxes"][rows], rtol=0, atol=1e-4)
        expected = [math.exp(3 + row) / (math.exp(3 + row) + CLASSES) for row in rows]
        assert detections["scores"].tolist() == pytest.approx(expected)


class TinyDetector(torch.nn.Module):
    """Two stages without features: what they put out are parameters."""

    def __init__(self) -> None:
        super().__init__()
        raw = rpn_leaves(3)
        self.objectness = torch.nn.Parameter(raw["objectness_logits"].detach())
        self.deltas = torch.nn.Parameter(raw["deltas"].detach())
        self.second = torch.nn.Linear(4, CLASSES + 1 + 4 * CLASSES).double()

    def forward(
        self, objective: FasterRCNN, targets: list[dict[str, Tensor]] | None = None, seed: int = 0
    ) -> FasterRCNNOutputs:
        first = rpn_outputs({"objectness_logits": self.objectness, "deltas": self.deltas})
        proposals = objective.propose(first, [(48, 48)] * 3, max_detections=50)
        regions = Regions(proposals)
        if targets is not None:
            regions = objective.sample(proposals, targets, torch.Generator().manual_seed(seed))
        raw = self.second(torch.cat(list(regions.boxes)) / 48)
        return FasterRCNNOutputs(
            first, RoIOutputs(raw[:, : CLASSES + 1], raw[:, CLASSES + 1 :].unflatten(1, (CLASSES, 4)), regions)
        )


def test_a_network_asks_between_its_stages() -> None:
    objective = FasterRCNN(rpn=RPN(normalization="sampled"), head=RoIHead(box_loss=giou_loss))
    network = TinyDetector()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    totals = []
    for _ in range(8):
        terms = objective(network(objective, TARGETS), TARGETS, generator=torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        terms.total.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()
        totals.append(terms.total.item())
    assert totals[-1] < 0.8 * totals[0]
    found = objective.decode(network(objective), [(48, 48)] * 3, score_threshold=0.0)
    assert [sorted(detections) for detections in found] == [["boxes", "labels", "scores"]] * 3


def test_the_gradient_of_the_second_stage_stops_at_the_regions() -> None:
    objective, network = FasterRCNN(), TinyDetector()
    terms = objective(network(objective, TARGETS), TARGETS)
    for name in ("class", "box"):
        grads = torch.autograd.grad(terms[name], list(network.parameters()), allow_unused=True, retain_graph=True)
        assert [grad is None for grad in grads] == [True, True, False, False]


def test_no_regions() -> None:
    logits, deltas = leaf(0, CLASSES + 1, seed=0), leaf(0, 1, 4, seed=0)
    terms = RoIHead()(RoIOutputs(logits, deltas, Regions([torch.zeros(0, 4)] * 3)), TARGETS)
    assert terms.total.item() == 0
    terms.total.backward()
    assert gradient(logits).shape == logits.shape
    found = RoIHead().decode(RoIOutputs(logits, deltas, Regions([torch.zeros(0, 4)] * 3)))
    assert [len(detections["scores"]) for detections in found] == [0, 0, 0]


def test_wrong_arguments_are_named() -> None:
    regions = Regions([torch.zeros(2, 4), torch.zeros(1, 4)])
    with pytest.raises(ValueError, match=r"`class_logits` must have shape \(3, C\+1\), but got \(2, 4\)"):
        RoIOutputs(torch.zeros(2, 4), torch.zeros(3, 1, 4), regions)
    with pytest.raises(ValueError, match="`deltas` must have 1, 3 or 4 boxes for 4 logits of a region, but has 2"):
        RoIOutputs(torch.zeros(3, 4), torch.zeros(3, 2, 4), regions)
    with pytest.raises(ValueError, match=r"`assignments` must have the lengths of `boxes`, \[2, 1\], but got \[2\]"):
        Regions(regions.boxes, [MaxIoU.roi()(regions.boxes[0], TARGETS[1])])
    with pytest.raises(ValueError, match=r"`boxes\[0\]` must have shape \(P, 4\)"):
        Regions([torch.zeros(4)])
    with pytest.raises(ValueError, match=r"`class_loss` must be one of cross_entropy, .* but got sigmoid_focal_loss"):
        RoIHead(class_loss=sigmoid_focal_loss)
    with pytest.raises(ValueError, match="`head` must have the regions of the 3 images of `rpn`, but has those of 1"):
        FasterRCNNOutputs(rpn_outputs(rpn_leaves(3)), roi_outputs(roi_leaves(1)))
    with pytest.raises(ValueError, match="`targets` must have one entry for each of the 3 images, but has 2"):
        FasterRCNN()(CASES["faster_rcnn"].outputs(CASES["faster_rcnn"].leaves(3)), TARGETS[:2])


def test_outputs_of_the_first_stage_alone() -> None:
    outputs = CASES["faster_rcnn"].outputs(CASES["faster_rcnn"].leaves(3))
    assert isinstance(outputs.rpn, RPNOutputs)
    first = FasterRCNN().assign(outputs, TARGETS)
    assert [one.state.tolist() for one in first] == [one.state.tolist() for one in RPN().assign(outputs.rpn, TARGETS)]
