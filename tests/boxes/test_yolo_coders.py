"""The coders of the YOLO family and of distance distributions: hand-worked numbers, round trips and limits."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas.boxes.coders import DeltaCoder, DistributionCoder
from lossatlas.boxes.yolo_coders import YOLOCoder, YOLOv1Coder, YOLOv5Coder, YOLOXCoder

STRIDES = torch.tensor([8.0, 16.0, 32.0], dtype=torch.float64).repeat(20)
"""Of sixty predictions."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def draw(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def anchors_on_cells() -> tuple[Tensor, Tensor]:
    """Column and row, and an anchor in the middle of each cell."""
    cell = (draw(60, 2, seed=0) * 20).floor()
    center, half = (cell + 0.5) * STRIDES[:, None], 5 + draw(60, 2, seed=1) * 60
    return cell, torch.cat((center - half, center + half), dim=1)


def by_the_formula(kind: str, logits: Tensor, cell: Tensor, anchors: Tensor) -> list[list[float]]:
    boxes = []
    for (tx, ty, tw, th), (column, row), (x1, y1, x2, y2), stride in zip(
        logits.tolist(), cell.tolist(), anchors.tolist(), STRIDES.tolist(), strict=True
    ):
        if kind == "v5":
            x, y = (column + 2 * sigmoid(tx) - 0.5) * stride, (row + 2 * sigmoid(ty) - 0.5) * stride
            w, h = (x2 - x1) * (2 * sigmoid(tw)) ** 2, (y2 - y1) * (2 * sigmoid(th)) ** 2
        elif kind == "x":
            x, y, w, h = (column + tx) * stride, (row + ty) * stride, math.exp(tw) * stride, math.exp(th) * stride
        else:
            scale = {8.0: 1.2, 16.0: 1.1, 32.0: 1.05}[stride] if kind == "v4" else float(kind)
            x = (column + scale * sigmoid(tx) - (scale - 1) / 2) * stride
            y = (row + scale * sigmoid(ty) - (scale - 1) / 2) * stride
            w, h = (x2 - x1) * math.exp(tw), (y2 - y1) * math.exp(th)
        boxes.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return boxes


CODERS: list[tuple[str, Any]] = [
    ("1", YOLOCoder()),
    ("1.2", YOLOCoder(scale_xy=1.2)),
    ("v4", YOLOCoder.yolov4()),
    ("v5", YOLOv5Coder()),
    ("x", YOLOXCoder()),
]


def place(coder: Any, anchors: Tensor) -> Tensor:
    """What the coder counts from: anchors, or the centres of the cells."""
    return (anchors[..., :2] + anchors[..., 2:]) / 2 if isinstance(coder, YOLOXCoder) else anchors


