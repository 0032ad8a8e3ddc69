"""The meter of the platform's own loop: it measures and books the use of leases, in lanes beside each other.

Invariant: it keeps in mind which runs may have something to post, and forgets a run only after the commit; after a
start it asks the usage lines once. Beside another copy of itself every line and every transfer is still written once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from baseai.finance.postgres.metering import Due, Metering, leases_due, meter_some
from baseai.finance.postgres.posting import Posting, Recomputed, missing_of, post_some, unposted_runs
from baseai.finance.postgres.revenue import post_lines
from baseai.finance.posting import Unpriced
from baseai.finance.rate import Rates
from baseai.finance.transfer import Transfer
from baseai.truth.session import Overlap, Truth, fetch_all

LEASES_A_TRANSACTION = 100
RUNS_A_TRANSACTION = 50
LANES = 2  # a statement keeps one core of the database busy; two lanes keep two, and one reads while another writes

log = logging.getLogger(__name__)


class Meter:
    """Measures and books the use of leases."""

    def __init__(self, truth: Truth, rates: Rates, *, bills: bool = True) -> None:
        """bills: charge use at its list price; otherwise rated lines say what is charged, and this what it costs."""
        self._bills = bills
        self._truth = truth
        self._rates = rates
        self._due = Due()
        self._looked = False
        self._refused: set[str] = set()

    async def meter(self) -> Metering:
        """Write the lines that became final. Cheap when there are none; harmless beside another copy."""
        lines = leases = 0
        overlap = False

        async def lane() -> None:
            nonlocal lines, leases, overlap
            full = True
            while full and not overlap:
                try:
                    found, written = await self._meter_some(LEASES_A_TRANSACTION)
                except Overlap:
                    overlap = True
                    return
                lines, leases, full = lines + written, leases + found, found == LEASES_A_TRANSACTION

        await all_of([lane] * LANES)
        if overlap:
            return await self._meter_one_by_one(lines=lines, leases=leases)
        return Metering(lines=lines, leases=leases)

    async def post(self, rate: Callable[[], Awaitable[None]] | None = None) -> Posting:
        """Write the transfers of every hour that is settled. Harmless beside another copy: one posts, one passes.

        rate: makes rated lines of what was used; it runs beside the posting of costs, and what it made is posted then.
        """
        if not self._looked:
            async with self._truth.transaction() as session:
                found = await unposted_runs(session)
            for run_id in found:
                self._due[run_id] = None
            self._looked = True
        due = sorted(self._due)
        chunks = iter(
            [due[first : first + RUNS_A_TRANSACTION] for first in range(0, len(due), RUNS_A_TRANSACTION)]
        )
        written, unpriced = 0, dict[Unpriced, None]()

        async def lane() -> None:
            nonlocal written
            for run_ids in chunks:
                some = Due({run_id: self._due[run_id] for run_id in run_ids})
                async with self._truth.transaction() as session:
                    done = await post_some(session, some, self._rates, bills=self._bills)
                # Only now, after the commit, is it safe to forget them.
                for run_id in done.looked_at:
                    del self._due[run_id]
                self._due.merge(done.left)
                written += done.transfers
                unpriced.update(done.unpriced)

        await all_of([lane] * min(LANES, len(due)) + ([rate] if rate else []))
        if not self._bills:
            written += await self._post_lines()
        for gap in unpriced:
            log.warning("no %s known for %s at %s: its usage waits", gap.missing, gap.model, gap.hour)
        return Posting(transfers=written, waiting=len(self._due), unpriced=tuple(unpriced))

    async def _post_lines(self) -> int:
        written = 0

        async def lane() -> None:
            nonlocal written
            more = True
            while more:
                async with self._truth.transaction() as session:
                    some, more = await post_lines(session)
                written += some

        await all_of([lane] * LANES)
        return written

    async def recompute(self) -> Recomputed:
        """Rate all settled usage again from the first line on and compare with the books. Writes nothing."""
        async with self._truth.transaction() as session:
            rows = await fetch_all(session, "SELECT DISTINCT run_id FROM usage_lines ORDER BY run_id")
        run_ids: list[str] = [row["run_id"] for row in rows]
        missing: list[Transfer] = []
        for first in range(0, len(run_ids), RUNS_A_TRANSACTION):
            async with self._truth.transaction() as session:
                some = run_ids[first : first + RUNS_A_TRANSACTION]
                missing += await missing_of(session, some, self._rates, bills=self._bills)
        return Recomputed(runs=len(run_ids), missing=tuple(missing))

    async def _meter_some(self, limit: int, lease_id: str | None = None) -> tuple[int, int]:
        async with self._truth.transaction() as session:
            done = await meter_some(session, limit=limit, lease_id=lease_id)
        self._due.merge(done.due)
        return done.leases, done.lines

    async def _meter_one_by_one(self, *, lines: int, leases: int) -> Metering:
        """One lease contradicts what is metered; keep it from holding up the others."""
        async with self._truth.transaction() as session:
            due = await leases_due(session)
        refused = []
        for lease_id in due:
            try:
                found, written = await self._meter_some(1, lease_id)
            except Overlap as wrong:
                refused.append(lease_id)
                if lease_id not in self._refused:
                    log.error("usage of %s overlaps what is metered already: %s", lease_id, wrong.detail)
                self._refused.add(lease_id)
            else:
                leases, lines = leases + found, lines + written
        return Metering(lines=lines, leases=leases, refused=tuple(refused))


async def all_of(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Do them beside each other; raises the first fault after each has ended by itself."""
    ends = await asyncio.gather(*(work() for work in works), return_exceptions=True)
    for wrong in ends:
        if wrong is not None:
            raise wrong
