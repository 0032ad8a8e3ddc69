"""A month of a fleet, drawn from a seed: what really happened, before anybody measured, rated or booked it.

Two sites in Brazil and one abroad; customers in reais and in dollars on every kind of contract; nodes that fail, are
repaired, join late; an accelerator that goes back to its maker; runs that cross both ends of the month. It is
simulated: instants, sizes and ends are drawn, prices and terms are those of `agreements.py`.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from baseai.finance.period import Period
from baseai.finance.usage_event import UsageEvent
from baseai.workloads.reason import Reason

MONTH = Period(2026, 10)
BEGIN, END = MONTH.starts_at(), MONTH.ends_at()
HOUR, MINUTE, MICROSECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(microseconds=1)
INSTALLED = BEGIN - 12 * HOUR
HALF = BEGIN + timedelta(
    days=13, hours=6
)  # what is known then is measured and billed before the rest happens
GONE = END + timedelta(days=2)  # the fleet is given back, so that its hours end
SEATS = 8  # accelerators of a node

# site, model, nodes of the whole fleet, round that paid them
HALLS = (
    ("SP4", "H100-SXM", 8, "captacao-1"),
    ("SP4", "L40S", 3, "captacao-2"),
    ("scala-rio", "L40S", 6, "captacao-1"),
    ("DC2", "MI300X", 5, "captacao-2"),
    ("DC2", "H100-SXM", 3, "captacao-2"),
)
TENANTS = ("alfa", "beta", "gama", "delta", "epsilon", "zeta")
# Who runs where, and how often; delta takes what is left, as spot.
WANTED = {
    ("SP4", "H100-SXM"): {"gama": 7, "delta": 2, "alfa": 1},
    ("SP4", "L40S"): {"alfa": 4, "zeta": 4, "delta": 2},
    ("scala-rio", "L40S"): {"epsilon": 4, "alfa": 3, "zeta": 2, "delta": 1},
    ("DC2", "MI300X"): {"beta": 7, "delta": 3},
    ("DC2", "H100-SXM"): {"beta": 5, "alfa": 3, "gama": 1},
}
GANGS = ((8,), (4, 4), (4, 2, 2), (2, 2, 2, 2), (4, 2, 1, 1), (1,) * 8)
ENDS = {
    Reason.FINISHED: 70,
    Reason.STOPPED_BY_USER: 12,
    Reason.COMMAND_FAILED: 8,
    Reason.OUT_OF_MEMORY: 4,
    Reason.WORKER_LOST: 4,
    Reason.START_FAILED: 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    serial: str
    seat: int  # 1 to 8
    installed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A node, or an accelerator by its serial, goes from one state to another."""

    at: datetime
    subject: str
    from_state: str
    to_state: str
    actor: str = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A stretch in which a node takes no runs, and what that means for those that are on it."""

    from_at: datetime
    until_at: datetime
    reason: Reason


@dataclass(slots=True, kw_only=True)
class Node:
    name: str
    site: str
    model: str
    round_id: str
    installed_at: datetime = INSTALLED
    accelerators: list[Accelerator] = field(default_factory=list)
    away: list[Away] = field(default_factory=list)
    seats: tuple[int, ...] = tuple(range(1, SEATS + 1))  # on which runs are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One attempt of a run on some accelerators of one node, or of several, as their agents saw it."""

    places: tuple[tuple[Node, tuple[str, ...]], ...]  # node, serials
    granted_at: datetime
    seen_from: datetime
    seen_until: datetime
    released_at: datetime
    reason: Reason
    saved_at: tuple[datetime, ...] = ()  # checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    name: str
    tenant: str
    spot: bool
    stays: tuple[Stay, ...]
    kind: str = "train"
    reservation: str | None = None


@dataclass(slots=True, kw_only=True)
class Recorded:
    """All that happened."""

    nodes: list[Node]
    runs: list[Run]
    moves: list[Move]
    events: list[UsageEvent]  # tokens that a gateway counted, in the order of its clock
    correction: UsageEvent
    late_event: UsageEvent  # told when the month is closed
    late_run: Run  # reported by its node when the month is closed
    gang: Run  # over two nodes, on what is reserved in the calendar

    def committed(self) -> int:
        """What gama has reserved: every H100 at SP4."""
        return sum(SEATS for node in self.nodes if (node.site, node.model) == ("SP4", "H100-SXM"))


