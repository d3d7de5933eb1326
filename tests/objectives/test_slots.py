"""Which losses fit an objective's slots, and what they are given."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.boxes.coders import DeltaCoder
from lossatlas.boxes.geometry import overlap
from lossatlas.objectives import FCOS, FCOSOutputs, RetinaNet, RetinaNetOutputs
from lossatlas.objectives.slots import (
    BOX_KINDS,
    IGNORE,
    SIGMOID_KINDS,
    SOFTMAX_KINDS,
    BinLoss,
    BoxLoss,
    BoxPairs,
    SigmoidLoss,
    SoftmaxLoss,
)

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]])
TARGETS = [
    {"boxes": torch.tensor([[20.0, 0, 30, 8]]), "labels": torch.tensor([1])},
    {"boxes": torch.tensor([[0.0, 0, 9, 10], [41.0, 0, 50, 10]]), "labels": torch.tensor([0, 2])},
]


class Spy:
    """A loss of one's own: keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = []

    def __call__(self, input: Tensor, target: Tensor, **options: Any) -> Tensor:
        self.calls.append((input, target, options))
        return input.sum() * 0 + 1


def outputs() -> RetinaNetOutputs:
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(2, 3, 4, generator=generator) / 10
    return RetinaNetOutputs(torch.randn(2, 3, 3, generator=generator), deltas.requires_grad_(), ANCHORS)


def regression(loss: Any, *given: Any) -> tuple[str, bool]:
    slot = BoxLoss(loss, *given)
    return slot.regression, slot.elementwise


@pytest.mark.parametrize(
    "wrap", [lambda loss: loss, functools.partial, lambda loss: functools.partial(loss, weight=None)]
)
def test_the_catalogue_says_what_a_box_loss_takes(wrap: Any) -> None:
    assert regression(wrap(losses.giou_loss)) == ("boxes", False)
    assert regression(wrap(losses.smooth_l1_loss)) == ("encoded", True)
    assert regression(wrap(losses.smooth_l1_loss), "boxes") == ("boxes", True)
    assert regression(wrap(losses.rmse_loss)) == ("encoded", False)


def test_module_forms_fit() -> None:
    assert regression(losses.FocalEIoULoss(gamma=0.7)) == ("boxes", False)
    assert regression(losses.L1Loss()) == ("encoded", True)
    assert SigmoidLoss(losses.SigmoidFocalLoss()).target == "binary"
    assert SigmoidLoss(losses.QualityFocalLoss()).target == "quality"
    assert SigmoidLoss(losses.RankSortLoss()).target == "quality"


def test_losses_of_another_kind_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"`class_loss` must be one of .*sigmoid_focal_loss.* but got giou_loss"):
        RetinaNet(class_loss=losses.giou_loss)
    with pytest.raises(ValueError, match=r"`class_loss` must be one of .* but got cross_entropy"):
        FCOS(class_loss=losses.cross_entropy)
    with pytest.raises(ValueError, match=r"`box_loss` must be one of .*giou_loss.* but got sigmoid_focal_loss"):
        FCOS(box_loss=losses.SigmoidFocalLoss())
    with pytest.raises(TypeError, match="`box_loss` must be callable, but got str"):
        FCOS(box_loss="giou")  # type: ignore[arg-type]


def test_box_losses_are_never_given_encoded_values() -> None:
    with pytest.raises(ValueError, match="`regression` must be 'boxes' for giou_loss"):
        RetinaNet(box_loss=losses.giou_loss, regression="encoded")


def test_unknown_callables_must_say_what_they_take() -> None:
    with pytest.raises(ValueError, match=r"`box_loss` Spy is not a loss of the library: pass regression='boxes'"):
        RetinaNet(box_loss=Spy())
    with pytest.raises(ValueError, match=r"`class_loss` <lambda> is not .* pass class_target='binary'"):
        FCOS(class_loss=lambda input, target, **options: input.sum())
    with pytest.raises(ValueError, match="`regression` must be one of 'boxes', 'encoded', but got 'delta'"):
        RetinaNet(box_loss=Spy(), regression="delta")  # type: ignore[arg-type]


