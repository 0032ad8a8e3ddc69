"""Scarcity says how much of what is free will be needed by those who can go nowhere else.

Invariant: reckoned from a mix that has come and from what is free now. As much is taken to come, in the proportions
of the mix, as would fill what is free. 0 is no need, 1 all of it; above 1 there is more need than room.
"""

from typing import NamedTuple

import numpy as np

from baseai.scheduling.gang import WHOLE
from baseai.scheduling.hall import Bools, Hall, Ints
from baseai.scheduling.policy.mix import Floats, Learned

SCARCITY_MOST = 1.5  # beyond, it no longer matters by how much
SHARPNESS = 4  # of the passage from scarce accelerators to scarce CPU
MARGIN = 1.5  # of the need of whole nodes: few large gangs come, and not evenly
ROUNDS = 4  # of the horizon: each may find another set of kinds full


class Kinds:
    """Rows that no shape tells apart by model, site or country are of one kind."""

    def __init__(self, hall: Hall) -> None:
        number_of: dict[tuple[int, int, str], int] = {}
        found = [
            number_of.setdefault(key, len(number_of))
            for key in zip(hall.model.tolist(), hall.site.tolist(), hall.countries, strict=True)
        ]
        self.of_row: Ints = np.array(found, dtype=np.int64)
        self.count = len(number_of)
        self._first = np.array([found.index(kind) for kind in range(self.count)], dtype=np.int64)

    def allowed(self, hall: Hall, learned: Learned) -> Bools:
        """Which kinds each shape may be on: (shapes, kinds)."""
        found = np.ones((len(learned.shapes), self.count), dtype=np.bool_)
        for number, shape in enumerate(learned.shapes):
            mask = hall.permitted(shape)
            if mask is not None:
                found[number] = mask[self._first]
        return found


class Scarce(NamedTuple):
    """What a pod takes from those who can go nowhere else, in thousandths of accelerators; an element for each kind."""

    per_milli: Floats  # for each thousandth of an accelerator
    per_cpu_milli: Floats  # for each thousandth of a core


def of_kinds(hall: Hall, kinds: Kinds, learned: Learned, allowed: Bools) -> Scarce:
    """The need of those who may not be everywhere, over what is free for them: of whichever will end first.

    Who may be on the least goes first, and spreads in proportion to what the ones before it have left. Where their CPU
    ends before the accelerators do, it is CPU that is scarce, and counts by the accelerators that go with it. O(rows +
    shapes × kinds).
    """
    free, need, cpu_need = _free(hall, kinds), np.zeros(kinds.count), np.zeros(kinds.count)
    if learned.volume.sum() <= 0:
        return Scarce(need, cpu_need)
    cpu_free = np.bincount(kinds.of_row, weights=hall.cpu_milli, minlength=kinds.count)
    sets, volume, cpu = _by_set(learned, allowed)
    asked = volume / volume.sum() * free.sum()
    for number in np.argsort(sets @ free, kind="stable").tolist():
        among = sets[number]
        if asked[number] <= 0 or among.all() or not among.any():
            continue
        room = np.maximum(free - need, 0.0) * among
        more = asked[number] * (room / room.sum() if room.sum() > 0 else among / among.sum())
        need += more
        cpu_need += more * cpu[number] / volume[number]
    of_milli, of_cpu = need / np.maximum(free, 1.0), cpu_need / np.maximum(cpu_free, 1.0)
    scarcity = np.minimum(np.maximum(of_milli, of_cpu), SCARCITY_MOST)
    by_cpu = of_cpu**SHARPNESS / np.maximum(of_cpu**SHARPNESS + of_milli**SHARPNESS, 1e-12)
    return Scarce(scarcity * (1.0 - by_cpu), scarcity * by_cpu * need / np.maximum(cpu_need, 1.0))


def of_wholes(hall: Hall, kinds: Kinds, learned: Learned, allowed: Bools) -> Floats:
    """Of each shape that takes several whole accelerators of one node, its part in how scarce room for it is; else 0.

    Need counts all shapes that ask for as much in everything: they can go nowhere that this one cannot. The square
    keeps it near nothing while there is plenty. O(several² × kinds + several × rows).
    """
    found = np.zeros(len(learned.shapes))
    several = np.flatnonzero(learned.milli > WHOLE)
    if not len(several):
        return found
    asked = learned.volume[several] / learned.volume.sum() * _horizon(hall, kinds, learned, allowed)
    wider, narrower = allowed[several][np.newaxis], allowed[several][:, np.newaxis]
    as_much: Bools = np.all(wider | ~narrower, axis=2)
    for amount in (learned.milli, learned.cpu_milli, learned.memory_mib):
        as_much &= amount[several][:, np.newaxis] >= amount[several][np.newaxis, :]
    need = asked @ as_much
    for place, number in enumerate(several.tolist()):
        fits = hall.fits(learned.shapes[number])
        room = WHOLE * float((hall.whole * fits).sum())
        scarcity = min(1.0, MARGIN * need[place] / max(room, 1.0)) ** 2
        found[number] = scarcity * asked[place] / max(need[place], 1.0)
    return found


def _horizon(hall: Hall, kinds: Kinds, learned: Learned, allowed: Bools) -> float:
    """How much must come, in thousandths, until all that is free is taken, if sets of kinds that are full turn away."""
    free = _free(hall, kinds)
    sets, volume, _ = _by_set(learned, allowed)
    part, room = volume / volume.sum(), sets @ free
    horizon = float(free.sum())
    for _ in range(ROUNDS):
        full = horizon * part > room
        others = part[~full].sum()
        if others < 0.1:
            break
        horizon = max(horizon, float((free.sum() - room[full].sum()) / others))
    return horizon


def _free(hall: Hall, kinds: Kinds) -> Floats:
    return np.bincount(kinds.of_row, weights=hall.spare, minlength=kinds.count).astype(np.float64)


def _by_set(learned: Learned, allowed: Bools) -> tuple[Bools, Floats, Floats]:
    """The different sets of kinds that shapes are confined to; the volume that each brings, and the CPU with it."""
    sets, inverse = np.unique(allowed, axis=0, return_inverse=True)
    with_any = np.where(learned.milli > 0, learned.frequency, 0.0)
    volume = np.bincount(inverse.ravel(), weights=with_any * learned.milli, minlength=len(sets))
    cpu = np.bincount(inverse.ravel(), weights=with_any * learned.cpu_milli, minlength=len(sets))
    return sets, volume.astype(np.float64), cpu.astype(np.float64)
