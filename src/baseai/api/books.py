"""Routes of the books: balances, months, audits, transfers."""

from datetime import datetime

from fastapi import APIRouter

from baseai.api import schemas as wire
from baseai.api.doors import Doors
from baseai.api.gate import Gate, scope_of
from baseai.ground.fault import Refused
from baseai.tenancy.key import Holder
from baseai.tenancy.role import Deed


def routes(doors: Doors, gate: Gate) -> APIRouter:
    """The routes, behind `gate`."""
    router = APIRouter(prefix="/books")

    @router.get("/trial-balance")
    async def trial_balance(
        at: datetime | None = None, holder: Holder = gate.allowed(Deed.SEE_BOOKS)
    ) -> wire.TrialBalance:
        found = await doors.money.ledger.trial_balance(scope_of(holder), _zoned(at))
        return wire.TrialBalance(**found)

    @router.get("/balance")
    async def balance(
        account: str, at: datetime | None = None, holder: Holder = gate.allowed(Deed.SEE_BOOKS)
    ) -> wire.AccountView:
        found = await doors.money.ledger.balance(account, _zoned(at), scope_of(holder))
        return wire.AccountView(**found)

    @router.get("/transfers")
    async def transfers(
        run: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        holder: Holder = gate.allowed(Deed.SEE_BOOKS),
    ) -> wire.Page:
        scope = scope_of(holder)
        run_id = (await doors.runs.find(scope, run))["run_id"] if run else None
        rows, more = await doors.money.transfers(scope, run_id=run_id, limit=limit, cursor=cursor)
        return wire.Page(items=[wire.TransferView(**row) for row in rows], next=more)

    @router.get("/periods")
    async def periods(holder: Holder = gate.allowed(Deed.SEE_BOOKS)) -> dict[str, list[wire.PeriodView]]:
        rows = await doors.money.ledger.periods(scope_of(holder))
        return {"items": [wire.PeriodView(**row) for row in rows]}

    @router.post("/periods/{period}/close")
    async def close(period: str, holder: Holder = gate.allowed(Deed.CLOSE_BOOKS)) -> wire.CloseView:
        """Closing a closed month again answers what the first time did."""
        return wire.CloseView(**await doors.money.ledger.close(period, scope_of(holder)))

    @router.get("/check")
    async def newest_check(holder: Holder = gate.allowed(Deed.SEE_BOOKS)) -> wire.AuditView:
        return wire.AuditView(**await doors.money.ledger.newest_check())

    @router.post("/check")
    async def check(holder: Holder = gate.allowed(Deed.CLOSE_BOOKS)) -> wire.AuditView:
        return wire.AuditView(**await doors.money.ledger.check())

    return router


def _zoned(at: datetime | None) -> datetime | None:
    if at is not None and at.tzinfo is None:
        raise Refused(f"at={at.isoformat()} names no zone; write it like {at.isoformat()}Z")
    return at
