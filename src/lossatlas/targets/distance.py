"""Distance maps and border weights for segmentation, which a data loader's workers can make once for each image.

They are computed beside the losses that take them, in `lossatlas.losses.distance_maps`, and are the same here.
"""

from lossatlas.losses.distance_maps import (
    border_weight_map,
    distance_across_map,
    inverse_distance_map,
    signed_distance_map,
)

__all__ = ["border_weight_map", "distance_across_map", "inverse_distance_map", "signed_distance_map"]
