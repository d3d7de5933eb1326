"""What a task measures: how a number is called and written, and which way is better."""

from dataclasses import dataclass

from lossatlas.lab.formatting import number, signed


@dataclass(frozen=True)
class Metric:
    """One number that a trial is scored with.

    Args:
        name: in the dict that the task's `score` returns.
        meaning: one sentence for the report.
        higher_is_better: False for errors.
        decimals: digits behind the point in tables.
        unit: such as ``"px"``; empty for parts from 0 to 1.
    """

    name: str
    meaning: str = ""
    higher_is_better: bool = True
    decimals: int = 3
    unit: str = ""

    @property
    def label(self) -> str:
        """Name with unit, for heads of columns.

        Example:
            >>> Metric("median error", unit="px").label
            'median error (px)'
        """
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def write(self, value: float | None) -> str:
        """Write a value without its unit, a dash for None."""
        return number(value, self.decimals)

    def write_change(self, value: float | None) -> str:
        """Write a difference with its sign, a dash for None."""
        return signed(value, self.decimals)

    def say(self, value: float | None) -> str:
        """Write the name with the value and its unit, for sentences.

        Example:
            >>> Metric("median error", decimals=1, unit="px").say(4.25)
            'median error 4.2 px'
        """
        return f"{self.name} {self.write(value)}" + (f" {self.unit}" if self.unit else "")
