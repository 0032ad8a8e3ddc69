"""What is asked of the postings: every fact that is given must hold of a transfer, the others are left open.

Invariant: the same question gives the same rows to a sum and to the list behind it. Pure.
"""

from dataclasses import dataclass

from baseai.finance.period import period_named
from baseai.ground.fault import Refused

NATURES = ("revenue", "cost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which postings. An empty text asks for those that name none; None does not ask."""

    period: str | None = None  # the month in which they are booked
    account: str | None = None  # on either side
    nature: str | None = None  # one of NATURES, of either side
    model: str | None = None
    site: str | None = None
    tenant: str | None = None
    round: str | None = None
    run: str | None = None
    serial: str | None = None
    simulated: bool | None = None

    def __post_init__(self) -> None:
        if self.nature is not None and self.nature not in NATURES:
            raise Refused(f"nature={self.nature} is not known; it is one of {', '.join(NATURES)}")
        if self.period is not None:
            period_named(self.period)
