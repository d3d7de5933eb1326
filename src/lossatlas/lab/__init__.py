"""The lab: data, small networks, training, and the comparison of losses with reports."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossatlas.lab.comparison import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    """Import `compare` when it is asked for: what reads data or lists losses does not need what trains."""
    if name == "compare":
        from lossatlas.lab.comparison import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
