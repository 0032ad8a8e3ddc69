"""What an hour costs: assumptions in versions, tariffs by the wall clock, taxes by scenario, capital recovered."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product

import pytest

from baseai.catalog.bounds import Case
from baseai.catalog.catalog import load_catalog
from baseai.finance.costs.assumed import MARKS, Assumptions, quantities, shipped
from baseai.finance.costs.landed import scenario, scenarios
from baseai.finance.costs.ownership import Ownership
from baseai.finance.costs.tariff import tariff_calendars
from baseai.finance.costs.terms import CostTerms, Terms
from baseai.ground.fault import NotFound
from tests.finance.costs.assume import NOON, country_of, terms, version

HOUR = timedelta(hours=1)
CENT = Decimal("0.01")


def known(found: Terms | None) -> Terms:
    assert found is not None
    return found


# ---- versions


def test_the_first_versions_cost_what_the_catalogue_says() -> None:
    catalogue, ours = load_catalog(), terms()
    for owned, site_id, case in product(
        catalogue.assumptions.owned, ("SP4", "MI1", "DC2", "scala-rio", "local"), Case
    ):
        rate = ours.hourly_cost(owned.model, site_id, NOON, case)
        assert rate is not None
        listed = catalogue.hourly_cost(owned.model, site_id, case)
        assert rate.total() == pytest.approx(listed.total, abs=Decimal("1e-12"))


def test_every_assumption_has_source_day_and_mark_and_owned_hardware_never_costs_nothing() -> None:
    for one in shipped(load_catalog().assumptions):
        assert one.source
        assert one.mark in MARKS
        assert quantities()[one.name].unit == one.unit
    with pytest.raises(ValueError, match="server_price: it is at least"):
        version("server_price", "0", subject="model:H100-SXM")


def test_a_version_holds_from_its_instant_on_and_changes_nothing_before() -> None:
    later = version("pue_ratio", "1.10", subject="site:SP4", valid_from=NOON)
    ours = terms(later)
    assert known(ours.find("H100-SXM", "SP4", NOON - HOUR)).pue_ratio == Decimal("1.4")
    assert known(ours.find("H100-SXM", "SP4", NOON)).pue_ratio == Decimal("1.10")
    assert known(ours.find("H100-SXM", "SP5", NOON)).pue_ratio == Decimal("1.4")


@pytest.mark.parametrize(
    ("subject", "life"),
    [
        pytest.param("round:R1", 6, id="what is said of the round beats the model"),
        pytest.param("model:H100-SXM", 4, id="what is said of the model beats all"),
    ],
)
def test_the_nearer_word_holds(subject: str, life: int) -> None:
    ours = terms(
        version("life_years", 4, subject="model:H100-SXM"), version("life_years", 6, subject="round:R1")
    )
    round_id = "R1" if subject.startswith("round") else None
    assert known(ours.find("H100-SXM", "SP4", NOON, round_id=round_id)).ownership.life_years == life


def test_nobody_looked_at_it_for_180_days() -> None:
    one = version("pue_ratio", "1.3", subject="site:SP4", source_on=date(2026, 5, 1))
    assert not one.stale(date(2026, 10, 28))
    assert one.stale(date(2026, 10, 29))
    assert one.sentence(date(2026, 10, 29)) == "pue_ratio of site:SP4 is 181 days old (2026-05-01)"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            {"subject": "model:H100-SXM"}, "not of 'model:H100-SXM'", id="of the wrong kind of thing"
        ),
        pytest.param({"default": "0.5"}, "at least 1 and at most 3", id="out of its bounds"),
        pytest.param({"currency": "USD"}, "no money and has no currency", id="a ratio in dollars"),
        pytest.param({"mark": "D"}, "one of A, B, C, measured", id="a mark that is none"),
    ],
)
def test_what_cannot_be_assumed_is_refused_by_name(changes: dict[str, str], sentence: str) -> None:
    said = {"default": "1.3", "subject": "site:SP4"} | changes
    with pytest.raises(ValueError, match=sentence):
        version("pue_ratio", **said)  # type: ignore[arg-type]


def test_reais_become_dollars_at_the_rate_of_the_same_case() -> None:
    said = version("tariff_per_kwh", "0.45", subject="site:SP4", low="0.30", high="0.80", currency="BRL")
    ours = terms(said)
    assert [round(known(ours.find("H100-SXM", "SP4", NOON, case)).tariff_per_kwh, 6) for case in Case] == [
        round(Decimal("0.30") / Decimal("5.75"), 6),  # a weak real makes it cheap in dollars
        round(Decimal("0.45") / Decimal("5.12"), 6),
        round(Decimal("0.80") / Decimal("4.55"), 6),
    ]


def test_what_is_not_assumed_is_unknown_and_not_nothing() -> None:
    kept = [one for one in shipped(load_catalog().assumptions) if one.name != "pue_ratio"]
    assert CostTerms(Assumptions(kept, country_of), {}).hourly_cost("H100-SXM", "SP4", NOON) is None
    assert terms().hourly_cost("TPU-v5e", "SP4", NOON) is None


# ---- energy by the hour


PEAK = version("tariff_peak_per_kwh", "0.30", subject="site:SP4")


@pytest.mark.parametrize(
    ("local", "share"),
    [
        pytest.param("2026-11-20T17:00-03:00", 0, id="before the peak"),
        pytest.param("2026-11-20T18:00-03:00", 1, id="in it"),
        pytest.param("2026-11-20T21:00-03:00", 0, id="after it"),
        pytest.param("2026-11-21T18:00-03:00", 0, id="on a Saturday"),
    ],
)
def test_peak_goes_by_the_wall_clock_of_the_site(local: str, share: int) -> None:
    hour = datetime.fromisoformat(local).astimezone(UTC)
    found = known(terms(PEAK).find("H100-SXM", "SP4", hour))
    assert found.tariff(hour) == (Decimal("0.30") if share else found.tariff_per_kwh)


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        pytest.param(date(2026, 10, 30), 5, id="summer time"),
        pytest.param(date(2026, 11, 2), 5, id="the first weekday after clocks went back"),
    ],
)
def test_a_day_has_its_peak_hours_whatever_clocks_do(day: date, hours: int) -> None:
    calendar = tariff_calendars()["country:US"]
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert sum(calendar.peak_ratio(start + n * HOUR) for n in range(30)) == hours


def test_the_hour_in_which_clocks_go_back_is_two_hours_of_energy() -> None:
    """A peak over the night in which New York has 01:00 to 02:00 twice: three hours of clock, four of time."""
    calendar = tariff_calendars()["country:US"]
    night = replace(
        calendar,
        peak=replace(calendar.peak, weekdays=frozenset(range(1, 8)), from_minute=0, until_minute=180),
    )
    start = datetime(2026, 11, 1, 0, tzinfo=UTC)
    assert sum(night.peak_ratio(start + n * HOUR) for n in range(24)) == 4


# ---- taxes


@pytest.mark.parametrize(
    ("name", "multiplier"),
    [
        ("worst", "1.82"), ("base", "1.72"), ("parts", "1.65"), ("ex_tarifario", "1.48"), ("redata", "1.22"),
        ("redata_icms", "1.00"),
    ],
)  # fmt: skip
def test_import_taxes_are_a_scenario(name: str, multiplier: str) -> None:
    assert scenario(name).multiplier().quantize(CENT) == Decimal(multiplier)
    assert name in scenarios()


def test_an_unknown_scenario_is_told_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="there are worst, base"):
        scenario("none")


def test_a_scenario_taxes_what_is_imported_and_nothing_else() -> None:
    ours = terms(landed_multiplier=Decimal("1.22"))
    assert known(ours.find("H100-SXM", "SP4", NOON)).ownership.landed_multiplier == Decimal("1.22")
    assert known(ours.find("H100-SXM", "DC2", NOON)).ownership.landed_multiplier == 1


# ---- owning


def test_the_straight_line_ends_at_the_residual_and_stops_there() -> None:
    owned = Ownership(
        price=Decimal(1000),
        landed_multiplier=Decimal("1.5"),
        life_years=Decimal(5),
        residual_ratio=Decimal("0.2"),
    )
    assert owned.depreciated(Decimal(5 * 8760)) == pytest.approx(Decimal(1200))
    assert owned.depreciated(Decimal(9 * 8760)) == 1200
    assert owned.recovery_per_hour(Decimal(0)) * 5 * 8760 == pytest.approx(Decimal(1300))
    assert owned.recovery_per_hour(Decimal("0.14")) > owned.depreciation_per_hour()


@pytest.mark.parametrize(
    ("site_id", "multiplier", "full", "cash"),
    [
        pytest.param("SP4", None, "3.58", "1.20", id="São Paulo, base taxes"),
        pytest.param("SP4", "1.22", "2.70", "1.04", id="São Paulo, special regime"),
        pytest.param("DC2", None, "2.34", "1.00", id="Ashburn"),
    ],
)
def test_a_sold_hour_of_an_h100_costs_what_the_study_says(
    site_id: str, multiplier: str | None, full: str, cash: str
) -> None:
    """At 70 % sold, 14 % a year, five years: 2.60 a sold hour contributes in São Paulo and pays no capital back."""
    landed = None if multiplier is None else Decimal(multiplier)
    found = known(terms(landed_multiplier=landed).find("H100-SXM", site_id, NOON))
    running = (
        found.energy_per_hour(NOON)
        + found.colocation_per_hour()
        + found.support_per_hour()
        + found.maintenance_per_hour()
    ) / Decimal("0.7") + Decimal("0.025") * Decimal("2.60")
    assert running == pytest.approx(Decimal(cash), abs=CENT)
    assert running + found.recovery_per_hour() / Decimal("0.7") == pytest.approx(Decimal(full), abs=2 * CENT)


def test_low_and_high_hold_the_usual_between_them() -> None:
    low, usual, high = (known(terms().find("H100-SXM", "SP4", NOON, case)) for case in Case)
    for name in ("energy_per_hour", "price_per_counted_kwh"):
        assert getattr(low, name)(NOON) < getattr(usual, name)(NOON) < getattr(high, name)(NOON)
    assert low.recovery_per_hour() < usual.recovery_per_hour() < high.recovery_per_hour()
