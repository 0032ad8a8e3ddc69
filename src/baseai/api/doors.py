"""What the REST door needs of the rooms behind it. Wiring hands over whatever answers to these."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from baseai.engine.log_folder import LogFolder
from baseai.engine.order import NodeReport, Orders, Taken
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport
from baseai.fleet.fabric.rack import Rack
from baseai.fleet.fabric.rehang import Rehang
from baseai.fleet.machine import MachineFacts
from baseai.fleet.node import NodeEvent
from baseai.ground.identity import KeyId, NodeId, ProjectId, RunId, TenantId
from baseai.scheduling.queues.setting import Setting
from baseai.telemetry.exposition import Scrape
from baseai.telemetry.intake import Measurement, Received
from baseai.telemetry.remote_write import Written
from baseai.telemetry.store import AskedStore
from baseai.telemetry.witness import Witness
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Role
from baseai.truth.session import Scope
from baseai.workloads.reason import Reason
from baseai.workloads.spec import RunSpec
from baseai.workloads.upload import Upload

Row = Mapping[str, Any]
Project = tuple[TenantId, ProjectId]


class TenancyDoor(Protocol):
    async def holder(self, text: str) -> Holder: ...
    async def session_holder(self, text: str) -> Holder: ...
    async def make_link(self, key_id: KeyId) -> str: ...
    async def make_tenant(self, name: str, *, actor: str) -> Row: ...
    async def make_project(self, tenant: str, name: str, *, actor: str) -> Row: ...
    async def tenants(self, scope: Scope) -> Sequence[Row]: ...
    async def project(self, scope: Scope, tenant: str | None, name: str | None) -> Project: ...
    async def project_names(self, scope: Scope, project: Project) -> tuple[str, str]: ...
    async def make_key(
        self,
        name: str,
        role: Role,
        *,
        actor: str,
        tenant: str | None = None,
        project: str | None = None,
        expires_in: timedelta | None = None,
        scopes: Sequence[str] = (),
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> Row: ...
    async def keys(self, scope: Scope) -> Sequence[Row]: ...
    async def revoke_key(self, key_id: str, *, actor: str) -> None: ...
    async def make_join_token(self, site: str, *, actor: str) -> tuple[str, datetime]: ...
    async def set_secret(self, scope: Scope, project: Project, name: str, value: str) -> Row: ...
    async def secret_names(self, scope: Scope) -> Sequence[Row]: ...
    async def remove_secret(self, scope: Scope, project: Project, name: str) -> None: ...


class FleetDoor(Protocol):
    async def join(self, token: str, facts: MachineFacts) -> tuple[NodeId, str]: ...
    async def learn(self, node_id: NodeId, facts: MachineFacts) -> None: ...
    async def steer(self, name: str, event: NodeEvent, *, actor: str, reason: str | None) -> Row: ...


class CablingDoor(Protocol):
    """Racks, and where nodes hang."""

    async def racks(
        self,
    ) -> tuple[Sequence[Rack], Mapping[str, Sequence[Row]], Sequence[tuple[NodeId, str, int]]]:
        """Racks by name; the nodes of each (node_id, name); what is leased in them (node, model, accelerators)."""

    async def set_rack(self, rack: Rack, *, actor: str) -> None:
        """Raises Refused, Conflict."""

    async def remove_rack(self, rack_id: str, *, actor: str) -> None:
        """Raises NotFound, Conflict."""

    async def rehang(self, changes: Sequence[Rehang], *, file: str | None = None, actor: str) -> int:
        """All or none; how many changed. Raises BadFile where a file says so, else NotFound, Refused."""


class RunsDoor(Protocol):
    async def submit(
        self, scope: Scope, project: Project, run_id: RunId, spec: RunSpec, uploads: Sequence[Upload],
        *, submitted_by: str,
    ) -> Row: ...  # fmt: skip
    async def refuse_missing(
        self, scope: Scope, project: Project, spec: RunSpec, uploads: Sequence[Upload]
    ) -> None: ...
    async def find(self, scope: Scope, name: str) -> Row: ...
    async def ask_to_stop(self, scope: Scope, run_id: str, reason: Reason, *, why: str | None) -> Row: ...
    async def has_file(self, scope: Scope, tenant_id: TenantId, digest: str) -> bool: ...
    async def note_file(self, scope: Scope, project: Project, digest: str, size_bytes: int) -> None: ...
    async def file_of_node(self, node_id: str, digest: str) -> bool: ...
    async def earlier_answer(self, key_id: str, idempotency_key: str, body: bytes) -> Row | None: ...
    async def keep_answer(
        self, key_id: str, idempotency_key: str, body: bytes, status: int, answer: str
    ) -> None: ...


class EngineDoor(Protocol):
    async def desired_version(self, node_id: str) -> int: ...
    async def orders(self, node_id: str) -> Orders: ...
    async def take(self, node_id: str, report: NodeReport) -> Taken: ...
    async def log_place(self, node_id: str, lease_id: str) -> tuple[str, int, int]: ...
    async def declare_dead(self, node_id: str, *, actor: str, reason: str | None) -> int: ...


class ViewsDoor(Protocol):
    async def runs(
        self, scope: Scope, *, states: Sequence[str] = (), everything: bool = False, limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[dict[str, Any]], str | None]: ...  # fmt: skip
    async def run(self, scope: Scope, run_id: str) -> dict[str, Any]: ...
    async def points(self, scope: Scope, run_id: str, *, after_step: int = -1) -> list[dict[str, Any]]: ...
    async def nodes(self, scope: Scope) -> list[dict[str, Any]]: ...
    async def accelerators(self, scope: Scope, node_id: str) -> list[dict[str, Any]]: ...
    async def installed(self, scope: Scope) -> list[dict[str, Any]]: ...
    async def run_counts(self, scope: Scope) -> Mapping[str, int]: ...
    async def offers(self) -> list[dict[str, Any]]: ...
    async def queue(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]: ...
    async def room(self) -> list[dict[str, Any]]: ...
    async def accuracy(self) -> list[dict[str, Any]]: ...
    async def events(
        self, scope: Scope, *, subject: str | None, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]: ...


class LedgerDoor(Protocol):
    """The books, their months and their audits."""

    async def balance(self, account: str, at: datetime | None, scope: Scope) -> Row:
        """The fields of AccountView. Raises NotFound when nothing stands on the account."""

    async def trial_balance(self, scope: Scope, at: datetime | None = None) -> Row:
        """The fields of TrialBalance."""

    async def periods(self, scope: Scope) -> Sequence[Row]:
        """Months that were begun, the newest first."""

    async def close(self, period: str, scope: Scope) -> Row:
        """The fields of CloseView. Raises Refused when `period` is no month."""

    async def check(self) -> Row:
        """Recompute everything now: the fields of AuditView."""

    async def newest_check(self) -> Row:
        """The newest recomputation, and what stands against publishing. Raises NotFound when there was none."""


class MoneyDoor(Protocol):
    @property
    def ledger(self) -> LedgerDoor: ...
    async def cost(self, by: str, subject: str | None, scope: Scope) -> list[dict[str, Any]]: ...
    async def transfers(
        self, scope: Scope, *, run_id: str | None, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]: ...
    def offer(self, model: str) -> dict[str, Any]: ...


class AgreementsDoor(Protocol):
    """Customers, contracts, prices, rates of exchange, usage told by events: rows with the fields of their views."""

    async def customers(self, scope: Scope) -> Sequence[Row]: ...
    async def add_customer(self, said: Row, *, actor: str) -> Row:
        """Raises NotFound for a tenant that is none, Refused for a tax id that is wrong, Conflict."""

    async def contracts(self, scope: Scope) -> Sequence[Row]: ...
    async def add_contract(self, said: Row, *, actor: str) -> Row:
        """Raises Refused for what cannot be agreed, Conflict naming both for an overlap."""

    async def end_contract(self, name: str, at: datetime | None, *, reason: str, actor: str) -> Row:
        """Raises NotFound, Conflict when it is ended already, Refused for a time outside it."""

    async def close_contract(self, name: str, period: str) -> Sequence[Row]:
        """Write what it still owes of a month that is over; rows with the fields of RatedLineView."""

    async def seat_events(self, scope: Scope, name: str, since: datetime | None) -> Sequence[Row]:
        """What befell the accelerators that a contract holds ready: rows with the fields of SeatEventView."""

    async def prices(self, list_id: str | None) -> Sequence[Row]: ...
    async def add_prices(self, list_id: str, text: str, file: str, *, actor: str) -> int:
        """A sheet, whole or not at all; how many rows were new. Raises BadPriceSheet, Conflict, Refused."""

    async def bulletins(self, from_on: date, until_on: date) -> Sequence[Row]: ...
    async def fetch_bulletins(self, from_on: date, until_on: date) -> Sequence[Row]:
        """Ask the central bank and keep what it says. Raises BankAway, Refused, Conflict."""

    async def exchange(self, on: date) -> Row:
        """Raises RateUnknown when nobody asked the bank about the day before."""

    async def record_usage(self, events: Sequence[Row]) -> Row:
        """All or none: how many were new and repeated. Raises Conflict for a known id with another body, Refused."""

    async def rated_lines(
        self, scope: Scope, *, period: str | None, contract: str | None, run_id: str | None, limit: int,
        cursor: str | None,
    ) -> tuple[Sequence[Row], str | None]: ...  # fmt: skip


class CostsDoor(Protocol):
    """Economics with the fields of EconomicsView, assumptions, suggested prices."""

    async def economics(
        self, period: str | None, *, by: str, case: str, currency: str, simulated: bool, taxes: str | None
    ) -> Row:
        """Raises Refused for what is no period, dimension, case or currency; NotFound for a scenario."""

    async def behind(
        self, period: str | None, figure: str, *, by: str, subject: str | None, simulated: bool, limit: int,
        cursor: str | None,
    ) -> tuple[Sequence[Row], str | None]: ...  # fmt: skip
    async def assumptions(self, *, stale: bool, every: bool) -> Sequence[Row]: ...
    async def record(self, said: Row, scope: Scope) -> Row:
        """Raises Refused naming what is wrong with it, Conflict for a month that is closed or the same instant."""

    async def suggest(self, scope: Scope) -> Row: ...
    async def suggestions(self, state: str | None) -> Sequence[Row]: ...
    async def apply(self, suggestion_id: str, list_id: str, scope: Scope) -> Row:
        """Raises NotFound, Conflict when it is settled already or the price has moved since."""

    async def decline(self, suggestion_id: str, scope: Scope) -> Row: ...


class DocumentsDoor(Protocol):
    """Invoices with the fields of InvoiceView, and exports."""

    async def invoices(
        self, scope: Scope, *, customer: str | None, period: str | None, limit: int, cursor: str | None
    ) -> tuple[Sequence[Row], str | None]:
        """Issued ones, the newest first. Raises NotFound, Refused."""

    async def drafts(self, scope: Scope, customer: str, period: str) -> Sequence[Row]:
        """What would be issued now, without numbers. Raises NotFound, RateUnknown."""

    async def issue(self, customer: str, period: str, *, actor: str) -> Sequence[Row]:
        """Those that were issued now; none when everything was. Raises NotFound, Refused, Conflict, RateUnknown."""

    async def invoice(self, scope: Scope, invoice_id: str) -> Row:
        """Raises NotFound."""

    async def rendered(self, scope: Scope, invoice_id: str, form: str, language: str) -> tuple[str, bytes]:
        """Media type and bytes of an issued document. Raises NotFound, Refused for a form or language that is none."""

    async def rendered_draft(
        self, scope: Scope, customer: str, period: str, form: str, language: str
    ) -> tuple[str, bytes]:
        """The same of a draft. Raises NotFound when nothing is to be billed, RateUnknown."""

    async def export_focus(
        self, scope: Scope, period: str, folder: Path, *, parquet: bool = False
    ) -> Sequence[str]:
        """Write the files of a month into `folder`; their names. Raises Refused."""

    async def export_beancount(self, scope: Scope, period: str | None, folder: Path) -> Sequence[str]:
        """The books through a month, or up to now."""

    async def export_csv(self, scope: Scope, period: str | None, folder: Path) -> Sequence[str]:
        """Transfers and rated lines through a month, or all."""


class TimeDoor(Protocol):
    """What every second of every accelerator was."""

    async def told(
        self, from_at: datetime, until_at: datetime, *, by: TimeBy, pace: Pace | None, simulated: bool
    ) -> TimeReport:
        """Sums over whole hours. Raises Refused for a span that cuts an hour or ends before it begins."""


class TelemetryDoor(Protocol):
    """Takes in what nodes measured."""

    async def take(self, node_id: NodeId, measurement: Measurement) -> Received:
        """What is safe and what will never be taken. Raises StoreAway while nothing can be kept."""

    async def receive(self, scrape: Scrape, *, body_digest: str, node_id: str | None) -> Written:
        """Keep what a Prometheus wrote, of one node's accelerators or of all. Raises StoreAway."""


