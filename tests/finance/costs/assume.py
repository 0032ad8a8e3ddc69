"""Builders for the tests of costs: the shipped assumptions, versions of them, and a keeper over a real database."""

from datetime import UTC, date, datetime
from decimal import Decimal

from baseai.catalog.bounds import Bounds
from baseai.catalog.catalog import load_catalog
from baseai.finance.costs.assumed import EVER, Assumed, Assumptions, quantities, shipped
from baseai.finance.costs.postgres import CostKeeper
from baseai.finance.costs.tariff import tariff_calendars
from baseai.finance.costs.terms import CostTerms
from baseai.truth.session import Truth
from baseai.wiring.rooms import beside_costs

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def country_of(site_id: str) -> str | None:
    """Of a site of the catalogue."""
    sites = load_catalog().assumptions.sites
    return next((one.country for one in sites if one.site_id == site_id), None)


def version(
    name: str,
    default: str | int,
    *,
    subject: str = "all",
    low: str | int | None = None,
    high: str | int | None = None,
    valid_from: datetime = EVER,
    currency: str | None = None,
    mark: str = "A",
    source_on: date = date(2026, 11, 1),
) -> Assumed:
    return Assumed(
        assumption_id=f"asm_{subject}_{name}_{valid_from:%Y%m%d%H}_{default}",
        subject=subject,
        name=name,
        bounds=Bounds(
            low=Decimal(default if low is None else low),
            default=Decimal(default),
            high=Decimal(default if high is None else high),
        ),
        unit=quantities()[name].unit,
        currency=currency or ("USD" if quantities()[name].money else None),
        source="a quote",
        source_on=source_on,
        mark=mark,
        valid_from=valid_from,
        recorded_by="test",
    )


def first(*versions: Assumed) -> Assumptions:
    """What is shipped, and `versions` over it."""
    said = {(one.subject, one.name, one.valid_from) for one in versions}
    kept = [
        one
        for one in shipped(load_catalog().assumptions)
        if (one.subject, one.name, one.valid_from) not in said
    ]
    return Assumptions([*kept, *versions], country_of)


def terms(*versions: Assumed, landed_multiplier: Decimal | None = None) -> CostTerms:
    return CostTerms(first(*versions), tariff_calendars(), landed_multiplier=landed_multiplier)


async def keeper(truth: Truth, *versions: Assumed) -> CostKeeper:
    """A keeper whose assumptions stand in the truth."""
    made = CostKeeper(truth, beside_costs(truth), first(*versions), lambda held: None)
    await made.seed()
    return made
