"""Ranking losses: positives are to have larger logits than negatives, by whatever scale.

**One ranking.** All logits of a call are ranked against each other, whatever its shape: those of all images, places
and classes of a batch.

**Elements.** A ranking loss says how wrongly each positive is placed. Its elements have the shape of the input, 0
wherever there is no positive; ``"mean"`` divides by the number of positives, `normalizer` replaces that number, and a
`weight` weighs positives. Without positives the value is 0, attached to the graph. `dr_loss`, which compares two
distributions, has one element for the whole call, and without positives it still pushes negatives down.

**Gradient.** A rank has no useful derivative. `ap_loss`, `alrp_loss` and `rank_sort_loss` learn by their error: the
gradient of the element of positive i is by definition minus its error at i itself, and that error shared out among
those that beat i. It is multiplied by whatever the element is multiplied by, but it is not the derivative of the value,
and it is a constant to autograd: there is no double backward.

**Cost.** Time grows as N log N and memory as N (see `lossatlas.losses.ordering`); sorting positives by quality compares
them in blocks, time P² and memory N. The kernels sort the positives alone, and look every negative up among them: time
N log P. Ranks are float64 inside, whatever the dtype of the input.

**What counts.** A target above 0 is positive, 0 is negative; a logit whose target is `ignore_index` is neither.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.boxes.geometry import safe_divide
from lossatlas.checks import check_elementwise, check_floating, check_number
from lossatlas.dtypes import upcast
from lossatlas.kernels import ranking as ranking_kernels
from lossatlas.kernels.loss import register_twin
from lossatlas.losses.modules import module_form
from lossatlas.losses.ordering import SortingUpdate, beaten_by, running_maximum, sides_of, sorting_errors
from lossatlas.losses.reduction import broadcastable, kernel_factors, reduce, takes_kernel
from lossatlas.typing import Loss, Normalizer, Reduction, Targets, Values


def ap_loss(
    input: Values,
    target: Targets,
    *,
    delta: float = 1.0,
    interpolated: bool = True,
    ignore_index: float | None = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """One minus the average precision of a ranking, learned by its error.

    Formula:
        H(x) = x / (2 δ) + 1/2, from 0 to 1
        lᵢ = 1 - precisionᵢ = FPᵢ / rankᵢ  for each positive i
        FPᵢ = Σⱼ H(sⱼ - sᵢ) over the negatives,  rankᵢ = 1 + FPᵢ + Σₖ H(sₖ - sᵢ) over the other positives
        interpolated: the precision is the largest of those of i and of the positives below i
        gradient: -lᵢ at i,  lᵢ H(sⱼ - sᵢ) / FPᵢ at each negative j

    Args:
        input: ``(*shape)`` logits s.
        target: ``(*shape)`` 1 for positives, 0 for negatives; any dtype.
        delta: δ > 0. A positive that beats a negative by δ has nothing to fear from it.
        interpolated: whether the precision is interpolated, as average precision commonly is.
        ignore_index: target value of logits that are left out; None leaves out none.
        weight: factors of the positives, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the positives, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the number of positives.

    Returns:
        ``(*shape)`` with ``"none"``, 0 but for positives, else a scalar.

    Raises:
        ValueError: shapes that differ, a `delta` that is not above 0, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> logits = torch.tensor([2.0, 0.0, 1.0, -3.0])
        >>> ap_loss(logits, torch.tensor([1, 1, 0, 0]))
        tensor(0.1667)

    Note:
        The gradient is defined, not derived; see the top of this module. With ``"mean"`` the gradients of the positives
        add up to minus the loss and those of the negatives to the loss. The loss is 0 if and only if every positive
        beats every negative by δ. Logits, not probabilities, are compared.

    Reference:
        Chen et al., "Towards Accurate One-Stage Object Detection with AP-Loss", 2019, arXiv 1904.06373, section
        3.
    """
    check_number("delta", delta, above=0)
    check_elementwise(input, target)
    options = (delta, ignore_index, reduction, normalizer)
    if takes_kernel(input, target, weight, normalizer=normalizer):
        return _fused("interpolated_ap" if interpolated else "ap", input, target, weight, None, *options)
    return _ap(input, target, weight, *options, interpolated=interpolated)


def _ap(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    delta: float,
    ignored: float | None,
    reduction: Reduction,
    normalizer: Normalizer | None,
    *,
    interpolated: bool,
) -> Tensor:
    sides = sides_of(input, target, ignored)
    rank = sides.beaten_by_positives(delta) + 0.5 + (beaten := sides.beaten_by_negatives(delta))
    error = safe_divide(beaten, rank)
    if interpolated:
        error = 1 - running_maximum(1 - error, sides)
    return sides.reduce(sides.learn(error, safe_divide(error, beaten), beaten, delta), weight, reduction, normalizer)


def dr_loss(
    input: Values,
    target: Targets,
    *,
    tau: float = 4.0,
    margin: float = 0.5,
    lambda_pos: float = 1.0,
    lambda_neg: float = 0.1 / math.log(3.5),
    smoothness: float = 6.0,
    ignore_index: float | None = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Distributional ranking: the worst positives are to have higher probabilities than the worst negatives.

    Formula:
        p = sigmoid(s)
        P₊ = Σ q p over the positives, q = softmax(-p / λ₊);  P₋ = Σ q p over the negatives, q = softmax(p / λ₋)
        l = τ / L ln(1 + exp(L (P₋ - P₊ + γ)))

    Args:
        input: ``(*shape)`` logits s.
        target: ``(*shape)`` 1 for positives, 0 for negatives; any dtype.
        tau: τ > 0, a factor.
        margin: γ, by how much P₊ is to be above P₋.
        lambda_pos: λ₊ > 0; the smaller, the more the lowest positives count.
        lambda_neg: λ₋ > 0; the smaller, the more the highest negatives count.
        smoothness: L > 0; the larger, the nearer the loss is to τ times the hinge of P₋ - P₊ + γ.
        ignore_index: target value of logits that are left out; None leaves out none.
        weight: factor of the one element, a 0-d tensor.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``, which agree for one element.
        normalizer: number or 0-d tensor that ``"mean"`` divides by.

    Returns:
        A scalar. It is 0 if all logits are ignored.

    Raises:
        ValueError: shapes that differ, an argument that is not above 0, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> logits = torch.tensor([2.0, 0.0, 1.0, -3.0])
        >>> dr_loss(logits, torch.tensor([1, 1, 0, 0]))
        tensor(2.3261)

    Note:
        Nothing is detached: the distributions q are in the graph too, and the gradient is the derivative. Without
        positives P₊ is 1, as in the authors' code, and without negatives P₋ is 0. A loss for each image is a call for
        each image.

    Reference:
        Qian et al., "DR Loss: Improving Object Detection by Distributional Ranking", 2020, arXiv 1907.10156, in
        the parametrisation of the authors' code.
    """
    check_number("margin", margin)
    scales = (("tau", tau), ("lambda_pos", lambda_pos), ("lambda_neg", lambda_neg), ("smoothness", smoothness))
    for name, value in scales:
        check_number(name, value, above=0)
    sides = sides_of(input, target, ignore_index)
    p = sides.logits.sigmoid()
    highest = _distribution_mean(p, p / lambda_neg, sides.negative)
    lowest = torch.where(sides.positive.any(), _distribution_mean(p, -p / lambda_pos, sides.positive), 1)
    loss = tau / smoothness * F.softplus(smoothness * (highest - lowest + margin))
    return reduce(loss * sides.intact, weight, reduction, normalizer, (sides.positive | sides.negative).any())


