"""An assumption is an amount we hold to be so, with low, default and high, until a quote or a meter ends it.

Invariant: every amount that a cost is made of is an assumption here, with its source, its day and its mark;
owned hardware never costs nothing. Amounts change only in `data/cost_assumptions.toml`.
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from baseai.catalog.bounds import Bounds, Case
from baseai.catalog.sheet import Entry, Sheet
from baseai.catalog.source import Mark, Source
from baseai.ground.fault import NotFound, Refused

__all__ = [
    "Assumption",
    "Assumptions",
    "HourlyCost",
    "Ownership",
    "SiteTerms",
    "assumptions_in",
    "hourly_cost",
]

HOURS_PER_YEAR = Decimal(8760)
HOURS_PER_MONTH = Decimal(730)
STALE_AFTER_DAYS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """One uncertain amount. Its unit stands in the name of the field that holds it."""

    bounds: Bounds
    source: Source

    def at(self, case: Case) -> Decimal:
        return self.bounds.at(case)

    def stale(self, on: date) -> bool:
        """Whether nobody has looked at it for half a year."""
        return (on - self.source.read_on).days > STALE_AFTER_DAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What it takes to own one model: a share of its server, for its life."""

    model: str
    accelerators_per_server: int
    server_usd: Assumption  # before taxes and freight
    server_watts: Assumption  # the whole server under work
    life_years: Assumption
    residual_ratio: Assumption  # of the landed price, at the end of life


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTerms:
    """What a site charges for standing and running there."""

    site_id: str  # as asked for; `scala-rio` may take the terms of `scala-*`
    partner_id: str | None  # None for a machine of our own, outside any data centre
    country: str  # ISO 3166 alpha-2
    landed_multiplier: Assumption  # price at the site over price before taxes
    colocation_usd_per_kw_month: Assumption
    pue_ratio: Assumption
    tariff_usd_per_kwh: Assumption


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyCost:
    """What one installed accelerator costs an hour, busy or idle, in US$: always an estimate."""

    model: str
    site_id: str
    case: Case
    depreciation: Decimal
    energy: Decimal
    colocation: Decimal
    mark: Mark  # that of the weakest assumption in it
    currency: str = "USD"

    @property
    def total(self) -> Decimal:
        return self.depreciation + self.energy + self.colocation


