"""Consolidating is moving runs aside so that a gang starts which has room in all, but nowhere together.

Invariant: only runs move that have saved, are past their minimum runtime and were not moved lately; each has its new
place at once, beside the gang's; nobody moves who need not; what the gang gains is more than the moves cost, by a
margin; and an hour sees no more moves than its budget. Nothing is moved here: it is only chosen.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from baseai.scheduling.gang import WHOLE, Gang
from baseai.scheduling.hall import Hall, Spots
from baseai.scheduling.policy.clearing import Clearing
from baseai.scheduling.policy.stakes import Floats, Stakes

Placing = Callable[[Gang, Hall], Spots | None]  # where a gang goes in such a hall, by all checks there are

WINDOW_S = 3600.0  # over which moves are counted, and in which no run moves twice
MOVES_PER_HUNDRED = 2  # accelerators, in a window
MARGIN = 4.0  # times what the moves cost must be gained: how long a gang lasts is a guess
HORIZON_S = (
    4 * 3600.0
)  # of what is gained no more counts: by then there would have been room in some other way
TRIES_MOST = 6  # choices of whom to move that are looked at for one gang


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many runs may still be moved in this window, and who not again."""

    moves: int
    lately: frozenset[str] = frozenset()  # runs that were moved within it


class Relocation(NamedTuple):
    """One run that leaves where it stands, and where it goes on."""

    run_id: str
    spots: Spots
    cost: float  # US$: of the work since its last checkpoint, and of the restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Who goes where so that the gang can start, by number, and where it starts then."""

    relocations: tuple[Relocation, ...]
    spots: Spots
    gain: float  # US$

    @property
    def cost(self) -> float:
        return sum(each.cost for each in self.relocations)


def budget_of(moved: Sequence[tuple[float, str]], accelerators: int, now_s: float) -> Budget:
    """What is left of the moves of this window. moved: instant and run of the moves so far, in any order."""
    lately = [run_id for at_s, run_id in moved if at_s > now_s - WINDOW_S]
    allowed = accelerators * MOVES_PER_HUNDRED // 100
    return Budget(moves=max(0, allowed - len(lately)), lately=frozenset(lately))


def consolidate(
    gang: Gang,
    running: Stakes,
    hall: Hall,
    places: Placing,
    now_s: float,
    budget: Budget,
    *,
    lasts_s: float | None = None,
    rate: float = 1.0,
) -> Moves | None:
    """The cheapest moves found that let the gang start and pay; None where there are none.

    places: asked of copies of the hall alone. lasts_s: how long the gang probably runs, where anybody knows.
    rate: price of its accelerator-hour, in US$. O(parts log parts + rows), a few times.
    """
    gain = _gain(gang, lasts_s, rate)
    if budget.moves == 0 or not _has_room_in_all(gang, hall):
        return None
    weights = _movable(running, now_s, budget)
    weights[weights * MARGIN >= gain] = math.inf
    for _ in range(TRIES_MOST):
        if not np.isfinite(weights).any():
            return None
        found = _tried(gang, running, hall, places, weights)
        if found is None:
            return None
        if isinstance(found, int):
            weights[found] = math.inf  # it has no place elsewhere
            continue
        relocations, spots = found
        moves = Moves(relocations=tuple(relocations), spots=spots, gain=gain)
        pays = moves.cost * MARGIN < gain and len(relocations) <= budget.moves
        return moves if pays else None
    return None


def _gain(gang: Gang, lasts_s: float | None, rate: float) -> float:
    """US$ of its accelerators for as long as it runs, or the horizon."""
    known = [seconds for seconds in (lasts_s, gang.terms.lasts_most_s) if seconds is not None]
    return gang.shape.milli_total / WHOLE * min([HORIZON_S, *known]) * rate / 3600.0


def _has_room_in_all(gang: Gang, hall: Hall) -> bool:
    """Whether what is free where it may go would be enough, were it in one place."""
    mask = hall.permitted(gang.shape)
    rows = hall.ready if mask is None else mask & hall.ready
    return int(hall.spare[rows].sum()) >= gang.shape.milli_total > 0


def _movable(running: Stakes, now_s: float, budget: Budget) -> Floats:
    """What moving each would cost, by slot; inf for those who stay."""
    may = running.has_saved & (running.safe_until_s <= now_s)
    may[running.slots_of(budget.lately)] = False
    weights: Floats = np.where(may, running.costs(now_s), math.inf)
    return weights


def _tried(
    gang: Gang, running: Stakes, hall: Hall, places: Placing, weights: Floats
) -> tuple[list[Relocation], Spots] | int | None:
    """Who moves where, and where the gang starts; or the slot of one who would have no place; None: no choice left."""
    for clearing in Clearing.of_each_domain(gang.shape, running, hall, weights):
        slots = clearing.clear(lambda trial: places(gang, trial))
        if not slots:
            continue
        trial = clearing.trial
        spots = clearing.let_off(slots, lambda trial: places(gang, trial))
        trial.place(gang.run_id, gang.shape, spots)
        relocations = []
        for slot in sorted(slots, key=lambda slot: (-int(running.milli[slot]), int(running.number[slot]))):
            one = running.at(slot)
            there = places(one.gang, trial)
            if there is None:
                return slot
            trial.place(one.gang.run_id, one.gang.shape, there)
            relocations.append((one.gang.number, Relocation(one.gang.run_id, there, float(weights[slot]))))
        return [each for _, each in sorted(relocations)], spots
    return None
