"""Loss functions and their module forms.

Every loss is a pure function ``name(input, target, *, hyper-parameters, weight, reduction, normalizer)`` and a module
that binds its keyword arguments. `lossatlas.losses.reduction` states the contract that all of them keep.
"""

from lossatlas.losses.boxes import (
    CIoULoss,
    DIoULoss,
    EIoULoss,
    FocalEIoULoss,
    GIoULoss,
    IoULoss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    focal_eiou_loss,
    giou_loss,
    iou_loss,
)
from lossatlas.losses.catalog import CATALOG, LossEntry
from lossatlas.losses.classification import (
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    QualityFocalLoss,
    SigmoidFocalLoss,
    binary_cross_entropy_with_logits,
    cross_entropy,
    prior_probability_bias,
    quality_focal_loss,
    sigmoid_focal_loss,
)
from lossatlas.losses.modules import LossModule, module_form
from lossatlas.losses.reduction import reduce
from lossatlas.losses.regression import (
    BalancedL1Loss,
    L1Loss,
    SmoothL1Loss,
    balanced_l1_loss,
    l1_loss,
    smooth_l1_loss,
)

__all__ = [
    "CATALOG",
    "BalancedL1Loss",
    "BinaryCrossEntropyWithLogits",
    "CIoULoss",
    "CrossEntropy",
    "DIoULoss",
    "EIoULoss",
    "FocalEIoULoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "LossEntry",
    "LossModule",
    "QualityFocalLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "balanced_l1_loss",
    "binary_cross_entropy_with_logits",
    "ciou_loss",
    "cross_entropy",
    "diou_loss",
    "eiou_loss",
    "focal_eiou_loss",
    "giou_loss",
    "iou_loss",
    "l1_loss",
    "module_form",
    "prior_probability_bias",
    "quality_focal_loss",
    "reduce",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]
