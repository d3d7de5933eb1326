"""The objectives of several people: formulas against the losses on loops' targets, decoding, and what both promise."""

import functools
import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.objectives import (
    AssociativeEmbedding,
    AssociativeEmbeddingOutputs,
    LossTerms,
    PartAffinity,
    PartAffinityOutputs,
)
from lossatlas.objectives.map_slots import LOGIT_KINDS
from lossatlas.targets import KeypointHeatmaps, PartAffinityFields, Skeleton
from tests.objectives.scenes import gradient, leaf
from tests.targets.test_fields import by_the_rule as fields_by_the_rule

SIZE, STRIDE, KINDS = (9, 12), 4, 4
STAR = Skeleton("star", ("head", "neck", "left", "right"), ((1, 0), (1, 2), (1, 3)), mirrored=((2, 3),))
DRAW = KeypointHeatmaps(sigma=1.0)


def three_people(seed: int, spread: float = 4.0) -> Tensor:
    """People whose keypoints lie around three places of the map."""
    source = random.Random(seed)
    people = []
    for x, y in ((9.0, 10.0), (34.0, 9.0), (22.0, 24.0)):
        ends = [(0.0, -spread), (0.0, 0.0), (-spread, spread), (spread, spread)]
        people.append([[x + dx + source.uniform(-1, 1), y + dy + source.uniform(-1, 1), 2.0] for dx, dy in ends])
    return torch.tensor(people)


NOBODY = {"keypoints": torch.zeros(0, KINDS, 3)}
HIDDEN = three_people(1)
HIDDEN[1, 2], HIDDEN[2, 0] = torch.tensor([float("nan"), 3.0, 0.0]), torch.tensor([-30.0, 5.0, 1.0])
UNKNOWN = three_people(2)
UNKNOWN[1, :, 2] = 0
TARGETS: list[dict[str, Tensor]] = [
    {"keypoints": HIDDEN},
    NOBODY,
    {
        "keypoints": UNKNOWN,
        "boxes": torch.tensor([[2.0, 2, 16, 16], [26.0, 2, 44, 16], [15.0, 18, 30, 32]]),
        "iscrowd": torch.tensor([False, False, True]),
    },
]


@dataclass(frozen=True)
class Case:
    """An objective and the outputs of a small network for so many images."""

    make: Any
    leaves: Any
    outputs: Any


CASES = {
    "associative_embedding": Case(
        lambda **options: AssociativeEmbedding(**({"heatmaps": DRAW} | options)),
        lambda images: {
            "heatmaps": leaf(images, KINDS, *SIZE, seed=0),
            "tags": leaf(images, KINDS, *SIZE, seed=1),
        },
        lambda raw: AssociativeEmbeddingOutputs(**raw, stride=STRIDE),
    ),
    "part_affinity": Case(
        lambda **options: PartAffinity(STAR, **({"heatmaps": DRAW} | options)),
        lambda images: {
            "heatmaps": leaf(images, KINDS, *SIZE, seed=0),
            "fields": leaf(images, 6, *SIZE, seed=1),
        },
        lambda raw: PartAffinityOutputs(**raw, stride=STRIDE),
    ),
}
every_objective = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def run(case: Case, raw: dict[str, Tensor], targets: list[dict[str, Tensor]], **options: Any) -> LossTerms:
    for tensor in raw.values():
        tensor.grad = None
    terms: LossTerms = case.make(**options)(case.outputs(raw), targets)
    terms.total.backward()
    return terms


def trained(image: int, row: int, column: int) -> bool:
    """Whether a cell lies on nobody whose keypoints are not known."""
    x, y = 4 * column + 1.5, 4 * row + 1.5
    return image != 2 or not ((26 <= x < 44 and 2 <= y < 16) or (15 <= x < 30 and 18 <= y < 32))


def height_at(image: int, kind: int, row: int, column: int) -> float:
    heights = [0.0]
    for number, person in enumerate(TARGETS[image]["keypoints"].tolist()):
        x, y, visibility = person[kind]
        if not visibility or (image, number) == (2, 2):
            continue
        cx, cy = (x - 1.5) / 4, (y - 1.5) / 4
        a, b = math.floor(cx + 0.5), math.floor(cy + 0.5)
        if 0 <= a < 12 and 0 <= b < 9 and max(abs(column - a), abs(row - b)) <= 3:
            heights.append(math.exp(-((column - cx) ** 2 + (row - cy) ** 2) / 2))
    return max(heights)


