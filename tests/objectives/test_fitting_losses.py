"""Every loss of the library in every slot that it fits, of the anchor detectors and of both stages of Faster R-CNN."""

from typing import Any

import pytest

from lossatlas.losses import CATALOG
from lossatlas.objectives.slots import BIN_KINDS, BOX_KINDS, SIGMOID_KINDS, SOFTMAX_KINDS
from tests.objectives.cases import CASES
from tests.objectives.scenes import CLASSES, TARGETS, gradient

SLOTS = {
    ("ssd", "box_loss"): BOX_KINDS,
    ("ssd", "class_loss"): SOFTMAX_KINDS,
    ("rpn", "box_loss"): BOX_KINDS,
    ("rpn", "objectness_loss"): SIGMOID_KINDS,
    ("rpn_softmax", "objectness_loss"): SOFTMAX_KINDS,
    ("roi_head", "box_loss"): BOX_KINDS,
    ("roi_head", "class_loss"): SOFTMAX_KINDS,
    ("atss", "box_loss"): BOX_KINDS,
    ("atss", "class_loss"): SIGMOID_KINDS,
    ("gfl", "box_loss"): BOX_KINDS,
    ("gfl", "class_loss"): SIGMOID_KINDS,
    ("gfl", "distribution_loss"): BIN_KINDS,
    ("varifocalnet", "box_loss"): BOX_KINDS,
    ("varifocalnet", "class_loss"): SIGMOID_KINDS,
}


def bound(name: str, classes: int) -> dict[str, Any]:
    """Arguments that a loss cannot do without."""
    if name == "mpdiou_loss":
        return {"image_size": (48, 48)}
    return {"num_classes": classes} if name in ("equalized_focal_loss", "seesaw_loss") else {}


@pytest.mark.parametrize(("objective", "slot"), SLOTS)
def test_every_loss_that_fits_trains(objective: str, slot: str) -> None:
    case = CASES[objective]
    classes = {"rpn": 1, "rpn_softmax": 2, "ssd": CLASSES + 1, "roi_head": CLASSES + 1}.get(objective, CLASSES)
    for entry in CATALOG.values():
        if entry.input_kind not in SLOTS[objective, slot] or entry.name == "kl_box_loss":  # which needs variances
            continue
        raw = case.leaves(3)
        loss = entry.module(**bound(entry.name, classes))
        # By images, so that every loss is given weights.
        terms = case.objective(**{slot: loss, "normalizer": "image"})(case.outputs(raw), TARGETS)
        terms.total.backward()
        assert terms.total.isfinite(), entry.name
        for tensor in raw.values():
            assert gradient(tensor).isfinite().all(), entry.name
            assert (gradient(tensor) != 0).any(), entry.name