class ALRPTerms(NamedTuple):
    """The two terms of `alrp_loss`; their sum is the average localisation-recall-precision error."""

    classification: Tensor
    localization: Tensor


def alrp_loss(
    input: Values,
    target: Targets,
    *,
    localization_error: Tensor,
    delta: float = 1.0,
    ignore_index: float | None = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> ALRPTerms:
    """Average localisation-recall-precision: false positives and errors of boxes, both over the rank.

    Formula:
        H(x) = x / (2 δ) + 1/2, from 0 to 1
        classificationᵢ = FPᵢ / rankᵢ  for each positive i,  FPᵢ = Σⱼ H(sⱼ - sᵢ) over the negatives
        localisationᵢ = (Eᵢ + Σₖ Eₖ H(sₖ - sᵢ)) / rankᵢ  over the other positives k
        rankᵢ = 1 + FPᵢ + Σₖ H(sₖ - sᵢ)
        gradient by s: -uᵢ at i,  uᵢ H(sⱼ - sᵢ) / FPᵢ at each negative j,  uᵢ = (FPᵢ + Σₖ Eₖ H(sₖ - sᵢ)) / rankᵢ

    Args:
        input: ``(*shape)`` logits s.
        target: ``(*shape)`` 1 for positives, 0 for negatives; any dtype.
        localization_error: how wrong the box of each positive is, E from 0 (right) to 1, broadcasting to ``(*shape)``;
            what it holds elsewhere has no meaning. The paper's is (1 - IoU) / (1 - τ), with τ = 0.5 the IoU at which
            a box begins to count, or the same of the generalised IoU, GIoU loss / 2 / (1 - τ).
        delta: δ > 0. A positive that beats a negative by δ has nothing to fear from it.
        ignore_index: target value of logits that are left out; None leaves out none.
        weight: factors of the positives, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the positives, or ``"sum"``; for each term.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the number of positives.

    Returns:
        `ALRPTerms` of ``(*shape)`` with ``"none"``, 0 but for positives, else of scalars.

    Raises:
        ValueError: shapes that differ or do not broadcast, a `delta` that is not above 0, or a bad `reduction` or
            `normalizer`.
        TypeError: an `input` or `localization_error` that is not floating point.

    Example:
        >>> logits, target = torch.tensor([2.0, 0.0, 1.0, -3.0]), torch.tensor([1, 1, 0, 0])
        >>> iou = torch.tensor([0.75, 0.5])
        >>> error = torch.zeros(4).masked_scatter(target == 1, (1 - iou) / (1 - 0.5))
        >>> alrp_loss(logits, target, localization_error=error)
        ALRPTerms(classification=tensor(0.1667), localization=tensor(0.5000))

    Note:
        The localisation term trains the boxes, by the derivative, and not the logits: ranks are detached in it. The
        classification term trains the logits, by the error (see the top of this module), in which E is detached: a
        positive with a wrong box above it has more to gain. Where FP is below 1e-5 there is no update, as in the
        authors' code. That code counts an error Eₖ in the localisation term in full where sₖ > sᵢ and not at all
        elsewhere; this is the paper's formula. `SelfBalance` scales the localisation term as the paper does.

    Reference:
        Oksuz et al., "A Ranking-based, Balanced Loss Function Unifying Classification and Localisation in Object
        Detection", 2020, arXiv 2009.13592; theorem 2 is the balance of the gradients.
    """
    check_number("delta", delta, above=0)
    check_floating("localization_error", localization_error)
    check_elementwise(input, target)
    error = broadcastable("localization_error", localization_error, input, upcast(input)[0].dtype).expand(input.shape)
    options = (delta, ignore_index, reduction, normalizer)
    logits = input.detach()
    by_kernel = takes_kernel(input, target, weight, error.detach(), normalizer=normalizer)
    if by_kernel and takes_kernel(error, target, weight, normalizer=normalizer):
        return ALRPTerms(
            _fused("alrp_classification", input, target, weight, error.detach(), *options),
            _fused("alrp_localization", error, target, weight, logits, *options),
        )
    return _alrp(input, target, weight, error, *options)


def _alrp(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    error: Tensor,
    delta: float,
    ignored: float | None,
    reduction: Reduction,
    normalizer: Normalizer | None,
) -> ALRPTerms:
    sides = sides_of(input, target, ignored)
    error = torch.where(sides.positive, error.flatten().double(), 0)
    rank = sides.beaten_by_positives(delta) + 0.5 + (beaten := sides.beaten_by_negatives(delta))
    # The step at 0 counts half of the positive's own error.
    others = beaten_by(sides.fixed, error, delta) - error / 2
    update = safe_divide(beaten + others.detach(), rank)
    share = torch.where(beaten > 1e-5, safe_divide(update, beaten), 0)
    classification = sides.learn(safe_divide(beaten, rank), share, beaten, delta)
    localization = safe_divide(error + others, rank).to(sides.logits.dtype)
    terms = [sides.reduce(term, weight, reduction, normalizer) for term in (classification, localization)]
    return ALRPTerms(*terms)


class SelfBalance(nn.Module):
    """Scales the localisation term of `alrp_loss` to weigh as much as the whole, as the paper does.

    Formula:
        localisation · mean(classification + localisation) / mean(localisation)    means over the last period

    Args:
        period: steps after which the factor is computed anew, from the means over these steps: an epoch, in the paper.
        initial: factor in the first period.

    Raises:
        ValueError: a `period` below 1 or an `initial` that is not above 0.

    Example:
        >>> balance = SelfBalance(period=1, initial=50.0)
        >>> terms = ALRPTerms(torch.tensor(0.6), torch.tensor(0.2))
        >>> balance(terms).localization, balance(terms).localization
        (tensor(10.), tensor(0.8000))

    Note:
        The factor is detached and saved with the module. In evaluation mode it stays as it is. The authors' code begins
        with 50.

    Reference:
        Oksuz et al., "A Ranking-based, Balanced Loss Function Unifying Classification and Localisation in Object
        Detection", 2020, arXiv 2009.13592.
    """

    factor: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, period: int, initial: float = 50.0) -> None:
        super().__init__()
        check_number("period", period, at_least=1)
        check_number("initial", initial, above=0)
        self.period = period
        self.register_buffer("factor", torch.tensor(float(initial)))
        self.register_buffer("sums", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, terms: ALRPTerms) -> ALRPTerms:
        """Return the terms, scalars, with the localisation term scaled by the factor of the last period."""
        balanced = terms._replace(localization=terms.localization * self.factor)
        if self.training:
            self._observe(torch.stack(terms).detach())
        return balanced

    @torch.no_grad()
    def _observe(self, terms: Tensor) -> None:
        sums, steps = self.sums + terms, self.steps + 1
        full = steps == self.period
        usable = full & (sums[1] > 0)
        self.factor = torch.where(usable, sums.sum() / torch.where(usable, sums[1], 1), self.factor)
        self.sums, self.steps = torch.where(full, 0, sums), torch.where(full, 0, steps)


