"""Who answers for whom: against loops over the assigner's own answers, and on scenes made for one question each."""

import pytest
import torch

from lossatlas.lab.data import Data, DetectionSplit, ImageRecord
from lossatlas.lab.data.dataset import ObjectRow
from lossatlas.lab.inspection.fights import SAMPLED_OBJECTS
from lossatlas.lab.inspection.priors import Priors
from lossatlas.lab.inspection.survey import survey
from lossatlas.lab.inspection.surveyor import Surveyor
from lossatlas.lab.registry import OBJECTIVES
from tests.lab.training.squares import squares_data

DETECTORS = [name for name, spec in OBJECTIVES.items() if spec.task == "detection"]
BY_GEOMETRY = {"fcos", "retinanet", "ssd", "atss", "yolov3", "yolov5", "centernet", "faster_rcnn"}
BY_PREDICTIONS = {"yolox", "yolov8", "yolov2", "yolov4", "detr"}


class Scene(DetectionSplit):
    """Grey images of 128 x 128 with the given boxes; an image is a list of (box, label, iscrowd)."""

    def __init__(self, *images):
        records = [
            ImageRecord.from_rows(
                number, f"{number}.png", 128, 128, [ObjectRow(box, label, crowd, 1.0) for box, label, crowd in objects]
            )
            for number, objects in enumerate(images)
        ]
        super().__init__("train", ("cat", "dog"), records)

    def image(self, index):
        return torch.full((3, 128, 128), 128, dtype=torch.uint8)

    def image_digest(self, index):
        return b""


def survey_of(objective, *images):
    split = Scene(*images)
    return survey(objective, Data("scene", split, split, split.class_names, ""))


@pytest.mark.parametrize("objective", DETECTORS)
def test_counts_are_those_of_the_assigner_and_it_is_told_what_matters(objective):
    data = squares_data()
    found = survey(objective, data)
    surveyor = Surveyor(objective, data)
    rows = zip(found.found.image.tolist(), found.found.annotation.tolist(), found.found.total.tolist(), strict=True)
    counted = {(image, row): count for image, row, count in rows}
    expected = {}
    for index, record in enumerate(data.train.records):
        outputs = surveyor.learner.survey(torch.zeros(1, 3, 64, 96))
        (assignment,) = surveyor.learner.assigning.assign(outputs, [data.train.target(index)])
        for row in range(len(record.labels)):
            answering = zip(assignment.state.tolist(), assignment.matched.tolist(), strict=True)
            expected[index, row] = sum(state == 1 and matched == row for state, matched in answering)
        states = assignment.state.tolist()
        assert found.states[index].tolist() == [states.count(1), states.count(0), states.count(-1)]
    assert counted == expected
    assert sum(found.places) == pytest.approx(found.states.sum(1).double().mean().item())
    assert len(found.found) == sum(len(record.labels) for record in data.train.records)
    assert found.depends or objective not in BY_PREDICTIONS
    assert not (found.depends and objective in BY_GEOMETRY)


def test_an_object_between_the_points_is_met_by_none():
    found = survey_of("fcos", [((5.0, 5.0, 7.0, 7.0), 0, False), ((20.0, 20.0, 60.0, 60.0), 1, False)])
    assert found.without.tolist() == [0]
    assert found.found.overlap[0] == 0  # no point is inside
    assert not found.found.robbed[0]
    assert found.found.total[1] > 0
    assert found.found.overlap[1].isnan()


def test_an_object_that_lies_under_another_loses_what_it_would_have():
    """Of two objects in one place the smaller one has all the points; alone the larger one would have as many."""
    small, large = (20.0, 20.0, 60.0, 60.0), (19.0, 19.0, 61.0, 61.0)
    found = survey_of("fcos", [(small, 0, False), (large, 1, False)], [(large, 1, False)])
    both, alone = found.found.image == 0, found.found.image == 1
    wanted = int(found.found.total[alone])
    assert wanted > 0
    assert found.found.total[both].tolist() == [wanted, 0]
    assert found.found.robbed.tolist() == [False, True, False]
    fights = found.fights
    assert (fights.images, fights.objects) == (2, 3)
    assert (fights.claimed, fights.contested) == (2 * wanted, wanted)
    assert (fights.shortened, fights.robbed) == (1, 1)
    assert fights.pairs == {(0, 1): wanted}


def test_anchors_tell_the_best_iou():
    found = survey_of("retinanet", [((0.0, 0.0, 16.0, 16.0), 0, False)] * 2)
    (lost,) = found.without.tolist()  # the same object twice: one of them has all
    assert found.found.robbed[lost]
    assert found.found.overlap[lost] == pytest.approx(16 * 16 / (2 * 16 * 16 - 12 * 12) * 12 * 12 / (16 * 16), abs=0.2)


def test_crowd_regions_are_no_objects():
    found = survey_of("retinanet", [((0.0, 0.0, 128.0, 128.0), 0, True), ((32.0, 32.0, 64.0, 64.0), 1, False)])
    assert (len(found.found), found.crowds) == (1, 1)
    assert found.states[0, 2] > 0
    assert found.found.label.tolist() == [1]


def test_images_without_objects_are_ordinary():
    found = survey_of("fcos", [], [])
    assert len(found.found) == 0
    assert found.states[:, 0].tolist() == [0, 0]
    assert not found.depends
    assert found.fights.claimed == 0


def test_large_images_are_seen_smaller():
    data = squares_data()
    whole, half = survey("fcos", data), survey("fcos", data, image_size=48)
    assert torch.allclose(half.found.size, whole.found.size / 2)
    assert sum(half.places) < sum(whole.places)


def test_fights_are_looked_at_on_a_sample(monkeypatch):
    monkeypatch.setattr("lossatlas.lab.inspection.fights.SAMPLED_OBJECTS", 3)
    objects = [((20.0, 20.0, 60.0, 60.0), 0, False), ((70.0, 70.0, 110.0, 110.0), 1, False)]
    found = survey_of("fcos", *[objects] * 10)
    assert SAMPLED_OBJECTS > 3
    assert (found.fights.images, found.fights.objects) == (2, 4)
    assert len(found.found) == 20


def test_levels_are_told_from_strides_or_from_the_number_of_predictions():
    class Outputs:
        strides = torch.tensor([8.0, 8.0, 16.0])
        points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [8.0, 8.0]])

    priors = Priors.of(Outputs, (8, 16), 3)
    assert (priors.geometry, priors.levels, priors.level.tolist()) == ("points", ("stride 8", "stride 16"), [0, 0, 1])
    assert priors.best_overlap(torch.tensor([[0.0, 0.0, 16.0, 8.0]])).tolist() == [2]  # (8, 8) is on the edge

    cells = Priors.of(object(), (32, 64), 2 * (4 * 8 + 2 * 4 + 1 * 2))
    assert cells.levels == ("stride 8", "stride 16", "stride 32")
    assert torch.bincount(cells.level).tolist() == [64, 16, 4]
    assert Priors.of(object(), (32, 64), 7).levels == ("all",)
    assert cells.best_overlap(torch.zeros(2, 4)).isnan().all()
