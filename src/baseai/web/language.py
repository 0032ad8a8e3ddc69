"""A language is how the pages speak: words from a gettext catalogue, numbers, money and instants by its customs.

Invariant: the msgid is the English text; a catalogue that lacks one shows it in English, and a test lets none lack.
Catalogues are read from `locale/*/LC_MESSAGES/web.po` once, at start, and compiled in memory.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale
from babel.dates import format_date, format_datetime, format_timedelta, get_timezone_name
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal, format_percent
from babel.support import NullTranslations, Translations
from markupsafe import Markup

DOMAIN = "web"
FOLDER = Path(__file__).parent / "locale"
DEFAULT = "pt-BR"
TAGS = ("pt-BR", "en")
ZONE = "America/Sao_Paulo"
LEAST_MONEY_DIGITS, MOST_MONEY_DIGITS = 2, 6  # the ledger counts micro-units


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One language of the pages."""

    tag: str  # BCP 47, as `lang=` says it
    locale: Locale
    words: NullTranslations
    zone: tzinfo

    def say(self, msgid: str, **facts: object) -> str:
        """A msgid of the catalogue with its facts filled in."""
        said = str(self.words.gettext(msgid))
        return said % facts if facts else said

    def number(self, value: float | Decimal | None, digits: int = 0) -> str:
        """With at most `digits` decimals; a dash for what is not known."""
        if value is None:
            return "–"
        pattern = "#,##0" + ("." + "#" * digits if digits else "")
        return format_decimal(value, format=pattern, locale=self.locale)

    def exact(self, value: float | Decimal | None, digits: int) -> str:
        """With exactly `digits` decimals, so that a column of figures lines up."""
        if value is None:
            return "–"
        return format_decimal(value, format="#,##0." + "0" * digits, locale=self.locale)

    def percent(self, ratio: float | None) -> str:
        return "–" if ratio is None else format_percent(ratio, format="#,##0.0 %", locale=self.locale)

    def money(self, amount: Decimal, currency: str) -> str:
        """With as many digits as the amount needs, at least two."""
        pattern = "¤\xa0#,##0." + "0" * LEAST_MONEY_DIGITS + "#" * (MOST_MONEY_DIGITS - LEAST_MONEY_DIGITS)
        return format_currency(
            amount, currency, format=f"{pattern};-{pattern}", locale=self.locale, currency_digits=False
        )

    def when(self, at: datetime | str | None, *, seconds: bool = True) -> Markup:
        """A `<time>` in the platform's zone, which it names; the instant in UTC as its title."""
        if at is None:
            return Markup("–")
        instant = _instant(at)
        shown = format_datetime(instant, self._pattern(seconds=seconds), tzinfo=self.zone, locale=self.locale)
        utc = instant.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Markup('<time datetime="{}" title="{}">{} <small>{}</small></time>').format(
            instant.isoformat(), utc, shown, self.zone_name(instant)
        )

    def ago(self, at: datetime | str | None, now: datetime) -> Markup:
        """How long ago, in words, the instant itself as its title."""
        if at is None:
            return Markup("–")
        instant = _instant(at)
        words = format_timedelta(instant - now, add_direction=True, locale=self.locale, threshold=1.2)
        here = format_datetime(instant, self._pattern(seconds=True), tzinfo=self.zone, locale=self.locale)
        title = f"{here} {self.zone_name(instant)} · {instant:%Y-%m-%d %H:%M:%S} UTC"
        return Markup('<time datetime="{}" title="{}">{}</time>').format(instant.isoformat(), title, words)

    def soon(self, at: datetime | str, now: datetime) -> Markup:
        """A `<time>` as short as it can be told: the clock today, else day and clock; all of it as its title."""
        instant = _instant(at)
        local, today = instant.astimezone(self.zone), now.astimezone(self.zone)
        day = "" if local.date() == today.date() else "dd/MM " if self.tag == "pt-BR" else "MM-dd "
        if local.year != today.year:
            day = self._pattern(seconds=False).removesuffix("HH:mm")
        shown = format_datetime(instant, f"{day}HH:mm", tzinfo=self.zone, locale=self.locale)
        here = format_datetime(instant, self._pattern(seconds=True), tzinfo=self.zone, locale=self.locale)
        title = f"{here} {self.zone_name(instant)} · {instant:%Y-%m-%d %H:%M:%S} UTC"
        return Markup('<time datetime="{}" title="{}">{}</time>').format(instant.isoformat(), title, shown)

    def about(self, seconds: float) -> str:
        """How long, in its largest unit: `15 min`, `4 h`, `3 dias`."""
        return str(
            format_timedelta(timedelta(seconds=seconds), locale=self.locale, format="short", threshold=1.0)
        )

    def month(self, period: str) -> str:
        """`2026-11` as people say it: novembro de 2026."""
        if not period:
            return "–"
        pattern = "LLLL 'de' yyyy" if self.tag == "pt-BR" else "LLLL yyyy"
        return format_date(date.fromisoformat(f"{period}-01"), format=pattern, locale=self.locale)

    def day(self, day: date) -> str:
        pattern = "dd/MM/yyyy" if self.tag == "pt-BR" else "yyyy-MM-dd"
        return format_date(day, format=pattern, locale=self.locale)

    def day_of(self, at: datetime) -> str:
        """The day of the platform's zone in which `at` lies, as an address names it."""
        return at.astimezone(self.zone).date().isoformat()

    def zone_name(self, at: datetime) -> str:
        """As people of the language call the zone: BRT; where they have no name for it, UTC-03:00."""
        local = at.astimezone(self.zone)
        name = get_timezone_name(local, width="short", locale=self.locale)
        return f"UTC{local.isoformat()[-6:]}" if name[:1] in "+-" else name

    def _pattern(self, *, seconds: bool) -> str:
        day = "dd/MM/yyyy" if self.tag == "pt-BR" else "yyyy-MM-dd"
        return f"{day} HH:mm:ss" if seconds else f"{day} HH:mm"


