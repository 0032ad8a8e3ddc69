"""An eviction is whom to stop so that one gang fits: a choice that is worth more than it takes away.

Invariant: what the gang is worth is more than what all who are stopped are worth together, and without any one of
them the gang would not fit. Worth is per gang and greater than nothing; the sum over all that run therefore grows
with every eviction, so that evictions at one instant come to an end. Nothing is stopped here: it is only chosen.
"""

from collections.abc import Sequence
from typing import NamedTuple

from baseai.scheduling.gang import WHOLE, Gang, Shape
from baseai.scheduling.hall import Hall
from baseai.scheduling.policy.seam import Packing, Running


class Stoppable(NamedTuple):
    """One that runs and may be stopped."""

    worth: float  # what stopping it costs
    running: Running


Amounts = tuple[int, int, int]  # thousandths of accelerators, CPU, memory


class _Part(NamedTuple):
    """What one stoppable gang holds of one row."""

    worth_per_milli: float
    number: int
    frees: Amounts
    stoppable: Stoppable


def eviction_for(
    gang: Gang, worth: float, stoppable: Sequence[Stoppable], hall: Hall, packing: Packing
) -> tuple[Running, ...]:
    """The least worth to stop for the gang to fit; empty where that is not less than what the gang is worth.

    Row by row the cheapest that is enough there, then whoever is not needed is let off, against a copy of the hall.
    O(rows x running) where it is looked at closely.
    """
    shape = gang.shape
    parts = _parts([each for each in stoppable if each.worth < worth], shape, hall)
    gone = _cheapest(shape, worth, parts, hall)
    if not gone:
        return ()
    trial = hall.copy()
    for each in gone:
        trial.remove(each.running.gang.run_id)
    if packing.place(gang, trial) is None:
        return ()
    for each in sorted(gone, key=lambda each: (-each.worth, each.running.gang.number)):
        one = each.running.gang
        trial.place(one.run_id, one.shape, each.running.spots)
        if packing.place(gang, trial) is None:
            trial.remove(one.run_id)
        else:
            gone.remove(each)
    return tuple(each.running for each in sorted(gone, key=lambda each: each.running.gang.number))


def _needs(shape: Shape) -> Amounts:
    return shape.milli, shape.cpu_milli, shape.memory_mib


def _parts(stoppable: Sequence[Stoppable], shape: Shape, hall: Hall) -> list[list[_Part]]:
    """For each row what could be stopped on it, the least worth per accelerator first."""
    of_row: list[list[_Part]] = [[] for _ in range(len(hall))]
    for each in stoppable:
        one = each.running.gang
        pods: dict[int, int] = {}
        for spot in each.running.spots:
            pods[spot.row] = pods.get(spot.row, 0) + 1
        for row, count in pods.items():
            frees = (
                count * one.shape.milli,
                count * one.shape.cpu_milli,
                count * one.shape.memory_mib,
            )
            share = each.worth / len(pods) / max(1, frees[0])
            of_row[row].append(_Part(share, one.number, frees, each))
    for parts in of_row:
        parts.sort(key=lambda part: part[:2])
    return of_row


def _cheapest(shape: Shape, worth: float, of_row: list[list[_Part]], hall: Hall) -> list[Stoppable]:
    """Whom to stop by the sums of each row; empty where it does not pay. Fragments of devices are not looked at."""
    needs, mask = _needs(shape), hall.permitted(shape)
    free = [
        [int(milli), int(cpu), int(memory)]
        for milli, cpu, memory in zip(
            (hall.whole * WHOLE if shape.milli >= WHOLE else hall.spare).tolist(),
            hall.cpu_milli.tolist(),
            hall.memory_mib.tolist(),
            strict=True,
        )
    ]
    rows = [row for row in range(len(hall)) if hall.ready[row] and (mask is None or mask[row])]
    left = shape.pods
    for row in rows:
        left = _fill(free[row], needs, left)
    gone: dict[str, Stoppable] = {}
    cost = 0.0
    while left > 0:
        best: tuple[float, int, list[_Part]] | None = None
        for row in rows:
            found = _enough(of_row[row], free[row], needs, gone)
            if found is not None:
                asks = sum(part.stoppable.worth for part in found)
                if best is None or asks < best[0]:
                    best = (asks, row, found)
        if best is None:
            return []
        cost += best[0]
        if cost >= worth:
            return []
        for part in best[2]:
            run_id = part.stoppable.running.gang.run_id
            gone[run_id] = part.stoppable
            for row, parts in enumerate(of_row):
                for other in parts:
                    if other.stoppable.running.gang.run_id == run_id:
                        free[row] = [have + frees for have, frees in zip(free[row], other.frees, strict=True)]
        left = _fill(free[best[1]], needs, left)
    return list(gone.values())


def _fill(free: list[int], needs: Amounts, left: int) -> int:
    """Put as many pods there as fit; how many are left over."""
    while left > 0 and all(have >= need for have, need in zip(free, needs, strict=True)):
        for place, need in enumerate(needs):
            free[place] -= need
        left -= 1
    return left


def _enough(
    parts: Sequence[_Part], free: Sequence[int], needs: Amounts, gone: dict[str, Stoppable]
) -> list[_Part] | None:
    """The least worth per accelerator until one pod fits there, without those that turn out not to be needed."""
    have, chosen = list(free), list[_Part]()
    for part in parts:
        if all(amount >= need for amount, need in zip(have, needs, strict=True)):
            break
        if part.stoppable.running.gang.run_id in gone:
            continue
        have = [amount + frees for amount, frees in zip(have, part.frees, strict=True)]
        chosen.append(part)
    if not all(amount >= need for amount, need in zip(have, needs, strict=True)):
        return None
    for part in sorted(chosen, key=lambda part: (-part.stoppable.worth, part.number)):
        without = [amount - frees for amount, frees in zip(have, part.frees, strict=True)]
        if all(amount >= need for amount, need in zip(without, needs, strict=True)):
            chosen.remove(part)
            have = without
    return chosen or None
