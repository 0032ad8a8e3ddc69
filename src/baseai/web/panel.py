"""A panel is one chart of a page with what is said beside it: title, unit, sources, tier, and how its figures arose.

Invariant: what no line of a chart has a value for is told in words instead of drawn; a store that is away is told as
that, and a page without figures is still whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from baseai.ground.clock import now_utc
from baseai.telemetry.field import ACCELERATOR, HARMFUL, PORT, Family, Origin, State
from baseai.telemetry.sample import ORIGIN_SHIFT
from baseai.telemetry.store import AskedStore, Latest, Series, StoreAway
from baseai.web import phrase
from baseai.web.language import Language
from baseai.web.plot import (
    BESIDE,
    BESIDE_MAX,
    PLOTS,
    Drawing,
    Line,
    Lookback,
    Marker,
    Plot,
    beside,
    bridged,
    drawing_of,
    fields_of,
    line_json,
    markers_json,
)
from baseai.web.reading import ShownReading, readings_of, shown_value

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart, as a page says it."""

    name: str
    title: str
    unit: str
    origins: tuple[str, ...]
    sources: tuple[str, ...]
    extents: tuple[tuple[str, float, float, float], ...]  # line, lowest, mean, highest: the chart in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """The panels of one thing over one time."""

    panels: tuple[Panel, ...]
    unsaid: tuple[tuple[str, str], ...]  # fields no chart shows, and the state that says why
    tier: str
    away: bool = False
    energy_wh: float | None = None
    energy_origin: str = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Accelerators that a run held over [from, until)."""

    serials: tuple[str, ...]
    from_ms: int
    until_ms: int  # FOREVER_MS while it holds them


AWAY = Charts(panels=(), unsaid=(), tier="raw", away=True)


class Panels:
    """The charts of accelerators, nodes and runs over one store."""

    def __init__(self, eyes: AskedStore | None) -> None:
        self._eyes = eyes

    # ---- what the store says

    async def _drawing(self, family: Family, key: str, back: Lookback, now_ms: int) -> Drawing:
        """Raises StoreAway."""
        if self._eyes is None:
            raise StoreAway("nothing is measured here")
        series = await self._eyes.range(
            family, key, fields_of(family), from_ms=now_ms - back.ms, until_ms=now_ms + AHEAD_MS,
            points_max=back.points_max,
        )  # fmt: skip
        return drawing_of(series, PLOTS[family.name])

    async def readings(self, family: Family, key: str, language: Language) -> Sequence[ShownReading] | None:
        """Every field of one thing; None while the store is away."""
        if self._eyes is None:
            return None
        try:
            latest = await self._eyes.latest(family, [key])
            sources = await self._eyes.sources(family, key)
        except StoreAway:
            return None
        return readings_of(latest, sources, language, now_ms=_now_ms())

    async def ports(self, node_id: str, language: Language) -> Sequence[tuple[str, Sequence[ShownReading]]]:
        """The ports of a node with their fields; none while the store is away."""
        if self._eyes is None:
            return ()
        try:
            latest = await self._eyes.latest(PORT)
        except StoreAway:
            return ()
        own = [place for place, key in enumerate(latest.keys) if key.startswith(f"{node_id}/")]
        return [
            (
                latest.keys[place].partition("/")[2],
                readings_of(_row_of(latest, place), {}, language, now_ms=_now_ms()),
            )
            for place in own
        ]

    async def seen_at(self, family: Family, key: str) -> int | None:
        """The instant of a thing's newest row, in milliseconds; None when there is none or the store is away."""
        if self._eyes is None:
            return None
        try:
            latest = await self._eyes.latest(family, [key])
        except StoreAway:
            return None
        return int(latest.ts_ms[0]) if latest.keys else None

    # ---- one thing

    async def charts(self, family: Family, key: str, back: Lookback, language: Language) -> Charts:
        try:
            drawing = await self._drawing(family, key, back, _now_ms())
            sources = await self._eyes.sources(family, key) if self._eyes else {}
        except StoreAway:
            return AWAY
        shown = [plot for plot in PLOTS[family.name] if _drawn(plot, drawing)]
        silent = [
            (phrase.field(language, family.name, line.name), line.state.name.lower())
            for line in drawing.lines.values()
            if not line.says_anything
        ]
        return Charts(
            panels=tuple(_panel(plot, family, drawing, sources, language) for plot in shown),
            unsaid=tuple(silent),
            tier=drawing.tier.value,
            energy_wh=None if drawing.energy_j is None else drawing.energy_j / 3600,
            energy_origin=drawing.energy_origin.name.lower(),
        )

    async def series(
        self, family: Family, key: str, back: Lookback, language: Language, witnessed: Sequence[Row] = ()
    ) -> dict[str, Any]:
        """What a browser draws: the lines of each plot, throttle bands, markers. Raises StoreAway.

        witnessed: evidence about the thing (rows with the fields of EvidenceView), drawn as markers as well.
        """
        now_ms = _now_ms()
        drawing = await self._drawing(family, key, back, now_ms)
        told = markers_json(drawing.markers, lambda marker: _marker_words(marker, language))
        told += [
            [_seconds(row["at"]), _tone(row["severity"]), row["sentence"]]
            for row in witnessed
            if _seconds(row["at"]) * 1000 >= now_ms - back.ms
        ]
        return {
            **_frame(drawing.tier.value, now_ms - back.ms, now_ms),
            "plots": {
                plot.name: {
                    **_axes(plot),
                    "ts": _instants(drawing),
                    "lines": [
                        line_json(line, phrase.field(language, family.name, name))
                        for name in plot.fields
                        if (line := drawing.lines[name]).says_anything
                    ],
                    "bands": [
                        [
                            band.from_ms / 1000, band.until_ms / 1000, bool(band.bits & HARMFUL),
                            shown_value(ACCELERATOR["throttle_bits"], band.bits, language)[0],
                        ]
                        for band in drawing.bands
                    ]
                    if plot.has_bands
                    else [],
                }
                for plot in PLOTS[family.name]
                if _drawn(plot, drawing)
            },
            "markers": told,
        }  # fmt: skip

    # ---- several accelerators beside each other

    async def beside_charts(self, serials: Sequence[str], back: Lookback, language: Language) -> Charts:
        """The panels that compare accelerators of one node."""
        try:
            many = await self._many(serials, back, _now_ms())
        except StoreAway:
            return AWAY
        panels = []
        for plot in BESIDE:
            _, lines = beside(many, plot.name, plot.factor)
            if any(line.says_anything for line in lines):
                panels.append(
                    Panel(
                        name=f"each_{plot.name}", title=phrase.of(language, phrase.PLOT_TITLES, f"each_{plot.name}"),
                        unit=plot.unit, origins=_origins(lines), sources=(), extents=(),
                    )
                )  # fmt: skip
        return Charts(
            panels=tuple(panels), unsaid=(), tier=next((s.tier.value for s in many.values()), "raw")
        )

    async def beside_series(self, serials: Sequence[str], back: Lookback) -> dict[str, Any]:
        """Raises StoreAway."""
        now_ms = _now_ms()
        many = await self._many(serials, back, now_ms)
        plots = {}
        for plot in BESIDE:
            ts_ms, lines = beside(many, plot.name, plot.factor)
            if any(line.says_anything for line in lines):
                plots[f"each_{plot.name}"] = {
                    **_axes(plot),
                    "ts": [ts / 1000 for ts in ts_ms.tolist()],
                    "lines": [line_json(line, line.name) for line in lines if line.says_anything],
                    "bands": [],
                }
        tier = next((each.tier.value for each in many.values()), "raw")
        return {**_frame(tier, now_ms - back.ms, now_ms), "plots": plots, "markers": []}

    async def _many(self, serials: Sequence[str], back: Lookback, now_ms: int) -> dict[str, Series]:
        if self._eyes is None:
            raise StoreAway("nothing is measured here")
        names = tuple(plot.name for plot in BESIDE)
        return {
            serial: await self._eyes.range(
                ACCELERATOR, serial, names, from_ms=now_ms - back.ms, until_ms=now_ms + AHEAD_MS,
                points_max=back.points_max,
            )
            for serial in serials[:BESIDE_MAX]
        }  # fmt: skip

    # ---- a run, over the time in which it held its accelerators

    async def run_series(self, held: Sequence[Held], language: Language) -> dict[str, Any]:
        """Over the accelerators of a run, one stretch per attempt, never a moment outside its leases.

        Raises StoreAway.
        """
        if self._eyes is None:
            raise StoreAway("nothing is measured here")
        now_ms = _now_ms()
        serials = sorted({serial for each in held for serial in each.serials})
        origins = _origins_of(await self._eyes.latest(ACCELERATOR, serials), language) if serials else {}
        plots: dict[str, Any] = {}
        tier = "raw"
        for plot in RUN_PLOTS:
            ts: list[float] = []
            lines: dict[str, list[float | bool | None]] = {"mean": [], "low": [], "high": []}
            for each in held:
                found = await self._eyes.aggregate(
                    ACCELERATOR, plot.name, from_ms=each.from_ms, until_ms=min(each.until_ms, now_ms),
                    keys=each.serials, points_max=RUN_POINTS_MAX,
                )  # fmt: skip
                tier = found.tier.value
                if not len(found.groups):
                    continue
                # A bucket that begins before the lease or ends after it speaks of somebody else's time as well.
                inside = (found.ts_ms >= each.from_ms) & (found.ts_ms + found.step_ms <= each.until_ms)
                if ts:  # between two attempts it held nothing: the line is broken
                    ts.append(ts[-1] + 0.001)
                    for own in lines.values():
                        own.append(None)
                ts += (found.ts_ms[inside] / 1000).tolist()
                for name, values in (("mean", found.mean), ("low", found.low), ("high", found.high)):
                    lines[name] += bridged(values[0][inside] * plot.factor, found.step_ms)
            if any(value is not None for value in lines["mean"]):
                words = {
                    "mean": language.say("mean"),
                    "low": language.say("lowest"),
                    "high": language.say("highest"),
                }
                plots[plot.name] = {
                    **_axes(plot),
                    "ts": ts,
                    "lines": [
                        {
                            "name": name,
                            "label": words[name],
                            "values": values,
                            "gaps": [],
                            "edge": name != "mean",
                        }
                        for name, values in lines.items()
                    ],
                    "bands": [],
                    "area": [3, 2],  # filled between the highest and the lowest, counted from 1
                    "origins": origins.get(plot.name, []),
                }
        first = min((each.from_ms for each in held), default=now_ms)
        last = min(now_ms, max((each.until_ms for each in held), default=now_ms))
        return {**_frame(tier, first, last), "plots": plots, "markers": []}


