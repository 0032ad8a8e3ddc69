"""A figure is one thing a burn-in measured: of which accelerator, by which test, how much of which unit.

Invariant: a figure has a value, or it is `unsupported` and says in a sentence why; it never stands in for something
that was not measured. A worker makes figures, the room `proving` keeps and judges them; nobody changes one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Test(StrEnum):
    """What is measured. The values are stored, so they never change their meaning."""

    __test__ = False  # for pytest, which collects what is named so

    GEMM = "gemm"  # matrix products; the variant is the number format; GFLOP/s
    GEMM_WRONG = "gemm_wrong"  # rows of products that differ from the exact result
    MEMORY = "memory"  # the variants are copy and triad; GB/s
    MEMORY_WRONG = "memory_wrong"  # elements that came back different
    BUS = "bus"  # bus bandwidth; the variant is the collective; GB/s
    BUS_WRONG = "bus_wrong"  # elements that a collective delivered wrong, on any rank
    SOAK = "soak"  # the variant `rate_kept`: the last quarter's rate over the first's; ratio
    ECC = "ecc"  # memory errors that the device counted meanwhile; the variants are corrected and uncorrected
    HEAT = "heat"  # the highest temperature meanwhile; the variants are temp_c and temp_mem_c; °C
    THROTTLE = "throttle"  # time for which the device slowed itself down; the variant is `throttled`; ms


UNITS: Mapping[Test, str] = {
    Test.GEMM: "GFLOP/s",
    Test.GEMM_WRONG: "rows",
    Test.MEMORY: "GB/s",
    Test.MEMORY_WRONG: "elements",
    Test.BUS: "GB/s",
    Test.BUS_WRONG: "elements",
    Test.SOAK: "ratio",
    Test.ECC: "errors",
    Test.HEAT: "°C",
    Test.THROTTLE: "ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement, or why there is none."""

    test: Test
    variant: str
    accelerator_id: str | None  # None: of all of them together
    value: float | None
    size_bytes: int | None = None
    sentence: str | None = None  # why there is no value

    def __post_init__(self) -> None:
        if (self.value is None) == (self.sentence is None):
            raise ValueError(f"{self.test} {self.variant}: either a value or why there is none")

    @property
    def unit(self) -> str:
        return UNITS[self.test]

    def to_json(self) -> dict[str, Any]:
        return {
            "test": self.test.value,
            "variant": self.variant,
            "accelerator_id": self.accelerator_id,
            "value": self.value,
            "size_bytes": self.size_bytes,
            "sentence": self.sentence,
        }

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> "Figure":
        """Raises KeyError, TypeError or ValueError where it is no figure."""
        value = told["value"]
        if value is not None and not -1e30 < float(value) < 1e30:
            raise ValueError(f"{told['test']}: {value} is not a measurement")
        return Figure(
            test=Test(told["test"]),
            variant=str(told["variant"]),
            accelerator_id=told["accelerator_id"],
            value=None if value is None else float(value),
            size_bytes=told.get("size_bytes"),
            sentence=told.get("sentence"),
        )
