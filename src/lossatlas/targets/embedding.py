"""Where the tags of associative embedding are read: the cell of every keypoint of every person."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossatlas.targets.grid import Convention
from lossatlas.targets.heatmaps import Center, center_cells


def embedding_indices(
    keypoints: Float[Tensor, "*batch n k 3"],
    size: tuple[int, int],
    stride: float,
    *,
    per_keypoint: bool = True,
    center: Center = "exact",
    convention: Convention = "center",
) -> Int[Tensor, "*batch n k"]:
    """Return the places of keypoints in tag maps, as `associative_embedding_loss` takes them.

    Args:
        keypoints: ``(*batch, N, K, 3)`` x, y in pixels and a visibility, 0 for those that are not labelled, whose
            coordinates may be anything.
        size: height H and width W of the maps in cells.
        stride: pixels between two cells.
        per_keypoint: whether there is a tag map for each keypoint, and not one for all.
        center: ``"floor"`` takes the cell below a keypoint, as the authors' code; ``"exact"`` and ``"round"`` the
            nearest, where its heatmap peaks.
        convention: where the cells lie, see `lossatlas.targets.grid.Convention`.

    Returns:
        ``(*batch, N, K)`` int64: k H W + y W + x, or y W + x in a single map; -1 for keypoints that are not labelled
        or not on the map.

    Raises:
        ValueError: another shape, or a bad name.
        TypeError: keypoints that are not floating point.

    Example:
        >>> person = torch.tensor([[[5.5, 1.5, 2.0], [1.5, 5.5, 1.0], [0.0, 0.0, 0.0]]])
        >>> embedding_indices(person, (2, 3), 4)
        tensor([[ 1,  9, -1]])

    Note:
        The authors' code packs the labelled keypoints of a person first, at most 30 people in an image, with a flag
        of 1; here a place is that of its keypoint, and padding is -1.

    Reference:
        Newell et al., "Associative Embedding", 2017, arXiv 1611.05424, section 3.
    """
    _, cell = center_cells(keypoints, size, stride, center, convention)
    height, width = size
    inside = ((cell >= 0) & (cell < cell.new_tensor([width, height]))).all(-1)
    index = cell[..., 1] * width + cell[..., 0]
    if per_keypoint:
        index = index + torch.arange(keypoints.shape[-2], device=keypoints.device) * (height * width)
    return torch.where(inside & (keypoints[..., 2] > 0), index, -1)