RUN_POINTS_MAX = 300
AHEAD_MS = 60_000  # a node's clock may be a little ahead of ours; its newest row is shown all the same
ATTEMPTS_MAX = 20  # drawn of one run, the newest
FOREVER_MS = 2**53
RUN_PLOTS = (
    Plot(name="util_pct", unit="%", fields=("util_pct",), high=100),
    Plot(name="mem_used_b", unit="GiB", fields=("mem_used_b",), factor=2.0**-30),
    Plot(name="power_w", unit="W", fields=("power_w",)),
    Plot(name="temp_c", unit="°C", fields=("temp_c",)),
)


def held_of(leases: Sequence[Row]) -> list[Held]:
    """The times over which each attempt of a run held all its accelerators, as its nodes observed them.

    The leases of an attempt begin and end within moments of each other; only what lies in all of them counts, so that
    no moment of anybody else's is shown. A lease that was never begun is left out.
    """
    attempts: dict[int, list[Row]] = {}
    for lease in leases:
        if lease["observed_from"] is not None and lease["accelerators"]:
            attempts.setdefault(lease["attempt_no"], []).append(lease)
    found = [
        Held(
            serials=tuple(serial for lease in own for serial in lease["accelerators"]),
            from_ms=max(math.ceil(lease["observed_from"].timestamp() * 1000) for lease in own),
            until_ms=min(_end_ms(lease) for lease in own),
        )
        for own in attempts.values()
    ]
    return sorted((each for each in found if each.from_ms < each.until_ms), key=lambda each: each.from_ms)[
        -ATTEMPTS_MAX:
    ]


