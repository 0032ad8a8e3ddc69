"""A world between what was used and what is asked for, in which messages are lost, repeated and reordered, and in which
processes die between any two statements.

Facts are kept by whoever knows them: a gateway its counts, nodes what they saw. They are told again until somebody
acknowledges them. The platform's loops (meter, rate, post) and its issuing of invoices die wherever they like and are
started again. In the end the customer's invoice must be the one that the pure rules make of the same facts, told once
and in order, and the receivable must be that invoice, to the cent.
"""

import random
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from baseai.finance.contracts.postgres import Agreements, Rater, UsageEvents
from baseai.finance.customer import Customer
from baseai.finance.invoices.billed import Billed
from baseai.finance.invoices.drafting import Bill, drafts_of
from baseai.finance.invoices.invoice import Invoice, InvoiceLine
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.invoices.postgres import Invoices
from baseai.finance.period import Calendar, Period
from baseai.finance.postgres import Meter
from baseai.finance.postgres.books import insert_transfers, load_calendar
from baseai.finance.price_list import PriceBook, Term
from baseai.finance.ptax import Exchange, RateUnknown
from baseai.finance.rating import Rating, rate
from baseai.finance.usage_event import UsageEvent
from baseai.finance.use import MeteredUse
from baseai.ground.clock import hour_of
from baseai.ground.fault import Conflict, Refused
from baseai.truth.session import PLATFORM, Truth, fetch_all, fetch_one
from baseai.workloads.reason import VERDICTS, Reason
from tests.finance.agreed import price
from tests.finance.journal import Died, Fuse, FusedTruth
from tests.finance.leased import FlatRates

MONTH = Period(2025, 10)
BEGIN = MONTH.starts_at()
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
SEATS = 2
LIST = (
    price("p_slot", "2.37", model="cpu-slot", valid=(BEGIN - 9 * HOUR, None)),
    price("p_spot", "0.61", model="cpu-slot", term=Term.SPOT, valid=(BEGIN - 9 * HOUR, None)),
    price(
        "p_tokens",
        "3.3",
        meter="tokens_out",
        unit="million_tokens",
        model="llama",
        valid=(BEGIN - 9 * HOUR, None),
    ),
)
OUTCOMES = (Reason.FINISHED, Reason.COMMAND_FAILED, Reason.NODE_LOST, Reason.WORKER_LOST)


async def no_rate(on: Any) -> Exchange:
    raise RateUnknown(on, on)  # everything here is in one currency


@dataclass(slots=True)
class Leased:
    """One run on one slot, as far as it has been seen."""

    name: str
    seat: int
    spot: bool
    from_at: datetime
    seen_until: datetime
    ended: Reason | None = None

    @property
    def billable(self) -> bool:
        return self.ended is None or VERDICTS[self.ended].billable


