"""How many replicas a service is to have is decided from what was asked of it in the last seconds.

Invariant: `desired` is one pure function for production and twin: equal arguments, equal answer. What it must know of
earlier decisions it hands out as `Remembered` and takes back; a `Remembered()` in its place (a restarted controller)
costs calm for one window, nothing else. Nobody changes a `Wanted`; the next second makes another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from baseai.serving.demand import DemandSecond
from baseai.workloads.service import Scaling

UTILISATION = 0.7  # of the target that a replica is planned to carry; the rest takes what comes unevenly
PANIC_AT = 2.0  # times what is ready
DOWN_AT_ONCE = 2.0  # a decision at most divides by it


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
class Remembered:
    """What a decision leaves for the next one."""

    panic_until_s: float | None = None  # None: calm
    panic_replicas: int = 0  # the most that this panic wanted
    asked_at_s: float | None = None  # when anything was last asked of the service
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
    return max(scaling.stable_window_s, scaling.panic_window_s)


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
    which nothing was asked. The second that `now_s` lies in counts as far as it is told.
    """
    remembered = remembered or Remembered()
    summed = _by_second(seconds, since_s=now_s - looks_back_s(scaling), now_s=now_s)
    per_replica = scaling.target * UTILISATION
    newest_s = max(summed, default=math.floor(now_s))
    stable = _mean(summed, scaling, newest_s, scaling.stable_window_s)
    panic = _mean(summed, scaling, newest_s, scaling.panic_window_s)
    held = summed[newest_s].held if newest_s in summed else 0
    if held:
        panic = max(panic, _metric(summed[newest_s], scaling))
    asked_at_s = max(
        (at_s for at_s, second in summed.items() if second.arrivals or second.concurrency),
        default=remembered.asked_at_s,
    )
    calm, urgent = math.ceil(stable / per_replica), math.ceil(panic / per_replica)
    until_s = remembered.panic_until_s
    if urgent >= PANIC_AT * max(1, replicas.ready - replicas.leaving) and urgent > 1:
        until_s = now_s + scaling.stable_window_s
    if until_s is not None and now_s >= until_s:
        until_s = None
    in_panic = until_s is not None
    most_in_panic = max(remembered.panic_replicas, calm, urgent) if in_panic else 0
    by_demand = most_in_panic if in_panic else max(calm, urgent)
    rests = asked_at_s is None or now_s - asked_at_s > scaling.stable_window_s + scaling.to_zero_after_s
    if not rests:
        by_demand = max(1, by_demand)
    wanted = max(by_demand + scaling.warm, math.ceil(replicas.staying / DOWN_AT_ONCE) if not rests else 0)
    wanted = min(max(wanted, scaling.least), scaling.most)
    lately = tuple(each for each in remembered.lately if each[0] > now_s - scaling.scale_down_delay_s)
    delayed = max([wanted, *(count for _, count in lately)])
    after = replace(
        remembered,
        panic_until_s=until_s,
        panic_replicas=most_in_panic,
        asked_at_s=asked_at_s,
        lately=(*lately, (now_s, wanted)) if scaling.scale_down_delay_s else (),
    )
    return Wanted(
        replicas=delayed,
        start=max(0, delayed - replicas.staying),
        stop=max(0, replicas.staying - delayed),
        panic=in_panic,
        demand=max(stable, panic),
        why=f"{max(stable, panic):.3g} of {scaling.metric}, {per_replica:.3g} for each replica",
        remembered=after,
    )


@dataclass(slots=True)
class _Sum:
    concurrency: float = 0.0
    held: int = 0
    arrivals: int = 0


def _by_second(seconds: Sequence[DemandSecond], *, since_s: float, now_s: float) -> dict[int, _Sum]:
    summed: dict[int, _Sum] = {}
    for second in seconds:
        if since_s <= second.at_s <= now_s:
            one = summed.setdefault(math.floor(second.at_s), _Sum())
            one.concurrency += second.concurrency
            one.held += second.held
            one.arrivals += second.arrivals
    return summed


def _metric(second: _Sum, scaling: Scaling) -> float:
    return second.concurrency if scaling.metric == "concurrency" else float(second.arrivals)


def _mean(summed: dict[int, _Sum], scaling: Scaling, newest_s: int, window_s: float) -> float:
    count = max(1, round(window_s))
    return (
        sum(
            _metric(summed[at_s], scaling)
            for at_s in range(newest_s - count + 1, newest_s + 1)
            if at_s in summed
        )
        / count
    )
