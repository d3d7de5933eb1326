"""What a user can mend, and how it is said."""

import difflib
from collections.abc import Iterable


class ArgumentError(ValueError):
    """An argument of a command that cannot be used; the message says what would be valid."""


def unknown(what: str, name: str, valid: Iterable[str], where: str = "") -> str:
    """Return the message about an unknown name, with the valid ones and the one that may be meant.

    Example:
        >>> unknown("slot", "bx", ["box", "cls"], "of objective fcos")
        "unknown slot 'bx' of objective fcos; did you mean box? Valid: box, cls"
    """
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    place = f" {where}" if where else ""
    hint = f"; did you mean {close[0]}? Valid" if close else "; valid"
    return f"unknown {what} {name!r}{place}{hint}: {', '.join(valid)}"
