"""The objective of one person: its formula as loops, every loss that fits, and decoding."""

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.objectives import Heatmap, HeatmapOutputs
from lossatlas.objectives.map_slots import LOGIT_KINDS
from lossatlas.targets import KeypointHeatmaps
from tests.objectives.scenes import gradient, leaf

SIZE, STRIDE, KINDS = (6, 8), 4, 3
DRAW = KeypointHeatmaps(sigma=1.0)
NOBODY = {"keypoints": torch.zeros(0, KINDS, 3)}
TARGETS = [
    {"keypoints": torch.tensor([[[9.5, 5.5, 2.0], [20.0, 17.0, 1.0], [float("nan"), 3.0, 0.0]]])},
    NOBODY,
    {"keypoints": torch.tensor([[[3.0, 8.0, 2.0], [200.0, 8.0, 2.0], [25.0, 20.0, 2.0]]])},
]
LABELLED = [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


def outputs(images: int = 3, seed: int = 0) -> HeatmapOutputs:
    return HeatmapOutputs(leaf(images, KINDS, *SIZE, seed=seed), STRIDE)


def height_at(image: int, kind: int, row: int, column: int) -> float:
    """The Gaussian of a keypoint, at one cell."""
    x, y, _ = TARGETS[image]["keypoints"][0, kind].tolist()
    cx, cy = (x - 1.5) / 4, (y - 1.5) / 4
    if max(abs(column - math.floor(cx + 0.5)), abs(row - math.floor(cy + 0.5))) > 3:
        return 0.0
    return math.exp(-((column - cx) ** 2 + (row - cy) ** 2) / 2)


def squared_errors(maps: Tensor) -> list[float]:
    return [
        (float(maps[image, kind, row, column]) - height_at(image, kind, row, column)) ** 2
        for image in range(3)
        for kind in range(KINDS)
        if LABELLED[image][kind]
        for row in range(SIZE[0])
        for column in range(SIZE[1])
    ]


def test_formula_with_every_reduction() -> None:
    raw = outputs()
    errors = squared_errors(raw.heatmaps.detach())
    denominators = {"mean": len(errors), "mean_all": 3 * KINDS * 48, "half_batch": 6, "keypoints": 4}
    assert len(errors) == 4 * 48
    for reduction, denominator in denominators.items():
        for loss in (losses.heatmap_mse_loss, losses.mse_loss):
            objective = Heatmap(heatmap_loss=loss, heatmaps=DRAW, reduction=reduction, heatmap_weight=3.0)  # type: ignore[arg-type]
            terms = objective(raw, TARGETS)
            assert list(terms) == ["heatmap"]
            assert terms["heatmap"].item() == pytest.approx(3 * sum(errors) / denominator, rel=1e-6)


def test_a_loss_that_looks_for_ones_finds_one_at_each_keypoint() -> None:
    raw = outputs()
    total = 0.0
    for image in range(3):
        for kind in range(KINDS):
            if not LABELLED[image][kind]:
                continue
            x, y, _ = TARGETS[image]["keypoints"][0, kind].tolist()
            peak = math.floor((y - 1.5) / 4 + 0.5), math.floor((x - 1.5) / 4 + 0.5)
            for row in range(SIZE[0]):
                for column in range(SIZE[1]):
                    p = 1 / (1 + math.exp(-float(raw.heatmaps[image, kind, row, column].detach())))
                    if (row, column) == peak:
                        total -= (1 - p) ** 2 * math.log(p)
                    else:
                        total -= (1 - height_at(image, kind, row, column)) ** 4 * p**2 * math.log(1 - p)
    terms = Heatmap(heatmap_loss=losses.gaussian_focal_loss, heatmaps=DRAW)(raw, TARGETS)
    assert terms["heatmap"].item() == pytest.approx(total / 4, rel=1e-5)


def test_stages_of_any_size_are_added() -> None:
    raw = outputs()
    again, half = leaf(3, KINDS, *SIZE, seed=1), leaf(3, KINDS, 3, 4, seed=2)
    objective = Heatmap(heatmaps=DRAW)
    single = [objective(HeatmapOutputs(maps, STRIDE), TARGETS).total for maps in (raw.heatmaps, again)]
    coarse = objective(HeatmapOutputs(half, 2 * STRIDE), TARGETS).total
    terms = objective(HeatmapOutputs(raw.heatmaps, STRIDE, (again, half)), TARGETS)
    assert terms["heatmap"].item() == pytest.approx(sum(term.item() for term in (*single, coarse)))
    terms.total.backward()
    assert (gradient(half) != 0).any()


def test_what_is_not_labelled_is_left_out_or_is_nowhere() -> None:
    raw = outputs()
    Heatmap(heatmaps=DRAW)(raw, TARGETS).total.backward()
    trained = (gradient(raw.heatmaps) != 0).flatten(2).any(2)
    assert trained.int().tolist() == LABELLED
    negative = Heatmap(heatmaps=DRAW, unlabelled="negative")(raw, TARGETS).total
    errors = squared_errors(raw.heatmaps.detach())
    absent = [
        float(raw.heatmaps[image, kind].square().sum().detach())
        for image in range(3)
        for kind in range(KINDS)
        if not LABELLED[image][kind]
    ]
    assert negative.item() == pytest.approx((sum(errors) + sum(absent)) / (3 * KINDS * 48), rel=1e-6)


@pytest.mark.parametrize(
    "loss", [losses.heatmap_mse_loss, losses.mse_loss, losses.gaussian_focal_loss, losses.QualityFocalLoss()]
)
def test_weights_of_keypoints_do_not_change_the_denominator(loss: Any) -> None:
    raw = outputs()
    plain = torch.autograd.grad(Heatmap(heatmap_loss=loss, heatmaps=DRAW)(raw, TARGETS).total, raw.heatmaps)[0]
    objective = Heatmap(heatmap_loss=loss, heatmaps=DRAW, keypoint_weights=torch.tensor([1.0, 3.0, 0.5]))
    weighted = torch.autograd.grad(objective(raw, TARGETS).total, raw.heatmaps)[0]
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 3.0, 0.5]).view(3, 1, 1).double())


