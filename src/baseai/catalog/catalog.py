"""The catalogue is everything we know about what can be bought, leased, rented and charged, with its sources.

Invariant: it is read once and never changes while a process lives; every model has a price, and every model
that may be owned has a cost at every site. Only the data files change it.
"""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources.abc import Traversable

from baseai.catalog import diff, matching
from baseai.catalog.accelerator import Accelerator, accelerators_in
from baseai.catalog.assumption import Assumptions, HourlyCost, assumptions_in
from baseai.catalog.bounds import Case
from baseai.catalog.diff import Difference, Unconfirmed
from baseai.catalog.partner import Partner, PartnerSite, partners_in
from baseai.catalog.price_list import Price, PriceList, price_list_in
from baseai.catalog.server import Server, servers_in
from baseai.catalog.sheet import load_sheet, shipped_data
from baseai.ground.fault import NotFound

__all__ = ["Catalog", "catalog_in", "load_catalog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All sheets together; lookups by key raise NotFound."""

    accelerators: tuple[Accelerator, ...]
    servers: tuple[Server, ...]
    partners: tuple[Partner, ...]
    prices: PriceList
    assumptions: Assumptions

    def accelerator(self, model: str) -> Accelerator:
        for accelerator in self.accelerators:
            if accelerator.model == model:
                return accelerator
        raise NotFound("accelerator model", model)

    def site(self, site_id: str) -> PartnerSite:
        for partner in self.partners:
            for site in partner.sites:
                if site.site_id == site_id:
                    return site
        raise NotFound("partner site", site_id)

    def price(self, model: str, at: datetime) -> Price:
        return self.prices.price(model, at)

    def hourly_cost(self, model: str, site_id: str, case: Case = Case.DEFAULT) -> HourlyCost:
        return self.assumptions.hourly_cost(model, site_id, case)

    def rated_watts(self) -> Mapping[str, int]:
        """What one accelerator of each model draws at work with its share of the server, at most; owned models only."""
        return {
            owned.model: math.ceil(owned.server_watts.at(Case.HIGH) / owned.accelerators_per_server)
            for owned in self.assumptions.owned
        }

    def models_matching(self, name: str | None, memory_gib: Container[int] | None = None) -> tuple[str, ...]:
        return matching.models_matching(self.accelerators, name, memory_gib)

    def known_names(self) -> tuple[str, ...]:
        return matching.known_names(self.accelerators)

    def differences(self) -> tuple[Difference, ...]:
        return diff.differences(self.accelerators, self.servers, self.partners)

    def unconfirmed(self) -> tuple[Unconfirmed, ...]:
        return diff.unconfirmed(self.accelerators, self.servers, self.partners)


@cache
def load_catalog() -> Catalog:
    """The catalogue that comes with the package, read once per process. Raises BrokenSheet."""
    return catalog_in(shipped_data())


def catalog_in(folder: Traversable) -> Catalog:
    """The catalogue of a folder of data files. Raises BrokenSheet with file, entry and key."""
    accelerators = accelerators_in(load_sheet(folder, "accelerators.toml"))
    models = frozenset(accelerator.model for accelerator in accelerators)
    owned = frozenset(known.model for known in accelerators if known.may_stand_in_our_servers)
    price_sheet = load_sheet(folder, "price_list.toml")
    prices = price_list_in(price_sheet, models=models)
    for model in sorted(models - {price.model for price in prices.prices}):
        raise price_sheet.root.broken(model, "has no price")
    return Catalog(
        accelerators=accelerators,
        servers=servers_in(load_sheet(folder, "servers.toml"), accelerators),
        partners=partners_in(load_sheet(folder, "partners.toml")),
        prices=prices,
        assumptions=assumptions_in(
            load_sheet(folder, "cost_assumptions.toml"), owned=owned, leased=models - owned
        ),
    )
