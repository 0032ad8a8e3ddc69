"""A counter only rises until it begins anew; what counts is what it gained between two readings.

Invariant: a gain is never negative and never guessed. Where the machine was started anew, or the value fell, the
counter began at zero and the gain is what it shows now. A counter that has reached its ceiling says nothing any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Where InfiniBand's counters stop (IBTA 1.5, PortCounters): file below `counters/` → largest value it can show.
INFINIBAND_CEILINGS: Mapping[str, int] = MappingProxyType(
    {
        "symbol_error": 2**16 - 1,
        "link_error_recovery": 2**8 - 1,
        "link_downed": 2**8 - 1,
        "port_rcv_errors": 2**16 - 1,
        "port_rcv_remote_physical_errors": 2**16 - 1,
        "port_rcv_switch_relay_errors": 2**16 - 1,
        "port_xmit_discards": 2**16 - 1,
        "port_xmit_constraint_errors": 2**8 - 1,
        "port_rcv_constraint_errors": 2**8 - 1,
        "local_link_integrity_errors": 2**4 - 1,
        "excessive_buffer_overrun_errors": 2**4 - 1,
        "VL15_dropped": 2**16 - 1,
        "port_xmit_wait": 2**32 - 1,
    }
)

# The same by field of a port.
PORT_CEILINGS: Mapping[str, int] = MappingProxyType(
    {
        "symbol_err": INFINIBAND_CEILINGS["symbol_error"],
        "rx_err": INFINIBAND_CEILINGS["port_rcv_errors"],
        "discards": INFINIBAND_CEILINGS["port_xmit_discards"],
        "link_downed": INFINIBAND_CEILINGS["link_downed"],
        "wait_ticks": INFINIBAND_CEILINGS["port_xmit_wait"],
    }
)


def is_saturated(field: str, value: float) -> bool:
    """Whether a port's counter stands at its ceiling: it has counted so much or more, and counts no further."""
    return value == PORT_CEILINGS.get(field)


def saturated_sentence(field: str, value: float) -> str:
    """What to say of it."""
    return f"{field} stands at {value:.0f}, the most its counter can show: it counts no further until it is cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    """What counters gained at each tick. Both have the shape of what was read."""

    gained: NDArray[np.float64]  # NaN at the first reading and wherever it is unknown
    restarted: NDArray[np.bool_]  # where the counter began anew since the reading before


def gains(values: ArrayLike, boots: ArrayLike | None = None, *, ceiling: float | None = None) -> Gains:
    """What counters gained at each tick since the reading before it.

    values: shape (..., ticks), in order of time; NaN where nothing was read: the next reading gains over the last.
    boots: the same shape or (ticks,), a number that changes when the machine was started anew; None: never.
    ceiling: the largest value the counter can show; a gain up to it or from it is unknown. O(n).
    """
    seen = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(seen)
    last = np.maximum.accumulate(np.where(known, np.arange(seen.shape[-1]), -1), axis=-1)
    before = np.full(seen.shape, -1, dtype=np.int64)  # place of the reading before each tick
    before[..., 1:] = last[..., :-1]
    compared = known & (before >= 0)
    there = np.maximum(before, 0)
    earlier = np.take_along_axis(seen, there, axis=-1)
    restarted = compared & (seen < earlier)
    if boots is not None:
        boot = np.broadcast_to(np.asarray(boots), seen.shape)
        restarted |= compared & (boot != np.take_along_axis(boot, there, axis=-1))
    gained = np.where(restarted, seen, seen - earlier)
    if ceiling is not None:
        gained = np.where((seen >= ceiling) | ((earlier >= ceiling) & ~restarted), np.nan, gained)
    return Gains(gained=np.where(compared, gained, np.nan), restarted=restarted)
