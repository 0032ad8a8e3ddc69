"""Routes of what was agreed: customers, contracts, prices, rates of exchange, and usage that events tell."""

from datetime import date, datetime

from fastapi import APIRouter, Request, Response

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()
    desk = doors.agreements

    @router.get("/customers")
    async def customers(holder: Holder = gate.allowed(Deed.SEE_MONEY)) -> wire.Page:
        """A tenant's key sees its own."""
        return wire.Page(items=[wire.CustomerView(**row) for row in await desk.customers(scope_of(holder))])

    @router.post("/customers", status_code=201, response_model=wire.CustomerView)
    async def add_customer(
        request: Request, body: wire.NewCustomer, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> Response:
        async def make() -> wire.CustomerView:
            return wire.CustomerView(**await desk.add_customer(body.model_dump(), actor=holder.name))

        return await gate.once(request, holder, 201, make)

    @router.get("/contracts")
    async def contracts(holder: Holder = gate.allowed(Deed.SEE_MONEY)) -> wire.Page:
        """A tenant's key sees its own."""
        return wire.Page(items=[wire.ContractView(**row) for row in await desk.contracts(scope_of(holder))])

    @router.post("/contracts", status_code=201, response_model=wire.ContractView)
    async def add_contract(
        request: Request, body: wire.NewContract, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> Response:
        async def make() -> wire.ContractView:
            return wire.ContractView(**await desk.add_contract(body.model_dump(), actor=holder.name))

        return await gate.once(request, holder, 201, make)

    @router.post("/contracts/{name}/end")
    async def end_contract(
        name: str, body: wire.EndOfContract, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> wire.ContractView:
        """It holds no longer from an instant on. What was agreed stays to be read."""
        return wire.ContractView(
            **await desk.end_contract(name, body.at, reason=body.reason, actor=holder.name)
        )

    @router.post("/contracts/{name}/months/{period}")
    async def close_contract(
        name: str, period: str, holder: Holder = gate.allowed(Deed.CLOSE_BOOKS)
    ) -> wire.Page:
        """Write what it still owes of a month: reserved and unused, prices per month, least spend. Twice is once."""
        rows = await desk.close_contract(name, period)
        return wire.Page(items=[wire.RatedLineView(**row) for row in rows])

    @router.get("/contracts/{name}/health-events")
    async def seat_events(
        name: str, since: datetime | None = None, holder: Holder = gate.allowed(Deed.SEE_MONEY)
    ) -> wire.Page:
        """What befell the accelerators that it holds ready, for the customer's own reckoning of availability."""
        rows = await desk.seat_events(scope_of(holder), name, since)
        return wire.Page(items=[wire.SeatEventView(**row) for row in rows])

    @router.get("/prices")
    async def prices(list: str | None = None, holder: Holder = gate.allowed(Deed.SEE_BOOKS)) -> wire.Page:  # noqa: A002 - the query says it so
        """Every price of every list, the catalogue's among them."""
        return wire.Page(items=[wire.PriceView(**row) for row in await desk.prices(list)])

    @router.post("/prices", status_code=201)
    async def add_prices(body: wire.NewPrices, holder: Holder = gate.allowed(Deed.AGREE)) -> dict[str, int]:
        """Take in a sheet, whole or not at all. A row that follows an open one closes it; the same again is once."""
        return {"new": await desk.add_prices(body.list, body.csv, body.file, actor=holder.name)}

    @router.get("/fx")
    async def bulletins(
        from_on: date, until_on: date, holder: Holder = gate.allowed(Deed.SEE_BOOKS)
    ) -> wire.Page:
        """What PTAX was, day by day, as far as the bank was asked."""
        rows = await desk.bulletins(from_on, until_on)
        return wire.Page(items=[wire.BulletinView(**row) for row in rows])

    @router.post("/fx", status_code=201)
    async def fetch_bulletins(
        body: wire.NewBulletins, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> wire.Page:
        """Ask the central bank and keep what it published."""
        rows = await desk.fetch_bulletins(body.from_on, body.until_on)
        return wire.Page(items=[wire.BulletinView(**row) for row in rows])

    @router.get("/fx/{on}")
    async def exchange(on: date, holder: Holder = gate.allowed(Deed.SEE_BOOKS)) -> wire.ExchangeView:
        """The rate that holds on a day, and which day's it is."""
        return wire.ExchangeView(**await desk.exchange(on))

    @router.post("/usage-events")
    async def record_usage(
        body: wire.NewUsageEvents, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> wire.UsageEventsTaken:
        """Usage of other meters than leases. A group is kept whole or not at all."""
        rows = [event.model_dump() for event in body.events]
        return wire.UsageEventsTaken(**await desk.record_usage(rows))

    @router.get("/rated-lines")
    async def rated_lines(
        period: str | None = None,
        contract: str | None = None,
        run: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        holder: Holder = gate.allowed(Deed.SEE_MONEY),
    ) -> wire.Page:
        """What use came to, the newest first; a tenant's key sees its own."""
        scope = scope_of(holder)
        run_id = (await doors.runs.find(scope, run))["run_id"] if run else None
        rows, more = await desk.rated_lines(
            scope, period=period, contract=contract, run_id=run_id, limit=limit, cursor=cursor
        )
        return wire.Page(items=[wire.RatedLineView(**row) for row in rows], next=more)

    return router
