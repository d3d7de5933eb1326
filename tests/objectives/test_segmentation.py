"""The segmentation objective: every loss that fits, forms of masks, deep supervision and decoding."""

import functools
import inspect
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lossatlas import losses
from lossatlas.objectives import Segmentation, SegmentationOutputs
from lossatlas.objectives.pixel_slots import SEGMENTATION_KINDS
from tests.objectives.scenes import gradient, leaf

VOID = 255
FITTING = [entry for entry in losses.CATALOG.values() if entry.input_kind in SEGMENTATION_KINDS]


def masks(classes: int = 3) -> list[dict[str, Tensor]]:
    """Three images: several classes, a single class, and one with a void region."""
    first = torch.zeros(6, 8, dtype=torch.int64)
    first[1:4, 1:4], first[2:6, 5:8] = 1, classes - 1
    third = first.flip(0).clone()
    third[:, 3:6] = VOID
    return [{"mask": first}, {"mask": torch.zeros_like(first)}, {"mask": third}]


def outputs(channels: int = 3, seed: int = 0) -> SegmentationOutputs:
    return SegmentationOutputs(leaf(3, channels, 6, 8, seed=seed))


def made(entry: Any, channels: int = 3) -> Any:
    """Return the module form of a loss."""
    needs_classes = entry.name in ("equalized_focal_loss", "seesaw_loss")
    return (
        entry.module(num_classes=max(channels, 1 + (entry.input_kind == "class_logits")))
        if needs_classes
        else entry.module()
    )


def one_hot(targets: list[dict[str, Tensor]], classes: int = 3) -> list[dict[str, Tensor]]:
    hot = []
    for target in targets:
        void = target["mask"] == VOID
        channels = F.one_hot(torch.where(void, 0, target["mask"]), classes).movedim(-1, 0)
        hot.append({"mask": torch.where(void, VOID, channels)})
    return hot


def test_cross_entropy_by_the_formula() -> None:
    raw = outputs()
    total, count = 0.0, 0
    for image, target in enumerate(masks()):
        for y in range(6):
            for x in range(8):
                label = int(target["mask"][y, x])
                if label != VOID:
                    z = raw.logits[image, :, y, x].tolist()
                    total += math.log(sum(map(math.exp, z))) - z[label]
                    count += 1
    terms = Segmentation(loss=losses.cross_entropy, ignore_index=VOID)(raw, masks())
    assert list(terms) == ["segmentation"]
    assert terms["segmentation"].item() == pytest.approx(total / count)


def test_the_sum_of_several_losses_carries_their_weights() -> None:
    raw, targets = outputs(), masks()
    both: Any = {"ce": losses.cross_entropy, "dice": losses.DiceLoss(squared=True)}
    terms = Segmentation(loss=both, weights={"dice": 3.0}, ignore_index=VOID)(raw, targets)
    mask = torch.stack([target["mask"] for target in targets])
    assert terms["ce"].item() == pytest.approx(losses.cross_entropy(raw.logits, mask, ignore_index=VOID).item())
    dice = losses.dice_loss(raw.logits, mask, squared=True, ignore_index=VOID)
    assert terms["dice"].item() == pytest.approx(3 * dice.item())
    assert terms.total.item() == pytest.approx(terms["ce"].item() + terms["dice"].item())


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("entry", FITTING, ids=lambda entry: entry.name)
def test_every_loss_of_the_library_fits(entry: Any, channels: int) -> None:
    """Whatever the loss: finite, a gradient where pixels count, and none where they are void."""
    raw, targets = outputs(channels), masks(max(channels, 2))
    terms = Segmentation(loss=made(entry, channels), ignore_index=VOID)(raw, targets)
    terms.total.backward()
    assert terms.total.isfinite()
    void = torch.stack([target["mask"] == VOID for target in targets])
    found = gradient(raw.logits).movedim(1, -1)
    assert found.isfinite().all()
    assert (found[~void] != 0).any()
    assert (found[void] == 0).all()


ANY_FORM = [
    entry
    for entry in FITTING  # one takes index maps only, the other draws lots
    if entry.name not in ("border_weighted_cross_entropy", "balanced_binary_cross_entropy_with_logits")
]


@pytest.mark.parametrize("entry", ANY_FORM, ids=lambda entry: entry.name)
def test_index_map_and_one_hot_mask_agree(entry: Any) -> None:
    raw, targets = outputs(), masks()
    objective = Segmentation(loss=made(entry), ignore_index=VOID).eval()
    assert objective(raw, targets).total.item() == pytest.approx(objective(raw, one_hot(targets)).total.item())


