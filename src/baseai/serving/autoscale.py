"""How many replicas a service is to have is decided from what was asked of it in the last seconds.

Invariant: `desired` is one pure function for production and twin: equal arguments, equal answer. What it must know of
earlier seconds it hands out as `Remembered` and takes back; where that is lost (a restarted controller) it learns
anew from the stable window. Nobody changes a `Wanted`; the next second makes another.

Two questions are kept apart. What is *usual*: the level of the load and how far it strays, learnt slowly, and from
the stable window alone as soon as that says something else. What is *urgent*: the panic window, and a queue that
stands. Replicas follow what is usual; what is urgent counts when it is twice what there is, or when requests are held.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling

MARGIN_SIGMAS = 1.5  # that a load may stray from its level and still find room
MEMORY = 5  # stable windows, over which level and straying are learnt
STRAYS_LEAST = (
    0.5  # variance over level: of requests that come by chance it would be 1 in a moment, 0.5 in its mean
)
STRAYS_MOST = 4.0  # times the known variance, that one second may tell of a greater one
ANOTHER_LEVEL_SIGMAS = 1.5  # from the level to the mean of the stable window: then there is another level,
CHANCE_SIGMAS = 2.5  # if it is also so far from what chance makes of requests that long
LEARNT_S = 20  # least seconds that tell another level, or that fewer replicas are enough
GROWTH_SIGMAS = 1.5  # from the first half of the stable window to the second, that are more than chance
PANIC_AT = 2.0  # times the replicas that are ready
PANIC_SIGMAS = 3.0  # beyond the level, so that few replicas do not panic at chance
PANIC_S = 12.0  # least length; by default two panic windows
DOWN_AT_ONCE = 2.0  # a decision at most divides by it
GUESSED_S = 1.0  # that a request takes, until one was seen
LATE_S = 2  # gateways tell a second at most so late; then nothing was asked in it


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicasSeen:
    """The replicas of one service at one instant."""

    ready: int  # that take requests, leaving ones among them, draining ones not
    starting: int = 0  # ordered, whether they wait for a lease or warm up
    leaving: int = 0  # of the ready ones, whose lease ends before another could be ready
    warm_up_s: float = 10.0  # from order to ready, as replicas of this service took lately

    def __post_init__(self) -> None:
        if not (0 <= self.leaving <= self.ready and self.starting >= 0 and self.warm_up_s >= 0):
            raise ValueError(f"{self} cannot be seen")

    @property
    def staying(self) -> int:
        """What there is and what comes, without what goes."""
        return self.ready - self.leaving + self.starting


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The load as it has been of late, in the service's metric."""

    level: float
    variance: float  # of means over the panic window around the level
    learnt_s: int  # seconds that it is learnt from

    @property
    def strays(self) -> float:
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a decision leaves for the next one."""

    usual: Usual | None = None  # None: nothing was learnt yet
    loads: tuple[float, ...] = ()  # of the stable window's seconds that were learnt from, the newest last
    learnt_at_s: int | None = None  # the second after the last of these
    service_s: float | None = None  # of a request on a replica, by Little's law
    asked_at_s: float | None = None  # when anything was last asked of the service
    panic_until_s: float | None = None  # None: calm
    panic_replicas: int = 0  # the most that this panic wanted
    lately: tuple[tuple[float, int], ...] = ()  # (instant, replicas) within the scale-down delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many replicas there shall be, and what that asks of who carries it out."""

    replicas: int  # that stay: those leaving are not among them
    start: int  # to be ordered now
    stop: int  # to be drained now: of those starting first, then of the ready ones
    panic: bool
    demand: float  # of the metric, that was decided by
    why: str
    remembered: Remembered


def looks_back_s(scaling: Scaling) -> float:
    """How many seconds of demand `desired` reads; older ones it leaves aside."""
    return max(scaling.stable_window_s, scaling.panic_window_s) + LATE_S + 1


