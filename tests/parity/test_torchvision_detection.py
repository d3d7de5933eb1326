"""Coders, anchors, suppression, assigners and objectives against torchvision's, on the same inputs.

Where torchvision does something else on purpose or by accident, the test says which option of ours gives the same, or
keeps away from the case and says why.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import Assignment, FCOSPoints, HardNegativeSampler, MaxIoU
from lossatlas.boxes.coders import DeltaCoder, PointDistanceCoder
from lossatlas.boxes.geometry import area, pairwise_iou
from lossatlas.boxes.nms import batched_nms
from lossatlas.boxes.priors import anchor_grid, point_grid
from lossatlas.losses import SmoothL1Loss, giou_loss, l1_loss
from lossatlas.objectives import (
    FCOS,
    RPN,
    SSD,
    FCOSOutputs,
    RetinaNet,
    RetinaNetOutputs,
    RoIHead,
    RoIOutputs,
    RPNOutputs,
    SSDOutputs,
)

ops = pytest.importorskip("torchvision.ops")
utils = pytest.importorskip("torchvision.models.detection._utils")
retinanet = pytest.importorskip("torchvision.models.detection.retinanet")
ssd = pytest.importorskip("torchvision.models.detection.ssd")
rpn = pytest.importorskip("torchvision.models.detection.rpn")
roi_heads = pytest.importorskip("torchvision.models.detection.roi_heads")
fcos = pytest.importorskip("torchvision.models.detection.fcos")
anchor_utils = pytest.importorskip("torchvision.models.detection.anchor_utils")

SIZES, STRIDES, CLASSES = [(12, 12), (6, 6), (3, 3)], [8, 16, 32], 4


def random_boxes(count: int, seed: int, extent: float = 96.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * extent * 0.7
    return torch.cat((start, start + 6 + torch.rand(count, 2, generator=generator) * extent * 0.5), dim=1)


def random_targets() -> list[dict[str, Tensor]]:
    return [
        {"boxes": random_boxes(count, seed), "labels": torch.arange(count) % CLASSES}
        for seed, count in enumerate((3, 0, 7, 1))
    ]


def leaf(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [gradient.clone() for gradient in torch.autograd.grad(loss, leaves, retain_graph=True)]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_delta_coder(weights: tuple[float, float, float, float]) -> None:
    boxes, anchors = random_boxes(30, 0).double(), random_boxes(30, 1).double()
    theirs, ours = utils.BoxCoder(weights), DeltaCoder(weights)
    torch.testing.assert_close(ours.encode(boxes, anchors), theirs.encode_single(boxes, anchors))
    deltas = leaf(30, 4, seed=2).detach() * 3  # some beyond the clip
    torch.testing.assert_close(ours.decode(deltas, anchors), theirs.decode_single(deltas, anchors))


def test_point_distance_coder() -> None:
    points, strides = point_grid(SIZES, STRIDES)
    half = strides[:, None] / 2
    cells = torch.cat((points - half, points + half), dim=1)
    theirs, ours = utils.BoxLinearCoder(normalize_by_size=True), PointDistanceCoder()
    boxes = random_boxes(len(points), 0)
    torch.testing.assert_close(ours.encode(boxes, points, strides), theirs.encode(cells, boxes))
    distances = random_boxes(len(points), 1)
    torch.testing.assert_close(ours.decode(distances, points, strides), theirs.decode(distances, cells))


def test_anchors_but_for_the_offset_and_the_rounding_to_whole_pixels() -> None:
    generator = anchor_utils.AnchorGenerator(
        sizes=tuple(tuple(4 * stride * scale for scale in (1, 1.5)) for stride in STRIDES),
        aspect_ratios=((0.25, 1.0, 4.0),) * 3,
    )
    images = anchor_utils.ImageList(torch.zeros(1, 3, 96, 96), [(96, 96)])
    (theirs,) = generator(images, [torch.zeros(1, 1, *size) for size in SIZES])
    ours = anchor_grid(SIZES, STRIDES, octave_scales=(1, 1.5), aspect_ratios=(0.25, 1, 4), offset=0)
    # Sides of these ratios are whole numbers, so that nothing is rounded.
    torch.testing.assert_close(ours, theirs)
    default = anchor_grid(SIZES, STRIDES, octave_scales=(1, 1.5), aspect_ratios=(0.25, 1, 4))
    half = torch.cat([torch.full((h * w * 6,), s / 2) for (h, w), s in zip(SIZES, STRIDES, strict=True)])
    torch.testing.assert_close(default, theirs + half[:, None])


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_batched_nms(threshold: float) -> None:
    boxes = random_boxes(400, 0)
    scores = torch.rand(400, generator=torch.Generator().manual_seed(1))  # no ties: theirs have no stated order
    labels = torch.arange(400) % 5
    assert torch.equal(batched_nms(boxes, scores, labels, threshold), ops.batched_nms(boxes, scores, labels, threshold))


@pytest.mark.parametrize("low_quality", ["none", "keep"])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5)])
def test_matcher(low_quality: Any, thresholds: tuple[float, float]) -> None:
    matcher = utils.Matcher(*thresholds, allow_low_quality_matches=low_quality == "keep")
    priors = anchor_grid(SIZES, STRIDES, base_size=2)
    for seed in range(10):
        # Every object overlaps some anchor: with one that does not, theirs makes all priors positive.
        boxes = random_boxes(5, seed)
        theirs = matcher(ops.box_iou(boxes, priors))
        ours = MaxIoU(*thresholds, low_quality)(priors, {"boxes": boxes, "labels": torch.zeros(5, dtype=torch.int64)})
        assert torch.equal(ours.to_torchvision(), theirs)
        assert torch.equal(Assignment.from_torchvision(theirs).state, ours.state)
    assert ours.positive.any()


def test_matcher_makes_everything_positive_for_an_object_that_overlaps_nothing() -> None:
    overlaps = pairwise_iou(torch.tensor([[0.0, 0, 9, 9], [20.0, 0, 29, 9]]), torch.tensor([[50.0, 50, 60, 60]]))
    theirs = utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)(overlaps.T)
    assert theirs.tolist() == [0, 0]
    assert MaxIoU.retinanet().match(overlaps).to_torchvision().tolist() == [-1, -1]


def test_retinanet_objective() -> None:
    # torchvision: L1 on deltas, each image by its own positives, then the mean over the images.
    targets = [{**target, "boxes": target["boxes"].double()} for target in random_targets()]
    anchors = anchor_grid(SIZES, STRIDES, base_size=2, dtype=torch.float64)
    logits, deltas = leaf(4, len(anchors), CLASSES, seed=0), leaf(4, len(anchors), 4, seed=1)

    head = retinanet.RetinaNetHead(8, 9, CLASSES)
    model = SimpleNamespace(head=head, proposal_matcher=utils.Matcher(0.5, 0.4, allow_low_quality_matches=True))
    theirs = retinanet.RetinaNet.compute_loss(
        model, targets, {"cls_logits": logits, "bbox_regression": deltas}, [anchors] * 4
    )
    ours = RetinaNet(box_loss=l1_loss, normalizer="image")(RetinaNetOutputs(logits, deltas, anchors), targets)

    for name, their_name in (("class", "classification"), ("box", "bbox_regression")):
        torch.testing.assert_close(ours[name], theirs[their_name], rtol=1e-9, atol=0, check_dtype=False)
        ours_gradient = gradients(ours[name], [logits] if name == "class" else [deltas])
        their_gradient = gradients(theirs[their_name], [logits] if name == "class" else [deltas])
        torch.testing.assert_close(ours_gradient, their_gradient, rtol=1e-8, atol=1e-15)


def test_fcos_objective() -> None:
    # torchvision: strict bounds, GIoU that is not weighted by centerness, all divided by the batch's positives.
    targets = random_targets()
    for target in targets:
        # Theirs compares 1e8 - area in float32: keep away from areas that tie there.
        areas = area(target["boxes"]).sort().values
        assert (areas.diff() > 8).all()
        target["boxes"] = target["boxes"].double()
    points, strides = point_grid(SIZES, STRIDES, dtype=torch.float64)
    half = strides[:, None] / 2
    cells = torch.cat((points - half, points + half), dim=1)
    count = len(points)
    logits, centerness = leaf(4, count, CLASSES, seed=0), leaf(4, count, 1, seed=2)
    distances = leaf(4, count, 4, seed=1).detach().abs().requires_grad_()

    model = SimpleNamespace(head=fcos.FCOSHead(32, 1, CLASSES), center_sampling_radius=1.5)
    theirs = fcos.FCOS.compute_loss(
        model,
        targets,
        {"cls_logits": logits, "bbox_regression": distances, "bbox_ctrness": centerness},
        [cells] * 4,
        [height * width for height, width in SIZES],
    )
    objective = FCOS(box_loss=giou_loss, box_weighting="none", assigner=FCOSPoints(bounds="strict"))
    ours = objective(FCOSOutputs(logits, distances, centerness.squeeze(2), points, strides), targets)

    leaves = {"class": logits, "box": distances, "centerness": centerness}
    names = {"class": "classification", "box": "bbox_regression", "centerness": "bbox_ctrness"}
    for name, their_name in names.items():
        # Theirs adds 1e-7 square pixels to the denominators of GIoU.
        torch.testing.assert_close(ours[name], theirs[their_name], rtol=1e-7, atol=0)
        (our_gradient,), (their_gradient,) = (
            gradients(loss, [leaves[name]]) for loss in (ours[name], theirs[their_name])
        )
        assert (our_gradient != 0).any()
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-5, atol=1e-9)


def test_ssd_objective() -> None:
    # torchvision: the best prior of each object is forced, and negatives have no limit on their overlap.
    targets = [{**target, "boxes": target["boxes"].double()} for target in random_targets()]
    anchors = anchor_grid(SIZES, STRIDES, base_size=2, dtype=torch.float64)
    logits, deltas = leaf(4, len(anchors), CLASSES + 1, seed=0), leaf(4, len(anchors), 4, seed=1)

    model = SimpleNamespace(box_coder=utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3.0)
    matcher = utils.SSDMatcher(0.5)
    matches = [
        matcher(ops.box_iou(target["boxes"], anchors))
        if len(target["boxes"])
        else torch.full((len(anchors),), -1)  # as its forward does
        for target in targets
    ]
    theirs = ssd.SSD.compute_loss(
        model,
        [{**target, "labels": target["labels"] + 1} for target in targets],
        {"cls_logits": logits, "bbox_regression": deltas},
        [anchors] * 4,
        matches,
    )
    objective = SSD(assigner=MaxIoU(0.5, 0.5, "reassign"), sampler=HardNegativeSampler(3.0, overlap_limit=1.0))
    outputs = SSDOutputs(logits, deltas, anchors)
    for assignment, match in zip(objective.assign(outputs, targets), matches, strict=True):
        assert torch.equal(assignment.to_torchvision(), match)
    ours = objective(outputs, targets)

    for name, their_name in (("class", "classification"), ("box", "bbox_regression")):
        leaves = [logits] if name == "class" else [deltas]
        torch.testing.assert_close(ours[name], theirs[their_name], rtol=1e-9, atol=0, check_dtype=False)
        our_gradient, their_gradient = gradients(ours[name], leaves), gradients(theirs[their_name], leaves)
        assert (our_gradient[0] != 0).any()
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-8, atol=1e-15)


def flags(assignments: list[Assignment]) -> Any:
    """A sampler that takes what `assignments` say, as torchvision's samplers answer."""
    return lambda labels: (
        [assignment.positive for assignment in assignments],
        [assignment.negative for assignment in assignments],
    )


