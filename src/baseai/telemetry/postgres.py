"""What is measured, joined to the truth: which devices a node may speak for, and whose time each sample fell into.

Invariant: the store has a batch safe before it is accepted; a closed hour is never edited, a corrected one gets rows of
a higher revision; and an hour is closed the same whoever closes it, twice, late or beside another copy. Nothing is
asked of the store inside a transaction.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from baseai.ground.clock import hour_of, now_utc
from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import derived
from baseai.telemetry.attribution import FIELDS, UNSEEN, Course, counter_mj, course_of, is_apart, uses_of
from baseai.telemetry.exposition import Scrape
from baseai.telemetry.field import ACCELERATOR, Origin
from baseai.telemetry.intake import (
    TROUBLES_MAX,
    CollectorState,
    Measurement,
    Received,
    Sent,
    TakenIn,
    clock_sentence,
    clock_shift_ms,
    plain,
    taken_in,
)
from baseai.telemetry.remote_write import Ticks, Written, sent_of
from baseai.telemetry.sample import Batch
from baseai.telemetry.sample import Row as SampleRow
from baseai.telemetry.span import Span
from baseai.telemetry.store import AskedStore, By, FedStore, Place, StoreAway
from baseai.telemetry.tally import Tally, tally_of
from baseai.telemetry.use import Use
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

Row = dict[str, Any]

HOUR = timedelta(hours=1)
_HOUR_MS = 3_600_000
DEVICES_KNOWN_S = 30.0  # for so long a node's devices are not asked for again
COLLECTORS_TOLD_S = 60.0  # nor its collectors written down, while nothing about them changes
INTAKE = "intake"  # the collector by whose name the server says what it thinks of a node's batches
STRANGERS_TOLD = 20
COLLECTORS_MAX = 64  # of one node
TROUBLE_SHOWN_S = 600.0  # what was wrong with a batch stays to be seen for so long
COUNT_MAX = 2**31 - 1  # of an integer column
BIG_ROWS = 2_000  # a batch of so many is judged beside the loop

LATE_MS = 60_000  # a sample of an hour that ended longer ago may find it closed
ABSENT_AFTER = timedelta(minutes=15)  # then an hour is closed with what there is of it
LOOK_AGAIN = timedelta(minutes=10)  # at an hour that was closed so
WAIT_FOR_SAMPLES = timedelta(seconds=20)
RAW_KEPT = timedelta(days=13)  # an hour whose samples are about to be forgotten stays as it is
MARGINS_MS = (300_000, 3_600_000, 86_400_000)  # how far beyond a time its neighbouring samples are looked for
HOURS_AT_ONCE = 200
ASKED_AT_ONCE = 6
OPEN_ACCELERATORS_MAX = 512  # beyond that an answer ends with the last closed hour

log = logging.getLogger(__name__)


# ---- taking in ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Devices:
    """What the truth knows of one node's devices, and when it was asked."""

    site: str
    models: Mapping[str, str]  # serial → model
    asked_s: float


@dataclass(slots=True)
class _Told:
    """What stands in the truth about a node's collectors."""

    states: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    at_s: float = 0.0
    troubles: dict[str, float] = field(default_factory=dict)  # of its batches → when last so, newest last

    def remember(self, troubles: Sequence[str], now_s: float) -> tuple[str, ...]:
        """What was wrong of late, newest first and bounded, with what is wrong now."""
        for trouble in troubles:
            self.troubles.pop(trouble, None)
            self.troubles[trouble] = now_s
        recent = [each for each, at_s in self.troubles.items() if now_s - at_s < TROUBLE_SHOWN_S]
        self.troubles = {each: self.troubles[each] for each in recent[-TROUBLES_MAX:]}
        return tuple(reversed(self.troubles))