MAP_LOSSES = [
    entry
    for entry in losses.CATALOG.values()
    if entry.input_kind in {"keypoint_maps", "elementwise"} | LOGIT_KINDS and entry.name != "kl_box_loss"
]
COORDINATE_LOSSES = [
    entry
    for entry in losses.CATALOG.values()
    if entry.input_kind in ("keypoints", "scaled_keypoints", "coordinate_logits", "elementwise")
    # One needs another output of the network, one is for targets from 0 to 1.
    and entry.name not in ("kl_box_loss", "adaptive_wing_loss")
]


def made(entry: Any) -> Any:
    options: dict[str, Any] = {"joint_ohkm_loss": {"topk": 2}, "equalized_focal_loss": {"num_classes": KINDS}}
    return entry.module(**options.get(entry.name, {}))


@pytest.mark.parametrize("entry", MAP_LOSSES, ids=lambda entry: entry.name)
def test_every_loss_of_maps_fits(entry: Any) -> None:
    raw = outputs()
    total = Heatmap(heatmap_loss=made(entry), heatmaps=DRAW)(raw, TARGETS).total
    total.backward()
    assert total.isfinite()
    assert gradient(raw.heatmaps).isfinite().all()
    trained = (gradient(raw.heatmaps) != 0).flatten(2).any(2).int().tolist()
    if entry.name == "balanced_binary_cross_entropy_with_logits":  # it draws lots
        assert never_more(trained, LABELLED)
    else:
        assert trained == LABELLED


def never_more(trained: list[list[int]], labelled: list[list[int]]) -> bool:
    """Whether nothing that is not labelled is trained."""
    return (torch.tensor(trained) <= torch.tensor(labelled)).all().item() is True


