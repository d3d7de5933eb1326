import copy

import numpy as np
import pytest
import torch

from lossatlas.lab.evaluation import evaluate_detections, to_coco

BACKENDS = ("faster-coco-eval", "pycocotools")


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(request.param.replace("-", "_"))
    return request.param


def truth_of(*objects, images=2, names=("cell", "dust")):
    """Ground truth of rows (image, class, x, y, width, height, iscrowd)."""
    return {
        "images": [{"id": number, "width": 200, "height": 200} for number in range(1, images + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": crowd,
            }
            for number, (image, label, x, y, width, height, crowd) in enumerate(objects, start=1)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(names)],
    }


def found(image, label, score, *bbox):
    return {"image_id": image, "category_id": label, "bbox": [float(value) for value in bbox], "score": score}


def test_perfect_detections(backend):
    truth = truth_of((1, 0, 10, 10, 20, 20, 0), (2, 1, 50, 50, 100, 100, 0))
    rows = [found(1, 0, 0.9, 10, 10, 20, 20), found(2, 1, 0.8, 50, 50, 100, 100)]
    assert evaluate_detections(truth, rows, backend=backend) == pytest.approx(
        dict.fromkeys(("AP", "AP50", "AP75", "APs", "APl", "AR100", "AP50/cell", "AP50/dust"), 1.0)
    )


def test_a_box_of_iou_four_fifths_counts_up_to_that_threshold(backend):
    """IoU 0.8 passes the seven thresholds .50 to .80 of ten."""
    metrics = evaluate_detections(truth_of((1, 0, 0, 0, 40, 50, 0)), [found(1, 0, 0.5, 0, 0, 40, 40)], backend=backend)
    assert metrics["AP"] == pytest.approx(0.7)
    assert metrics["AP50"] == pytest.approx(1.0)
    assert metrics["AP75"] == pytest.approx(1.0)
    assert metrics["APm"] == pytest.approx(0.7)
    assert metrics["AR100"] == pytest.approx(0.7)


def test_a_wrong_detection_before_the_right_one_halves_precision(backend):
    truth = truth_of((1, 0, 10, 10, 50, 50, 0), (1, 0, 100, 100, 50, 50, 0))
    rows = [found(1, 0, 0.9, 150, 10, 30, 30), found(1, 0, 0.8, 10, 10, 50, 50)]
    metrics = evaluate_detections(truth, rows, backend=backend)
    # Recall 1/2 at precision 1/2: 51 of the 101 recall points.
    assert metrics["AP50"] == pytest.approx(51 / 101 / 2)
    assert metrics["AR100"] == pytest.approx(0.5)


def test_classes_do_not_mix(backend):
    truth = truth_of((1, 0, 10, 10, 50, 50, 0), (1, 1, 100, 100, 50, 50, 0))
    rows = [found(1, 0, 0.9, 10, 10, 50, 50), found(1, 0, 0.8, 100, 100, 50, 50)]
    metrics = evaluate_detections(truth, rows, backend=backend)
    assert metrics["AP50/cell"] == pytest.approx(1.0)
    assert metrics["AP50/dust"] == 0.0
    assert metrics["AP50"] == pytest.approx(0.5)


def test_what_lies_in_a_crowd_counts_neither_way(backend):
    truth = truth_of((1, 0, 10, 10, 20, 20, 0), (1, 0, 100, 100, 80, 80, 1))
    right, inside = found(1, 0, 0.5, 10, 10, 20, 20), found(1, 0, 0.9, 110, 110, 30, 30)
    alone, both = (evaluate_detections(truth, rows, backend=backend) for rows in ([right], [inside, right]))
    assert both == pytest.approx(alone)
    assert both["AP"] == pytest.approx(1.0)
    outside = evaluate_detections(truth, [found(1, 0, 0.9, 60, 10, 30, 30), right], backend=backend)
    assert outside["AP"] == pytest.approx(0.5)


def test_nothing_is_found(backend):
    metrics = evaluate_detections(truth_of((1, 0, 10, 10, 20, 20, 0)), [], backend=backend)
    assert metrics == dict.fromkeys(("AP", "AP50", "AP75", "APs", "AR100", "AP50/cell"), 0.0)


@pytest.mark.parametrize("rows", [[], [found(1, 0, 0.9, 10, 10, 20, 20)]])
def test_without_objects_there_is_nothing_to_say(backend, rows):
    assert evaluate_detections(truth_of(), rows, backend=backend) == {}


def random_case(seed):
    rng = np.random.default_rng(seed)
    objects, rows = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(0, 8)):
            x, y = rng.uniform(0, 120, 2)
            width, height = rng.choice([15, 50, 110]) * rng.uniform(0.6, 1.4, 2)
            label = int(rng.integers(2))
            objects.append((image, label, x, y, width, height, int(rng.random() < 0.1)))
            for _ in range(rng.integers(0, 3)):
                jitter = 1 + rng.normal(0, 0.15, 4)
                box = np.array([x, y, width, height]) * jitter
                rows.append(found(image, label if rng.random() < 0.8 else 1 - label, float(rng.random()), *box))
    return truth_of(*objects, images=12), rows


@pytest.mark.parametrize("seed", range(4))
def test_both_backends_agree(seed):
    pytest.importorskip("pycocotools")
    truth, rows = random_case(seed)
    fast, reference = (evaluate_detections(truth, rows, backend=backend) for backend in BACKENDS)
    assert fast == pytest.approx(reference, abs=1e-9)
    assert 0 < fast["AP"] < 1


def test_prints_nothing_and_leaves_its_arguments_alone(backend, capfd):
    truth, rows = random_case(0)
    before = copy.deepcopy((truth, rows))
    evaluate_detections(truth, rows, backend=backend)
    assert capfd.readouterr() == ("", "")
    assert (truth, rows) == before


def test_refuses_an_unknown_backend():
    with pytest.raises(ValueError, match=r"`backend` must be .* but got 'coco'"):
        evaluate_detections(truth_of(), [], backend="coco")


def test_an_image_without_detections_has_no_rows():
    empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    assert to_coco(empty, 3) == []