class Intake:
    """Takes in what nodes measured. It remembers devices, places and collectors for a while, and nothing else."""

    def __init__(self, truth: Truth, store: FedStore) -> None:
        self._truth = truth
        self._store = store
        self._devices: dict[str, _Devices] = {}
        self._placed: dict[tuple[str, str], Place] = {}
        self._told: dict[str, _Told] = {}
        # Of what Prometheus servers write: by node, "" for the fleet.
        self._names: dict[str, tuple[float, Mapping[str, tuple[str, str, str]]]] = {}
        self._ticks: dict[str, tuple[Ticks, asyncio.Lock]] = {}

    async def take(self, node_id: str, measurement: Measurement) -> Received:
        """What of it is safe, and what will never be taken. Raises StoreAway: then send all of it again."""
        now = now_utc()
        shift_ms = clock_shift_ms(measurement.sent_at, now)
        accepted: list[str] = []
        refused: dict[str, str] = {}
        clock = clock_sentence(shift_ms)
        troubles: list[str] = []
        for sent in measurement.batches:
            taken = await self._judged(node_id, sent, shift_ms=shift_ms, now=now)
            troubles += [f"{one.key or 'batch'} {one.field}: {one.sentence}" for one in taken.troubles]
            if taken.batch is None:
                refused[sent.batch_id] = taken.refused or "it has no rows"
                troubles += _rows_told(taken) or [refused[sent.batch_id]]
                continue
            try:
                await self.keep(taken.batch, now=now)
            except Refused as wrong:
                refused[sent.batch_id] = str(wrong)
                troubles.append(str(wrong))
                continue
            accepted.append(sent.batch_id)
            refused |= {f"{sent.batch_id}/{key}": why for key, why in taken.rows_refused.items()}
            troubles += _rows_told(taken)
        recent = self._told.setdefault(node_id, _Told()).remember(troubles, time.monotonic())
        shown = ((clock,) if clock else ()) + recent  # a clock that is off says so itself, with every message
        word = CollectorState(
            name=INTAKE,
            state="failing" if shown else "ok",
            interval_s=0.0,
            sentence=shown[0] if shown else None,
            troubles=shown[:TROUBLES_MAX],
        )
        await self._note_collectors(node_id, (*measurement.collectors, word), shift_ms)
        return Received(accepted=accepted, refused=refused)

    async def keep(self, batch: Batch, *, now: datetime) -> None:
        """Put a judged batch into the store, with where its things stand, and tell closed hours that it is late."""
        await self._place(batch)
        await self._store.append(batch)
        if batch.family is ACCELERATOR:
            await self._tell_late(batch, now)

    async def serials(self, node_id: str) -> Mapping[str, str]:
        """The accelerators of a node: serial → model."""
        return (await self._known(node_id)).models

    async def receive(self, scrape: Scrape, *, body_digest: str, node_id: str | None) -> Written:
        """Keep what a Prometheus wrote of accelerators: of one node's, or with None of all. Raises StoreAway."""
        now = now_utc()
        devices = await self._named(node_id)
        ticks, turn = self._ticks.setdefault(node_id or "", (Ticks(), asyncio.Lock()))
        async with turn:
            told = await asyncio.to_thread(ticks.told, scrape)
        by_node: dict[tuple[str, str], list[SampleRow]] = {}
        strangers: dict[str, None] = {}
        for row, identity in told.rows:
            names = (identity.serial, identity.uuid, f"{identity.node}/{identity.pci}")
            found = next((devices[name.lower()] for name in names if name.lower() in devices), None)
            if found is None:
                strangers[row.key] = None
                continue
            serial, owner, boot_id = found
            by_node.setdefault((owner, boot_id), []).append(replace(row, key=serial))
        kept = refused = 0
        for (owner, boot_id), rows in by_node.items():
            sent = sent_of(rows, batch_id=derived("rwr", body_digest, owner), boot_id=boot_id)
            taken = await self._judged(owner, sent, shift_ms=0, now=now)
            refused += len(rows) - (len(taken.batch) if taken.batch else 0)
            if taken.batch is not None:
                await self.keep(taken.batch, now=now)
                kept += len(taken.batch)
        return Written(
            samples=len(scrape),
            rows=kept,
            samples_unknown=told.samples_unknown,
            devices_unknown=tuple(strangers)[:STRANGERS_TOLD],
            rows_refused=refused,
        )

    async def _named(self, node_id: str | None) -> Mapping[str, tuple[str, str, str]]:
        """Accelerators by every name an exporter may give them, in small letters: serial, node and its boot."""
        at_s, found = self._names.get(node_id or "", (float("-inf"), {}))
        if time.monotonic() - at_s < DEVICES_KNOWN_S:
            return found
        async with self._truth.transaction() as session:
            rows = await fetch_all(
                session,
                "SELECT a.serial, a.uuid, a.pci, a.node_id, n.name, n.boot_id FROM accelerators a"
                " JOIN nodes n USING (node_id) WHERE %(node)s::text IS NULL OR a.node_id = %(node)s",
                {"node": node_id},
            )
        found = {
            name.lower(): (row["serial"], row["node_id"], row["boot_id"])
            for row in rows
            for name in (row["serial"], row["uuid"], row["pci"] and f"{row['name']}/{row['pci']}")
            if name
        }
        self._names[node_id or ""] = (time.monotonic(), found)
        return found

    async def _judged(self, node_id: str, sent: Sent, *, shift_ms: int, now: datetime) -> TakenIn:
        known = await self._known(node_id)
        if sent.family == ACCELERATOR.name and any(key not in known.models for key in sent.keys):
            known = await self._known(node_id, within_s=2.0)  # it may have been installed a moment ago
        judge = functools.partial(
            taken_in,
            sent,
            node_id=node_id,
            site=known.site,
            serials=known.models.keys(),
            shift_ms=shift_ms,
            now_ms=_ms(now),
        )
        return await asyncio.to_thread(judge) if len(sent.keys) > BIG_ROWS else judge()

    async def _known(self, node_id: str, *, within_s: float = DEVICES_KNOWN_S) -> _Devices:
        found = self._devices.get(node_id)
        if found is not None and time.monotonic() - found.asked_s < within_s:
            return found
        async with self._truth.transaction() as session:
            node = await fetch_one(session, "SELECT site_id FROM nodes WHERE node_id = %s", (node_id,))
            if node is None:
                raise NotFound("node", node_id)
            rows = await fetch_all(
                session, "SELECT serial, model FROM accelerators WHERE node_id = %s", (node_id,)
            )
        found = _Devices(node["site_id"], {row["serial"]: row["model"] for row in rows}, time.monotonic())
        self._devices[node_id] = found
        return found

    async def _place(self, batch: Batch) -> None:
        models = (await self._known(batch.node_id)).models if batch.family is ACCELERATOR else {}
        places = {
            key: Place(node_id=batch.node_id, site=batch.site, model=models.get(key, ""))
            for key in dict.fromkeys(batch.keys)
        }
        fresh = {k: place for k, place in places.items() if self._placed.get((batch.family.name, k)) != place}
        if fresh:
            await self._store.place(batch.family, fresh)
            self._placed |= {(batch.family.name, key): place for key, place in fresh.items()}

    async def _tell_late(self, batch: Batch, now: datetime) -> None:
        """Samples of hours that are over: those hours, and their neighbours, which share a border, are counted anew."""
        this_hour_ms = round(hour_of(now).timestamp() * 1000)
        limit_ms = min(this_hour_ms, round(now.timestamp() * 1000) - LATE_MS)
        touched: set[tuple[str, datetime]] = set()
        for key, at in zip(batch.keys, batch.ts_ms.tolist(), strict=True):
            if at < limit_ms:
                hour = hour_of(datetime.fromtimestamp(at / 1000, UTC))
                touched |= {(key, hour - HOUR), (key, hour), (key, hour + HOUR)}
        if not touched:
            return
        async with self._truth.transaction() as session:
            await session.execute(
                "UPDATE use_hours u SET late = late + 1, look_at = least(look_at, now() + interval '1 minute')"
                " FROM unnest(%s::text[], %s::timestamptz[]) AS t (serial, hour) JOIN accelerators a USING (serial)"
                " WHERE u.accelerator_no = a.accelerator_no AND u.hour = t.hour",
                ([key for key, _ in sorted(touched)], [hour for _, hour in sorted(touched)]),
            )

    async def _note_collectors(
        self, node_id: str, collectors: Sequence[CollectorState], shift_ms: int
    ) -> None:
        """Write down how a node's collectors fare, when that changed or was last written a while ago."""
        collectors = [_plain(one) for one in collectors[:COLLECTORS_MAX]]
        states = {
            one.name: (one.state, one.failures > 0, one.sentence, tuple(one.troubles)) for one in collectors
        }
        told = self._told.setdefault(node_id, _Told())
        if told.states == states and time.monotonic() - told.at_s < COLLECTORS_TOLD_S:
            return
        async with self._truth.transaction() as session:
            # Two messages of one node may be here at once, when an agent has given up waiting for the first.
            await session.execute("SELECT FROM nodes WHERE node_id = %s FOR NO KEY UPDATE", (node_id,))
            # A message that tells of no collector is no word on whether there are any.
            await session.execute(
                "DELETE FROM collectors WHERE node_id = %s AND (%s OR name = ANY(%s))",
                (node_id, len(states) > 1, list(states)),
            )
            for one in {one.name: one for one in collectors}.values():
                await session.execute(
                    "INSERT INTO collectors (node_id, name, state, interval_s, last_ok_at, took_ms, failures, sentence,"
                    " troubles) VALUES (%s, %s, %s, %s, coalesce(%s::timestamptz, CASE WHEN %s THEN now() END), %s, %s,"
                    " %s, %s)",
                    (node_id, one.name, one.state, one.interval_s, _moved(one.last_ok_at, shift_ms), one.name == INTAKE,
                     one.took_ms, one.failures, one.sentence, Jsonb(list(one.troubles))),
                )  # fmt: skip
        told.states, told.at_s = states, time.monotonic()