def test_a_box_loss_of_decoded_boxes() -> None:
    spy, raw = Spy(), outputs()
    terms = RetinaNet(box_loss=spy, regression="boxes", box_weight=2.5)(raw, TARGETS)
    ((input, target, options),) = spy.calls
    place = ([0, 1, 1], [1, 0, 2])
    torch.testing.assert_close(input, DeltaCoder().decode(raw.deltas[place], ANCHORS[place[1]]))
    assert target.tolist() == [[20.0, 0, 30, 8], [0.0, 0, 9, 10], [41.0, 0, 50, 10]]
    assert options["weight"] is None
    assert options["reduction"] == "mean"
    assert options["normalizer"].item() == 3
    assert terms["box"].item() == 2.5


def test_a_box_loss_of_encoded_values_weighs_rows() -> None:
    spy, raw = Spy(), outputs()
    RetinaNet(box_loss=spy, regression="encoded", normalizer="image")(raw, TARGETS)
    ((input, target, options),) = spy.calls
    place = ([0, 1, 1], [1, 0, 2])
    assert torch.equal(input, raw.deltas[place])
    boxes = torch.tensor([[20.0, 0, 30, 8], [0.0, 0, 9, 10], [41.0, 0, 50, 10]])
    torch.testing.assert_close(target, DeltaCoder().encode(boxes, ANCHORS[place[1]]))
    assert options["weight"].tolist() == [[1.0], [0.5], [0.5]]
    assert options["normalizer"].item() == 2


def test_a_class_loss_gets_ones_for_positives_and_minus_one_for_ignored() -> None:
    spy = Spy()
    targets = [TARGETS[0], {**TARGETS[1], "iscrowd": torch.tensor([False, True])}]
    RetinaNet(class_loss=spy, class_target="binary", class_weight=3)(outputs(), targets)
    ((_, target, options),) = spy.calls
    expected = [[[0, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0], [-1, -1, -1]]]
    assert target.tolist() == expected
    assert options["ignore_index"] == -1
    assert options["normalizer"].item() == 2


def test_a_loss_of_qualities_gets_the_detached_iou_of_the_decoded_box() -> None:
    spy, raw = Spy(), outputs()
    RetinaNet(class_loss=spy, class_target="quality")(raw, TARGETS)
    ((_, target, _),) = spy.calls
    decoded = DeltaCoder().decode(raw.deltas, ANCHORS.expand(2, 3, 4))
    expected = torch.zeros(2, 3, 3)
    for image, anchor, label, row in ((0, 1, 1, 0), (1, 0, 0, 0), (1, 2, 2, 1)):
        expected[image, anchor, label] = overlap(decoded[image, anchor], TARGETS[image]["boxes"][row]).iou.detach()
    assert not target.requires_grad
    torch.testing.assert_close(target, expected)
    assert 0 < expected.max() < 1


REQUIRED: dict[str, dict[str, Any]] = {
    "mpdiou_loss": {"image_size": (16, 56)},
    "equalized_focal_loss": {"num_classes": 3},
}
"""Arguments of losses that cannot do without."""

UNFIT = ("kl_box_loss",)
"""It needs another output of the network: see ``test_variances.py``."""


def test_arguments_that_a_loss_needs_must_be_bound() -> None:
    for loss in (
        losses.mpdiou_loss,
        losses.CATALOG["mpdiou_loss"].module(),
        functools.partial(losses.mpdiou_loss, weight=None),
    ):
        with pytest.raises(ValueError, match=r"`box_loss` mpdiou_loss needs image_size: .* MPDIoULoss\(image_size="):
            FCOS(box_loss=loss)
    assert regression(losses.MPDIoULoss(image_size=(9, 9))) == ("boxes", False)
    assert regression(functools.partial(losses.mpdiou_loss, image_size=(9, 9))) == ("boxes", False)
    assert SigmoidLoss(losses.EqualizedFocalLoss(num_classes=3)).target == "binary"


