"""Our losses against those of torch and torchvision, value and gradient, on the same inputs."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas import losses
from lossatlas.boxes.geometry import pairwise_iou
from tests.conformance.cases import boxes, classification, information, regression

ops = pytest.importorskip("torchvision.ops")

Sample = Callable[[torch.Generator], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25], dtype=torch.float64)

SAME: dict[str, tuple[Sample, Loss, Loss]] = {
    "torch binary cross entropy of probabilities": (
        classification.sample_probability,
        losses.binary_cross_entropy,
        F.binary_cross_entropy,
    ),
    "torch binary cross entropy": (
        classification.sample_quality,
        losses.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
    ),
    "torch binary cross entropy, pos_weight": (
        classification.sample_binary,
        lambda x, y: losses.binary_cross_entropy_with_logits(x, y, pos_weight=torch.tensor(4.0)),
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, pos_weight=torch.tensor(4.0)),
    ),
    "torch cross entropy, smoothed": (
        classification.sample_classes,
        lambda x, y: losses.cross_entropy(x, y, label_smoothing=0.1, ignore_index=2),
        lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1, ignore_index=2),
    ),
    "torch cross entropy, probabilities and class weights": (
        lambda generator: (
            classification.sample_classes(generator)[0],
            classification.sample_classes(generator)[0].softmax(1),
        ),
        lambda x, y: losses.cross_entropy(x, y, class_weight=WEIGHTS, label_smoothing=0.1),
        lambda x, y: F.cross_entropy(x, y, weight=WEIGHTS, label_smoothing=0.1),
    ),
    "torch negative log-likelihood": (
        classification.sample_log_probabilities,
        lambda x, y: losses.nll_loss(x, y, class_weight=WEIGHTS, ignore_index=2, reduction="sum"),
        lambda x, y: F.nll_loss(x, y, weight=WEIGHTS, ignore_index=2, reduction="sum"),
    ),
    "torch divergence": (
        information.sample_distributions,
        lambda x, y: losses.kl_divergence(x.flatten(0, 1), y.flatten(0, 1)),
        lambda x, y: F.kl_div(x.flatten(0, 1).log(), y.flatten(0, 1), reduction="batchmean"),
    ),
    "torch entropy": (
        information.sample_distributions,
        lambda x, _: losses.entropy(x),
        lambda x, _: torch.special.entr(x).sum(-1).mean(),
    ),
    # torch divides by the sum of the targets' weights, we by the number of elements: the sums agree.
    "torch cross entropy, class weights, sum": (
        classification.sample_classes,
        lambda x, y: losses.cross_entropy(x, y, class_weight=WEIGHTS, reduction="sum"),
        lambda x, y: F.cross_entropy(x, y, weight=WEIGHTS, reduction="sum"),
    ),
    "torch cross entropy, class weights, normalizer": (
        classification.sample_classes,
        lambda x, y: losses.cross_entropy(x, y, class_weight=WEIGHTS, normalizer=WEIGHTS[y].sum()),
        lambda x, y: F.cross_entropy(x, y, weight=WEIGHTS),
    ),
    "torch L1": (regression.sample, losses.l1_loss, F.l1_loss),
    "torch smooth L1": (
        regression.sample,
        lambda x, y: losses.smooth_l1_loss(x, y, beta=0.7),
        lambda x, y: F.smooth_l1_loss(x, y, beta=0.7),
    ),
    "torchvision focal": (
        classification.sample_binary,
        losses.sigmoid_focal_loss,
        lambda x, y: ops.sigmoid_focal_loss(x, y, reduction="mean"),
    ),
    "torchvision focal without alpha": (
        classification.sample_binary,
        lambda x, y: losses.sigmoid_focal_loss(x, y, alpha=None, gamma=1.5),
        lambda x, y: ops.sigmoid_focal_loss(x, y, alpha=-1, gamma=1.5, reduction="mean"),
    ),
    "torchvision GIoU": (
        boxes.sample,
        losses.giou_loss,
        lambda x, y: ops.generalized_box_iou_loss(x, y, "mean", eps=0),
    ),
    "torchvision DIoU": (boxes.sample, losses.diou_loss, lambda x, y: ops.distance_box_iou_loss(x, y, "mean", eps=0)),
    # Its complete IoU does not hand eps on to the distance term, so that 1e-7 stays in the denominators.
    "torchvision CIoU": (boxes.sample, losses.ciou_loss, lambda x, y: ops.complete_box_iou_loss(x, y, "mean")),
}


@pytest.mark.parametrize("name", SAME)
def test_same_value_and_gradient(name: str) -> None:
    sample, ours, theirs = SAME[name]
    for seed in range(5):
        input, target = sample(torch.Generator().manual_seed(seed))
        mine, other = input.clone().requires_grad_(), input.clone().requires_grad_()
        value, expected = ours(mine, target), theirs(other, target)
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-8)
        value.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-8)


def test_pairwise_iou_is_torchvisions() -> None:
    input, target = boxes.sample(torch.Generator().manual_seed(3))
    torch.testing.assert_close(pairwise_iou(input, target[:4]), ops.box_iou(input, target[:4]))


def both(ours: Loss, theirs: Loss, input: Tensor, target: Tensor) -> tuple[float, float, bool, bool]:
    """Return both values and whether both gradients are finite."""
    mine, other = input.clone().requires_grad_(), input.clone().requires_grad_()
    value, expected = ours(mine, target), theirs(other, target)
    value.backward()
    expected.backward()
    assert mine.grad is not None
    assert other.grad is not None
    return value.item(), expected.item(), bool(mine.grad.isfinite().all()), bool(other.grad.isfinite().all())


# Where we differ on purpose. Each case fails when torchvision changes, which is when to look again.


def test_flat_box_has_a_gradient_here_and_nan_there() -> None:
    flat, target = boxes.boxes((1, 1, 4, 1)), boxes.boxes((0, 0, 5, 5))
    value, other, finite, other_finite = both(
        losses.ciou_loss, lambda x, y: ops.complete_box_iou_loss(x, y, "mean"), flat, target
    )
    assert math.isclose(value, other, rel_tol=1e-6)
    assert finite
    assert not other_finite


def test_doubly_inverted_box_costs_one_here_and_nothing_there() -> None:
    inverted, target = boxes.boxes((5, 5, 1, 1)), boxes.boxes((5, 5, 1, 1)).roll(2, dims=-1)
    value, other, _, _ = both(
        losses.giou_loss, lambda x, y: ops.generalized_box_iou_loss(x, y, "mean"), inverted, target
    )
    assert value >= 1
    assert other < 1


def test_certain_outcomes_keep_their_slope_here_and_lose_it_there() -> None:
    probability = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    outcome = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    mine, other = probability.clone().requires_grad_(), probability.clone().requires_grad_()
    value = losses.binary_cross_entropy(mine, outcome, reduction="none")
    expected = F.binary_cross_entropy(other, outcome, reduction="none")
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    expected.sum().backward()
    assert mine.grad is not None
    assert other.grad is not None
    # 1 and -1 are the derivatives of -ln(1 - p) at 0 and of -ln p at 1.
    assert mine.grad.tolist() == pytest.approx([-1e12, 1e12, 1.0, -1.0])
    assert other.grad.tolist() == pytest.approx([-1e12, 1e12, 0.0, 0.0])


def test_empty_focal_loss_is_zero_here_and_nan_there() -> None:
    empty = torch.zeros(0)
    value, other, _, _ = both(
        losses.sigmoid_focal_loss, lambda x, y: ops.sigmoid_focal_loss(x, y, reduction="mean"), empty, empty
    )
    assert value == 0
    assert math.isnan(other)


def test_fractional_gamma_is_finite_here_and_nan_there() -> None:
    saturated, target = torch.tensor([200.0]), torch.tensor([1.0])
    _, _, finite, other_finite = both(
        lambda x, y: losses.sigmoid_focal_loss(x, y, gamma=0.5),
        lambda x, y: ops.sigmoid_focal_loss(x, y, gamma=0.5, reduction="mean"),
        saturated,
        target,
    )
    assert finite
    assert not other_finite
