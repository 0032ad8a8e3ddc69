"""What the pages need from below, each as narrow as the need: lists and details, money, who asks, and news.

Invariant: whatever has a scope answers within it, so another tenant's run is NotFound here as everywhere.
The pages read rows as mappings with the fields of the doors' schemas; they change nothing but a session.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

from baseai.finance.bucket import BucketSpan
from baseai.finance.costs.margin import Economics, EconomicsBy
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport
from baseai.finance.period import Period
from baseai.ground.fault import Fault
from baseai.serving.example import Example
from baseai.telemetry.store import AskedStore
from baseai.tenancy.key import Holder
from baseai.truth.session import Scope
from baseai.views.books.asked import Asked
from baseai.web.language import ZONE

Row = Mapping[str, Any]
By = Literal["run", "node", "accelerator", "tenant"]


class Views(Protocol):
    """Lists and details, in the asker's scope."""

    async def runs(
        self, scope: Scope, *, states: Sequence[str] = (), everything: bool = False, limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[Sequence[Row], str | None]: ...  # fmt: skip

    async def run(self, scope: Scope, run_id: str) -> Row:
        """Raises NotFound, also for another tenant's."""

    async def points(self, scope: Scope, run_id: str) -> Sequence[Row]: ...

    async def nodes(self, scope: Scope) -> Sequence[Row]: ...

    async def accelerators(self, scope: Scope, node_id: str) -> Sequence[Row]: ...

    async def installed(self, scope: Scope) -> Sequence[Row]:
        """Every accelerator in service: serial, model, device_index, node_id, node, site, rack, health, simulated.

        rack is "" where none is known; run_id, run and tenant are who holds it, None where nobody does.
        """

    async def accelerator(self, scope: Scope, serial: str) -> Row:
        """One accelerator with node, node_id, site, health, simulated, and `leases`, the newest that used it.

        Raises NotFound.
        """

    async def offers(self) -> Sequence[Row]: ...

    async def queue(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]:
        """Who waits, in the order of the last cycle, and the cursor of the next page. Raises Refused."""

    async def run_counts(self, scope: Scope) -> Mapping[str, int]: ...

    async def room(self) -> Sequence[Row]:
        """Of each model: total, and free on nodes that are ready and speak."""

    async def accuracy(self) -> Sequence[Row]:
        """Of estimates of starts, rows with the fields of AccuracyView."""


class Money(Protocol):
    """What things earned and cost."""

    async def cost(self, by: By, subject: str | None, scope: Scope) -> Sequence[Row]:
        """Rows with the fields of CostView; a node is named by its node_id, an accelerator by its accelerator_id."""

    async def trial_balance(self, scope: Scope) -> Row: ...

    async def prices(self) -> Mapping[str, Decimal]:
        """List price of an accelerator-hour by model, in US dollars."""


class Uses(Protocol):
    """What accelerators gave to whom: rows with the fields of UseView."""

    async def use_of_run(self, scope: Scope, run_id: str) -> Row:
        """All that a run had, the open hour with it. Raises NotFound; StoreAway when samples cannot be asked."""

    async def uses(
        self, scope: Scope, *, by: str, subject: str | None = None, from_at: datetime | None = None,
        until_at: datetime | None = None,
    ) -> Sequence[Row]:  # fmt: skip
        """By run, tenant, lease, round, node or accelerator; without instants the last day."""

    async def collectors(self, scope: Scope, node_id: str) -> Sequence[Row]:
        """How a node's collectors fare: rows with the fields of CollectorView."""


class Health(Protocol):
    """What is known against nodes and their accelerators, and what is being done about it."""

    async def nodes_health(self, scope: Scope) -> Sequence[Row]:
        """Every node that is not retired: rows with the fields of NodeHealth, standing evidence alone."""

    async def health_of(self, scope: Scope, node: str) -> Row:
        """One node, with ended evidence and repairs of the last 30 days too. Raises NotFound."""


class Proving(Protocol):
    """What burn-ins measured, against data sheets and against their like."""

    async def figures_of(self, scope: Scope, node: str) -> Row:
        """One node's burn-ins and newest figures: a row with the fields of NodeFigures. Raises NotFound."""


class Queues(Protocol):
    """Who may use how much of the fleet."""

    async def queues(self, scope: Scope) -> Sequence[Row]:
        """Those that everybody may use and those of the asker: rows with the fields of NamedQueueView."""


class Time(Protocol):
    """What every second of the accelerators was."""

    async def told(
        self, from_at: datetime, until_at: datetime, *, by: TimeBy, pace: Pace | None, simulated: bool = False,
        model: str | None = None, site: str | None = None, serial: str | None = None,
    ) -> TimeReport: ...  # fmt: skip

    async def stretches(
        self, accelerator_no: int, from_at: datetime, until_at: datetime
    ) -> Sequence[BucketSpan]:
        """What one accelerator was from when to when."""


class Ledger(Protocol):
    """Months and audits of the books."""

    async def periods(self, scope: Scope) -> Sequence[Row]:
        """Every month that was ever begun, with the fields of PeriodView."""

    async def newest_check(self) -> Row:
        """A row with the fields of AuditView. Raises NotFound where the books were never recomputed."""


class Costs(Protocol):
    """What a month earned, cost and left over."""

    async def economics_by(
        self, period: Period, bys: Sequence[EconomicsBy], *, currency: str, simulated: bool = False
    ) -> Mapping[EconomicsBy, Economics]: ...


class Invoices(Protocol):
    """Issued documents, each a page that stands alone."""

    async def rendered(self, scope: Scope, invoice_id: str, form: str, language: str) -> tuple[str, bytes]:
        """Media type and bytes, as `html` or `pdf`. Raises NotFound, Refused."""


class Postings(Protocol):
    """From a month's sums down to leases and serials; each answers in the asker's scope, NotFound beyond it."""

    async def months(self, scope: Scope) -> Sequence[str]: ...

    async def places(self, scope: Scope) -> Sequence[Row]: ...

    async def movements(self, scope: Scope, period: Period) -> Sequence[Row]: ...

    async def rate(self, scope: Scope, period: Period) -> Row | None: ...

    async def postings(
        self, scope: Scope, asked: Asked, *, after: str | None = None
    ) -> tuple[Sequence[Row], str | None]: ...

    async def posted_sums(self, scope: Scope, asked: Asked) -> Sequence[Row]: ...

    async def transfer(self, scope: Scope, transfer_id: str) -> Row: ...

    async def line(self, scope: Scope, rated_id: str) -> Row: ...

    async def bill(
        self, scope: Scope, period: Period, *, run: str | None = None, category: str | None = None,
        after: str | None = None,
    ) -> tuple[Sequence[Row], Sequence[Row], str | None]: ...  # fmt: skip

    async def invoices(self, scope: Scope) -> Sequence[Row]: ...

    async def lease(self, scope: Scope, lease_id: str) -> Row: ...

    async def accelerator(self, scope: Scope, serial: str) -> Row: ...

    async def behind(self, scope: Scope, found: Row, since: datetime, until: datetime) -> Row: ...

    async def standing(self, scope: Scope) -> Mapping[str, Row]:
        """Every accelerator by its serial: model, site, node, simulated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that the pages of the books stand on beside Money."""

    ledger: Ledger
    time: Time
    costs: Costs
    postings: Postings
    invoices: Invoices


class GatewayAway(Fault):
    """The gateway gave no answer."""

    retryable = True

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the gateway gives no answer ({self.why}); it is restarted by itself, try again in a moment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """How a service began to answer."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: AsyncGenerator[bytes, None]  # of the body, as they come; closed by whoever reads them


class Calls(Protocol):
    """Requests to services, sent for somebody who is signed in. No key of theirs is shown to a browser."""

    async def call(
        self, holder: Holder, service: Row, example: Example, body: bytes, media_type: str
    ) -> Called:
        """Through the gateway, as any client does. Raises GatewayAway."""


class ServiceViews(Protocol):
    """Services by id or name, in the asker's scope: rows with the fields of the doors' schemas. Each: NotFound."""

    async def services(
        self, scope: Scope, *, everything: bool = False, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]: ...

    async def service(self, scope: Scope, name: str) -> Row: ...

    async def traffic(self, scope: Scope, name: str, window: str = "15m") -> Row:
        """Raises Refused for a window that is none."""

    async def models(
        self, scope: Scope, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[Sequence[Row], str | None]: ...


class ServiceMoney(Protocol):
    """What services cost."""

    async def service_cost(self, scope: Scope, name: str, window: str = "24h") -> Row:
        """The fields of ServiceCostView. Raises NotFound, Refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """All that the pages of services stand on."""

    views: ServiceViews
    money: ServiceMoney
    calls: Calls | None = None  # None where no gateway runs: there is nothing to try
    gateway_url: str | None = None  # where clients call services


class Gate(Protocol):
    """Who a browser is. Each raises NotAdmitted for what is wrong, used up or expired."""

    async def use_link(self, token: str) -> str:
        """The text of a new session, for the token of a link that works once."""

    async def session_holder(self, session: str) -> Holder: ...

    async def sign_out(self, session: str) -> None: ...


class News(Protocol):
    """When to look again. What happened while nobody listened is told as one; beyond that every 15 s at the latest."""

    def run_changes(self, run_id: str) -> AsyncIterator[None]: ...

    def fleet_changes(self) -> AsyncIterator[None]: ...

    def serving_changes(self) -> AsyncIterator[None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """How the pages present this platform."""

    demo: bool = False  # a banner on every page says that nothing here is business
    zone: str = ZONE  # in which times are shown; the IANA name


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDoors:
    """All that the pages stand on."""

    views: Views
    money: Money
    gate: Gate
    news: News
    eyes: AskedStore | None = None  # None: nothing is measured here, and the pages say so
    uses: Uses | None = None
    health: Health | None = None
    proving: Proving | None = None
    queues: Queues | None = None
    books: Books | None = None
    serving: Serving | None = None
    settings: WebSettings = WebSettings()