@every_objective
def test_the_heatmap_term_cell_by_cell(case: Case) -> None:
    raw = case.leaves(3)
    errors = [
        (float(raw["heatmaps"][image, kind, row, column].detach()) - height_at(image, kind, row, column)) ** 2
        for image in range(3)
        for kind in range(KINDS)
        for row in range(9)
        for column in range(12)
        if trained(image, row, column)
    ]
    assert len(errors) < 3 * KINDS * 108
    keypoints = 10 + 4  # one is not labelled and one outside
    for reduction, count in (("mean", len(errors)), ("mean_all", 1296), ("half_batch", 6), ("keypoints", keypoints)):
        weights = {"weights": (2.0, 1.0, 1.0)} if "tags" in raw else {"heatmap_weight": 2.0}
        terms = run(case, raw, TARGETS, reduction=reduction, **weights)
        assert terms["heatmap"].item() == pytest.approx(2 * sum(errors) / count, rel=1e-6)


def test_the_tag_terms_are_the_loss_at_the_cells_of_the_keypoints() -> None:
    case = CASES["associative_embedding"]
    raw = case.leaves(3)
    places = torch.full((3, 3, KINDS), -1)
    for image in (0, 2):
        for n, person in enumerate(TARGETS[image]["keypoints"].tolist()):
            for k, (x, y, visibility) in enumerate(person):
                if visibility and (image, n) != (2, 2) and x >= 0:
                    row, column = math.floor((y - 1.5) / 4 + 0.5), math.floor((x - 1.5) / 4 + 0.5)
                    places[image, n, k] = k * 108 + row * 12 + column
    variants: tuple[Any, ...] = ("paper", "reference")
    for variant in variants:
        expected = losses.associative_embedding_loss(raw["tags"].detach(), places, variant=variant)
        loss = losses.AssociativeEmbeddingLoss(variant=variant)
        terms = run(case, raw, TARGETS, tag_loss=loss, weights=(1.0, 2.0, 3.0))
        assert terms["pull"].item() == pytest.approx(2 * expected.pull.item())
        assert terms["push"].item() == pytest.approx(3 * expected.push.item())
    assert ((gradient(raw["tags"]) != 0).flatten(1).sum(1) <= (places >= 0).flatten(1).sum(1)).all()
    assert (gradient(raw["tags"]) != 0).sum() > 5


def test_the_weights_by_name() -> None:
    case = CASES["associative_embedding"]
    raw = case.leaves(3)
    one = run(case, raw, TARGETS, weights=(1.0, 1.0, 1.0))
    for name, detection, grouping in (("normalized", 0.999, 0.001), ("reference", 1.0, 0.001)):
        terms = run(case, raw, TARGETS, weights=name)
        assert terms["heatmap"].item() == pytest.approx(detection * one["heatmap"].item())
        for key in ("pull", "push"):
            assert terms[key].item() == pytest.approx(grouping * one[key].item())


def test_the_field_term_cell_by_cell() -> None:
    case = CASES["part_affinity"]
    raw = case.leaves(3)
    total, count = 0.0, 0
    for image in range(3):
        people = TARGETS[image]["keypoints"]
        people = people[:1] if image == 2 else people
        target = fields_by_the_rule(people.tolist(), STAR.limbs, SIZE, STRIDE)
        for row in range(9):
            for column in range(12):
                if trained(image, row, column):
                    count += 3
                    for m in range(6):
                        error = float(raw["fields"][image, m, row, column].detach()) - target[m][row][column]
                        total += error**2
    for reduction, denominator in (("mean", count), ("mean_all", 3 * 3 * 108), ("half_batch", 6)):
        terms = run(case, raw, TARGETS, reduction=reduction, field_weight=1.5)
        assert terms["field"].item() == pytest.approx(1.5 * total / denominator, rel=1e-5)
    elementwise = run(case, raw, TARGETS, field_loss=losses.mse_loss)
    assert elementwise["field"].item() == pytest.approx(total / (2 * count), rel=1e-5)


@pytest.mark.parametrize(
    "entry",
    [
        entry
        for entry in losses.CATALOG.values()
        if entry.input_kind in {"keypoint_maps", "part_fields", "tag_maps", "elementwise"} | LOGIT_KINDS
        and entry.name != "kl_box_loss"
    ],
    ids=lambda entry: entry.name,
)
def test_every_loss_of_maps_fits_and_leaves_out_what_is_masked(entry: Any) -> None:
    options: dict[str, Any] = {"joint_ohkm_loss": {"topk": 2}, "equalized_focal_loss": {"num_classes": KINDS}}
    loss = entry.module(**options.get(entry.name, {}))
    slots = {"part_fields": ["field_loss"], "tag_maps": ["tag_loss"], "elementwise": ["heatmap_loss", "field_loss"]}
    hidden = torch.tensor([[not trained(2, row, column) for column in range(12)] for row in range(9)])
    for slot in slots.get(entry.input_kind, ["heatmap_loss"]):
        case = CASES["part_affinity" if slot == "field_loss" else "associative_embedding"]
        raw = case.leaves(3)
        assert run(case, raw, TARGETS, **{slot: loss}).total.isfinite()
        name = {"field_loss": "fields", "tag_loss": "tags"}.get(slot, "heatmaps")
        found = gradient(raw[name])
        assert found.isfinite().all()
        assert (found != 0).any()
        if slot != "tag_loss":
            assert (found[2, :, hidden] == 0).all()


