"""Pose losses: oracles that loop over images, people, keypoints and pixels, and edge inputs."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.losses import PullPush
from tests.conformance.case import Array, Case, Edge, Identity, Pair


def heatmaps(generator: torch.Generator, maps: int = 4) -> Pair:
    input = torch.randn(2, maps, 2, 3, generator=generator, dtype=torch.float64)
    return input, torch.rand(2, maps, 2, 3, generator=generator, dtype=torch.float64)


def heatmap_mse(input: Array, target: Array, frozen: Array) -> Array:
    loss = np.zeros(input.shape)
    for place in np.ndindex(input.shape):
        loss[place] = (input[place] - target[place]) ** 2
    return loss


def part_affinity(input: Array, target: Array, frozen: Array) -> Array:
    images, maps, height, width = input.shape
    loss = np.zeros((images, maps // 2, height, width))
    for image, limb, row, column in np.ndindex(loss.shape):
        error = [input[image, m, row, column] - target[image, m, row, column] for m in (2 * limb, 2 * limb + 1)]
        loss[image, limb, row, column] = math.hypot(*error) ** 2
    return loss


def joint_ohkm(input: Array, target: Array, frozen: Array, topk: int = 8) -> Array:
    errors = [
        sorted((float(((x - y) ** 2).mean()) for x, y in zip(person, truth, strict=True)), reverse=True)
        for person, truth in zip(input, target, strict=True)
    ]
    return np.array([sum(person[:topk]) / topk for person in errors])


MAP, WIDE = torch.zeros(1, 2, 1, 2, dtype=torch.float64), torch.zeros(1, 8, 1, 2, dtype=torch.float64)
NOTHING = torch.zeros(1, 1, 2)
MAP_EDGES = (
    Edge("no error", MAP, MAP),
    Edge("errors of 1e4", MAP + 1e4, MAP - 0.5),
    Edge("nothing counts", MAP + 1, MAP, {"mask": NOTHING}),
)
TAG_SHAPE = (2, 6, 2, 4)


def combine(terms: PullPush) -> Tensor:
    return terms.pull + 3 * terms.push


def people(generator: torch.Generator) -> Pair:
    """Return tag maps, and people of whom some have a keypoint less and one in each image none."""
    input = torch.randn(TAG_SHAPE, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 24, (2, 4, 3), generator=generator)
    target[0, 0, 0] = 0
    target[:, 1, 2] = target[1, 2, :2] = target[:, 3] = -1
    return input, target


def associative_embedding(
    input: Array,
    target: Array,
    frozen: Array,
    variant: str = "paper",
    sigma: float = math.sqrt(0.5),
    dimensions: int = 1,
) -> Array:
    loss = np.zeros(len(input))
    for image, maps in enumerate(input):
        flat = maps.reshape(dimensions, -1)
        tags = [[flat[:, int(place)] for place in person if place >= 0] for person in target[image]]
        tags = [person for person in tags if person]
        centers = [sum(person) / len(person) for person in tags]
        number = len(tags)
        for person, center in zip(tags, centers, strict=True):
            share = len(person) * dimensions if variant == "reference" else 1
            loss[image] += sum(float(((tag - center) ** 2).sum()) for tag in person) / share / number
        for i, j in itertools.product(range(number), repeat=2):
            near = math.exp(-float(((centers[i] - centers[j]) ** 2).sum()) / (2 * sigma**2))
            if variant == "paper":
                loss[image] += 3 * near / number**2
            elif i != j:
                loss[image] += 3 * near / number / (number - 1) / 2
    return loss


def tag_edges() -> tuple[Edge, ...]:
    tags, target = people(torch.Generator().manual_seed(3))
    nobody = torch.full_like(target, -1)
    one = nobody.clone()
    one[:, 1, 0] = 7
    inputs = {
        "some people": (tags, target),
        "no people": (tags, nobody),
        "no room for people": (tags, target[:, :0]),
        "one person with one keypoint": (tags, one),
        "equal tags": (torch.ones_like(tags), target),
        "tags of 1e4": (tags.sign() * 1e4, target),
    }
    return tuple(
        Edge(f"{name} {variant}", *pair, {"variant": variant})
        for name, pair in inputs.items()
        for variant in ("paper", "reference")
    )


def pull_push(index: int, tags: Tensor, target: Tensor, **options: Any) -> Tensor:
    return losses.associative_embedding_loss(tags, target, **options)[index]


TAGS, PEOPLE = people(torch.Generator().manual_seed(4))
PEOPLE = PEOPLE[:, :3]
PEOPLE[PEOPLE < 0] = 5


def poses(generator: torch.Generator) -> Pair:
    input = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64)
    return input, input + torch.randn(2, 3, 2, generator=generator, dtype=torch.float64) * 0.4


AREAS, SIGMAS = torch.tensor([2.0, 5.0]), torch.tensor([0.1, 0.2, 0.3])


def oks(input: Array, target: Array, frozen: Array, areas: Tensor | None = None, sigmas: Tensor | None = None) -> Array:
    areas = torch.tensor([4.0, 4.0]) if areas is None else areas
    sigmas = SIGMAS if sigmas is None else sigmas
    loss = np.ones(len(input))
    for person, keypoint in np.ndindex(input.shape[:2]):
        distance = math.dist(input[person, keypoint], target[person, keypoint])
        spread = 2 * float(sigmas[keypoint])
        loss[person] -= math.exp(-(distance**2) / (2 * float(areas[person]) * spread**2)) / input.shape[1]
    return loss


POSE = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]], dtype=torch.float64)
ZERO = torch.tensor(0.0)
UNSEEN = {"visibility": torch.zeros(1, 3)}


def heavy_tail(error: Tensor) -> Tensor:
    """Logarithm of a Cauchy density of two dimensions that is not centred."""
    return -1.5 * torch.log1p((error[..., 0] - 0.5) ** 2 + error[..., 1] ** 2) - math.log(2 * math.pi)


def normal(error: Tensor) -> Tensor:
    return -error.square().sum(-1) / 2 - math.log(2 * math.pi)


def rle(
    input: Array,
    target: Array,
    frozen: Array,
    sigma: Tensor | None = None,
    log_density: Any = None,
    base: str = "laplace",
    variant: str = "paper",
) -> Array:
    scales = np.broadcast_to(0.3 if sigma is None else sigma.double().numpy(), input.shape)
    loss = np.zeros(input.shape[:2])
    for place in np.ndindex(loss.shape):
        errors = (target[place] - input[place]) / scales[place]
        log_phi = 0.0
        if callable(log_density):
            log_phi = float(log_density(torch.tensor(errors)))
        elif log_density is not None:
            log_phi = float(log_density[place])
        for e, s in zip(errors.tolist(), scales[place].tolist(), strict=True):
            if base == "gaussian":
                q = math.exp(-(e**2) / 2) / math.sqrt(2 * math.pi)
            elif variant == "paper":
                q = math.exp(-abs(e)) / 2
            else:
                q = math.exp(-abs(e) / math.sqrt(2)) / math.sqrt(2 * math.pi)
            loss[place] += math.log(s) - math.log(q)
            if variant == "reference":
                loss[place] += math.log(s) - log_phi
        if variant == "paper":
            loss[place] -= log_phi
    return loss


SCALES = torch.tensor([[0.2, 0.5], [1.0, 0.7], [0.3, 2.0]], dtype=torch.float64)
LOG_PHI = torch.tensor([[0.1, -2.0, 0.5], [1.0, 0.0, -0.3]], dtype=torch.float64)
OFF = POSE + torch.tensor([0.25, -0.5])


def bins(generator: torch.Generator) -> Pair:
    input = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64) * 2
    return input, torch.rand(2, 3, generator=generator, dtype=torch.float64) * 7


def simcc(
    input: Array,
    target: Array,
    frozen: Array,
    sigma: float | None = 6.0,
    label_smoothing: float = 0.0,
    label_softmax: bool = False,
    beta: float = 1.0,
    bin_reduction: str = "mean",
) -> Array:
    number = input.shape[-1]
    loss = np.zeros(input.shape[:-1])
    for place in np.ndindex(loss.shape):
        center = math.floor(target[place] + 0.5)
        if sigma is None:
            label = [1 - label_smoothing if j == center else label_smoothing / (number - 1) for j in range(number)]
        else:
            label = [math.exp(-((j - center) ** 2) / (2 * sigma**2)) for j in range(number)]
        if label_softmax:
            label = [math.exp(beta * p) / sum(math.exp(beta * other) for other in label) for p in label]
        elif sigma is not None:
            label = [p / (sigma * math.sqrt(2 * math.pi)) for p in label]
        powers = [math.exp(beta * logit) for logit in input[place].tolist()]
        for p, power in zip(label, powers, strict=True):
            loss[place] += p * (math.log(p) - math.log(power / sum(powers))) if p > 0 else 0.0
    return loss / number if bin_reduction == "mean" else loss


LABELS: tuple[dict[str, Any], ...] = (
    {},
    {"sigma": 2.0, "bin_reduction": "sum"},
    {"sigma": None, "label_smoothing": 0.1},
    {"sigma": None},
    {"sigma": 4.9, "label_softmax": True, "beta": 2.5},
)
LOGITS, PLACES = bins(torch.Generator().manual_seed(7))
RTMPOSE: dict[str, Any] = {"label_softmax": True, "beta": 10.0}
GAUSSIANS = torch.exp(-((torch.arange(8.0, dtype=torch.float64) - PLACES.round()[..., None]) ** 2) / (2 * 36.0))


def bin_edges() -> tuple[Edge, ...]:
    sure = torch.zeros(1, 2, 5, dtype=torch.float64)
    sure[0, 0, 1], sure[0, 1, 3] = 1e4, -1e4
    places = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    inputs = {
        "logits of 1e4": (sure, places),
        "the opposite": (-sure, places),
        "far outside": (sure, places + 1e3),
        "whole bins": (sure, places.long()),
        "one bin": (sure[..., :1], places * 0),
    }
    return (
        *(Edge(f"{name} {i}", *pair, options) for name, pair in inputs.items() for i, options in enumerate(LABELS)),
        Edge("labels with zeros", sure, torch.eye(5, dtype=torch.float64)[None, :2]),
        Edge("not labelled", sure, places, {"visibility": torch.zeros(1, 2)}),
    )


CASES = (
    Case(
        "heatmap_mse_loss",
        heatmaps,
        heatmap_mse,
        MAP_EDGES,
        identities=(
            Identity(
                "half_batch is the sum over 2 B",
                lambda: losses.heatmap_mse_loss(*heatmaps(torch.Generator()), reduction="half_batch"),
                lambda: losses.heatmap_mse_loss(*heatmaps(torch.Generator()), reduction="sum") / 4,
            ),
        ),
        empty=lambda: (torch.zeros(0, 4, 2, 3), torch.zeros(0, 4, 2, 3)),
    ),
    Case(
        "part_affinity_loss",
        heatmaps,
        part_affinity,
        MAP_EDGES,
        identities=(
            Identity(
                "the sum is that of the maps",
                lambda: losses.part_affinity_loss(*heatmaps(torch.Generator()), reduction="half_batch"),
                lambda: losses.heatmap_mse_loss(*heatmaps(torch.Generator()), reduction="half_batch"),
            ),
        ),
        empty=lambda: (torch.zeros(0, 4, 2, 3), torch.zeros(0, 4, 2, 3)),
    ),
    Case(
        "joint_ohkm_loss",
        lambda generator: heatmaps(generator, maps=9),
        joint_ohkm,
        (
            Edge("no error", WIDE, WIDE),
            Edge("errors of 1e4", WIDE + 1e4, WIDE, {"topk": 1}),
            Edge("not labelled", WIDE + 1, WIDE, {"visibility": torch.zeros(1, 8)}),
            Edge("fewer labelled than wanted", WIDE + 1, WIDE, {"visibility": torch.eye(8)[:1]}),
            Edge("no pixels", WIDE[..., :0], WIDE[..., :0]),
        ),
        options=({}, {"topk": 1}, {"topk": 3}),
        identities=(
            Identity(
                "all keypoints are the mean squared error",
                lambda: losses.joint_ohkm_loss(*heatmaps(torch.Generator()), topk=4),
                lambda: losses.heatmap_mse_loss(*heatmaps(torch.Generator())),
            ),
        ),
        empty=lambda: (torch.zeros(0, 9, 2, 3), torch.zeros(0, 9, 2, 3)),
    ),
    Case(
        "associative_embedding_loss",
        people,
        associative_embedding,
        tag_edges(),
        options=(
            {},
            {"variant": "reference"},
            {"sigma": 2.0, "dimensions": 2},
            {"variant": "reference", "dimensions": 2},
        ),
        identities=(
            # With every keypoint of each of N = 3 people labelled the two variants are functions of each other.
            Identity(
                "the paper's pull is 3 keypoints times the reference's",
                lambda: pull_push(0, TAGS, PEOPLE),
                lambda: 3 * pull_push(0, TAGS, PEOPLE, variant="reference"),
            ),
            Identity(
                "the paper's push is 1 / N and 2 (N - 1) / N of the reference's",
                lambda: pull_push(1, TAGS, PEOPLE),
                lambda: 1 / 3 + 4 / 3 * pull_push(1, TAGS, PEOPLE, variant="reference"),
            ),
            Identity(
                "one person is pushed by itself alone",
                lambda: pull_push(1, TAGS, PEOPLE[:, :1]),
                lambda: 1.0,
            ),
            Identity(
                "equal tags pull nothing and push with half",
                lambda: torch.stack(
                    losses.associative_embedding_loss(TAGS * 0 + 7, PEOPLE, variant="reference"),
                ),
                lambda: torch.tensor([0.0, 0.5]),
            ),
        ),
        empty=lambda: (torch.zeros(0, 6, 2, 4), torch.zeros(0, 4, 3, dtype=torch.long)),
        combine=combine,
    ),
    Case(
        "oks_loss",
        poses,
        oks,
        (
            Edge("no error", POSE, POSE),
            Edge("errors of 1e4", POSE + 1e4, POSE),
            Edge("no area", POSE, POSE, {"areas": ZERO}),
            Edge("no area and an error", POSE, POSE + 1e-4, {"areas": ZERO}),
            Edge("a negative area", POSE, POSE + 1, {"areas": ZERO - 1}),
            Edge("not labelled", POSE, POSE + 1, UNSEEN),
            Edge("no people", POSE[:0], POSE[:0]),
        ),
        options=({}, {"areas": AREAS}, {"areas": AREAS, "sigmas": SIGMAS.flip(0)}),
        identities=(
            # The values that the COCO evaluation's page gives for one, two and three standard deviations.
            Identity(
                "0.88, 0.61 and 0.32 at one, two and three sigmas",
                lambda: (
                    1
                    - losses.oks_loss(
                        torch.tensor([[[0.6, 0.8]], [[1.2, 1.6]], [[1.8, 2.4]]], dtype=torch.float64),
                        torch.zeros(3, 1, 2, dtype=torch.float64),
                        areas=torch.tensor(100.0),
                        sigmas=torch.tensor([0.1], dtype=torch.float64),
                        reduction="none",
                    )
                ),
                lambda: torch.tensor([-1 / 8, -4 / 8, -9 / 8], dtype=torch.float64).exp(),
            ),
        ),
        empty=lambda: (torch.zeros(0, 3, 2), torch.zeros(0, 3, 2)),
        required={"areas": torch.tensor(4.0), "sigmas": SIGMAS},
    ),
    Case(
        "rle_loss",
        poses,
        rle,
        (
            Edge("no error", POSE, POSE),
            Edge("errors of 1e4", POSE + 1e4, POSE),
            Edge("errors of 1e4 gaussian", POSE + 1e3, POSE, {"base": "gaussian"}),
            Edge("no scale", POSE, OFF, {"sigma": ZERO}),
            Edge("no scale and no error", POSE, POSE, {"sigma": ZERO, "base": "gaussian"}),
            Edge("a negative scale", POSE, OFF, {"sigma": ZERO - 1}),
            Edge("not labelled", POSE, OFF, {**UNSEEN, "log_density": heavy_tail}),
        ),
        options=(
            {},
            {"base": "gaussian", "sigma": SCALES},
            {"log_density": heavy_tail, "sigma": SCALES},
            {"log_density": LOG_PHI, "base": "gaussian"},
            {"log_density": heavy_tail, "variant": "reference"},
            {"log_density": LOG_PHI, "variant": "reference", "base": "gaussian", "sigma": SCALES},
        ),
        identities=(
            Identity(
                "without a flow it is the likelihood of a Laplace",
                lambda: losses.rle_loss(POSE, OFF, sigma=SCALES, reduction="none"),
                lambda: -torch.distributions.Laplace(POSE, SCALES).log_prob(OFF).sum(-1),
            ),
            Identity(
                "or of a Gaussian",
                lambda: losses.rle_loss(POSE, OFF, sigma=SCALES, base="gaussian", reduction="none"),
                lambda: -torch.distributions.Normal(POSE, SCALES).log_prob(OFF).sum(-1),
            ),
            # Two Gaussians of width σ multiply to one of width σ / √2, up to the factor that the paper leaves out.
            Identity(
                "a Gaussian flow on a Gaussian is a narrower Gaussian",
                lambda: losses.rle_loss(POSE, OFF, sigma=SCALES, base="gaussian", log_density=normal, reduction="none"),
                lambda: (
                    losses.rle_loss(POSE, OFF, sigma=SCALES / math.sqrt(2), base="gaussian", reduction="none")
                    + math.log(4 * math.pi)
                ),
            ),
        ),
        empty=lambda: (torch.zeros(0, 3, 2), torch.zeros(0, 3, 2)),
        required={"sigma": torch.tensor(0.3, dtype=torch.float64)},
    ),
    Case(
        "simcc_loss",
        bins,
        simcc,
        bin_edges(),
        options=LABELS,
        identities=(
            Identity(
                "one-hot labels are cross entropy",
                lambda: losses.simcc_loss(LOGITS, PLACES, sigma=None, bin_reduction="sum"),
                lambda: losses.cross_entropy(LOGITS.flatten(0, 1), PLACES.round().long().flatten()),
            ),
            Identity(
                "labels may be made already",
                lambda: losses.simcc_loss(LOGITS, GAUSSIANS, **RTMPOSE),
                lambda: losses.simcc_loss(LOGITS, PLACES, **RTMPOSE),
            ),
            Identity(
                "logits of the label's shape cost nothing",
                lambda: losses.simcc_loss(GAUSSIANS, PLACES, **RTMPOSE, reduction="none"),
                lambda: 0.0,
            ),
        ),
        empty=lambda: (torch.zeros(0, 3, 8), torch.zeros(0, 3)),
    ),
)
