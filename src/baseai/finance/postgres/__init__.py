"""The meter and the books on PostgreSQL. Shells: rows become values, the pure files decide, rows are written."""

from baseai.finance.postgres.audit import Auditor
from baseai.finance.postgres.books import PostgresBooks, load_transfers
from baseai.finance.postgres.closing import Closing, PeriodCheck
from baseai.finance.postgres.costs import costs_in
from baseai.finance.postgres.meter import Meter
from baseai.finance.postgres.metering import Metering
from baseai.finance.postgres.posting import Posting, Recomputed

__all__ = [
    "Auditor",
    "Closing",
    "Meter",
    "Metering",
    "PeriodCheck",
    "PostgresBooks",
    "Posting",
    "Recomputed",
    "costs_in",
    "load_transfers",
]
