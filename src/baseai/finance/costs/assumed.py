"""An assumed amount is one version of one cost assumption: low, default and high, with source, day and mark.

Invariant: a version never changes; a later one takes its place from its `valid_from` on, and everything reckoned for
an instant takes the version that held then. Owned hardware never costs nothing. Only an operator records a version;
what the catalogue assumes is the first one of each.
"""

import csv
import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files

from baseai.catalog.assumption import STALE_AFTER_DAYS
from baseai.catalog.assumption import Assumption as Catalogued
from baseai.catalog.assumption import Assumptions as CatalogAssumptions
from baseai.catalog.bounds import Bounds, Case
from baseai.ground.identity import derived

ALL = "all"
EVER = datetime(2000, 1, 1, tzinfo=UTC)  # from when on a first version holds
MARKS = ("A", "B", "C", "measured")  # how closely the source was read; measured is no assumption any more
OPPOSITE = {Case.LOW: Case.HIGH, Case.DEFAULT: Case.DEFAULT, Case.HIGH: Case.LOW}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What can be assumed, in which unit, and of what."""

    name: str
    unit: str
    money: bool  # it has a currency
    least: Decimal  # inclusive
    most: Decimal | None
    subjects: tuple[str, ...]  # kinds of subject it may be said of
    cheaper_high: bool  # the higher it is, the less things cost
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """One version."""

    assumption_id: str
    subject: str  # all, country:BR, site:SP4 (scala-* is a family), model:H100-SXM, round:R1
    name: str  # of a Quantity
    bounds: Bounds
    unit: str
    currency: str | None  # ISO 4217 where it is money
    source: str
    source_on: date  # the day the source was read, or the meter
    mark: str  # of MARKS
    valid_from: datetime
    recorded_by: str

    def __post_init__(self) -> None:
        if (wrong := wrong_with(self)) is not None:
            raise ValueError(f"{self.subject} {self.name}: {wrong}")

    def stale(self, on: date) -> bool:
        """Whether nobody has looked at it for half a year. A first version with no source day of its own may be too."""
        return (on - self.source_on).days > STALE_AFTER_DAYS

    def sentence(self, on: date) -> str:
        """`pue_ratio of site:SP4 is 190 days old (2026-05-20)`."""
        return f"{self.name} of {self.subject} is {(on - self.source_on).days} days old ({self.source_on})"


@cache
def quantities() -> dict[str, Quantity]:
    """Everything that can be assumed, from `quantities.csv`."""
    text = files("baseai.finance.costs").joinpath("quantities.csv").read_text(encoding="utf-8")
    return {
        row["name"]: Quantity(
            name=row["name"],
            unit=row["unit"],
            money=row["money"] == "yes",
            least=Decimal(row["least"]),
            most=Decimal(row["most"]) if row["most"] else None,
            subjects=tuple(row["subjects"].split()),
            cheaper_high=row["cheaper_high"] == "yes",
            meaning=row["meaning"],
        )
        for row in csv.DictReader(io.StringIO(text))
    }


def wrong_with(one: Assumed) -> str | None:
    """What is wrong with a version, and what to write instead."""
    quantity = quantities().get(one.name)
    if quantity is None:
        return f"nothing is reckoned from it; there are {', '.join(sorted(quantities()))}"
    kind = one.subject.partition(":")[0]
    if kind not in quantity.subjects or (kind != ALL and not one.subject.partition(":")[2]):
        return f"it is said of {', '.join(quantity.subjects)}, not of {one.subject!r}"
    if one.unit != quantity.unit:
        return f"its unit is {quantity.unit}, not {one.unit!r}"
    if (one.currency is not None) != quantity.money or one.currency not in (None, "USD", "BRL"):
        return "it is money in USD or BRL" if quantity.money else "it is no money and has no currency"
    if one.bounds.low < quantity.least or (quantity.most is not None and one.bounds.high > quantity.most):
        most = "" if quantity.most is None else f" and at most {quantity.most}"
        return f"it is at least {quantity.least}{most}"
    if one.mark not in MARKS:
        return f"its mark is one of {', '.join(MARKS)}, not {one.mark!r}"
    if not one.source.strip():
        return "it needs a source: a quote, an invoice, a document"
    return None


class Assumptions:
    """All versions, asked for by name, subject and instant."""

    def __init__(self, versions: Iterable[Assumed], country_of: Callable[[str], str | None]) -> None:
        """country_of: the ISO 3166 code of a site, None for one that nobody knows."""
        self.versions = tuple(sorted(versions, key=lambda one: (one.valid_from, one.assumption_id)))
        self.country_of = country_of
        self._lines: dict[tuple[str, str], list[Assumed]] = {}
        self._families: list[str] = []
        for one in self.versions:
            self._lines.setdefault((one.subject, one.name), []).append(one)
            if one.subject.endswith("*") and one.subject not in self._families:
                self._families.append(one.subject)
        # Between two of these instants every answer is the same.
        self.changes: Sequence[datetime] = sorted({one.valid_from for one in self.versions})

    def epoch(self, at: datetime) -> int:
        return bisect_right(self.changes, at)

    def find(
        self,
        name: str,
        at: datetime,
        *,
        model: str | None = None,
        site_id: str | None = None,
        round_id: str | None = None,
    ) -> Assumed | None:
        """The version that holds at `at`: what is said of the round beats the site, then the model, the country, all.

        A site that nobody knows has the terms of a machine of our own.
        """
        for subject in self._subjects(model, site_id, round_id):
            line = self._lines.get((subject, name))
            if line:
                place = bisect_right(line, at, key=lambda one: one.valid_from)
                if place:
                    return line[place - 1]
        return None

    def now(self, at: datetime) -> tuple[Assumed, ...]:
        """Of each line the version that holds at `at`."""
        held = {(one.subject, one.name): one for one in self.versions if one.valid_from <= at}
        return tuple(held[key] for key in sorted(held))

    def _subjects(self, model: str | None, site_id: str | None, round_id: str | None) -> list[str]:
        subjects = [f"round:{round_id}"] if round_id else []
        if site_id is not None:
            subjects.append(f"site:{site_id}")
            subjects += [family for family in self._families if f"site:{site_id}".startswith(family[:-1])]
        if model is not None:
            subjects.append(f"model:{model}")
        if site_id is not None:
            country = self.country_of(site_id)
            subjects += [f"country:{country}"] if country else ["site:local", "country:BR"]
        return [*subjects, ALL]


def shipped(catalogue: CatalogAssumptions) -> tuple[Assumed, ...]:
    """The first version of everything: what the catalogue assumes, and `first_versions.csv` beside it."""
    found: list[Assumed] = []

    def add(subject: str, name: str, assumption: Catalogued, currency: str | None = None) -> None:
        source = assumption.source
        title = source.title + (f" ({source.dated})" if source.dated else "")
        found.append(
            _first(subject, name, assumption.bounds, currency, title, source.read_on, source.mark.value)
        )

    for owned in catalogue.owned:
        subject = f"model:{owned.model}"
        add(subject, "server_price", owned.server_usd, "USD")
        add(subject, "server_watts", owned.server_watts)
        add(subject, "life_years", owned.life_years)
        add(subject, "residual_ratio", owned.residual_ratio)
        count = Decimal(owned.accelerators_per_server)
        source = owned.server_watts.source
        found.append(
            _first(
                subject,
                "accelerators_per_server",
                Bounds(low=count, default=count, high=count),
                None,
                source.title,
                source.read_on,
                source.mark.value,
            )
        )
    for model, rate in catalogue.leased:
        add(f"model:{model}", "lease_per_hour", rate, "USD")
    for site in catalogue.sites:
        subject = f"site:{site.site_id}"
        add(subject, "landed_multiplier", site.landed_multiplier)
        add(subject, "colocation_per_kw_month", site.colocation_usd_per_kw_month, "USD")
        add(subject, "pue_ratio", site.pue_ratio)
        add(subject, "tariff_per_kwh", site.tariff_usd_per_kwh, "USD")
    text = files("baseai.finance.costs").joinpath("first_versions.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(io.StringIO(text)):
        found.append(
            _first(
                row["subject"],
                row["name"],
                Bounds(low=Decimal(row["low"]), default=Decimal(row["default"]), high=Decimal(row["high"])),
                row["currency"] or None,
                row["source"],
                date.fromisoformat(row["source_on"]),
                row["mark"],
            )
        )
    return tuple(found)


def _first(
    subject: str, name: str, bounds: Bounds, currency: str | None, source: str, read_on: date, mark: str
) -> Assumed:
    return Assumed(
        assumption_id=derived("asm", subject, name, bounds.low, bounds.default, bounds.high, source),
        subject=subject,
        name=name,
        bounds=bounds,
        unit=quantities()[name].unit,
        currency=currency,
        source=source,
        source_on=read_on,
        mark=mark,
        valid_from=EVER,
        recorded_by="catalogue",
    )
