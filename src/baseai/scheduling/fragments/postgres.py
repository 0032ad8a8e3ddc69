"""Intervals of fragmentation in PostgreSQL. A shell: it writes what a cycle's verdict was, and chooses nothing.

Invariant: of each model and site one interval is open at most. It reaches no further than a cycle that said so:
after a gap without cycles it ends where it was last seen, for nobody knows what was between. Only the scheduler's
loop writes here.
"""

from collections.abc import Set
from datetime import datetime, timedelta

from baseai.scheduling.fragmentation import Pool
from baseai.truth.session import Truth

__all__ = ["Fragmentations"]

GAP = timedelta(seconds=60)  # the loop looks at least every ten seconds

GO_ON_OR_END = """
UPDATE fragmentations f SET
  until_at = CASE WHEN f.seen_at < %(at)s - %(gap)s THEN f.seen_at
    WHEN NOT EXISTS (SELECT FROM unnest(%(models)s::text[], %(sites)s::text[]) AS v (model, site_id)
      WHERE v.model = f.model AND v.site_id = f.site_id) THEN %(at)s END,
  seen_at = CASE WHEN f.seen_at < %(at)s - %(gap)s THEN f.seen_at ELSE %(at)s END
WHERE f.until_at IS NULL AND f.seen_at <= %(at)s
"""
BEGIN = """
INSERT INTO fragmentations (model, site_id, from_at, seen_at)
SELECT model, site_id, %(at)s, %(at)s FROM unnest(%(models)s::text[], %(sites)s::text[]) AS v (model, site_id)
JOIN sites USING (site_id) ON CONFLICT (model, site_id) WHERE until_at IS NULL DO NOTHING
"""


class Fragmentations:
    """The record of fragmentation, for the scheduler's loop."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._quiet = False  # nothing was open after the last verdict

    async def note(self, pools: Set[Pool], at: datetime) -> None:
        """Write down the verdict of the cycle whose snapshot was of `at`. Free while nothing is fragmented."""
        if not pools and self._quiet:
            return
        named = sorted(pools)
        params = {
            "models": [pool.model for pool in named],
            "sites": [pool.site for pool in named],
            "at": at,
            "gap": GAP,
        }
        async with self._truth.transaction() as session:
            await session.execute(GO_ON_OR_END, params)
            if named:
                await session.execute(BEGIN, params)
        self._quiet = not named
