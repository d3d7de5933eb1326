import functools
from dataclasses import replace

import pytest
import torch

from lossatlas.lab import registry
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.loss_specs import parse_loss
from lossatlas.lab.slots import SOFTMAX
from lossatlas.lab.variants import folder_name, parse_losses, parse_variants, resolve_loss, slot_losses
from lossatlas.losses import (
    EqualizedFocalLoss,
    SeesawLoss,
    WIoULoss,
    ciou_loss,
    focal_eiou_loss,
    giou_loss,
    wiou_loss,
)


def test_the_first_loss_is_the_baseline() -> None:
    variants = parse_variants(["box=giou,ciou,focal_eiou(gamma=0.5)"], "fcos")
    assert [variant.name for variant in variants] == ["giou", "ciou", "focal_eiou(gamma=0.5)"]
    assert [variant.losses for variant in variants] == [
        {"box": "giou"},
        {"box": "ciou"},
        {"box": "focal_eiou(gamma=0.5)"},
    ]


def test_two_slots_give_every_combination() -> None:
    variants = parse_variants(["box=giou,ciou", "cls=sigmoid_focal,quality_focal"], "retinanet")
    assert [dict(variant.losses) for variant in variants] == [
        {"box": "giou", "cls": "sigmoid_focal"},
        {"box": "giou", "cls": "quality_focal"},
        {"box": "ciou", "cls": "sigmoid_focal"},
        {"box": "ciou", "cls": "quality_focal"},
    ]
    assert len({variant.name for variant in variants}) == 4


def test_without_losses_the_objective_keeps_its_own() -> None:
    (variant,) = parse_variants([], "retinanet")
    assert variant.name == "retinanet"
    assert variant.losses == {}


def test_commas_inside_brackets_belong_to_the_loss() -> None:
    specs = parse_losses("focal_eiou(gamma=1, normalize_weights=True), giou", "box", "fcos")
    assert [dict(spec.options) for spec in specs] == [{"gamma": 1, "normalize_weights": True}, {}]


def test_full_names_and_short_names_are_the_same() -> None:
    assert parse_variants(["box=giou_loss"], "fcos") == parse_variants(["box=giou"], "fcos")


def test_a_bare_word_is_a_string() -> None:
    assert parse_losses("iou(mode=linear)", "box", "fcos")[0].options == {"mode": "linear"}
    assert parse_losses("iou(mode='linear')", "box", "fcos")[0].options == {"mode": "linear"}


def test_a_resolved_loss_is_the_function_of_the_library() -> None:
    assert resolve_loss("ciou", "box", "fcos", 3) is ciou_loss
    bound = resolve_loss("focal_eiou(gamma=1.0)", "box", "fcos", 3)
    assert isinstance(bound, functools.partial)
    boxes, target = torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 2, 2]])
    assert bound(boxes, target) == focal_eiou_loss(boxes, target, gamma=1.0)