def desired(
    scaling: Scaling,
    seconds: Sequence[DemandSecond],
    replicas: ReplicasSeen,
    *,
    now_s: float,
    remembered: Remembered | None = None,
) -> Wanted:
    """The replicas that a service is to have from now on.

    seconds: of the last `looks_back_s`, in any order, of one gateway or of several; a second without a row is one in
    which nothing was asked. Cost: some hundred additions a call, whatever the demand.
    """
    remembered = remembered or Remembered()
    told = _told(scaling, seconds, remembered.learnt_at_s, now_s)
    learnt = _learnt(scaling, told, replicas, remembered)
    usual = learnt.usual or Usual(level=0.0, variance=0.0, learnt_s=0)
    asked_at_s = _asked_at_s(told, replicas, remembered, now_s)
    rests = asked_at_s is None or now_s - asked_at_s > scaling.stable_window_s + scaling.to_zero_after_s
    ahead = _ahead(scaling, learnt.loads, usual, replicas.warm_up_s)
    expected = 0.0 if rests else usual.level + MARGIN_SIGMAS * usual.strays + ahead
    urgent = _urgent(scaling, told, replicas, learnt.service_s)
    by_usual = 0 if rests else max(1, _enough(expected, scaling))
    by_urgent = _enough(urgent, scaling)
    until_s = remembered.panic_until_s
    goes_on = until_s is not None and now_s < until_s and by_urgent > by_usual
    sudden = goes_on or by_urgent >= PANIC_AT * max(1, replicas.ready - replicas.leaving)
    if sudden and urgent > usual.level + PANIC_SIGMAS * usual.strays:
        until_s = now_s + max(PANIC_S, 2 * scaling.panic_window_s)
    in_panic = until_s is not None and now_s < until_s
    needed = by_usual
    if in_panic:
        needed = max(needed, by_urgent, remembered.panic_replicas)
    elif told and told[-1].held:
        needed = max(needed, by_urgent)
    if usual.learnt_s < LEARNT_S and not rests:
        needed = max(needed, replicas.staying)  # too little is known to let any of them go
    bounded = _bounded(scaling, needed, replicas, rests=rests)
    since_s = now_s - scaling.scale_down_delay_s
    lately = (*((at_s, count) for at_s, count in remembered.lately if at_s > since_s), (now_s, bounded))
    wanted = max(count for _, count in lately)
    return Wanted(
        replicas=wanted,
        start=max(0, wanted - replicas.staying),
        stop=max(0, replicas.staying - wanted),
        panic=in_panic,
        demand=max(expected, urgent) if in_panic else expected,
        why=_why(scaling, wanted, needed, usual, urgent, in_panic=in_panic, rests=rests),
        remembered=Remembered(
            usual=learnt.usual,
            loads=learnt.loads,
            learnt_at_s=learnt.learnt_at_s,
            service_s=learnt.service_s,
            asked_at_s=asked_at_s,
            panic_until_s=until_s if in_panic else None,
            panic_replicas=max(needed, remembered.panic_replicas) if in_panic else 0,
            lately=lately if scaling.scale_down_delay_s else (),
        ),
    )


def _enough(load: float, scaling: Scaling) -> int:
    return math.ceil(load / scaling.target - 1e-9)


def _bounded(scaling: Scaling, needed: int, replicas: ReplicasSeen, *, rests: bool) -> int:
    """Within the spec's bounds, with the standbys it pays for; to rest at once, otherwise down step by step."""
    slowly = 0 if rests else math.floor(replicas.staying / DOWN_AT_ONCE)
    return min(max(needed + scaling.warm, slowly, scaling.least), scaling.most)


def _why(
    scaling: Scaling, wanted: int, needed: int, usual: Usual, urgent: float, *, in_panic: bool, rests: bool
) -> str:
    unit = "requests at once" if scaling.metric == "concurrency" else "requests a second"
    if rests:
        told = f"nothing was asked for {scaling.stable_window_s + scaling.to_zero_after_s:g} s"
    elif in_panic:
        told = f"{urgent:.3g} {unit} all of a sudden, {usual.level:.3g} are usual, {scaling.target:g} each"
    else:
        told = f"{usual.level:.3g} {unit} ± {usual.strays:.2g}, {scaling.target:g} each"
    if scaling.warm and wanted == needed + scaling.warm:
        return f"{told}; {scaling.warm} stand by"
    if wanted == needed:
        return told
    if wanted == scaling.most and needed > wanted:
        return f"{told}; {wanted} at most"
    return f"{told}; {wanted} at least" if wanted == scaling.least else f"{told}; fewer step by step"