# ---- uses -----------------------------------------------------------------------------------------------------

OPEN_HOURS = """
INSERT INTO use_hours (accelerator_no, hour, look_at)
SELECT a.accelerator_no, h.hour, %(now)s FROM accelerators a
CROSS JOIN LATERAL generate_series(
  greatest(
    coalesce(
      (SELECT max(u.hour) + interval '1 hour' FROM use_hours u WHERE u.accelerator_no = a.accelerator_no),
      date_trunc('hour', a.installed_at, 'UTC')),
    date_trunc('hour', %(now)s::timestamptz, 'UTC') - %(kept)s::interval),
  date_trunc('hour', %(now)s::timestamptz - interval '60 seconds', 'UTC') - interval '1 hour',
  interval '1 hour') AS h (hour)
WHERE a.state = 'in_service' OR EXISTS (
  SELECT FROM lease_accelerators d WHERE d.accelerator_no = a.accelerator_no
    AND d.during && tstzrange(h.hour, h.hour + interval '1 hour'))
ON CONFLICT DO NOTHING
"""
DUE = """
SELECT u.*, a.serial, a.node_id, a.round_id FROM use_hours u JOIN accelerators a USING (accelerator_no)
WHERE u.look_at <= %(now)s ORDER BY u.look_at, u.accelerator_no, u.hour LIMIT %(limit)s
"""
# Each names the revision it saw: whoever comes second changes nothing.
LOOK_LATER = """
UPDATE use_hours SET look_at = %(look_at)s
WHERE accelerator_no = %(no)s AND hour = %(hour)s AND revision = %(seen)s
"""
CLOSE = """
UPDATE use_hours SET revision = %(revision)s, final = %(final)s, content = %(content)s, counter_mj = %(counter)s,
  attributed_mj = %(attributed)s, store_mj = %(store)s, apart = %(apart)s, closed_at = %(now)s,
  -- Samples that came while the store was asked are another reason to look.
  look_at = CASE WHEN late > %(late)s THEN %(now)s + interval '1 minute' ELSE %(look_at)s END
WHERE accelerator_no = %(no)s AND hour = %(hour)s AND revision = %(seen)s
"""
# As the meter does: what was observed, inside the lease.
SPANS = """
SELECT d.accelerator_no, a.serial, a.node_id, a.round_id, l.lease_id, l.run_id, l.tenant_id, l.project_id,
  greatest(l.observed_from, l.granted_at) AS from_at,
  least(l.observed_until, l.ends_at, l.released_at) AS until_at, l.state = 'released' AS released,
  (SELECT house FROM tenants t WHERE t.tenant_id = l.tenant_id) AS house
FROM lease_accelerators d JOIN leases l USING (lease_id) JOIN accelerators a USING (accelerator_no)
WHERE l.observed_from IS NOT NULL
"""
RECKONING = """
SELECT count(*) AS hours, count(u.store_mj) AS checked,
  count(*) FILTER (WHERE u.attributed_mj <> u.counter_mj) AS astray, count(*) FILTER (WHERE u.apart) AS apart,
  coalesce(array_agg(DISTINCT a.serial) FILTER (WHERE u.apart OR u.attributed_mj <> u.counter_mj), '{}') AS serials
FROM use_hours u JOIN accelerators a USING (accelerator_no)
WHERE u.revision > 0 AND u.hour >= now() - interval '7 days'
"""
SUBJECTS: Mapping[str, str] = {
    "run": "coalesce(u.run_id, '')",
    "tenant": "coalesce(u.tenant_id, '')",
    "lease": "coalesce(u.lease_id, '')",
    "round": "coalesce(u.round_id, '')",
    "node": "u.node_id",
    "accelerator": "a.accelerator_id",
}
OWNERS = ("run", "tenant", "lease")  # subjects that hold accelerators; the others are held
LABELS: Mapping[str, str] = {
    "run": "SELECT run_id AS id, name AS label FROM runs WHERE run_id = ANY(%s)",
    "tenant": "SELECT tenant_id AS id, name AS label FROM tenants WHERE tenant_id = ANY(%s)",
    "lease": "SELECT lease_id AS id, n.name AS label FROM leases JOIN nodes n USING (node_id)"
    " WHERE lease_id = ANY(%s)",
    "round": "SELECT id, id AS label FROM unnest(%s::text[]) AS id",
    "node": "SELECT node_id AS id, name AS label FROM nodes WHERE node_id = ANY(%s)",
    "accelerator": "SELECT accelerator_id AS id, model || ' ' || serial AS label FROM accelerators"
    " WHERE accelerator_id = ANY(%s)",
}
CLOSED = """
SELECT {subject} AS subject, sum(ms)::bigint AS ms,
  sum(ms) FILTER (WHERE u.lease_id IS NOT NULL AND u.tenant_id IS DISTINCT FROM
    (SELECT tenant_id FROM tenants WHERE house))::bigint AS held_ms,
  sum(u.seen_ms)::bigint AS seen_ms, sum(u.seen_ms) FILTER (WHERE u.util_pct IS NOT NULL)::bigint AS util_seen_ms,
  sum(u.util_pct * u.seen_ms) AS util_pct_ms, max(u.mem_used_max_b) AS mem_used_max_b,
  sum(u.energy_mj)::bigint AS energy_mj, array_agg(DISTINCT u.energy_origin) AS origins,
  sum(u.throttled_ms)::bigint AS throttled_ms, array_agg(DISTINCT u.method) AS methods,
  min(u.from_at) AS from_at, max(u.to_at) AS until_at
FROM uses u JOIN use_hours h USING (accelerator_no, hour, revision) JOIN accelerators a USING (accelerator_no),
  LATERAL (SELECT (extract(epoch FROM u.to_at - u.from_at) * 1000)::bigint AS ms) AS length
WHERE ({subject} = %(subject)s OR %(subject)s::text IS NULL) AND (u.hour >= %(from)s OR %(from)s::timestamptz IS NULL)
  AND u.hour < %(until)s
GROUP BY 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """What one round of attribution did."""

    closed: int = 0  # hours that got their first revision
    corrected: int = 0  # hours that got another
    waiting: int = 0  # hours whose samples are not in yet
    astray: tuple[str, ...] = ()  # `serial hour` whose uses do not add up to the counter: a bug
    apart: tuple[
        str, ...
    ] = ()  # `serial hour` of which the store's own sum says something else: a damaged store


@dataclass(slots=True)
class _Sum:
    """What one subject had, and from when to when."""

    tally: Tally = field(default_factory=Tally)
    from_at: datetime | None = None
    until_at: datetime | None = None
    is_open: bool = False

    def add(self, tally: Tally, from_at: datetime, until_at: datetime, *, is_open: bool) -> None:
        self.tally = self.tally.plus(tally)
        self.from_at = min(self.from_at or from_at, from_at)
        self.until_at = max(self.until_at or until_at, until_at)
        self.is_open = self.is_open or is_open


class Uses:
    """What accelerators gave to whom: hours are closed here, and asked for."""

    def __init__(self, truth: Truth, store: AskedStore) -> None:
        self._truth = truth
        self._store = store

    # ---- closing hours

    async def attribute(self, *, now: datetime | None = None) -> Attributed:
        """Close the hours whose samples are in, and count those anew for which samples came late. Raises StoreAway."""
        now = now or now_utc()
        async with self._truth.transaction() as session:
            await session.execute(OPEN_HOURS, {"now": now, "kept": RAW_KEPT})
        done = Attributed()
        while True:
            async with self._truth.transaction() as session:
                due = await fetch_all(session, DUE, {"now": now, "limit": HOURS_AT_ONCE})
                spans = await self._spans_of(session, due)
            if not due:
                return done
            courses = await self._courses(
                [(row["serial"], row["hour"], row["hour"] + HOUR) for row in due], now
            )
            sums = await self._sums(due)
            async with self._truth.transaction() as session:
                for row, course in zip(due, courses, strict=True):
                    own = sums.get((row["serial"], row["hour"]))
                    done = _with(done, row, *await self._close(session, row, course, own, spans, now))
            if len(due) < HOURS_AT_ONCE:
                return done

    async def _sums(self, hours: Sequence[Row]) -> dict[tuple[str, datetime], int]:
        """What the store's own sums say that counters gained: (serial, hour) → mJ. It adds up rows in another way."""
        found: dict[tuple[str, datetime], int] = {}
        for hour in sorted({row["hour"] for row in hours}):
            told = await self._store.aggregate(
                ACCELERATOR,
                "energy_j",
                from_ms=_ms(hour),
                until_ms=_ms(hour + HOUR),
                by=By.KEY,
                keys=sorted(row["serial"] for row in hours if row["hour"] == hour),
                points_max=1,
            )
            if told.ts_ms.tolist() != [_ms(hour)] or told.step_ms != _HOUR_MS:
                continue
            for group, gained in zip(told.groups, told.delta[:, 0].tolist(), strict=True):
                if gained == gained:  # not NaN
                    found[group, hour] = round(gained * 1000)
        return found

    async def _close(
        self,
        session: Session,
        hour: Row,
        course: Course,
        store_mj: int | None,
        spans: Sequence[Row],
        now: datetime,
    ) -> tuple[str, bool]:
        """Write one hour, if its samples and leases are in or it is too late to wait; what was done, and `is_apart`."""
        begin, end = hour["hour"], hour["hour"] + HOUR
        own = [
            row for row in spans
            if row["accelerator_no"] == hour["accelerator_no"] and row["from_at"] < end and row["until_at"] > begin
        ]  # fmt: skip
        sampled = len(course.at_ms) > 0 and int(course.at_ms[-1]) >= _ms(end)
        final = sampled and all(row["released"] or row["until_at"] >= end for row in own)
        known = {"no": hour["accelerator_no"], "hour": begin, "seen": hour["revision"], "now": now}
        if not final and hour["revision"] == 0 and now < end + ABSENT_AFTER:
            await session.execute(LOOK_LATER, known | {"look_at": now + WAIT_FOR_SAMPLES})
            return "waits", False
        held = [span for row in own if (span := _span(row)) is not None]
        uses = uses_of(hour["serial"], course, held, from_ms=_ms(begin), until_ms=_ms(end))
        content = derived("cnt", *(_told(use) for use in uses))
        revision = hour["revision"] + (content != hour["content"])
        counter, attributed = (
            counter_mj(course, _ms(begin), _ms(end)),
            sum(use.energy_mj or 0 for use in uses),
        )
        apart = is_apart(course, store_mj, _ms(begin), _ms(end))
        written = await session.execute(
            CLOSE,
            known
            | {
                "revision": revision,
                "final": final,
                "content": content,
                "counter": counter,
                "attributed": attributed,
                "store": store_mj,
                "apart": apart,
                "late": hour["late"],
                "look_at": None if final or begin < now - RAW_KEPT else now + LOOK_AGAIN,
            },
        )
        if written.rowcount == 0 or revision == hour["revision"]:
            return "same", False
        leases = {row["lease_id"]: row for row in own}
        for use in uses:
            await _insert(session, hour, revision, use, leases.get(use.owner or ""))
        if attributed != counter:
            return "astray", apart
        return "closed" if hour["revision"] == 0 else "corrected", apart

    async def _spans_of(self, session: Session, hours: Sequence[Row]) -> list[Row]:
        if not hours:
            return []
        return await fetch_all(
            session,
            SPANS + " AND d.accelerator_no = ANY(%s) AND d.during && tstzrange(%s, %s)",
            (
                sorted({row["accelerator_no"] for row in hours}),
                min(row["hour"] for row in hours),
                max(row["hour"] for row in hours) + HOUR,
            ),
        )

    async def _courses(self, asked: Sequence[tuple[str, datetime, datetime]], now: datetime) -> list[Course]:
        free = asyncio.Semaphore(ASKED_AT_ONCE)

        async def one(serial: str, begin: datetime, end: datetime) -> Course:
            async with free:
                return await self._course(serial, _ms(begin), _ms(end), _ms(now))

        return await asyncio.gather(*(one(*each) for each in asked))

    async def _course(self, serial: str, from_ms: int, until_ms: int, now_ms: int) -> Course:
        """What samples tell of a time, with those around it, however far away, so that both sides cut one border."""
        for margin_ms in MARGINS_MS[:-1]:
            course = await self._course_within(serial, from_ms - margin_ms, until_ms + margin_ms)
            told = course.energy.at_ms if course.energy is not None else course.at_ms
            before = len(told) > 0 and told[0] <= from_ms
            after = len(told) > 0 and (told[-1] >= until_ms or until_ms + margin_ms >= now_ms)
            if before and after:
                return course
        return await self._course_within(serial, from_ms - MARGINS_MS[-1], until_ms + MARGINS_MS[-1])

    async def _course_within(self, serial: str, from_ms: int, until_ms: int) -> Course:
        return course_of(
            await self._store.range(ACCELERATOR, serial, FIELDS, from_ms=from_ms, until_ms=until_ms)
        )

    # ---- asked for

    async def use_of_run(self, scope: Scope, run_id: str) -> Row:
        """All that a run had, the open hour with it. Raises NotFound."""
        async with self._truth.transaction(scope) as session:
            run = await fetch_one(
                session,
                "SELECT name, least(submitted_at, (SELECT min(granted_at) FROM leases l WHERE l.run_id = r.run_id))"
                " AS since FROM runs r WHERE run_id = %s",
                (run_id,),
            )
        if run is None:
            raise NotFound("run", run_id)
        rows = await self.uses(scope, by="run", subject=run_id, from_at=run["since"])
        return rows[0] if rows else _view(run_id, run["name"], _Sum(), run["since"], None)

    async def uses(
        self, scope: Scope, *, by: str, subject: str | None = None, from_at: datetime | None = None,
        until_at: datetime | None = None,
    ) -> list[Row]:  # fmt: skip
        """By run, tenant, lease, round, node or accelerator, most energy first; without instants the last day.

        Whole hours: the one that `from_at` falls into counts in full. Hours that are not closed are reckoned now. Time
        that nobody held is the subject "" where subjects are owners, and the platform's alone to see.
        """
        if by not in SUBJECTS:
            raise Refused(f"use is told by {', '.join(SUBJECTS)}, not by {by[:80]}")
        now = now_utc()
        until = min(until_at or now, now)
        since = hour_of(from_at or until - timedelta(days=1))
        sums: dict[str, _Sum] = {}
        async with self._truth.transaction(scope) as session:
            query = CLOSED.format(subject=SUBJECTS[by])
            for row in await fetch_all(session, query, {"subject": subject, "from": since, "until": until}):
                sums.setdefault(row["subject"], _Sum()).add(
                    _tally(row), row["from_at"], row["until_at"], is_open=False
                )
        missing = await self._add_open(sums, scope, by=by, subject=subject, since=since, until=until)
        async with self._truth.transaction(scope) as session:
            found = await fetch_all(session, LABELS[by], (sorted(sums),))
        labels = {row["id"]: row["label"] for row in found}
        return [
            _view(key, labels.get(key, key), total, since, missing)
            for key, total in sorted(
                sums.items(), key=lambda item: (-(item[1].tally.energy_mj or 0), item[0])
            )
        ]

    async def _add_open(
        self, sums: dict[str, _Sum], scope: Scope, *, by: str, subject: str | None, since: datetime, until: datetime
    ) -> str | None:  # fmt: skip
        """Reckon what no closed hour tells yet, and why it could not be, if so."""
        async with self._truth.transaction(scope) as session:
            spans = await fetch_all(
                session,
                SPANS + " AND d.during && tstzrange(%s, %s)"
                " AND least(l.observed_until, l.ends_at, l.released_at) > %s",
                (since, until, since),
            )
            devices = await self._open_devices(session, scope, spans, by=by, subject=subject)
        begins = {row["accelerator_no"]: max(row["closed_until"] or since, since) for row in devices}
        devices = [row for row in devices if begins[row["accelerator_no"]] < until]
        if by in OWNERS and subject is not None:  # only what of it is theirs
            own = {
                row["accelerator_no"] for row in spans
                if row[f"{by}_id"] == subject and row["until_at"] > begins.get(row["accelerator_no"], until)
            }  # fmt: skip
            devices = [row for row in devices if row["accelerator_no"] in own]
        if len(devices) > OPEN_ACCELERATORS_MAX:
            return f"hours that are not closed are not told of more than {OPEN_ACCELERATORS_MAX} accelerators"
        asked = [(row["serial"], begins[row["accelerator_no"]], until) for row in devices]
        missing = None
        try:
            courses = await self._courses(asked, until)
        except StoreAway as away:  # who held what is known all the same
            missing, courses = str(away), [UNSEEN] * len(asked)
        for row, (_, begin, _), course in zip(devices, asked, courses, strict=True):
            own_spans = [span for span in spans if span["accelerator_no"] == row["accelerator_no"]]
            owners = {span["lease_id"]: span for span in own_spans}
            held = [each for span in own_spans if (each := _span(span))]
            for use in uses_of(row["serial"], course, held, from_ms=_ms(begin), until_ms=_ms(until)):
                key = _subject(by, row, owners.get(use.owner or ""))
                if (subject is None or key == subject) and (use.owner is not None or scope.tenant_id is None):
                    sums.setdefault(key, _Sum()).add(
                        tally_of(use, held=_is_held(owners.get(use.owner or ""))),
                        _at(use.from_ms),
                        _at(use.until_ms),
                        is_open=True,
                    )
        return missing

    async def _open_devices(
        self, session: Session, scope: Scope, spans: Sequence[Row], *, by: str, subject: str | None
    ) -> list[Row]:
        """The accelerators of which open hours may be told: a tenant's own, or all that the question is about."""
        mine = None if scope.tenant_id is None else sorted({row["accelerator_no"] for row in spans})
        return await fetch_all(
            session,
            "SELECT a.accelerator_no, a.accelerator_id, a.serial, a.node_id, a.round_id,"
            " greatest((SELECT max(u.hour) + interval '1 hour' FROM use_hours u"
            " WHERE u.accelerator_no = a.accelerator_no AND u.revision > 0), a.installed_at) AS closed_until"
            " FROM accelerators a WHERE (a.state = 'in_service' OR a.accelerator_no = ANY(%(leased)s))"
            " AND (%(mine)s::bigint[] IS NULL OR a.accelerator_no = ANY(%(mine)s))"
            " AND (%(subject)s::text IS NULL OR %(by)s IN ('run', 'tenant', 'lease')"
            " OR (%(by)s = 'node' AND a.node_id = %(subject)s)"
            " OR (%(by)s = 'round' AND coalesce(a.round_id, '') = %(subject)s)"
            " OR (%(by)s = 'accelerator' AND a.accelerator_id = %(subject)s))",
            {"leased": sorted({row["accelerator_no"] for row in spans}), "mine": mine, "by": by, "subject": subject},
        )  # fmt: skip

    async def spans_of_run(self, scope: Scope, run_id: str) -> list[Row]:
        """Which accelerators a run had from when to when: serial, node_id, model, from_at, until_at."""
        async with self._truth.transaction(scope) as session:
            return await fetch_all(
                session,
                f"SELECT s.serial, s.node_id, s.from_at, s.until_at, s.released FROM ({SPANS} AND l.run_id = %s) AS s"  # noqa: S608
                " ORDER BY s.from_at, s.serial",
                (run_id,),
            )

    async def reckoning(self, scope: Scope) -> Row:
        """Whether uses add up, of the hours of the last 7 days: hours, checked, astray and apart, serials of those."""
        async with self._truth.transaction(scope) as session:
            row = await fetch_one(session, RECKONING)
        assert row is not None
        return dict(row)

    async def collectors(self, scope: Scope, node_id: str) -> list[Row]:
        """How a node's collectors fare: rows with the fields of CollectorView."""
        return [row for row in await self.all_collectors(scope) if row["node_id"] == node_id]

    async def all_collectors(self, scope: Scope) -> list[Row]:
        """The same of all nodes, with node and node_id."""
        async with self._truth.transaction(scope) as session:
            return await fetch_all(
                session,
                "SELECT c.*, n.name AS node FROM collectors c JOIN nodes n USING (node_id) ORDER BY n.name, c.name",
            )