@every_objective
def test_edges(case: Case) -> None:
    known = TARGETS[0]["keypoints"]
    outside = {"keypoints": torch.cat((torch.full((1, KINDS, 2), 1e6), torch.full((1, KINDS, 1), 2.0)), -1)}
    crowd = {"keypoints": known, "iscrowd": torch.ones(3, dtype=torch.bool)}
    unlabelled = {"keypoints": known * 0}
    for targets in ([NOBODY] * 3, [outside] * 3, [crowd] * 3, [unlabelled] * 3):
        raw = case.leaves(3)
        terms = run(case, raw, targets)
        # Nobody is anywhere: heatmaps and fields are to be 0, and tags mean nothing.
        assert terms["heatmap"].item() > 0
        for name, tensor in raw.items():
            assert (gradient(tensor) != 0).any().item() == (name != "tags")
    whole = {**crowd, "boxes": torch.tensor([[-9.0, -9, 99, 99]]).expand(3, 4)}
    raw = case.leaves(3)
    assert run(case, raw, [whole] * 3).total.item() == 0
    assert all((gradient(tensor) == 0).all() for tensor in raw.values())
    empty = {name: tensor.detach()[:0].requires_grad_() for name, tensor in case.leaves(1).items()}
    assert run(case, empty, []).total.item() == 0
    assert case.make().decode(case.outputs(empty)) == []
    zeros = {name: torch.zeros_like(tensor) for name, tensor in raw.items()}
    found = case.make().decode(case.outputs(zeros))
    assert [poses["keypoints"].shape for poses in found] == [(0, KINDS, 3)] * 3
    assert [poses["scores"].shape for poses in found] == [(0,)] * 3


@every_objective
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_give_a_float32_loss(case: Case, dtype: torch.dtype) -> None:
    half = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in case.leaves(3).items()}
    exact = {name: tensor.detach().float().requires_grad_() for name, tensor in half.items()}
    terms, expected = run(case, half, TARGETS), run(case, exact, TARGETS)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-5)
    assert all(gradient(tensor).dtype == dtype for tensor in half.values())
    far = {name: (tensor.detach() * 1e4).requires_grad_() for name, tensor in case.leaves(3).items()}
    assert run(case, far, TARGETS).total.isfinite()
    assert all(gradient(tensor).isfinite().all() for tensor in far.values())


@every_objective
def test_the_order_of_people_does_not_matter(case: Case) -> None:
    raw = case.leaves(3)
    before = run(case, raw, TARGETS)
    backwards = [{key: value.flip(0) for key, value in target.items()} for target in TARGETS]
    after = run(case, raw, backwards)
    for name, term in before.items():
        assert after[name].item() == pytest.approx(term.item(), rel=1e-9)


@every_objective
def test_stages_are_added(case: Case) -> None:
    raw, again = case.leaves(3), {name: leaf(*tensor.shape, seed=9) for name, tensor in case.leaves(3).items()}
    (second,) = raw.keys() - {"heatmaps"}
    both = run(case, raw, TARGETS), run(case, again, TARGETS)
    outputs = type(case.outputs(raw))(
        **raw, stride=STRIDE, stages=(again["heatmaps"],), **{f"{second[:-1]}_stages": (again[second],)}
    )
    terms = case.make()(outputs, TARGETS)
    for name, term in terms.items():
        assert term.item() == pytest.approx(both[0][name].item() + both[1][name].item())


def ideal(objective: Any, people: Tensor, tag: Any = None) -> Any:
    """Outputs of a network that has learned everything, for one image."""
    maps = objective.heatmaps(people, SIZE, STRIDE).heatmaps
    if isinstance(objective, PartAffinity):
        return PartAffinityOutputs(maps[None], objective.fields(people, SIZE, STRIDE)[None], STRIDE)
    each = torch.stack([objective.heatmaps(person[None], SIZE, STRIDE).heatmaps for person in people])
    tags = torch.tensor(tag if tag is not None else [3.0 * n for n in range(len(people))])[each.argmax(0)]
    return AssociativeEmbeddingOutputs(maps[None], tags[None], STRIDE)


