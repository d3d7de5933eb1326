"""Segmentation in the lab: what a batch is made of, that every loss trains, that trials are scored and resumed."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from lossatlas.lab.augmentation import Augmentation, Motion, Window, move_mask, resize
from lossatlas.lab.data import Sample
from lossatlas.lab.data.segmentation import VOID
from lossatlas.lab.facts import Facts
from lossatlas.lab.learner import SegmentationLearner
from lossatlas.lab.loading import scoring_batches
from lossatlas.lab.optimization import build_optimizer
from lossatlas.lab.registry import build_network, find_objective
from lossatlas.lab.tasks import TASKS, default_recipe
from lossatlas.lab.training import build_objective, run_trial
from lossatlas.lab.trial import TrialConfig
from lossatlas.lab.variants import slot_losses
from lossatlas.losses import cross_entropy
from lossatlas.losses.catalog import CATALOG
from lossatlas.objectives import SegmentationOutputs
from tests.lab.training.blobs import blobs_data

TASK = TASKS["segmentation"]
LOSSES = slot_losses("loss", "segmentation")


def config(loss="dice_cross_entropy", objective="segmentation", **more):
    settings = default_recipe(objective) | {"batch_size": 3, "image_size": 48} | more
    return TrialConfig(objective, {"loss": loss} if loss else {}, seed=0, **({"steps": 1} | settings))


def test_the_slot_takes_every_loss_of_the_family_and_those_of_logits():
    family = {name for name, entry in CATALOG.items() if entry.family == "segmentation"}
    assert len(family) > 25
    assert {entry.name for entry in LOSSES.values()} >= family
    assert {"cross_entropy", "softmax_focal", "sigmoid_focal", "binary_cross_entropy_with_logits"} <= LOSSES.keys()


@pytest.fixture(scope="module")
def batches():
    """Features and masks of a batch of two and of three classes, a void stripe and an empty mask among them."""
    found = {}
    for classes in (2, 3):
        split = blobs_data(classes).train
        images = torch.stack([split.image(index) for index in range(3)]).float() / 64 - 2
        found[classes] = images, [{"mask": split.mask(index)} for index in range(3)]
    return found


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_a_step_without_a_special_case(loss, classes, batches):
    images, targets = batches[classes]
    torch.manual_seed(0)
    network = nn.Conv2d(3, classes, 3, padding=1)
    before = [parameter.clone() for parameter in network.parameters()]
    objective = build_objective(config(loss), Facts(classes))
    learner = SegmentationLearner(_WithOutputs(network), objective)
    terms = learner(images, targets)
    assert list(terms) == ["segmentation"]
    terms["segmentation"].backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert bool(parameter.isfinite().all())
        assert not torch.equal(parameter, old)


class _WithOutputs(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return SegmentationOutputs(self.network(images))


@pytest.mark.parametrize("objective", ["segmentation", "deep_segmentation"])
def test_the_network_puts_out_logits_of_every_pixel_and_all_of_it_is_trained(objective):
    network = build_network(objective, Facts(num_classes=5), seed=0)
    outputs = network(torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert outputs.logits.shape == (2, 5, 32, 48)
    strides = [] if objective == "segmentation" else [2, 4]
    assert [tuple(maps.shape[1:]) for maps in outputs.auxiliary] == [(5, 32 // s, 48 // s) for s in strides]
    share = outputs.logits.softmax(1).mean((0, 2, 3))
    assert ((share > 0.1) & (share < 0.4)).all()  # about 0.2 of each class at first
    sum(maps.square().sum() for maps in (outputs.logits, *outputs.auxiliary)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.zeros(1, 3, 32, 40))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("window", [Window(12, 20, 0, 0), Window(9, 15, 2, 3), Window(18, 30, -4, -7)])
def test_masks_move_as_their_images_do(window, mirrored):
    mask = torch.zeros(6, 10, dtype=torch.int16)
    mask[2:5, 3:8] = 1
    mask[0] = VOID
    moved = move_mask(mask, Motion((6, 10), window, (12, 20), mirrored), fill=VOID)
    assert moved.dtype == mask.dtype
    expected = torch.full((12, 20), VOID, dtype=torch.int16)
    for y in range(12):
        for x in range(20):
            row, column = (y - window.top + 0.5) * 6 / window.height, (x - window.left + 0.5) * 10 / window.width
            if 0 <= row < 6 and 0 <= column < 10:
                expected[y, x] = mask[int(row), int(column)]
    assert torch.equal(moved, expected.flip(-1) if mirrored else expected)


def test_augmented_masks_stay_on_their_objects():
    image, mask = torch.zeros(3, 40, 64, dtype=torch.uint8), torch.zeros(40, 64, dtype=torch.int16)
    image[:, 12:30, 20:50], mask[12:30, 20:50] = 250, 1
    change = Augmentation(48, scale_jitter=0.4, color_jitter=0.0, horizontal_flip=True, move=TASK.move)
    for seed in range(20):
        example = change(Sample(image, {"mask": mask}, 1, "a.png"), np.random.default_rng(seed))
        bright, found = example.image[0] > 0, example.target["mask"]
        assert found.shape == example.image.shape[1:]
        assert (bright != (found == 1)).float().mean() < 0.05  # the image is interpolated, the mask is not
        assert (example.image[0][found == VOID] == 0).all()
        assert (found[example.image[0] == -2] == 0).all()


def test_turned_masks_stay_on_their_objects():
    image, mask = torch.zeros(3, 40, 64, dtype=torch.uint8), torch.zeros(40, 64, dtype=torch.int16)
    image[:, 12:30, 20:50], mask[12:30, 20:50] = 250, 1
    change = Augmentation(64, 0.3, color_jitter=0.0, horizontal_flip=True, move=TASK.move, rotation=90.0)
    turned = 0
    for seed in range(20):
        example = change(Sample(image, {"mask": mask}, 1, "a.png"), np.random.default_rng(seed))
        found = example.target["mask"]
        assert ((example.image[0] > 0) != (found == 1)).float().mean() < 0.05
        assert (found[example.image[0] < -1.99] == 0).all()
        corners = example.image[0][found == VOID]
        if len(corners) > 50:
            turned += 1
            assert (corners == 0).float().mean() > 0.8  # the edge of the picture is interpolated
    assert turned > 10


def test_what_fills_a_batch_is_void():
    class Objective(nn.Module):
        def forward(self, outputs, targets):
            self.targets = targets
            return {"segmentation": outputs.logits.sum()}

    learner = SegmentationLearner(_WithOutputs(nn.Conv2d(3, 2, 1)), Objective())
    masks = [torch.ones(4, 6, dtype=torch.int16), torch.zeros(8, 3, dtype=torch.int16)]
    learner(torch.zeros(2, 3, 8, 8), [{"mask": mask} for mask in masks])
    first, second = (target["mask"] for target in learner.objective.targets)
    assert first.dtype == torch.int64
    assert first.shape == second.shape == (8, 8)
    assert first[:4, :6].eq(1).all()
    assert first.eq(VOID).sum() == 64 - 24
    assert second.eq(VOID).sum() == 64 - 24


def test_predictions_are_scored_at_the_size_of_the_original():
    split = blobs_data().test
    truth = [split.mask(index) for index in range(len(split))]

    class Oracle(nn.Module):
        """Knows the masks, at half the size."""

        def forward(self, images):
            size = images.shape[2:]
            maps = [
                resize(nn.functional.one_hot(mask.long().clamp(min=0), 3).movedim(-1, 0) * 9.0, 16, 24)
                for mask in truth
            ]
            logits = torch.zeros(len(maps), 3, *size)
            logits[:, :, :16, :24] = torch.stack(maps)
            return SegmentationOutputs(logits)

    learner = SegmentationLearner(Oracle(), nn.Identity())
    rows = []
    for indices, batch in scoring_batches(split, image_size=24, batch_size=9, multiple=32):
        for index, size, found in zip(
            indices, batch.sizes, learner.predict(learner.network, batch.images, batch.sizes), strict=True
        ):
            assert found["logits"].shape == (3, 16, 24)
            rows += TASK.serialize(found, split.records[index], size)
    json.dumps(rows)
    scores = TASK.score(rows, split, config())
    assert scores["mIoU"] > 0.85
    assert scores["BF1"] == pytest.approx(1.0, abs=0.05)


def test_a_stopped_trial_ends_as_if_it_had_not_been_stopped(tmp_path):
    data, wanted = blobs_data(), config("lovasz_softmax", steps=6, evaluations=2)
    whole = run_trial(wanted, data, tmp_path / "whole")
    assert {"mIoU", "mDice", "IoU/bright", "IoU/dark"} <= whole.metrics.keys()

    class StopError(Exception):
        pass

    def stop(event):
        if event.step == 4:
            raise StopError

    with pytest.raises(StopError):
        run_trial(wanted, data, tmp_path / "stopped", on_event=stop)
    resumed = run_trial(wanted, data, tmp_path / "stopped")
    assert resumed.metrics == whole.metrics
    rows = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("whole", "stopped")]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_trial_learns(tmp_path):
    result = run_trial(config("dice_cross_entropy", steps=150, batch_size=4), blobs_data(), tmp_path)
    assert result.metrics["mIoU"] > 0.8


def test_both_objectives_are_found_by_their_names():
    assert find_objective("deep_segmentation").task == find_objective("segmentation").task == "segmentation"


@pytest.mark.parametrize("seed", range(3))
def test_features_can_speak_for_a_class_that_is_rare_at_first(seed):
    network = build_network("segmentation", Facts(2), seed=seed)
    optimizer = build_optimizer(network, config())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(network(images).logits, torch.zeros(2, 32, 32, dtype=torch.int64)).backward()
        optimizer.step()
    # Features are not negative: with weights of one sign they would all speak for the same class, at any place.
    assert ((network.head.weight > 0).sum((1, 2, 3)) > 0).all()
