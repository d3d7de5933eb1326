"""CenterNet's objective against its formula written as loops, its options, its edges and its detections."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.assign import gaussian_radius
from lossatlas.losses import giou_loss, sigmoid_focal_loss, smooth_l1_loss
from lossatlas.objectives import CenterNet, CenterNetOutputs
from tests.objectives.scenes import EMPTY, TARGETS, centernet_outputs, gradient

# The two objects of the second image have the centre (12, 12) in one cell, those of the third image also a class.
SHARED = [
    TARGETS[0],
    {"boxes": torch.tensor([[2.0, 2, 22, 22], [8.0, 9, 17, 14]]), "labels": torch.tensor([0, 1])},
    {
        "boxes": torch.tensor([[8.0, 9, 17, 14], [2.0, 2, 22, 22], [24.0, 0, 48, 48]]),
        "labels": torch.tensor([1, 1, 0]),
        "iscrowd": torch.tensor([0, 0, 1]),
    },
]

GRID, STRIDE, CLASSES = 6, 8, 3


def sums(outputs: CenterNetOutputs, image: int, target: dict[str, Tensor], options: dict[str, Any]) -> list[Any]:
    """Sums of one image: class, size and offset terms, number of peaks and number of objects."""
    crowd = target.get("iscrowd", torch.zeros(len(target["labels"]))).tolist()
    objects = [
        (row, box, label)
        for row, (box, label) in enumerate(zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True))
        if not crowd[row]
    ]
    crowds = [box for row, box in enumerate(target["boxes"].tolist()) if crowd[row]]
    heat = [[[0.0] * GRID for _ in range(GRID)] for _ in range(CLASSES)]
    owners: dict[tuple[int, int], list[Any]] = {}
    for row, (x1, y1, x2, y2), label in objects:
        x, y = math.floor((x1 + x2) / 2 / STRIDE), math.floor((y1 + y2) / 2 / STRIDE)
        sides = math.ceil((x2 - x1) / STRIDE), math.ceil((y2 - y1) / STRIDE)
        r = int(gaussian_radius(*sides, options.get("min_overlap", 0.7), options.get("radius", "fixed")))
        for j in range(GRID):
            for i in range(GRID):
                if abs(i - x) <= r and abs(j - y) <= r:
                    value = math.exp(-((i - x) ** 2 + (j - y) ** 2) / 2 / ((2 * r + 1) / 6) ** 2)
                    heat[label][j][i] = max(heat[label][j][i], value)
        owners.setdefault((x, y), []).append((row, x1, y1, x2, y2))
    zero = nothing(outputs)
    total, size, offset, peaks, count = zero, zero, zero, 0, 0
    for label in range(CLASSES):
        for j in range(GRID):
            for i in range(GRID):
                p = outputs.heatmap_logits[image, label, j, i].sigmoid()
                cx, cy = (i + 0.5) * STRIDE, (j + 0.5) * STRIDE
                if heat[label][j][i] == 1:
                    total = total - (1 - p) ** 2 * p.log()
                    peaks += 1
                elif not any(x1 < cx < x2 and y1 < cy < y2 for x1, y1, x2, y2 in crowds):
                    total = total - (1 - heat[label][j][i]) ** 4 * p**2 * (1 - p).log()
    for (i, j), found in owners.items():
        regressed = {
            "both": found,
            "smallest": [min(found, key=lambda o: (o[3] - o[1]) * (o[4] - o[2]))],
            "last": [max(found)],
        }
        for _, x1, y1, x2, y2 in regressed[options.get("shared_cell", "both")]:
            w, h = outputs.sizes[image, :, j, i]
            x, y = outputs.offsets[image, :, j, i]
            size = size + (w - (x2 - x1) / STRIDE).abs() + (h - (y2 - y1) / STRIDE).abs()
            offset = offset + (x + i - (x1 + x2) / 2 / STRIDE).abs() + (y + j - (y1 + y2) / 2 / STRIDE).abs()
            count += 1
    return [total, size, offset, peaks, count]


def nothing(outputs: CenterNetOutputs) -> Tensor:
    return outputs.sizes.sum() * 0 + outputs.offsets.sum() * 0 + outputs.heatmap_logits.sum() * 0


OPTIONS: list[dict[str, Any]] = [
    {},
    {"radius": "cornernet"},
    {"min_overlap": 0.3},
    {"shared_cell": "smallest"},
    {"shared_cell": "last"},
    {"box_mean": "coordinates"},
    {"normalizer": "image", "box_mean": "coordinates"},
    {"normalizer": "image", "shared_cell": "smallest"},
]


@pytest.mark.parametrize("targets", [TARGETS, SHARED, EMPTY], ids=["objects", "shared", "empty"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_formula(options: dict[str, Any], targets: list[dict[str, Tensor]]) -> None:
    outputs, again = centernet_outputs(), centernet_outputs()
    terms = CenterNet(**options)(outputs, targets)
    parts = [sums(again, image, target, options) for image, target in enumerate(targets)]
    if options.get("normalizer") == "image":
        groups = [([part], 3) for part in parts]
    else:
        groups = [(parts, 1)]
    expected = dict.fromkeys(("class", "size", "offset"), nothing(again))
    for group, images in groups:
        total, size, offset, peaks, count = (sum(column) for column in zip(*group, strict=True))
        numbers = max(count, 1) * (2 if options.get("box_mean") == "coordinates" else 1)
        expected["class"] = expected["class"] + total / max(peaks, 1) / images
        expected["size"] = expected["size"] + 0.1 * size / numbers / images
        expected["offset"] = expected["offset"] + offset / numbers / images
    assert list(terms) == list(expected)
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-6, atol=1e-9)
    terms.total.backward()
    torch.stack(list(expected.values())).sum().backward()
    for name in ("heatmap_logits", "sizes", "offsets"):
        torch.testing.assert_close(
            gradient(getattr(outputs, name)), gradient(getattr(again, name)), rtol=1e-5, atol=1e-8
        )


def test_worked_by_hand() -> None:
    # Centre (10, 8) of a box of 12 x 8 at stride 4: cell (2, 2), offset (0.5, 0), 3 x 2 cells, radius 0.
    target = {"boxes": torch.tensor([[4.0, 4, 16, 12]]), "labels": torch.tensor([1])}
    logits = torch.full((1, 2, 4, 4), -math.log(3))  # p = 1/4
    sizes, offsets = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    sizes[0, :, 2, 2] = torch.tensor([2.0, 4.0])
    offsets[0, :, 2, 2] = torch.tensor([0.75, 0.5])
    terms = CenterNet()(CenterNetOutputs(logits, sizes, offsets, 4), [target])
    assert terms["class"].item() == pytest.approx(9 / 16 * math.log(4) + 31 / 16 * math.log(4 / 3))
    assert terms["size"].item() == pytest.approx(0.1 * (1 + 2))
    assert terms["offset"].item() == pytest.approx(0.25 + 0.5)


def test_the_authors_denominator_differs_by_its_guard_alone() -> None:
    outputs = centernet_outputs()
    count = 4
    ours = CenterNet(box_mean="coordinates")(outputs, TARGETS)["offset"].item()
    summed = CenterNet()(outputs, TARGETS)["offset"].item() * count
    assert ours == pytest.approx(summed / (2 * count))
    assert ours == pytest.approx(summed / (2 * count + 1e-4), rel=2e-5)


def test_binary_losses_get_the_peaks_and_minus_one_in_crowd_regions() -> None:
    outputs = centernet_outputs()
    calls = []

    def spy(input: Tensor, target: Tensor, **options: Any) -> Tensor:
        calls.append((target, options))
        return input.sum() * 0

    objective = CenterNet(class_loss=spy, class_target="binary", normalizer="image")
    objective(outputs, SHARED)
    ((target, given),) = calls
    expected = torch.zeros(3, CLASSES, GRID, GRID)
    expected[2, :, :, 3:] = -1
    for image, label, y, x in ((0, 2, 2, 1), (0, 0, 4, 4), (0, 1, 4, 1), (1, 0, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1)):
        expected[image, label, y, x] = 1
    assert torch.equal(target, expected)
    assert given["ignore_index"] == -1
    assert given["weight"].shape == (3, 1, 1, 1)
    assert given["weight"].flatten().tolist() == pytest.approx([1 / 3, 1 / 2, 1])
    assert CenterNet(class_loss=sigmoid_focal_loss).class_loss.target == "binary"


def test_a_peak_in_a_crowd_region_counts() -> None:
    target = {
        "boxes": torch.tensor([[8.0, 8, 16, 16], [0.0, 0, 48, 48]]),
        "labels": torch.tensor([0, 0]),
        "iscrowd": torch.tensor([False, True]),
    }
    outputs = centernet_outputs(1)
    CenterNet()(outputs, [target]).total.backward()
    assert gradient(outputs.heatmap_logits).nonzero().tolist() == [[0, 0, 1, 1]]
    assert gradient(outputs.sizes).nonzero().tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]


def test_losses_of_boxes_take_the_place_of_size_and_offset() -> None:
    outputs = centernet_outputs()
    terms = CenterNet(box_loss=giou_loss, box_weight=2.5)(outputs, TARGETS)
    assert list(terms) == ["class", "box"]
    predicted, objects = [], []
    for image, y, x, row in ((0, 2, 1, 0), (0, 4, 4, 1), (0, 4, 1, 2), (2, 1, 1, 0)):
        (w, h), (dx, dy) = outputs.sizes[image, :, y, x] * 8, outputs.offsets[image, :, y, x] * 8
        cx, cy = 8 * x + dx, 8 * y + dy
        predicted.append(torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)))
        objects.append(TARGETS[image]["boxes"][row].double())
    expected = 2.5 * giou_loss(torch.stack(predicted), torch.stack(objects))
    torch.testing.assert_close(terms["box"], expected)
    elementwise = CenterNet(box_loss=smooth_l1_loss, regression="boxes")(outputs, TARGETS)
    torch.testing.assert_close(
        elementwise["box"], smooth_l1_loss(torch.stack(predicted), torch.stack(objects), normalizer=4)
    )


def test_assignment_names_the_smaller_of_two_or_the_one_that_is_regressed() -> None:
    outputs = centernet_outputs()
    for shared_cell, owners in (("both", [1, 0]), ("smallest", [1, 0]), ("last", [1, 1])):
        objective = CenterNet(shared_cell=shared_cell)  # type: ignore[arg-type]
        first, second, third = objective.assign(outputs, SHARED)
        assert [int(found.matched[7]) for found in (second, third)] == owners
        assert first.positive.nonzero().flatten().tolist() == [13, 25, 28]
        assert third.ignored.view(GRID, GRID)[:, 3:].all()
        assert not second.ignored.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_boxes_far_out_are_finite(dtype: torch.dtype, size: float) -> None:
    leaves = [torch.full((3, numbers, 6, 6), size, dtype=dtype, requires_grad=True) for numbers in (CLASSES, 2, 2)]
    outputs = CenterNetOutputs(leaves[0], leaves[1], leaves[2], 8)
    terms = CenterNet(box_loss=giou_loss)(outputs, SHARED)
    assert terms.total.dtype == torch.float32
    assert terms.total.isfinite()
    terms.total.backward()
    for tensor in leaves:
        assert gradient(tensor).dtype == dtype
        assert gradient(tensor).isfinite().all()


def test_perfect_outputs_cost_nothing_and_are_found_again() -> None:
    logits = torch.full((3, CLASSES, GRID, GRID), -30.0)
    sizes, offsets = torch.zeros(3, 2, GRID, GRID), torch.zeros(3, 2, GRID, GRID)
    for image, label, y, x, row in ((0, 2, 2, 1, 0), (0, 0, 4, 4, 1), (0, 1, 4, 1, 2), (2, 1, 1, 1, 0)):
        x1, y1, x2, y2 = TARGETS[image]["boxes"][row].tolist()
        logits[image, label, y, x] = 12 + row
        sizes[image, :, y, x] = torch.tensor([x2 - x1, y2 - y1]) / STRIDE
        offsets[image, :, y, x] = torch.tensor([(x1 + x2) / 2 / STRIDE - x, (y1 + y2) / 2 / STRIDE - y])
    outputs = CenterNetOutputs(logits, sizes, offsets, STRIDE)
    assert CenterNet()(outputs, TARGETS).total.item() < 1e-9
    for found, target, rows in zip(
        CenterNet().decode(outputs, score_threshold=0.5), TARGETS, ([2, 1, 0], [], [0]), strict=True
    ):
        torch.testing.assert_close(found["boxes"], target["boxes"][rows])
        assert found["labels"].tolist() == target["labels"][rows].tolist()
        assert (found["scores"] > 0.99).all()


def test_detections_are_the_cells_that_no_neighbour_exceeds() -> None:
    outputs = centernet_outputs(2)
    found = CenterNet().decode(outputs)
    for image in range(2):
        expected = []
        for label in range(CLASSES):
            plane = outputs.heatmap_logits[image, label].tolist()
            for y in range(GRID):
                for x in range(GRID):
                    around = [
                        plane[j][i]
                        for j in range(max(y - 1, 0), min(y + 2, GRID))
                        for i in range(max(x - 1, 0), min(x + 2, GRID))
                    ]
                    if plane[y][x] >= max(around):
                        (w, h), (dx, dy) = (maps[image, :, y, x].tolist() for maps in (outputs.sizes, outputs.offsets))
                        w, h = max(w, 0), max(h, 0)
                        corners = [x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2]
                        expected.append((1 / (1 + math.exp(-plane[y][x])), label, [STRIDE * c for c in corners]))
        expected.sort(reverse=True)
        assert found[image]["scores"].tolist() == pytest.approx([score for score, _, _ in expected])
        assert found[image]["labels"].tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(
            found[image]["boxes"], torch.tensor([box for _, _, box in expected], dtype=torch.float64)
        )
        (few, _) = CenterNet().decode(outputs, max_detections=3)
        assert few["scores"].tolist() == found[0]["scores"][:3].tolist()


def test_logits_whose_scores_saturate_have_peaks_too() -> None:
    logits = torch.tensor([[[[30.0, 40.0, 35.0, 35.0]]]])
    maps = torch.ones(1, 2, 1, 4)
    (found,) = CenterNet().decode(CenterNetOutputs(logits, maps, maps / 2, 1))
    assert found["boxes"].tolist() == [[1, 0, 2, 1], [3, 0, 4, 1]]  # of the plateau what no neighbour exceeds


def test_boxes_are_clipped_and_suppressed_on_request() -> None:
    logits = torch.tensor([[[[2.0, -9.0, 1.0]]]])
    outputs = CenterNetOutputs(logits, torch.full((1, 2, 1, 3), 6.0), torch.full((1, 2, 1, 3), 0.5), 10)
    (found,) = CenterNet().decode(outputs, [(20, 25)])
    assert found["boxes"].tolist() == [[0, 0, 25, 20], [0, 0, 25, 20]]
    seen = []

    def keep_the_last(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
        seen.append((len(boxes), threshold))
        return torch.tensor([len(boxes) - 1])

    (found,) = CenterNet().decode(outputs, nms=keep_the_last, iou_threshold=0.25)
    assert seen == [(2, 0.25)]
    assert found["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-1))])


def test_wrong_arguments_are_named() -> None:
    maps = torch.zeros(2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"`heatmap_logits` must have shape \(B, C, H, W\), but got \(4, 4\)"):
        CenterNetOutputs(maps[0, 0], maps, maps)
    with pytest.raises(ValueError, match=r"`offsets` must have shape \(2, 2, 4, 4\), but got \(2, 1, 4, 4\)"):
        CenterNetOutputs(maps, maps, maps[:, :1])
    with pytest.raises(ValueError, match="`stride` must be finite and above 0"):
        CenterNetOutputs(maps, maps, maps, 0)
    with pytest.raises(ValueError, match="`size_weight` must be finite and at least 0"):
        CenterNet(size_weight=-1)
    with pytest.raises(ValueError, match="`shared_cell` must be one of 'both', 'smallest', 'last'"):
        CenterNet(shared_cell="first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`box_mean` must be one of 'objects', 'coordinates'"):
        CenterNet(box_mean="boxes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`class_loss` must be one of .*gaussian_focal_loss.*, but got giou_loss"):
        CenterNet(class_loss=giou_loss)
    with pytest.raises(
        ValueError, match="class_target='quality' if it takes the gaussians around the centres as target"
    ):
        CenterNet(class_loss=lambda input, target, **options: input.sum())
    with pytest.raises(ValueError, match="`class_target` must be one of 'binary', 'quality'"):
        CenterNet(class_target="gaussian")  # type: ignore[arg-type]
