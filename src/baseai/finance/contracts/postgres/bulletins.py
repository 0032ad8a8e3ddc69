"""What the central bank said about each day, in the truth: written once, never interpolated, never changed."""

from collections.abc import Sequence
from datetime import date, timedelta

from baseai.finance.ptax import DAYS_BACK_MOST, Bulletin, Exchange, exchange
from baseai.ground.fault import Conflict
from baseai.truth.session import Truth, fetch_all

DAYS = (
    "SELECT day, sell, bulletin_at, fetched_at, digest FROM fx_rates WHERE currency = 'USD' AND day = ANY(%s)"
)


class Bulletins:
    """The rates of the dollar that were published."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def keep(self, bulletins: Sequence[Bulletin]) -> int:
        """Write them all or none; how many were new. Raises Conflict when the bank now says something else of a day."""
        async with self._truth.transaction() as session:
            written = 0
            for one in bulletins:
                done = await session.execute(
                    "INSERT INTO fx_rates (currency, day, sell, bulletin_at, fetched_at, digest)"
                    " VALUES ('USD', %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    (one.day, one.sell, one.bulletin_at, one.fetched_at, one.digest),
                )
                written += done.rowcount
            for row in await fetch_all(session, DAYS, ([one.day for one in bulletins],)):
                for one in bulletins:
                    if one.day == row["day"] and (one.sell, one.bulletin_at) != (
                        row["sell"],
                        row["bulletin_at"],
                    ):
                        raise Conflict(
                            f"PTAX of {one.day} stands as {row['sell']} and is now told as {one.sell};"
                            " what was published is not changed"
                        )
        return written

    async def between(self, from_on: date, until_on: date) -> tuple[Bulletin, ...]:
        """Of every day from the first to the last that somebody asked the bank about."""
        days = [from_on + timedelta(days=n) for n in range((until_on - from_on).days + 1)]
        async with self._truth.transaction() as session:
            rows = await fetch_all(session, DAYS + " ORDER BY day", (days,))
        return tuple(Bulletin(**row) for row in rows)

    async def exchange(self, on: date) -> Exchange:
        """The rate that holds on a day. Raises RateUnknown."""
        return exchange(await self.between(on - timedelta(days=DAYS_BACK_MOST + 1), on), on)