def test_rpn_objective() -> None:
    # torchvision: both terms over the anchors that were sampled, smooth L1 with β = 1/9. The same anchors for both.
    targets = [{**target, "boxes": target["boxes"].double()} for target in random_targets()]
    anchors = anchor_grid(SIZES, STRIDES, base_size=2, dtype=torch.float64)
    logits, deltas = leaf(4, len(anchors), seed=0), leaf(4, len(anchors), 4, seed=1)
    objective = RPN(normalization="sampled", box_loss=SmoothL1Loss(beta=1 / 9))
    outputs = RPNOutputs(logits, deltas, anchors)
    sampled = objective.sample(objective.assign(outputs, targets), torch.Generator().manual_seed(0))
    assert any((~assignment.ignored).sum() == 256 for assignment in sampled)

    model = SimpleNamespace(
        proposal_matcher=utils.Matcher(0.7, 0.3, allow_low_quality_matches=True),
        box_similarity=ops.box_iou,
        fg_bg_sampler=flags(sampled),
    )
    labels, matched = rpn.RegionProposalNetwork.assign_targets_to_anchors(model, [anchors] * 4, targets)
    for assignment, label in zip(objective.assign(outputs, targets), labels, strict=True):
        assert torch.equal(assignment.state, label.to(torch.int8))
    regression = utils.BoxCoder((1.0, 1.0, 1.0, 1.0)).encode(matched, [anchors] * 4)
    theirs = rpn.RegionProposalNetwork.compute_loss(
        model,
        logits.reshape(-1, 1),
        deltas.reshape(-1, 4),
        [label.double() for label in labels],  # float32 labels make it a float32 loss
        list(regression),
    )
    ours = objective.terms(outputs, targets, sampled)
    for our_term, their_term, leaves in zip(ours.values(), theirs, ([logits], [deltas]), strict=True):
        torch.testing.assert_close(our_term, their_term, rtol=1e-9, atol=0, check_dtype=False)
        our_gradient, their_gradient = gradients(our_term, leaves), gradients(their_term, leaves)
        assert (our_gradient[0] != 0).any()
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-8, atol=1e-15)