@pytest.mark.parametrize("normalizer", ["batch", "image", "all_reduce", "moving_average"])
def test_every_box_loss_of_the_library_fits_both_objectives(normalizer: Any) -> None:
    points, strides = ANCHORS[:, :2] + 5, torch.full((3,), 8.0)
    for entry in losses.CATALOG.values():
        if entry.input_kind not in BOX_KINDS or entry.name in UNFIT:
            continue
        raw = outputs()
        distances = raw.deltas.detach().abs().requires_grad_()
        dense = FCOSOutputs(raw.class_logits, distances, raw.class_logits[..., 0], points, strides)
        options: Any = {"box_loss": entry.module(**REQUIRED.get(entry.name, {})), "normalizer": normalizer}
        for objective, given, leaf in (
            (RetinaNet(**options), raw, raw.deltas),
            (FCOS(**options), dense, distances),
        ):
            term = objective(given, TARGETS)["box"]
            term.backward()
            assert term.isfinite()
            assert leaf.grad is not None
            assert leaf.grad.isfinite().all()
            assert (leaf.grad != 0).any(), entry.name


@pytest.mark.parametrize("normalizer", ["batch", "image", "moving_average"])
def test_every_class_loss_of_the_library_leaves_out_what_is_ignored(normalizer: Any) -> None:
    targets = [TARGETS[0], {**TARGETS[1], "iscrowd": torch.tensor([False, True])}]
    for entry in losses.CATALOG.values():
        if entry.input_kind not in SIGMOID_KINDS or entry.name in UNFIT:
            continue
        raw = outputs()
        raw.class_logits.requires_grad_()
        objective = RetinaNet(class_loss=entry.module(**REQUIRED.get(entry.name, {})), normalizer=normalizer)
        term = objective(raw, targets)["class"]
        term.backward()
        assert term.isfinite()
        assert raw.class_logits.grad is not None
        assert (raw.class_logits.grad[1, 2] == 0).all(), entry.name
        assert (raw.class_logits.grad[:, :2] != 0).any(), entry.name


def class_term(loss: Any, given: RetinaNetOutputs) -> Tensor:
    """What a RetinaNet with such a class loss puts out for logits of its own."""
    logits = given.class_logits.detach().requires_grad_()
    term = RetinaNet(class_loss=loss)(RetinaNetOutputs(logits, given.deltas, given.anchors), TARGETS)["class"]
    (gradient,) = torch.autograd.grad(term, logits)
    return torch.cat((term.detach()[None], gradient.flatten()))


def both(loss: Any, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, logits)
    return torch.cat((loss.detach()[None], gradient.flatten()))


def test_ranking_losses_rank_the_whole_batch() -> None:
    given = outputs()
    place = ([0, 1, 1], [1, 0, 2], [1, 0, 2])
    target = torch.zeros(2, 3, 3)
    target[place] = 1
    decoded = DeltaCoder().decode(given.deltas[place[:2]], ANCHORS[place[1]]).detach()
    boxes = torch.cat([image["boxes"] for image in TARGETS])
    quality = target.clone()
    quality[place] = overlap(decoded, boxes).iou
    error = target.clone()
    error[place] = losses.giou_loss(decoded, boxes, reduction="none")
    logits = given.class_logits.requires_grad_()
    for loss, expected in (
        (losses.ap_loss, losses.ap_loss(logits, target)),
        (losses.dr_loss, losses.dr_loss(logits, target)),
        (losses.alrp_loss, losses.alrp_loss(logits, target, localization_error=error).classification),
        (losses.rank_sort_loss, sum(losses.rank_sort_loss(logits, quality))),
    ):
        torch.testing.assert_close(class_term(loss, given), both(expected, logits))


def test_losses_with_a_mean_of_their_own_are_not_divided_by_positives() -> None:
    given = outputs()
    target = torch.zeros(2, 3, 3)
    target[[0, 1, 1], [1, 0, 2], [1, 0, 2]] = 1
    logits = given.class_logits.requires_grad_()
    torch.testing.assert_close(class_term(losses.ghmc_loss, given), both(losses.ghmc_loss(logits, target), logits))


