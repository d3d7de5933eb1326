"""The regression simulation: its directions on hand-made boxes, and the published figures."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.lab.simulation import exact_direction, reference_direction, simulate, starting_points

LOSSES: dict[str, Callable[..., Tensor]] = {
    "iou": functools.partial(losses.iou_loss, mode="linear"),
    "giou": losses.giou_loss,
    "diou": losses.diou_loss,
    "ciou": losses.ciou_loss,
}


def box(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_overlapping_boxes_move_along_the_gradient_with_sizes_twice_as_fast() -> None:
    boxes, target = box(10.3, 9.8, 1.4, 0.9), box(10, 10, 1, 1)
    for name in ("iou", "giou"):
        exact = exact_direction(LOSSES[name])(boxes, target)
        published = reference_direction(name)(boxes, target)
        torch.testing.assert_close(published, exact * torch.tensor([1.0, 1.0, 2.0, 2.0]).double())


def test_disjoint_boxes_differ_as_the_published_code_differs() -> None:
    # Two unit boxes, 3 apart: the published GIoU takes I = (-2)(1), and the enclosing box is 4 by 1.
    boxes, target = box(7, 10.25, 1, 1), box(10, 10, 1, 1)
    inner, outer = (-2.0, 0.75), (4.0, 1.25)
    area = inner[0] * inner[1]
    union, enclosing = 2 - area, outer[0] * outer[1]
    # The right edge (inside the target's right edge) and the left edge (the enclosing box's left edge) in turn.
    d_right = (enclosing * (1 - inner[1]) - union * 0) / enclosing**2
    d_left = (enclosing * (-1 - 0) - union * -outer[1]) / enclosing**2
    published = reference_direction("giou")(boxes, target)[0]
    assert published[0] == pytest.approx(d_left + d_right)
    assert published[2] == pytest.approx(d_right - d_left)
    assert reference_direction("iou")(boxes, target).abs().sum() == 0


def test_published_distance_term_has_the_wrong_sign_before_the_diagonal() -> None:
    # Same vertical position: only the horizontal terms count. c² = 16 + 1, rho² = 9, d(cw)/dx = -1.
    boxes, target = box(7, 10, 1, 1), box(10, 10, 1, 1)
    exact = exact_direction(losses.diou_loss)(boxes, target)[0]
    published = reference_direction("diou")(boxes, target)[0]
    assert exact[0] == pytest.approx((2 * 3 * 17 + 9 * 2 * 4 * -1) / 17**2)
    assert published[0] == pytest.approx((2 * 3 * 17 - 9 * 2 * (4 + 1) * -1) / 17**2)


def test_starting_points_are_spread_evenly_over_the_disc() -> None:
    radius = (starting_points(20_000, seed=0) - 10).norm(dim=1)
    assert radius.max() <= 3
    for share in (0.25, 0.5, 0.75):
        assert (radius <= 3 * share**0.5).float().mean().item() == pytest.approx(share, abs=0.01)


def test_reference_gradient_reproduces_the_published_curves() -> None:
    # Read off the paper's figure, which sums 5000 points; the last with the error of the reading.
    count = 120
    at_50 = {"iou": 6.03e6, "giou": 3.35e6, "diou": 5.28e5, "ciou": 4.29e5}
    at_200 = {"iou": (5.91e6, 1.7e4), "giou": (1.51e6, 1.7e4), "diou": (4.1e3, 50)}
    for result in simulate(dict.fromkeys(at_50, losses.giou_loss), gradient="reference", points=count):
        assert result.errors[50].item() * 5000 / count == pytest.approx(at_50[result.name], rel=0.06), result.name
        if result.name in at_200:
            final = result.final_errors * 343 * 5000
            noise = 3 * final.std().item() / count**0.5
            published, reading_error = at_200[result.name]
            assert final.mean().item() == pytest.approx(published, abs=noise + reading_error), result.name
            assert noise < 8e5


def test_exact_gradient_ranks_giou_far_below_its_published_error() -> None:
    giou, ciou = simulate({"giou": losses.giou_loss, "ciou": losses.ciou_loss}, points=40)
    assert giou.errors[-1] * 5000 / 40 < 1.51e6 / 20
    assert ciou.errors[-1] < giou.errors[-1]


def test_every_loss_starts_from_the_same_boxes() -> None:
    first, second = simulate({"a": losses.giou_loss, "b": losses.eiou_loss}, points=3, iterations=2, seed=5)
    assert torch.equal(first.points, second.points)
    assert first.errors[0] == second.errors[0]
    assert first.final_errors.shape == (3,)
    assert first.final_errors.sum() * 343 == pytest.approx(first.errors[-1].item(), rel=1e-4)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`losses` must be one of 'iou', 'giou', 'diou', 'ciou', but got 'siou'"):
        next(simulate({"siou": losses.giou_loss}, gradient="reference"))
    with pytest.raises(ValueError, match="`points`"):
        next(simulate({"giou": losses.giou_loss}, points=0))