class HealthDoor(Protocol):
    """What events about devices mean."""

    async def witness(self, node_id: NodeId, witnesses: Sequence[Witness]) -> Sequence[str]:
        """The ids of events that are safe, new or repeated. Serials are the node's own."""

    async def learn_steps(self, node_id: NodeId, steps: Sequence[str]) -> None:
        """What a node's agent says it may carry out by itself."""

    async def orders(self, node_id: str) -> Sequence[Row]:
        """What the node's agent shall carry out now: rows with the fields of RepairOrder."""

    async def nodes_health(self, scope: Scope) -> Sequence[Row]:
        """Every node that is not retired: rows with the fields of NodeHealth, standing evidence alone."""

    async def health_of(self, scope: Scope, node: str) -> Row:
        """One node, with ended evidence and repairs of the last 30 days too. Raises NotFound."""

    async def repairs(self, scope: Scope, *, everything: bool = False) -> Sequence[Row]:
        """Open repairs, oldest first: rows with the fields of RepairView."""

    async def settle_repair(self, repair_id: str, verb: str, *, actor: str, reason: str | None) -> Row:
        """approve, done, failed or dismiss. Raises NotFound, Conflict when it is not in a state for that."""

    async def acknowledge(self, evidence_id: str, *, actor: str) -> Row:
        """Somebody has seen it: it no longer asks for anything by itself. Raises NotFound, Conflict."""

    async def clear(
        self, node: str, *, actor: str, reason: str | None, evidence_id: str | None = None
    ) -> int:
        """End one piece of evidence about a node, or all of it; how many. Raises NotFound."""