def same_people(found: dict[str, Tensor], people: Tensor, atol: float = 0.05) -> None:
    """Whether the people found are those of the target, in any order."""
    assert len(found["keypoints"]) == len(people)
    order = [(found["keypoints"][:, 1, :2] - person[1, :2]).norm(dim=1).argmin().item() for person in people]
    assert sorted(order) == list(range(len(people)))
    assert (found["keypoints"][order, :, :2] - people[..., :2]).abs().max() < atol
    assert (found["keypoints"][..., 2] > 0.8).all()


@every_objective
@pytest.mark.parametrize("options", [{}, {"matching": "hungarian"}, {"cost": "distance"}], ids=str)
def test_ideal_outputs_decode_to_their_people(case: Case, options: dict[str, Any]) -> None:
    objective = case.make()
    if set(options) & ({"cost"} if isinstance(objective, PartAffinity) else {"matching"}):
        options = {}
    for seed in range(5):
        people = three_people(seed)
        (found,) = objective.decode(ideal(objective, people), **options)
        same_people(found, people)
        assert found["scores"].min() > 0.8
        assert (found["scores"].diff() <= 0).all()


@every_objective
def test_two_people_whose_limbs_cross(case: Case) -> None:
    """Head, neck and hands of one lie around those of the other, and both have a hand on the other's other side."""
    objective = case.make()
    points = [[[18, 6], [18, 16], [6, 22], [34, 24]], [[30, 5], [30, 15], [12, 26], [40, 20]]]
    people = torch.cat((torch.tensor(points, dtype=torch.float32), torch.full((2, KINDS, 1), 2.0)), -1)
    (found,) = objective.decode(ideal(objective, people))
    same_people(found, people, atol=0.5)


