"""Leaving is how a run makes way for what is booked: it is asked in time to save and stop, so that it is gone by then.

Invariant: only spot runs and the added time of extended leases make way for a reservation, and no more of them than it
takes; for maintenance everybody on the node does. What is promised at an instant finds room once those named here have
left, wherever `oversold.admit` found room. Asked again after some have left, nobody new is named unless things changed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baseai.scheduling.calendar import Bay, ClaimKind, FutureClaim, Holding
from baseai.scheduling.gang import WHOLE
from baseai.scheduling.oversold import Need, placed

HORIZON_S = 3600.0  # what begins later asks nobody yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A run has to be asked at `ask_at_s` to save and stop, so that `claim` finds its capacity empty at `by_s`."""

    run_id: str
    node_id: str  # one on which it stands in the way
    claim: str
    kind: ClaimKind
    ask_at_s: float
    by_s: float


def make_way(
    claims: Sequence[FutureClaim],
    holdings: Sequence[Holding],
    bays: Sequence[Bay],
    wanted: Mapping[str, int],
    now_s: float,
) -> tuple[Leave, ...]:
    """Who has to go for what begins within the horizon, each run once, in the order in which they are asked.

    wanted: by reservation, the pods that runs of its own wait for now. Long after its beginning no more than those are
    cleared of spot runs: the rest is resold until somebody comes.
    """
    leaves: dict[str, Leave] = {}
    holdings = [one for one in holdings if not one.going]
    near = [claim for claim in claims if claim.from_s <= now_s + HORIZON_S and claim.until_s > now_s]
    for claim in near:
        if claim.kind == "maintenance":
            for one in holdings:
                if one.node_id in claim.node_ids and one.ends_s > max(claim.from_s, now_s):
                    _name(leaves, one, claim, now_s)
    for at_s in sorted({max(claim.from_s, now_s) for claim in near if claim.kind == "reservation"}):
        there = [claim for claim in near if claim.from_s <= at_s < claim.until_s]
        for site, model in sorted({_place(claim) for claim in there if claim.shape is not None}):
            local = [claim for claim in there if claim.shape is not None and _place(claim) == (site, model)]
            away = {name for claim in there if claim.kind == "maintenance" for name in claim.node_ids}
            here = {bay.node_id: bay.accelerators for bay in bays if (bay.site, bay.model) == (site, model)}
            stays = [
                one for one in holdings if one.node_id in here and one.model == model and one.ends_s > at_s
            ]
            room = {name: count for name, count in here.items() if name not in away}
            _clear(local, room, stays, leaves, wanted, at_s, now_s)
    return tuple(sorted(leaves.values(), key=lambda leave: (leave.ask_at_s, leave.run_id)))


def _clear(
    claims: Sequence[FutureClaim],
    room: dict[str, int],
    stays: Sequence[Holding],
    leaves: dict[str, Leave],
    wanted: Mapping[str, int],
    at_s: float,
    now_s: float,
) -> None:
    """Name who must go so that the pods of these claims, of one model at one site, have room at `at_s`."""
    own = {claim.reservation_id for claim in claims}
    soft: dict[str, list[Holding]] = defaultdict(list)
    weight: dict[str, int] = defaultdict(int)
    for one in stays:
        if one.node_id not in room:
            continue
        if one.firm_until_s > at_s or one.reservation_id in own:
            room[one.node_id] -= one.accelerators
        else:
            soft[one.node_id].append(one)
            weight[one.run_id] += one.accelerators
    firm = dict(
        room
    )  # free on each node beside what is firm and what was given out; the soft ones still stand there

    def victims(node_id: str, size: int) -> list[Holding]:
        """The fewest runs of a node that, gone with those who are going anyway, leave `size` free."""
        left = [one for one in soft[node_id] if one.run_id not in leaves]
        free = firm[node_id] - sum(one.accelerators for one in left)
        chosen = []
        for one in sorted(left, key=lambda one: (-one.accelerators, weight[one.run_id], one.run_id)):
            if free >= size:
                break
            chosen.append(one)
            free += one.accelerators
        return chosen

    def cost(node_id: str, size: int) -> float:
        return float(sum(weight[one.run_id] for one in victims(node_id, size)))

    claim_of = {claim.reservation_id: claim for claim in claims}

    def took(need: Need, node_id: str) -> None:
        for one in victims(node_id, need.accelerators):
            _name(leaves, one, claim_of[need.whose], now_s)
        firm[node_id] -= need.accelerators

    needs = _needs(claims, wanted, now_s)
    cheapest_fits = placed(needs, dict(room), cost=cost) == 0
    placed(needs, room, cost=cost if cheapest_fits else None, took=took)


def _needs(claims: Sequence[FutureClaim], wanted: Mapping[str, int], now_s: float) -> list[Need]:
    """What has to be empty: all of a claim, or so much as is waited for where it may be resold."""
    needs, left = [], dict(wanted)
    for claim in claims:
        assert claim.shape is not None
        pods = claim.pods_left
        if claim.resold(now_s):
            pods = min(pods, left.get(claim.reservation_id, 0))
            left[claim.reservation_id] = left.get(claim.reservation_id, 0) - pods
        if pods:
            needs.append(Need(claim.shape.milli // WHOLE, pods, claim.node_ids, claim.reservation_id))
    return needs


def _name(leaves: dict[str, Leave], one: Holding, claim: FutureClaim, now_s: float) -> None:
    by_s = max(claim.from_s, now_s)
    ask_at_s = max(now_s, by_s - one.grace_s)
    if one.run_id not in leaves or ask_at_s < leaves[one.run_id].ask_at_s:
        leaves[one.run_id] = Leave(
            run_id=one.run_id,
            node_id=one.node_id,
            claim=claim.name,
            kind=claim.kind,
            ask_at_s=ask_at_s,
            by_s=by_s,
        )


def _place(claim: FutureClaim) -> tuple[str, str]:
    assert claim.shape is not None
    return claim.shape.sites[0], claim.shape.models[0]
