"""Semantic segmentation: any weighted sum of segmentation losses on class logits, with deep supervision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lossatlas.checks import check_choice, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.losses.compound import dice_cross_entropy_loss
from lossatlas.objectives.pixel_slots import SegmentationLoss
from lossatlas.objectives.slots import LossFunction
from lossatlas.objectives.terms import LossTerms

Target: TypeAlias = Mapping[str, Tensor]
ClassMaps: TypeAlias = dict[str, Tensor]
Resize = Literal["logits", "target"]

_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, eq=False)
class SegmentationOutputs:
    """What a segmentation network puts out for a batch of B images and C classes.

    Args:
        logits: ``(B, C, *spatial)`` with one to three spatial axes; one channel is binary segmentation.
        auxiliary: logits ``(B, C, *spatial)`` of deep supervision, each in a resolution of its own.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: tensors that are not floating point.
    """

    logits: Float[Tensor, "b c *spatial"]
    auxiliary: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        check_floating("logits", self.logits)
        if self.logits.ndim not in (3, 4, 5):
            raise ValueError(f"`logits` must have shape (B, C, *spatial), but got {tuple(self.logits.shape)}")
        for index, maps in enumerate(self.auxiliary):
            check_floating(f"auxiliary[{index}]", maps)
            if maps.ndim != self.logits.ndim or maps.shape[:2] != self.logits.shape[:2]:
                expected = (*self.logits.shape[:2], *["*"] * (self.logits.ndim - 2))
                raise ValueError(
                    f"`auxiliary[{index}]` must have shape ({', '.join(map(str, expected))}), but got "
                    f"{tuple(maps.shape)}"
                )


class Segmentation(nn.Module):
    """The training objective of a segmentation network, without the network.

    Formula:
        each term  = wᵢ · lossᵢ(logits, mask)
        auxiliary  = Σ over outputs a of deep supervision: v_a · Σᵢ wᵢ · lossᵢ(logits_a, mask)

    Args:
        loss: slot of the loss, or several of them by name. Fitting are the segmentation losses of the library, its
            losses of class logits (such as `cross_entropy`) and of yes/no logits (such as `sigmoid_focal_loss`, one
            class against the rest), and callables of your own, called as ``loss(logits, mask, ignore_index=...)``.
        weights: factors w of the losses that were given by name; 1 for those that are not named.
        auxiliary_weights: factors v of the auxiliary outputs, one number for all or one for each. PSPNet has 0.4 for
            one output; nnU-Net halves the factor with each lower resolution, and divides all, the main output's
            included, by their sum.
        multilabel: whether the channels are independent yes/no questions (sigmoid) and not classes (softmax).
        ignore_index: mask value of pixels that are left out, such as 255; None leaves out none.
        resize: what to do with an output of another resolution than the mask: ``"logits"`` interpolates it linearly
            to the mask's, as PSPNet does, ``"target"`` samples the mask at the pixels nearest to the output's, as
            nnU-Net does.

    Raises:
        ValueError: a loss that does not fit the slot, a weight of a loss that is not there or below 0, or a bad
            `resize`.

    Example:
        >>> from lossatlas.losses import cross_entropy, lovasz_softmax_loss
        >>> losses = {"ce": cross_entropy, "lovasz": lovasz_softmax_loss}
        >>> objective = Segmentation(loss=losses, weights={"lovasz": 2.0}, ignore_index=255)
        >>> targets = [{"mask": torch.tensor([[0, 1], [2, 255]])}]
        >>> objective(SegmentationOutputs(torch.zeros(1, 3, 2, 2)), targets)["ce"]
        tensor(1.0986)

    Note:
        With one channel a loss of class logits gets the two logits 0 and x, whose softmax is σ(x). A batch in which
        every pixel is ignored has a value of 0, and every output still gets a (zero) gradient.

    Reference:
        Deep supervision: Lee et al., "Deeply-Supervised Nets", 2014, arXiv 1409.5185. Zhao et al., "Pyramid Scene
        Parsing Network", 2016, arXiv 1612.01105, section 3.3. Isensee et al., "nnU-Net", 2021, Nature Methods 18.
    """

    def __init__(
        self,
        *,
        loss: LossFunction | Mapping[str, LossFunction] = dice_cross_entropy_loss,
        weights: Mapping[str, float] | None = None,
        auxiliary_weights: float | Sequence[float] = 0.4,
        multilabel: bool = False,
        ignore_index: int | None = -100,
        resize: Resize = "logits",
    ) -> None:
        super().__init__()
        check_choice("resize", resize, get_args(Resize))
        losses = dict(loss) if isinstance(loss, Mapping) else {"segmentation": loss}
        if not losses or "auxiliary" in losses:
            raise ValueError(f"`loss` must hold at least one loss, none of them named 'auxiliary', but has {[*losses]}")
        for name, weight in (weights or {}).items():
            check_choice("weights", name, losses)
            check_number(f"weights[{name!r}]", weight, at_least=0)
        for weight in auxiliary_weights if isinstance(auxiliary_weights, Sequence) else [auxiliary_weights]:
            check_number("auxiliary_weights", weight, at_least=0)
        self.losses = nn.ModuleDict({name: SegmentationLoss(one, multilabel) for name, one in losses.items()})
        self.weights = dict.fromkeys(losses, 1.0) | dict(weights or {})
        self.auxiliary_weights = auxiliary_weights
        self.multilabel = multilabel
        self.ignore_index = ignore_index
        self.resize = resize

    def forward(self, outputs: SegmentationOutputs, targets: Sequence[Target] | Tensor) -> LossTerms:
        """Return a term for each loss, ``segmentation`` for a single one, and ``auxiliary`` where there is one.

        Args:
            outputs: of a batch of B images.
            targets: B dicts with ``mask``, ``(*spatial)`` class indices or ``(C, *spatial)`` one-hot or soft values,
                on the device of the outputs; or the masks of all images in one tensor. Other entries that are
                arguments of a loss, ``border_map`` or ``distance_map`` made by a data loader's workers, are handed to
                it for the main output, unless the mask is sampled.

        Raises:
            ValueError: another number of targets, or masks that do not fit the logits or each other.
        """
        mask = self._masks(targets, outputs.logits)
        terms = {
            name: self.weights[name] * self._call(loss, outputs.logits, mask, _maps(loss, targets))
            for name, loss in self._losses()
        }
        if outputs.auxiliary:
            factors = self._factors(len(outputs.auxiliary))
            terms["auxiliary"] = torch.stack(
                [
                    factor * self.weights[name] * self._call(loss, logits, mask, {})
                    for logits, factor in zip(outputs.auxiliary, factors, strict=True)
                    for name, loss in self._losses()
                ]
            ).sum()
        return LossTerms(terms)

    @torch.no_grad()
    def decode(self, outputs: SegmentationOutputs, size: tuple[int, ...] | None = None) -> list[ClassMaps]:
        """Return the class map of each image.

        Args:
            outputs: of a batch of B images.
            size: spatial size to which the logits are interpolated first; None leaves them as they are.

        Returns:
            For each image ``mask``, ``(*spatial)`` int64 class indices, 0 and 1 for one channel, or with several
            labels ``(C, *spatial)`` booleans; and ``probabilities`` ``(C, *spatial)``.
        """
        (logits,) = upcast(outputs.logits)
        logits = logits if size is None else _interpolate(logits, size)
        exclusive = logits.shape[1] > 1 and not self.multilabel
        probabilities = logits.softmax(1) if exclusive else logits.sigmoid()
        masks = logits.argmax(1) if exclusive else logits > 0
        if not exclusive and not self.multilabel:
            masks = masks[:, 0].long()
        return [{"mask": m, "probabilities": p} for m, p in zip(masks, probabilities, strict=True)]

    def _losses(self) -> Iterator[tuple[str, SegmentationLoss]]:
        for name, loss in self.losses.items():
            assert isinstance(loss, SegmentationLoss)
            yield name, loss

    def _call(self, loss: SegmentationLoss, logits: Tensor, mask: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
        spatial = mask.shape[-(logits.ndim - 2) :]
        if logits.shape[2:] != spatial:
            if self.resize == "logits":
                logits = _interpolate(logits, spatial)
            else:
                mask, maps = _sample(mask, logits.shape[2:]), {}
        value: Tensor = loss(logits, mask, ignore_index=self.ignore_index, **maps)
        return value

    def _masks(self, targets: Sequence[Target] | Tensor, logits: Tensor) -> Tensor:
        """Return the masks of the batch in one tensor."""
        if len(targets) != len(logits):
            raise ValueError(
                f"`targets` must have one entry for each of the {len(logits)} images, but has {len(targets)}"
            )
        if not len(targets):
            return logits.new_zeros(logits.shape[:1] + logits.shape[2:], dtype=torch.int64)
        mask = targets if isinstance(targets, Tensor) else _stack("mask", targets)
        return mask.long() if mask.dtype == torch.bool else mask

    def _factors(self, outputs: int) -> Sequence[float]:
        if not isinstance(self.auxiliary_weights, Sequence):
            return [self.auxiliary_weights] * outputs
        if len(self.auxiliary_weights) != outputs:
            raise ValueError(
                f"`auxiliary_weights` must have one number for each of the {outputs} auxiliary outputs, but has "
                f"{len(self.auxiliary_weights)}"
            )
        return self.auxiliary_weights


def _maps(loss: SegmentationLoss, targets: Sequence[Target] | Tensor) -> dict[str, Tensor]:
    """Return the maps that the loss takes and the targets hold, each in one tensor."""
    if isinstance(targets, Tensor):
        return {}
    return {name: _stack(name, targets) for name in sorted(loss.maps) if any(name in target for target in targets)}


def _stack(name: str, targets: Sequence[Target]) -> Tensor:
    """Return what all targets hold under a name in one tensor."""
    for index, target in enumerate(targets):
        if name not in target:
            raise ValueError(f"`targets[{index}]` must have the key {name!r}, but has {sorted(target)}")
        if target[name].shape != targets[0][name].shape:
            raise ValueError(
                f"`targets[{index}][{name!r}]` must have the shape of the first, {tuple(targets[0][name].shape)}, but "
                f"got {tuple(target[name].shape)}"
            )
    return torch.stack([target[name] for target in targets])


def _interpolate(logits: Tensor, size: Sequence[int]) -> Tensor:
    (logits,) = upcast(logits)
    return F.interpolate(logits, list(size), mode=_INTERPOLATION[len(size)], align_corners=False)


def _sample(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Return the values of the mask ``(..., *spatial)`` at the pixels nearest to the centres of a coarser grid's."""
    for axis, length in zip(range(mask.ndim - len(size), mask.ndim), size, strict=True):
        places = (torch.arange(length, device=mask.device) * 2 + 1) * mask.shape[axis] // (2 * length)
        mask = mask.index_select(axis, places)
    return mask
