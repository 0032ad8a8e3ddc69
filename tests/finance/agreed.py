"""Builders for tests of contracts and rating: uses, prices and contracts that are easy to reckon with."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from baseai.finance.contract import Commitment, Contract
from baseai.finance.counted import Counted
from baseai.finance.period import Calendar
from baseai.finance.price_list import Peak, Price, PriceBook, Term, Tier
from baseai.finance.rated import Category, RatedLine
from baseai.finance.rating import Rating, rate
from baseai.finance.use import MeteredUse

NOVEMBER = datetime(2026, 11, 1, 3, tzinfo=UTC)  # its first instant in São Paulo, a Sunday
HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000
MICROSECOND = timedelta(microseconds=1)
OFFICE = Peak(
    zone="America/Sao_Paulo",
    weekdays=frozenset(range(1, 6)),
    from_minute=9 * 60,
    until_minute=18 * 60,
    factor=Decimal("1.5"),
)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """An instant of November by São Paulo's clock."""
    return NOVEMBER + timedelta(days=day - 1, hours=hour, minutes=minute)


def use(
    name: str = "1",
    *,
    from_at: datetime = NOVEMBER,
    us: int = HOUR_US,
    meter: str = "accelerator_time",
    until_at: datetime | None = None,
    tenant: str = "ten_1",
    project: str = "prj_1",
    model: str | None = "h100",
    site: str | None = "sp4",
    spot: bool = False,
    billable: bool = True,
    run: str = "run_1",
    accelerator_no: int | None = 1,
) -> MeteredUse:
    return MeteredUse(
        usage_id=f"use_{name}",
        tenant_id=tenant,
        project_id=project,
        from_at=from_at,
        until_at=until_at or (from_at + us * MICROSECOND if meter == "accelerator_time" else from_at),
        quantity=us,
        meter=meter,
        billable=billable,
        spot=spot,
        run_id=run,
        lease_id="lea_1",
        accelerator_no=accelerator_no,
        model=model,
        node_id="nod_1",
        site_id=site,
        reason=None if billable else "node_lost",
    )


def hours(count: int, *, from_at: datetime = NOVEMBER, accelerator_no: int = 1) -> list[MeteredUse]:
    """One accelerator for so many hours on end."""
    return [
        use(
            f"{accelerator_no}-{n}-{from_at:%d%H%M}",
            from_at=from_at + HOUR * n,
            accelerator_no=accelerator_no,
        )
        for n in range(count)
    ]


def price(
    price_id: str = "p_list",
    rate_an_hour: str = "2",
    *,
    term: Term = Term.ON_DEMAND,
    list_id: str = "list",
    currency: str = "USD",
    model: str | None = "h100",
    site: str | None = None,
    meter: str = "accelerator_time",
    unit: str = "accelerator_hour",
    tiers: Sequence[tuple[str, str]] = (),
    peaks: tuple[Peak, ...] = (),
    valid: tuple[datetime, datetime | None] = (NOVEMBER - timedelta(days=400), None),
    months: int | None = None,
) -> Price:
    return Price(
        price_id=price_id,
        list_id=list_id,
        term=term,
        currency=currency,
        model=model,
        site_id=site,
        meter=meter,
        unit=unit,
        months=months,
        tiers=tuple(
            Tier(from_volume=Decimal(volume), rate=Decimal(rate))
            for volume, rate in tiers or [("0", rate_an_hour)]
        ),
        peaks=peaks,
        valid_from=valid[0],
        valid_until=valid[1],
    )


RESERVED = price("p_reserved", "1", term=Term.RESERVED)


def contract(
    name: str = "alfa",
    *,
    term: Term = Term.RESERVED,
    count: int = 1,
    tenant: str = "ten_1",
    project: str | None = None,
    site: str | None = None,
    currency: str = "USD",
    from_at: datetime = NOVEMBER,
    until_at: datetime | None = datetime(2027, 11, 1, 3, tzinfo=UTC),
    discount: str = "0",
    minimum_micros: int | None = None,
    list_id: str | None = None,
    ended_at: datetime | None = None,
) -> Contract:
    return Contract(
        contract_id=f"con_{name}",
        name=name,
        customer_id="cus_1",
        tenant_id=tenant,
        project_id=project,
        term=term,
        currency=currency,
        from_at=from_at,
        until_at=until_at,
        ended_at=ended_at,
        discount_ratio=Decimal(discount),
        minimum_micros=minimum_micros,
        list_id=list_id,
        commitments=(Commitment(model="h100", count=count, site_id=site),) if term is Term.RESERVED else (),
    )


def rated(
    uses: Sequence[MeteredUse],
    *prices: Price,
    contracts: Sequence[Contract] = (),
    counted: Counted | None = None,
    calendar: Calendar | None = None,
) -> list[RatedLine]:
    """The lines of a batch that can be rated."""
    found = rate(uses, contracts, PriceBook(prices), calendar=calendar or Calendar(), counted=counted)
    assert isinstance(found, Rating), found
    return list(found.lines(recorded_at=NOVEMBER))


def amounts(lines: Iterable[RatedLine]) -> list[tuple[Category, str]]:
    """What each line is for, and its amount in currency units."""
    return [(line.category, f"{Decimal(line.amount_micros).scaleb(-6).normalize():f}") for line in lines]
