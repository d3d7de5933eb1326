"""What is drawn of a loss: the views of its kind of input, with a line for each value of its main option, and maps."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lossatlas.lab.loss_specs import LossSpec, loss_options, required_tensors
from lossatlas.lab.map_views import MAP_VIEWS, MAPS, Map
from lossatlas.lab.views import NUMBER_VIEWS, Line, LossFunction, View, ViewMaker
from lossatlas.losses.catalog import InputKind, LossEntry

Variants: TypeAlias = Mapping[str, LossFunction]
"""Losses by what the legend calls them."""

VIEWS: Mapping[InputKind, ViewMaker] = {**NUMBER_VIEWS, **MAP_VIEWS}
"""The views of each kind of input."""

FAMILIES: Mapping[str, tuple[str, Sequence[Any]]] = {
    "information_content": ("base", (None, 2.0, 10.0)),
    "entropy": ("base", (None, 2.0, 10.0)),
    "distribution_cross_entropy": ("base", (None, 2.0, 10.0)),
    "kl_divergence": ("base", (None, 2.0, 10.0)),
    "binary_cross_entropy": ("label_smoothing", (0.0, 0.1, 0.3)),
    "binary_cross_entropy_with_logits": ("label_smoothing", (0.0, 0.1, 0.3)),
    "cross_entropy": ("label_smoothing", (0.0, 0.1, 0.3)),
    "nll_loss": ("label_smoothing", (0.0, 0.1, 0.3)),
    "sigmoid_focal_loss": ("gamma", (0.0, 0.5, 1.0, 2.0, 5.0)),
    "softmax_focal_loss": ("gamma", (0.0, 0.5, 1.0, 2.0, 5.0)),
    "sigmoid_focal_star_loss": ("gamma", (1.0, 2.0, 4.0)),
    "asymmetric_loss": ("gamma_neg", (0.0, 1.0, 2.0, 4.0)),
    "quality_focal_loss": ("beta", (0.0, 1.0, 2.0, 4.0)),
    "varifocal_loss": ("gamma", (0.0, 1.0, 2.0, 4.0)),
    "gaussian_focal_loss": ("alpha", (0.0, 1.0, 2.0, 4.0)),
    "balanced_binary_cross_entropy_with_logits": ("alpha", (None, 0.1, 0.25, 0.75)),
    "seesaw_loss": ("q", (0.0, 1.0, 2.0, 4.0)),
    "equalized_focal_loss": ("gamma", (0.5, 1.0, 2.0, 5.0)),
    "ghmr_loss": ("mu", (0.02, 0.1, 0.5)),
    "poly_loss": ("epsilon", (-1.0, 0.0, 1.0, 2.0, 4.0)),
    "bi_tempered_loss": ("t2", (1.0, 1.2, 2.0, 4.0)),
    "ap_loss": ("delta", (0.5, 1.0, 2.0)),
    "dr_loss": ("tau", (1.0, 4.0, 16.0)),
    "smooth_l1_loss": ("beta", (0.0, 1 / 9, 0.5, 1.0, 2.0)),
    "balanced_l1_loss": ("alpha", (0.2, 0.5, 1.0)),
    "smooth_l1_sigma_loss": ("sigma", (1.0, 2.0, 3.0)),
    "huber_loss": ("delta", (0.25, 0.5, 1.0, 2.0)),
    "focal_l1_loss": ("beta", (0.4, 0.6, 0.8, 1.0)),
    "kl_box_loss": ("log_variance", (-2.0, 0.0, 2.0)),
    "wing_loss": ("epsilon", (0.5, 1.0, 2.0, 4.0)),
    "adaptive_wing_loss": ("omega", (5.0, 10.0, 14.0)),
    "iou_loss": ("mode", ("linear", "log", "square")),
    "ciou_loss": ("gradient", ("exact", "unscaled")),
    "focal_eiou_loss": ("gamma", (0.0, 0.5, 1.0)),
    "siou_loss": ("theta", (2.0, 4.0, 6.0)),
    "alpha_iou_loss": ("alpha", (1.0, 2.0, 3.0, 5.0)),
    "mpdiou_loss": ("image_size", ((2.0, 2.0), (4.0, 4.0), (8.0, 8.0))),
    "inner_iou_loss": ("ratio", (0.5, 0.7, 1.0, 1.3)),
    "focaler_iou_loss": ("upper", (0.5, 0.75, 0.95)),
    "powerful_iou_loss": ("version", (1, 2)),
    "nwd_loss": ("constant", (1.0, 4.0, 12.8)),
    "bounded_iou_loss": ("beta", (0.05, 0.2, 0.5)),
    "gwd_loss": ("tau", (1.0, 2.0, 3.0)),
    "kld_loss": ("tau", (1.0, 2.0, 3.0)),
    "probiou_loss": ("mode", ("l1", "l2")),
    "dice_loss": ("squared", (False, True)),
    "tversky_loss": ("beta", (0.3, 0.5, 0.7, 0.9)),
    "focal_tversky_loss": ("gamma", (1.0, 4 / 3, 2.0)),
    "asymmetric_similarity_loss": ("beta", (1.0, 1.5, 3.0)),
    "generalized_dice_loss": ("power", (0.0, 1.0, 2.0)),
    "penalty_generalized_dice_loss": ("penalty", (0.0, 1.0, 2.5, 5.0)),
    "sensitivity_specificity_loss": ("ratio", (0.05, 0.25, 0.5)),
    "border_weighted_cross_entropy": ("border_weight", (0.0, 5.0, 10.0)),
    "hausdorff_dt_loss": ("alpha", (1.0, 2.0, 3.0)),
    "hausdorff_erosion_loss": ("alpha", (1.0, 2.0, 3.0)),
    "soft_cldice_loss": ("alpha", (0.0, 0.5, 1.0)),
    "dice_cross_entropy_loss": ("ce_weight", (0.0, 0.5, 1.0, 2.0)),
    "dice_focal_loss": ("gamma", (0.0, 1.0, 2.0, 4.0)),
    "dice_topk_loss": ("topk_weight", (0.0, 0.5, 1.0, 2.0)),
    "generalized_dice_focal_loss": ("gamma", (0.0, 1.0, 2.0, 4.0)),
    "combo_loss": ("alpha", (0.2, 0.5, 0.8)),
    "exponential_logarithmic_loss": ("dice_gamma", (0.3, 1.0, 2.0)),
    "unified_focal_loss": ("gamma", (0.1, 0.5, 0.9)),
    "joint_ohkm_loss": ("topk", (1, 4, 8, 17)),
    "simcc_loss": ("sigma", (2.0, 4.0, 6.0)),
}
"""The main option of a loss, or a tensor that it needs, and the values that are drawn beside each other.

