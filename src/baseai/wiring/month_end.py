"""The end of a month: everything that has to be in its books before they are closed, brought there in its order.

Invariant: each step is one that the platform's own loops take as well, so taking it twice, or beside them, changes
nothing. What contracts owe beside their use comes after all use is rated, and is posted before anything is checked.
"""

from collections.abc import Callable, Sequence

from baseai.finance.contracts.postgres import Rater
from baseai.finance.hours.postgres import TimeLedger
from baseai.finance.period import Finding, Period
from baseai.finance.postgres import Meter, PeriodCheck


class MonthEnd:
    """Brings in what is left of a month."""

    def __init__(self, meter: Callable[[], Meter], rater: Rater, time: TimeLedger) -> None:
        """meter: a fresh one, which looks at everything and not only at what it has measured itself."""
        self._meter = meter
        self._rater = rater
        self._time = time

    async def bring_in(self, period: Period) -> Sequence[Finding]:
        """Meter, rate, reckon what contracts owe, post, close the hours of accelerators; what could not be done.

        Raises Refused while contracts or price lists contradict themselves.
        """
        meter = self._meter()
        await meter.meter()
        await self._rater.rate()
        found = await self._rater.close_months(period)
        await meter.post()
        await self._time.close()
        return found

    def checks(self) -> tuple[PeriodCheck, ...]:
        """What is looked at once more while the month takes nothing but its own facts."""
        return self._rater.against, self._time.against
