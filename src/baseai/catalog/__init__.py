"""What can be bought, leased, rented and charged, each fact with its source."""

from baseai.catalog.catalog import Catalog, load_catalog

__all__ = ["Catalog", "load_catalog"]