Losses that are not here have no option that changes the form of their curve."""

RANGES: Mapping[str, tuple[float, float]] = {"wing_loss": (-15, 15)}
"""What is drawn of losses that change outside the range of their kind."""


TENSORS: Mapping[str, float] = {"log_variance": 0.0, "localization_error": 0.3}
"""The number that fills a tensor which a loss needs beside input and target, where its views do not give it."""


def views(spec: LossSpec) -> list[View]:
    """Return the views that show a loss.

    Args:
        spec: the loss with its options.

    Returns:
        The views of its kind of input, with a line for each value of its main option where that is not given, or for
        each of its terms.

    Raises:
        ValueError: an option outside of its range.
    """
    make = VIEWS[spec.entry.input_kind]
    found = _side_by_side({label: make(loss) for label, loss in _variants(spec).items()})
    low_high = RANGES.get(spec.entry.name)
    return found if low_high is None else [replace(view, low=low_high[0], high=low_high[1]) for view in found]


def maps(spec: LossSpec) -> list[Map]:
    """Return target, prediction and gradient of a loss of maps; nothing for other losses.

    Args:
        spec: the loss with its options.
    """
    make = MAPS.get(spec.entry.input_kind)
    return [] if make is None else make(_bind(spec, {}))


def _variants(spec: LossSpec) -> Variants:
    terms = term_names(spec.entry)
    if terms:
        return {term: _term(_bind(spec, {}), term) for term in terms}
    option, values = FAMILIES.get(spec.entry.name, ("", ()))
    if not values or option in spec.options:
        return {"": _bind(spec, {})}
    default = loss_options(spec.entry).get(option, ...)
    return {_label(option, value, value == default): _bind(spec, {option: value}) for value in values}


def _bind(spec: LossSpec, extra: Mapping[str, Any]) -> LossFunction:
    """Give a loss its options, and one number everywhere for each tensor that it needs beside input and target."""
    numbers = {name: extra.get(name, TENSORS.get(name)) for name in required_tensors(spec.entry)}
    given = {name: value for name, value in extra.items() if name not in numbers}
    loss = spec.function()

    def bound(x: Tensor, *target: Tensor, **options: Any) -> Any:
        tensors = {name: torch.full_like(x, number) for name, number in numbers.items() if number is not None}
        return loss(x, *target, **{**tensors, **given, **options})

    return bound


def term_names(entry: LossEntry) -> tuple[str, ...]:
    """Return the names of the terms of a loss that returns several, else nothing."""
    returned = typing.get_type_hints(entry.function)["return"]
    return getattr(returned, "_fields", ())


def _term(loss: LossFunction, name: str) -> LossFunction:
    def term(*inputs: Tensor, **options: Any) -> Tensor:
        value: Tensor = getattr(loss(*inputs, **options), name)
        return value

    return term


def _label(option: str, value: Any, default: bool) -> str:
    shown = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{option} = {shown}{' (default)' if default else ''}"


def _side_by_side(variants: Mapping[str, list[View]]) -> list[View]:
    """Merge the views of several losses: each line of a view becomes a view of its own, with a line for each loss."""
    first = next(iter(variants.values()))
    if len(variants) == 1:
        return first
    return [
        replace(
            view,
            lines=[Line(label, found[column].lines[row].loss) for label, found in variants.items()],
            title=view.lines[row].label,
        )
        for column, view in enumerate(first)
        for row in range(len(view.lines))
    ]
