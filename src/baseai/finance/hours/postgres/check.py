"""The check of the time ledger: for every hour and site the buckets sum to the installed time.

Invariant: installed time is reckoned here by PostgreSQL from accelerators and moves alone, apart from what closed the
hours. A row of `checks` stands for each hour and site that does not add up, until it does; while it stands, nobody is
shown that hour's figures.
"""

from dataclasses import dataclass
from datetime import datetime

from baseai.finance.bucket import HOUR
from baseai.finance.hours.postgres.observed import LIVES
from baseai.truth.session import Session, fetch_all

NAME = "time"

WRONG = f"""
WITH lives AS ({LIVES}), due AS (
  SELECT h AS hour, l.accelerator_no, (EXTRACT(epoch FROM
    LEAST(h + interval '1 hour', l.gone_at) - GREATEST(h, l.installed_at)) * 1000000)::bigint AS us
  FROM lives l, generate_series(GREATEST(date_trunc('hour', l.installed_at, 'UTC'), %(since)s),
    LEAST(l.gone_at, %(until)s) - interval '1 microsecond', interval '1 hour') h
), summed AS (
  SELECT hour, accelerator_no, sum(micro_seconds)::bigint AS us FROM time_buckets
  WHERE replaced_at IS NULL AND hour >= %(since)s AND hour < %(until)s GROUP BY hour, accelerator_no
)
SELECT hour, l.site_id, count(*) AS accelerators, sum(COALESCE(d.us, 0))::bigint AS installed_us,
  sum(COALESCE(s.us, 0))::bigint AS summed_us
FROM due d FULL JOIN summed s USING (hour, accelerator_no) JOIN lives l USING (accelerator_no)
WHERE d.us IS DISTINCT FROM s.us GROUP BY hour, l.site_id ORDER BY hour, l.site_id
"""  # noqa: S608 - pieces are constants of this file and of observed.py
STAND = """
INSERT INTO checks (name, hour, site_id, sentence) SELECT %(name)s, * FROM unnest(%(hours)s::timestamptz[],
  %(sites)s::text[], %(sentences)s::text[]) ON CONFLICT (name, hour, site_id) WHERE passed_at IS NULL
  DO UPDATE SET sentence = excluded.sentence WHERE checks.sentence <> excluded.sentence
"""
PASSED = """
UPDATE checks c SET passed_at = now() WHERE name = %(name)s AND passed_at IS NULL AND hour >= %(since)s
  AND hour < %(until)s AND NOT EXISTS (SELECT FROM unnest(%(hours)s::timestamptz[], %(sites)s::text[])
    AS w (hour, site_id) WHERE w.hour = c.hour AND w.site_id = c.site_id)
"""
ROUND = """
INSERT INTO check_rounds (name, ran_at, looked_at, failing) VALUES (%(name)s, now(), %(looked)s, %(failing)s)
ON CONFLICT (name) DO UPDATE SET ran_at = now(), looked_at = excluded.looked_at, failing = excluded.failing
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check came to."""

    hours: int  # looked at
    failing: tuple[str, ...]  # a sentence for each hour and site that does not add up


async def check_hours(
    session: Session, since: datetime, until: datetime, *, nightly: bool = False
) -> Checked:
    """Hold the hours of a span against installed time, and write down what does not add up. O(hours x accelerators).

    nightly: it is the round over everything, and its time is kept.
    """
    spanned = {"since": since, "until": until, "name": NAME}
    wrong = await fetch_all(session, WRONG, spanned)
    named = {
        "hours": [row["hour"] for row in wrong],
        "sites": [row["site_id"] for row in wrong],
        "sentences": [
            f"of {row['installed_us']} µs that {row['accelerators']} accelerators at {row['site_id']} were installed"
            f" in the hour from {row['hour'].isoformat()}, {row['summed_us']} µs stand in buckets"
            for row in wrong
        ],
    }
    await session.execute(STAND, spanned | named)
    await session.execute(PASSED, spanned | named)
    looked = max(0, (until - since) // HOUR)
    if nightly:
        await session.execute(ROUND, {"name": NAME, "looked": looked, "failing": len(wrong)})
    return Checked(hours=looked, failing=tuple(named["sentences"]))
