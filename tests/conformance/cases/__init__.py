"""One `Case` for each loss of the catalogue, a file for each family."""

from tests.conformance.cases import (
    box_variants,
    boxes,
    classification,
    focal,
    information,
    long_tail,
    overlap,
    quality,
    regression,
    robust,
    rotated,
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
        regression,
        boxes,
        box_variants,
        rotated,
        overlap,
    )
    for case in family.CASES
}