def _end_ms(lease: Row) -> int:
    released: datetime | None = lease["released_at"]
    if released is None:
        return FOREVER_MS
    return math.floor(min(lease["observed_until"] or released, released).timestamp() * 1000)


def _origins_of(latest: Latest, language: Language) -> dict[str, list[list[str]]]:
    """Field → how its newest values arose, as a code and in words."""
    found = {}
    for place, name in enumerate(latest.family.names):
        codes = latest.codes[:, place]
        origins = sorted({Origin(code >> ORIGIN_SHIFT) for code in codes[codes & 15 == State.VALUE].tolist()})
        found[name] = [
            [each.name.lower(), phrase.of(language, phrase.ORIGINS, each.name.lower())] for each in origins
        ]
    return found


def _drawn(plot: Plot, drawing: Drawing) -> bool:
    return any(drawing.lines[name].says_anything for name in plot.fields)


def _panel(
    plot: Plot, family: Family, drawing: Drawing, sources: Mapping[str, str], language: Language
) -> Panel:  # fmt: skip
    said = [drawing.lines[name] for name in plot.fields if drawing.lines[name].says_anything]
    return Panel(
        name=plot.name,
        title=phrase.of(language, phrase.PLOT_TITLES, plot.name),
        unit=plot.unit,
        origins=_origins(said),
        sources=tuple(dict.fromkeys(sources[line.name] for line in said if sources.get(line.name))),
        extents=tuple(
            (phrase.field(language, family.name, line.name), *drawing.extent[line.name]) for line in said
        ),
    )