def _with(done: Attributed, hour: Row, what: str, is_apart: bool) -> Attributed:
    name = f"{hour['serial']} {hour['hour'].isoformat()}"
    return Attributed(
        closed=done.closed + (what in ("closed", "astray") and hour["revision"] == 0),
        corrected=done.corrected + (what in ("corrected", "astray") and hour["revision"] > 0),
        waiting=done.waiting + (what == "waits"),
        astray=(*done.astray, name) if what == "astray" else done.astray,
        apart=(*done.apart, name) if is_apart else done.apart,
    )


def _rows_told(taken: TakenIn) -> list[str]:
    return [f"{plain(key)}: {why}" for key, why in taken.rows_refused.items()]


def _moved(at: datetime | None, shift_ms: int) -> datetime | None:
    """An instant of a node by the server's clock; None for one beyond all time."""
    try:
        return at and at + timedelta(milliseconds=shift_ms)
    except OverflowError:
        return None


def _plain(one: CollectorState) -> CollectorState:
    """The same with text and numbers that PostgreSQL can hold, and not too much of it."""
    return replace(
        one,
        name=plain(one.name),
        interval_s=one.interval_s if 0 <= one.interval_s < COUNT_MAX else 0.0,
        took_ms=one.took_ms if one.took_ms is not None and 0 <= one.took_ms < COUNT_MAX else None,
        failures=min(max(0, one.failures), COUNT_MAX),
        sentence=None if one.sentence is None else plain(one.sentence),
        troubles=tuple(plain(trouble) for trouble in list(one.troubles)[:TROUBLES_MAX]),
    )


