"""Average precision by COCO's protocol."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lossatlas.boxes.formats import convert
from lossatlas.lab.learner import MAX_DETECTIONS
from lossatlas.lab.trial import Backend

_COUNTS = (1, 10, MAX_DETECTIONS)
_AREAS = ("", "s", "m", "l")
_ALL_AREAS = 0


def to_coco(detections: Mapping[str, Tensor], image_id: int) -> list[dict[str, Any]]:
    """Write the detections of one image in COCO's result format.

    Args:
        detections: ``boxes`` (D, 4) xyxy pixels, ``scores`` (D,) and ``labels`` (D,).
        image_id: id of the image in the ground truth.

    Returns:
        One dict for each detection: ``image_id``, ``category_id``, which is the label, ``bbox`` xywh and ``score``.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[1.0, 2.0, 4.0, 6.0]])
        >>> to_coco({"boxes": boxes, "scores": torch.tensor([0.5]), "labels": torch.tensor([3])}, image_id=7)
        [{'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 0.5}]
    """
    rows = zip(
        convert(detections["boxes"], "xyxy", "xywh").tolist(),
        detections["scores"].tolist(),
        detections["labels"].tolist(),
        strict=True,
    )
    return [{"image_id": image_id, "category_id": label, "bbox": bbox, "score": score} for bbox, score, label in rows]


def evaluate_detections(
    truth: Mapping[str, Any],
    detections: Iterable[Mapping[str, Any]],
    *,
    backend: Backend = "faster-coco-eval",
) -> dict[str, float]:
    """Score detections against ground truth by COCO's protocol.

    Args:
        truth: ground truth in COCO's format.
        detections: detections in COCO's result format.
        backend: the library that matches detections with objects.

    Returns:
        Numbers from 0 to 1: ``AP`` (mean over IoU thresholds .50:.05:.95), ``AP50``, ``AP75``, ``APs``, ``APm``,
        ``APl`` (objects below 32², up to 96² and above 96² square pixels), ``AR100``, and ``AP50/NAME`` for each
        class. What cannot be said because there are no such objects is left out; detections then do not count.

    Raises:
        ValueError: an unknown backend.

    Example:
        >>> truth = {
        ...     "images": [{"id": 1, "width": 8, "height": 8}],
        ...     "annotations": [
        ...         {"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
        ...     ],
        ...     "categories": [{"id": 0, "name": "cell"}],
        ... }
        >>> found = [{"image_id": 1, "category_id": 0, "bbox": [1.0, 1.0, 4.0, 3.0], "score": 0.5}]
        >>> scores = evaluate_detections(truth, found)
        >>> round(scores["AP"], 2), round(scores["AP50"], 2), "APl" in scores
        (0.6, 1.0, False)
    """
    _check_backend(backend)
    rows = list(detections)
    precision, recall = _accumulate(truth, rows, backend)
    metrics = {
        "AP": _mean(precision[..., _ALL_AREAS, -1]),
        "AP50": _mean(precision[0, ..., _ALL_AREAS, -1]),
        "AP75": _mean(precision[5, ..., _ALL_AREAS, -1]),
    }
    for place, name in enumerate(_AREAS[1:], start=1):
        metrics[f"AP{name}"] = _mean(precision[..., place, -1])
    metrics[f"AR{MAX_DETECTIONS}"] = _mean(recall[..., _ALL_AREAS, -1])
    for place, category in enumerate(sorted(truth["categories"], key=lambda category: int(category["id"]))):
        metrics[f"AP50/{category['name']}"] = _mean(precision[0, :, place, _ALL_AREAS, -1])
    return {name: value for name, value in metrics.items() if value is not None}


def _check_backend(backend: str) -> None:
    if backend not in ("faster-coco-eval", "pycocotools"):
        raise ValueError(f"`backend` must be 'faster-coco-eval' or 'pycocotools', but got {backend!r}")


def evaluate_poses(
    truth: Mapping[str, Any],
    poses: Iterable[Mapping[str, Any]],
    sigmas: Sequence[float],
    *,
    backend: Backend = "faster-coco-eval",
) -> dict[str, float]:
    """Score poses against ground truth by COCO's protocol, with the object keypoint similarity in place of IoU.

    Formula:
        OKS = Σ_k exp(-d_k² / (2 a (2 σ_k)²)) / K',  over the K' labelled keypoints of a person with the area a

    Args:
        truth: ground truth in COCO's format, with keypoints.
        poses: poses in COCO's result format, ``keypoints`` and ``score``; at most 20 of an image count. The class of
            a pose does not matter.
        sigmas: (K,) of the keypoints.
        backend: the library that matches poses with people.

    Returns:
        Numbers from 0 to 1: ``AP`` (mean over OKS thresholds .50:.05:.95), ``AP50``, ``AP75`` and ``AR20``; nothing
        where nobody has a labelled keypoint.

    Raises:
        ValueError: an unknown backend.

    Example:
        >>> person = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 0}
        >>> truth = {
        ...     "images": [{"id": 1, "width": 8, "height": 8}],
        ...     "annotations": [person | {"keypoints": [1, 1, 2, 0, 0, 0], "num_keypoints": 1}],
        ...     "categories": [{"id": 0, "name": "worm", "keypoints": ["head", "tail"], "skeleton": []}],
        ... }
        >>> pose = {"image_id": 1, "category_id": 0, "keypoints": [2.0, 1.0, 1.0, 7.0, 7.0, 1.0], "score": 0.5}
        >>> scores = evaluate_poses(truth, [pose], [0.1, 0.1])  # OKS = exp(-1 / (2 · 64 · 0.2²)) = 0.82
        >>> round(scores["AP"], 2), round(scores["AP50"], 2)
        (0.7, 1.0)
    """
    _check_backend(backend)
    if not any(row["num_keypoints"] for row in truth["annotations"]):
        return {}
    one_class = {
        **truth,
        "categories": truth["categories"][:1],
        "annotations": [{**row, "category_id": truth["categories"][0]["id"]} for row in truth["annotations"]],
    }
    rows = [{**row, "category_id": truth["categories"][0]["id"]} for row in poses]
    precision, recall = _accumulate(one_class, rows, backend, sigmas)
    metrics = {
        "AP": _mean(precision[..., _ALL_AREAS, -1]),
        "AP50": _mean(precision[0, ..., _ALL_AREAS, -1]),
        "AP75": _mean(precision[5, ..., _ALL_AREAS, -1]),
        "AR20": _mean(recall[..., _ALL_AREAS, -1]),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _accumulate(
    truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], backend: Backend, sigmas: Sequence[float] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision (threshold, recall, class, area, count) and recall (threshold, class, area, count), -1: none.

    With the `sigmas` of keypoints, poses are compared by their object keypoint similarity, otherwise boxes by IoU.
    """
    silence = contextlib.redirect_stdout(io.StringIO()) if backend == "pycocotools" else contextlib.nullcontext()
    with silence:  # pycocotools prints what it does
        evaluation = _evaluator(truth, rows, backend, "bbox" if sigmas is None else "keypoints")
        if sigmas is None:
            evaluation.params.maxDets = list(_COUNTS)
        else:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    settings = evaluation.params
    classes, areas, counts = len(truth["categories"]), len(settings.areaRng), len(settings.maxDets)
    shape = (len(settings.iouThrs), len(settings.recThrs), classes, areas, counts)
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64).reshape(shape)
    recall = np.asarray(evaluation.eval["recall"], dtype=np.float64).reshape(shape[:1] + shape[2:])
    return precision, recall


def _evaluator(truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], backend: Backend, kind: str) -> Any:
    # A copy, because both libraries write into the annotations.
    content = {"info": {}, "licenses": [], **truth, "annotations": [dict(row) for row in truth["annotations"]]}
    if backend == "faster-coco-eval":
        from faster_coco_eval import COCO, COCOeval_faster

        reference = COCO(content)
        return COCOeval_faster(reference, _results(reference, rows, COCO), kind)
    from pycocotools import coco, cocoeval

    reference = coco.COCO()
    reference.dataset = content
    reference.createIndex()
    return cocoeval.COCOeval(reference, _results(reference, rows, coco.COCO), kind)


def _results(reference: Any, rows: Sequence[Mapping[str, Any]], kind: Any) -> Any:
    """Return detections as the libraries hold them; their own reader does not take an empty list."""
    if rows:
        return reference.loadRes([dict(row) for row in rows])
    empty = kind()
    empty.dataset = {**reference.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