# ------------------------------------------------------------------------------------------------ what was asked


@dataclass(slots=True)
class _Second:
    """One second, summed over all gateways."""

    at_s: int
    concurrency: float = 0.0
    held: int = 0
    arrivals: int = 0


def _told(
    scaling: Scaling, seconds: Sequence[DemandSecond], learnt_at_s: int | None, now_s: float
) -> list[_Second]:
    """The seconds that count, oldest first, none left out; of a service never heard of from its first row on."""
    over_s = math.floor(now_s) - 1  # the last second that is over
    since_s = over_s - math.ceil(looks_back_s(scaling))
    found: dict[int, _Second] = {}
    for second in seconds:
        at_s = math.floor(second.at_s)
        if since_s < at_s <= over_s:
            one = found.setdefault(at_s, _Second(at_s))
            one.concurrency += second.concurrency
            one.held += second.held
            one.arrivals += second.arrivals
    known_s = [*found] if learnt_at_s is None else [*found, max(learnt_at_s, since_s + 1)]
    if not known_s:
        return []
    end_s = max([over_s - LATE_S, *found])
    return [found.get(at_s) or _Second(at_s) for at_s in range(min(known_s), end_s + 1)]


def _asked_at_s(
    told: Sequence[_Second], replicas: ReplicasSeen, remembered: Remembered, now_s: float
) -> float | None:
    """When anything was last asked; replicas of a past that nobody remembers count as if asked just now."""
    for second in reversed(told):
        if second.concurrency or second.arrivals or second.held:
            return float(second.at_s)
    if remembered.asked_at_s is None and replicas.staying:
        return now_s
    return remembered.asked_at_s


def _load(
    scaling: Scaling, told: Sequence[_Second], end: int, replicas: ReplicasSeen, service_s: float | None
) -> float:
    """What the second `told[end]` asked for, in the metric.

    What is held counts in full, as far as it stands. A queue that grows since replicas are too few, or still start, is
    told by the flow instead: what comes times how long each takes; or else each second of waiting would order more of
    what is ordered already. A queue that will be gone before another replica could be ready is not counted either.
    """
    last = told[end]
    if scaling.metric == "requests":
        return float(last.arrivals)
    if last.held == 0:
        return last.concurrency
    age = 1
    while age <= end and told[end - age].held:
        age += 1
    half = (age + 1) // 2
    before = told[end - half].held if end >= half else 0
    grows = (last.held - before) / half  # each second
    stands = last.held - grows * age if grows > 0 else last.held + grows * max(replicas.warm_up_s, age)
    window = told[max(0, end + 1 - round(scaling.panic_window_s)) : end + 1]
    flow = _arrivals(window) * (_service_s(window) or service_s or GUESSED_S)
    return min(max(last.concurrency, float(last.held)), flow + max(0.0, stands))


def _urgent(
    scaling: Scaling, told: Sequence[_Second], replicas: ReplicasSeen, service_s: float | None
) -> float:
    """What the panic window asks for."""
    if not told:
        return 0.0
    window = told[-round(scaling.panic_window_s) :]
    if scaling.metric == "requests":
        return _arrivals(window)
    if window[-1].held:
        return _load(scaling, told, len(told) - 1, replicas, service_s)
    return sum(second.concurrency for second in window) / len(window)


def _arrivals(window: Sequence[_Second]) -> float:
    """Each second."""
    return sum(second.arrivals for second in window) / len(window)