@pytest.mark.parametrize(("kind", "coder"), CODERS, ids=[kind for kind, _ in CODERS])
def test_decoded_boxes_are_the_formulas_and_encode_inverts_them(kind: str, coder: Any) -> None:
    cell, anchors = anchors_on_cells()
    logits = draw(60, 4, seed=2) * 8 - 4
    boxes = coder.decode(logits, place(coder, anchors), STRIDES)
    torch.testing.assert_close(boxes, torch.tensor(by_the_formula(kind, logits, cell, anchors), dtype=torch.float64))
    torch.testing.assert_close(coder.encode(boxes, place(coder, anchors), STRIDES), logits, rtol=1e-9, atol=1e-9)
    single = coder.encode(boxes.float(), place(coder, anchors).float(), STRIDES.float())
    back = coder.decode(single, place(coder, anchors).float(), STRIDES.float())
    torch.testing.assert_close(back, boxes.float(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("coder", "reach"), [(YOLOCoder(), 0.0), (YOLOCoder(1.2), 0.1), (YOLOv5Coder(), 0.5)])
def test_a_centre_out_of_range_is_encoded_as_the_nearest_in_range(coder: Any, reach: float) -> None:
    anchor, stride = torch.tensor([[26.0, 26.0, 38.0, 38.0]]), torch.tensor([64.0])  # the cell from 0 to 64
    for far, near in ((-1000.0, -reach * 64), (1000.0, (1 + reach) * 64)):
        box = torch.tensor([[far - 6, 26.0, far + 6, 38.0]])
        decoded = coder.decode(coder.encode(box, anchor, stride), anchor, stride)
        assert decoded[0].tolist() == pytest.approx([near - 6, 26.0, near + 6, 38.0], abs=1e-3)


def test_strides_that_are_not_named_keep_the_cells_range() -> None:
    anchors, strides = torch.tensor([[3.0, 3.0, 5.0, 5.0]]).expand(2, 4), torch.tensor([8.0, 4.0])
    logits = torch.full((2, 4), 3.0)
    expected = torch.cat(
        (YOLOCoder(1.5).decode(logits, anchors, strides)[:1], YOLOCoder().decode(logits, anchors, strides)[1:])
    )
    assert torch.equal(YOLOCoder({8: 1.5}).decode(logits, anchors, strides), expected)


def test_yolov1_counts_cells_row_by_row() -> None:
    coder, numbers = YOLOv1Coder((3, 4)), draw(12, 2, 4, seed=6) * 2 - 0.5
    cells = torch.arange(12)[:, None].expand(12, 2)
    boxes = coder.decode(numbers, cells, (90, 200))
    for cell, pair, found in zip(range(12), numbers.tolist(), boxes.tolist(), strict=True):
        for (x, y, w, h), box in zip(pair, found, strict=True):
            center = (cell % 4 + x) * 50, (cell // 4 + y) * 30
            half = w * w * 100, h * h * 45
            expected = [center[0] - half[0], center[1] - half[1], center[0] + half[0], center[1] + half[1]]
            assert box == pytest.approx(expected)
    back = coder.encode(boxes, cells, (90, 200))
    torch.testing.assert_close(back, torch.cat((numbers[..., :2], numbers[..., 2:].abs()), dim=-1))
    flat = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    coder.encode(flat, torch.tensor([0]), (90, 200)).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_sides_of_yolov5_end_at_four_anchors() -> None:
    anchor, stride = torch.tensor([[3.0, 3.0, 5.0, 5.0]]), torch.tensor([8.0])
    box = torch.tensor([[-1.0, -46.0, 9.0, 54.0]])  # 5 and 50 times the anchor
    decoded = YOLOv5Coder().decode(YOLOv5Coder().encode(box, anchor, stride), anchor, stride)
    assert decoded[0].tolist() == pytest.approx([0.0, 0.0, 8.0, 8.0], abs=1e-4)


@pytest.mark.parametrize(("kind", "coder"), CODERS, ids=[kind for kind, _ in CODERS])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_finite_input_has_finite_values_and_gradients(kind: str, coder: Any, dtype: torch.dtype) -> None:
    anchors = torch.tensor([[3.0, 3.0, 5.0, 5.0], [4.0, 4.0, 4.0, 4.0]], dtype=dtype)
    stride = torch.tensor([8.0, 8.0], dtype=dtype)
    logits = torch.tensor([[[1e4, -1e4, 1e4, -1e4]], [[0.0, 0.0, 0.0, 0.0]]], dtype=dtype, requires_grad=True)
    decoded = coder.decode(logits, place(coder, anchors), stride)
    boxes = torch.tensor([[[5.0, 5.0, 5.0, 5.0]], [[9.0, 9.0, 3.0, 3.0]]], dtype=dtype, requires_grad=True)
    encoded = coder.encode(boxes, place(coder, anchors), stride)
    for result, source in ((decoded, logits), (encoded, boxes)):
        assert result.shape == (2, 2, 4)
        assert result.dtype == torch.float32
        assert result.isfinite().all()
        result.sum().backward()
        assert source.grad is not None
        assert source.grad.isfinite().all()


def test_ssd_divides_by_its_variances() -> None:
    anchor, box = torch.tensor([[0.0, 0.0, 20.0, 40.0]]), torch.tensor([[5.0, 10.0, 15.0, 90.0]])
    expected = [(10 - 10) / 20 / 0.1, (50 - 20) / 40 / 0.1, math.log(10 / 20) / 0.2, math.log(80 / 40) / 0.2]
    assert DeltaCoder.ssd().encode(box, anchor)[0].tolist() == pytest.approx(expected)


def test_distances_are_the_means_of_the_distributions() -> None:
    logits = draw(60, 4, 9, seed=3) * 6
    expected = []
    for sides in logits.tolist():
        for bins in sides:
            total = sum(math.exp(x) for x in bins)
            expected.append(sum(i * math.exp(x) / total for i, x in enumerate(bins)))
    assert DistributionCoder(8).distances(logits).flatten().tolist() == pytest.approx(expected)


def test_a_distribution_between_two_bins_decodes_to_what_was_encoded() -> None:
    points = draw(60, 2, seed=4) * 100
    reach = draw(60, 4, seed=5) * 16 * STRIDES[:, None]
    boxes = torch.cat((points - reach[:, :2], points + reach[:, 2:]), dim=1)
    coder = DistributionCoder()
    target = coder.encode(boxes, points, STRIDES)
    share = torch.zeros(60, 4, 17, dtype=torch.float64)
    for i in range(60):
        for side in range(4):
            low = int(target[i, side])
            share[i, side, low] = low + 1 - target[i, side]
            share[i, side, low + 1] = target[i, side] - low
    torch.testing.assert_close(coder.decode(share.log(), points, STRIDES), boxes, rtol=1e-10, atol=1e-8)


def test_targets_are_cut_to_the_bins() -> None:
    point, stride = torch.tensor([[0.0, 0.0]]), torch.tensor([8.0])
    box = torch.tensor([[8.0, -24.0, 1000.0, 128.0]])  # its left edge lies right of the point
    assert DistributionCoder(16).encode(box, point, stride)[0].tolist() == [0, 3, 16, 16]
    assert DistributionCoder(16, 0.1).encode(box, point, stride)[0].tolist() == pytest.approx([0, 3, 15.9, 15.9])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`scale_xy` must be finite and at least 1"):
        YOLOCoder(scale_xy=0.9)
    with pytest.raises(ValueError, match="`scale_xy` must be finite and at least 1"):
        YOLOCoder({8: 1.2, 16: 0.5})
    with pytest.raises(ValueError, match="`grid` must be finite and at least 1"):
        YOLOv1Coder((0, 7))
    with pytest.raises(ValueError, match="`clip` must be finite and above 0"):
        YOLOXCoder(clip=0)
    with pytest.raises(ValueError, match="`margin` must be finite and at least 0 and below 16"):
        DistributionCoder(margin=16)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(\.\.\., 4, 17\), but got \(2, 4, 16\)"):
        DistributionCoder().decode(torch.zeros(2, 4, 16), torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match=r"`anchors` must have shape \(\.\.\., 4\)"):
        YOLOCoder().decode(torch.zeros(2, 4), torch.zeros(2, 2), torch.ones(2))
