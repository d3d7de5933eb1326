"""What can be wrong with a data set, and how it is told.

A reader collects every `Problem` it finds instead of stopping at the first, and raises them together as one `DataError`
before anything is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of bad data; the value is the heading under which a report lists them."""

    FILE = "annotation file missing or unreadable"
    KEY = "missing key"
    VALUE = "malformed value"
    CATEGORIES = "categories differ between train and test"
    DUPLICATE_IMAGE = "duplicate image id"
    DUPLICATE_ANNOTATION = "duplicate annotation id"
    DUPLICATE_CATEGORY = "duplicate category id"
    MISSING_IMAGE = "missing image file"
    UNDECODABLE_IMAGE = "image that cannot be decoded"
    IMAGE_SIZE = "image size differs from the declared one"
    UNKNOWN_IMAGE = "annotation of an image that is not declared"
    UNKNOWN_CATEGORY = "class id that is not declared"
    NON_FINITE_BOX = "non-finite box"
    NEGATIVE_BOX = "box of negative size"
    ZERO_AREA_BOX = "zero-area box (left out)"
    OUTSIDE_BOX = "box outside its image"
    MISSING_MASK = "image without a mask"
    MASK = "malformed mask"
    MASK_SIZE = "mask of another size than its image"
    STRAY = "file that belongs to no image (left out)"
    ABSENT_CLASS = "class that no image shows"
    OUTSIDE_KEYPOINT = "keypoint outside its image (taken as not labelled)"
    SKELETON = "keypoints that cannot be used"
    NO_OBJECTS = "no objects to learn from or to score against"
    SHARED_IMAGE = "image in both train and test"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Args:
        kind: what is wrong, in general.
        file: the file that is at fault (the annotation file, unless it is the picture itself).
        detail: what was found, and what was expected.
        image_id: id of the image, where the problem has one.
        annotation_id: id of the annotation, where the problem has one.

    Example:
        >>> print(Problem(Kind.ZERO_AREA_BOX, "train.json", "[4, 5, 0, 9]", image_id=3, annotation_id=17))
        train.json, image 3, annotation 17: [4, 5, 0, 9]
    """

    kind: Kind
    file: str
    detail: str
    image_id: int | None = None
    annotation_id: int | None = None

    def __str__(self) -> str:
        where = [self.file]
        if self.image_id is not None:
            where.append(f"image {self.image_id}")
        if self.annotation_id is not None:
            where.append(f"annotation {self.annotation_id}")
        return f"{', '.join(where)}: {self.detail}"


def describe(problems: Sequence[Problem], limit: int = 20) -> str:
    """List problems grouped by kind, each kind with its count.

    Args:
        problems: the problems, in the order in which they were found.
        limit: about how many are written out; every kind shows at least one, the rest are counted.

    Returns:
        Several lines of text: a heading with a count for each kind, its problems indented below it.

    Example:
        >>> print(describe([Problem(Kind.MISSING_IMAGE, "train.json", "no file 'a.png'", image_id=1)]))
        missing image file: 1
          train.json, image 1: no file 'a.png'
    """
    groups: dict[Kind, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    lines = []
    room, waiting = limit, len(groups)
    for kind, group in sorted(groups.items(), key=lambda item: len(item[1])):
        shown = group[: max(1, room // waiting)]  # small groups first: what they leave over goes to the large ones
        room, waiting = room - len(shown), waiting - 1
        lines.append(f"{kind}: {len(group)}")
        lines.extend(f"  {problem}" for problem in shown)
        if len(shown) < len(group):
            lines.append(f"  ... and {len(group) - len(shown)} more")
    return "\n".join(lines)


class DataError(ValueError):
    """A data set that cannot be trained on, with everything that is wrong with it.

    Args:
        problems: all problems found, at least one.

    Example:
        >>> raise DataError([Problem(Kind.MISSING_IMAGE, "train.json", "no file 'a.png'", image_id=1)])
        Traceback (most recent call last):
        ...
        lossatlas.lab.data.problems.DataError: 1 problem in the data:
        missing image file: 1
          train.json, image 1: no file 'a.png'
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        return f"{count} problem{'s' if count > 1 else ''} in the data:\n{describe(self.problems)}"
