"""Pose losses on coordinates of keypoints: OKS, residual log-likelihood, and classification over bins of an axis.

Keypoints lie in the last two axes, ``(*people, K, axes)``: K keypoints, each with x and y (or x, y and z). A keypoint
that is not labelled has a `visibility` of 0 and is taken out before any arithmetic: it adds nothing to the value, the
gradient or the denominator, even if its coordinates are NaN.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lossatlas.checks import check_choice, check_floating, check_number, check_same_shape
from lossatlas.dtypes import upcast
from lossatlas.losses.modules import module_form
from lossatlas.losses.reduction import broadcastable, reduce
from lossatlas.typing import Loss, Normalizer, Reduction

Keypoints: TypeAlias = Float[Tensor, "*people keypoints axes"]
"""Coordinates of the keypoints of people."""

Visibility: TypeAlias = Shaped[Tensor, "*people keypoints"]
"""Flags of keypoints, 0 for one that is not labelled; COCO's 0, 1 and 2, or a mask."""

Variant: TypeAlias = Literal["paper", "reference"]
"""Which of two forms of a loss: that of the paper's equations, or that of the authors' code."""

BaseDensity: TypeAlias = Literal["laplace", "gaussian"]
LogDensity: TypeAlias = Tensor | Callable[[Tensor], Tensor]


def visible_keypoints(visibility: object, shape: torch.Size, device: torch.device) -> Tensor:
    """Return which keypoints are labelled.

    Args:
        visibility: flags of the given shape, 0 for a keypoint that is not labelled; None if all are.
        shape: ``(*people, K)``.
        device: where the keypoints are.

    Returns:
        Boolean mask of the given shape.

    Raises:
        ValueError: another shape.
        TypeError: a `visibility` that is not a tensor.
    """
    if visibility is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if not isinstance(visibility, Tensor):
        raise TypeError(f"`visibility` must be a tensor, but got {type(visibility).__name__}")
    if visibility.shape != shape:
        expected, got = tuple(shape), tuple(visibility.shape)
        raise ValueError(f"`visibility` must have one number for each keypoint, shape {expected}, but got {got}")
    return visibility != 0


