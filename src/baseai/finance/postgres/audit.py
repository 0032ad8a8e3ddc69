"""Audits of the books in PostgreSQL: every row is read, in one snapshot, and the outcome is kept.

Invariant: rows, sums and checkpoints are those of one instant, so a posting beside an audit is in all of them or in
none. What an audit found is never changed; the newest one counts.
"""

import json
import time
from dataclasses import asdict

from psycopg.rows import DictRow

from baseai.finance.account import Balance
from baseai.finance.audit import Audit, Checkpoint, Genesis, findings_of
from baseai.finance.chart import WrongCurrency, load_chart
from baseai.finance.exchange import check_exchanges
from baseai.finance.period import ZONE, Finding, period_named
from baseai.finance.postgres.books import BALANCES, SHOWN, transfer_of_row
from baseai.finance.trial_balance import Fold, digest_of
from baseai.truth.session import Session, Truth, fetch_all, fetch_one

ROWS = """
COPY (SELECT period, transfer_id, debit_account, credit_account, currency, amount_micros, kind, pending_id
  FROM transfers) TO STDOUT
"""
SUMS = BALANCES.format(accounts="true", counts="true", x_counts="true")
LIMITED = """
SELECT account, currency, debits AS debits_micros, credits AS credits_micros,
  pending_debits AS pending_debits_micros, pending_credits AS pending_credits_micros FROM limited_sums
"""
EXCHANGES = f"""
SELECT {SHOWN} FROM transfers WHERE fx_rate IS NOT NULL OR debit_account LIKE 'conversion:%%'
  OR credit_account LIKE 'conversion:%%' ORDER BY entry_id
"""  # noqa: S608 - columns are our own
KEEP = """
INSERT INTO book_checks (took_s, transfers, digest, findings) VALUES (%s, %s, %s, %s)
RETURNING ran_at, took_s, transfers, digest, findings
"""
# One round a night of the books' zone.
DUE = f"""
SELECT NOT EXISTS (SELECT FROM book_checks WHERE ran_at >= date_trunc('day', now(), '{ZONE}')) AS due
"""  # noqa: S608 - the zone is our own
NEWEST = "SELECT ran_at, took_s, transfers, digest, findings FROM book_checks ORDER BY check_no DESC LIMIT 1"


class Auditor:
    """Recomputes the books and remembers what came of it."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    async def audit(self) -> Audit:
        """Add everything up again, compare, and keep the outcome."""
        began = time.perf_counter()
        async with self._truth.transaction(snapshot=True) as session:
            digest, rows, findings = await _recomputed(session)
        took_s = time.perf_counter() - began
        kept = json.dumps([asdict(one) for one in findings])
        async with self._truth.transaction() as session:
            row = await fetch_one(session, KEEP, (took_s, rows, digest, kept))
        assert row is not None
        return _audit(row)

    async def is_due(self) -> bool:
        """Whether there was no audit since the last midnight."""
        async with self._truth.transaction() as session:
            row = await fetch_one(session, DUE)
        return row is not None and bool(row["due"])

    async def newest(self) -> Audit | None:
        async with self._truth.transaction() as session:
            row = await fetch_one(session, NEWEST)
        return None if row is None else _audit(row)


async def _recomputed(session: Session) -> tuple[str, int, tuple[Finding, ...]]:
    """The hash of the trial balance from the first row on, how many rows there are, and what is wrong."""
    genesis = Genesis()
    folds: dict[str, Fold] = {}
    async with session.cursor().copy(ROWS) as copied:
        async for block in copied:
            for line in bytes(block).splitlines():
                month, transfer_id, debit, credit, currency, micros, kind, named = line.decode().split("\t")
                if month not in folds:
                    folds[month] = genesis.fold(period_named(month))
                folds[month].add_row(
                    transfer_id, debit, credit, currency, int(micros), kind, None if named == "\\N" else named
                )
    row = await fetch_one(session, "SELECT now() AS now")
    assert row is not None
    findings = findings_of(
        genesis,
        chart=load_chart(),
        summed=[Balance(**one) for one in await fetch_all(session, SUMS)],
        limited=[Balance(**one) for one in await fetch_all(session, LIMITED)],
        checkpoints=await load_checkpoints(session),
        at=row["now"],
    )
    try:
        check_exchanges([transfer_of_row(one) for one in await fetch_all(session, EXCHANGES)])
    except WrongCurrency as wrong:
        findings = (*findings, Finding(check="exchange", sentence=str(wrong)))
    return digest_of(genesis.balances()), genesis.rows(), findings


async def load_checkpoints(session: Session) -> list[Checkpoint]:
    rows = await fetch_all(session, "SELECT period, digest, transfers FROM book_checkpoints ORDER BY period")
    return [Checkpoint(**{**row, "period": period_named(row["period"])}) for row in rows]


def _audit(row: DictRow) -> Audit:
    return Audit(**{**row, "findings": tuple(Finding(**one) for one in row["findings"])})
