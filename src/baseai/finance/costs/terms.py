"""Terms are what one accelerator of a model costs at a site, for whatever runs or does not run on it, in US$.

Invariant: terms follow from the assumptions that held at an instant and from one case of them, and name every one that
went in. LOW takes of each assumption what makes things cheap, HIGH what makes them dear. Amounts in R$ are changed at
the assumed rate of exchange, of the same case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from baseai.catalog.bounds import Case
from baseai.finance.costs.assumed import MARKS, OPPOSITE, Assumed, Assumptions, quantities
from baseai.finance.costs.ownership import Ownership
from baseai.finance.costs.tariff import TariffCalendar
from baseai.finance.rate import HourlyCostRate

HOURS_PER_MONTH = Decimal(730)  # of a standard hour; what a month really has is settled at its end
HOURS_PER_YEAR = Decimal(8760)
USD = "USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """US$ and kW of one accelerator, with its share of the server."""

    kilowatts: Decimal  # under work, rated by assumption: the meter says otherwise where there is one
    ownership: Ownership
    pue_ratio: Decimal
    tariff_per_kwh: Decimal
    tariff_peak_per_kwh: Decimal | None  # None: the same at any hour
    calendar: TariffCalendar | None
    colocation_per_kw_month: Decimal
    demand_per_kw_month: Decimal
    network_per_kw_month: Decimal
    support_ratio_per_year: Decimal
    maintenance_ratio_per_year: Decimal
    host_energy_ratio: Decimal
    capital_ratio_per_year: Decimal
    mark: str  # the weakest of them
    assumption_ids: tuple[str, ...]

    def tariff(self, hour: datetime) -> Decimal:
        """US$ per kWh in a UTC hour, peak and off-peak by their minutes."""
        if self.tariff_peak_per_kwh is None or self.calendar is None:
            return self.tariff_per_kwh
        peak = self.calendar.peak_ratio(hour)
        return self.tariff_per_kwh * (1 - peak) + self.tariff_peak_per_kwh * peak

    def energy_per_hour(self, hour: datetime) -> Decimal:
        """kW × PUE × tariff: what an hour costs by rating."""
        return self.kilowatts * self.pue_ratio * self.tariff(hour)

    def price_per_counted_kwh(self, hour: datetime) -> Decimal:
        """US$ per kWh of the accelerator's own counter: its host, the hall and the tariff go with it."""
        return self.host_energy_ratio * self.pue_ratio * self.tariff(hour)

    def colocation_per_hour(self) -> Decimal:
        return self.kilowatts * self.colocation_per_kw_month / HOURS_PER_MONTH

    def support_per_hour(self) -> Decimal:
        return self.ownership.landed * self.support_ratio_per_year / HOURS_PER_YEAR

    def maintenance_per_hour(self) -> Decimal:
        return self.ownership.landed * self.maintenance_ratio_per_year / HOURS_PER_YEAR

    def recovery_per_hour(self) -> Decimal:
        return self.ownership.recovery_per_hour(self.capital_ratio_per_year)

    def hourly(self, hour: datetime, basis: str) -> HourlyCostRate:
        """What posting takes for every hour, used or idle."""
        return HourlyCostRate(
            depreciation=self.ownership.depreciation_per_hour(),
            energy=self.energy_per_hour(hour),
            colocation=self.colocation_per_hour(),
            currency=USD,
            basis=basis,
        )


