"""Documents as doors show them: invoices, their drafts, and exports as folders of files.

Invariant: nothing is reckoned here. A folder is written whole before anybody sees it; who asks for it throws it away.
"""

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from baseai.finance.contracts.postgres import Bulletins
from baseai.finance.focus.charge import COLUMNS
from baseai.finance.focus.postgres import Month, focus_rows
from baseai.finance.focus.rule import Dataset, columns_of
from baseai.finance.invoices.invoice import Invoice, document_of
from baseai.finance.invoices.issuer import Issuer, issuer_of
from baseai.finance.invoices.postgres import Invoices
from baseai.finance.period import period_named
from baseai.finance.postgres.books import insert_transfers, load_calendar
from baseai.ground.clock import now_utc
from baseai.ground.fault import Refused
from baseai.truth.session import Scope, Truth
from baseai.wiring.household import Household

Row = dict[str, Any]


class Documents:
    """What customers and their tools get on paper."""

    def __init__(self, truth: Truth, household: Household) -> None:
        self._truth = truth
        self._household = household
        self._invoices = Invoices(truth, Bulletins(truth).exchange, insert_transfers)

    def issuer(self) -> Issuer:
        """What the operator's file says of the issuer. Raises Refused, which names file and key."""
        file = self._household.issuer
        try:
            return issuer_of(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else Issuer()
        except (OSError, UnicodeDecodeError) as wrong:
            raise Refused(f"{file} cannot be read: {wrong}") from wrong

    async def invoices(
        self, scope: Scope, *, customer: str | None, period: str | None, limit: int, cursor: str | None
    ) -> tuple[list[Row], str | None]:
        """Issued documents, the newest first. Raises NotFound for a customer that is none, Refused."""
        most = min(max(1, limit), 500)
        customer_id = (
            None if customer is None else (await self._invoices.customer(customer, scope)).customer_id
        )
        found = await self._invoices.all(
            scope,
            customer_id=customer_id,
            period=None if period is None else str(period_named(period)),
            after=cursor,
            limit=most + 1,
        )
        shown = found[:most]
        return [invoice_row(one) for one in shown], shown[-1].invoice_id if len(found) > most else None

    async def drafts(self, scope: Scope, customer: str, period: str) -> list[Row]:
        found = await self._invoices.drafts(customer, period_named(period), self.issuer(), scope)
        return [invoice_row(one) for one in found]

    async def issue(self, customer: str, period: str, *, actor: str) -> list[Row]:
        made = await self._invoices.issue(customer, period_named(period), self.issuer(), actor=actor)
        return [invoice_row(one) for one in made]

    async def invoice(self, scope: Scope, invoice_id: str) -> Row:
        return invoice_row(await self._invoices.find(invoice_id, scope))

    async def export_focus(self, scope: Scope, period: str, folder: Path) -> list[str]:
        """Write the four files of a month into `folder`; their names."""
        month = Month(
            period=period_named(period), issuer=self.issuer(), now=now_utc(), calendar=load_calendar
        )
        headings = {
            dataset: COLUMNS if dataset is Dataset.COST_AND_USAGE else columns_of(dataset)
            for dataset in Dataset
        }
        with ExitStack() as open_files:
            writers = {
                dataset: _writer(open_files.enter_context(_opened(folder / dataset.file)), heading)
                for dataset, heading in headings.items()
            }
            async for dataset, cells in focus_rows(self._truth, scope, month):
                writers[dataset].writerow(cells)
        return [dataset.file for dataset in Dataset]


def _opened(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="")


def _writer(file: TextIO, heading: Sequence[str]) -> "csv.DictWriter[str]":
    writer = csv.DictWriter(file, heading)
    writer.writeheader()
    return writer


def invoice_row(invoice: Invoice) -> Row:
    """An invoice with amounts in whole currency units."""
    row = document_of(invoice)
    row["total"] = Decimal(invoice.total_cents) / 100
    for line, said in zip(invoice.lines, row["lines"], strict=True):
        said["amount"] = Decimal(line.cents) / 100
        said["exact"] = Decimal(line.micros) / 1_000_000
    return row
