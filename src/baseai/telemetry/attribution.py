"""Attribution is how the samples of one accelerator become uses of those who held it, and of nobody.

Invariant: over any time, the energy of all uses together is the counter's own difference, to the millijoule, whatever
resets, gaps and borders there are; each use says how much of its time samples cover. Pure, and O(samples + spans²).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baseai.telemetry.ascent import NOTHING, Ascent, counted, integrated
from baseai.telemetry.field import ACCELERATOR, HARMFUL, Origin, State
from baseai.telemetry.sample import ORIGIN_SHIFT
from baseai.telemetry.span import Span, parted, pieces, weights_of
from baseai.telemetry.store import Series
from baseai.telemetry.use import Method, Use

FIELDS = (
    "energy_j",
    "power_w",
    "util_pct",
    "mem_used_b",
    "throttle_bits",
    "throttle_ms",
)  # what it asks a store for
GAP_MAX_MS = 90_000  # samples further apart say nothing of the time between; collectors come every 10 to 60 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What samples tell of one accelerator over a time, as ascents that can be cut anywhere."""

    at_ms: NDArray[np.int64]  # shape (samples,)
    mem_used_b: NDArray[np.float64]  # shape (samples,)
    energy: Ascent | None  # mJ; None where neither counter nor power was read
    energy_origin: Origin
    util: tuple[Ascent, Ascent]  # % × ms, and the ms over which it is known
    throttled: Ascent | None  # ms; None where no source tells why it is slowed down
    seen: Ascent  # ms


def course_of(series: Series) -> Course:
    """Read a raw series that has FIELDS, oldest first. A series without samples is a course that tells nothing."""
    column = {name: series.values[:, series.fields.index(name)] for name in FIELDS}
    energy, origin = _energy(series, column)
    ones = np.ones(len(series.ts_ms))
    return Course(
        at_ms=series.ts_ms,
        mem_used_b=column["mem_used_b"],
        energy=energy,
        energy_origin=origin,
        util=integrated(series.ts_ms, column["util_pct"], gap_max_ms=GAP_MAX_MS),
        throttled=_throttled(series, column["throttle_bits"], column["throttle_ms"]),
        seen=integrated(series.ts_ms, ones, gap_max_ms=GAP_MAX_MS)[1],
    )


UNSEEN = Course(  # nothing is told of it
    at_ms=np.empty(0, np.int64),
    mem_used_b=np.empty(0),
    energy=None,
    energy_origin=Origin.MEASURED,
    util=(NOTHING, NOTHING),
    throttled=None,
    seen=NOTHING,
)


def uses_of(
    accel: str, course: Course, spans: Sequence[Span], *, from_ms: int, until_ms: int
) -> tuple[Use, ...]:
    """Everybody's use of one accelerator over [from_ms, until_ms), and nobody's, in order of time.

    spans: of this accelerator, in any order; what lies outside is cut off. One use for each span, and one for each
    stretch that nobody held; where parts of a device are held, nobody's use runs beside theirs.
    """
    shares: dict[tuple[str | None, int], int] = {}  # (owner, its first ms) → mJ
    stretches: dict[tuple[str | None, int], tuple[int, int, Span | None]] = {}
    nobody_since: int | None = None
    for piece in pieces(spans, from_ms, until_ms):
        weights = weights_of(piece)
        energy = course.energy.over(piece.from_ms, piece.until_ms) if course.energy else 0
        parts = parted(energy, weights)
        held = sum(span.size for span in piece.spans)
        if held < 1 - 1e-9:  # some of it was nobody's
            nobody_since = piece.from_ms if nobody_since is None else nobody_since
            nobodys = (None, nobody_since)
            stretches[nobodys] = (nobody_since, piece.until_ms, None)
            shares[nobodys] = shares.get(nobodys, 0) + parts[-1]
        else:
            nobody_since = None
        for span, part in zip(piece.spans, parts[:-1], strict=True):
            key = (span.owner, span.from_ms)
            begin = stretches[key][0] if key in stretches else piece.from_ms
            stretches[key] = (begin, piece.until_ms, span)
            shares[key] = shares.get(key, 0) + part
    return tuple(
        _use(accel, course, begin, end, span, shares[key])
        for key, (begin, end, span) in sorted(
            stretches.items(), key=lambda item: (item[1][0], item[0][0] or "")
        )
    )


def counter_mj(course: Course, from_ms: int, until_ms: int) -> int:
    """The accelerator's own word over the time: what its uses must add up to."""
    return course.energy.over(from_ms, until_ms) if course.energy else 0


