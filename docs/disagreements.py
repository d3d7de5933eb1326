"""Run lossatlas and its peers on the same inputs where they differ, and write what they answer as a table.

``python docs/disagreements.py`` writes ``docs/disagreements.md``; it needs the `peers` extra.
"""

import importlib.metadata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

warnings.simplefilter("ignore")  # of the peers, as they are imported

import fvcore.nn as fvcore  # noqa: E402
import kornia.losses as kornia  # noqa: E402
import monai.losses as monai  # noqa: E402
import segmentation_models_pytorch.losses as smp  # noqa: E402
import torchvision.ops as vision  # noqa: E402
from torchvision.models.detection._utils import Matcher  # noqa: E402

from lossatlas import losses  # noqa: E402
from lossatlas.assign import MaxIoU  # noqa: E402
from lossatlas.boxes.geometry import pairwise_iou  # noqa: E402

LIBRARIES = ("torch", "torchvision", "fvcore", "monai", "segmentation-models-pytorch", "kornia")


@dataclass(frozen=True)
class Disagreement:
    """One input on which lossatlas and another library answer differently."""

    library: str
    what: str
    input: str
    theirs: Callable[[], object]
    ours: Callable[[], object]
    verdict: str


def boxes(*numbers: float) -> Tensor:
    """Return one box."""
    return torch.tensor([numbers], dtype=torch.float32)


def gradient(loss: Callable[[Tensor], Tensor], input: Tensor) -> str:
    """Return the gradient in words: finite, NaN or infinite, and its largest element."""
    leaf = input.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    if grad.isnan().any():
        return "gradient NaN"
    if grad.isinf().any():
        return "gradient infinite"
    return f"gradient up to {grad.abs().max():.3g}"


def attempt(call: Callable[[], object]) -> str:
    """Return what a call returns, or the error it raises, as text."""
    try:
        value = call()
    except Exception as error:  # whatever a peer raises is its answer
        return f"raises {type(error).__name__}"
    if isinstance(value, Tensor):
        if value.numel() != 1:
            return f"a tensor of shape {tuple(value.shape)}" if value.ndim else "nothing"
        value = value.detach().item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


FLAT, INVERTED, TARGET = boxes(1, 1, 4, 1), boxes(5, 5, 1, 1), boxes(1, 1, 5, 5)
SATURATED = torch.tensor([200.0])
CLASS_LOGITS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
INDEX = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
ONE_HOT = F.one_hot(INDEX, 4).movedim(-1, 1).float()
CLASS_WEIGHT = torch.tensor([1.0, 2.0, 3.0, 4.0])
PERFECT = torch.tensor([6.0, -6.0]).view(1, 1, 2)
PERFECT_TARGET = torch.tensor([1.0, 0.0]).view(1, 1, 2)
EMPTY_MASK = torch.zeros(1, 1, 64, 64)
TENTH = torch.full((1, 1, 64, 64), 0.1).logit()
LARGE = torch.full((1, 2, 512, 512), -4.0)
LARGE[:, 0] = 4.0
LARGE_INDEX = torch.zeros(1, 512, 512, dtype=torch.long)
LARGE_INDEX[:, :32] = 1
LARGE_ONE_HOT = F.one_hot(LARGE_INDEX, 2).movedim(-1, 1).float()
HALF_LARGE = LARGE.half()
HALF_IGNORED = INDEX.clone()
HALF_IGNORED[:, :4] = 255
SOFT = torch.full((1, 1, 4, 4), 0.3)
NOWHERE = torch.tensor([[0.0, 0, 4, 4], [100, 100, 104, 104]])
PRIORS = torch.tensor([[0.0, 0, 4, 5], [20, 20, 24, 24], [40, 40, 44, 44]])


def matched(overlaps: Tensor) -> list[int]:
    """Return torchvision's match of each prior."""
    return Matcher(0.5, 0.4, allow_low_quality_matches=True)(overlaps).tolist()  # type: ignore[no-any-return]


