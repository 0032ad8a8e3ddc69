"""Reclaiming is stopping others so that one gang can start: whom, where it is entitled to it at all.

Invariant: a spot run is stopped before a borrowed one, a borrowed one before a junior of the gang's own queue; nobody
is stopped within its minimum runtime, nobody who is not needed, and nobody unless the gang then does fit, by the very
check that will place it. Every reclaim makes `objective_of` grow, so that they come to an end until something else ends
or comes. Nothing is stopped here: it is only chosen.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Bools, Hall, Ints, Spots
from baseai.scheduling.policy.clearing import Clearing
from baseai.scheduling.policy.shares import queue_of
from baseai.scheduling.policy.stakes import Candidate, Class, Floats, Quotas, Stakes, covered

Places = Callable[[Hall], Spots | None]  # where the gang goes in such a hall, by all checks there are

DEARER = 1e5  # a class weighs so much more than the one before it, so that it is touched as little as will do


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """How far the gang may go."""

    left_milli: int | None = None  # what its queue may still hold without borrowing; None: it has no quota

    def lacking_milli(self, gang: Gang) -> int:
        """What its own queue must give back before the gang would not borrow."""
        return 0 if self.left_milli is None else max(0, gang.shape.milli_total - self.left_milli)


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """One run that is to be stopped, and what that costs."""

    run_id: str
    kind: Class
    lost_accelerator_s: float  # of work since its last checkpoint
    cost: float  # US$, the stop itself included


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """Whom to stop, by number, and where the gang goes once they are gone."""

    victims: tuple[Victim, ...]
    spots: Spots

    @property
    def cost(self) -> float:
        return sum(each.cost for each in self.victims)

    @property
    def lost_accelerator_s(self) -> float:
        return sum(each.lost_accelerator_s for each in self.victims)


def reclaim(
    gang: Gang,
    entitlement: Entitlement,
    running: Stakes,
    hall: Hall,
    places: Places,
    now_s: float,
) -> Reclaimed | None:
    """The cheapest to stop for the gang to start, within the lowest class that is enough; None where nothing is.

    places: asked of copies of the hall alone; what fits must go on to fit when more is free.
    The cheapest is exact for a gang of one pod, as far as `clearing.EXACT_MOST` runs stand on a row; else it is
    row by row. O(parts log parts + rows).
    """
    if gang.terms.spot or len(running) == 0:
        return None
    classes = running.classes(gang, now_s)
    costs = running.costs(now_s)
    lacking = entitlement.lacking_milli(gang)
    gives = (classes == Class.JUNIOR) & running.on_models(
        gang.shape.models
    )  # others leave its quota as it is
    for most in Class:
        may = (classes >= 0) & (classes <= most)
        if not (classes == most).any() or (most is Class.BORROWED and lacking):
            continue  # who would borrow takes from nobody but spot, unless its own juniors make up for it
        weights: Floats = np.where(may, costs * DEARER ** np.maximum(classes, 0), math.inf)
        owed = lacking if most > Class.SPOT else 0
        found = _cleared(gang, running, hall, places, weights, gives, owed)
        if found is not None:
            slots, spots = found
            return _reclaimed(running, slots, classes, costs, spots, now_s)
    return None


def objective_of(
    running: Iterable[Candidate], quotas: Quotas, models: Callable[[Candidate], str]
) -> tuple[int, ...]:
    """What every reclaim raises, compared from the left; thousandths of accelerators.

    First what quotas cover, of runs of priority 100, of 99 and above, and so on down to 0; then what paying runs
    hold; then what all hold. A queue without a quota is covered whole.
    running: of those that started at one instant, the first first. models: the model a run is on.
    """
    by_queue: dict[str, list[Candidate]] = {}
    for each in running:
        by_queue.setdefault(queue_of(each.gang), []).append(each)
    levels, paying, held = [0] * 101, 0, 0
    for queue, theirs in by_queue.items():
        held += sum(each.gang.shape.milli_total for each in theirs)
        due = sorted(
            (each for each in theirs if not each.gang.terms.spot),
            key=lambda each: (-each.gang.terms.priority, each.since_s),
        )
        paying += sum(each.gang.shape.milli_total for each in due)
        beyond = set[str]()
        for (name, model), quota in quotas.items():
            if name == queue:
                counted = [each for each in due if not model or models(each) == model]
                inside = covered(
                    np.array([each.gang.shape.milli_total for each in counted], dtype=np.int64), quota
                )
                beyond.update(
                    each.gang.run_id
                    for each, is_in in zip(counted, inside.tolist(), strict=True)
                    if not is_in
                )
        for each in due:
            if each.gang.run_id not in beyond:
                levels[100 - each.gang.terms.priority] += each.gang.shape.milli_total
    return (*np.cumsum(levels).tolist(), paying, held)


def _cleared(
    gang: Gang,
    running: Stakes,
    hall: Hall,
    places: Places,
    weights: Floats,
    gives: Bools,
    owed_milli: int,
) -> tuple[list[int], Spots] | None:
    """Slots of the cheapest found, and where the gang then goes."""
    best: tuple[float, list[int], Spots] | None = None
    for clearing in Clearing.of_each_domain(gang.shape, running, hall, weights):
        if best is not None and clearing.least_weight >= best[0]:
            break  # they come by what they weigh at least
        gone = clearing.clear(places)
        if gone is None or not _give_back(gone, running, weights, gives, owed_milli, clearing):
            continue

        def owed(slot: int, gone: list[int] = gone) -> bool:
            """Whether it is stopped for its queue's quota, if not for the room."""
            rest = [other for other in gone if other != slot]
            return bool(gives[slot]) and _given_milli(rest, running, gives) < owed_milli

        spots = clearing.let_off(gone, places, owed)
        weight = float(weights[gone].sum())
        if gone and (best is None or weight < best[0]):
            best = (weight, gone, spots)
    return None if best is None else best[1:]


def _given_milli(gone: list[int], running: Stakes, gives: Bools) -> int:
    """What the queue of the one who asks gets back by that."""
    return sum(int(running.milli[slot]) for slot in gone if gives[slot])


def _give_back(
    gone: list[int], running: Stakes, weights: Floats, gives: Bools, owed_milli: int, clearing: Clearing
) -> bool:
    """Stop juniors until the queue has given back what the gang would borrow; whether there are enough."""
    owed = owed_milli - _given_milli(gone, running, gives)
    if owed <= 0:
        return True
    juniors = (gives & np.isfinite(weights)).nonzero()[0]
    for slot in juniors[np.argsort(weights[juniors] / running.milli[juniors], kind="stable")].tolist():
        if owed <= 0:
            break
        if slot not in gone:
            clearing.stop([slot], gone)
            owed -= int(running.milli[slot])
    return owed <= 0


def _reclaimed(
    running: Stakes, slots: list[int], classes: Ints, costs: Floats, spots: Spots, now_s: float
) -> Reclaimed:
    victims = []
    for slot in sorted(slots, key=lambda slot: int(running.number[slot])):
        candidate = running.at(slot)
        lost_s = max(0.0, now_s - float(running.saved_s[slot]))
        victims.append(
            Victim(
                run_id=candidate.gang.run_id,
                kind=Class(int(classes[slot])),
                lost_accelerator_s=candidate.accelerators * lost_s,
                cost=float(costs[slot]),
            )
        )
    return Reclaimed(victims=tuple(victims), spots=spots)
