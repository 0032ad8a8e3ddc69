"""What a month's FOCUS files are made of, read from the truth in one snapshot; rows pass through and are not kept.

Invariant: charges come in the order in which their invoices exchanged them, so that worths are reckoned again as they
were. A scope sees its own rows alone; the month's own row is everybody's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from baseai.finance.contract import Contract
from baseai.finance.contracts.postgres.agreements import load_contracts
from baseai.finance.focus.cell import Cells
from baseai.finance.focus.charge import Account, Charge, charge_cells, rounding_cells
from baseai.finance.focus.commitment import Agreed, commitment_rows
from baseai.finance.focus.invoice_detail import detail_rows, period_row
from baseai.finance.focus.rule import Dataset
from baseai.finance.invoices.billed import Running
from baseai.finance.invoices.invoice import Invoice, invoice_from
from baseai.finance.invoices.issuer import Issuer
from baseai.finance.invoices.postgres import SHOWN, billed_of
from baseai.finance.period import Calendar, Period
from baseai.truth.session import Scope, Session, Truth, fetch_all, fetch_one

ROWS_A_FETCH = 5_000
CENT_MICROS = 10_000
CHARGES = f"""
SELECT {SHOWN}, r.recorded_at, a.serial, n.name AS run, c.name AS contract, NULL AS original, i.invoice_id, i.line_no,
  t.name AS tenant, u.legal_name, p.name AS project
FROM rated_lines r JOIN tenants t ON t.tenant_id = r.tenant_id
LEFT JOIN invoiced_lines i ON i.rated_id = r.rated_id LEFT JOIN accelerators a ON a.accelerator_no = r.accelerator_no
LEFT JOIN runs n ON n.run_id = r.run_id LEFT JOIN contracts c ON c.contract_id = r.contract_id
LEFT JOIN customers u ON u.tenant_id = r.tenant_id LEFT JOIN projects p ON p.project_id = r.project_id
WHERE r.period = %s AND r.category <> 'unbilled'
ORDER BY i.invoice_id COLLATE "C", r.rated_id
"""  # noqa: S608 - pieces are constants of this file
INVOICES = "SELECT document FROM invoices WHERE period = %s ORDER BY series, number"
MADE = "SELECT contract_id, made_at, ended_at FROM contracts"
CHANGED = """
SELECT GREATEST((SELECT max(issued_at) FROM invoices WHERE period = %(period)s),
  (SELECT max(recorded_at) FROM rated_lines WHERE period = %(period)s),
  (SELECT closed_at FROM periods WHERE period = %(period)s)) AS at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """What is known of a month before its charges are read."""

    period: Period
    issuer: Issuer
    now: datetime
    calendar: Callable[[Session], Awaitable[Calendar]]  # how far the books are closed


async def focus_rows(truth: Truth, scope: Scope, month: Month) -> AsyncIterator[tuple[Dataset, Cells]]:
    """Every row of the four datasets, dataset by dataset."""
    period = str(month.period)
    async with truth.transaction(scope, snapshot=True) as session:
        calendar = await month.calendar(session)
        changed = await fetch_one(session, CHANGED, {"period": period})
        assert changed is not None
        yield (
            Dataset.BILLING_PERIOD,
            period_row(month.period, calendar.state(month.period), month.issuer, updated_at=changed["at"]),
        )
        invoices = [invoice_from(row["document"]) for row in await fetch_all(session, INVOICES, (period,))]
        for invoice in invoices:
            for cells in detail_rows(invoice):
                yield Dataset.INVOICE_DETAIL, cells
        contracts = {one.contract_id: one for one in await load_contracts(session)}
        agreed = await _agreed(session, contracts)
        for cells in commitment_rows(agreed, month.issuer, month.period, now=month.now):
            yield Dataset.CONTRACT_COMMITMENT, cells
        async for cells in _charges(
            session, month, contracts, {str(one.invoice_id): one for one in invoices}
        ):
            yield Dataset.COST_AND_USAGE, cells


async def _agreed(session: Session, contracts: dict[str, Contract]) -> list[Agreed]:
    made = {row["contract_id"]: row for row in await fetch_all(session, MADE)}
    return [
        Agreed(
            contract=contract,
            made_at=made[contract_id]["made_at"],
            updated_at=made[contract_id]["ended_at"] or made[contract_id]["made_at"],
        )
        for contract_id, contract in sorted(contracts.items())
    ]


async def _charges(
    session: Session, month: Month, contracts: dict[str, Contract], invoices: dict[str, Invoice]
) -> AsyncIterator[Cells]:
    standing: Invoice | None = None
    running: Running | None = None
    async with session.cursor(name="focus_charges", row_factory=dict_row) as cursor:
        cursor.itersize = ROWS_A_FETCH
        await cursor.execute(CHARGES, (str(month.period),))
        async for row in cursor:
            invoice_id = row["invoice_id"]
            if invoice_id is not None and (standing is None or standing.invoice_id != invoice_id):
                standing = invoices[invoice_id]
                rate = None if standing.conversion is None else standing.conversion.rate
                running = Running(currency=standing.currency, rate=rate)
            charge = _charge(row, standing, running) if invoice_id is not None else _charge(row, None, None)
            yield charge_cells(charge, month.issuer, month.period, contracts)
    for invoice in invoices.values():
        account = Account(
            tenant_id=invoice.customer.tenant_id, tenant="", legal_name=invoice.customer.legal_name
        )
        for line in invoice.lines:
            micros = line.cents * CENT_MICROS - line.micros
            if micros:
                yield rounding_cells(
                    account=account,
                    issuer=month.issuer,
                    period=month.period,
                    currency=invoice.currency,
                    micros=micros,
                    invoice_id=str(invoice.invoice_id),
                    line_no=line.line_no,
                )


def _charge(row: dict[str, Any], invoice: Invoice | None, running: Running | None) -> Charge:
    facts = dict(row)
    account = Account(
        tenant_id=facts["tenant_id"], tenant=facts.pop("tenant"), legal_name=facts.pop("legal_name")
    )
    invoice_id, line_no, project = (facts.pop(name) for name in ("invoice_id", "line_no", "project"))
    billed = billed_of(facts)
    line = billed.line
    if invoice is None or running is None:
        return Charge(
            billed=billed,
            account=account,
            project=project,
            currency=line.currency,
            worth_micros=line.amount_micros,
        )
    return Charge(
        billed=billed,
        account=account,
        project=project,
        currency=invoice.currency,
        worth_micros=running.worth(line.amount_micros, line.currency),
        rate=None if invoice.conversion is None else invoice.conversion.rate,
        invoice_id=invoice_id,
        line_no=line_no,
    )
