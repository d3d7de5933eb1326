"""What all segmentation losses share: the forms of targets, ignored pixels, absent classes, and half precision."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.losses import CATALOG
from tests.conformance.dense import IGNORED, one_hot, sample, sample_binary

NAMES = [name for name, entry in CATALOG.items() if entry.family == "segmentation"]
every_loss = pytest.mark.parametrize("name", NAMES)
every_softmax_loss = pytest.mark.parametrize(
    "name", [name for name in NAMES if CATALOG[name].input_kind == "segmentation"]
)


def function(name: str) -> Callable[..., Tensor]:
    return CATALOG[name].function


def takes(name: str, argument: str) -> bool:
    return argument in inspect.signature(function(name)).parameters


def classes(seed: int = 0) -> tuple[Tensor, Tensor]:
    return sample(torch.Generator().manual_seed(seed))


def binary(seed: int = 0) -> tuple[Tensor, Tensor]:
    return sample_binary(torch.Generator().manual_seed(seed))


def gradient(name: str, input: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = input.clone().requires_grad_()
    value = function(name)(leaf, target, **options)
    (grad,) = torch.autograd.grad(value, leaf)
    return value.detach(), grad


# Forms of targets.


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_dtype_of_an_index_map_does_not_matter(name: str, dtype: torch.dtype) -> None:
    input, target = classes()
    assert torch.equal(function(name)(input, target.to(dtype)), function(name)(input, target))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.bool])
def test_one_hot_targets_are_indices(name: str, dtype: torch.dtype) -> None:
    if name == "border_weighted_cross_entropy":
        pytest.skip("its objects are those of an index map")
    input, target = classes()
    torch.testing.assert_close(function(name)(input, one_hot(target).to(dtype)), function(name)(input, target))


@every_loss
def test_mask_of_one_channel_may_have_its_axis(name: str) -> None:
    if name == "border_weighted_cross_entropy":
        pytest.skip("its objects are those of an index map")
    input, target = binary()
    expected = function(name)(input, target)
    for other in (target.unsqueeze(1), target.bool(), target.double(), target.unsqueeze(1).double()):
        assert torch.equal(function(name)(input, other), expected)


@every_loss
def test_one_slice_of_a_volume_is_an_image_and_one_row_of_an_image_is_a_line(name: str) -> None:
    if name == "hausdorff_erosion_loss":
        pytest.skip("the neighbours of a pixel are more in a volume")
    input, target = classes()
    torch.testing.assert_close(function(name)(input.unsqueeze(2), target.unsqueeze(1)), function(name)(input, target))
    line, line_target = input[:, :, 1], target[:, 1]
    torch.testing.assert_close(
        function(name)(line.unsqueeze(2), line_target.unsqueeze(1)), function(name)(line, line_target)
    )


@every_loss
def test_order_of_the_axes_does_not_matter(name: str) -> None:
    input, target = classes()
    torch.testing.assert_close(function(name)(input.mT, target.mT), function(name)(input, target))


@every_softmax_loss
def test_probabilities_are_logits_after_the_logarithm(name: str) -> None:
    input, target = classes()
    torch.testing.assert_close(function(name)(input.softmax(1).log(), target), function(name)(input, target))


@every_loss
def test_label_outside_the_classes_is_refused(name: str) -> None:
    input, target = classes()
    target[0, 0, 0] = 3
    with pytest.raises(RuntimeError, match="out of bounds"):
        function(name)(input, target)


@every_loss
def test_wrong_forms_are_named(name: str) -> None:
    input, target = classes()
    with pytest.raises(ValueError, match=r"`input` must be \(N, C, \*spatial\) with 1 to 3 spatial axes, but got"):
        function(name)(input[0, 0], target[0, 0])
    with pytest.raises(TypeError, match=r"`target` must have an integer dtype, but got torch.float64"):
        function(name)(input, target.double())
    if takes(name, "absent"):
        with pytest.raises(ValueError, match=r"`absent` must be one of .* but got 'ignore'"):
            function(name)(input, target, absent="ignore")
    if takes(name, "include_background") and "generalized" not in name and name != "exponential_logarithmic_loss":
        with pytest.raises(ValueError, match=r"`include_background=False` needs more than one channel"):
            function(name)(*binary(), include_background=False)


@pytest.mark.parametrize("name", [name for name in NAMES if takes(name, "multilabel")])
def test_labels_are_losses_of_their_own_channels(name: str) -> None:
    if "generalized" in name:
        pytest.skip("it pools the channels")
    input, _ = classes()
    target = (input.roll(1, -1) > 0).long()
    function_of_all = function(name)(
        input, target, multilabel=True, **({"percent": 100} if takes(name, "percent") else {})
    )
    each = [
        function(name)(input[:, c : c + 1], target[:, c], **({"percent": 100} if takes(name, "percent") else {}))
        for c in range(3)
    ]
    torch.testing.assert_close(function_of_all, torch.stack(each).mean())


# Ignored pixels.


@every_loss
@pytest.mark.parametrize("poison", [1e4, torch.inf, torch.nan])
def test_ignored_pixel_anywhere_changes_nothing(name: str, poison: float) -> None:
    input, target = classes()
    target[:, 2, 2] = IGNORED
    target[1, 0, 4] = IGNORED
    expected, expected_grad = gradient(name, input, target)
    poisoned = torch.where((target == IGNORED).unsqueeze(1), poison, input)
    value, grad = gradient(name, poisoned, target)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)
    assert (grad.movedim(1, -1)[target == IGNORED] == 0).all()


@every_loss
def test_pixel_of_a_one_hot_target_is_ignored_as_a_whole(name: str) -> None:
    if name in {"border_weighted_cross_entropy", "lovasz_hinge_loss"}:
        pytest.skip("takes index maps, or channels that are independent")
    input, target = classes()
    target[:, 2, 2] = IGNORED
    dense = one_hot(target.clamp(min=0))
    dense[:, 1, 2, 2] = IGNORED
    torch.testing.assert_close(function(name)(input, dense), function(name)(input, target))


def test_one_label_of_a_pixel_is_ignored_alone() -> None:
    input, target = classes()
    dense = one_hot(target)
    dense[:, 1, 2, 2] = IGNORED
    elements = losses.dice_loss(input, dense, multilabel=True, reduction="none")
    other = losses.dice_loss(input, one_hot(target), multilabel=True, reduction="none")
    assert torch.equal(elements[:, [0, 2]], other[:, [0, 2]])
    assert (elements[:, 1] != other[:, 1]).all()


@every_loss
def test_nothing_is_ignored_with_none(name: str) -> None:
    input, target = classes()
    assert torch.equal(function(name)(input, target, ignore_index=None), function(name)(input, target))


@pytest.mark.parametrize("name", [name for name in NAMES if takes(name, "per_image")])
def test_an_image_without_valid_pixels_does_not_count(name: str) -> None:
    input, target = classes()
    alone = function(name)(input[:1], target[:1])
    target[1] = IGNORED
    torch.testing.assert_close(function(name)(input, target), alone)


# Classes that are absent from the target.


@every_loss
def test_false_positives_on_an_empty_mask_are_pushed_down(name: str) -> None:
    input, target = binary()
    options = {"absent": "formula"} if name == "lovasz_softmax_loss" else {}
    _, grad = gradient(name, input, torch.zeros_like(target), **options)
    assert (grad >= 0).all()
    assert grad.max() > 1e-6


@every_loss
def test_empty_mask_costs_nothing_where_nothing_is_predicted(name: str) -> None:
    input, target = binary()
    value = function(name)(torch.full_like(input, -1e4), torch.zeros_like(target))
    assert value == 0


def test_every_false_positive_of_an_absent_class_has_a_gradient() -> None:
    input, target = binary()
    for name in ("dice_loss", "jaccard_loss", "tversky_loss", "mcc_loss", "boundary_loss", "hausdorff_dt_loss"):
        _, grad = gradient(name, input, torch.zeros_like(target))
        torch.testing.assert_close(grad, input.sigmoid() * (1 - input.sigmoid()) / input.numel())


# Half precision: the sums of 512 x 512 probabilities are beyond float16.


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_a_large_image_are_exact_in_half_precision(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(7)
    target = torch.zeros(1, 512, 512, dtype=torch.long)
    target[:, 100:420, 50:470] = 1
    input = (torch.randn(1, 2, 512, 512, generator=generator) + 6 * one_hot(target, 2)).to(dtype)
    value, grad = gradient(name, input, target)
    assert value.dtype == torch.float32
    assert grad.isfinite().all()
    expected = function(name)(input.double(), target)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-6)


# Maps of distances.


def test_maps_of_the_data_loader_are_those_of_the_loss() -> None:
    input, target = classes()
    target[0, 3, 3] = IGNORED
    x = input.float()
    spacing = (2.0, 0.5)
    signed = losses.signed_distance_map(target, 3, spacing=spacing)
    across = losses.distance_across_map(target, 3, spacing=spacing)
    near = losses.inverse_distance_map(target, 3, spacing=spacing)
    gaps = losses.border_weight_map(target, sigma=3.0)
    for include_background in (True, False):
        options: dict[str, Any] = {"include_background": include_background, "spacing": spacing}
        torch.testing.assert_close(
            losses.boundary_loss(x, target, distance_map=signed, **options), losses.boundary_loss(x, target, **options)
        )
        torch.testing.assert_close(
            losses.hausdorff_dt_loss(x, target, distance_map=across, **options),
            losses.hausdorff_dt_loss(x, target, **options),
        )
    torch.testing.assert_close(
        losses.distance_penalized_cross_entropy(x, target, distance_map=near),
        losses.distance_penalized_cross_entropy(x, target, spacing=spacing),
    )
    torch.testing.assert_close(
        losses.border_weighted_cross_entropy(x, target, border_map=gaps),
        losses.border_weighted_cross_entropy(x, target, sigma=3.0),
    )


def test_maps_take_one_hot_targets() -> None:
    _, target = classes()
    for make in (losses.signed_distance_map, losses.distance_across_map, losses.inverse_distance_map):
        assert torch.equal(make(one_hot(target), 3), make(target, 3))


def test_numbers_tell_touching_objects_apart() -> None:
    target = torch.tensor([[1, 1, 2, 2, 0]])
    assert (losses.border_weight_map(target) == 0).all()
    apart = losses.border_weight_map(target, instances=True)
    # 1 pixel from the second object and 3 from the first.
    torch.testing.assert_close(apart, torch.tensor([[0, 0, 0, 0, 10.0]]) * torch.exp(torch.tensor(-16 / 50)))


def test_class_that_is_absent_or_fills_the_image_has_no_distances() -> None:
    for target in (torch.zeros(1, 3, 3), torch.ones(1, 3, 3)):
        assert (losses.signed_distance_map(target.long(), 1) == 0).all()
        assert (losses.distance_across_map(target.long(), 1) == 0).all()


def test_spacing_is_checked() -> None:
    input, target = classes()
    with pytest.raises(ValueError, match=r"`spacing` must have 2 numbers, one for each spatial axis, but got 3"):
        losses.boundary_loss(input, target, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"`spacing` must be finite and above 0, but got 0"):
        losses.boundary_loss(input, target, spacing=(1.0, 0.0))


def test_missing_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    input, target = classes()
    with pytest.raises(ImportError, match=r"pip install 'lossatlas\[lab\]'"):
        losses.boundary_loss(input, target)
    maps = torch.zeros_like(input)
    assert losses.boundary_loss(input, target, distance_map=maps) == 0
