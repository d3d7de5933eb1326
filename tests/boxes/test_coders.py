"""Coders: hand-worked numbers, round trips and degenerate boxes."""

import math

import pytest
import torch
from torch import Tensor

from lossatlas.boxes.coders import DeltaCoder, PointDistanceCoder


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 50 + 1
    return torch.cat((start, start + size), dim=1)


def test_deltas_worked_by_hand() -> None:
    anchor = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # centre 20, 40; sides 20, 40
    box = torch.tensor([[20.0, 20.0, 30.0, 40.0]])  # centre 25, 30; sides 10, 20
    deltas = DeltaCoder(weights=(10, 10, 5, 5)).encode(box, anchor)
    expected = [10 * 5 / 20, 10 * -10 / 40, 5 * math.log(10 / 20), 5 * math.log(20 / 40)]
    assert deltas[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10.0, 10.0, 5.0, 5.0)])
def test_deltas_round_trip(weights: tuple[float, float, float, float]) -> None:
    boxes, anchors = random_boxes(50, 0), random_boxes(50, 1)
    coder = DeltaCoder(weights)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, anchors), anchors), boxes, rtol=1e-12, atol=1e-10)


def test_variances_are_inverse_weights() -> None:
    coder = DeltaCoder.from_variances((0.1, 0.1, 0.2, 0.2))
    assert coder.weights == pytest.approx((10, 10, 5, 5))


def test_large_scales_are_clipped_where_the_gradient_ends() -> None:
    anchor = torch.tensor([0.0, 0.0, 16.0, 16.0])
    deltas = torch.tensor([[0.0, 0.0, 100.0, math.log(2)], [0.0, 0.0, 3.0, 3.0]], requires_grad=True)
    boxes = DeltaCoder().decode(deltas, anchor)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides[0].tolist() == pytest.approx([1000, 32], rel=1e-5)
    sides.sum().backward()
    assert deltas.grad is not None
    assert deltas.grad[0, 2] == 0
    assert (deltas.grad[[0, 1, 1], [3, 2, 3]] > 0).all()


DEGENERATE = torch.tensor(
    [[5.0, 5.0, 5.0, 5.0], [9.0, 9.0, 3.0, 3.0], [0.0, 5.0, 1000.0, 5.0], [-1e4, -1e4, 1e4, 1e4], [0.0, 0.0, 7.0, 9.0]]
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_boxes_and_anchors_stay_finite(dtype: torch.dtype) -> None:
    boxes = DEGENERATE.to(dtype).clone().requires_grad_()
    anchors = DEGENERATE.to(dtype)[:, None]
    deltas = DeltaCoder().encode(boxes, anchors)
    assert deltas.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert deltas.shape == (5, 5, 4)
    decoded = DeltaCoder().decode(deltas, anchors)
    assert decoded.isfinite().all()
    decoded.sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


def test_distances_worked_by_hand() -> None:
    points, strides = torch.tensor([[20.0, 24.0], [20.0, 24.0]]), torch.tensor([8.0, 16.0])
    box = torch.tensor([[12.0, 8.0, 60.0, 40.0]])
    in_strides = [[1.0, 2.0, 5.0, 2.0], [0.5, 1.0, 2.5, 1.0]]
    assert PointDistanceCoder().encode(box, points, strides).tolist() == in_strides
    assert PointDistanceCoder(normalize=False).encode(box, points, strides).tolist() == [[8.0, 16.0, 40.0, 16.0]] * 2


@pytest.mark.parametrize("normalize", [True, False])
def test_distances_round_trip_even_outside_the_box(normalize: bool) -> None:
    boxes = torch.cat((random_boxes(40, 2), DEGENERATE.double()))
    points = torch.linspace(-50, 200, 90, dtype=torch.float64).reshape(45, 2)
    strides = torch.tensor([4.0, 8.0, 16.0] * 15, dtype=torch.float64)
    coder = PointDistanceCoder(normalize)
    decoded = coder.decode(coder.encode(boxes, points, strides), points, strides)
    torch.testing.assert_close(decoded, boxes, rtol=1e-12, atol=1e-9)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`weights` must be finite and above 0"):
        DeltaCoder(weights=(1, 1, 0, 1))
    with pytest.raises(ValueError, match="`variances` must be four numbers"):
        DeltaCoder.from_variances([0.1, 0.2])
    with pytest.raises(ValueError, match=r"`anchors` must have shape \(\.\.\., 4\)"):
        DeltaCoder().encode(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(TypeError, match="`deltas` must have a floating-point dtype"):
        DeltaCoder().decode(torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4))
