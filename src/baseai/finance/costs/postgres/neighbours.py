"""Neighbours are what costs need of the ledger, of the time ledger and of the bank, whose shells only wiring knows.

Invariant: nothing is decided here; each of them keeps its own promises, and costs use them inside their transactions.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime

from baseai.finance.bucket import Bucket
from baseai.finance.period import Calendar
from baseai.finance.ptax import Exchange
from baseai.finance.transfer import Transfer
from baseai.truth.session import Session

Hours = Mapping[tuple[int, datetime], Mapping[Bucket, int]]  # (accelerator_no, hour) → µs by bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The others of the room."""

    load_calendar: Callable[[Session], Awaitable[Calendar]]
    insert_transfers: Callable[[Session, Sequence[Transfer]], Awaitable[int]]
    guarded: Callable[
        [], AbstractAsyncContextManager[None]
    ]  # what the database refuses of transfers, as faults
    open_hours: Callable[
        [Session, tuple[datetime, datetime]], Awaitable[Hours]
    ]  # of hours that are not closed
    exchange: Callable[[date], Awaitable[Exchange]]  # raises RateUnknown
