"""The networks of SSD, Faster R-CNN, ATSS, GFL and VarifocalNet: the order of their places, and second looks."""

import pytest
import torch
from torch import Tensor

from lossatlas.lab.facts import Facts
from lossatlas.lab.networks.backbone import PRIOR, STRIDES, count_parameters
from lossatlas.lab.networks.squares import SQUARE_SCALE
from lossatlas.lab.networks.star import StarConvolution
from lossatlas.lab.networks.two_stage import POOLED, pool_regions
from lossatlas.lab.networks.yolo import BINS
from lossatlas.lab.registry import build_network, find_objective
from lossatlas.lab.two_stage import PROPOSALS, SAMPLED, TwoStageLearner, build_faster_rcnn
from lossatlas.losses import giou_loss, l1_loss, quality_focal_loss, softmax_focal_loss
from lossatlas.objectives import Regions

NAMES = ("ssd", "faster_rcnn", "atss", "gfl", "varifocalnet")
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
TARGETS = [
    {"boxes": torch.tensor([[8.0, 8, 30, 34], [40.0, 10, 90, 60]]), "labels": torch.tensor([2, 0])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


@pytest.mark.parametrize("name", NAMES)
def test_is_small(name: str) -> None:
    assert count_parameters(build_network(name, Facts(80), seed=0)) < 1_200_000


@pytest.mark.parametrize(
    ("name", "classes", "field", "numbers"),
    [("ssd", 4, "deltas", 4), ("atss", 3, "deltas", 5), ("gfl", 3, "distributions", 4 * BINS)],
)
def test_predictions_are_in_the_order_of_their_places(name: str, classes: int, field: str, numbers: int) -> None:
    network = build_network(name, Facts(3), seed=0).eval()
    with torch.no_grad():
        outputs = network(IMAGES)
        levels = network.pyramid(IMAGES)  # type: ignore[operator]
    place = 0
    for level, stride in zip(levels, STRIDES, strict=True):
        logits, boxes = network.classes(level)[1], network.boxes(level)[1]  # type: ignore[operator]
        for row in range(64 // stride):
            for column in range(96 // stride):
                center = torch.tensor([(column + 0.5) * stride, (row + 0.5) * stride])
                for anchor in range(len(logits) // classes):
                    mine = slice(classes * anchor, classes * (anchor + 1))
                    assert torch.equal(outputs.class_logits[1, place], logits[mine, row, column])
                    box = boxes[numbers * anchor : numbers * (anchor + 1), row, column]
                    found = getattr(outputs, field)[1, place].flatten()
                    assert torch.equal(found, box[: len(found)])
                    if name == "gfl":
                        assert torch.equal(outputs.points[place], center)
                        assert outputs.strides[place] == stride
                    else:
                        x1, y1, x2, y2 = outputs.anchors[place]
                        torch.testing.assert_close(torch.stack(((x1 + x2) / 2, (y1 + y2) / 2)), center)
                    if name == "atss":
                        assert torch.equal(outputs.centerness[1, place], box[4])
                        assert x2 - x1 == SQUARE_SCALE * stride
                    place += 1
    assert place == outputs.class_logits.shape[1]
    if name == "atss":
        assert outputs.level_sizes == [96, 24, 6]


@pytest.mark.parametrize("name", ["atss", "gfl", "varifocalnet"])
def test_starts_with_the_prior_probability_of_every_class(name: str) -> None:
    probability = build_network(name, Facts(4), seed=1)(IMAGES).class_logits.sigmoid()
    assert probability.mean().item() == pytest.approx(PRIOR, rel=0.1)


def test_a_star_reads_nine_places_of_a_box() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    distances = torch.tensor([3.0, 1.5, 0.5, 4.0]).view(1, 4, 1, 1).expand(1, 4, 20, 20)
    star = StarConvolution(9)
    star.head.tower = torch.nn.Identity()  # type: ignore[assignment]
    star.head.last = torch.nn.Conv2d(1, 9, 3, padding=1)
    torch.nn.init.zeros_(star.head.last.bias)  # type: ignore[arg-type]
    star.head.last.weight.data = torch.eye(9).view(9, 1, 3, 3)  # each output is one tap
    read = torch.stack([star(coordinate[None, None], distances)[0, :, 10, 8] for coordinate in (x, y)], dim=1)
    xs, ys = (8 - 3.0, 8.0, 8 + 0.5), (10 - 1.5, 10.0, 10 + 4.0)
    torch.testing.assert_close(read, torch.tensor([[left, top] for top in ys for left in xs]))


def test_a_star_of_one_cell_is_a_convolution() -> None:
    star, level = StarConvolution(5, bias=0.5), torch.randn(2, 64, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(star(level, torch.ones(2, 4, 6, 8)), star.head(level))


def test_a_refined_box_does_not_train_the_first() -> None:
    network = build_network("varifocalnet", Facts(3), seed=0)
    outputs = network(IMAGES)
    (outputs.refined_distances.sum() + outputs.class_logits.sum()).backward()
    assert network.scales.grad is None
    assert all(parameter.grad is None for parameter in network.boxes.parameters())  # type: ignore[union-attr]
    assert (outputs.refined_distances > 0).all()


def ramp(stride: int, offset: float) -> Tensor:
    """A level that holds the pixels of its places, x and y, and which level it is."""
    y, x = torch.meshgrid(torch.arange(256 // stride), torch.arange(256 // stride), indexing="ij")
    return torch.stack(((x + 0.5) * stride, (y + 0.5) * stride, torch.full_like(x, offset)), dim=0).float()


def test_regions_are_cut_out_of_the_level_of_their_size() -> None:
    levels = [torch.stack([ramp(stride, n), ramp(stride, 10 + n)]) for n, stride in enumerate(STRIDES)]
    boxes = [
        torch.tensor([[40.0, 60, 96, 90], [20.0, 30, 240, 220], [30.0, 40, 150, 160]]),
        torch.tensor([[60.0, 60, 72, 72]]),
    ]
    pooled = pool_regions(levels, boxes)
    assert pooled.shape == (4, 3, POOLED, POOLED)
    level_of = torch.tensor([0.0, 1.0, 1.0, 10.0])[:, None, None].expand(4, POOLED, POOLED)
    torch.testing.assert_close(pooled[:, 2], level_of)
    flat = torch.cat(boxes)
    torch.testing.assert_close(pooled[:, :2].mean((2, 3)), (flat[:, :2] + flat[:, 2:]) / 2, rtol=0, atol=1e-3)
    step = (flat[:, 2] - flat[:, 0]) / POOLED
    torch.testing.assert_close(pooled[:, 0, 0, 1] - pooled[:, 0, 0, 0], step, rtol=0, atol=1e-3)


def learner() -> TwoStageLearner:
    spec = find_objective("faster_rcnn")
    built = spec.learner(build_network("faster_rcnn", Facts(3), seed=0), spec.build(Facts(3)))
    assert isinstance(built, TwoStageLearner)
    return built


def test_both_stages_are_trained_together() -> None:
    two = learner()
    seen: list[Regions] = []
    classify = two.network.classify
    two.network.classify = lambda levels, regions: (seen.append(regions), classify(levels, regions))[1]  # type: ignore
    terms = two(IMAGES, TARGETS)
    assert sorted(terms) == ["box", "class", "rpn_box", "rpn_objectness"]
    assert [len(boxes) for boxes in seen[0].boxes] == [SAMPLED, SAMPLED]
    assert seen[0].assignments is not None
    assert set(seen[0].assignments[0].matched.tolist()) == {-1, 0, 1}  # the objects are among the regions


def test_predictions_of_two_stages_lie_in_their_images() -> None:
    two = learner().eval()
    seen: list[Regions] = []
    classify = two.network.classify
    two.network.classify = lambda levels, regions: (seen.append(regions), classify(levels, regions))[1]  # type: ignore
    found = two.predict(two.network, IMAGES, [(64, 96), (40, 50)])
    assert [len(boxes) for boxes in seen[0].boxes] == [PROPOSALS, PROPOSALS]
    for detections, (height, width) in zip(found, [(64, 96), (40, 50)], strict=True):
        assert len(detections["scores"]) > 0
        assert detections["labels"].max() < 3
        assert detections["boxes"].min() >= 0
        assert (detections["boxes"].amax(0) <= torch.tensor([width, height, width, height])).all()


def test_losses_go_to_the_stage_that_they_are_for() -> None:
    objective = build_faster_rcnn(
        class_loss=softmax_focal_loss,
        box_loss=giou_loss,
        rpn_box_loss=l1_loss,
        rpn_objectness_loss=quality_focal_loss,
    )
    assert objective.head.class_loss.loss is softmax_focal_loss
    assert objective.head.box_loss.loss is giou_loss
    assert objective.rpn.box_loss.loss is l1_loss
    assert objective.rpn.objectness_loss.loss is quality_focal_loss
