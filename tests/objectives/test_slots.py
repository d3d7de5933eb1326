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
from lossatlas.objectives.slots import box_slot, class_slot

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


@pytest.mark.parametrize(
    "wrap", [lambda loss: loss, functools.partial, lambda loss: functools.partial(loss, weight=None)]
)
def test_the_catalogue_says_what_a_box_loss_takes(wrap: Any) -> None:
    assert box_slot(wrap(losses.giou_loss), None) == ("boxes", False)
    assert box_slot(wrap(losses.smooth_l1_loss), None) == ("encoded", True)
    assert box_slot(wrap(losses.smooth_l1_loss), "boxes") == ("boxes", True)


def test_module_forms_fit() -> None:
    assert box_slot(losses.FocalEIoULoss(gamma=0.7), None) == ("boxes", False)
    assert box_slot(losses.L1Loss(), None) == ("encoded", True)
    assert class_slot(losses.SigmoidFocalLoss(), None) == "binary"
    assert class_slot(losses.QualityFocalLoss(), None) == "quality"


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
"""It needs another output of the network."""


def test_arguments_that_a_loss_needs_must_be_bound() -> None:
    for loss in (
        losses.mpdiou_loss,
        losses.CATALOG["mpdiou_loss"].module(),
        functools.partial(losses.mpdiou_loss, weight=None),
    ):
        with pytest.raises(ValueError, match=r"`box_loss` mpdiou_loss needs image_size: .* MPDIoULoss\(image_size="):
            FCOS(box_loss=loss)
    assert box_slot(losses.MPDIoULoss(image_size=(9, 9)), None) == ("boxes", False)
    assert box_slot(functools.partial(losses.mpdiou_loss, image_size=(9, 9)), None) == ("boxes", False)
    assert class_slot(losses.EqualizedFocalLoss(num_classes=3), None) == "binary"


@pytest.mark.parametrize("normalizer", ["batch", "image", "all_reduce", "moving_average"])
def test_every_box_loss_of_the_library_fits_both_objectives(normalizer: Any) -> None:
    points, strides = ANCHORS[:, :2] + 5, torch.full((3,), 8.0)
    for entry in losses.CATALOG.values():
        if entry.input_kind not in ("boxes", "elementwise") or entry.name in UNFIT:
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


def test_every_class_loss_of_the_library_leaves_out_what_is_ignored() -> None:
    targets = [TARGETS[0], {**TARGETS[1], "iscrowd": torch.tensor([False, True])}]
    for entry in losses.CATALOG.values():
        if entry.input_kind not in ("binary_logits", "quality_logits"):
            continue
        raw = outputs()
        raw.class_logits.requires_grad_()
        term = RetinaNet(class_loss=entry.module(**REQUIRED.get(entry.name, {})))(raw, targets)["class"]
        term.backward()
        assert term.isfinite()
        assert raw.class_logits.grad is not None
        assert (raw.class_logits.grad[1, 2] == 0).all(), entry.name
        assert (raw.class_logits.grad[:, :2] != 0).any(), entry.name