def _service_s(window: Sequence[_Second]) -> float | None:
    """How long a request takes on a replica: those under way over those answered each second (Little's law)."""
    under_way = sum(max(0.0, second.concurrency - second.held) for second in window) / len(window)
    grown = (window[-1].concurrency - window[0].concurrency) / max(1, len(window) - 1)
    answered = _arrivals(window) - grown
    return under_way / answered if under_way > 0 and answered > 0 else None


# ------------------------------------------------------------------------------------------------- what is usual


def _learnt(
    scaling: Scaling, told: Sequence[_Second], replicas: ReplicasSeen, remembered: Remembered
) -> Remembered:
    """What is remembered, with the seconds since the last decision; the newest may not be told by every gateway yet."""
    usual, service_s, learnt_at_s = remembered.usual, remembered.service_s, remembered.learnt_at_s
    loads = list(remembered.loads)
    stable, panic = round(scaling.stable_window_s), round(scaling.panic_window_s)
    for end, second in enumerate(told[:-1]):
        if learnt_at_s is not None and second.at_s < learnt_at_s:
            continue
        learnt_at_s = second.at_s + 1
        window = told[max(0, end + 1 - panic) : end + 1]
        seen_s = None if second.held else _service_s(window)
        if seen_s is not None:
            service_s = seen_s if service_s is None else service_s + 0.1 * (seen_s - service_s)
        loads.append(_load(scaling, told, end, replicas, service_s))
        del loads[:-stable]
        usual = _another(usual, loads, stable, panic, service_s or 0.0)
    return Remembered(
        usual=usual,
        loads=tuple(loads),
        learnt_at_s=learnt_at_s,
        service_s=service_s,
        asked_at_s=remembered.asked_at_s,
    )


def _ahead(scaling: Scaling, loads: Sequence[float], usual: Usual, warm_up_s: float) -> float:
    """What the load will have grown by when a replica ordered now is ready; at most what one replica carries.

    Growth is that from the first half of the stable window to the second. What may be chance is none: on recorded
    demand, following smaller growth costs more than it saves.
    """
    half = len(loads) // 2
    if half < LEARNT_S // 2:
        return 0.0
    grown = (sum(loads[-half:]) - sum(loads[-2 * half : -half])) / half
    return min(grown / half * warm_up_s, scaling.target) if grown > GROWTH_SIGMAS * usual.strays else 0.0


def _another(usual: Usual | None, loads: Sequence[float], stable: int, panic: int, service_s: float) -> Usual:
    """What is usual, one second on; from the stable window alone where that is at another level.

    It is where its mean is too far off to be chance, or where not one of its seconds reached over to the level.
    """
    if usual is None:
        return Usual(level=loads[-1], variance=STRAYS_LEAST * loads[-1], learnt_s=1)
    mean = sum(loads) / len(loads)
    learnt_s = min(usual.learnt_s + 1, MEMORY * stable)
    level = usual.level + (loads[-1] - usual.level) / learnt_s
    known = max(usual.variance, STRAYS_LEAST * level)
    window = loads[-panic:]
    strayed = min((sum(window) / len(window) - level) ** 2, STRAYS_MOST * known)
    variance = max(STRAYS_LEAST * level, known + (strayed - known) / learnt_s)
    # Requests that take long keep a chance crowd together: the mean of a window strays the more, the fewer fit into it.
    by_chance = math.sqrt(level * min(1.0, 2 * service_s / len(loads)))
    off_least = max(ANOTHER_LEVEL_SIGMAS * math.sqrt(variance), CHANCE_SIGMAS * by_chance)
    one_sided = len(loads) >= stable and (max(loads) < level or min(loads) > level)
    if one_sided or (len(loads) >= LEARNT_S and abs(mean - level) > off_least):
        last = loads[-2 * panic :]  # those of the new level alone, or nearly so
        middle = sum(last) / len(last)
        around = sum((load - middle) ** 2 for load in last) / len(last)
        return Usual(
            level=mean, variance=max(STRAYS_LEAST * mean, min(variance, around)), learnt_s=len(loads)
        )
    return Usual(level=level, variance=variance, learnt_s=learnt_s)