@pytest.mark.parametrize("entry", COORDINATE_LOSSES, ids=lambda entry: entry.name)
def test_every_loss_of_coordinates_fits_and_leads_to_the_keypoints(entry: Any) -> None:
    logits = torch.zeros(3, KINDS, *SIZE, dtype=torch.float64, requires_grad=True)
    # So wide that the similarity has a slope across the map.
    objective = Heatmap(heatmap_loss=None, coordinate_loss=made(entry), heatmaps=DRAW, sigmas=torch.full((KINDS,), 0.5))
    optimizer = torch.optim.Adam([logits], lr=0.7)
    values = []
    for _ in range(40):
        terms = objective(HeatmapOutputs(logits, STRIDE), TARGETS)
        optimizer.zero_grad()
        terms.total.backward()
        assert gradient(logits).isfinite().all()
        values.append(terms["coordinate"].item())
        optimizer.step()
    assert never_more((gradient(logits) != 0).flatten(2).any(2).int().tolist(), LABELLED)
    assert math.isfinite(values[-1])
    assert values[-1] < values[0]
    found = objective.decode(HeatmapOutputs(logits.detach(), STRIDE))
    for image, kind in ((0, 0), (0, 1), (2, 0), (2, 2)):
        error = (found[image]["keypoints"][0, kind, :2] - TARGETS[image]["keypoints"][0, kind, :2]).abs().max()
        assert error < 0.75 * STRIDE, (image, kind)


def test_coordinates_are_the_means_of_the_distributions() -> None:
    raw = outputs()
    total, count = 0.0, 0
    for image in range(3):
        for kind in range(KINDS):
            if LABELLED[image][kind]:
                p = (2.0 * raw.heatmaps[image, kind].detach()).exp()
                p = p / p.sum()
                mean = (
                    sum(float(p[r, c]) * c for r in range(6) for c in range(8)),
                    sum(float(p[r, c]) * r for r in range(6) for c in range(8)),
                )
                for coordinate, pixel in zip(mean, TARGETS[image]["keypoints"][0, kind, :2].tolist(), strict=True):
                    total += abs(coordinate - (pixel - 1.5) / 4)
                    count += 1
    objective = Heatmap(coordinate_loss=losses.l1_loss, heatmaps=DRAW, beta=2.0, coordinate_weight=0.5)
    terms = objective(raw, TARGETS)
    assert list(terms) == ["heatmap", "coordinate"]
    assert terms["coordinate"].item() == pytest.approx(0.5 * total / count)


def test_similarity_takes_areas_of_the_targets_or_half_of_their_boxes() -> None:
    raw = outputs(1)
    points = TARGETS[0]["keypoints"]
    sigmas = torch.tensor([0.1, 0.2, 0.3])
    box = torch.tensor([[0.0, 0.0, 20.0, 30.0]])
    by_box, by_area, tiny = (
        Heatmap(heatmap_loss=None, coordinate_loss=losses.oks_loss, sigmas=sigmas)(raw, [target]).total.item()
        for target in (
            {"keypoints": points, "boxes": box},
            {"keypoints": points, "boxes": box, "area": torch.tensor([300.0])},
            {"keypoints": points, "area": torch.tensor([30.0])},
        )
    )
    assert by_box == pytest.approx(by_area)
    assert tiny > by_area
    boxed = [{"keypoints": points, "boxes": box}]
    bound = Heatmap(heatmap_loss=None, coordinate_loss=functools.partial(losses.oks_loss, sigmas=sigmas))
    assert bound(raw, boxed).total.item() == by_box


@pytest.mark.parametrize("center", ["exact", "floor", "round"])
@pytest.mark.parametrize("convention", ["center", "index", "area", "ends"])
def test_ideal_maps_decode_to_their_keypoints(center: Any, convention: Any) -> None:
    size = (24, 32)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(5, 1, 40, 3, generator=generator) * torch.tensor([90.0, 60, 0]) + torch.tensor([18.0, 18, 2])
    draw = KeypointHeatmaps(sigma=2.0, center=center, convention=convention)
    objective = Heatmap(heatmaps=draw)
    targets = [{"keypoints": person} for person in points]
    maps = draw(points, size, STRIDE).heatmaps
    found = objective.decode(HeatmapOutputs(maps, STRIDE))
    places = torch.stack([one["keypoints"][0, :, :2] for one in found])
    errors = (places - points[:, 0, :, :2]).flatten(0, 1)
    half_a_cell = (95 / 23 if convention == "ends" else STRIDE) / 2
    limit = 0.01 if center == "exact" else half_a_cell + 0.01
    assert errors.abs().max() < limit
    assert errors.mean(0).abs().max() < (0.01 if center == "exact" else 0.25)
    assert objective(HeatmapOutputs(maps, STRIDE), targets).total.item() == 0
    assert all((one["scores"] > 0.88).all() for one in found)