@pytest.mark.parametrize("text", ["giou", "giou_loss", "GIoULoss", " giou "])
def test_a_loss_is_found_by_each_of_its_names(text: str) -> None:
    assert parse_loss(text).build(3) is giou_loss


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("bix=giou", r"unknown slot 'bix' of objective fcos; did you mean box\? Valid: box, cls"),
        ("giou", r"cannot read --vary 'giou': expected SLOT=LOSS"),
        ("box=gio", r"unknown loss 'gio' for slot box of fcos; did you mean giou\? Valid: .*\bciou\b"),
        ("box=sigmoid_focal", r"loss 'sigmoid_focal' does not fit slot box of fcos; valid: .*\bgiou\b"),
        ("cls=cross_entropy", r"does not fit slot cls of fcos; valid: .*\bsigmoid_focal\b"),
        (
            "box=focal_eiou(gama=1)",
            r"unknown option 'gama' of loss focal_eiou; did you mean gamma\? Valid: gamma, norm",
        ),
        ("box=giou(eps=1)", r"loss giou has no options, but got 'eps'"),
        ("box=giou(reduction=sum)", r"loss giou has no options, but got 'reduction'"),
        ("box=focal_eiou(gamma=big)", r"option gamma of loss focal_eiou must be a number, but got 'big'"),
        ("box=focal_eiou(gamma=True)", r"must be a number, but got True"),
        ("box=focal_eiou(normalize_weights=1)", r"must be True or False, but got 1"),
        ("box=iou(mode=cube)", r"must be linear or log or square, but got 'cube'"),
        ("box=focal_eiou(gamma=-1)", r"loss focal_eiou\(gamma=-1\): `gamma` must be .*at least 0"),
        ("box=focal_eiou(gamma=1+1)", r"must be a literal, but got '1 \+ 1'"),
        ("box=focal_eiou(gamma=open('x'))", r"must be a literal"),
        ("box=focal_eiou(0.5)", r"cannot read 'focal_eiou\(0.5\)'"),
        ("box=focal_eiou(**{'gamma': 1})", r"cannot read"),
        ("box=", r"cannot read ''"),
        ("box=giou,,ciou", r"cannot read"),
        ("box=giou)(ciou", r"cannot read"),
        ("box=giou,giou_loss", r"names the same loss twice: giou and giou"),
        ("box=focal_eiou,focal_eiou(gamma=0.5)", r"names the same loss twice"),
    ],
)
def test_errors_name_what_is_valid(vary: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse_variants([vary], "fcos")


def test_a_slot_can_be_named_once() -> None:
    with pytest.raises(ArgumentError, match="slot box twice"):
        parse_variants(["box=giou", "box=ciou"], "fcos")


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"unknown objective 'focs'; did you mean fcos\? Valid: fcos, retinanet"):
        parse_variants(["box=giou"], "focs")


def test_only_losses_that_fit_are_offered() -> None:
    assert {"giou", "smooth_l1"} <= set(slot_losses("box", "retinanet"))
    assert {"sigmoid_focal", "quality_focal", "binary_cross_entropy_with_logits"} <= set(slot_losses("cls", "fcos"))
    assert not {"giou", "wiou"} & set(slot_losses("cls", "fcos"))
    assert not {"sigmoid_focal", "ap"} & set(slot_losses("box", "fcos"))
    assert "kl_box" not in slot_losses("box", "retinanet")  # no objective calls it as it needs


def test_required_options_are_asked_for() -> None:
    with pytest.raises(ArgumentError, match=r"loss mpdiou needs image_size: mpdiou\(image_size=\.\.\.\)"):
        parse_variants(["box=mpdiou"], "fcos")
    (variant,) = parse_variants(["box=mpdiou(image_size=(320, 240))"], "fcos")
    assert variant.losses == {"box": "mpdiou(image_size=(320, 240))"}
    with pytest.raises(ArgumentError, match=r"must be \(an? \w+, an? \w+\), but got 320"):
        parse_variants(["box=mpdiou(image_size=320)"], "fcos")


def test_folder_names_are_plain_and_not_shared() -> None:
    name = folder_name("box=iou(mode='log') cls=quality_focal(beta=2.5)", set())
    assert name == "box-iou-mode-log-cls-quality_focal-beta-2.5"
    assert folder_name("iou(mode='log')", {"iou-mode-log"}) == "iou-mode-log-2"


def test_a_loss_that_keeps_a_state_is_a_new_module_with_the_options_of_its_class() -> None:
    one, two = (resolve_loss("wiou(version=2, gamma=0.7)", "box", "fcos", 3) for _ in range(2))
    assert isinstance(one, WIoULoss)
    assert one is not two
    assert (one.version, one.gamma) == (2, 0.7)
    balanced = resolve_loss("equalized_focal", "cls", "fcos", 7)
    assert isinstance(balanced, EqualizedFocalLoss)
    assert balanced.num_classes == 7


def test_the_classes_of_a_softmax_include_its_background(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(registry.OBJECTIVES["fcos"], slots={"cls": SOFTMAX})
    monkeypatch.setattr(registry, "OBJECTIVES", {"fcos": spec})
    loss = resolve_loss("seesaw", "cls", "fcos", 3)
    assert isinstance(loss, SeesawLoss)
    assert loss.num_classes == 4


def test_a_loss_is_shown_without_the_options_of_its_state() -> None:
    with pytest.raises(ArgumentError, match="version is an option of WIoULoss, whose state only training gives"):
        parse_loss("wiou(version=3)").function()
    assert parse_loss("wiou").function() is wiou_loss