class UsageWorld(RuleBasedStateMachine):
    """One customer, from its first use to its invoice."""

    steps = 0
    deaths = 0
    imbalances = 0
    worlds = 0

    truth: Truth  # of whoever tells and looks; set by the test
    fused: FusedTruth  # of the processes that die
    fuse: Fuse

    def __init__(self) -> None:
        super().__init__()
        type(self).worlds += 1
        self.name = f"{type(self).worlds}"
        self.events: dict[str, UsageEvent] = {}
        self.outbox: list[list[UsageEvent]] = []
        self.corrected: set[str] = set()
        self.leases: list[Leased] = []
        self.now = [BEGIN] * SEATS  # until when each slot is taken
        self.run(self._founded())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    @property
    def tenant(self) -> str:
        return f"ten_w{self.name}"

    async def _founded(self) -> None:
        async with self.truth.transaction() as session:
            await session.execute("RESET ROLE")
            await session.execute(
                "UPDATE meters SET began_at = %s WHERE began_at > %s", (BEGIN - HOUR, BEGIN)
            )
            await session.execute("SET ROLE baseai_service")
            await session.execute("INSERT INTO sites (site_id) VALUES ('local') ON CONFLICT DO NOTHING")
            await session.execute(
                "INSERT INTO tenants (tenant_id, name, created_at) VALUES (%s, %s, %s)",
                (self.tenant, f"w{self.name}", BEGIN - HOUR),
            )
            await session.execute(
                "INSERT INTO projects (project_id, tenant_id, name) VALUES (%s, %s, 'main')",
                (f"prj_w{self.name}", self.tenant),
            )
            await session.execute(
                "INSERT INTO nodes (node_id, name, site_id, address, state, isolation, cores, memory_mib, disk_mib,"
                " boot_id, protocol) VALUES (%s, %s, 'local', '', 'ready', 'user', 4, 1, 1, 'b', 1)",
                (f"nod_w{self.name}", f"w{self.name}"),
            )
            for seat in range(SEATS):
                await session.execute(
                    "INSERT INTO accelerators (accelerator_id, node_id, model, serial, device_index, state)"
                    " VALUES (%s, %s, 'cpu-slot', %s, %s, 'in_service')",
                    (f"acc_w{self.name}_{seat}", f"nod_w{self.name}", f"w{self.name}-{seat}", seat),
                )
        await Agreements(self.truth).add_customer(self.customer(), actor="test")

    def customer(self) -> Customer:
        return Customer(
            customer_id=f"cus_w{self.name}", tenant_id=self.tenant, legal_name=f"World {self.name}", country="US",
            tax_id=f"98-{self.name.zfill(7)}", currency="USD",
        )  # fmt: skip

    # ---- what is used

    @rule(count=st.integers(1, 4), quantity=st.integers(1, 5_000_000))
    def count_tokens(self, count: int, quantity: int) -> None:
        type(self).steps += 1
        group = []
        for _ in range(count):
            at = BEGIN + len(self.events) % 700 * HOUR
            name = f"e{len(self.events)}"
            self.events[name] = UsageEvent(
                source="gateway", event_id=name, tenant_id=self.tenant, project_id=f"prj_w{self.name}",
                meter="tokens_out", quantity=quantity + len(self.events), unit="tokens", from_at=at, until_at=at,
                model="llama",
            )  # fmt: skip
            group.append(self.events[name])
        self.outbox.append(group)

    @precondition(lambda self: len(self.events) > len(self.corrected))
    @rule(number=st.integers(0, 99), quantity=st.integers(0, 5_000_000))
    def correct(self, number: int, quantity: int) -> None:
        type(self).steps += 1
        wrong = [event for event in self.events.values() if event.event_id not in self.corrected]
        chosen = wrong[number % len(wrong)]
        name = f"e{len(self.events)}"
        self.events[name] = replace(chosen, event_id=name, quantity=quantity, corrects=chosen.event_id)
        self.corrected.add(chosen.event_id)
        self.outbox.append([self.events[name]])

    @rule(seat=st.integers(0, SEATS - 1), spot=st.booleans(), us=st.integers(1, 9_000_000_000))
    def start(self, seat: int, spot: bool, us: int) -> None:
        type(self).steps += 1
        if self.now[seat] > BEGIN + 400 * HOUR or any(
            one.ended is None and one.seat == seat for one in self.leases
        ):
            return
        began = self.now[seat]
        one = Leased(
            name=f"w{self.name}-{len(self.leases)}", seat=seat, spot=spot, from_at=began,
            seen_until=began + us * MICROSECOND,
        )  # fmt: skip
        self.leases.append(one)
        self.now[seat] = one.seen_until
        self.run(self._granted(one))

    @precondition(lambda self: any(one.ended is None for one in self.leases))
    @rule(
        number=st.integers(0, 99),
        us=st.integers(1, 9_000_000_000),
        outcome=st.none() | st.sampled_from(OUTCOMES),
    )
    def see(self, number: int, us: int, outcome: Reason | None) -> None:
        type(self).steps += 1
        going = [one for one in self.leases if one.ended is None]
        one = going[number % len(going)]
        if one.seen_until < BEGIN + 600 * HOUR:
            one.seen_until += us * MICROSECOND
        one.ended = outcome
        self.now[one.seat] = one.seen_until
        self.run(self._seen(one))

    async def _granted(self, one: Leased) -> None:
        whose = (self.tenant, f"prj_w{self.name}")
        async with self.truth.transaction() as session:
            await session.execute(
                "INSERT INTO runs (run_id, tenant_id, project_id, name, kind, spec, priority, state, submitted_by)"
                " VALUES (%s, %s, %s, %s, 'task', jsonb_build_object('spot', %s), 50, 'running', 'test')",
                (f"run_{one.name}", *whose, one.name, one.spot),
            )
            await session.execute(
                "INSERT INTO attempts (run_id, attempt_no, tenant_id, project_id, nodes, rendezvous_port, state)"
                " VALUES (%s, 1, %s, %s, 1, 1, 'running')",
                (f"run_{one.name}", *whose),
            )
            await session.execute(
                "INSERT INTO leases (lease_id, tenant_id, project_id, run_id, attempt_no, node_id, node_rank, model,"
                " state, granted_at, ends_at, observed_from, observed_until)"
                " VALUES (%s, %s, %s, %s, 1, %s, 0, 'cpu-slot', 'active', %s, %s, %s, %s)",
                (
                    f"lea_{one.name}", *whose, f"run_{one.name}", f"nod_w{self.name}", one.from_at,
                    MONTH.ends_at(), one.from_at, one.seen_until,
                ),
            )  # fmt: skip
            await session.execute(
                "INSERT INTO lease_accelerators (lease_id, accelerator_no, tenant_id, project_id, during)"
                " SELECT %s, accelerator_no, %s, %s, tstzrange(%s, %s) FROM accelerators WHERE serial = %s",
                (f"lea_{one.name}", *whose, one.from_at, MONTH.ends_at(), f"w{self.name}-{one.seat}"),
            )

    async def _seen(self, one: Leased) -> None:
        async with self.truth.transaction() as session:
            if one.ended is None:
                await session.execute(
                    "UPDATE leases SET observed_until = %s WHERE lease_id = %s",
                    (one.seen_until, f"lea_{one.name}"),
                )
                return
            await session.execute(
                "UPDATE lease_accelerators SET during = tstzrange(lower(during), %s) WHERE lease_id = %s",
                (one.seen_until, f"lea_{one.name}"),
            )
            await session.execute(
                "UPDATE leases SET observed_until = %s, released_at = %s, state = 'released' WHERE lease_id = %s",
                (one.seen_until, one.seen_until, f"lea_{one.name}"),
            )
            await session.execute(
                "UPDATE attempts SET state = 'ended', reason = %s WHERE run_id = %s",
                (one.ended.value, f"run_{one.name}"),
            )
            for state in ("stopping", "succeeded"):
                await session.execute(
                    "UPDATE runs SET state = %s WHERE run_id = %s", (state, f"run_{one.name}")
                )

    # ---- what is done about it, by processes that die

    @precondition(lambda self: self.outbox)
    @rule(
        number=st.integers(0, 99),
        dies_at=st.none() | st.integers(0, 9),
        again=st.booleans(),
        seed=st.integers(0, 99),
    )
    def tell(self, number: int, dies_at: int | None, again: bool, seed: int) -> None:
        """Any group, in any turn and any order within, together with old news, perhaps twice."""
        type(self).steps += 1
        group = self.outbox[number % len(self.outbox)]
        waiting = {event.event_id for some in self.outbox for event in some}
        old = [event for event in self.events.values() if event.event_id not in waiting]
        told = [*group, *old[-seed % 5 :]] if seed % 3 == 0 and old else list(group)
        random.Random(seed).shuffle(told)
        for _ in range(2 if again else 1):
            try:
                self.dying(UsageEvents(self.fused).record(told), dies_at)
            except Died:
                continue
            except (Refused, Conflict):
                continue  # it corrects what is not known yet; it is sent again
            self.outbox = [some for some in self.outbox if some is not group]

    @precondition(lambda self: self.events)
    @rule(number=st.integers(0, 99))
    def forge(self, number: int) -> None:
        """Another body under a known id is refused and changes nothing."""
        type(self).steps += 1
        waiting = {event.event_id for some in self.outbox for event in some}
        known = [event for event in self.events.values() if event.event_id not in waiting]
        if not known:
            return
        true = known[number % len(known)]
        try:
            self.run(UsageEvents(self.truth).record([replace(true, quantity=true.quantity + 1)]))
        except Conflict:
            return
        raise AssertionError(f"{true.event_id} was taken with another body")

    @rule(what=st.sampled_from(["meter", "rate", "post"]), dies_at=st.none() | st.integers(0, 25))
    def work(self, what: str, dies_at: int | None) -> None:
        type(self).steps += 1
        try:
            self.dying(self._work(what, self.fused), dies_at)
        except Died:
            return

    def dying(self, work: Coroutine[Any, Any, Any], dies_at: int | None) -> None:
        self.fuse.left = dies_at
        try:
            self.run(work)
        except Died:
            type(self).deaths += 1
            raise
        finally:
            self.fuse.left = None

    async def _work(self, what: str, truth: Truth) -> None:
        if what == "rate":
            await Rater(truth, load_calendar, lambda: LIST).rate()
            return
        meter = Meter(truth, FlatRates(), bills=False)  # another process each time
        await (meter.meter() if what == "meter" else meter.post())

    # ---- what must hold

    @invariant()
    def what_is_posted_is_owed(self) -> None:
        row = self.run(self._held())
        if row["owed"] != row["rated"]:
            type(self).imbalances += 1
        assert row["owed"] == row["rated"], row

    async def _held(self) -> Any:
        async with self.truth.transaction() as session:
            return await fetch_one(
                session,
                "SELECT COALESCE((SELECT sum(CASE WHEN debit_account = %(account)s THEN amount_micros"
                " ELSE -amount_micros END) FROM transfers WHERE %(account)s IN (debit_account, credit_account)), 0)"
                " AS owed, COALESCE((SELECT sum(amount_micros) FROM rated_lines r WHERE tenant_id = %(tenant)s"
                " AND NOT EXISTS (SELECT FROM unposted u WHERE u.rated_id = r.rated_id)), 0) AS rated",
                {"account": f"tenant:{self.tenant}:receivable", "tenant": self.tenant},
            )

    def teardown(self) -> None:
        """All is told, all runs end; then the invoice is the one of the same facts told once, in order."""
        for one in self.leases:
            if one.ended is None:
                one.ended = Reason.FINISHED
                self.run(self._seen(one))
        for _ in range(len(self.outbox) + 1):
            for group in list(self.outbox):
                try:
                    self.run(UsageEvents(self.truth).record(group))
                except Refused:
                    continue
                self.outbox = [some for some in self.outbox if some is not group]
        assert self.outbox == []
        for what in ("meter", "rate", "post"):
            self.run(self._work(what, self.truth))
        self.what_is_posted_is_owed()
        issued: list[Invoice] = []
        for lives in [*range(0, 40, 3), None]:  # one process after the other, each living longer
            issuing = Invoices(self.fused, no_rate, insert_transfers)
            try:
                self.dying(self._issued(issuing, issued), lives)
            except Died:
                continue
        self._agrees(self.run(self._documents()))

    async def _issued(self, invoices: Invoices, into: list[Invoice]) -> None:
        into += await invoices.issue(self.tenant, MONTH, Issuer(), actor="test")

    async def _documents(self) -> list[Invoice]:
        found = await Invoices(self.truth, no_rate, insert_transfers).all(
            PLATFORM, customer_id=f"cus_w{self.name}", period=str(MONTH), after=None, limit=10
        )
        return list(found)

    def _agrees(self, documents: list[Invoice]) -> None:
        expected = self.expected()
        total = sum(document.total_cents for document in documents)
        owed = self.run(self._held())["owed"]
        assert owed == total * 10_000, (owed, total)
        assert len(documents) <= 1
        found = _lines([line for document in documents for line in document.lines])
        wanted = _lines([line for invoice in expected for line in invoice.lines])
        # A line that was taken back took its rounding along: no more than a micro-unit each.
        slack = self.run(self._taken_back())
        for key in found.keys() | wanted.keys():
            (quantity, micros), (true_quantity, true_micros) = found.get(key, (0, 0)), wanted.get(key, (0, 0))
            assert quantity == true_quantity, key
            assert abs(micros - true_micros) <= slack, key
        true_total = sum(invoice.total_cents for invoice in expected)
        assert abs(total - true_total) <= (1 if found != wanted else 0), (total, true_total)

    async def _taken_back(self) -> int:
        async with self.truth.transaction() as session:
            row = await fetch_one(
                session,
                "SELECT count(*) AS lines FROM rated_lines WHERE tenant_id = %s AND corrects IS NOT NULL",
                (self.tenant,),
            )
        assert row is not None
        return int(row["lines"])

    def expected(self) -> list[Invoice]:
        """What the pure rules make of the facts."""
        stand = [event for event in self.events.values() if event.event_id not in self.corrected]
        uses = [event.use() for event in stand if event.quantity]  # what is corrected to nothing is no use
        for one in self.leases:
            at = one.from_at
            while one.billable and at < one.seen_until:
                until = min(hour_of(at) + HOUR, one.seen_until)
                uses.append(
                    MeteredUse(
                        usage_id=f"use_{one.name}-{len(uses)}", tenant_id=self.tenant,
                        project_id=f"prj_w{self.name}", from_at=at, until_at=until,
                        quantity=(until - at) // MICROSECOND, spot=one.spot, run_id=f"run_{one.name}",
                        accelerator_no=one.seat, model="cpu-slot", site_id="local",
                    )
                )  # fmt: skip
                at = until
        rating = rate(uses, (), PriceBook(LIST), calendar=Calendar())
        assert isinstance(rating, Rating)
        billed = [Billed(line=line) for line in rating.lines(recorded_at=datetime(2026, 1, 1, tzinfo=UTC))]
        if not billed:
            return []
        bill = Bill(issuer=Issuer(), customer=self.customer(), period=str(MONTH), billed=billed)
        return [draft.invoice for draft in drafts_of(bill)]


def _lines(lines: list[InvoiceLine]) -> dict[tuple[str, str], tuple[Decimal, int]]:
    """By what was used: how much, and what for; what was taken back taken off."""
    sums: dict[tuple[str, str], tuple[Decimal, int]] = {}
    for line in lines:
        key = (str(line.model), str(line.price_id))
        quantity, micros = sums.get(key, (Decimal(0), 0))
        sums[key] = (quantity + (line.quantity or 0), micros + line.micros)
    return {key: both for key, both in sums.items() if any(both)}


async def leftovers(truth: Truth) -> list[str]:
    """What nobody has rated or posted."""
    async with truth.transaction() as session:
        rows = await fetch_all(
            session, "SELECT usage_id AS name FROM unrated UNION ALL SELECT rated_id FROM unposted ORDER BY 1"
        )
    return [row["name"] for row in rows]
