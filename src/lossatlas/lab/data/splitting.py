"""Which images of a set without a split of its own are for testing."""

import hashlib
from pathlib import PurePosixPath

TEST_EVERY = 5
"""One image in about so many is for testing."""


def is_test_image(file_name: str) -> bool:
    """Say whether an image is for testing: about one in five, chosen by a hash of its name alone.

    The answer is the same on every machine, in whatever order and folder the images are listed and whatever else there
    is, so that an image that is added to a set moves no other one from training to testing. Folders and the ending of
    the name do not count.

    Args:
        file_name: name of the image, with or without folders.

    Example:
        >>> is_test_image("images/007.png") == is_test_image("007.jpg")
        True
        >>> sum(is_test_image(f"{number:03d}.png") for number in range(1000))
        206
    """
    stem = PurePosixPath(file_name.replace("\\", "/")).stem
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8]) % TEST_EVERY == 0