def _origins(lines: Sequence[Line]) -> tuple[str, ...]:
    found = {line.origin for line in lines if line.says_anything}
    return tuple(origin.name.lower() for origin in sorted(found))


def _axes(plot: Plot) -> dict[str, Any]:
    return {"unit": plot.unit, "high": plot.high}


def _frame(tier: str, from_ms: int, until_ms: int) -> dict[str, Any]:
    return {"tier": tier, "from": from_ms / 1000, "until": until_ms / 1000}


def _instants(drawing: Drawing) -> list[float]:
    return [ts / 1000 for ts in drawing.ts_ms.tolist()]


def _marker_words(marker: Marker, language: Language) -> str:
    msgid = phrase.MARKERS[marker.field]
    return (
        language.say(msgid, amount=language.number(marker.amount)) if "%(" in msgid else language.say(msgid)
    )


def _tone(severity: str) -> str:
    return {"critical": "bad", "warning": "warn"}.get(severity, "plain")


def _seconds(at: datetime | str) -> float:
    return (datetime.fromisoformat(at) if isinstance(at, str) else at).timestamp()


def _now_ms() -> int:
    return round(now_utc().timestamp() * 1000)


def _row_of(latest: Latest, place: int) -> Latest:
    return Latest(
        family=latest.family,
        keys=latest.keys[place : place + 1],
        places=latest.places[place : place + 1],
        ts_ms=latest.ts_ms[place : place + 1],
        values=latest.values[place : place + 1],
        codes=latest.codes[place : place + 1],
    )