class RankSortTerms(NamedTuple):
    """The two terms of `rank_sort_loss`; the loss is their sum."""

    ranking: Tensor
    sorting: Tensor


def rank_sort_loss(
    input: Values,
    target: Targets,
    *,
    delta: float = 0.5,
    ignore_index: float | None = -1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> RankSortTerms:
    """Rank & Sort: positives above negatives, and positives with better boxes above those with worse.

    Formula:
        H(x) = x / (2 δ) + 1/2, from 0 to 1
        rankingᵢ = FPᵢ / (TPᵢ + FPᵢ)  for each positive i
        FPᵢ = Σⱼ H(sⱼ - sᵢ) over the negatives,  TPᵢ = Σₖ H(sₖ - sᵢ) over all positives, i too
        sortingᵢ = Σₖ H(sₖ - sᵢ) (1 - qₖ) / TPᵢ - the same mean over the k with qₖ ≥ qᵢ only
        gradient: -rankingᵢ at i,  rankingᵢ H(sⱼ - sᵢ) / FPᵢ at each negative j
        and -sortingᵢ at i,  sortingᵢ H(sₖ - sᵢ) / Σ at each positive k with qₖ < qᵢ,  Σ of H over these k

    Args:
        input: ``(*shape)`` logits s.
        target: ``(*shape)`` quality q of each positive, such as the IoU of its box, above 0 and at most 1; 0 for
            negatives.
        delta: δ > 0, half the width of the step.
        ignore_index: target value of logits that are left out; None leaves out none.
        weight: factors of the positives, broadcasting to ``(*shape)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the positives, or ``"sum"``; for each term.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the number of positives.

    Returns:
        `RankSortTerms` of ``(*shape)`` with ``"none"``, 0 but for positives, else of scalars.

    Raises:
        ValueError: shapes that differ, a `delta` that is not above 0, or a bad `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point.

    Example:
        >>> logits, iou = torch.tensor([2.0, 0.0, 1.0, -3.0]), torch.tensor([0.6, 0.8, 0.0, 0.0])
        >>> rank_sort_loss(logits, iou)
        RankSortTerms(ranking=tensor(0.2000), sorting=tensor(0.0667))

    Note:
        The gradient is defined, not derived; see the top of this module. Each term has its own; the authors' code
        returns that of both with the first term. It scales the box loss to be as large as this one:
        ``box_loss * (sum(terms) / box_loss).detach()``. Where no kernel computes it, it looks at the target on the host
        to gather the positives, whose number no graph knows, so that ``torch.compile`` breaks here.

    Reference:
        Oksuz et al., "Rank & Sort Loss for Object Detection and Instance Segmentation", 2021, arXiv 2107.11669,
        equations 7 and 8.
    """
    check_number("delta", delta, above=0)
    check_elementwise(input, target)
    options = (delta, ignore_index, reduction, normalizer)
    if takes_kernel(input, target, weight, normalizer=normalizer):
        # The gradients of both terms are added up before they are rounded to half precision.
        (logits,) = upcast(input)
        terms = ("rank_sort_ranking", "rank_sort_sorting")
        return RankSortTerms(*(_fused(term, logits, target, weight, None, *options) for term in terms))
    return _rank_sort(input, target, weight, *options)


def _rank_sort(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    delta: float,
    ignored: float | None,
    reduction: Reduction,
    normalizer: Normalizer | None,
) -> RankSortTerms:
    sides = sides_of(input, target, ignored)
    beaten = sides.beaten_by_negatives(delta)
    share = safe_divide(sides.positive.double(), sides.beaten_by_positives(delta) + beaten)
    ranking = sides.learn(share * beaten, share, beaten, delta)

    chosen = sides.positive.nonzero().squeeze(1)
    quality = sides.target[chosen].double()
    error, beaten = sorting_errors(sides.fixed[chosen], quality, delta)
    logits = sides.logits[chosen]
    update = SortingUpdate.apply(logits, error.to(logits.dtype), safe_divide(error, beaten), beaten, quality, delta)
    sorting = torch.zeros_like(sides.logits).index_put((chosen,), update)
    return RankSortTerms(*(sides.reduce(term, weight, reduction, normalizer) for term in (ranking, sorting)))


def _fused(
    kernel: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    other: Tensor | None,
    delta: float,
    ignored: float | None,
    reduction: Reduction,
    normalizer: Normalizer | None,
) -> Tensor:
    """Return one term by its kernel; `other` is what the term needs beside the logits."""
    weight, divisor = kernel_factors(input, weight, reduction, normalizer)
    return ranking_kernels.ranking(kernel, input, target, weight, other, delta, ignored, reduction, divisor)


def _ap_twin(interpolated: bool) -> Callable[..., Tensor]:
    return lambda x, y, weight, _, *options: _ap(x, y, weight, *options, interpolated=interpolated)


register_twin("ap", _ap_twin(interpolated=False))
register_twin("interpolated_ap", _ap_twin(interpolated=True))
register_twin("alrp_classification", lambda x, y, weight, error, *options: _alrp(x, y, weight, error, *options)[0])
register_twin("alrp_localization", lambda error, y, weight, x, *options: _alrp(x, y, weight, error, *options)[1])
register_twin("rank_sort_ranking", lambda x, y, weight, _, *options: _rank_sort(x, y, weight, *options)[0])
register_twin("rank_sort_sorting", lambda x, y, weight, _, *options: _rank_sort(x, y, weight, *options)[1])


def _distribution_mean(p: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `p` under the softmax of `logits`, both where `mask` is True; 0 if it is nowhere."""
    q = torch.where(mask, logits, torch.finfo(logits.dtype).min).softmax(0)
    return torch.where(mask, q * p, 0).sum()


APLoss = module_form("APLoss", ap_loss)
DRLoss = module_form("DRLoss", dr_loss)
ALRPLoss = module_form("ALRPLoss", alrp_loss)
RankSortLoss = module_form("RankSortLoss", rank_sort_loss)
