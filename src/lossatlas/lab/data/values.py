"""Values of a JSON file, which may be anything."""

import math
from typing import Any


def brief(value: object) -> str:
    """Return a value as it may stand in a message, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def is_number(value: object) -> bool:
    """Say whether a value is a number; true and false are none.

    Example:
        >>> is_number(1.5), is_number(True), is_number("1")
        (True, False, False)
    """
    return type(value) is float or type(value) is int


def whole(value: Any) -> int | None:
    """Return a whole number, also one that was written as 320.0; None for anything else.

    Example:
        >>> whole(320.0), whole(0.5), whole("3")
        (320, None, None)
    """
    if type(value) is int:
        return value
    return int(value) if is_number(value) and math.isfinite(value) and value == int(value) else None
