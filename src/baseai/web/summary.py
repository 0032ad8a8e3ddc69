"""A summary is a part of the fleet in one line: how many accelerators, what they draw, how hot, how many slowed down.

Invariant: a sum or a mean says over how many it was taken, and what nothing is known of stays None. Pure.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.field import HARMFUL, Origin, State
from baseai.telemetry.sample import ORIGIN_SHIFT
from baseai.web.floorplan import FREE, Floorplan
from baseai.web.heatmap import Seen, column_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Some cells of a floorplan in one line."""

    cells: int
    held: int
    heard: int  # of how many there is a fresh word
    util_pct: float | None  # mean over those that say it
    temp_max_c: float | None
    power_w: float | None  # sum over `power_cells`, those that say it
    power_cells: int
    mem_used_b: float | None
    mem_total_b: float | None  # of those whose use is known
    throttled: int  # slowed down for a harmful reason
    origin: Origin  # the weakest of the values shown


def summary_of(plan: Floorplan, seen: Seen, places: NDArray[np.int64] | None = None) -> Summary:
    """The cells at `places`, or all of them, in one line."""
    chosen = np.arange(len(plan.rows)) if places is None else places
    util, temp, power, used, total, bits = (
        column_of(name, seen)[0][chosen]
        for name in ("util_pct", "temp_c", "power_w", "mem_used_b", "mem_total_b", "throttle_bits")
    )
    codes = seen.codes[chosen]
    heard = (codes & 15 <= max(State)).any(axis=1)
    values = codes[codes & 15 == State.VALUE]
    return Summary(
        cells=len(chosen),
        held=int((np.array(plan.holder, dtype=np.int64)[chosen] != FREE).sum()),
        heard=int(heard.sum()),
        util_pct=_mean(util),
        temp_max_c=float(_known(temp).max()) if len(_known(temp)) else None,
        power_w=_sum(power),
        power_cells=len(_known(power)),
        mem_used_b=_sum(used),
        mem_total_b=_sum(total[~np.isnan(used)]),
        throttled=int((np.nan_to_num(bits).astype(np.int64) & HARMFUL != 0).sum()),
        origin=Origin(int(values.max()) >> ORIGIN_SHIFT) if len(values) else Origin.MEASURED,
    )


def summaries_by_node(plan: Floorplan, seen: Seen, node_ids: Collection[str]) -> Mapping[str, Summary]:
    """One line for each of `node_ids` that has cells, by its node_id."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(plan.rows):
        if row["node_id"] in node_ids:
            places.setdefault(row["node_id"], []).append(place)
    return {node_id: summary_of(plan, seen, np.array(own)) for node_id, own in places.items()}


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _mean(values: NDArray[np.float64]) -> float | None:
    known = _known(values)
    return float(known.mean()) if len(known) else None


def _sum(values: NDArray[np.float64]) -> float | None:
    known = _known(values)
    return float(known.sum()) if len(known) else None
