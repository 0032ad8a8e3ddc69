"""A standing is how a figure compares: with the data sheet, with its like in the fleet, with its own past.

Invariant: pure; a median counts only from LIKE_LEAST figures on, and figures are compared within one profile, whose
sizes they share. Below ALERT_BELOW of its own median an accelerator has lost something, whatever the others do.
"""

from dataclasses import dataclass

LIKE_LEAST = 3  # figures that make a median
ALERT_BELOW = 0.9
HIGHER_IS_BETTER = frozenset({"gemm", "memory", "bus", "soak"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Ratios to 1, and a sentence where one of them is too low. None: nothing to compare with."""

    fleet_median: float | None
    fleet_ratio: float | None
    own_median: float | None
    own_ratio: float | None
    alert: str | None


def standing_of(
    *,
    test: str,
    value: float | None,
    fleet_median: float | None,
    fleet_count: int,
    own_median: float | None,
    own_count: int,
) -> Standing:
    """How `value` stands. Counts say over how many figures each median is."""
    if value is None or test not in HIGHER_IS_BETTER:
        return Standing(fleet_median=None, fleet_ratio=None, own_median=None, own_ratio=None, alert=None)
    fleet = fleet_median if fleet_count >= LIKE_LEAST and fleet_median else None
    own = own_median if own_count >= LIKE_LEAST and own_median else None
    fleet_ratio = None if fleet is None else value / fleet
    own_ratio = None if own is None else value / own
    alert = None
    if own_ratio is not None and own_ratio < ALERT_BELOW:
        alert = f"{own_ratio:.0%} of its own median over {own_count} tests"
    elif fleet_ratio is not None and fleet_ratio < ALERT_BELOW:
        alert = f"{fleet_ratio:.0%} of the median of {fleet_count} of its model"
    return Standing(
        fleet_median=fleet, fleet_ratio=fleet_ratio, own_median=own, own_ratio=own_ratio, alert=alert
    )