class CostTerms:
    """Terms by model, site, round, instant and case, kept in mind between two changes of the assumptions."""

    def __init__(
        self,
        assumptions: Assumptions,
        calendars: Mapping[str, TariffCalendar],
        *,
        landed_multiplier: Decimal | None = None,
    ) -> None:
        """landed_multiplier: of a tax scenario, in the place of what is assumed of countries whose import is taxed."""
        self.assumptions = assumptions
        self._calendars = calendars
        self._landed = landed_multiplier
        self._known: dict[tuple[str, str, str | None, Case, int], Terms | None] = {}

    def find(
        self,
        model: str,
        site_id: str,
        at: datetime,
        case: Case = Case.DEFAULT,
        round_id: str | None = None,
    ) -> Terms | None:
        """None where something that costs cannot do without is not assumed: unknown is not nothing."""
        key = (model, site_id, round_id, case, self.assumptions.epoch(at))
        if key not in self._known:
            self._known[key] = self._terms(model, site_id, at, case, round_id)
        return self._known[key]

    def hourly_cost(
        self, model: str, site_id: str, at: datetime, case: Case = Case.DEFAULT
    ) -> HourlyCostRate | None:
        """The rates that posting takes, without what is known of single rounds."""
        terms = self.find(model, site_id, at, case)
        if terms is None:
            return None
        held = self.assumptions.find("colocation_per_kw_month", at, site_id=site_id)
        where = held.subject if held is not None else site_id
        return terms.hourly(
            at,
            f"assumptions for {model} and {where} (estimated, mark {terms.mark}): straight-line depreciation,"
            " power × PUE × tariff, colocation",
        )

    def _terms(
        self, model: str, site_id: str, at: datetime, case: Case, round_id: str | None
    ) -> Terms | None:
        used: dict[str, Assumed] = {}

        def value(name: str) -> Decimal | None:
            found = self.assumptions.find(name, at, model=model, site_id=site_id, round_id=round_id)
            if found is None:
                return None
            used[found.assumption_id] = found
            amount = amount_of(found, case)
            if found.currency in (None, USD):
                return amount
            exchange = self.assumptions.find("brl_per_usd", at)
            if exchange is None:
                return None
            used[exchange.assumption_id] = exchange
            return amount / amount_of(exchange, case)

        price, count, watts = value("server_price"), value("accelerators_per_server"), value("server_watts")
        life, residual = value("life_years"), value("residual_ratio")
        landed, pue, tariff = value("landed_multiplier"), value("pue_ratio"), value("tariff_per_kwh")
        colocation = value("colocation_per_kw_month")
        if (
            price is None
            or count is None
            or watts is None
            or life is None
            or residual is None
            or landed is None
            or pue is None
            or tariff is None
            or colocation is None
        ):
            return None
        if self._landed is not None and landed > 1:
            landed = self._landed
        return Terms(
            kilowatts=watts / count / 1000,
            ownership=Ownership(
                price=price / count, landed_multiplier=landed, life_years=life, residual_ratio=residual
            ),
            pue_ratio=pue,
            tariff_per_kwh=tariff,
            tariff_peak_per_kwh=value("tariff_peak_per_kwh"),
            calendar=self._calendar(site_id),
            colocation_per_kw_month=colocation,
            demand_per_kw_month=value("demand_per_kw_month") or Decimal(0),
            network_per_kw_month=value("network_per_kw_month") or Decimal(0),
            support_ratio_per_year=value("support_ratio_per_year") or Decimal(0),
            maintenance_ratio_per_year=value("maintenance_ratio_per_year") or Decimal(0),
            host_energy_ratio=value("host_energy_ratio") or Decimal(1),
            capital_ratio_per_year=value("capital_ratio_per_year") or Decimal(0),
            mark=max((one.mark for one in used.values() if one.mark != MARKS[-1]), default=MARKS[-1]),
            assumption_ids=tuple(used),
        )

    def _calendar(self, site_id: str) -> TariffCalendar | None:
        for subject in (f"site:{site_id}", f"country:{self.assumptions.country_of(site_id) or 'BR'}"):
            if subject in self._calendars:
                return self._calendars[subject]
        return None


def amount_of(one: Assumed, case: Case) -> Decimal:
    """What a case takes of a version: LOW is what makes things cheap, whichever end that is."""
    return one.bounds.at(OPPOSITE[case] if quantities()[one.name].cheaper_high else case)