def _instant(at: datetime | str) -> datetime:
    parsed = datetime.fromisoformat(at) if isinstance(at, str) else at
    if parsed.tzinfo is None:
        raise ValueError(f"{at} names no zone")
    return parsed.astimezone(UTC)


def load_languages(zone_name: str = ZONE) -> Mapping[str, Language]:
    """Every language of the pages by its tag. Where the machine knows no zones, times are shown in UTC and say so."""
    try:
        zone: tzinfo = ZoneInfo(zone_name)
    except ZoneInfoNotFoundError:
        zone = UTC
    return {
        "pt-BR": Language(
            tag="pt-BR", locale=Locale.parse("pt_BR"), words=load_catalogue("pt_BR"), zone=zone
        ),
        "en": Language(tag="en", locale=Locale.parse("en_001"), words=NullTranslations(), zone=zone),
    }


def load_catalogue(locale: str) -> Translations:
    """The catalogue of one locale, compiled in memory."""
    with (FOLDER / locale / "LC_MESSAGES" / f"{DOMAIN}.po").open("rb") as source:
        catalogue = read_po(source, locale=locale, domain=DOMAIN)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled, domain=DOMAIN)


def chosen(*, asked: str | None, remembered: str | None, accepted: str | None) -> str:
    """The tag of the language to speak: asked for in the address, remembered, accepted by the browser, or ours."""
    for tag in (asked, remembered):
        if tag in TAGS:
            return tag
    for tag in _by_preference(accepted or ""):
        found = next((own for own in TAGS if own.partition("-")[0] == tag.partition("-")[0]), None)
        if found is not None:
            return found
    return DEFAULT


def _by_preference(header: str) -> list[str]:
    """The tags of an Accept-Language header, the most wanted first; what is malformed is left out."""
    found = []
    for part in header.split(",")[:20]:
        tag, _, weight = part.strip().partition(";q=")
        try:
            wanted = float(weight or 1)
        except ValueError:
            continue
        if tag and wanted > 0:
            found.append((wanted, tag.lower()))
    return [tag for _, tag in sorted(found, key=lambda each: -each[0])]