class UsesDoor(Protocol):
    """What accelerators gave to whom: rows with the fields of UseView, in the asker's scope."""

    async def use_of_run(self, scope: Scope, run_id: str) -> Row:
        """All that a run had, the open hour with it. Raises NotFound."""

    async def uses(
        self, scope: Scope, *, by: str, subject: str | None = None, from_at: datetime | None = None,
        until_at: datetime | None = None,
    ) -> Sequence[Row]:  # fmt: skip
        """By run, tenant, round, node or accelerator; without instants the last day."""

    async def spans_of_run(self, scope: Scope, run_id: str) -> Sequence[Row]:
        """Which accelerators a run had from when to when: serial, node_id, from_at, until_at."""

    async def reckoning(self, scope: Scope) -> Row:
        """Whether uses of the last 7 days add up to the accelerators' counters, with the fields of Reckoning."""

    async def all_collectors(self, scope: Scope) -> Sequence[Row]:
        """How collectors fare: rows with the fields of CollectorView, node and node_id."""


class QueuesDoor(Protocol):
    """Who may use how much of the fleet: rows with the fields of NamedQueueView."""

    async def queues(self, scope: Scope, *, shared_alone: bool = False) -> Sequence[Row]:
        """Those that everybody may use and, unless `shared_alone`, those of the asker."""

    async def queue(self, scope: Scope, name: str, *, shared_alone: bool = False) -> Row:
        """Raises NotFound, Refused where more than one tenant has it."""

    async def set(self, name: str, setting: Setting, *, actor: str) -> None:
        """Raises Refused for what would not be a sound tree, NotFound for whom it is to belong to."""

    async def remove(self, name: str, *, actor: str) -> None:
        """Raises NotFound, Conflict while somebody is in it or below it."""

    async def refuse_missing(self, scope: Scope, project: Project, name: str) -> None:
        """Raises Refused where runs of the project cannot wait in it."""


