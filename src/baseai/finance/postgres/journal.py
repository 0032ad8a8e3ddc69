"""All transfers through a month, or up to now, with the balances they come to: one snapshot, row by row."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import dict_row

from baseai.finance.account import Balance
from baseai.finance.period import Period
from baseai.finance.postgres.books import ALL_ACCOUNTS, SHOWN, THROUGH, transfer_of_row
from baseai.finance.transfer import Transfer
from baseai.truth.session import Scope, Truth, fetch_all

ROWS_A_FETCH = 5_000
WHICH = {"through": "period <= %(through)s", "at": "effective_at <= %(at)s"}


@dataclass(frozen=True, slots=True)
class Copied:
    """The books at one moment. `transfers` can be gone through once."""

    balances: tuple[Balance, ...]
    transfers: AsyncIterator[Transfer]


@asynccontextmanager
async def copied_books(
    truth: Truth, scope: Scope, *, through: Period | None, at: datetime
) -> AsyncIterator[Copied]:
    """What is booked through a month; without one, what took effect at or before `at`."""
    asked = {"through": str(through), "at": at}
    query, which = (ALL_ACCOUNTS, WHICH["at"]) if through is None else (THROUGH, WHICH["through"])
    async with truth.transaction(scope, snapshot=True) as session:
        rows = await fetch_all(session, query, asked)
        async with session.cursor(name="copied_transfers", row_factory=dict_row) as cursor:
            cursor.itersize = ROWS_A_FETCH
            await cursor.execute(
                f"SELECT {SHOWN} FROM transfers WHERE {which} ORDER BY effective_at, transfer_id",  # noqa: S608 - own pieces
                asked,
            )

            async def transfers() -> AsyncIterator[Transfer]:
                async for row in cursor:
                    yield transfer_of_row(row)

            yield Copied(balances=tuple(Balance(**row) for row in rows), transfers=transfers())