@every_objective
def test_maps_that_are_trained_become_those_of_the_people(case: Case) -> None:
    people = three_people(1)
    raw = {name: torch.zeros_like(tensor).requires_grad_() for name, tensor in case.leaves(1).items()}
    objective = case.make()
    for tensor in raw.values():
        torch.nn.init.normal_(tensor, std=0.1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(raw.values(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        objective(case.outputs(raw), [{"keypoints": people}]).total.backward()
        optimizer.step()
    (found,) = objective.decode(case.outputs({name: tensor.detach() for name, tensor in raw.items()}))
    same_people(found, people, atol=0.5)


def test_people_with_equal_tags_are_not_merged() -> None:
    objective = CASES["associative_embedding"].make()
    people = three_people(0)
    (found,) = objective.decode(ideal(objective, people, tag=[0.0, 0.0, 0.0]))
    assert len(found["keypoints"]) == 3
    assert (found["keypoints"][..., 2] > 0).all()


@pytest.mark.parametrize("center", ["exact", "floor", "round"])
@every_objective
def test_decoding_undoes_how_targets_are_drawn(case: Case, center: Any) -> None:
    draw = KeypointHeatmaps(sigma=1.5, center=center, convention="index")
    objective = case.make(heatmaps=draw)
    people = three_people(3)
    (found,) = objective.decode(ideal(objective, people))
    same_people(found, people, atol=0.05 if center == "exact" else 2.05)


def test_a_background_is_trained_and_not_decoded() -> None:
    objective = PartAffinity(STAR, heatmaps=KeypointHeatmaps(sigma=1.0, background=True))
    people = three_people(4)
    outputs = ideal(objective, people)
    assert outputs.heatmaps.shape[1] == KINDS + 1
    assert objective(outputs, [{"keypoints": people}]).total.item() == 0
    same_people(objective.decode(outputs)[0], people)


def test_missing_keypoints_are_filled_in_where_tag_and_height_fit() -> None:
    objective = CASES["associative_embedding"].make()
    people = three_people(0)
    outputs = ideal(objective, people)
    faint = outputs.heatmaps.clone()
    row, column = (int((people[1, 2, axis].item() - 1.5) / 4 + 0.5) for axis in (1, 0))
    faint[0, 2, row - 3 : row + 4, column - 3 : column + 4] *= 0.05
    outputs = AssociativeEmbeddingOutputs(faint, outputs.tags, STRIDE)
    (found,) = objective.decode(outputs)
    missing = (found["keypoints"][..., 2] == 0).nonzero().tolist()
    assert [kind for _, kind in missing] == [2]
    assert found["keypoints"][missing[0][0], 2].tolist() == [0, 0, 0]
    (filled,) = objective.decode(outputs, fill=True, refinement="none")
    place = filled["keypoints"][missing[0][0], 2]
    assert (place[:2] - people[1, 2, :2]).abs().max() < 2.05
    assert 0 < place[2] < 0.06
    assert (filled["keypoints"][..., 2] > 0).all()


def test_tags_of_several_dimensions_of_another_size_or_in_one_map() -> None:
    people = three_people(0)
    objective = AssociativeEmbedding(heatmaps=DRAW, dimensions=2)
    outputs = ideal(objective, people)
    both = torch.cat((outputs.tags, -outputs.tags), 1)
    (found,) = objective.decode(AssociativeEmbeddingOutputs(outputs.heatmaps, both, STRIDE), distance="rms")
    same_people(found, people)
    single = AssociativeEmbedding(heatmaps=DRAW)
    columns = torch.arange(12.0).expand(1, 1, 9, 12)
    coarse = torch.nn.functional.avg_pool2d(columns, (9, 2)).expand(1, 1, 3, 6)
    wide = AssociativeEmbeddingOutputs(outputs.heatmaps, coarse.clone().requires_grad_(), STRIDE)
    terms = single(wide, [{"keypoints": people}])
    assert all(term.isfinite() for term in terms.values())
    terms.total.backward()
    assert (gradient(wide.tags) != 0).any()
    apart = people.clone()
    apart[..., 0] = people[:, 1:2, 0] + (people[..., 0] - people[:, 1:2, 0]) / 10
    (found,) = single.decode(ideal_with(single, apart, coarse), tag_threshold=2.0)
    same_people(found, apart)


def ideal_with(objective: AssociativeEmbedding, people: Tensor, tags: Tensor) -> AssociativeEmbeddingOutputs:
    return AssociativeEmbeddingOutputs(objective.heatmaps(people, SIZE, STRIDE).heatmaps[None], tags, STRIDE)


def test_logits_decode_through_the_sigmoid() -> None:
    people = three_people(0)
    for case in CASES.values():
        objective = case.make(heatmap_loss=functools.partial(losses.gaussian_focal_loss))
        outputs = ideal(objective, people)
        outputs = type(outputs)(outputs.heatmaps.logit(eps=1e-6), *(vars(outputs)[n] for n in list(vars(outputs))[1:]))
        same_people(objective.decode(outputs)[0], people)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`weights` must be one of 'normalized', 'reference', but got 'paper'"):
        AssociativeEmbedding(weights="paper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`tag_loss` must be one of associative_embedding_loss.* but got dice_loss"):
        AssociativeEmbedding(tag_loss=losses.dice_loss)
    with pytest.raises(
        ValueError, match=r"`field_loss` must be one of .*part_affinity_loss.* but got heatmap_mse_loss"
    ):
        PartAffinity(STAR, field_loss=losses.heatmap_mse_loss)
    with pytest.raises(ValueError, match="`heatmaps` must have no background"):
        AssociativeEmbedding(heatmaps=KeypointHeatmaps(background=True))
    with pytest.raises(ValueError, match="`fields` must be of the skeleton 'star', but is of 'star_2_hops'"):
        PartAffinity(STAR, fields=PartAffinityFields(STAR.denser(2)))
    heatmaps, fields = torch.zeros(2, KINDS, *SIZE), torch.zeros(2, 6, *SIZE)
    with pytest.raises(ValueError, match="`fields` must have 6 maps, but have 4"):
        PartAffinity(STAR)(PartAffinityOutputs(heatmaps, fields[:, :4], STRIDE), [NOBODY] * 2)
    with pytest.raises(ValueError, match=r"`fields` must have shape \(2, maps, 9, 12\), but got \(2, 6, 3, 4\)"):
        PartAffinityOutputs(heatmaps, torch.zeros(2, 6, 3, 4), STRIDE)
    with pytest.raises(ValueError, match="`tags` must have 1 or 4 maps, but have 6"):
        AssociativeEmbedding()(AssociativeEmbeddingOutputs(heatmaps, fields, STRIDE), [NOBODY] * 2)
    with pytest.raises(ValueError, match="`tags` must be of 2 images, but are of 1"):
        AssociativeEmbeddingOutputs(heatmaps, fields[:1], STRIDE)
    with pytest.raises(ValueError, match="`rule` must be one of 'realtime'"):
        PartAffinity(STAR).decode(PartAffinityOutputs(heatmaps, fields, STRIDE), rule="paper")
    with pytest.raises(ValueError, match="`targets` must have one entry for each of the 2 images, but has 1"):
        PartAffinity(STAR)(PartAffinityOutputs(heatmaps, fields, STRIDE), [NOBODY])
