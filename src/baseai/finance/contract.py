"""A contract is what was agreed with a customer: terms, prices, commitments, discount, least spend, promise.

Invariant: contracts of one tenant on the same terms never overlap where they cover the same thing, so that every
second of use falls under one at most. A reserved contract lasts 6 to 36 whole months and is paid whether used or
not. What was agreed is not edited: a contract is ended, with a reason, and another one made.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from baseai.finance.period import ZONE
from baseai.finance.price_list import Term
from baseai.finance.sla import Promise

MONTHS_LEAST, MONTHS_MOST = 6, 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """Accelerators of one model that are held ready, day and night, and paid."""

    model: str
    count: int
    site_id: str | None = None  # None: at any site

    def __post_init__(self) -> None:
        if self.count <= 0:
            raise ValueError(f"{self.count} committed accelerators of {self.model}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What holds between a customer and us from an instant to another."""

    contract_id: str
    name: str  # as people call it, unique
    customer_id: str
    tenant_id: str
    term: Term
    currency: str  # ISO 4217; every price under it is in it
    from_at: datetime
    until_at: datetime | None = None  # exclusive, as agreed; None: until somebody ends it
    ended_at: datetime | None = None  # ended early
    project_id: str | None = None  # None: every project of the tenant
    list_id: str | None = None  # its own price list; None: the default ones
    discount_ratio: Decimal = Decimal(0)  # off every price
    minimum_micros: int | None = None  # least spend of a whole month
    commitments: tuple[Commitment, ...] = ()
    promise: Promise | None = None

    def __post_init__(self) -> None:
        if self.from_at.tzinfo is None or (self.until_at is not None and self.until_at.tzinfo is None):
            raise ValueError(f"{self.name}: an instant names no zone")
        if self.until_at is not None and self.until_at <= self.from_at:
            raise ValueError(f"{self.name} ends before it begins")
        if len(self.currency) != 3 or not self.currency.isupper():
            raise ValueError(f"{self.name}: {self.currency!r} is not an ISO 4217 code")
        if not 0 <= self.discount_ratio < 1:
            raise ValueError(f"{self.name}: a discount of {self.discount_ratio}; it is 0 to less than 1")
        if self.minimum_micros is not None and self.minimum_micros <= 0:
            raise ValueError(f"{self.name}: a least spend of {self.minimum_micros} micro-units")
        if (self.term is Term.RESERVED) != bool(self.commitments):
            raise ValueError(f"{self.name}: a reserved contract, and only that, says what is committed")
        for one, other in itertools.combinations(self.commitments, 2):
            if one.model == other.model and _meet(one.site_id, other.site_id):
                raise ValueError(f"{self.name} commits {one.model} twice at {one.site_id or 'any site'}")
        if self.term is Term.RESERVED:
            months = self.months
            if months is None or not MONTHS_LEAST <= months <= MONTHS_MOST:
                raise ValueError(
                    f"{self.name}: a reserved contract lasts {MONTHS_LEAST} to {MONTHS_MOST} whole months,"
                    f" not from {self.from_at.isoformat()} to {self.until_at and self.until_at.isoformat()}"
                )

    @property
    def ends_at(self) -> datetime | None:
        """When it really ends, exclusive."""
        ends = [at for at in (self.until_at, self.ended_at) if at is not None]
        return min(ends) if ends else None

    @property
    def months(self) -> int | None:
        """Its length as agreed in whole months of the books' zone; None when it has none."""
        if self.until_at is None:
            return None
        first, last = (at.astimezone(ZoneInfo(ZONE)) for at in (self.from_at, self.until_at))
        if (first.day, first.time()) != (last.day, last.time()):
            return None
        return (last.year - first.year) * 12 + last.month - first.month

    def holds(self, at: datetime) -> bool:
        ends_at = self.ends_at
        return self.from_at <= at and (ends_at is None or at < ends_at)

    def covers(self, project_id: str | None) -> bool:
        return self.project_id in (None, project_id)

    def committed(self, model: str | None, site_id: str | None) -> Commitment | None:
        """What is committed of a model at a site."""
        return next(
            (c for c in self.commitments if c.model == model and c.site_id in (None, site_id)),
            None,
        )


def months_after(at: datetime, months: int) -> datetime:
    """The same day and time of the books' zone so many months later. Raises ValueError where there is no such day."""
    local = at.astimezone(ZoneInfo(ZONE))
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    return local.replace(year=year, month=month + 1).astimezone(UTC)


def contract_faults(contracts: Iterable[Contract]) -> tuple[str, ...]:
    """Every pair of contracts that cover the same thing at the same time, by name, and every name that stands twice."""
    faults = []
    for one, other in itertools.combinations(sorted(contracts, key=lambda c: (c.from_at, c.name)), 2):
        if one.name == other.name:
            faults.append(f"two contracts are named {one.name}")
        if _overlap(one, other):
            faults.append(
                f"{one.name} and {other.name} overlap: both are {one.term.value} contracts of"
                f" {one.tenant_id} from {other.from_at.isoformat()} on"
            )
    return tuple(faults)


def _overlap(one: Contract, other: Contract) -> bool:
    if (one.tenant_id, one.term) != (other.tenant_id, other.term):
        return False
    if not _meet(one.project_id, other.project_id):
        return False
    for before, after in ((one, other), (other, one)):
        ends_at = before.ends_at
        if ends_at is not None and ends_at <= after.from_at:
            return False
    if one.term is not Term.RESERVED:
        return True
    return any(
        a.model == b.model and _meet(a.site_id, b.site_id) for a in one.commitments for b in other.commitments
    )


def _meet(one: str | None, other: str | None) -> bool:
    """Whether two restrictions, None for none, leave something to both."""
    return one is None or other is None or one == other