def _labelled(input: Tensor, target: Tensor, visibility: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check keypoints and return them in the dtype of the arithmetic, 0 where not labelled, and the mask of those."""
    check_floating("input", input)
    check_floating("target", target)
    if input.ndim < 2:
        raise ValueError(f"`input` must have shape (*people, keypoints, axes), but got {tuple(input.shape)}")
    check_same_shape("input", input, "target", target)
    x, y = upcast(input, target)
    visible = visible_keypoints(visibility, x.shape[:-1], x.device)
    return torch.where(visible[..., None], x, 0), torch.where(visible[..., None], y, 0), visible


def oks_loss(
    input: Keypoints,
    target: Keypoints,
    *,
    areas: Tensor,
    sigmas: Tensor,
    visibility: Visibility | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """One minus the object keypoint similarity, the measure of COCO's keypoint evaluation.

    Formula:
        OKS = Σ_k exp(-d_k² / (2 a (2 σ_k)²)) / K',  over the K' labelled keypoints of a person
        l = 1 - OKS

    Args:
        input: ``(*people, K, axes)`` predicted coordinates, in pixels or any other unit.
        target: ``(*people, K, axes)`` coordinates in the same unit; d is the Euclidean distance.
        areas: areas a of the people in the square of that unit, broadcasting to ``(*people)``. COCO takes the area
            of the person's mask; the area of the box is about twice as large.
        sigmas: ``(K,)`` how far annotators disagree about each keypoint, in units of √a; COCO publishes its own.
        visibility: ``(*people, K)`` flags, 0 for keypoints that are not labelled; None if all are.
        weight: factors of the people, broadcasting to ``(*people)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the people with a labelled keypoint, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count.

    Returns:
        ``(*people)`` from 0 to 1 with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, or a bad `reduction` or `normalizer`.
        TypeError: coordinates that are not floating point.

    Example:
        >>> found, true = torch.tensor([[10.0, 10.0], [30.0, 43.0]]), torch.tensor([[10.0, 10.0], [30.0, 40.0]])
        >>> oks_loss(found, true, areas=torch.tensor(900.0), sigmas=torch.tensor([0.05, 0.05]))
        tensor(0.1967)

    Note:
        A person of area 0 has the limit of the formula, 1 for a keypoint that is off and 0 for one that is not, and
        no gradient. Far from the target the gradient vanishes: add a regression loss, or begin with one. A perfect
        pose costs 0 also where some keypoints are not labelled; mmpose divides by K unless told otherwise, so that
        it costs the share of those. Early YOLO-pose code left the 2 out, which lets keypoints collapse.

    Reference:
        The similarity: COCO keypoint evaluation, 2016, cocodataset.org/#keypoints-eval. The loss: Maji et al.,
        "YOLO-Pose", 2022, arXiv 2204.06806, section 3.
    """
    x, y, visible = _labelled(input, target, visibility)
    if not isinstance(sigmas, Tensor):
        raise TypeError(f"`sigmas` must be a tensor, but got {type(sigmas).__name__}")
    if sigmas.shape != x.shape[-2:-1]:
        raise ValueError(f"`sigmas` must have shape {tuple(x.shape[-2:-1])}, but got {tuple(sigmas.shape)}")
    area = broadcastable("areas", areas, x.new_empty(x.shape[:-2]))
    scale = 2 * area[..., None] * (2 * sigmas.to(x.dtype)) ** 2
    squared = (x - y).square().sum(-1)
    # `~(scale < tiny)` and not `scale >= tiny`, so that NaN is divided by and stays NaN.
    usable = ~(scale < torch.finfo(x.dtype).eps ** 2)
    missed = torch.where(usable, -torch.expm1(-squared / torch.where(usable, scale, 1)), squared.sign())
    labelled = visible.sum(-1)
    loss = torch.where(visible, missed, 0).sum(-1) / labelled.clamp(min=1)
    return reduce(loss, weight, reduction, normalizer, labelled > 0)


def rle_loss(
    input: Keypoints,
    target: Keypoints,
    *,
    sigma: Tensor,
    log_density: LogDensity | None = None,
    base: BaseDensity = "laplace",
    variant: Variant = "paper",
    visibility: Visibility | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Residual log-likelihood: regression whose error has a learned distribution, a simple one times a flow's.

    Formula:
        e = (y - x) / σ,  for each keypoint, with the sum over its axes
        paper:     l = Σ [ln σ - ln q(e)] - ln φ(e)
        reference: l = Σ [2 ln σ - ln q(e) - ln φ(e)]
        q: Laplace exp(-|e|) / 2 (reference: exp(-|e| / √2) / √(2π)), or Gaussian exp(-e² / 2) / √(2π)

    Args:
        input: ``(*people, K, axes)`` predicted coordinates x; the paper's are fractions of the image.
        target: ``(*people, K, axes)`` coordinates y in the same unit.
        sigma: predicted scales σ > 0 in the same unit, broadcasting to ``(*people, K, axes)``; the paper's are the
            sigmoid of a logit.
        log_density: ln φ, the logarithm of the density of the normalizing flow: a function, such as the flow's
            ``log_prob``, that takes the errors e ``(*people, K, axes)`` and returns ``(*people, K)``, or these numbers
            themselves. The errors of keypoints that are not labelled are 0. None leaves φ out.
        base: the distribution q that φ corrects.
        variant: ``"paper"`` is the likelihood; the authors' code, ``"reference"``, counts ln σ twice and ln φ once
            for each axis.
        visibility: ``(*people, K)`` flags, 0 for keypoints that are not labelled; None if all are.
        weight: factors of the keypoints, broadcasting to ``(*people, K)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the labelled keypoints, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count; the authors' code divides
            by the number of people.

    Returns:
        ``(*people, K)`` with ``"none"``, else a scalar. It is negative where small errors are sure.

    Raises:
        ValueError: shapes that do not fit, or a bad `base`, `variant`, `reduction` or `normalizer`.
        TypeError: an `input`, `target` or `sigma` that is not floating point.

    Example:
        >>> x, y, sigma = torch.tensor([[0.5, 0.25]]), torch.tensor([[0.5, 0.0]]), torch.tensor(0.25)
        >>> flow = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        >>> rle_loss(x, y, sigma=sigma), rle_loss(x, y, sigma=sigma, log_density=flow.log_prob)
        (tensor(-0.3863), tensor(1.9516))

    Note:
        Nothing is detached: x and σ learn through the flow as well. The factor s that normalises the product q φ is
        left out, as in the paper's training, and so the density integrates to 1 only without a flow. σ counts as at
        least 1e-9 (1e-4 for float16 input, whose gradient holds no more than 1 / σ); a smaller one has no gradient.
        The authors' code gives its flow -e. mmpose's code is the reference with an ordinary Laplace.

    Reference:
        Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", 2021, arXiv 2107.11291, section 3.
    """
    check_choice("base", base, get_args(BaseDensity))
    check_choice("variant", variant, get_args(Variant))
    check_floating("sigma", sigma)
    x, y, visible = _labelled(input, target, visibility)
    smallest = 1e-4 if input.dtype == torch.float16 else 1e-9
    scale = torch.where(visible[..., None], broadcastable("sigma", sigma, x).clamp(min=smallest), 1)
    error = (y - x) / scale
    log_scales, log_phis = (2, x.shape[-1]) if variant == "reference" else (1, 1)
    loss = (log_scales * scale.log() + _base_cost(error, base, variant)).sum(-1)
    if log_density is not None:
        loss = loss - log_phis * _log_phi(log_density, error)
    return reduce(loss, weight, reduction, normalizer, visible)


def _base_cost(error: Tensor, base: BaseDensity, variant: Variant) -> Tensor:
    """Return -ln q of normalised errors, elementwise."""
    if base == "gaussian":
        return error.square() / 2 + math.log(2 * math.pi) / 2
    if variant == "reference":
        return error.abs() / math.sqrt(2) + math.log(2 * math.pi) / 2
    return error.abs() + math.log(2)


def _log_phi(log_density: LogDensity, error: Tensor) -> Tensor:
    value = log_density if isinstance(log_density, Tensor) else log_density(error)
    check_floating("log_density", value)
    if value.shape != error.shape[:-1]:
        expected, got = tuple(error.shape[:-1]), tuple(value.shape)
        raise ValueError(f"`log_density` must have one number for each keypoint, shape {expected}, but got {got}")
    return value.to(error.dtype)


def simcc_loss(
    input: Float[Tensor, "*people keypoints bins"],
    target: Shaped[Tensor, "..."],
    *,
    sigma: float | None = 6.0,
    label_smoothing: float = 0.0,
    label_softmax: bool = False,
    beta: float = 1.0,
    bin_reduction: Literal["mean", "sum"] = "mean",
    visibility: Visibility | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
) -> Loss:
    """Coordinate classification: the divergence of bins along one axis from a label around the true coordinate.

    Formula:
        l = Σ_j p_j (ln p_j - ln softmax(β x)_j) / bins  (``"sum"``: not divided),  c = round(target)
        Gaussian label: p_j = exp(-(j - c)² / (2 σ²)) / (σ √(2π))
        one-hot label:  p_c = 1 - ε,  p_j = ε / (bins - 1) elsewhere

    Args:
        input: ``(*people, K, bins)`` logits x of the bins of one axis. A pose has a call for each axis; its loss is
            their sum.
        target: ``(*people, K)`` coordinates along that axis in bins, that is pixels times the bins per pixel, where
            bin j is at j; or ``(*people, K, bins)`` labels p that are made already (a floating dtype).
        sigma: standard deviation σ > 0 of the label in bins, 4 or 6 in the published code; None gives one-hot labels.
        label_smoothing: ε in [0, 1) of one-hot labels; the published code has 0.1 unless told otherwise.
        label_softmax: whether labels become softmax(β p), as in RTMPose, from Gaussians of height 1.
        beta: factor β > 0 of the logits; RTMPose has 10.
        bin_reduction: ``"mean"`` divides by the number of bins, as the published code does for Gaussian labels;
            ``"sum"`` is the Kullback-Leibler divergence.
        visibility: ``(*people, K)`` flags, 0 for keypoints that are not labelled; None if all are.
        weight: factors of the keypoints, broadcasting to ``(*people, K)``; they do not change the denominator.
        reduction: ``"none"``, ``"mean"`` over the labelled keypoints, or ``"sum"``.
        normalizer: number or 0-d tensor that ``"mean"`` divides by instead of the count. mmpose divides by K, and so
            adds up over the batch.

    Returns:
        ``(*people, K)`` with ``"none"``, else a scalar.

    Raises:
        ValueError: shapes that do not fit, a `sigma` or `beta` that is not above 0, a `label_smoothing` outside
            [0, 1) or of Gaussian labels, or a bad `bin_reduction`, `reduction` or `normalizer`.
        TypeError: an `input` that is not floating point, or labels that are not.

    Example:
        >>> x_logits, y_logits = torch.zeros(1, 2, 16), torch.zeros(1, 2, 12)
        >>> x, y = torch.tensor([[3.0, 8.0]]), torch.tensor([[5.0, 9.0]])
        >>> simcc_loss(x_logits, x, sigma=None) + simcc_loss(y_logits, y, sigma=None)  # ln(16) / 16 + ln(12) / 12
        tensor(0.3804)

    Note:
        A Gaussian label is not normalised where the axis cuts it off, as in the published code, and the loss can then
        be below 0. One-hot labels without smoothing are cross entropy, divided by the number of bins. Coordinates
        outside the axis are not an error: set their `visibility` to 0.

    Reference:
        Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", 2021,
        arXiv 2107.03332, section 3. RTMPose: Jiang et al., 2023, arXiv 2303.07399.
    """
    check_floating("input", input)
    if input.ndim < 2:
        raise ValueError(f"`input` must have shape (*people, keypoints, bins), but got {tuple(input.shape)}")
    check_number("beta", beta, above=0)
    check_choice("bin_reduction", bin_reduction, ("mean", "sum"))
    (x,) = upcast(input)
    visible = visible_keypoints(visibility, x.shape[:-1], x.device)
    x = torch.where(visible[..., None], x, 0)
    p = _bin_labels(x, target, visible, sigma, label_smoothing, label_softmax)
    if label_softmax:
        p = (beta * p).softmax(-1)
    divergence = (torch.xlogy(p, p) - p * (beta * x).log_softmax(-1)).sum(-1)
    if bin_reduction == "mean":
        divergence = divergence / max(x.shape[-1], 1)
    return reduce(divergence, weight, reduction, normalizer, visible)


def _bin_labels(
    x: Tensor,
    target: object,
    visible: Tensor,
    sigma: float | None,
    label_smoothing: float,
    peak_of_one: bool,
) -> Tensor:
    """Return the labels of bins ``(*people, K, bins)`` from coordinates or labels, finite where not labelled."""
    check_number("label_smoothing", label_smoothing, at_least=0, below=1)
    if sigma is not None:
        check_number("sigma", sigma, above=0)
        if label_smoothing:
            raise ValueError(f"`label_smoothing` needs `sigma=None`, one-hot labels, but got sigma {sigma!r}")
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` must be a tensor, but got {type(target).__name__}")
    if target.shape == x.shape:
        check_floating("target", target)
        return torch.where(visible[..., None], target, 0).to(x.dtype)
    if target.shape != x.shape[:-1]:
        coordinates, labels, got = tuple(x.shape[:-1]), tuple(x.shape), tuple(target.shape)
        raise ValueError(f"`target` must be coordinates {coordinates} or labels {labels}, but got {got}")
    center = torch.where(visible, target, 0).to(x.dtype).round()
    distance = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device) - center[..., None]
    if sigma is not None:
        height = 1.0 if peak_of_one else 1 / (sigma * math.sqrt(2 * math.pi))
        return height * torch.exp(-(distance**2) / (2 * sigma**2))
    other = label_smoothing / max(x.shape[-1] - 1, 1)
    return torch.full_like(x, other).masked_fill(distance == 0, 1 - label_smoothing)


OKSLoss = module_form("OKSLoss", oks_loss)
RLELoss = module_form("RLELoss", rle_loss)
SimCCLoss = module_form("SimCCLoss", simcc_loss)
