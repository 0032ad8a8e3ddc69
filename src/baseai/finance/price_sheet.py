"""A price sheet is a CSV file that says prices, a row each; it is read whole or refused with every mistake's place.

Invariant: equal text gives equal prices with equal ids, so that a sheet imported twice is one. The head names the
columns, in any order: meter, model, site, term, months, unit, currency, rate or tiers, peaks, valid_from, valid_until.
Tiers are `0:2.99 1000:2.49`, peaks `America/Sao_Paulo 1-5 09:00-18:00 x1.25`, several parted by `;`. Dates without a
time begin in the books' zone.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from baseai.finance.measure import ACCELERATOR_TIME, MEASURES
from baseai.finance.period import ZONE
from baseai.finance.price_list import Peak, Price, Term, Tier, price_faults
from baseai.ground.identity import derived
from baseai.workloads.sheet import BadSpec, SpecError

COLUMNS = (
    "meter",
    "model",
    "site",
    "term",
    "months",
    "unit",
    "currency",
    "rate",
    "tiers",
    "peaks",
    "valid_from",
    "valid_until",
)
NEEDED = ("term", "currency", "valid_from")
_PEAK = re.compile(
    r"(?P<zone>\S+) (?P<first>[1-7])(?:-(?P<last>[1-7]))? (?P<from>\d\d:\d\d)-(?P<until>\d\d:\d\d) x(?P<factor>[\d.]+)"
)


class BadPriceSheet(BadSpec):
    """A price sheet has mistakes; no row of it was taken."""


def prices_in(text: str, *, list_id: str, file: str, source: str) -> tuple[Price, ...]:
    """The prices of a sheet, in its order. Raises BadPriceSheet with every mistake, gaps and overlaps included."""
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    head = [cell.strip() for cell in rows[0]] if rows else []
    errors = [
        SpecError(
            file=file,
            line=1,
            column=1,
            key=name,
            message="is no column of a price sheet",
            fix=f"take {', '.join(COLUMNS)}",
        )
        for name in head
        if name not in COLUMNS
    ]
    errors += [
        SpecError(
            file=file, line=1, column=1, key=name, message="is missing", fix="add the column to the head"
        )
        for name in NEEDED
        if name not in head
    ]
    if errors:
        raise BadPriceSheet(tuple(errors))
    prices = []
    for line, cells in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(head):
            message = f"the row has {len(cells)} cells and the head {len(head)}"
            fix = "write each cell, and put cells with a comma into quotes"
            errors.append(SpecError(file=file, line=line, column=1, key="", message=message, fix=fix))
            continue
        row = _Row(file=file, line=line, cells=dict(zip(head, map(str.strip, cells), strict=True)))
        price = row.price(list_id, source)
        errors += row.errors
        if price is not None:
            prices.append(price)
    if not errors:
        errors = [
            SpecError(
                file=file, line=1, column=1, key="", message=fault, fix="let one end where the next begins"
            )
            for fault in price_faults(prices)
        ]
    if errors:
        raise BadPriceSheet(tuple(errors))
    return tuple(prices)


@dataclass(slots=True)
class _Row:
    """One row being read, with what was wrong in it."""

    file: str
    line: int
    cells: Mapping[str, str]
    errors: list[SpecError] = field(default_factory=list)

    def price(self, list_id: str, source: str) -> Price | None:
        meter = self.cells.get("meter") or ACCELERATOR_TIME
        if meter not in MEASURES:
            self._wrong("meter", f"{meter!r} is no meter", f"write one of {', '.join(MEASURES)}")
            return None
        term = self.cells.get("term", "")
        if term not in set(Term):
            self._wrong("term", f"{term!r} is no term", f"write one of {', '.join(Term)}")
        months = self.cells.get("months", "")
        if months and not months.isdecimal():
            self._wrong("months", f"{months!r} is no number of months", "write 12, or leave it empty")
        tiers, peaks = self._tiers(), self._peaks()
        valid_from, valid_until = self._instant("valid_from"), self._instant("valid_until")
        if self.errors or valid_from is None:
            if valid_from is None and not self.errors:
                self._wrong("valid_from", "is empty", "write the day from which it holds, 2026-12-01")
            return None
        facts = {name: self.cells.get(name, "") for name in COLUMNS}
        try:
            return Price(
                price_id=derived("pri", list_id, *facts.values()),
                list_id=list_id,
                term=Term(term),
                currency=facts["currency"],
                tiers=tiers,
                peaks=peaks,
                valid_from=valid_from,
                valid_until=valid_until,
                meter=meter,
                unit=facts["unit"] or MEASURES[meter].priced_per,
                model=facts["model"] or None,
                site_id=facts["site"] or None,
                months=int(months) if months else None,
                source=source,
            )
        except ValueError as wrong:
            self._wrong("", str(wrong).partition(": ")[2] or str(wrong), "correct the row")
            return None

    def _tiers(self) -> tuple[Tier, ...]:
        rate, tiers = self.cells.get("rate", ""), self.cells.get("tiers", "")
        if bool(rate) == bool(tiers):
            self._wrong(
                "rate", "either a rate or tiers are needed", "write 2.99, or tiers like 0:2.99 1000:2.49"
            )
            return ()
        found = []
        for part in (tiers or f"0:{rate}").split():
            volume, colon, price = part.partition(":")
            try:
                if not colon:
                    raise InvalidOperation
                found.append(Tier(from_volume=Decimal(volume), rate=Decimal(price)))
            except (InvalidOperation, ValueError):
                self._wrong(
                    "tiers" if tiers else "rate",
                    f"{part if tiers else rate!r} is no price",
                    "write digits and a point, and for tiers volume:rate",
                )
        return tuple(found)

    def _peaks(self) -> tuple[Peak, ...]:
        found = []
        for part in filter(None, map(str.strip, self.cells.get("peaks", "").split(";"))):
            match = _PEAK.fullmatch(part)
            try:
                if match is None:
                    raise ValueError("is no peak")
                ZoneInfo(match["zone"])
                found.append(
                    Peak(
                        zone=match["zone"],
                        weekdays=frozenset(
                            range(int(match["first"]), int(match["last"] or match["first"]) + 1)
                        ),
                        from_minute=_minute(match["from"]),
                        until_minute=_minute(match["until"]),
                        factor=Decimal(match["factor"]),
                    )
                )
            except (ValueError, InvalidOperation, ZoneInfoNotFoundError) as wrong:
                self._wrong("peaks", f"{part!r}: {wrong}", "write America/Sao_Paulo 1-5 09:00-18:00 x1.25")
        return tuple(found)

    def _instant(self, key: str) -> datetime | None:
        text = self.cells.get(key, "")
        if not text:
            return None
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self._wrong(key, f"{text!r} is no date", "write 2026-12-01 or 2026-12-01T00:00:00-03:00")
            return None
        return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(ZONE))).astimezone(UTC)

    def _wrong(self, key: str, message: str, fix: str) -> None:
        column = list(self.cells).index(key) + 1 if key in self.cells else 1
        self.errors.append(
            SpecError(file=self.file, line=self.line, column=column, key=key, message=message, fix=fix)
        )


def peak_text(peak: Peak) -> str:
    """A peak as a sheet writes it, where its weekdays are neighbours."""
    first, last = min(peak.weekdays), max(peak.weekdays)
    days = f"{first}" if first == last else f"{first}-{last}"
    hours = "-".join(
        f"{minute // 60:02d}:{minute % 60:02d}" for minute in (peak.from_minute, peak.until_minute)
    )
    return f"{peak.zone} {days} {hours} x{peak.factor}"


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
