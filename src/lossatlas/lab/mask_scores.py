"""Scores of class maps: IoU and Dice of each class from a confusion matrix of all pixels, and the F1 of boundaries."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lossatlas.lab.class_maps import ClassMap
from lossatlas.lab.data.segmentation import VOID

BOUNDARY_TOLERANCE = 0.0075
"""How far apart two boundaries may lie and still be the same, as a part of the image's diagonal; at least 1 pixel."""


def evaluate_masks(pairs: Iterable[tuple[ClassMap, ClassMap]], class_names: Sequence[str]) -> dict[str, float]:
    """Score class maps against the true ones.

    Formula:
        n_ij: pixels of true class i and predicted class j, in all images together
        IoU_c   = n_cc / (Σ_j n_cj + Σ_i n_ic - n_cc)
        Dice_c  = 2 n_cc / (Σ_j n_cj + Σ_i n_ic)
        BF1     = mean over images and classes of 2 P R / (P + R)
        P: part of the predicted boundary of the class that is near the true one, R: part of the true one that is near
        the predicted one

    Args:
        pairs: for each image the true and the predicted class of every pixel, (H, W); `VOID` pixels of the truth do
            not count, whatever is predicted there.
        class_names: the name of every class.

    Returns:
        Numbers from 0 to 1: ``mIoU`` and ``mDice``, means over the classes that occur in the truth; ``BF1``, for each
        class the mean over the images whose truth has a boundary of it, and then the mean over classes; and
        ``IoU/NAME`` and ``Dice/NAME`` of each class that occurs in the truth. A class that does not is no part of any
        mean, so that trials are compared on the same classes; pixels in which it is predicted are wrong for the class
        that is there. What cannot be said is left out.

    Example:
        >>> truth = np.array([[0, 0, 1, 1]], dtype=np.int16)
        >>> found = np.array([[0, 1, 1, 1]], dtype=np.int16)
        >>> scores = evaluate_masks([(truth, found)], ["background", "cell"])
        >>> round(scores["IoU/cell"], 3), round(scores["mIoU"], 3), round(scores["Dice/cell"], 3)
        (0.667, 0.583, 0.8)

    Reference:
        Boundary F1: Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?",
        BMVC 2013, section 2.3.
    """
    count = len(class_names)
    matrix = np.zeros((count, count), dtype=np.int64)
    boundary: list[list[float]] = [[] for _ in class_names]
    for truth, predicted in pairs:
        matrix += confusion(truth, predicted, count)
        for label in np.unique(truth[truth != VOID]).tolist():
            score = boundary_f1(truth, predicted, label)
            if score is not None:
                boundary[label].append(score)
    true, found, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    occurs = [label for label in range(count) if true[label]]
    iou, dice = (right / np.maximum(true + found - right, 1))[occurs], (2 * right / np.maximum(true + found, 1))[occurs]
    scores = {"mIoU": iou, "mDice": dice, "BF1": [np.mean(values) for values in boundary if values]}
    metrics = {name: float(np.mean(values)) for name, values in scores.items() if len(values)}
    for name, values in (("IoU", iou), ("Dice", dice)):
        metrics |= {f"{name}/{class_names[label]}": float(value) for label, value in zip(occurs, values, strict=True)}
    return metrics


def confusion(truth: ClassMap, predicted: ClassMap, classes: int) -> NDArray[np.int64]:
    """Count the pixels of each true class (row) that are predicted as each class (column).

    Example:
        >>> truth, predicted = np.array([[0, 1, VOID]], dtype=np.int16), np.array([[1, 1, 1]], dtype=np.int16)
        >>> confusion(truth, predicted, 2).tolist()
        [[0, 1], [0, 1]]
    """
    known = truth != VOID
    cells = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def boundary_f1(truth: ClassMap, predicted: ClassMap, label: int) -> float | None:
    """Return how well the boundary of a class is found, from 0 to 1; None where the true class has none.

    A pixel of the class belongs to its boundary if one of its four neighbours is known to be of another class; the edge
    of the image is no boundary.

    Example:
        >>> truth = np.zeros((8, 8), dtype=np.int16)
        >>> truth[:, 4:] = 1
        >>> boundary_f1(truth, truth, 1), boundary_f1(truth, np.roll(truth, 2, axis=1) * 0, 1)
        (1.0, 0.0)
    """
    known = truth != VOID
    true, found = (_boundary((classes == label) & known, known) for classes in (truth, predicted))
    if not len(true):
        return None
    if not len(found):
        return 0.0
    reach = max(1.0, BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape)))
    precision, recall = _near(found, true, reach), _near(true, found, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(inside: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the (N, 2) places of the boundary of a region."""
    outside = np.pad(known & ~inside, 1)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    return np.argwhere(inside & beside)


def _near(points: NDArray[np.int64], others: NDArray[np.int64], reach: float) -> float:
    """Return the part of the points that lie within reach of one of the others."""
    distance, _ = KDTree(others).query(points, distance_upper_bound=np.nextafter(reach, np.inf))
    return float(np.isfinite(distance).mean())
