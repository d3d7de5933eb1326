"""What every objective of the lab must do, by being listed; and what the trainer promises all of them."""

import io
from dataclasses import replace

import pytest
import torch

from lossatlas.lab import registry
from lossatlas.lab.errors import ArgumentError
from lossatlas.lab.learner import DetectionLearner
from lossatlas.lab.registry import OBJECTIVES, find_objective
from lossatlas.lab.tasks import TASKS, choose_objective, task_of
from lossatlas.lab.training import TrialConfig, _Trainer
from lossatlas.lab.variants import resolve_loss, slot_losses
from tests.lab.training.squares import Squares, Subset, squares_data

DETECTORS = [name for name, spec in OBJECTIVES.items() if spec.task == "detection"]
CONFIG = TrialConfig("fcos", {}, seed=3, steps=4, batch_size=3, image_size=96, evaluations=2)


def trainer_of(name, train=None):
    return _Trainer(replace(CONFIG, objective=name), squares_data(train=train), resolve_loss)


@pytest.mark.parametrize("name", DETECTORS)
def test_every_weight_of_a_detector_learns(name):
    trainer = trainer_of(name)
    silent = {name for name, _ in trainer.network.named_parameters()}
    # What starts at zero passes no gradient on in the first step, and mining may leave out a level in some.
    for _ in range(4):
        assert trainer.update(trainer.batch())["total"] > 0
        silent -= {name for name, p in trainer.network.named_parameters() if p.grad is not None and p.grad.any()}
    assert silent == set()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_trains_and_predicts_without_objects(name):
    trainer = trainer_of(name, train=Subset(Squares("train", 7, seed=1), [0, 3, 6]))
    assert trainer.update(trainer.batch())["total"] >= 0
    for row in trainer.predict(trainer.data.test):
        assert row["category_id"] in (0, 1)
        assert 0 <= row["score"] <= 1


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_goes_on_as_if_nothing_had_happened(name):
    one = trainer_of(name)
    one.update(one.batch())
    state = one.state_dict()
    two = trainer_of(name)
    two.load_state_dict(torch.load(_saved(state), weights_only=True))
    torch.manual_seed(99)  # whatever happened elsewhere
    assert one.update(one.batch()) == two.update(two.batch())


def _saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_belongs_to_a_task_and_has_slots_that_losses_fit(name):
    spec = find_objective(name)
    assert spec.task in TASKS
    assert spec.description
    for slot in spec.slots:
        assert slot_losses(slot, name)


@pytest.mark.parametrize("name", TASKS)
def test_the_default_objective_of_a_task_is_its_own(name):
    assert task_of(TASKS[name].objective).name == name
    assert choose_objective(name, None) == TASKS[name].objective


def test_refuses_unknown_names():
    with pytest.raises(ArgumentError, match="unknown task 'detect'; did you mean detection"):
        choose_objective("detect", None)
    with pytest.raises(ArgumentError, match=r"unknown objective 'fco'.*did you mean fcos"):
        choose_objective(None, "fco")


@pytest.mark.parametrize(("name", "slot"), [("centernet", "cls"), ("faster_rcnn", "rpn_cls"), ("yolov5", "obj")])
def test_a_loss_that_counts_classes_sees_those_of_its_slot(name, slot):
    trainer = _Trainer(replace(CONFIG, objective=name, losses={slot: "equalized_focal"}), squares_data(), resolve_loss)
    assert trainer.update(trainer.batch())["total"] > 0


class Drawing(DetectionLearner):
    """A learner whose terms are random, as those of samplers are."""

    def forward(self, images, targets):
        terms = super().forward(images, targets)
        return {name: term * torch.rand(()) for name, term in terms.items()}


def test_what_a_learner_draws_depends_on_the_seed_and_the_step_alone(monkeypatch):
    spec = replace(find_objective("fcos"), name="drawing", learner=Drawing)
    monkeypatch.setattr(registry, "OBJECTIVES", {**OBJECTIVES, "drawing": spec})
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one = trainer_of("drawing")
    first, second = (one.update(one.batch()) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first["class"] != second["class"]
    torch.manual_seed(2)
    other = trainer_of("drawing")
    assert [other.update(other.batch()) for _ in range(2)] == [first, second]


def test_a_task_sees_the_sizes_of_the_objects_as_they_are_trained():
    data = squares_data()
    facts = TASKS["detection"].facts(data, 48)  # images of 96 x 64 are halved
    sizes = torch.cat([record.boxes[:, 2:] - record.boxes[:, :2] for record in data.train.records])
    assert torch.equal(facts.box_sizes, sizes / 2)
    assert (facts.num_classes, facts.image_size) == (2, 48)