def hourly_cost(ownership: Ownership, site: SiteTerms, case: Case = Case.DEFAULT) -> HourlyCost:
    """US$ per installed accelerator-hour at a site.

    depreciation = server price / accelerators × landed multiplier × (1 − residual) / (life × 8,760 h)
    energy       = server watts / accelerators / 1,000 × PUE × tariff per kWh
    colocation   = server watts / accelerators / 1,000 × rate per kW-month / 730 h

    Straight line over the book life. Case LOW takes what makes the cost lowest: the low amounts, and the
    longest life and highest residual; HIGH the other way round. Per installed hour: idle costs the same.
    """
    against = {Case.LOW: Case.HIGH, Case.DEFAULT: Case.DEFAULT, Case.HIGH: Case.LOW}[case]
    share = Decimal(ownership.accelerators_per_server)
    landed_usd = ownership.server_usd.at(case) / share * site.landed_multiplier.at(case)
    lost_ratio = 1 - ownership.residual_ratio.at(against)
    kilowatts = ownership.server_watts.at(case) / share / 1000
    return HourlyCost(
        model=ownership.model,
        site_id=site.site_id,
        case=case,
        depreciation=landed_usd * lost_ratio / (ownership.life_years.at(against) * HOURS_PER_YEAR),
        energy=kilowatts * site.pue_ratio.at(case) * site.tariff_usd_per_kwh.at(case),
        colocation=kilowatts * site.colocation_usd_per_kw_month.at(case) / HOURS_PER_MONTH,
        mark=max(assumption.source.mark for assumption in _inputs(ownership, site)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """Everything a cost is computed from."""

    owned: tuple[Ownership, ...]
    leased: tuple[tuple[str, Assumption], ...]  # (model, US$ per accelerator-hour to its provider)
    sites: tuple[SiteTerms, ...]

    def site_terms(self, site_id: str) -> SiteTerms:
        """The terms of a site: its own, or those of its family (`scala-*`). Raises NotFound."""
        for terms in self.sites:
            family = terms.site_id.removesuffix("*")
            if terms.site_id == site_id or (family != terms.site_id and site_id.startswith(family)):
                return SiteTerms(
                    site_id=site_id,
                    partner_id=terms.partner_id,
                    country=terms.country,
                    landed_multiplier=terms.landed_multiplier,
                    colocation_usd_per_kw_month=terms.colocation_usd_per_kw_month,
                    pue_ratio=terms.pue_ratio,
                    tariff_usd_per_kwh=terms.tariff_usd_per_kwh,
                )
        raise NotFound("cost terms", f"for site {site_id}")

    def ownership(self, model: str) -> Ownership:
        """What owning a model takes. Refused for one that is only leased, NotFound for one nobody knows."""
        for ownership in self.owned:
            if ownership.model == model:
                return ownership
        if any(model == leased for leased, _ in self.leased):
            raise Refused(
                f"{model} is lease only: it stands in no server of ours and costs what its lease does"
            )
        raise NotFound("cost assumptions", f"for {model}")

    def hourly_cost(self, model: str, site_id: str, case: Case = Case.DEFAULT) -> HourlyCost:
        """`hourly_cost` of a model at a site, both by name."""
        return hourly_cost(self.ownership(model), self.site_terms(site_id), case)

    def lease_usd_per_hour(self, model: str) -> Assumption:
        """What the provider of a lease-only model takes. Raises NotFound for a model that we own."""
        for leased, rate in self.leased:
            if leased == model:
                return rate
        raise NotFound("lease rate", f"for {model}")


def assumptions_in(sheet: Sheet, *, owned: frozenset[str], leased: frozenset[str]) -> Assumptions:
    """The assumptions of a sheet; every model must be there, on its right side. Raises BrokenSheet."""
    every = sheet.root.table("every")
    every.only("life_years", "residual_ratio")
    assumptions = Assumptions(
        owned=tuple(_ownership(entry, every) for entry in sheet.entries("owned")),
        leased=tuple((entry.name, _assumption(entry, "usd_per_hour")) for entry in sheet.entries("leased")),
        sites=tuple(_site_terms(entry, sheet.root.table("countries")) for entry in sheet.entries("sites")),
    )
    for group, wanted, found in (
        ("owned", owned, {ownership.model for ownership in assumptions.owned}),
        ("leased", leased, {model for model, _ in assumptions.leased}),
    ):
        for model in sorted(wanted ^ found):
            problem = "is missing" if model in wanted else "does not belong here"
            raise sheet.root.table(group).broken(model, problem)
    return assumptions


def _ownership(entry: Entry, every: Entry) -> Ownership:
    entry.only("accelerators_per_server", "server_usd", "server_watts")
    count = entry.values.get("accelerators_per_server")
    if not isinstance(count, int) or count < 1:
        raise entry.broken("accelerators_per_server", f"{count!r} is not a number of accelerators")
    life_years = _assumption(every, "life_years")
    if life_years.bounds.low <= 0:
        raise every.broken("life_years", "must be positive")
    return Ownership(
        model=entry.name,
        accelerators_per_server=count,
        server_usd=_assumption(entry, "server_usd"),
        server_watts=_assumption(entry, "server_watts"),
        life_years=life_years,
        residual_ratio=_assumption(every, "residual_ratio"),
    )


def _site_terms(entry: Entry, countries: Entry) -> SiteTerms:
    entry.only("partner", "country", "colocation_usd_per_kw_month", "pue_ratio", "tariff_usd_per_kwh")
    country = countries.table(entry.plain("country"))
    country.only("landed_multiplier", "tariff_brl_per_mwh", "brl_per_usd")
    partner = entry.plain("partner")
    own_tariff = entry.has("tariff_usd_per_kwh")
    return SiteTerms(
        site_id=entry.name,
        partner_id=None if partner == "none" else partner,
        country=entry.plain("country"),
        landed_multiplier=_assumption(country, "landed_multiplier"),
        colocation_usd_per_kw_month=_assumption(entry, "colocation_usd_per_kw_month"),
        pue_ratio=_assumption(entry, "pue_ratio"),
        tariff_usd_per_kwh=_assumption(entry, "tariff_usd_per_kwh") if own_tariff else _local_tariff(country),
    )


def _local_tariff(country: Entry) -> Assumption:
    """A tariff in R$/MWh as US$/kWh; a weak real makes energy cheap in dollars."""
    tariff = country.bounds("tariff_brl_per_mwh")
    rate = country.bounds("brl_per_usd")
    if rate.low <= 0:
        raise country.broken("brl_per_usd", "must be positive")
    return Assumption(
        bounds=Bounds(
            low=tariff.low / rate.high / 1000,
            default=tariff.default / rate.default / 1000,
            high=tariff.high / rate.low / 1000,
        ),
        source=country.source("tariff_brl_per_mwh"),
    )


def _assumption(entry: Entry, key: str) -> Assumption:
    return Assumption(bounds=entry.bounds(key), source=entry.source(key))


def _inputs(ownership: Ownership, site: SiteTerms) -> tuple[Assumption, ...]:
    return (
        ownership.server_usd,
        ownership.server_watts,
        ownership.life_years,
        ownership.residual_ratio,
        site.landed_multiplier,
        site.colocation_usd_per_kw_month,
        site.pue_ratio,
        site.tariff_usd_per_kwh,
    )