def test_heatmaps_of_logits_decode_through_the_sigmoid() -> None:
    maps = torch.full((1, 1, 5, 5), -4.0)
    maps[0, 0, 2, 3] = 2.0
    objective = Heatmap(heatmap_loss=losses.gaussian_focal_loss)
    (found,) = objective.decode(HeatmapOutputs(maps, 4.0), refinement="none")
    assert found["keypoints"][0, 0].tolist() == pytest.approx([13.5, 9.5, 1 / (1 + math.exp(-2))])
    assert found["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-2))])


@pytest.mark.parametrize(
    "options", [{}, {"coordinate_loss": losses.rle_loss}, {"heatmap_loss": losses.gaussian_focal_loss}]
)
def test_edges_and_half_precision(options: Any) -> None:
    objective = Heatmap(**options)
    crowd = {**TARGETS[0], "iscrowd": torch.tensor([1])}
    outside = {"keypoints": torch.full((1, KINDS, 3), 1e6)}
    for targets in ([NOBODY] * 3, [crowd] * 3, [outside] * 3):
        raw = outputs()
        terms = objective(raw, targets)
        terms.total.backward()
        assert terms.total.item() == 0
        assert (gradient(raw.heatmaps) == 0).all()
    empty = HeatmapOutputs(leaf(0, KINDS, *SIZE, seed=0), STRIDE)
    terms = objective(empty, [])
    terms.total.backward()
    assert terms.total.item() == 0
    assert objective.decode(empty) == []
    half = (outputs().heatmaps.detach() * 5).half().requires_grad_()
    terms = objective(HeatmapOutputs(half, STRIDE), TARGETS)
    terms.total.backward()
    assert terms.total.dtype == torch.float32
    assert gradient(half).dtype == torch.float16
    assert gradient(half).isfinite().all()
    far = (outputs().heatmaps.detach() * 1e4).requires_grad_()
    objective(HeatmapOutputs(far, STRIDE), TARGETS).total.backward()
    assert gradient(far).isfinite().all()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`heatmap_loss` must be one of .*heatmap_mse_loss.* but got giou_loss"):
        Heatmap(heatmap_loss=losses.giou_loss)
    with pytest.raises(ValueError, match=r"`coordinate_loss` must be one of .*oks_loss.* but got dice_loss"):
        Heatmap(coordinate_loss=losses.dice_loss)
    with pytest.raises(ValueError, match="`heatmap_loss` or `coordinate_loss` must be a loss, but both are None"):
        Heatmap(heatmap_loss=None)
    with pytest.raises(ValueError, match="`reduction` must be 'mean' for joint_ohkm_loss, but got 'half_batch'"):
        Heatmap(heatmap_loss=losses.joint_ohkm_loss, reduction="half_batch")
    with pytest.raises(ValueError, match="`heatmaps` must have no background"):
        Heatmap(heatmaps=KeypointHeatmaps(background=True))
    with pytest.raises(ValueError, match="`keypoint_weights` must be None without a heatmap loss"):
        Heatmap(heatmap_loss=losses.joint_ohkm_loss, keypoint_weights=torch.ones(KINDS))
    with pytest.raises(ValueError, match=r"`keypoint_weights` must have shape \(3,\), but got \(4,\)"):
        Heatmap(keypoint_weights=torch.ones(4))(outputs(), TARGETS)
    two = {"keypoints": torch.ones(2, KINDS, 3)}
    with pytest.raises(ValueError, match=r"`targets\[1\]` must have at most one person, but has 2"):
        Heatmap()(outputs(), [NOBODY, two, NOBODY])
    with pytest.raises(ValueError, match="`targets` must have one entry for each of the 3 images, but has 1"):
        Heatmap()(outputs(), [NOBODY])
    with pytest.raises(ValueError, match=r"`stages\[0\]` must have shape \(3, 3, \*, \*\), but got \(3, 2, 6, 8\)"):
        HeatmapOutputs(outputs().heatmaps, STRIDE, (torch.zeros(3, 2, 6, 8),))
