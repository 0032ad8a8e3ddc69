"""Leaving is how a run makes way for what is booked: it is asked in time to save and stop, so that it is gone by then.

Invariant: only spot runs and the added time of extended leases make way for a reservation, and no more of them than it
takes; for maintenance everybody on the node does. What is promised at an instant finds room once those named here have
left, wherever `oversold.admit` found room. Asked again after some have left, nobody new is named unless things changed.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from baseai.scheduling.calendar import LEAVING_S, Bay, ClaimKind, FutureClaim, Holding
from baseai.scheduling.gang import WHOLE

HORIZON_S = LEAVING_S + 300.0  # what begins later asks nobody yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A run has to be asked at `ask_at_s` to save and stop, so that `claim` finds its capacity empty at `by_s`."""

    run_id: str
    node_id: str  # one on which it stands in the way
    claim: str  # id of the reservation, which says nothing to other tenants, or of the maintenance
    kind: ClaimKind
    ask_at_s: float
    by_s: float


class _Need(NamedTuple):
    """Equal pods of one claim, each on a node of its own."""

    accelerators: int
    pods: int
    claim: FutureClaim


def make_way(
    claims: Sequence[FutureClaim],
    holdings: Sequence[Holding],
    bays: Sequence[Bay],
    wanted: Mapping[str, int],
    now_s: float,
) -> tuple[Leave, ...]:
    """Who has to go for what begins within the horizon, each run once, in the order in which they are asked.

    wanted: by reservation, the pods that runs of its own wait for now. Some time after its beginning no more than those
    are cleared of spot runs: the rest is resold until somebody comes.
    """
    leaves: dict[str, Leave] = {}
    stand = [one for one in holdings if not one.going]
    near = [claim for claim in claims if claim.from_s <= now_s + HORIZON_S and claim.until_s > now_s]
    for claim in near:
        if claim.kind == "maintenance":
            named = set(claim.node_ids)
            for one in stand:
                if one.node_id in named and one.ends_s > max(claim.from_s, now_s):
                    _name(leaves, one, claim, now_s)
    for at_s in sorted({max(claim.from_s, now_s) for claim in near if claim.kind == "reservation"}):
        there = [claim for claim in near if claim.from_s <= at_s < claim.until_s]
        away = {name for claim in there if claim.kind == "maintenance" for name in claim.node_ids}
        for site, model in sorted({_place(claim) for claim in there if claim.kind == "reservation"}):
            local = [
                claim for claim in there if claim.kind == "reservation" and _place(claim) == (site, model)
            ]
            needs = _needs(local, wanted, now_s)
            if not needs:
                continue
            room = {
                bay.node_id: bay.accelerators
                for bay in bays
                if (bay.site, bay.model) == (site, model) and bay.node_id not in away
            }
            stays = [one for one in stand if one.model == model and one.node_id in room and one.ends_s > at_s]
            own = {claim.reservation_id for claim in local}
            # The cheapest nodes first; where that comes short, those with the most room, as they were promised.
            tried = [_Clearing(room, stays, own, leaves, at_s, now_s) for _ in range(2)]
            short = tried[0].place(needs, cheapest=True)
            best = tried[0] if short == 0 or short <= tried[1].place(needs, cheapest=False) else tried[1]
            leaves = best.leaves
    return tuple(sorted(leaves.values(), key=lambda leave: (leave.ask_at_s, leave.run_id)))


