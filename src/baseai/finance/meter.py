"""The meter turns what was observed of a lease into usage lines: who used which accelerator from when to when.

Invariant: a line lies inside one UTC hour and never changes; the lines of a lease are the same whether it is
metered once, hourly, late, twice or by two copies at once. So a line is only made of time that is *final*: an
hour that is over, with observed time after it, or all that is left once the lease has ended. Whether the run
pays is known only at its end, so the line that reaches the end carries the verdict; earlier ones are presumed
billable, and posting credits them when the verdict is otherwise. A run of our own is never billable, from its first
line on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from baseai.ground.clock import hour_of

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedLease:
    """A lease with what its agent saw of it, all instants by the database's clock."""

    lease_id: str
    run_id: str
    attempt_no: int
    tenant_id: str
    project_id: str
    node_id: str
    site_id: str
    model: str
    accelerator_nos: tuple[int, ...]
    granted_at: datetime
    ends_at: datetime
    released_at: datetime | None
    observed_from: datetime | None  # the first and the last moment at which its processes were seen
    observed_until: datetime | None
    ended: bool  # nothing more will be observed, and the attempt has its verdict
    billable: bool | None = None  # the verdict; None: none was given, which bills
    unbilled_for: str | None = (
        None  # why no line of it is ever billed, whatever the verdict: the run is our own
    )
    reason: str | None = None
    metered_until: datetime | None = None  # lines exist up to here


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """One accelerator used for a while within one hour."""

    line_id: str
    lease_id: str
    run_id: str
    attempt_no: int
    tenant_id: str
    project_id: str
    accelerator_no: int
    node_id: str
    site_id: str
    model: str
    hour: datetime
    from_at: datetime
    to_at: datetime  # exclusive
    micro_seconds: int
    billable: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of one lease within one hour; every accelerator of the lease has a line of it."""

    stamp: str  # its start, as it stands in the ids of its lines
    hour: datetime
    from_at: datetime
    to_at: datetime  # exclusive
    micro_seconds: int
    billable: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The spans that became final, and how far the lease is metered with them."""

    spans: tuple[Span, ...]
    metered_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """The lines that became final, and how far the lease is metered with them."""

    lines: tuple[UsageLine, ...]
    metered_until: datetime | None


def micro_seconds(length: timedelta) -> int:
    """The length in whole µs, exactly."""
    return length // MICROSECOND


def observed_span(lease: ObservedLease) -> tuple[datetime, datetime] | None:
    """The observed time that falls inside the lease; None when there is none."""
    if lease.observed_from is None or lease.observed_until is None:
        return None
    start = max(lease.observed_from, lease.granted_at)
    end = min(lease.observed_until, lease.ends_at, lease.released_at or lease.ends_at)
    return (start, end) if start < end else None


def final_spans(lease: ObservedLease, *, now: datetime) -> Final:
    """The time of `lease` that is final at `now` and not metered yet, cut at each UTC hour.

    The last moment of a lease that has not ended is never metered: its end is still open to the verdict,
    and `ends_at` may still be moved.
    """
    span = observed_span(lease)
    if span is None:
        return Final(spans=(), metered_until=_settled(lease))
    start, end = span
    if lease.metered_until is not None:
        start = max(start, lease.metered_until)
    final = end if lease.ended else min(hour_of(end - MICROSECOND), hour_of(now))
    if final <= start:
        return Final(spans=(), metered_until=_settled(lease))
    spans = []
    from_at = start
    while from_at < final:
        hour = hour_of(from_at)
        to_at = min(hour + HOUR, final)
        last = to_at == end
        spans.append(
            Span(
                stamp=_stamp(hour, from_at),
                hour=hour,
                from_at=from_at,
                to_at=to_at,
                micro_seconds=micro_seconds(to_at - from_at),
                billable=lease.unbilled_for is None and (lease.billable is not False or not last),
                reason=lease.unbilled_for or (lease.reason if last else None),
            )
        )
        from_at = to_at
    return Final(spans=tuple(spans), metered_until=final)


def usage_of(lease: ObservedLease, *, now: datetime) -> Metered:
    """The lines of `lease` that are final at `now` and not metered yet: each span on each of its accelerators."""
    final = final_spans(lease, now=now)
    stem = lease.lease_id.replace("lea_", "use_")
    lines = tuple(
        UsageLine(
            line_id=f"{stem}-{accelerator_no}-{span.stamp}",
            lease_id=lease.lease_id,
            run_id=lease.run_id,
            attempt_no=lease.attempt_no,
            tenant_id=lease.tenant_id,
            project_id=lease.project_id,
            accelerator_no=accelerator_no,
            node_id=lease.node_id,
            site_id=lease.site_id,
            model=lease.model,
            hour=span.hour,
            from_at=span.from_at,
            to_at=span.to_at,
            micro_seconds=span.micro_seconds,
            billable=span.billable,
            reason=span.reason,
        )
        for span in final.spans
        for accelerator_no in sorted(lease.accelerator_nos)
    )
    return Metered(lines=lines, metered_until=final.metered_until)


def _settled(lease: ObservedLease) -> datetime | None:
    """How far a lease counts as metered when no line was due: an ended one up to its last sign of life."""
    if not lease.ended or lease.observed_until is None:
        return lease.metered_until
    end = min(lease.observed_until, lease.ends_at, lease.released_at or lease.ends_at)
    return end if lease.metered_until is None else max(end, lease.metered_until)


def _stamp(hour: datetime, from_at: datetime) -> str:
    """The instant as UTC text, so that equal instants of different zones give one id: `2026112010+1800000000`."""
    return f"{hour:%Y%m%d%H}" + (f"+{micro_seconds(from_at - hour)}" if from_at != hour else "")