def test_proposals() -> None:
    anchors = anchor_grid(SIZES, STRIDES, base_size=2)
    levels = [height * width * 9 for height, width in SIZES]
    logits, deltas = leaf(2, len(anchors), seed=0).float(), leaf(2, len(anchors), 4, seed=1).float() / 3
    model: Any = SimpleNamespace(
        _get_top_n_idx=lambda *given: rpn.RegionProposalNetwork._get_top_n_idx(model, *given),
        pre_nms_top_n=lambda: 100,
        post_nms_top_n=lambda: 80,
        min_size=1e-3,
        score_thresh=0.0,
        nms_thresh=0.7,
    )
    decoded = DeltaCoder().decode(deltas, anchors)
    boxes, scores = rpn.RegionProposalNetwork.filter_proposals(model, decoded, logits, [(96, 90)] * 2, levels)
    outputs = RPNOutputs(logits, deltas, anchors, level_sizes=levels)
    found = RPN().decode(outputs, [(96, 90)] * 2, max_candidates=100, max_detections=80, nms=ops.batched_nms)
    for ours, their_boxes, their_scores in zip(found, boxes, scores, strict=True):
        assert len(their_scores) == 80
        torch.testing.assert_close(ours["boxes"], their_boxes)
        torch.testing.assert_close(ours["scores"], their_scores)


