"""Costs of owned hardware, computed by hand beside the code."""

from datetime import date, timedelta
from decimal import Decimal

import pytest

from baseai.catalog import load_catalog
from baseai.catalog.assumption import Assumption, Ownership, SiteTerms, hourly_cost
from baseai.catalog.bounds import Bounds, Case
from baseai.catalog.source import Mark, Source
from baseai.ground.fault import NotFound, Refused

ASSUMPTIONS = load_catalog().assumptions
READ = date(2026, 11, 22)


def held(low: str, default: str, high: str, mark: Mark = Mark.SECONDARY) -> Assumption:
    source = Source(source_id="book", title="A book", read_on=READ, mark=mark)
    return Assumption(
        bounds=Bounds(low=Decimal(low), default=Decimal(default), high=Decimal(high)), source=source
    )


def server() -> Ownership:
    """Two accelerators in a server of 87,600 US$ and 2 kW."""
    return Ownership(
        model="thing",
        accelerators_per_server=2,
        server_usd=held("43800", "87600", "175200"),
        server_watts=held("1000", "2000", "4000"),
        life_years=held("4", "5", "8"),
        residual_ratio=held("0", "0.2", "0.5"),
    )


def hall() -> SiteTerms:
    return SiteTerms(
        site_id="hall",
        partner_id=None,
        country="BR",
        landed_multiplier=held("1", "1.5", "2"),
        colocation_usd_per_kw_month=held("73", "146", "292", Mark.UNREAD),
        pue_ratio=held("1", "1.5", "2"),
        tariff_usd_per_kwh=held("0.05", "0.10", "0.20"),
    )


@pytest.mark.parametrize(
    ("case", "depreciation", "energy", "colocation"),
    [
        # 43,800 × 1.5 × 0.8 / 43,800 h;  1 kW × 1.5 × 0.10;  1 kW × 146 / 730 h
        pytest.param(Case.DEFAULT, "1.2", "0.15", "0.2", id="default"),
        # 21,900 × 1 × 0.5 / 70,080 h;  0.5 kW × 1 × 0.05;  0.5 kW × 73 / 730 h
        pytest.param(Case.LOW, "0.15625", "0.025", "0.05", id="low: longest life, highest residual"),
        # 87,600 × 2 × 1 / 35,040 h;  2 kW × 2 × 0.20;  2 kW × 292 / 730 h
        pytest.param(Case.HIGH, "5", "0.8", "0.8", id="high: shortest life, nothing left"),
    ],
)
def test_hourly_cost(case: Case, depreciation: str, energy: str, colocation: str) -> None:
    cost = hourly_cost(server(), hall(), case)
    assert cost.depreciation == Decimal(depreciation)
    assert cost.energy == Decimal(energy)
    assert cost.colocation == Decimal(colocation)
    assert cost.total == Decimal(depreciation) + Decimal(energy) + Decimal(colocation)


def test_a_cost_bears_the_mark_of_its_weakest_assumption() -> None:
    assert hourly_cost(server(), hall()).mark is Mark.UNREAD


def test_an_h100_in_sao_paulo_by_hand() -> None:
    cost = ASSUMPTIONS.hourly_cost("H100-SXM", "SP4")
    # 260,000 / 8 × 1.72 × 0.85 / (5 × 8,760)
    assert round(cost.depreciation, 6) == Decimal("1.084817")
    # 8.4 kW / 8 × 1.4 × (450 R$/MWh / 5.12 / 1,000)
    assert round(cost.energy, 6) == Decimal("0.129199")
    # 8.4 kW / 8 × 200 / 730
    assert round(cost.colocation, 6) == Decimal("0.287671")


def test_a_weak_real_makes_energy_cheap_in_dollars() -> None:
    tariff = ASSUMPTIONS.site_terms("SP4").tariff_usd_per_kwh.bounds
    assert tariff.default == Decimal("0.087890625")
    assert tariff.low == Decimal(300) / Decimal("5.75") / 1000
    assert tariff.high == Decimal(800) / Decimal("4.55") / 1000


@pytest.mark.parametrize("site", ["local", "SP4", "SP5", "RJ2", "MI1", "DC2", "DC6", "scala-tambore"])
def test_owned_hardware_never_costs_nothing(site: str) -> None:
    for ownership in ASSUMPTIONS.owned:
        low, default, high = (ASSUMPTIONS.hourly_cost(ownership.model, site, case) for case in Case)
        assert 0 < low.depreciation < default.depreciation < high.depreciation
        assert 0 < low.energy < default.energy < high.energy
        assert 0 < low.colocation < default.colocation < high.colocation


def test_a_purchase_price_by_server_share_is_that_share() -> None:
    shares = [
        (accelerator.purchase_usd, ASSUMPTIONS.ownership(accelerator.model))
        for accelerator in load_catalog().accelerators
        if accelerator.source_of("purchase_usd").source_id == "server-share"
    ]
    assert len(shares) == 3
    for purchase_usd, ownership in shares:
        assert purchase_usd is not None
        for case in Case:
            assert purchase_usd.at(case) * 8 == ownership.server_usd.at(case)


def test_every_partner_site_has_terms_of_its_own_partner() -> None:
    for partner in load_catalog().partners:
        for site in partner.sites:
            terms = ASSUMPTIONS.site_terms(site.site_id)
            assert (terms.site_id, terms.partner_id) == (site.site_id, partner.partner_id)
            assert terms.country == site.country


def test_the_machine_on_the_desk_belongs_to_no_partner() -> None:
    assert ASSUMPTIONS.site_terms("local").partner_id is None


def test_what_is_only_leased_has_no_cost_of_ownership() -> None:
    with pytest.raises(Refused, match="lease only"):
        ASSUMPTIONS.hourly_cost("TPU-v5e", "SP4")
    assert ASSUMPTIONS.lease_usd_per_hour("TPU-v5e").at(Case.DEFAULT) == Decimal("1.20")


@pytest.mark.parametrize(("model", "site"), [("B200", "SP4"), ("H100-SXM", "SP99"), ("H100-SXM", "scala")])
def test_unknown_names_are_not_found(model: str, site: str) -> None:
    with pytest.raises(NotFound):
        ASSUMPTIONS.hourly_cost(model, site)


def test_an_assumption_that_nobody_looked_at_for_half_a_year_is_stale() -> None:
    assumption = held("1", "2", "3")
    assert not assumption.stale(READ + timedelta(days=180))
    assert assumption.stale(READ + timedelta(days=181))