class _Clearing:
    """Choosing the nodes for what is promised at one instant, and who has to leave them."""

    def __init__(
        self,
        room: Mapping[str, int],
        stays: Sequence[Holding],
        own: set[str],
        leaves: Mapping[str, Leave],
        at_s: float,
        now_s: float,
    ) -> None:
        self.leaves = dict(leaves)
        self._now_s = now_s
        self._room = dict(room)  # free on each node once everybody who may be asked is gone
        self._soft: dict[str, list[Holding]] = defaultdict(list)
        self._of_run: dict[str, list[Holding]] = defaultdict(list)
        self._stand: dict[str, int] = defaultdict(
            int
        )  # on each node: what may be asked to go, and is not yet
        for one in stays:
            if one.firm_until_s > at_s or one.reservation_id in own:
                self._room[one.node_id] -= one.accelerators
                continue
            self._soft[one.node_id].append(one)
            self._of_run[one.run_id].append(one)
            if one.run_id not in self.leaves:
                self._stand[one.node_id] += one.accelerators

    def place(self, needs: Sequence[_Need], *, cheapest: bool) -> int:
        """Take nodes for all pods; how many accelerators find none."""
        short = 0
        order = sorted(needs, key=lambda need: (not need.claim.node_ids, -need.accelerators, -need.pods))
        for need in order:
            size = need.accelerators
            fitting = [name for name in need.claim.node_ids if self._room.get(name, 0) >= size]
            fitting = fitting or [name for name, left in self._room.items() if left >= size]
            chosen = heapq.nsmallest(need.pods, fitting, key=self._order(size, cheapest))
            for name in chosen:
                for one in self._victims(name, size):
                    self._ask(one, need.claim)
                self._room[name] -= size
            short += (need.pods - len(chosen)) * size
        return short

    def _order(self, size: int, cheapest: bool) -> Callable[[str], tuple[int, int, str]]:
        if cheapest:
            return lambda name: (self._price(name, size), -self._room[name], name)
        return lambda name: (0, -self._room[name], name)

    def _price(self, node_id: str, size: int) -> int:
        """Accelerators, on whatever nodes, of the runs that would have to go from here."""
        if self._room[node_id] - self._stand[node_id] >= size:
            return 0
        return sum(self._weight(one.run_id) for one in self._victims(node_id, size))

    def _victims(self, node_id: str, size: int) -> list[Holding]:
        """The fewest runs of a node that, gone with those who are going anyway, leave `size` free."""
        free = self._room[node_id] - self._stand[node_id]
        left = [one for one in self._soft[node_id] if one.run_id not in self.leaves] if free < size else []
        chosen = []
        for one in sorted(left, key=lambda one: (-one.accelerators, self._weight(one.run_id), one.run_id)):
            if free >= size:
                break
            chosen.append(one)
            free += one.accelerators
        return chosen

    def _weight(self, run_id: str) -> int:
        return sum(one.accelerators for one in self._of_run[run_id])

    def _ask(self, one: Holding, claim: FutureClaim) -> None:
        if one.run_id not in self.leaves:
            for part in self._of_run[one.run_id]:
                self._stand[part.node_id] -= part.accelerators
        _name(self.leaves, one, claim, self._now_s)


def _needs(claims: Sequence[FutureClaim], wanted: Mapping[str, int], now_s: float) -> list[_Need]:
    """What has to be empty: all of a claim, or so much as is waited for where it may be resold."""
    needs, left = [], dict(wanted)
    for claim in claims:
        assert claim.shape is not None
        pods = claim.pods_left
        if claim.resold(now_s):
            pods = min(pods, left.get(claim.reservation_id, 0))
            left[claim.reservation_id] = left.get(claim.reservation_id, 0) - pods
        if pods:
            needs.append(_Need(claim.shape.milli // WHOLE, pods, claim))
    return needs


def _name(leaves: dict[str, Leave], one: Holding, claim: FutureClaim, now_s: float) -> None:
    by_s = max(claim.from_s, now_s)
    ask_at_s = max(now_s, by_s - one.grace_s)
    if one.run_id not in leaves or ask_at_s < leaves[one.run_id].ask_at_s:
        leaves[one.run_id] = Leave(
            run_id=one.run_id,
            node_id=one.node_id,
            claim=claim.reservation_id or claim.name,
            kind=claim.kind,
            ask_at_s=ask_at_s,
            by_s=by_s,
        )


def _place(claim: FutureClaim) -> tuple[str, str]:
    assert claim.shape is not None
    return claim.shape.sites[0], claim.shape.models[0]
