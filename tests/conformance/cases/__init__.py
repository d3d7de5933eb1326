"""One `Case` for each loss of the catalogue, a file for each family."""

from tests.conformance.cases import boxes, classification, regression

CASES = {case.name: case for family in (classification, regression, boxes) for case in family.CASES}
