"""Oversold is what the calendar must never be: at every instant all that is reserved fits into what is there.

Invariant: what is there at an instant is what is installed, less nodes under maintenance, less what runs hold then that
need not make way. Pods are packed onto single nodes, so that eight accelerators on one node are not sold as one on each
of eight. The packing is a heuristic on the safe side: what it places can be placed, and for sizes that divide each
other, as 1, 2, 4 and 8 do, it finds room wherever there is any. `admit`, `admit_window` and `behind` ask it.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from baseai.scheduling.calendar import Bay, ClaimKind, Holding
from baseai.scheduling.maintenance import AHEAD, Window
from baseai.scheduling.reservation import STANDING, Reservation

STARTS_TRIED = 24  # each way, when another start is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """There is room from beginning to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oversold:
    """Too little is free for it, first over [from_s, until_s), and what would do instead."""

    from_s: float
    until_s: float
    accelerators_short: int  # at the worst instant of it
    earlier_s: float | None  # the nearest start before, and after, at which all of it is free for as long
    later_s: float | None
    nodes_most: int  # so many nodes of it are free at the time that was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What is booked on capacity that somebody else asked for."""

    kind: ClaimKind
    name: str
    from_s: float


class Need(NamedTuple):
    """Equal pods, each on a node of its own."""

    accelerators: int
    pods: int
    node_ids: tuple[str, ...] = ()  # there if it can be; empty means anywhere
    whose: str = ""  # the id of its reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """All that is booked, and what stands now."""

    bays: Sequence[Bay]
    reservations: Sequence[Reservation]
    windows: Sequence[Window]
    holdings: Sequence[Holding]


def admit(asked: Reservation, calendar: Calendar, now_s: float) -> Admitted | Oversold:
    """Whether a reservation can be promised beside all that is booked and stands.

    Load only grows where something begins, so those instants decide. O(instants * nodes of the model and site).
    """
    local = _local(calendar, asked.site, asked.model)
    if _fits(asked, local):
        return Admitted()
    with_it = replace(local, reservations=(*local.reservations, asked))
    shorts = [(at, _short(with_it, at)) for at in _instants(with_it, asked.from_s, asked.until_s, ends=True)]
    first = next(at for at, short in shorts if short)
    until = next((at for at, short in shorts if at > first and not short), asked.until_s)
    least, most = 0, asked.nodes - 1
    while least < most:
        middle = (least + most + 1) // 2
        if _fits(replace(asked, nodes=middle), local):
            least = middle
        else:
            most = middle - 1
    return Oversold(
        from_s=first,
        until_s=until,
        accelerators_short=max(short for at, short in shorts if first <= at < until),
        earlier_s=_another_start(asked, local, now_s, later=False),
        later_s=_another_start(asked, local, now_s, later=True),
        nodes_most=least if least and _fits(replace(asked, nodes=least), local) else 0,
    )


def admit_window(asked: Window, calendar: Calendar) -> Admitted | Behind:
    """Whether nodes can be taken out without taking what is reserved; else the first that it would."""
    nodes = set(asked.node_ids)
    for other in sorted(calendar.windows, key=lambda window: (window.from_s, window.maintenance_id)):
        shared = other.state in AHEAD and nodes.intersection(other.node_ids)
        if shared and other.from_s < asked.until_s and asked.from_s < other.until_s:
            return Behind(kind="maintenance", name=other.maintenance_id, from_s=other.from_s)
    places = sorted({(bay.site, bay.model) for bay in calendar.bays if bay.node_id in nodes})
    found = []
    for site, model in places:
        local = _local(calendar, site, model)
        with_it = replace(local, windows=(*local.windows, asked))
        hit = _first_worse(local, with_it, asked.from_s, asked.until_s)
        found += [] if hit is None else [hit]
    return min(found, key=lambda hit: (hit.from_s, hit.name), default=Admitted())


def behind(run_id: str, until_s: float, calendar: Calendar) -> Behind | None:
    """What is booked behind the leases of a run, in the way of their standing until `until_s`; the first of it."""
    held = [one for one in calendar.holdings if one.run_id == run_id]
    nodes = {one.node_id for one in held}
    ends_s = min((one.ends_s for one in held), default=until_s)
    found = [
        Behind(kind="maintenance", name=window.maintenance_id, from_s=window.from_s)
        for window in calendar.windows
        if window.state in AHEAD and window.from_s < until_s and window.until_s > ends_s
        and nodes.intersection(window.node_ids)
    ]  # fmt: skip
    site_of = {bay.node_id: bay.site for bay in calendar.bays}
    longer = [
        replace(one, ends_s=until_s, firm_until_s=until_s) if one.run_id == run_id else one
        for one in calendar.holdings
    ]
    for site, model in sorted({(site_of[one.node_id], one.model) for one in held if one.node_id in site_of}):
        local = _local(calendar, site, model)
        with_it = _local(replace(calendar, holdings=longer), site, model)
        hit = _first_worse(local, with_it, ends_s, until_s)
        found += [] if hit is None else [hit]
    return min(found, key=lambda hit: (hit.from_s, hit.name), default=None)


def room_at(
    at_s: float, bays: Iterable[Bay], down: Iterable[Window], holdings: Iterable[Holding]
) -> dict[str, int]:
    """Accelerators on each node that is not under maintenance, less what is held firmly at `at_s`.

    bays and holdings: of one model at one site. May be below 0 where accelerators have failed under a lease.
    """
    away = {
        node_id
        for window in down
        if window.state in AHEAD and window.from_s <= at_s < window.until_s
        for node_id in window.node_ids
    }
    room: dict[str, int] = {bay.node_id: bay.accelerators for bay in bays if bay.node_id not in away}
    for one in holdings:
        if one.node_id in room and not one.going and min(one.ends_s, one.firm_until_s) > at_s:
            room[one.node_id] -= one.accelerators
    return room