def recorded(*, seed: int = 1, nodes: int = 25) -> Recorded:
    """The month of a fleet of about so many nodes, 25 or fewer, with 8 accelerators each."""
    chance = random.Random(seed)
    fleet = [
        Node(
            name=f"{site.lower()}-{model.split('-')[0].lower()}-{number}",
            site=site,
            model=model,
            round_id=round_id,
        )
        for site, model, count, round_id in HALLS
        for number in range(1, max(2 if (site, model) == ("SP4", "H100-SXM") else 1, count * nodes // 25) + 1)
    ]
    for node in fleet:
        node.accelerators = [
            Accelerator(serial=f"{node.name}-{seat}", seat=seat, installed_at=INSTALLED)
            for seat in node.seats
        ]
    moves: list[Move] = []
    special = list(_happenings(fleet, moves))
    runs = [run for node in fleet for run in _drawn(chance, node)]
    gang, late_run, *others = special
    for node in fleet:
        moves += _births(node)
        moves.append(Move(at=GONE, subject=node.name, from_state="ready", to_state="retired"))
    events, correction, late_event = _tokens(chance)
    return Recorded(
        nodes=fleet,
        runs=[*runs, gang, *others],
        moves=sorted(moves, key=lambda move: (move.at, move.subject)),
        events=events,
        correction=correction,
        late_event=late_event,
        late_run=late_run,
        gang=gang,
    )


def day(number: int, hour: float = 0) -> datetime:
    """An instant of October by São Paulo's clock."""
    return BEGIN + timedelta(days=number - 1, hours=hour)


def _happenings(fleet: Sequence[Node], moves: list[Move]) -> Iterator[Run]:
    """A gang over two nodes, a late report; a fault, a maintenance, a return to the maker, a node that joins late."""

    def first(site: str, model: str) -> Node:
        return next(node for node in fleet if (node.site, node.model) == (site, model))

    pair = [node for node in fleet if (node.site, node.model) == ("SP4", "H100-SXM")][:2]
    span = (day(4, 6), day(6, 18.25))
    for node in pair:
        node.away.append(Away(from_at=span[0] - MINUTE, until_at=span[1] + MINUTE, reason=Reason.PREEMPTED))
    yield _one("gang", "gama", [(node, node.seats) for node in pair], span, reservation="treino-outubro")

    silent = pair[1]
    silent.away.append(Away(from_at=day(27, 1), until_at=day(27, 6), reason=Reason.DRAINED))
    yield _one("spooled", "gama", [(silent, (1, 2))], (day(27, 1.5), day(27, 5.123)))

    ill = pair[0]
    down, up = day(14, 11.12), day(16, 9.3)
    ill.away.append(Away(from_at=day(14, 0.9), until_at=up, reason=Reason.PREEMPTED))
    yield _one("lost-with-its-node", "gama", [(ill, (1, 2, 3, 4))], (day(14, 1), down), Reason.NODE_LOST)
    yield _one("lost-beside-it", "delta", [(ill, (5, 6))], (day(14, 2), down), Reason.NODE_LOST)
    moves += [
        Move(at=down, subject=ill.name, from_state="ready", to_state="quarantined", actor="health"),
        Move(at=down + 4 * HOUR, subject=ill.name, from_state="quarantined", to_state="repairing"),
        Move(at=down + 20 * HOUR, subject=ill.name, from_state="repairing", to_state="verifying"),
        Move(at=up, subject=ill.name, from_state="verifying", to_state="ready", actor="platform"),
    ]

    served = first("SP4", "L40S")
    drained, back = day(20, 2), day(20, 8)
    served.away.append(Away(from_at=drained, until_at=back, reason=Reason.DRAINED))
    moves += [
        Move(at=drained, subject=served.name, from_state="ready", to_state="draining"),
        Move(at=drained + HOUR, subject=served.name, from_state="draining", to_state="repairing"),
        Move(at=back - HOUR, subject=served.name, from_state="repairing", to_state="verifying"),
        Move(at=back, subject=served.name, from_state="verifying", to_state="ready", actor="platform"),
    ]

    poor = first("DC2", "MI300X")
    broken = poor.accelerators[-1].serial
    poor.seats = poor.seats[:-1]
    poor.accelerators.append(
        Accelerator(serial=f"{poor.name}-8b", seat=SEATS, installed_at=day(22, 10) + 17 * MICROSECOND)
    )
    moves += [
        Move(at=day(9, 15), subject=broken, from_state="in_service", to_state="failed", actor="health"),
        Move(at=day(11, 9), subject=broken, from_state="failed", to_state="rma"),
        Move(at=day(20, 9), subject=broken, from_state="rma", to_state="retired"),
        Move(at=day(22, 14), subject=f"{poor.name}-8b", from_state="installed", to_state="in_service"),
    ]
    yield _one("until-it-broke", "beta", [(poor, (8,))], (BEGIN + 2 * HOUR, day(9, 15)), Reason.NODE_LOST)

    young = [node for node in fleet if (node.site, node.model) == ("DC2", "H100-SXM")][-1]
    young.installed_at = day(10, 9)
    young.accelerators = [
        Accelerator(serial=one.serial, seat=one.seat, installed_at=young.installed_at)
        for one in young.accelerators
    ]
    young.away.append(Away(from_at=INSTALLED, until_at=day(11, 7), reason=Reason.DRAINED))
    yield _one(
        "burn-in", "house", [(young, young.seats)], (day(10, 9.5), day(11, 6.5)), kind="burn_in"
    )  # fmt: skip


def _one(
    name: str,
    tenant: str,
    places: Sequence[tuple[Node, Sequence[int]]],
    span: tuple[datetime, datetime],
    reason: Reason = Reason.FINISHED,
    *,
    kind: str = "train",
    reservation: str | None = None,
) -> Run:
    stay = Stay(
        places=tuple(
            (node, tuple(one.serial for one in node.accelerators if one.seat in seats)[: len(seats)])
            for node, seats in places
        ),
        granted_at=span[0],
        seen_from=span[0] + timedelta(seconds=41.5),
        seen_until=span[1],
        released_at=span[1] + timedelta(seconds=1),
        reason=reason,
    )
    return Run(
        name=name, tenant=tenant, spot=tenant == "delta", stays=(stay,), kind=kind, reservation=reservation
    )


def _births(node: Node) -> Iterator[Move]:
    begun, ready = node.installed_at + 10 * MINUTE, node.installed_at + HOUR
    if node.installed_at > BEGIN:
        ready = node.installed_at + 22 * HOUR
    yield Move(at=begun, subject=node.name, from_state="onboarding", to_state="burn_in", actor="platform")
    yield Move(at=ready, subject=node.name, from_state="burn_in", to_state="ready", actor="platform")


def _drawn(chance: random.Random, node: Node) -> Iterator[Run]:
    """Runs on one node, in waves: each wave splits its seats among gangs and begins when the last one is over."""
    node.away.sort(key=lambda away: away.from_at)
    wanted = WANTED[node.site, node.model]
    now, last, number = INSTALLED + 2 * HOUR, END + 8 * HOUR, 0
    while now < last:
        over = now
        free = list(node.seats)
        for size in chance.choice(GANGS):
            seats, free = free[:size], free[size:]
            if len(seats) < size:
                continue
            tenant = chance.choices(list(wanted), list(wanted.values()))[0]
            begin = now + chance.randrange(2 * HOUR // MICROSECOND) * MICROSECOND
            length = min(60.0, chance.lognormvariate(2.3, 0.9)) * HOUR
            serials = tuple(node.accelerators[seat - 1].serial for seat in seats)
            stays = tuple(_stays(chance, node, serials, begin, length))
            number += 1
            if not stays:
                continue
            over = max(over, stays[-1].released_at)
            yield Run(name=f"{node.name}-{number}", tenant=tenant, spot=tenant == "delta", stays=stays)
        now = max(over, now + HOUR) + chance.randrange(HOUR // MICROSECOND) * MICROSECOND


def _stays(
    chance: random.Random, node: Node, serials: tuple[str, ...], begin: datetime, length: timedelta
) -> Iterator[Stay]:
    """Attempts of one run: it is taken up again where its node was away, and ends by itself in the end."""
    now, left = begin, length
    while left > MINUTE and now < END + 10 * HOUR:
        block = next((away for away in node.away if away.until_at > now), None)
        if block is not None and block.from_at <= now + 2 * MINUTE:
            now = block.until_at + 5 * MINUTE
            continue
        until = min(now + left, GONE - HOUR)
        hit = block is not None and block.from_at < until
        if block is not None and hit:
            until = block.from_at
        reason = chance.choices(list(ENDS), list(ENDS.values()))[0]
        if reason is Reason.START_FAILED:
            until = min(until, now + 3 * MINUTE)
        elif block is not None and hit:
            reason = block.reason
        seen_from = now + chance.randrange(20_000_000, 90_000_000) * MICROSECOND
        saved = (seen_from + (until - seen_from) / 2,) if reason is Reason.WORKER_LOST else ()
        yield Stay(
            places=((node, serials),),
            granted_at=now,
            seen_from=seen_from,
            seen_until=until,
            released_at=until + chance.randrange(5_000_000) * MICROSECOND,
            reason=reason,
            saved_at=saved,
        )
        if not hit:
            return
        left -= until - now
        now = until + MINUTE


def _tokens(chance: random.Random) -> tuple[list[UsageEvent], UsageEvent, UsageEvent]:
    """Hourly counts of a gateway, one of them wrong, one that comes when the month is closed."""

    def event(name: str, at: datetime, quantity: int, corrects: str | None = None) -> UsageEvent:
        return UsageEvent(
            source="gateway-sp4",
            event_id=name,
            tenant_id="ten_zeta",
            project_id="prj_zeta",
            meter="tokens_out",
            quantity=quantity,
            unit="tokens",
            from_at=at,
            until_at=at + HOUR,
            model="llama-3.3-70b",
            corrects=corrects,
        )

    events = [
        event(f"tok-{n}", BEGIN + n * HOUR, chance.randrange(200_000, 9_000_000)) for n in range(31 * 24)
    ]
    late = events.pop(500)
    wrong = events[100]
    return events, event("tok-right", wrong.from_at, wrong.quantity // 1000, wrong.event_id), late
