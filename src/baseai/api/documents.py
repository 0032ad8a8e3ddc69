"""Routes of documents: invoices, and exports as archives."""

import shutil
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed

# A document stands alone: it may style itself and do nothing else, whoever chose the names in it.
ALONE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
PT_BR = "pt-BR"


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()
    documents = doors.documents

    @router.get("/invoices")
    async def invoices(
        customer: str | None = None,
        period: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        holder: Holder = gate.allowed(Deed.SEE_MONEY),
    ) -> wire.Page:
        """Those that were issued, the newest first; a tenant's key sees its own."""
        rows, more = await documents.invoices(
            scope_of(holder), customer=customer, period=period, limit=limit, cursor=cursor
        )
        return wire.Page(items=[wire.InvoiceView(**row) for row in rows], next=more)

    @router.post("/invoices", status_code=201)
    async def issue(body: wire.NewInvoice, holder: Holder = gate.allowed(Deed.CLOSE_BOOKS)) -> wire.Page:
        """Issue what is to be billed of a month that is over. Twice is once: the second time there is nothing left."""
        rows = await documents.issue(body.customer, body.period, actor=holder.name)
        return wire.Page(items=[wire.InvoiceView(**row) for row in rows])

    @router.get("/invoices/draft", response_model=None)
    async def drafts(
        customer: str,
        period: str,
        form: str = Query("json", alias="as"),
        lang: str = PT_BR,
        holder: Holder = gate.allowed(Deed.SEE_MONEY),
    ) -> wire.Page | Response:
        """What would be issued now. A draft has no number, and nobody owes anything by it."""
        if form != "json":
            kind, content = await documents.rendered_draft(scope_of(holder), customer, period, form, lang)
            return Response(content, media_type=kind, headers=ALONE)
        rows = await documents.drafts(scope_of(holder), customer, period)
        return wire.Page(items=[wire.InvoiceView(**row) for row in rows])

    @router.get("/invoices/{invoice_id}", response_model=None)
    async def invoice(
        invoice_id: str,
        form: str = Query("json", alias="as"),
        lang: str = PT_BR,
        holder: Holder = gate.allowed(Deed.SEE_MONEY),
    ) -> wire.InvoiceView | Response:
        """As JSON, or as=html, pdf, dps (a draft for the tax office, never sent from here) or dps.xml."""
        if form != "json":
            kind, content = await documents.rendered(scope_of(holder), invoice_id, form, lang)
            return Response(content, media_type=kind, headers=ALONE)
        return wire.InvoiceView(**await documents.invoice(scope_of(holder), invoice_id))

    @router.get("/exports/focus")
    async def export_focus(
        period: str, parquet: bool = False, holder: Holder = gate.allowed(Deed.SEE_MONEY)
    ) -> FileResponse:
        """An archive with a month as FOCUS 1.4; a tenant's key gets its own charges."""
        scope = scope_of(holder)
        return await _archived(
            f"focus-{period}",
            lambda folder: documents.export_focus(scope, period, folder, parquet=parquet),
        )

    @router.get("/exports/beancount")
    async def export_beancount(
        period: str | None = None, holder: Holder = gate.allowed(Deed.CLOSE_BOOKS)
    ) -> FileResponse:
        """An archive with the books through a month, or up to now, as beancount text."""
        scope = scope_of(holder)
        return await _archived(
            f"beancount-{period or 'now'}",
            lambda folder: documents.export_beancount(scope, period, folder),
        )

    @router.get("/exports/csv")
    async def export_csv(
        period: str | None = None, holder: Holder = gate.allowed(Deed.CLOSE_BOOKS)
    ) -> FileResponse:
        """An archive with transfers and rated lines through a month, or all, as sheets."""
        scope = scope_of(holder)
        return await _archived(
            f"csv-{period or 'now'}", lambda folder: documents.export_csv(scope, period, folder)
        )

    return router


async def _archived(name: str, write: Callable[[Path], Awaitable[Sequence[str]]]) -> FileResponse:
    """The files that `write` puts into a folder, packed; the folder goes when the answer has gone."""
    folder = Path(tempfile.mkdtemp(prefix="baseai-export-"))
    try:
        names = await write(folder)
        archive = await run_in_threadpool(_pack, folder, names)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return FileResponse(
        archive,
        media_type="application/zip",
        filename=f"baseai-{name}.zip",
        background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
    )


def _pack(folder: Path, names: Sequence[str]) -> Path:
    archive = folder / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.write(folder / name, name)
    return archive
