"""Routes of costs: what a month came to and what is behind it, assumptions in versions, suggested prices."""

from fastapi import APIRouter, Response

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.tenancy.key import Holder, NotAllowed
from baseai.tenancy.role import Deed, may


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter()
    desk = doors.costs

    @router.get("/economics")
    async def economics(
        response: Response,
        period: str | None = None,
        by: str = "all",
        case: str = "default",
        currency: str = "USD",
        simulated: bool = False,
        taxes: str | None = None,
        holder: Holder = gate.allowed(Deed.SEE_BOOKS),
    ) -> wire.EconomicsView:
        """What a month earned, cost and left over. Without a period: this month so far."""
        if by == "customer" and not may(holder.role, Deed.SEE_CUSTOMERS):
            raise NotAllowed(holder.role.value, Deed.SEE_CUSTOMERS.value)
        found = wire.EconomicsView(
            **await desk.economics(
                period, by=by, case=case, currency=currency, simulated=simulated, taxes=taxes
            )
        )
        if found.stale:
            response.headers["Warning"] = f'299 baseai "{len(found.stale)} assumptions are stale"'
        return found

    @router.get("/economics/behind")
    async def behind(
        figure: str,
        period: str | None = None,
        by: str = "all",
        subject: str | None = None,
        simulated: bool = False,
        limit: int = 100,
        cursor: str | None = None,
        _: Holder = gate.allowed(Deed.SEE_CUSTOMERS),
    ) -> wire.Page:
        """The transfers, or the accelerators' hours, that one figure of one row is the sum of."""
        rows, more = await desk.behind(
            period, figure, by=by, subject=subject, simulated=simulated, limit=limit, cursor=cursor
        )
        return wire.Page(items=[wire.BehindFigureView(**row) for row in rows], next=more)

    @router.get("/cost/assumptions")
    async def assumptions(
        stale: bool = False, every: bool = False, _: Holder = gate.allowed(Deed.SEE_BOOKS)
    ) -> dict[str, list[wire.AssumptionView]]:
        """Those that hold now; `stale`: of these, the ones to look at; `every`: all versions there ever were."""
        rows = await desk.assumptions(stale=stale, every=every)
        return {"items": [wire.AssumptionView(**row) for row in rows]}

    @router.post("/cost/assumptions", status_code=201)
    async def record(
        body: wire.NewAssumption, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> wire.AssumptionView:
        """A version that takes the place of the one before it from its instant on."""
        return wire.AssumptionView(**await desk.record(body.model_dump(), scope_of(holder)))

    @router.get("/prices/suggestions")
    async def suggestions(
        state: str | None = None, _: Holder = gate.allowed(Deed.SEE_BOOKS)
    ) -> dict[str, list[wire.SuggestionView]]:
        rows = await desk.suggestions(state)
        return {"items": [wire.SuggestionView(**row) for row in rows]}

    @router.post("/prices/suggestions")
    async def suggest(holder: Holder = gate.allowed(Deed.AGREE)) -> wire.SuggestionsView:
        """Reckon them anew from how this month sells. Nothing changes but what is proposed."""
        return wire.SuggestionsView(**await desk.suggest(scope_of(holder)))

    @router.post("/prices/suggestions/{suggestion_id}/apply")
    async def apply(
        suggestion_id: str, body: wire.ApplySuggestion, holder: Holder = gate.allowed(Deed.AGREE)
    ) -> wire.SuggestionView:
        """Let it hold from the next full hour on, as a new version of a price list."""
        return wire.SuggestionView(**await desk.apply(suggestion_id, body.list, scope_of(holder)))

    @router.post("/prices/suggestions/{suggestion_id}/decline")
    async def decline(suggestion_id: str, holder: Holder = gate.allowed(Deed.AGREE)) -> wire.SuggestionView:
        return wire.SuggestionView(**await desk.decline(suggestion_id, scope_of(holder)))

    return router
