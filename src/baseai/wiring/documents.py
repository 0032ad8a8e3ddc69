"""Documents as doors show them: invoices, their drafts, and exports as folders of files.

Invariant: nothing is reckoned here. A folder is written whole before anybody sees it; who asks for it throws it away.
"""

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO, TypeVar

import baseai
from baseai.finance.chart import load_chart
from baseai.finance.contracts.postgres import Bulletins
from baseai.finance.contracts.postgres.rated_stream import rated_lines
from baseai.finance.focus.charge import COLUMNS
from baseai.finance.focus.duckdb import write_parquet
from baseai.finance.focus.postgres import Month, focus_rows
from baseai.finance.focus.rule import Dataset, columns_of
from baseai.finance.invoices.dps import document_of_dps, dps_of, xml_of
from baseai.finance.invoices.invoice import Invoice, document_of
from baseai.finance.invoices.issuer import Issuer, issuer_of
from baseai.finance.invoices.language import language_named
from baseai.finance.invoices.page import page_of
from baseai.finance.invoices.pdf import pdf_of
from baseai.finance.invoices.postgres import Invoices
from baseai.finance.invoices.written import written
from baseai.finance.journal.beancount import Journal
from baseai.finance.journal.sheet import RATED_COLUMNS, TRANSFER_COLUMNS, rated_cells, transfer_cells
from baseai.finance.period import period_named
from baseai.finance.postgres.books import insert_transfers, load_calendar
from baseai.finance.postgres.journal import copied_books
from baseai.ground.clock import now_utc
from baseai.ground.fault import NotFound, Refused
from baseai.truth.session import Scope, Truth
from baseai.wiring.household import Household

Row = dict[str, Any]
Item = TypeVar("Item")
ROWS_A_TURN = 200
FORMS = ("html", "pdf", "dps", "dps.xml")


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

    async def rendered(self, scope: Scope, invoice_id: str, form: str, language: str) -> tuple[str, bytes]:
        """An issued document in a form of FORMS: media type and bytes. Raises NotFound, Refused."""
        return _rendered(await self._invoices.find(invoice_id, scope), form, language)

    async def rendered_draft(
        self, scope: Scope, customer: str, period: str, form: str, language: str
    ) -> tuple[str, bytes]:
        """The draft of a month. Raises NotFound when nothing is to be billed, RateUnknown, Refused."""
        found = await self._invoices.drafts(customer, period_named(period), self.issuer(), scope)
        if not found:
            raise NotFound("draft for", f"{customer} in {period}")
        return _rendered(found[0], form, language)

    async def export_beancount(self, scope: Scope, period: str | None, folder: Path) -> list[str]:
        """Write the books through a month, or up to now, as beancount text; the names of the files."""
        through = None if period is None else period_named(period)
        now = now_utc()
        async with copied_books(self._truth, scope, through=through, at=now) as books:
            journal = Journal(load_chart(), books.balances)
            with _opened(folder / "books.beancount") as file:
                till = f"through {period}" if period is not None else f"up to {now:%Y-%m-%d %H:%M:%S} UTC"
                file.writelines(journal.opening(f"{self.issuer().name}: the books {till}"))
                async for transfer in _paced(books.transfers):
                    file.write(journal.entry(transfer))
                file.writelines(journal.closing())
        return ["books.beancount"]

    async def export_csv(self, scope: Scope, period: str | None, folder: Path) -> list[str]:
        """Write transfers and rated lines through a month, or all, as sheets; the names of the files."""
        through = None if period is None else period_named(period)
        async with copied_books(self._truth, scope, through=through, at=now_utc()) as books:
            with _opened(folder / "transfers.csv") as file:
                writer = _writer(file, TRANSFER_COLUMNS)
                async for transfer in _paced(books.transfers):
                    writer.writerow(transfer_cells(transfer))
        with _opened(folder / "rated_lines.csv") as file:
            writer = _writer(file, RATED_COLUMNS)
            async for line in _paced(rated_lines(self._truth, scope, through=through)):
                writer.writerow(rated_cells(line))
        return ["transfers.csv", "rated_lines.csv"]

    async def export_focus(
        self, scope: Scope, period: str, folder: Path, *, parquet: bool = False
    ) -> list[str]:
        """Write the four files of a month into `folder`, as Parquet too where asked; their names."""
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
            async for dataset, cells in _paced(focus_rows(self._truth, scope, month)):
                writers[dataset].writerow(cells)
        names = [dataset.file for dataset in Dataset]
        if parquet:
            for dataset, heading in headings.items():
                names.append(await asyncio.to_thread(write_parquet, folder, dataset, heading))
        return names


def _rendered(invoice: Invoice, form: str, language: str) -> tuple[str, bytes]:
    if form == "dps":
        tree = dps_of(invoice, version=baseai.__version__)
        return "application/json", json.dumps(document_of_dps(tree), ensure_ascii=False).encode()
    if form == "dps.xml":
        return "application/xml", xml_of(dps_of(invoice, version=baseai.__version__)).encode()
    document = written(invoice, language_named(language))
    if form == "html":
        return "text/html; charset=utf-8", page_of(document).encode()
    if form == "pdf":
        return "application/pdf", pdf_of(document)
    raise Refused(f"{form!r} is no form of a document; there are {', '.join(FORMS)}")


async def _paced(rows: AsyncIterator[Item]) -> AsyncIterator[Item]:
    """The rows; others get their turn every few hundred, for a month of a large fleet takes many seconds."""
    count = 0
    async for row in rows:
        yield row
        count += 1
        if count % ROWS_A_TURN == 0:
            await asyncio.sleep(0)


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
