"""What gateways counted, in PostgreSQL: demand, traffic, and usage for finance.

Invariant: a segment is added in the transaction that moves its gateway's mark beyond it. So one that is sent twice adds
nothing, and one whose transaction failed has added nothing.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import psycopg

from baseai.finance.usage_event import UsageEvent
from baseai.gateway.shipper import Marks
from baseai.gateway.traffic import Stretch, counts_of
from baseai.gateway.usage import Use, events_of
from baseai.ground.fault import Conflict, Refused
from baseai.serving.demand import DemandSecond
from baseai.truth.session import PLATFORM, Session, Truth, fetch_all, fetch_one

COUNTS = (
    "requests", "errors", "refused", "slow", "cache_hits", "collapsed", "retried", "lost", "tokens_in", "tokens_out",
    "bytes_in", "bytes_out",
)  # fmt: skip
HISTOGRAMS = ("latency", "first_byte")
DEMAND = """
INSERT INTO service_demand (service_id, gateway, at, concurrency, held, arrivals) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (service_id, gateway, at)
DO UPDATE SET concurrency = excluded.concurrency, held = excluded.held, arrivals = excluded.arrivals
"""
FORGET = "DELETE FROM service_demand WHERE at < now() - interval '10 minutes'"
MARK = "INSERT INTO gateway_marks (gateway) VALUES (%s) ON CONFLICT DO NOTHING"
MARKS = "SELECT traffic_no, usage_no FROM gateway_marks WHERE gateway = %s"
TRAFFIC = f"""
INSERT INTO service_traffic AS t (service_id, tenant_id, project_id, version_no, gateway, from_at,
  {", ".join((*COUNTS, *HISTOGRAMS))})
VALUES (%(service_id)s, %(tenant_id)s, %(project_id)s, %(version_no)s, %(gateway)s, %(from_at)s,
  {", ".join(f"%({name})s" for name in (*COUNTS, *HISTOGRAMS))})
ON CONFLICT (service_id, version_no, gateway, from_at) DO UPDATE SET
  {", ".join(f"{name} = t.{name} + excluded.{name}" for name in COUNTS)},
  {
    ", ".join(
        f"{name} = ARRAY(SELECT a + b FROM unnest(t.{name}, excluded.{name}) AS both_(a, b))"
        for name in HISTOGRAMS
    )
}
"""  # noqa: S608 - pieces are constants of this file
SERVICES = "SELECT service_id, model_name FROM services WHERE service_id = ANY(%s)"
FORGET_EVERY_S = 60.0

RecordEvents = Callable[[Session, Sequence[UsageEvent]], Awaitable[object]]  # of finance: all of them or none


class PostgresQuay:
    """Takes in what gateways counted. `record_events` is finance's, run in the transaction it is given."""

    def __init__(self, truth: Truth, record_events: RecordEvents) -> None:
        self._truth = truth
        self._record_events = record_events
        self._forgot_at_s = 0.0

    async def take_demand(self, gateway: str, seconds: Sequence[tuple[str, DemandSecond]]) -> None:
        """Keep what was asked for; what is ten minutes old is forgotten. Raises TruthUnavailable."""
        rows = [
            (
                service_id,
                gateway,
                datetime.fromtimestamp(one.at_s, UTC),
                one.concurrency,
                one.held,
                one.arrivals,
            )
            for service_id, one in seconds
        ]
        newest_s = max(one.at_s for _, one in seconds)
        async with self._truth.transaction(PLATFORM) as session:
            await session.cursor().executemany(DEMAND, rows)
            if newest_s - self._forgot_at_s >= FORGET_EVERY_S:
                await session.execute(FORGET)
                self._forgot_at_s = newest_s

    async def marks(self, gateway: str) -> Marks:
        async with self._truth.transaction(PLATFORM) as session:
            row = await fetch_one(session, MARKS, (gateway,))
        return (
            Marks(traffic_no=row["traffic_no"], usage_no=row["usage_no"])
            if row
            else Marks(traffic_no=0, usage_no=0)
        )

    async def take_traffic(self, gateway: str, no: int, stretches: Sequence[Stretch]) -> None:
        """Add one segment, unless it has been added. What is of no service is left out. Raises TruthUnavailable."""
        async with self._truth.transaction(PLATFORM) as session:
            if (await _locked(session, gateway)).traffic_no >= no:
                return
            models = await _models(session, {one.service_id for one in stretches})
            rows = [_row(one, gateway) for one in stretches if one.service_id in models]
            await session.cursor().executemany(TRAFFIC, rows)
            await session.execute(
                "UPDATE gateway_marks SET traffic_no = %s, at = now() WHERE gateway = %s", (no, gateway)
            )

    async def take_usage(self, gateway: str, first_no: int, last_no: int, uses: Sequence[Use]) -> None:
        """Record the usage of segments.

        Raises Conflict when some of them have been recorded, Refused when finance takes them not, TruthUnavailable.
        """
        try:
            async with self._truth.transaction(PLATFORM) as session:
                marks = await _locked(session, gateway)
                if marks.usage_no >= first_no:
                    raise Conflict(
                        f"segment {first_no} of {gateway} is recorded up to {marks.usage_no} already"
                    )
                models = await _models(session, {one.service_id for one in uses})
                events = events_of(uses, gateway=gateway, first_no=first_no, last_no=last_no, models=models)
                if events:
                    await self._record_events(session, events)
                await session.execute(
                    "UPDATE gateway_marks SET usage_no = %s, at = now() WHERE gateway = %s",
                    (last_no, gateway),
                )
        except psycopg.IntegrityError as wrong:
            raise Refused(f"segments {first_no} to {last_no} of {gateway}: {wrong}") from wrong


async def _locked(session: Session, gateway: str) -> Marks:
    """A gateway's marks, which nobody else moves until the transaction ends."""
    await session.execute(MARK, (gateway,))
    row = await fetch_one(session, f"{MARKS} FOR UPDATE", (gateway,))
    assert row is not None
    return Marks(traffic_no=row["traffic_no"], usage_no=row["usage_no"])


async def _models(session: Session, services: set[str]) -> dict[str, str]:
    rows = await fetch_all(session, SERVICES, (sorted(services),))
    return {row["service_id"]: row["model_name"] for row in rows}


def _row(one: Stretch, gateway: str) -> dict[str, object]:
    return {
        "service_id": one.service_id,
        "tenant_id": one.tenant_id,
        "project_id": one.project_id,
        "version_no": one.version_no,
        "gateway": gateway,
        "from_at": datetime.fromtimestamp(one.from_s, UTC),
        **{name: getattr(one, name) for name in COUNTS},
        **{name: counts_of(getattr(one, name)) for name in HISTOGRAMS},
    }