ENTRIES = (
    Disagreement(
        "torchvision",
        "complete IoU of a flat prediction",
        "prediction 1,1,4,1; target 1,1,5,5",
        lambda: gradient(lambda x: vision.complete_box_iou_loss(x, TARGET), FLAT),
        lambda: gradient(lambda x: losses.ciou_loss(x, TARGET), FLAT),
        "We: the aspect angle of a flat box exists, atan2(w, h). There w / h divides by zero.",
    ),
    Disagreement(
        "torchvision",
        "generalized IoU of a doubly inverted box",
        "prediction 5,5,1,1; target 1,1,5,5",
        lambda: vision.generalized_box_iou_loss(INVERTED, TARGET, reduction="mean"),
        lambda: losses.giou_loss(INVERTED, TARGET),
        "We: (-4)(-4) is not an area. There the worst prediction of the shape costs nothing.",
    ),
    Disagreement(
        "torchvision",
        "complete IoU and its `eps`",
        "two boxes, `eps` 10 less `eps` 1e-7",
        lambda: (
            vision.complete_box_iou_loss(boxes(0, 0, 2, 3), TARGET, eps=10.0)
            - vision.complete_box_iou_loss(boxes(0, 0, 2, 3), TARGET, eps=1e-7)
        ),
        lambda: "no such argument",
        "There `eps` is not handed on to the distance term, so that it changes next to nothing. We need none.",
    ),
    Disagreement(
        "torchvision",
        "mean focal loss of nothing",
        "empty logits",
        lambda: vision.sigmoid_focal_loss(torch.zeros(0), torch.zeros(0), reduction="mean"),
        lambda: losses.sigmoid_focal_loss(torch.zeros(0), torch.zeros(0)),
        "We: an image without candidates must not end a training. Its own IoU losses return 0 for nothing.",
    ),
    Disagreement(
        "torchvision",
        "focal loss with γ = 0.5",
        "logit 200, target 1",
        lambda: gradient(lambda x: vision.sigmoid_focal_loss(x, torch.ones(1), gamma=0.5), SATURATED),
        lambda: gradient(lambda x: losses.sigmoid_focal_loss(x, torch.ones(1), gamma=0.5), SATURATED),
        "We: the slope of (1 - p)^γ is unbounded at 1, that of the product is 0.",
    ),
    Disagreement(
        "torchvision",
        "an object that overlaps no prior, low quality matches allowed",
        "2 objects, 3 priors, of which 2 overlap nothing",
        lambda: f"{sum(match >= 0 for match in matched(pairwise_iou(NOWHERE, PRIORS)))} positive",
        lambda: (
            f"{int(MaxIoU.retinanet()(PRIORS, {'boxes': NOWHERE, 'labels': torch.zeros(2).long()}).positive.sum())}"
            " positive"
        ),
        "We: its best overlap is 0, which every prior attains; all of them would become objects.",
    ),
    Disagreement(
        "torch",
        "mean cross entropy with class weights",
        "4 classes, weights 1 to 4",
        lambda: F.cross_entropy(CLASS_LOGITS, INDEX, weight=CLASS_WEIGHT),
        lambda: losses.cross_entropy(CLASS_LOGITS, INDEX, class_weight=CLASS_WEIGHT),
        "A convention: torch divides by the sum of the weights, we by the number of elements, as with every weight. "
        "`normalizer=class_weight[target].sum()` gives torch's.",
    ),
    Disagreement(
        "torch",
        "root of the mean squared error without error",
        "prediction equal to target",
        lambda: gradient(lambda x: F.mse_loss(x, torch.zeros(3)).sqrt(), torch.zeros(3)),
        lambda: gradient(lambda x: losses.rmse_loss(x, torch.zeros(3)), torch.zeros(3)),
        "We: a perfect prediction has nothing to correct.",
    ),
    Disagreement(
        "fvcore",
        "an unknown reduction",
        '`reduction="maen"`, 3 logits',
        lambda: fvcore.sigmoid_focal_loss(torch.zeros(3), torch.ones(3), reduction="maen"),
        lambda: losses.sigmoid_focal_loss(torch.zeros(3), torch.ones(3), reduction="maen"),  # type: ignore[arg-type]
        "We: a misspelt argument is an error. There it silently means no reduction.",
    ),
    Disagreement(
        "fvcore",
        "defaults of the focal loss",
        "logit 0, target 1, no options",
        lambda: fvcore.sigmoid_focal_loss(torch.zeros(1), torch.ones(1), reduction="mean"),
        lambda: losses.sigmoid_focal_loss(torch.zeros(1), torch.ones(1)),
        "Both: the paper's α is 0.25, there it is switched off by default.",
    ),
    Disagreement(
        "fvcore",
        "generalized IoU of an inverted prediction",
        "prediction 5,5,1,1; target 1,1,5,5",
        lambda: fvcore.giou_loss(INVERTED, TARGET),
        lambda: losses.giou_loss(INVERTED, TARGET),
        "We: a network may predict such a box in its first steps, and training must go on.",
    ),
    Disagreement(
        "monai",
        "Dice of perfect logits, default arguments",
        "logits 6 and -6, target 1 and 0",
        lambda: monai.DiceLoss()(PERFECT, PERFECT_TARGET),
        lambda: losses.dice_loss(PERFECT, PERFECT_TARGET),
        "A convention with a trap: there no activation is applied unless asked for, and logits pass unnoticed.",
    ),
    Disagreement(
        "monai",
        "Dice in half precision",
        "2 classes of 512 x 512, softmax, float16 (float32 here: "
        f"{attempt(lambda: losses.dice_loss(LARGE, LARGE_INDEX))})",
        lambda: monai.DiceLoss(softmax=True)(HALF_LARGE, LARGE_ONE_HOT.half()),
        lambda: losses.dice_loss(HALF_LARGE, LARGE_INDEX),
        "We: the sum of a quarter of a million pixels overflows float16; we add in float32.",
    ),
    Disagreement(
        "monai",
        "Dice of a class that is absent",
        "empty mask of 64 x 64, probability 0.1 everywhere",
        lambda: (
            f"{attempt(lambda: monai.DiceLoss(sigmoid=True)(TENTH, EMPTY_MASK))}, "
            + gradient(lambda x: monai.DiceLoss(sigmoid=True)(x, EMPTY_MASK), TENTH)
        ),
        lambda: (
            f"{attempt(lambda: losses.dice_loss(TENTH, EMPTY_MASK))}, "
            + gradient(lambda x: losses.dice_loss(x, EMPTY_MASK), TENTH)
        ),
        "Nobody by the formula, which is 1 for every prediction but the empty one. We return the mean probability by "
        'default, whose gradient removes false positives; `absent="formula"` is the ratio.',
    ),
    Disagreement(
        "monai",
        "Dice where soft target and prediction are equal",
        "probability 0.3, target 0.3",
        lambda: monai.DiceLoss(sigmoid=True)(SOFT.logit(), SOFT),
        lambda: losses.dice_loss(SOFT.logit(), SOFT, overlap="minimum"),
        'Both have the option: here `overlap="minimum"`, there `soft_label=True`.',
    ),
    Disagreement(
        "monai",
        "focal loss with an `ignore_index` that does not occur",
        "4 classes; value over the one without `ignore_index`",
        lambda: monai.FocalLoss(ignore_index=77)(CLASS_LOGITS, ONE_HOT) / monai.FocalLoss()(CLASS_LOGITS, ONE_HOT),
        lambda: (
            losses.sigmoid_focal_loss(CLASS_LOGITS, ONE_HOT, ignore_index=77)
            / losses.sigmoid_focal_loss(CLASS_LOGITS, ONE_HOT)
        ),
        "We: what is not there changes nothing. There the mean is over pixels with it, and over pixels and classes "
        "without.",
    ),
    Disagreement(
        "monai",
        "softmax focal loss without background",
        "4 classes, the first left out",
        lambda: monai.FocalLoss(use_softmax=True, include_background=False)(CLASS_LOGITS, ONE_HOT),
        lambda: (
            losses.softmax_focal_loss(CLASS_LOGITS, INDEX, alpha=None, ignore_index=0, reduction="sum")
            / (ONE_HOT[:, 1:].numel())
        ),
        "We: the background is part of the softmax, and its pixels are left out after it. There its logit is cut off "
        "first, so that the others' probabilities change.",
    ),
    Disagreement(
        "segmentation-models-pytorch",
        "Dice of a class that is absent",
        "empty mask of 64 x 64, probability 0.1 everywhere",
        lambda: (
            f"{attempt(lambda: smp.DiceLoss('binary')(TENTH, EMPTY_MASK))}, "
            + gradient(lambda x: smp.DiceLoss("binary")(x, EMPTY_MASK), TENTH)
        ),
        lambda: (
            f"{attempt(lambda: losses.dice_loss(TENTH, EMPTY_MASK))}, "
            + gradient(lambda x: losses.dice_loss(x, EMPTY_MASK), TENTH)
        ),
        "We: there false positives on an empty mask cost nothing.",
    ),
    Disagreement(
        "segmentation-models-pytorch",
        "Dice in half precision",
        "2 classes of 512 x 512, softmax, float16",
        lambda: smp.DiceLoss("multiclass")(HALF_LARGE, LARGE_INDEX),
        lambda: losses.dice_loss(HALF_LARGE, LARGE_INDEX, per_image=False),
        "We: sums overflow there.",
    ),
    Disagreement(
        "segmentation-models-pytorch",
        "mean cross entropy with half of the pixels ignored",
        "4 classes, 255 in half of the map",
        lambda: smp.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=255)(CLASS_LOGITS, HALF_IGNORED),
        lambda: losses.cross_entropy(CLASS_LOGITS, HALF_IGNORED, ignore_index=255),
        "We, and torch: there ignored pixels stay in the denominator, so that void labels shrink the loss.",
    ),
    Disagreement(
        "segmentation-models-pytorch",
        "focal loss with everything ignored",
        "255 everywhere",
        lambda: smp.FocalLoss("binary", ignore_index=255)(EMPTY_MASK, torch.full_like(EMPTY_MASK, 255)),
        lambda: losses.sigmoid_focal_loss(EMPTY_MASK, torch.full_like(EMPTY_MASK, 255), ignore_index=255),
        "We: nothing to learn from is no error.",
    ),
    Disagreement(
        "segmentation-models-pytorch",
        "multi-class focal loss",
        "4 classes, α off",
        lambda: smp.FocalLoss("multiclass")(CLASS_LOGITS, INDEX),
        lambda: losses.softmax_focal_loss(CLASS_LOGITS, INDEX, alpha=None),
        "Different losses of one name: there every class is a yes/no question of its own (sigmoid), which is "
        "`sigmoid_focal_loss` on a one-hot target.",
    ),
    Disagreement(
        "segmentation-models-pytorch",
        "Lovász softmax with everything ignored",
        "255 everywhere",
        lambda: smp.LovaszLoss("multiclass", ignore_index=255)(CLASS_LOGITS, torch.full_like(INDEX, 255)),
        lambda: losses.lovasz_softmax_loss(CLASS_LOGITS, torch.full_like(INDEX, 255), ignore_index=255),
        "We: a loss is a number.",
    ),
    Disagreement(
        "kornia",
        "Dice, default arguments",
        "4 classes; 1 - mean probability of the right class: "
        f"{attempt(lambda: 1 - CLASS_LOGITS.softmax(1).gather(1, INDEX[:, None]).mean())}",
        lambda: kornia.dice_loss(CLASS_LOGITS, INDEX),
        lambda: losses.dice_loss(CLASS_LOGITS, INDEX),
        'We: pooled over classes (`average="micro"`, the default there) Dice is the mean probability of the right '
        "class and does nothing about imbalance.",
    ),
)


def table() -> str:
    """Run everything and return the page."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name).partition('+')[0]}" for name in LIBRARIES)
    lines = [
        "# Where libraries disagree",
        "",
        "The same input, two answers. Every number below was computed by both sides when this page was written by",
        f"`.venv/bin/python docs/disagreements.py`, with {versions}.",
        "Where libraries agree, `tests/parity` says so, value and gradient.",
        "",
        "| what | input | library | its answer | ours | who is right, and why |",
        "|---|---|---|---|---|---|",
    ]
    for entry in ENTRIES:
        cells = (entry.what, entry.input, entry.library, attempt(entry.theirs), attempt(entry.ours), entry.verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    page = Path(__file__).with_suffix(".md")
    page.write_text(table(), encoding="utf-8")
    print(f"wrote {page}")