def test_soft_masks_keep_their_shares() -> None:
    raw = SegmentationOutputs(leaf(1, 2, 3, seed=0))
    soft = torch.tensor([[[0.25, 1.0, VOID], [0.75, 0.0, VOID]]], dtype=torch.float64)
    logp = raw.logits.log_softmax(1)[0]
    expected = -(0.25 * logp[0, 0] + 0.75 * logp[1, 0] + logp[0, 1]) / 2
    terms = Segmentation(loss=losses.cross_entropy, ignore_index=VOID)(raw, soft)
    assert terms.total.item() == pytest.approx(expected.item())


def test_one_channel_of_a_class_loss_is_a_sigmoid() -> None:
    raw, targets = outputs(1), masks(2)
    softmax = Segmentation(loss=losses.cross_entropy, ignore_index=VOID)(raw, targets)
    sigmoid = Segmentation(loss=losses.binary_cross_entropy_with_logits, ignore_index=VOID)(raw, targets)
    assert softmax.total.item() == pytest.approx(sigmoid.total.item())


def test_several_labels() -> None:
    raw = outputs()
    labels = (torch.rand(3, 3, 6, 8, generator=torch.Generator().manual_seed(1)) > 0.5).long()
    labels[0, 1, 2, 3] = VOID
    refused = 0
    for entry in FITTING:
        loss = made(entry)
        arguments = inspect.signature(entry.function).parameters
        if entry.input_kind == "class_logits" or (entry.input_kind == "segmentation" and "multilabel" not in arguments):
            with pytest.raises(ValueError, match=f"`loss` must take several labels of a pixel .* but {entry.name}"):
                Segmentation(loss=loss, multilabel=True)
            refused += 1
            continue
        objective = Segmentation(loss=loss, multilabel=True, ignore_index=VOID)
        (found,) = torch.autograd.grad(objective(raw, labels).total, raw.logits)
        assert found.isfinite().all()
        assert found[0, 1, 2, 3] == 0, entry.name
        assert found[0, 0, 2, 3] != 0 or entry.name not in ("dice_loss", "binary_cross_entropy_with_logits")
    assert 5 <= refused < len(FITTING) / 2
    decoded = Segmentation(loss=losses.dice_loss, multilabel=True).decode(raw)
    assert torch.equal(decoded[1]["mask"], raw.logits[1] > 0)


def test_deep_supervision() -> None:
    targets = masks()
    main, half = leaf(3, 3, 6, 8, seed=0), leaf(3, 3, 3, 4, seed=1)
    raw = SegmentationOutputs(main, (half, leaf(3, 3, 6, 8, seed=2)))
    options: Any = {"loss": losses.cross_entropy, "ignore_index": VOID, "auxiliary_weights": [0.5, 0.25]}
    mask = torch.stack([target["mask"] for target in targets])
    third = losses.cross_entropy(raw.auxiliary[1], mask, ignore_index=VOID)
    # A pixel of the half resolution lies between four of the mask; the one after the middle is taken.
    sampled = losses.cross_entropy(half, mask[:, 1::2, 1::2], ignore_index=VOID)
    terms = Segmentation(**options, resize="target")(raw, targets)
    assert terms["auxiliary"].item() == pytest.approx((0.5 * sampled + 0.25 * third).item())
    up = F.interpolate(half, (6, 8), mode="bilinear", align_corners=False)
    stretched = losses.cross_entropy(up, mask, ignore_index=VOID)
    terms = Segmentation(**options)(raw, targets)
    assert terms["auxiliary"].item() == pytest.approx((0.5 * stretched + 0.25 * third).item())
    terms.total.backward()
    assert (gradient(half) != 0).any()
    alone = Segmentation(loss=losses.cross_entropy, ignore_index=VOID)(SegmentationOutputs(main), targets)
    assert alone["segmentation"].item() == terms["segmentation"].item()


def test_maps_of_the_targets_reach_the_losses_that_take_them() -> None:
    raw = outputs(2)
    targets = [{**target, "border_map": torch.full((6, 8), 2.0)} for target in masks(2)]
    both: Any = {"border": losses.border_weighted_cross_entropy, "dice": losses.dice_loss}
    given = Segmentation(loss=both, ignore_index=VOID)(raw, targets)
    plain = Segmentation(loss=losses.cross_entropy, ignore_index=VOID)(raw, targets)
    assert given["border"].item() == pytest.approx(3 * plain.total.item())
    del targets[1]["border_map"]
    with pytest.raises(ValueError, match=r"`targets\[1\]` must have the key 'border_map', but has \['mask'\]"):
        Segmentation(loss=both, ignore_index=VOID)(raw, targets)


