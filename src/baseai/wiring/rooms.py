"""The rooms of one process: every shell over one truth, joined to the catalogue by small adapters."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from baseai.catalog.catalog import Catalog, load_catalog
from baseai.engine.postgres import Engine, Places
from baseai.finance.contracts.postgres import Bulletins
from baseai.finance.cost import By
from baseai.finance.costs.assumed import Assumptions, shipped
from baseai.finance.costs.postgres import CostKeeper, Neighbours
from baseai.finance.costs.tariff import tariff_calendars
from baseai.finance.costs.terms import CostTerms
from baseai.finance.hours.facts import Hours, reckoned
from baseai.finance.hours.postgres import TimeLedger
from baseai.finance.hours.postgres.observed import load_facts
from baseai.finance.postgres import Meter, costs_in, load_transfers
from baseai.finance.postgres.books import guarded, insert_transfers, load_calendar
from baseai.finance.rate import HourlyCostRate, HourlyPrice
from baseai.fleet.fabric.postgres import Cabling
from baseai.fleet.health.desk.postgres import HealthDesk
from baseai.fleet.health.postgres import PostgresJudge
from baseai.fleet.health.rule import Policy, shipped_policy
from baseai.fleet.postgres import Fleet
from baseai.ground.fault import NotFound, Refused
from baseai.ground.identity import RunId, TenantId
from baseai.ground.money import MICRO
from baseai.proving.postgres import Proving
from baseai.proving.vitals import FIELDS as VITALS
from baseai.proving.vitals import Watched
from baseai.scheduling.admit import NeverFits, fits_ever
from baseai.scheduling.booked.postgres.extension import Extensions
from baseai.scheduling.booked.postgres.reservations import Reservations
from baseai.scheduling.booked.postgres.upkeep import Upkeep
from baseai.scheduling.booked.postgres.windows import Windows
from baseai.scheduling.fragments.postgres import Fragmentations
from baseai.scheduling.postgres import PostgresQueue
from baseai.scheduling.queues.postgres import PostgresQueues
from baseai.scheduling.standing import Standing
from baseai.scheduling.starts.postgres import PostgresStarts
from baseai.scheduling.tick import Scheduler
from baseai.serving.postgres.keeper import Keeper
from baseai.serving.postgres.services import Services
from baseai.telemetry.field import ACCELERATOR
from baseai.telemetry.postgres import Intake, Uses
from baseai.telemetry.remote import RemoteStore
from baseai.telemetry.store import AskedStore, StoreAway
from baseai.tenancy.key import Holder
from baseai.tenancy.postgres import Tenancy
from baseai.truth.session import Scope, Session, Truth, fetch_all
from baseai.views.postgres import Views
from baseai.views.services.postgres import ServiceViews
from baseai.wiring.agreements import Desk
from baseai.wiring.costing import Costing
from baseai.wiring.documents import Documents
from baseai.wiring.household import Household
from baseai.wiring.ledger import Ledger
from baseai.wiring.month_end import MonthEnd
from baseai.wiring.service_money import ServiceMoney
from baseai.workloads.burn_in.figure import Test
from baseai.workloads.demand import demand_of
from baseai.workloads.postgres import Runs
from baseai.workloads.spec import RunSpec, spec_of
from baseai.workloads.training import recipe

NEWS_EVERY_S = 15.0


class CatalogRates:
    """Prices for finance from the catalogue, and hourly costs from the assumptions as they stand."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.first = Assumptions(shipped(catalog.assumptions), self._country_of)
        self._terms = CostTerms(self.first, tariff_calendars())

    def hold(self, terms: CostTerms) -> None:
        """From now on these."""
        self._terms = terms

    def price(self, model: str, at: datetime) -> HourlyPrice | None:
        try:
            found = self._catalog.price(model, at)
        except NotFound:
            return None
        return HourlyPrice(
            per_hour=found.per_hour, currency=found.currency, source=f"list of {found.effective_from}"
        )

    def hourly_cost(self, model: str, site_id: str, at: datetime) -> HourlyCostRate | None:
        return self._terms.hourly_cost(model, site_id, at)

    def _country_of(self, site_id: str) -> str | None:
        try:
            return self._catalog.assumptions.site_terms(site_id).country
        except NotFound:
            return None


