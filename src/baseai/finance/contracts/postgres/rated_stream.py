"""All rated lines through a month, or all there are, row by row."""

from collections.abc import AsyncIterator

from psycopg.rows import dict_row

from baseai.finance.contracts.postgres.rated_rows import COLUMNS
from baseai.finance.period import Period
from baseai.finance.rated import Category, RatedLine
from baseai.truth.session import Scope, Truth

ROWS_A_FETCH = 5_000
ALL = f"""
SELECT {COLUMNS}, recorded_at FROM rated_lines WHERE %(through)s::text IS NULL OR period <= %(through)s
ORDER BY effective_from, rated_id
"""  # noqa: S608 - pieces are constants of this file


async def rated_lines(truth: Truth, scope: Scope, *, through: Period | None) -> AsyncIterator[RatedLine]:
    async with (
        truth.transaction(scope, snapshot=True) as session,
        session.cursor(name="rated_stream", row_factory=dict_row) as cursor,
    ):
        cursor.itersize = ROWS_A_FETCH
        await cursor.execute(ALL, {"through": None if through is None else str(through)})
        async for row in cursor:
            yield RatedLine(**{**row, "category": Category(row["category"])})
