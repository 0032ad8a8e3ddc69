"""Oversold is what the calendar must never be: at every instant all that is reserved fits into what is there.

Invariant: `admit` and `admit_window` let nothing in by which a lot would come short (`lot.Lot.short`), and `behind`
lets no run go on by which one would. Whoever is refused hears what would do instead, and that was tried.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace

from baseai.scheduling.calendar import Calendar, ClaimKind
from baseai.scheduling.lot import Lot
from baseai.scheduling.maintenance import AHEAD, Window
from baseai.scheduling.reservation import Reservation

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
    tenant_id: str | None = None  # whose reservation it is, where it is one


def admit(asked: Reservation, calendar: Calendar, now_s: float) -> Admitted | Oversold:
    """Whether a reservation can be promised beside all that is booked and stands."""
    lot = Lot(calendar, asked.site, asked.model)
    if lot.fits(asked):
        return Admitted()
    first, until, short = _shortage(asked, lot)
    # The most nodes that fit: more never do where fewer do not.
    nodes_most = bisect_left(
        range(1, asked.nodes), True, key=lambda nodes: not lot.fits(replace(asked, nodes=nodes))
    )
    return Oversold(
        from_s=first,
        until_s=until,
        accelerators_short=short,
        earlier_s=_earlier(asked, lot, now_s),
        later_s=_later(asked, lot),
        nodes_most=nodes_most,
    )


def admit_window(asked: Window, calendar: Calendar) -> Admitted | Behind:
    """Whether nodes can be taken out without taking what is reserved; else the first that it would."""
    nodes = set(asked.node_ids)
    for other in sorted(calendar.windows, key=lambda window: (window.from_s, window.maintenance_id)):
        shared = other.state in AHEAD and nodes.intersection(other.node_ids)
        if shared and other.from_s < asked.until_s and asked.from_s < other.until_s:
            return Behind(kind="maintenance", name=other.maintenance_id, from_s=other.from_s)
    found = []
    for site, model in sorted({(bay.site, bay.model) for bay in calendar.bays if bay.node_id in nodes}):
        lot = Lot(calendar, site, model)
        hit = _first_worse(lot, lot.beside(asked), asked.from_s, asked.until_s)
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
    site_of = {bay.node_id: bay.site for bay in calendar.bays if bay.node_id in nodes}
    for site, model in sorted({(site_of[one.node_id], one.model) for one in held if one.node_id in site_of}):
        lot = Lot(calendar, site, model)
        hit = _first_worse(lot, lot.longer(run_id, until_s), ends_s, until_s)
        found += [] if hit is None else [hit]
    return min(found, key=lambda hit: (hit.from_s, hit.name), default=None)


def _shortage(asked: Reservation, lot: Lot) -> tuple[float, float, int]:
    """From when to when it is short first, and by how much at most. Between two beginnings that only shrinks."""
    begins = lot.begins(asked.from_s, asked.until_s)
    first = next(at for at in begins if lot.short(at, asked))
    worst, known = 0, [at for at in begins if at >= first]
    for at, following in zip(known, [*known[1:], asked.until_s], strict=True):
        worst = max(worst, lot.short(at, asked))
        ends = [at, *lot.ends(at, following)]
        over = bisect_left(ends, True, key=lambda end: lot.short(end, asked) == 0)
        if over < len(ends):
            return first, ends[over], worst
    return first, asked.until_s, worst


def _earlier(asked: Reservation, lot: Lot, now_s: float) -> float | None:
    """The nearest start before at which it would end just as something begins, and have room."""
    long_s = asked.until_s - asked.from_s
    starts = {begin - long_s for begin, _ in lot.spans()}
    tried = sorted((start for start in starts if now_s <= start < asked.from_s), reverse=True)
    return _first_start(asked, lot, tried)


def _later(asked: Reservation, lot: Lot) -> float | None:
    """The nearest start after at which something ends, and it would have room; among many ends some are tried."""
    ends = lot.ends(asked.from_s, float("inf"))
    return _first_start(asked, lot, ends[:: max(1, len(ends) // STARTS_TRIED)])


def _first_start(asked: Reservation, lot: Lot, starts: list[float]) -> float | None:
    long_s = asked.until_s - asked.from_s
    for start in starts[: STARTS_TRIED + 1]:
        if lot.fits(replace(asked, from_s=start, until_s=start + long_s)):
            return start
    return None


def _first_worse(before: Lot, after: Lot, from_s: float, until_s: float) -> Behind | None:
    """The reservation that comes short, or shorter, by a change of what is there."""
    for at in after.begins(from_s, until_s):
        if after.short(at) > before.short(at):
            standing = [one for one in after.reservations if one.from_s <= at < one.until_s]
            last = max(standing, key=lambda one: (one.from_s, one.name))
            return Behind(kind="reservation", name=last.name, from_s=last.from_s, tenant_id=last.tenant_id)
    return None
