"""Routes of documents: invoices, and exports as archives."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed

FORMATS = ("focus",)


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

    @router.get("/invoices/draft")
    async def drafts(customer: str, period: str, holder: Holder = gate.allowed(Deed.SEE_MONEY)) -> wire.Page:
        """What would be issued now. A draft has no number, and nobody owes anything by it."""
        rows = await documents.drafts(scope_of(holder), customer, period)
        return wire.Page(items=[wire.InvoiceView(**row) for row in rows])

    @router.get("/invoices/{invoice_id}")
    async def invoice(invoice_id: str, holder: Holder = gate.allowed(Deed.SEE_MONEY)) -> wire.InvoiceView:
        return wire.InvoiceView(**await documents.invoice(scope_of(holder), invoice_id))

    @router.get("/exports")
    async def export(
        period: str,
        format: str = "focus",  # noqa: A002 - the query says it so
        holder: Holder = gate.allowed(Deed.SEE_MONEY),
    ) -> FileResponse:
        """An archive of files. FOCUS 1.4 of a month: a tenant's key gets its own charges."""
        if format not in FORMATS:
            raise Refused(f"{format!r} is no format of an export; there are {', '.join(FORMATS)}")
        folder = Path(tempfile.mkdtemp(prefix="baseai-export-"))
        try:
            names = await documents.export_focus(scope_of(holder), period, folder)
            archive = await run_in_threadpool(_archive, folder, names)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return FileResponse(
            archive,
            media_type="application/zip",
            filename=f"baseai-{format}-{period}.zip",
            background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True),
        )

    return router


def _archive(folder: Path, names: Sequence[str]) -> Path:
    archive = folder / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.write(folder / name, name)
    return archive
