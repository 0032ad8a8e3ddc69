"""The route of the time ledger: what every second of the accelerators was, over a span, by what is asked."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate
from baseai.finance.bucket import HOUR, NATURE
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport
from baseai.finance.period import ZONE
from baseai.ground.clock import hour_of, instant, now_utc
from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed

HOUR_US = 3_600_000_000
STEPS_MAX = 1_000  # of a series
STEP = {Pace.HOUR: HOUR, Pace.DAY: 24 * HOUR}

_Choice = TypeVar("_Choice", bound=StrEnum)


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The route, behind `gate`."""
    router = APIRouter()

    @router.get("/time")
    async def time(
        from_at: Annotated[str | None, Query(alias="from")] = None,
        to: str | None = None,
        by: str = "bucket",
        step: str | None = None,
        simulated: bool = False,
        _: Holder = gate.allowed(Deed.SEE_BOOKS),
    ) -> wire.TimeView:
        """Without a span: this month so far. Dates are days of the books' zone; instants name theirs."""
        since = _at("from", from_at) if from_at else _month_begins(now_utc())
        until = _at("to", to) if to else None
        now = now_utc()
        pace = _chosen(Pace, "step", step) if step else None
        end = until or hour_of(now) + HOUR
        if pace is not None and end - since > STEPS_MAX * STEP[pace]:
            raise Refused(f"from {since.isoformat()} to {end.isoformat()} are more than {STEPS_MAX} steps")
        chosen = _chosen(TimeBy, "by", by)
        report = await doors.time.told(since, end, by=chosen, pace=pace, simulated=simulated)
        return _view(report, chosen, now, simulated=simulated)

    return router


def _view(report: TimeReport, by: TimeBy, now: datetime, *, simulated: bool) -> wire.TimeView:
    whole: dict[tuple[str | None, datetime | None], int] = {}
    for one in report.sums:
        whole[one.subject, one.start_at] = whole.get((one.subject, one.start_at), 0) + one.micro_seconds
    closed = report.closed_until
    return wire.TimeView(
        from_at=report.from_at,
        until_at=min(report.until_at, now),
        by=by.value,
        installed_hours=_hours(report.installed_us),
        installed_us=report.installed_us,
        items=[
            wire.TimeRow(
                subject=one.subject,
                label=report.labels.get(one.subject or "", one.subject),
                start_at=one.start_at,
                bucket=one.bucket.value,
                accelerator_hours=_hours(one.micro_seconds),
                micro_seconds=one.micro_seconds,
                share_ratio=one.micro_seconds / whole[one.subject, one.start_at],
                used=NATURE[one.bucket].used,
                sold=NATURE[one.bucket].sold,
                available=NATURE[one.bucket].available,
                fault=NATURE[one.bucket].fault,
            )
            for one in report.sums
        ],
        closed_until=closed,
        provisional=not report.open_left_out and (closed is None or closed < min(report.until_at, now)),
        open_left_out=report.open_left_out,
        checked_at=report.checked_at,
        withheld=[
            wire.WithheldHour(hour=one.hour, site=one.site_id, sentence=one.sentence)
            for one in report.withheld
        ],
        revised=report.revised,
        simulated=simulated,
    )


def _hours(micro_seconds: int) -> Decimal:
    return (Decimal(micro_seconds) / HOUR_US).quantize(Decimal("0.000001"))


def _chosen(kind: type[_Choice], name: str, text: str) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        raise Refused(f"{name}={text} is not known; it is one of {', '.join(kind)}") from None


def _at(name: str, text: str) -> datetime:
    """A day of the books' zone, or an instant that names its zone."""
    try:
        if len(text) == 10:
            return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE))
        return instant(text)
    except ValueError as wrong:
        raise Refused(
            f"{name}={text} is neither a day like 2026-11-01 nor an instant like 2026-11-01T03:00:00Z: {wrong}"
        ) from wrong


def _month_begins(now: datetime) -> datetime:
    return now.astimezone(ZoneInfo(ZONE)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