def beside_costs(truth: Truth) -> Neighbours:
    """What costs need of the ledger, of the time ledger and of the bank."""

    async def open_hours(session: Session, window: tuple[datetime, datetime]) -> Hours:
        return reckoned(await load_facts(session, window))

    return Neighbours(
        load_calendar=load_calendar,
        insert_transfers=insert_transfers,
        guarded=guarded,
        open_hours=open_hours,
        exchange=Bulletins(truth).exchange,
    )


class CatalogPeaks:
    """What data sheets promise of a figure, from the catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def peak(self, model: str, test: Test, variant: str) -> float | None:
        """In the unit of the figure: GFLOP/s and GB/s. A bus carries half of what a link does both ways together."""
        try:
            sheet = self._catalog.accelerator(model)
        except NotFound:
            return None
        if test is Test.MEMORY:
            return sheet.memory_bandwidth_gb_per_s
        if test is Test.BUS:
            return None if sheet.interconnect_gb_per_s is None else sheet.interconnect_gb_per_s / 2
        tera = {
            "fp32": sheet.fp32_tflops,
            "bf16": sheet.bf16_tflops,
            "fp8": sheet.fp8_tflops,
            "int8": sheet.int8_tops,
        }.get(variant)
        return None if test is not Test.GEMM or tera is None else tera * 1000


class StoreVitals:
    """What telemetry saw of an accelerator, from the metric store."""

    def __init__(self, store: AskedStore) -> None:
        self._store = store

    async def watched(self, serial: str, from_at: datetime, until_at: datetime) -> Watched | None:
        try:
            series = await self._store.range(
                ACCELERATOR,
                serial,
                tuple(VITALS),
                from_ms=int(from_at.timestamp() * 1000),
                until_ms=int(until_at.timestamp() * 1000) + 1,
            )
        except StoreAway:
            return None
        return Watched(fields=series.fields, values=series.values, codes=series.codes, boots=series.boots)


class Money:
    """Cost reports and the books as doors show them."""

    def __init__(self, truth: Truth, catalog: Catalog, rates: CatalogRates, ledger: Ledger) -> None:
        self._truth = truth
        self._catalog = catalog
        self._rates = rates
        self.ledger = ledger

    async def cost(self, by: str, subject: str | None, scope: Scope) -> list[dict[str, Any]]:
        rows = await costs_in(self._truth, self._rates, scope, by=By(by), subject=subject)
        labels = await self._labels(scope, by, [row.subject for row in rows])
        ours = scope.tenant_id is None  # what a thing costs us, and what remains, is not a tenant's to see
        return [
            {
                "subject": row.subject,
                "label": labels.get(row.subject, row.subject),
                "accelerator_hours": (Decimal(row.accelerator_us) / 3_600_000_000).quantize(
                    Decimal("0.000001")
                ),
                "revenue": row.revenue.amount(),
                "cost": row.cost.amount() if ours else None,
                "contribution": row.contribution().amount() if ours else None,
                "currency": row.revenue.currency,
                "accruing": row.accruing,
                "basis": row.basis if ours else "",
            }
            for row in rows
        ]

    async def _labels(self, scope: Scope, by: str, subjects: Sequence[str]) -> Mapping[str, str]:
        query = {
            "run": "SELECT run_id AS id, name AS label FROM runs WHERE run_id = ANY(%s)",
            "node": "SELECT node_id AS id, name AS label FROM nodes WHERE node_id = ANY(%s)",
            "tenant": "SELECT tenant_id AS id, name AS label FROM tenants WHERE tenant_id = ANY(%s)",
            "accelerator": "SELECT accelerator_id AS id, model || ' ' || serial AS label FROM accelerators"
            " WHERE accelerator_id = ANY(%s)",
        }[by]
        async with self._truth.transaction(scope) as session:
            return {row["id"]: row["label"] for row in await fetch_all(session, query, (list(subjects),))}

    async def trial_balance(self, scope: Scope) -> dict[str, Any]:
        return await self.ledger.trial_balance(scope)

    async def transfers(
        self, scope: Scope, *, run_id: str | None, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        most = min(max(1, limit), 500)
        found = await load_transfers(self._truth, scope, run_id=run_id, after=cursor, limit=most + 1)
        shown = found[:most]
        return [
            {
                "transfer_id": one.transfer_id,
                "debit": one.debit_account,
                "credit": one.credit_account,
                "amount": Decimal(one.amount_micros) / MICRO,
                "currency": one.currency,
                "effective_at": one.effective_at,
                "run_id": one.run_id,
                "accelerator": None if one.accelerator_no is None else str(one.accelerator_no),
                "note": one.note,
            }
            for one in shown
        ], (shown[-1].transfer_id if len(found) > most else None)

    def offer(self, model: str) -> dict[str, Any]:
        price = self._rates.price(model, datetime.now(UTC))
        if price is None:
            return {"price_per_hour": Decimal(0)}
        try:
            memory = self._catalog.accelerator(model).memory_gib
        except NotFound:
            memory = None
        return {
            "price_per_hour": price.per_hour,
            "currency": price.currency,
            "memory_gib": float(memory) if memory else None,
        }

    async def prices(self) -> dict[str, Decimal]:
        return {
            accelerator.model: found.per_hour
            for accelerator in self._catalog.accelerators
            if (found := self._rates.price(accelerator.model, datetime.now(UTC))) is not None
        }


class Admission:
    """Reads specs, and refuses at once what no node could ever take."""

    def __init__(self, catalog: Catalog, queue: PostgresQueue, reservations: Reservations) -> None:
        self._catalog = catalog
        self._queue = queue
        self._reservations = reservations

    def read(self, text: str, file: str) -> RunSpec:
        return spec_of(text, file, recipe.checked)

    async def check(self, run_id: str, tenant_id: str, spec: RunSpec) -> None:
        demand = demand_of(spec, RunId(run_id), TenantId(tenant_id), self._catalog.models_matching)
        if spec.reservation is not None:
            await self._reservations.check(tenant_id, spec.reservation, demand)
        verdict = fits_ever(demand, await self._queue.fleet())
        if isinstance(verdict, NeverFits):
            raise Refused(verdict.sentence)


class NoticeBell:
    """Rings whoever waits for a run or a node when PostgreSQL tells that it changed."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    async def listen(self, truth: Truth, *channels: str) -> None:
        """Pass on what is told, for ever. After a lost line everybody is rung, for something may have been missed."""
        async for channel, subject in truth.notices(*channels):
            for name in (subject, channel) if channel else tuple(self._waiting):
                for event in self._waiting.get(name, ()):
                    event.set()

    @contextmanager
    def heard(self, subject: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something about `subject` (an id, or a channel for all its ids) is told."""
        event = asyncio.Event()
        self._waiting[subject].add(event)
        try:
            yield event
        finally:
            self._waiting[subject].discard(event)
            if not self._waiting[subject]:
                del self._waiting[subject]

    async def wait(self, subject: str, within_s: float) -> bool:
        """Until something about `subject` is told from now on; False when time is up."""
        with self.heard(subject) as event:
            try:
                await asyncio.wait_for(event.wait(), within_s)
            except TimeoutError:
                return False
        return True


class BrowserGate:
    """Links and sessions of browsers, as the pages ask for them."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy

    async def use_link(self, token: str) -> str:
        return await self._tenancy.use_link(token)

    async def session_holder(self, session: str) -> Holder:
        return await self._tenancy.session_holder(session)

    async def sign_out(self, session: str) -> None:
        await self._tenancy.sign_out(session)


class BellNews:
    """When pages look again: at the bell, and every 15 s. What is told between two looks is one reason to look."""

    def __init__(self, bell: NoticeBell) -> None:
        self._bell = bell

    def run_changes(self, run_id: str) -> AsyncIterator[None]:
        return self._changes(run_id)

    def fleet_changes(self) -> AsyncIterator[None]:
        return self._changes("baseai_run")

    def serving_changes(self) -> AsyncIterator[None]:
        return self._changes("baseai_serving")

    async def _changes(self, subject: str) -> AsyncIterator[None]:
        with self._bell.heard(subject) as event:
            while True:
                try:
                    await asyncio.wait_for(event.wait(), NEWS_EVERY_S)
                except TimeoutError:
                    pass
                event.clear()
                yield


def health_policy(household: Household) -> Policy:
    """The rules of health, with the operator's own changes. Raises PolicyBroken, Refused."""
    own = household.health_policy
    try:
        return shipped_policy((str(own), own.read_text(encoding="utf-8")) if own.is_file() else None)
    except (OSError, UnicodeDecodeError) as wrong:
        raise Refused(f"{own} cannot be read: {wrong}") from wrong


class Rooms:
    """Every room of one process, over one truth."""

    def __init__(self, truth: Truth, household: Household, metrics: Path | None = None) -> None:
        self.catalog = load_catalog()
        self.truth = truth
        self.metrics = RemoteStore(metrics or household.data / "metrics.sock")
        self.intake = Intake(truth, self.metrics)
        self.uses = Uses(truth, self.metrics)
        self.tenancy = Tenancy(truth, pepper=household.key("pepper"), master=household.key("master"))
        self.rates = CatalogRates(self.catalog)
        self.meter = Meter(truth, self.rates, bills=False)  # what is charged comes from rated lines
        self.time = TimeLedger(truth)
        self.agreements = Desk(truth, self.catalog)
        self.documents = Documents(truth, household)
        self.month = MonthEnd(lambda: Meter(truth, self.rates, bills=False), self.agreements.rater, self.time)
        self.costs = CostKeeper(truth, beside_costs(truth), self.rates.first, self.rates.hold)
        self.costing = Costing(truth, self.costs, self.agreements)
        self.ledger = Ledger(
            truth, self.meter, (*self.month.checks(), self.costs.against), self.month.bring_in
        )
        self.money = Money(truth, self.catalog, self.rates, self.ledger)
        self.cabling = Cabling(truth)
        self.fleet = Fleet(truth, self.tenancy, self._unplaceable, self.cabling)
        policy = health_policy(household)
        self.health = HealthDesk(truth, policy)
        self.judge = PostgresJudge(truth, policy)
        self.runs = Runs(truth)
        self.services = Services(truth, self.runs)
        self.keeper = Keeper(truth, self.runs)
        self.queue = PostgresQueue(
            truth,
            self.catalog.models_matching,
            self._country_of,
            watts=self.catalog.rated_watts(),
            worth=self._worth,
        )
        self.scheduler = Scheduler(
            queue=self.queue,
            standing=Standing(),
            starts=PostgresStarts(truth, np.random.default_rng()),
            fragments=Fragmentations(truth),
        )
        self.reservations = Reservations(truth, self.catalog.models_matching)
        self.windows = Windows(truth)
        self.extensions = Extensions(truth, self.catalog.models_matching)
        self.upkeep = Upkeep(truth)
        self.queues = PostgresQueues(truth, [one.model for one in self.catalog.accelerators])
        self.admission = Admission(self.catalog, self.queue, self.reservations)
        self.engine = Engine(
            truth,
            self.tenancy,
            Places(checkpoints=household.checkpoints, outputs=household.outputs),
            replica_key=household.key("replicas"),
        )
        self.views = Views(truth)
        self.service_views = ServiceViews(truth)
        self.service_money = ServiceMoney(truth, self.rates, self.service_views)
        self.proving = Proving(
            truth,
            runs=self.runs,
            house=self.tenancy,
            fleet=self.fleet,
            peaks=CatalogPeaks(self.catalog),
            vitals=StoreVitals(self.metrics),
        )

    def _unplaceable(self, model: str) -> str | None:
        try:
            accelerator = self.catalog.accelerator(model)
        except NotFound:
            return f"the catalogue has no accelerator model {model}"
        if not accelerator.may_stand_in_our_servers:
            return f"{model} is leased from its provider and never stands in a node of ours"
        return None

    def _worth(self) -> dict[str, float]:
        """List price of an accelerator-hour of each model today, as far as there is one."""
        today = datetime.now(UTC)
        return {
            one.model: float(found.per_hour)
            for one in self.catalog.accelerators
            if (found := self.rates.price(one.model, today)) is not None
        }

    def _country_of(self, site_id: str) -> str:
        try:
            return self.catalog.site(site_id).country
        except NotFound:
            return "BR"  # a site of our own: the company is Brazilian