async def _insert(session: Session, hour: Row, revision: int, use: Use, lease: Row | None) -> None:
    await session.execute(
        "INSERT INTO uses (use_id, accelerator_no, node_id, round_id, hour, revision, lease_id, run_id, tenant_id,"
        " project_id, from_at, to_at, seen_ms, util_pct, mem_used_max_b, energy_mj, energy_origin, throttled_ms,"
        " method) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (
            derived("use", hour["accelerator_no"], hour["hour"], revision, use.from_ms, use.owner),
            hour["accelerator_no"], hour["node_id"], hour["round_id"], hour["hour"], revision,
            *((lease["lease_id"], lease["run_id"], lease["tenant_id"], lease["project_id"]) if lease else (None,) * 4),
            _at(use.from_ms), _at(use.until_ms), use.seen_ms, use.util_pct, use.mem_used_max_b, use.energy_mj,
            None if use.energy_mj is None else use.energy_origin.name.lower(), use.throttled_ms, use.method.value,
        ),
    )  # fmt: skip


def _span(row: Row) -> Span | None:
    begin, end = _ms(row["from_at"]), _ms(row["until_at"])
    return Span(owner=row["lease_id"], from_ms=begin, until_ms=end) if begin < end else None


def _is_held(lease: Row | None) -> bool:
    """Whether somebody had it; the platform's own tests are nobody's use."""
    return lease is not None and not lease["house"]


