"""The addresses of the books: a month at a glance, and from any figure down to postings, rated lines, leases, serials.

Invariant: whom a posting is of is shown to those who may know; a customer's books are their own lines and documents.
Nothing here decides or writes.
"""

from types import MappingProxyType
from typing import Any, Protocol

from fastapi import APIRouter, Query, Request, Response

from baseai.ground.fault import Refused
from baseai.tenancy.role import Deed
from baseai.views.books.asked import Asked
from baseai.web.book_page import BookPages
from baseai.web.doors import Books
from baseai.web.visit import Visit

# A document stands alone: it may style itself and do nothing else, whoever chose the names in it.
ALONE = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        "Cache-Control": "private, no-store",
    }
)
NONE = "-"  # in an address: those that name no such thing


class Renders(Protocol):
    """What of all pages these need: who visits, and the answer."""

    async def visit(self, request: Request, *deeds: Deed) -> Visit:
        """Raises NotAdmitted or, where the role covers none of `deeds`, NotAllowed."""

    def page(self, request: Request, visit: Visit, template: str, **facts: Any) -> Response: ...


def routes(pages: Renders, router: APIRouter, books: Books) -> None:
    """The addresses below /books."""
    own = BookPages(books)

    @router.get("/books")
    async def month(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_BOOKS, Deed.SEE_MONEY)
        if not visit.sees_costs:
            return pages.page(
                request, visit, "books/bill.html", **await own.bill(visit, request.query_params)
            )
        return pages.page(request, visit, "books/month.html", **await own.month(visit, request.query_params))

    @router.get("/books/postings")
    async def postings(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_CUSTOMERS)
        given = dict(request.query_params)
        names = ("nature", "model", "site", "tenant", "round", "run", "serial")
        asked = Asked(
            period=given.get("month") or None,
            simulated={"1": True, "0": False}.get(given.get("simulated", "")),
            **{name: given[name].removeprefix(NONE) for name in names if given.get(name)},
        )
        facts = await own.postings(visit, asked, given.get("after"))
        return pages.page(request, visit, "books/postings.html", given=given, **facts)

    @router.get("/books/accounts/{account}")
    async def account(request: Request, account: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_CUSTOMERS)
        facts = await own.account(visit, account, request.query_params)
        return pages.page(request, visit, "books/account.html", **facts)

    @router.get("/books/transfers/{transfer_id}")
    async def transfer(request: Request, transfer_id: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_CUSTOMERS)
        facts = await books.postings.transfer(visit.scope, transfer_id)
        return pages.page(request, visit, "books/transfer.html", **facts)

    @router.get("/books/lines/{rated_id}")
    async def line(request: Request, rated_id: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_CUSTOMERS, Deed.SEE_MONEY)
        facts = await books.postings.line(visit.scope, rated_id)
        return pages.page(request, visit, "books/line.html", **facts)

    @router.get("/books/invoices/{invoice_id}")
    async def invoice(request: Request, invoice_id: str, form: str = Query("html", alias="as")) -> Response:
        visit = await pages.visit(request, Deed.SEE_CUSTOMERS, Deed.SEE_MONEY)
        if form not in ("html", "pdf"):
            raise Refused(f"as={form} is not known here; it is html or pdf")
        kind, content = await books.invoices.rendered(visit.scope, invoice_id, form, visit.language.tag)
        return Response(content, media_type=kind, headers=ALONE)

    @router.get("/books/leases/{lease_id}")
    async def lease(request: Request, lease_id: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_CUSTOMERS, Deed.SEE_MONEY)
        return pages.page(request, visit, "books/lease.html", **await own.lease(visit, lease_id))

    @router.get("/books/hours")
    async def hours_of(request: Request) -> Response:
        visit = await pages.visit(request, Deed.SEE_BOOKS)
        return pages.page(request, visit, "books/hours.html", **await own.hours(visit, request.query_params))

    @router.get("/books/hours/{serial}")
    async def accelerator(request: Request, serial: str) -> Response:
        visit = await pages.visit(request, Deed.SEE_BOOKS)
        facts = await own.accelerator(visit, serial, request.query_params)
        return pages.page(request, visit, "books/accelerator.html", **facts)