@pytest.fixture
def roi() -> tuple[RoIHead, RoIOutputs, list[dict[str, Tensor]], list[Tensor]]:
    """The second stage on a sample of regions, and the leaves of its outputs."""
    targets = [{**target, "boxes": target["boxes"].double()} for target in random_targets()]
    head = RoIHead(box_loss=SmoothL1Loss(beta=1 / 9))
    proposals = [anchor_grid(SIZES, STRIDES, base_size=2, dtype=torch.float64)] * 4
    regions = head.sample(proposals, targets, torch.Generator().manual_seed(0))
    count = sum(map(len, regions.boxes))
    logits, deltas = leaf(count, CLASSES + 1, seed=0), leaf(count, CLASSES + 1, 4, seed=1)
    return head, RoIOutputs(logits, deltas, regions), targets, [logits, deltas]


def test_roi_objective(roi: Any) -> None:
    # torchvision: smooth L1 with β = 1/9, both terms over all sampled regions. The same regions for both.
    head, outputs, targets, (logits, deltas) = roi
    boxes, assignments = outputs.regions.boxes, outputs.regions.assignments
    assert any(assignment.positive.any() for assignment in assignments)
    model: Any = SimpleNamespace(
        check_targets=lambda targets: None,
        add_gt_proposals=lambda proposals, objects: proposals,  # they are among ours already
        assign_targets_to_proposals=lambda *given: roi_heads.RoIHeads.assign_targets_to_proposals(model, *given),
        subsample=lambda labels: roi_heads.RoIHeads.subsample(model, labels),
        proposal_matcher=utils.Matcher(0.5, 0.5, allow_low_quality_matches=False),
        box_similarity=ops.box_iou,
        fg_bg_sampler=flags(assignments),
        box_coder=utils.BoxCoder((10.0, 10.0, 5.0, 5.0)),
    )
    _, _, labels, regression = roi_heads.RoIHeads.select_training_samples(
        model, list(boxes), [{**target, "labels": target["labels"] + 1} for target in targets]
    )
    theirs = roi_heads.fastrcnn_loss(logits, deltas.flatten(1), labels, list(regression))
    ours = head(outputs, targets)
    for our_term, their_term, leaves in zip(ours.values(), theirs, ([logits], [deltas]), strict=True):
        torch.testing.assert_close(our_term, their_term, rtol=1e-9, atol=0, check_dtype=False)
        our_gradient, their_gradient = gradients(our_term, leaves), gradients(their_term, leaves)
        assert (our_gradient[0] != 0).any()
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-8, atol=1e-15)


def test_roi_detections(roi: Any) -> None:
    head, outputs, _, (logits, deltas) = roi
    model = SimpleNamespace(
        box_coder=utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), score_thresh=0.05, nms_thresh=0.5, detections_per_img=100
    )
    boxes, scores, labels = roi_heads.RoIHeads.postprocess_detections(
        model, logits, deltas.flatten(1), list(outputs.regions.boxes), [(96, 90)] * 4
    )
    found = head.decode(outputs, [(96, 90)] * 4, nms=ops.batched_nms)
    for ours, their_boxes, their_scores, their_labels in zip(found, boxes, scores, labels, strict=True):
        assert len(their_scores) > 50
        torch.testing.assert_close(ours["boxes"], their_boxes)
        torch.testing.assert_close(ours["scores"], their_scores)
        assert torch.equal(ours["labels"] + 1, their_labels)


def test_detections_with_either_suppression() -> None:
    anchors = anchor_grid(SIZES, STRIDES)
    outputs = RetinaNetOutputs(leaf(2, len(anchors), CLASSES, seed=0), leaf(2, len(anchors), 4, seed=1) / 5, anchors)
    ours = RetinaNet().decode(outputs, [(96, 96)] * 2)
    theirs = RetinaNet().decode(outputs, [(96, 96)] * 2, nms=ops.batched_nms)
    for detections, others in zip(ours, theirs, strict=True):
        assert len(detections["scores"]) > 20
        for key, value in detections.items():
            assert torch.equal(value, others[key])
