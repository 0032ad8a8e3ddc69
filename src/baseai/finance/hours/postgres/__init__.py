"""The time ledger on PostgreSQL. Shells: rows become facts, `reckoned` decides, rows are written and summed."""

from baseai.finance.hours.postgres.check import Checked
from baseai.finance.hours.postgres.closing import Closing, TimeLedger
from baseai.finance.hours.postgres.sums import load_time

__all__ = ["Checked", "Closing", "TimeLedger", "load_time"]
