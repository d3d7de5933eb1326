"""One `Case` for each loss of the catalogue, a file for each family."""

from tests.conformance.cases import (
    box_variants,
    boxes,
    classification,
    focal,
    information,
    long_tail,
    lovasz,
    overlap,
    pose,
    quality,
    ranking,
    regression,
    robust,
    rotated,
    segmentation_compounds,
    segmentation_pixels,
)

CASES = {
    case.name: case
    for family in (
        information,
        classification,
        focal,
        quality,
        long_tail,
        robust,
        ranking,
        regression,
        boxes,
        box_variants,
        rotated,
        overlap,
        pose,
        segmentation_pixels,
        segmentation_compounds,
        lovasz,
    )
    for case in family.CASES
}