APART_RATIO = 0.001  # of the counter: the store adds differences as floats, an ascent reads whole millijoules


def is_apart(course: Course, store_mj: int | None, from_ms: int, until_ms: int) -> bool:
    """Whether the store's own sum of the counter's differences contradicts the course that was made of its samples.

    The store gives a difference to the later of its two samples, a course cuts it at the border: they may differ by
    what was counted across both borders, and by rounding. None: the store knows of no counter, and contradicts nothing.
    """
    if store_mj is None or course.energy is None:
        return False
    counter = counter_mj(course, from_ms, until_ms)
    leeway = course.energy.around(from_ms) + course.energy.around(until_ms) + APART_RATIO * counter + 1000
    return abs(store_mj - counter) > leeway


def _use(accel: str, course: Course, from_ms: int, until_ms: int, span: Span | None, energy_mj: int) -> Use:
    known_ms = course.util[1].over(from_ms, until_ms)
    util_pct = course.util[0].over(from_ms, until_ms) / known_ms if known_ms > 0 else None
    inside = course.mem_used_b[(course.at_ms >= from_ms) & (course.at_ms < until_ms)]
    mem_max = float(np.nanmax(inside)) if np.any(~np.isnan(inside)) else None
    if (
        span is not None and span.method is not Method.WHOLE_DEVICE
    ):  # the device's own figures are not one part's
        util_pct = None if span.activity is None else span.activity * 100
        mem_max = span.mem_used_max_b
    seen_ms = course.seen.over(from_ms, until_ms)
    is_told = course.energy is not None and course.energy.tells_of(from_ms, until_ms)
    return Use(
        accel=accel,
        owner=span.owner if span is not None else None,
        from_ms=from_ms,
        until_ms=until_ms,
        seen_ms=seen_ms,
        util_pct=util_pct,
        mem_used_max_b=mem_max,
        energy_mj=energy_mj if is_told else None,
        energy_origin=course.energy_origin,
        throttled_ms=course.throttled.over(from_ms, until_ms) if course.throttled and seen_ms else None,
        method=span.method if span is not None else Method.WHOLE_DEVICE,
    )


def _energy(series: Series, column: dict[str, NDArray[np.float64]]) -> tuple[Ascent | None, Origin]:
    """The energy ascent in mJ: the device's counter, or else its draw over time, which is an estimate."""
    counter, power = column["energy_j"], column["power_w"]
    if np.sum(~np.isnan(counter)) >= 2:
        ascent = counted(series.ts_ms, counter, series.boots, rate_max=ACCELERATOR["power_w"].high)
        return ascent, _weakest(series, "energy_j", Origin.MEASURED)
    if np.sum(~np.isnan(power)) >= 2:
        return (
            integrated(series.ts_ms, power, gap_max_ms=GAP_MAX_MS)[0],
            _weakest(series, "power_w", Origin.ESTIMATED),
        )
    return None, Origin.MEASURED


def _weakest(series: Series, field: str, at_best: Origin) -> Origin:
    codes = series.codes[:, series.fields.index(field)]
    values = codes[(codes & 15) == State.VALUE]
    return max(at_best, Origin(int(values.max()) >> ORIGIN_SHIFT)) if len(values) else at_best


def _throttled(series: Series, bits: NDArray[np.float64], counter_ms: NDArray[np.float64]) -> Ascent | None:
    """Time slowed down for a harmful reason, in ms.

    A counter of slowed time does not say why, and a power cap at full load is no harm: it counts only between samples
    of which one shows a harmful bit. Without the counter, a harmful bit holds until the next sample.
    """
    known = ~np.isnan(bits)
    if np.sum(known) < 1 or len(series.ts_ms) < 2:
        return NOTHING if np.sum(known) else None
    harmful = np.zeros(len(bits), bool)
    harmful[known] = (bits[known].astype(np.int64) & int(HARMFUL)) != 0
    steps = np.diff(series.ts_ms)
    by_bits = np.where(harmful[:-1] & (steps <= GAP_MAX_MS), steps, 0).astype(np.float64)
    rises = np.diff(counter_ms)
    again = (np.diff(series.boots) != 0) | (rises < 0)
    by_counter = np.minimum(np.where(again, counter_ms[1:], rises), steps)
    either = harmful[:-1] | harmful[1:]
    lost = np.where(np.isnan(by_counter), by_bits, np.where(either, by_counter, 0.0))
    return Ascent(
        at_ms=series.ts_ms, counted=np.concatenate(([0], np.cumsum(np.rint(lost).astype(np.int64))))
    )