def _subject(by: str, device: Row, lease: Row | None) -> str:
    if by in OWNERS:
        return str(lease[f"{by}_id"]) if lease is not None else ""
    return str(device[{"round": "round_id", "node": "node_id", "accelerator": "accelerator_id"}[by]] or "")


def _told(use: Use) -> tuple[Any, ...]:
    return (
        use.owner, use.from_ms, use.until_ms, use.seen_ms, use.util_pct, use.mem_used_max_b, use.energy_mj,
        use.energy_origin.value, use.throttled_ms, use.method.value,
    )  # fmt: skip


def _tally(row: Row) -> Tally:
    origins = [Origin[origin.upper()] for origin in row["origins"] if origin is not None]
    return Tally(
        ms=row["ms"],
        held_ms=row["held_ms"] or 0,
        seen_ms=row["seen_ms"],
        util_seen_ms=row["util_seen_ms"] or 0,
        util_pct_ms=row["util_pct_ms"] or 0.0,
        mem_used_max_b=row["mem_used_max_b"],
        energy_mj=row["energy_mj"],
        energy_origin=max(origins, default=None),
        throttled_ms=row["throttled_ms"],
        methods=frozenset(row["methods"]),
    )


def _view(subject: str, label: str, total: _Sum, since: datetime, missing: str | None) -> Row:
    tally = total.tally
    return {
        "subject": subject,
        "label": label,
        "from_at": total.from_at or since,
        "until_at": total.until_at or since,
        "accelerator_s": tally.ms / 1000,
        "held_s": tally.held_ms / 1000,
        "seen_s": tally.seen_ms / 1000,
        "util_pct": tally.util_pct,
        "mem_used_max_b": tally.mem_used_max_b,
        "energy_wh": tally.energy_wh,
        "energy_origin": None if tally.energy_origin is None else tally.energy_origin.name.lower(),
        "throttled_s": None if tally.throttled_ms is None else tally.throttled_ms / 1000,
        "methods": sorted(tally.methods),
        "open": total.is_open,
        "missing": missing,
    }


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


__all__ = ["Attributed", "Intake", "Uses"]
