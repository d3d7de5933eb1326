"""How the numbers of a comparison are written, in tables, sentences and charts."""

from collections.abc import Callable, Sequence

from lossatlas.lab.statistics import Estimate


def number(value: float | None, decimals: int = 3) -> str:
    """Write a metric, a dash for None."""
    return "-" if value is None else f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int = 3) -> str:
    """Write a difference with its sign, a dash for None.

    Example:
        >>> signed(0.0204), signed(-0.0001)
        ('+0.020', '+0.000')
    """
    return "-" if value is None else f"{round(value, decimals) + 0.0:+.{decimals}f}"


def interval(found: Estimate, write: Callable[[float | None], str] = number) -> str:
    """Write an interval as ``low to high``, a dash if there is none."""
    return "-" if found.interval is None else f"{write(found.interval[0])} to {write(found.interval[1])}"


def plural(count: int, word: str) -> str:
    """Write a count with its noun.

    Example:
        >>> plural(1, "seed"), plural(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in columns: the first to the left, those that hold numbers to the right.

    Example:
        >>> print(plain_table(["variant", "AP", "verdict"], [["giou", "0.512", "baseline"]]))
        variant     AP  verdict
        -------  -----  --------
        giou     0.512  baseline
    """
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    right = [
        all(cell == "" or cell[-1].isdigit() or cell == "-" for cell in column) for column in zip(*rows, strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
