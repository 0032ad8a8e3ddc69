"""A partner runs the data centres our racks stand in; its sites are the places a lease can be at.

Invariant: a site belongs to exactly one partner and its id is unique among all partners. A count a partner
states as "260+" is the floor 260. Figures change only in `data/partners.toml`, each with its source.
"""

from dataclasses import dataclass

from baseai.catalog.accelerator import explanations
from baseai.catalog.sheet import Entry, Sheet
from baseai.catalog.source import Evidence, Source, source_in

__all__ = ["Partner", "PartnerSite", "PublishedPartner", "partners_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerSite:
    """One data centre or campus we may use."""

    site_id: str
    partner_id: str
    metro: str
    country: str  # ISO 3166 alpha-2
    role: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPartner:
    """What Base A.I has published about a partner; None where it said nothing."""

    data_centers: int | None
    data_centers_in_brazil: int | None
    countries: int | None
    networks: int | None
    availability_percent: float | None
    certifications: tuple[str, ...]
    manners: tuple[str, ...]  # law, language, currency
    evidence: Evidence

    def source_of(self, fact: str) -> Source:
        return source_in(self.evidence, fact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    """One operator of data centres, by what others report of it; None where no source was found."""

    partner_id: str
    name: str
    data_centers: int | None
    data_centers_in_brazil: int | None
    countries: int | None
    metros: int | None
    networks: int | None
    availability_percent: float | None
    sites: tuple[PartnerSite, ...]
    published: PublishedPartner
    why: tuple[tuple[str, str], ...]
    evidence: Evidence

    def source_of(self, fact: str) -> Source:
        return source_in(self.evidence, fact)


_COUNTS = ("data_centers", "data_centers_in_brazil", "countries", "networks", "availability_percent")


def partners_in(sheet: Sheet) -> tuple[Partner, ...]:
    """The partners of a sheet with their sites. Raises BrokenSheet."""
    partners = tuple(_partner(entry) for entry in sheet.entries("partners"))
    seen: set[str] = set()
    for site in (site for partner in partners for site in partner.sites):
        if site.site_id in seen:
            raise sheet.root.broken("sites", f"{site.site_id} belongs to two partners")
        seen.add(site.site_id)
    return partners


def _partner(entry: Entry) -> Partner:
    entry.only("name", "metros", "sites", "published", "why", *_COUNTS)
    published = entry.table("published")
    published.only("certifications", "manners", *_COUNTS)
    return Partner(
        partner_id=entry.name,
        name=entry.plain("name"),
        data_centers=entry.maybe_whole("data_centers"),
        data_centers_in_brazil=entry.maybe_whole("data_centers_in_brazil"),
        countries=entry.maybe_whole("countries"),
        metros=entry.maybe_whole("metros"),
        networks=entry.maybe_whole("networks"),
        availability_percent=entry.maybe_number("availability_percent"),
        sites=tuple(_site(site, entry.name) for site in entry.table("sites").tables()),
        published=PublishedPartner(
            data_centers=published.maybe_whole("data_centers"),
            data_centers_in_brazil=published.maybe_whole("data_centers_in_brazil"),
            countries=published.maybe_whole("countries"),
            networks=published.maybe_whole("networks"),
            availability_percent=published.maybe_number("availability_percent"),
            certifications=published.texts("certifications"),
            manners=published.texts("manners") if published.has("manners") else (),
            evidence=published.evidence(),
        ),
        why=explanations(entry),
        evidence=entry.evidence(),
    )


def _site(entry: Entry, partner_id: str) -> PartnerSite:
    entry.only("metro", "country", "role")
    return PartnerSite(
        site_id=entry.name,
        partner_id=partner_id,
        metro=entry.text("metro"),
        country=entry.plain("country"),
        role=entry.text("role"),
        evidence=entry.evidence(),
    )