def test_losses_of_numbers_classify_by_probabilities() -> None:
    given = outputs()
    target = torch.zeros(2, 3, 3)
    target[[0, 1, 1], [1, 0, 2], [1, 0, 2]] = 1
    logits = given.class_logits.requires_grad_()
    for loss, expected in (
        (losses.mse_loss, (logits.sigmoid() - target).square().sum() / 3),
        (losses.binary_cross_entropy, losses.binary_cross_entropy_with_logits(logits, target, normalizer=3)),
    ):
        torch.testing.assert_close(class_term(loss, given), both(expected, logits))


def test_the_state_of_a_loss_is_part_of_the_objective() -> None:
    for wrap in (lambda loss: loss, lambda loss: functools.partial(loss, reduction="mean")):
        objective = RetinaNet(class_loss=wrap(losses.GHMCLoss(bins=4)), box_loss=wrap(losses.WIoULoss()))
        fresh = {name: value.clone() for name, value in objective.state_dict().items()}
        assert len(fresh) == 3  # the bins and whether they have begun, the running mean
        objective(outputs(), TARGETS)
        assert all((value != fresh[name]).any() for name, value in objective.state_dict().items())
        kept = {name: value.clone() for name, value in objective.state_dict().items()}
        objective.eval()(outputs(), TARGETS)
        assert all((value == kept[name]).all() for name, value in objective.state_dict().items())


@pytest.mark.parametrize("name", [name for name, entry in losses.CATALOG.items() if entry.input_kind in SOFTMAX_KINDS])
def test_every_softmax_loss_of_the_library_leaves_out_what_is_ignored(name: str) -> None:
    loss = losses.CATALOG[name].module(**({"num_classes": 4} if name == "seesaw_loss" else {}))
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([[0, 3, IGNORE], [IGNORE, 1, 2]])
    weight, normalizer = torch.tensor([[2.0], [1.0]]), torch.tensor(5.0)
    slot = SoftmaxLoss(loss).eval()
    value = slot(logits, target, weight=weight, normalizer=normalizer)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[target == IGNORE] == 0).all()
    assert (gradient[target != IGNORE] != 0).all()
    single = [
        factor * slot(logits[i, j], target[i, j], weight=None, normalizer=1.0)
        for i, j, factor in ((0, 0, 2), (0, 1, 2), (1, 1, 1), (1, 2, 1))
    ]
    torch.testing.assert_close(value, sum(single) / 5)


def test_a_softmax_slot_takes_class_logits_only() -> None:
    with pytest.raises(ValueError, match=r"`class_loss` must be one of cross_entropy, .* but got sigmoid_focal_loss"):
        SoftmaxLoss(losses.sigmoid_focal_loss)
    spy = Spy()
    SoftmaxLoss(spy)(torch.zeros(2, 3, 4), torch.zeros(2, 3), weight=torch.ones(2, 1), normalizer=1.0)
    ((input, target, options),) = spy.calls
    assert (input.shape, target.shape, options["weight"].shape) == ((6, 4), (6,), (6,))


def test_the_bin_slot_takes_the_mean_of_the_sides() -> None:
    logits = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    target, weight = torch.linspace(0, 5, 12).view(3, 4), torch.tensor([1.0, 0.5, 2.0])
    value = BinLoss(losses.distribution_focal_loss)(logits, target, weight=weight, normalizer=torch.tensor(7.0))
    each = losses.distribution_focal_loss(logits, target, reduction="none").mean(1)
    torch.testing.assert_close(value, (each * weight).sum() / 7)
    with pytest.raises(ValueError, match="`distribution_loss` must be one of distribution_focal_loss, or a callable"):
        BinLoss(losses.cross_entropy)


def test_one_root_for_each_box() -> None:
    pairs = BoxPairs(
        torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([[2.0, 0, 0, 0], [1, 1, 1, 1]]), torch.zeros(2, 4)
    )
    value = BoxLoss(losses.rmse_loss)(pairs, weight=torch.tensor([1.0, 10.0]), normalizer=torch.tensor(2.0))
    assert value.item() == pytest.approx((1 + 10) / 2)