def test_a_loss_of_ones_own() -> None:
    seen: dict[str, Any] = {}

    def own(logits: Tensor, mask: Tensor, **options: Any) -> Tensor:
        seen.update(options, mask=mask)
        return logits.sum()

    raw = outputs()
    total = Segmentation(loss=own, ignore_index=None)(raw, masks()).total
    assert total.item() == pytest.approx(raw.logits.sum().item())
    assert seen["ignore_index"] is None
    assert seen["mask"].shape == (3, 6, 8)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_axes_and_half_precision(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    auxiliary = torch.randn(shape[:2] + tuple(2 for _ in shape[2:])).half().requires_grad_()
    mask = torch.randint(3, shape[:1] + shape[2:], generator=torch.Generator().manual_seed(1))
    objective = Segmentation()
    terms = objective(SegmentationOutputs(logits, (auxiliary,)), mask)
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert gradient(logits).dtype == gradient(auxiliary).dtype == torch.float16
    assert gradient(auxiliary).isfinite().all()
    (first, _) = objective.decode(SegmentationOutputs(logits))
    assert torch.equal(first["mask"], logits[0].argmax(0))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.sigmoid_focal_loss, losses.dice_cross_entropy_loss])
def test_nothing_to_learn_from(loss: Any) -> None:
    raw = outputs()
    void = [{"mask": torch.full((6, 8), VOID)}] * 3
    terms = Segmentation(loss=loss, ignore_index=VOID)(raw, void)
    terms.total.backward()
    assert terms.total.item() == 0
    assert (gradient(raw.logits) == 0).all()
    empty = SegmentationOutputs(leaf(0, 3, 6, 8, seed=0))
    terms = Segmentation(loss=loss)(empty, [])
    terms.total.backward()
    assert terms.total.item() == 0


def test_binary_masks_of_any_integer_or_boolean_type() -> None:
    raw = outputs(1)
    reference = Segmentation()(raw, [{"mask": target["mask"] == 1} for target in masks(2)]).total.item()
    for dtype in (torch.uint8, torch.int32, torch.int64):
        typed = [{"mask": (target["mask"] == 1).to(dtype)} for target in masks(2)]
        assert Segmentation()(raw, typed).total.item() == reference


def test_decoding() -> None:
    logits = torch.tensor([[[[2.0, -1.0], [0.0, 0.0]], [[1.0, 3.0], [-1.0, 4.0]]]])
    (found,) = Segmentation().decode(SegmentationOutputs(logits))
    assert found["mask"].tolist() == [[0, 1], [0, 1]]
    assert found["probabilities"][:, 0, 0].tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])
    (binary,) = Segmentation().decode(SegmentationOutputs(logits[:, :1]))
    assert (binary["mask"].dtype, binary["mask"].tolist()) == (torch.int64, [[1, 0], [0, 0]])
    (wide,) = Segmentation().decode(SegmentationOutputs(logits), (4, 4))
    # The second logit is -1 and 4 above the first, and 1/4 and 11/4 in between.
    assert wide["mask"][0].tolist() == [0, 1, 1, 1]


def test_losses_move_and_are_saved_with_the_objective() -> None:
    objective = Segmentation(loss=functools.partial(losses.CrossEntropy(class_weight=torch.ones(3))))
    assert objective.to(torch.float64).state_dict()["losses.segmentation.inner.class_weight"].dtype == torch.float64


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`loss` must be one of .*dice_loss.* but got giou_loss"):
        Segmentation(loss=losses.giou_loss)
    with pytest.raises(ValueError, match="`weights` must be one of 'segmentation', but got 'dice'"):
        Segmentation(loss=losses.dice_loss, weights={"dice": 1.0})
    with pytest.raises(ValueError, match="`loss` must hold at least one loss, none of them named 'auxiliary'"):
        Segmentation(loss={})
    with pytest.raises(ValueError, match="`resize` must be one of 'logits', 'target', but got 'mask'"):
        Segmentation(resize="mask")  # type: ignore[arg-type]
    raw = outputs()
    with pytest.raises(ValueError, match="`targets` must have one entry for each of the 3 images, but has 1"):
        Segmentation()(raw, masks()[:1])
    with pytest.raises(ValueError, match=r"`targets\[2\]\['mask'\]` must have the shape of the first, \(6, 8\)"):
        Segmentation()(raw, [*masks()[:2], {"mask": torch.zeros(5, 8)}])
    with pytest.raises(ValueError, match=r"`targets\[0\]` must have the key 'mask', but has \['boxes'\]"):
        Segmentation()(raw, [{"boxes": torch.zeros(0, 4)}] * 3)
    with pytest.raises(ValueError, match=r"`auxiliary\[0\]` must have shape \(3, 3, \*, \*\), but got \(3, 2, 6, 8\)"):
        SegmentationOutputs(raw.logits, (torch.zeros(3, 2, 6, 8),))
    deep = SegmentationOutputs(raw.logits, (raw.logits, raw.logits))
    with pytest.raises(ValueError, match="`auxiliary_weights` must have one number for each of the 2 auxiliary"):
        Segmentation(auxiliary_weights=[1.0], ignore_index=VOID)(deep, masks())
