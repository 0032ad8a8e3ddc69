"""A verdict is what a burn-in's figures come to: passed, or failed by the figure that says so first.

Invariant: pure; a figure without a value never fails a node, and a ratio is only judged where the data sheet gives a
peak. A wrong result fails whatever the speed: a fast accelerator that errs is of no use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from baseai.workloads.burn_in.figure import Figure, Test

# Shares of the data sheet's dense peak below which a device is not what it is sold as (ours: sound devices reach
# 0.55-0.9 in products, 0.75-0.95 in memory, 0.6-0.9 over their links, by maker and cooling).
FLOORS: Mapping[Test, float] = {Test.GEMM: 0.5, Test.MEMORY: 0.7, Test.BUS: 0.3}
JUDGED_BUS = "all_reduce"  # the collective that training waits for
RATE_KEPT_FLOOR = 0.9  # under sustained load; less means heat or power take it away
MUST_BE_ZERO = (Test.GEMM_WRONG, Test.MEMORY_WRONG, Test.BUS_WRONG)
SHORT_PROFILE = "quick"  # too short for a soak to mean anything


class Peaks(Protocol):
    """What data sheets promise, in the unit of the figure; None where they promise nothing."""

    def peak(self, model: str, test: Test, variant: str) -> float | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure beside its peak."""

    figure: Figure
    peak: float | None

    @property
    def ratio(self) -> float | None:
        if self.peak is None or self.figure.value is None:
            return None
        return self.figure.value / self.peak


def measured(figures: Sequence[Figure], model: str, peaks: Peaks) -> tuple[Measured, ...]:
    """Each figure with what the data sheet promises for it."""
    return tuple(
        Measured(
            figure=figure,
            peak=None if figure.value is None else peaks.peak(model, figure.test, figure.variant),
        )
        for figure in figures
    )


def failure_of(found: Sequence[Measured], profile: str) -> str | None:
    """The sentence of the figure that fails the burn-in; None where it passed. Raises ValueError for no figure."""
    if not found:
        raise ValueError("a burn-in without a figure has no verdict")
    for one in found:
        wrong = _wrong(one.figure)
        if wrong is not None:
            return wrong
    for one in _best_of_bus(found):
        floor = FLOORS.get(one.figure.test)
        if one.figure.test is Test.BUS and one.figure.variant != JUDGED_BUS:
            continue
        if floor is not None and one.ratio is not None and one.ratio < floor:
            return (
                f"{_subject(one.figure)}: {one.figure.value:.4g} {one.figure.unit} are {one.ratio:.0%} of the data"
                f" sheet's {one.peak:.4g}, and {floor:.0%} is the least that will do"
            )
        if one.figure.test is Test.SOAK and profile != SHORT_PROFILE:
            kept = one.figure.value
            if kept is not None and kept < RATE_KEPT_FLOOR:
                return f"{_subject(one.figure)}: under load only {kept:.0%} of the first rate was left"
    return None


def _wrong(figure: Figure) -> str | None:
    if not figure.value:
        return None
    if figure.test in MUST_BE_ZERO:
        return f"{_subject(figure)}: {figure.value:.0f} {figure.unit} came out wrong"
    if figure.test is Test.ECC and figure.variant == "uncorrected":
        return f"{_subject(figure)}: {figure.value:.0f} memory errors were not corrected"
    return None


def _best_of_bus(found: Sequence[Measured]) -> list[Measured]:
    """Of each collective the best size alone: small ones are slow by their nature."""
    best: dict[str, Measured] = {}
    for one in found:
        if one.figure.test is Test.BUS and one.figure.value is not None:
            known = best.get(one.figure.variant)
            if known is None or (known.figure.value or 0.0) < one.figure.value:
                best[one.figure.variant] = one
    return [one for one in found if one.figure.test is not Test.BUS] + list(best.values())


def _subject(figure: Figure) -> str:
    of = "all accelerators" if figure.accelerator_id is None else f"accelerator {figure.accelerator_id}"
    return f"{figure.test.value} {figure.variant} of {of}"
