"""Bounds are what we hold an uncertain amount to be: low, default and high.

Invariant: low ≤ default ≤ high. The unit stands in the name of whatever carries the bounds.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

__all__ = ["Bounds", "Case"]


class Case(StrEnum):
    """Which end of every assumption a computation takes."""

    LOW = "low"
    DEFAULT = "default"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An uncertain amount, exact as written in the data file."""

    low: Decimal
    default: Decimal
    high: Decimal

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high:
            raise ValueError(f"{self.low} ≤ {self.default} ≤ {self.high} does not hold")

    def at(self, case: Case) -> Decimal:
        return {Case.LOW: self.low, Case.DEFAULT: self.default, Case.HIGH: self.high}[case]