class ProvingDoor(Protocol):
    """Tests of nodes, and what they measured."""

    async def ask(self, node: str, profile: str, *, actor: str) -> Sequence[Row]:
        """Test a node that is ready or under test: rows with the fields of BurnInView.

        Raises NotFound, Refused for a profile that is none, Conflict in another state or while a test is under way.
        """

    async def figures_of(self, scope: Scope, node: str) -> Row:
        """One node's burn-ins and newest figures: a row with the fields of NodeFigures. Raises NotFound."""


class ReservationsDoor(Protocol):
    """Capacity promised ahead: rows with the fields of ReservationView, in the asker's scope."""

    async def reserve(
        self, scope: Scope, project: Project, *, name: str, gpu: str, nodes: int, site: str, from_at: datetime,
        until_at: datetime, take_or_pay: bool, forfeit_after_s: int | None = None,
    ) -> Row:  # fmt: skip
        """Raises Refused with what is short and what would do, Conflict where the name is taken."""

    async def cancel(self, scope: Scope, name: str) -> Row:
        """Raises NotFound, Conflict where it is over."""

    async def find(self, scope: Scope, name: str) -> Row:
        """By name or id. Raises NotFound."""

    async def all(
        self, scope: Scope, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        """A page, and the cursor of the next."""


class WindowsDoor(Protocol):
    """Maintenance that is planned: rows with the fields of MaintenanceView."""

    async def plan(
        self, *, nodes: Sequence[str], site: str | None, from_at: datetime, until_at: datetime, why: str,
        notice_s: int | None = None, actor: str,
    ) -> Row:  # fmt: skip
        """Raises Refused with what is in its way."""

    async def cancel(self, maintenance_id: str, *, actor: str) -> Row:
        """Raises NotFound, Conflict where it has begun."""

    async def end(self, maintenance_id: str, *, actor: str) -> Row:
        """Raises NotFound, Conflict where it is not in progress."""

    async def find(self, maintenance_id: str) -> Row:
        """Raises NotFound."""

    async def all(
        self, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        """A page, and the cursor of the next."""


class ExtensionsDoor(Protocol):
    """Runs that go on longer."""

    async def extend(self, scope: Scope, run_id: str, by_s: int) -> datetime:
        """The new end of its leases. Raises NotFound, Conflict, Refused with what is booked behind it."""


class AppliedService(Protocol):
    """What became of a spec of a service."""

    @property
    def service_id(self) -> str: ...
    @property
    def version_no(self) -> int: ...
    @property
    def made(self) -> bool:
        """The service, just now."""

    @property
    def rolling(self) -> bool:
        """This version is on its way to take over."""


class ServicesDoor(Protocol):
    """Makes services and steers them, by id or name. Each raises NotFound, Conflict, Refused."""

    async def apply(
        self, scope: Scope, project: Project, spec: RunSpec, uploads: Sequence[Upload], *, by: str
    ) -> AppliedService:
        """A new service, or a new version of the one of that name, which is a rollout.

        The same spec and files again change nothing.
        """

    async def stop(self, scope: Scope, name: str, *, by: str) -> Row:
        """It finishes what it has, then its replicas go. It does not come back: another apply makes another."""

    async def scale(self, scope: Scope, name: str, *, least: int | None, most: int | None, by: str) -> Row:
        """Other bounds, without a rollout."""

    async def promote(self, scope: Scope, name: str, *, by: str) -> Row:
        """The candidate takes all requests at once. Conflict where nothing is being rolled out."""

    async def roll_back(self, scope: Scope, name: str, *, by: str) -> Row:
        """The candidate goes. Conflict where nothing is being rolled out."""


class ServiceViewsDoor(Protocol):
    """Services as they are seen, by id or name: rows with the fields of their views. Each raises NotFound, Refused."""

    async def services(
        self, scope: Scope, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]: ...
    async def find(self, scope: Scope, name: str) -> Row: ...
    async def service(self, scope: Scope, name: str) -> Row: ...
    async def traffic(self, scope: Scope, name: str, window: str = "15m") -> Row: ...
    async def models(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]: ...


class ServiceMoneyDoor(Protocol):
    """What services cost."""

    async def service_cost(self, scope: Scope, name: str, window: str = "24h") -> Row:
        """The fields of ServiceCostView. Raises NotFound, Refused."""


class AdmissionDoor(Protocol):
    """Whether a spec can be run here at all, before anything is created."""

    def read(self, text: str, file: str) -> RunSpec:
        """Raises BadSpec with every error found."""

    async def check(self, run_id: str, tenant_id: str, spec: RunSpec) -> None:
        """Raises Refused when no node could ever take it."""


class Bell(Protocol):
    """Rings when something about a subject (an id, or a channel for all its ids) changed."""

    def heard(self, subject: str) -> AbstractContextManager[asyncio.Event]:
        """An event that is set at each ring, from entering on."""

    async def wait(self, subject: str, within_s: float) -> bool:
        """Until the next ring; False when time is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Everything behind the REST door."""

    tenancy: TenancyDoor
    fleet: FleetDoor
    runs: RunsDoor
    engine: EngineDoor
    views: ViewsDoor
    money: MoneyDoor
    agreements: AgreementsDoor
    costs: CostsDoor
    documents: DocumentsDoor
    time: TimeDoor
    telemetry: TelemetryDoor
    metrics: AskedStore
    uses: UsesDoor
    admission: AdmissionDoor
    bell: Bell
    logs: LogFolder
    health: Callable[[], Awaitable[dict[str, Any]]]
    uploads: Path
    base_url: str
    proving: ProvingDoor
    queues: QueuesDoor
    reservations: ReservationsDoor
    windows: WindowsDoor
    extensions: ExtensionsDoor
    cabling: CablingDoor
    rated_watts: Mapping[str, int]  # of one accelerator of each model at work, with its share of the server
    services: ServicesDoor
    service_views: ServiceViewsDoor
    service_money: ServiceMoneyDoor
    gateway_url: str | None = None  # where services are called; None where no gateway runs
    fleet_health: HealthDoor | None = None  # without it events about devices stay where they are
    demo: bool = False
