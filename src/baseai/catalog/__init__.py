"""What can be bought, leased, rented and charged: models, servers, partners, prices, costs, each with its source."""

from baseai.catalog.catalog import Catalog, load_catalog

__all__ = ["Catalog", "load_catalog"]