def placed(
    needs: Sequence[Need],
    room: dict[str, int],
    *,
    cost: Callable[[str, int], float] | None = None,
    took: Callable[[Need, str], None] | None = None,
) -> int:
    """Put all pods into `room`, which shrinks; how many accelerators find none.

    The largest pods first, of equal ones those of which there are the most; each onto the node with the most room, or,
    with `cost`, the cheapest, which `took` is told.
    """
    short = 0
    for need in sorted(needs, key=lambda need: (not need.node_ids, -need.accelerators, -need.pods)):
        size = need.accelerators
        fitting = [name for name in need.node_ids if room.get(name, 0) >= size]
        fitting = fitting or [name for name, left in room.items() if left >= size]
        if cost is None:
            chosen = heapq.nsmallest(need.pods, fitting, key=lambda name: (-room[name], name))
        else:
            prices = {name: cost(name, size) for name in fitting}
            chosen = heapq.nsmallest(need.pods, fitting, key=lambda name: (prices[name], -room[name], name))
        for name in chosen:
            if took is not None:
                took(need, name)
            room[name] -= size
        short += (need.pods - len(chosen)) * size
    return short


def needs_of(
    reservations: Iterable[Reservation], holdings: Iterable[Holding], room: Mapping[str, int]
) -> list[Need]:
    """What reservations need beside what their own runs hold on nodes that are there."""
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for holding in holdings:
        if holding.reservation_id is not None and holding.node_id in room:
            held[holding.reservation_id][holding.node_id] += holding.accelerators
    needs = []
    for one in reservations:
        begun, pods_left = one.pods_left(held.get(one.reservation_id, {}))
        needs += [
            Need(one.accelerators - count, 1, (node_id,), one.reservation_id) for node_id, count in begun
        ]
        if pods_left:
            needs.append(Need(one.accelerators, pods_left, (), one.reservation_id))
    return needs


def _fits(asked: Reservation, local: Calendar) -> bool:
    with_it = replace(local, reservations=(*local.reservations, asked))
    return not any(_short(with_it, at) for at in _instants(with_it, asked.from_s, asked.until_s))


def _short(local: Calendar, at_s: float) -> int:
    """Accelerators by which one model at one site is oversold at one instant."""
    standing = [
        one for one in local.reservations if one.state in STANDING and one.from_s <= at_s < one.until_s
    ]
    if not standing:
        return 0
    room = room_at(at_s, local.bays, local.windows, local.holdings)
    lasting = [one for one in local.holdings if one.ends_s > at_s]
    return placed(needs_of(standing, lasting, room), room)


def _first_worse(before: Calendar, after: Calendar, from_s: float, until_s: float) -> Behind | None:
    """The reservation that comes short, or shorter, by a change of what is there."""
    for at in _instants(after, from_s, until_s):
        if _short(after, at) > _short(before, at):
            standing = [one for one in after.reservations if one.from_s <= at < one.until_s]
            last = max(standing, key=lambda one: (one.from_s, one.name))
            return Behind(kind="reservation", name=last.name, from_s=last.from_s)
    return None


def _instants(local: Calendar, from_s: float, until_s: float, *, ends: bool = False) -> list[float]:
    """Where more is taken than just before, and with `ends` where less is, within [from_s, until_s)."""
    spans = _spans(local)
    instants = {from_s, *(start for start, _ in spans)}
    if ends:
        instants.update(end for _, end in spans)
        instants.update(min(one.ends_s, one.firm_until_s) for one in local.holdings)
    return sorted(at for at in instants if from_s <= at < until_s)


def _spans(local: Calendar) -> list[tuple[float, float]]:
    reserved = [(one.from_s, one.until_s) for one in local.reservations]
    return reserved + [(one.from_s, one.until_s) for one in local.windows]


def _another_start(asked: Reservation, local: Calendar, now_s: float, *, later: bool) -> float | None:
    """The nearest start at which something ends just before it, or begins just behind it, and all of it fits."""
    long_s = asked.until_s - asked.from_s
    spans = _spans(local)
    if later:
        ends = {end for _, end in spans} | {min(one.ends_s, one.firm_until_s) for one in local.holdings}
        starts = sorted(end for end in ends if asked.from_s < end < float("inf"))
    else:
        starts = sorted((begin - long_s for begin, _ in spans), reverse=True)
        starts = [start for start in dict.fromkeys(starts) if now_s <= start < asked.from_s]
    for start in starts[:STARTS_TRIED]:
        if _fits(replace(asked, from_s=start, until_s=start + long_s), local):
            return start
    return None


def _local(calendar: Calendar, site: str, model: str) -> Calendar:
    """What concerns one model at one site."""
    bays = [bay for bay in calendar.bays if (bay.site, bay.model) == (site, model)]
    nodes = {bay.node_id for bay in bays}
    return Calendar(
        bays=bays,
        reservations=[
            one
            for one in calendar.reservations
            if one.state in STANDING and (one.site, one.model) == (site, model)
        ],
        windows=[one for one in calendar.windows if one.state in AHEAD and nodes.intersection(one.node_ids)],
        holdings=[one for one in calendar.holdings if one.model == model and one.node_id in nodes],
    )
