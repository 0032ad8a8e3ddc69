"""The books of the platform in memory: one month of two slots, as the real doors tell it."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from baseai.catalog.bounds import Case
from baseai.finance.bucket import Bucket
from baseai.finance.costs.margin import (
    Activity,
    CostNature,
    Economics,
    EconomicsBy,
    EconomicsRow,
    Part,
    TimeOf,
)
from baseai.finance.hours.sum import Pace, TimeBy, TimeReport, TimeSum, Withheld
from baseai.finance.period import Period
from baseai.ground.fault import NotFound
from baseai.ground.money import Money
from baseai.truth.session import Scope

Row = dict[str, Any]
HOUR_US = 3_600_000_000


def movement(debit: str, credit: str, micros: int, **facts: Any) -> Row:
    return {
        "debit_account": debit, "credit_account": credit, "currency": "USD", "tenant_id": "ten_a", "model": "cpu-slot",
        "site_id": "local", "round_id": None, "simulated": False, "micros": micros, "us": HOUR_US, "transfers": 1,
    } | facts  # fmt: skip


def earned(micros: int, **facts: Any) -> Row:
    return movement("tenant:ten_a:receivable", "revenue:on_demand", micros, **facts)


SUBJECTS: Mapping[EconomicsBy, tuple[str | None, str]] = {
    EconomicsBy.ALL: (None, ""), EconomicsBy.MODEL: ("cpu-slot", "cpu-slot"), EconomicsBy.SITE: ("local", "local"),
    EconomicsBy.PLACE: ("cpu-slot@local", "cpu-slot@local"),
    EconomicsBy.CUSTOMER: ("ten_a", "acme"), EconomicsBy.ROUND: (None, "none"),
}  # fmt: skip


def row(subject: str | None, label: str, currency: str) -> EconomicsRow:
    """One hour sold of four available, at 4 cents, with 3 mills of energy and 9 of depreciation."""

    def money(micros: int) -> Money:
        return Money(currency=currency, micros=micros)

    return EconomicsRow(
        part=Part.SUBJECT, subject=subject, label=label, revenue=money(40_000), accruing=money(0),
        time=TimeOf(installed_us=4 * HOUR_US, available_us=4 * HOUR_US, sold_us=HOUR_US, occupied_us=HOUR_US),
        costs={CostNature.ENERGY: money(3_000), CostNature.DEPRECIATION: money(9_000)}, cost_low=money(9_000),
        cost_high=money(15_000), capital_recovery=money(11_000),
        activity=Activity(active_us=Decimal(HOUR_US // 2), seen_us=HOUR_US), transfers=3,
    )  # fmt: skip


class Ledger:
    """Ledger, time and postings in one. A test may change what was moved, found and withheld."""

    def __init__(self) -> None:
        self.moved = [
            earned(40_000),
            movement("cost:energy", "payable:energy", 3_000),
            movement("cost:depreciation", "asset:accumulated_depreciation", 9_000),
        ]
        self.findings: list[Row] = []
        self.withheld: tuple[Withheld, ...] = ()
        self.states: list[Row] = []
        self.stale: Sequence[str] = ()
        self.may_read = asyncio.Event()  # a test clears it to make the reading of a month slow
        self.may_read.set()
        self.readings = 0

    async def periods(self, scope: Scope) -> Sequence[Row]:
        return self.states

    async def newest_check(self) -> Row:
        return {
            "ran_at": datetime.fromisoformat("2026-11-22T15:00:00Z"),
            "digest": "ab" * 32,
            "findings": self.findings,
        }

    async def told(
        self, from_at: datetime, until_at: datetime, *, by: TimeBy, pace: Pace | None, simulated: bool = False,
        model: str | None = None, site: str | None = None, serial: str | None = None,
    ) -> TimeReport:  # fmt: skip
        subject = {TimeBy.MODEL: "cpu-slot", TimeBy.SITE: "local", TimeBy.ACCELERATOR: "slot-7f3a-0"}.get(by)
        sums = tuple(
            TimeSum(subject=subject, start_at=from_at if pace else None, bucket=bucket, micro_seconds=us)
            for bucket, us in ((Bucket.ON_DEMAND, HOUR_US), (Bucket.IDLE, 3 * HOUR_US))
        )
        return TimeReport(
            from_at=from_at, until_at=until_at, closed_until=until_at, checked_at=None, sums=sums,
            withheld=self.withheld, labels={}, revised=0,
        )  # fmt: skip

    async def stretches(self, accelerator_no: int, from_at: datetime, until_at: datetime) -> Sequence[Any]:
        return ()

    async def months(self, scope: Scope) -> Sequence[str]:
        return ["2026-11", "2026-10"]

    async def places(self, scope: Scope) -> Sequence[Row]:
        return [{"site_id": "local", "model": "cpu-slot", "simulated": False}]

    async def movements(self, scope: Scope, period: Period) -> Sequence[Row]:
        return self.moved

    async def rate(self, scope: Scope, period: Period) -> Row | None:
        return {
            "sell": Decimal("5.4321"),
            "day": datetime.fromisoformat("2026-11-20").date(),
            "bulletin_at": None,
        }

    async def economics_by(
        self, period: Period, bys: Sequence[EconomicsBy], *, currency: str, simulated: bool = False
    ) -> Mapping[EconomicsBy, Economics]:
        self.readings += 1
        await self.may_read.wait()
        return {
            by: Economics(
                period=period, by=by, case=Case.DEFAULT, currency=currency, until_at=period.ends_at(),
                rows=[row(*SUBJECTS[by], currency)], total=row(None, "", currency), energy=(),
                stale=self.stale, withheld=(), assumptions=(),
            )
            for by in bys
        }  # fmt: skip

    async def bill(
        self, scope: Scope, period: Period, **_: Any
    ) -> tuple[Sequence[Row], Sequence[Row], str | None]:
        row = {"currency": "USD", "category": "on_demand", "run_id": "run_1", "run": "train-gpt", "micros": 40_000,
               "us": HOUR_US, "lines": 1}  # fmt: skip
        return ([row] if scope.tenant_id == "ten_a" else []), [], None

    async def invoices(self, scope: Scope) -> Sequence[Row]:
        return []

    async def rendered(self, scope: Scope, invoice_id: str, form: str, language: str) -> tuple[str, bytes]:
        if scope.tenant_id not in (None, "ten_a") or invoice_id != "inv_1":
            raise NotFound("invoice", invoice_id)
        return (
            ("text/html", b"<style>p{}</style><p>1</p>") if form == "html" else ("application/pdf", b"%PDF")
        )

    def __getattr__(self, name: str) -> Any:
        async def nothing(scope: Scope, asked: str, *_: Any, **__: Any) -> Any:
            raise NotFound(name, str(asked))

        return nothing
