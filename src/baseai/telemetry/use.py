"""A use is what one owner had of one accelerator over a span of time: time, utilisation, memory, energy, throttling.

Invariant: uses of one accelerator over adjoining spans add up to the use over the whole: energy and throttled time are
differences of its own counters, cut at the spans' borders in proportion to time, so that owners and idleness together
equal the counters. What no sample covers is said, not guessed.
"""

from dataclasses import dataclass
from enum import StrEnum

from baseai.telemetry.field import Origin

MJ_A_WH = 3_600_000


class Method(StrEnum):
    """How a device's figures become an owner's."""

    WHOLE_DEVICE = "whole device"  # the owner held all of it: its counters are the owner's
    PARTITION = "partition"  # MIG or CPX: own activity and memory, energy by share of activity
    TIME_SLICE = "time slice"  # several owners at once: energy by share of the time each computed


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one owner had of one accelerator over [from_ms, until_ms). Energy and times are whole: they add up."""

    accel: str  # serial
    owner: str | None  # a lease's id; None: nobody held it
    from_ms: int
    until_ms: int
    seen_ms: int  # how much of it samples cover
    util_pct: float | None  # mean over what is seen; None where nothing is
    mem_used_max_b: float | None
    energy_mj: int | None
    energy_origin: Origin
    throttled_ms: int | None  # slowed down for a harmful reason; on a shared device each owner has all of it
    method: Method

    @property
    def energy_wh(self) -> float | None:
        return None if self.energy_mj is None else self.energy_mj / MJ_A_WH
