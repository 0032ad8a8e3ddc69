"""Scanning is holding the newest rows of everything measured against the metric rules, as columns.

Invariant: a reading counts only when it is new, is a value, and makes sense under its rule; what is missing counts
neither way. The first reading of a thing is where its counters begin, never evidence; a counter that fell began anew,
and what it holds then proves nothing. A code that merely stays is said once. `scan` leaves the memory it is given as
it was and returns the next; a memory that is lost costs the last readings, never a verdict: those are evidence.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baseai.catalog.accelerator import CPU_SLOT
from baseai.fleet.health.evidence import Finding, Subject
from baseai.fleet.health.rule import Condition, Look, Policy, Rule
from baseai.ground.identity import NodeId
from baseai.telemetry.field import ACCELERATOR, PORT, Family, State
from baseai.telemetry.store import Latest

TICK_MS = 10_000
PEERS_MIN = 4  # with fewer, a median says nothing
METRICS = "metrics"

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rings = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """What earlier scans of one family leave to the next. All arrays: shape (things,), or (things, fields).

    hits, overs: by rule, a bit for each of the last 64 readings that counted, the newest lowest. sums: by rule, what
    a counter rose within the present and the former half of its window. last, best: NaN where never known.
    """

    keys: tuple[str, ...] = ()
    ts_ms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    last: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    best: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    hits: Mapping[str, Rings] = field(default_factory=dict)
    overs: Mapping[str, Rings] = field(default_factory=dict)
    sums: Mapping[str, Floats] = field(default_factory=dict)  # shape (2, things)
    halves: Mapping[str, int] = field(default_factory=dict)
    code: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What one scan came to."""

    memory: Memory
    found: tuple[Finding, ...]
    ceased: tuple[tuple[str, str], ...]  # (rule, key) of conditions that are over


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Now:
    """The newest rows beside what is remembered of them, in the order of the newest."""

    latest: Latest
    fresh: Bools  # new since the last scan
    device: Bools  # something that can be at fault by itself: a CPU slot is a part of its node
    first: Bools  # never seen before
    gap: Bools  # too long ago to go on counting
    last: Floats
    best: Floats
    at: NDArray[np.int64]  # where each thing stood in the memory, -1 for none
    node: NDArray[np.int64]  # code of its node
    group: NDArray[np.int64]  # code of its run, -1 for none
    now_ms: int

    def column(self, name: str) -> tuple[Floats, Bools]:
        """A field's values, and where it has one."""
        place = self.latest.family.index[name]
        values = self.latest.values[:, place]
        return values, (self.latest.codes[:, place] & 15 == State.VALUE) & np.isfinite(values)

    def was(self, name: str) -> Floats:
        column: Floats = self.last[:, self.latest.family.index[name]]
        return column

    def ever(self, name: str) -> Floats:
        """The most a field was before now, NaN where it was never known."""
        column: Floats = self.best[:, self.latest.family.index[name]]
        return column


def scan(
    policy: Policy,
    memory: Memory,
    latest: Latest,
    *,
    standing: Mapping[str, Collection[str]],
    groups: Mapping[str, str],
    now_ms: int,
) -> Scanned:
    """What the newest rows of one family add to the evidence, and which conditions are over.

    standing: rule → keys (as in `latest`) for which its evidence stands. groups: key → the attempt that holds it,
    whose accelerators are peers. Cost: about 20 passes over the columns; nothing in Python per thing that is well.
    """
    now = _aligned(memory, latest, groups, now_ms)
    found: list[Finding] = []
    ceased: list[tuple[str, str]] = []
    hits: dict[str, Rings] = {}
    overs: dict[str, Rings] = {}
    sums: dict[str, Floats] = {}
    halves: dict[str, int] = {}
    for rule in policy.metrics:
        condition = rule.condition
        if condition is None or condition.family != latest.family.name:
            continue
        known = frozenset(standing.get(rule.rule_id, ()))
        if condition.look in (Look.LOST, Look.SILENT):
            met, over = _aged(condition, now)
        else:
            counts, hit, over = _read(rule, condition, now, memory, sums, halves)
            hits[rule.rule_id] = _pushed(memory.hits.get(rule.rule_id), now, counts, hit)
            overs[rule.rule_id] = _pushed(memory.overs.get(rule.rule_id), now, counts, over)
            met = counts & hit & (_count(hits[rule.rule_id], condition.seen_n) >= condition.seen_k)
            over = counts & (_count(overs[rule.rule_id], condition.seen_k) >= condition.seen_k)
        for place in np.flatnonzero(met).tolist():
            if condition.latched or latest.keys[place] not in known:
                found.append(_finding(rule, condition, now, place))
        if known and not condition.latched:
            ceased += [
                (rule.rule_id, latest.keys[place])
                for place in np.flatnonzero(over).tolist()
                if latest.keys[place] in known
            ]
    code = _codes(policy, memory, now, found)
    values = np.where(latest.codes & 15 == State.VALUE, latest.values, np.nan)
    return Scanned(
        memory=Memory(
            keys=latest.keys,
            ts_ms=np.maximum(latest.ts_ms, 0),
            last=np.where(np.isnan(values), now.last, values),
            best=np.fmax(values, now.best),
            hits=hits,
            overs=overs,
            sums=sums,
            halves=halves,
            code=code,
        ),
        found=tuple(found),
        ceased=tuple(ceased),
    )


def _aligned(memory: Memory, latest: Latest, groups: Mapping[str, str], now_ms: int) -> _Now:
    if latest.keys == memory.keys:
        at = np.arange(len(latest.keys))
    else:
        place = {key: number for number, key in enumerate(memory.keys)}
        at = np.array([place.get(key, -1) for key in latest.keys], dtype=np.int64)
    first = at < 0
    device = np.array([place.model != CPU_SLOT for place in latest.places], dtype=np.bool_)
    shape = (len(latest.keys), len(latest.family.fields))
    last = _taken(memory.last, at, np.full(shape, np.nan))
    best = _taken(memory.best, at, np.full(shape, np.nan))
    before = _taken(memory.ts_ms, at, np.zeros(shape[0], np.int64))
    nodes = {node_id: code for code, node_id in enumerate(dict.fromkeys(p.node_id for p in latest.places))}
    names = {name: code for code, name in enumerate(dict.fromkeys(groups.values()))}
    return _Now(
        latest=latest,
        fresh=(latest.ts_ms > before) & device,
        device=device,
        first=first,
        gap=latest.ts_ms - before > 3 * TICK_MS,
        last=last,
        best=best,
        at=at,
        node=np.array([nodes[place.node_id] for place in latest.places], dtype=np.int64),
        group=np.array([names[groups[key]] if key in groups else -1 for key in latest.keys], dtype=np.int64),
        now_ms=now_ms,
    )


def _taken(array: Any, at: NDArray[np.int64], empty: Any) -> Any:
    """The entries of `array` at `at`, and those of `empty` where there are none."""
    if len(array):
        known = at >= 0
        empty[known] = array[at[known]]
    return empty


def _read(
    rule: Rule,
    condition: Condition,
    now: _Now,
    memory: Memory,
    sums: dict[str, Floats],
    halves: dict[str, int],
) -> tuple[Bools, Bools, Bools]:
    """Which readings count, which of them meet the condition, and which say that it is over."""
    values, known = now.column(condition.field)
    counts = now.fresh & known
    fits = np.ones_like(counts)
    if condition.when_field:
        guard, guarded = now.column(condition.when_field)
        if condition.when_ever:
            guard = np.fmax(guard, now.ever(condition.when_field))
            guarded = ~np.isnan(guard)
        counts = counts & guarded
        with np.errstate(invalid="ignore"):
            fits = (guard > condition.when_above) & (guard < condition.when_below)
    with np.errstate(invalid="ignore"):
        hit, over = _met(rule, condition, now, memory, values, known, counts & fits, sums, halves)
    return counts, hit & fits, over | ~fits


def _met(
    rule: Rule,
    condition: Condition,
    now: _Now,
    memory: Memory,
    values: Floats,
    known: Bools,
    fitting: Bools,
    sums: dict[str, Floats],
    halves: dict[str, int],
) -> tuple[Bools, Bools]:
    asked, clear = condition.value, condition.clear
    match condition.look:
        case Look.ABOVE:
            return values > asked, values < clear if clear is not None else values <= asked
        case Look.BITS:
            flags = np.where(known, values, 0).astype(np.int64) & int(asked)
            return flags != 0, flags == 0
        case Look.FALLS:
            return (values == 0) & (now.ever(condition.field) > 0), values > 0
        case Look.FEWER_THAN:
            other, told = now.column(condition.other)
            return told & (values < other), told & (values >= other)
        case Look.BELOW_BEST:
            least = asked * now.ever(condition.field)
            return values < least, values >= least
        case Look.ABOVE_PEERS:
            more = values - _medians(values, known, now.node)
            return more > asked, more < clear if clear is not None else more <= asked
        case Look.BELOW_PEERS:
            least = asked * _medians(values, fitting, now.group)
            return values < least, values >= least
        case _:
            return _risen(rule, condition, now, memory, values, fitting, sums, halves)


def _risen(
    rule: Rule,
    condition: Condition,
    now: _Now,
    memory: Memory,
    values: Floats,
    fitting: Bools,
    sums: dict[str, Floats],
    halves: dict[str, int],
) -> tuple[Bools, Bools]:
    """Whether a counter rose by enough within the window, which is counted in two halves that move on in turn."""
    was = now.was(condition.field)
    rise = np.where(fitting & (values >= was), values - was, 0.0)
    half = now.now_ms // max(1, int(condition.window_s * 500))
    both = np.zeros((2, len(rise)))
    if rule.rule_id in memory.sums:
        for row in range(2):
            both[row] = _taken(memory.sums[rule.rule_id][row], now.at, both[row])
    passed = half - memory.halves.get(rule.rule_id, half)
    if passed == 1:
        both = np.stack((np.zeros(len(rise)), both[0]))
    elif passed:
        both = np.zeros((2, len(rise)))
    both[0] += rise
    sums[rule.rule_id], halves[rule.rule_id] = both, half
    hit: Bools = (rise > 0) & (both.sum(axis=0) >= condition.value)
    return hit, np.zeros_like(hit)


def _medians(values: Floats, known: Bools, group: NDArray[np.int64]) -> Floats:
    """For each thing the median over its group, NaN where too few are known."""
    medians = np.full(len(values), np.nan)
    chosen = np.flatnonzero(known & (group >= 0))
    if not len(chosen):
        return medians
    order = chosen[np.lexsort((values[chosen], group[chosen]))]
    _, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
    middles = (values[order[starts + (sizes - 1) // 2]] + values[order[starts + sizes // 2]]) / 2
    middles[sizes < PEERS_MIN] = np.nan
    by_group = np.full(group.max() + 1, np.nan)
    by_group[group[order[starts]]] = middles
    inside = group >= 0
    medians[inside] = by_group[group[inside]]
    return medians


def _aged(condition: Condition, now: _Now) -> tuple[Bools, Bools]:
    """Which things are silent (or lost: only they, of their node), and which speak again."""
    age = now.now_ms - now.latest.ts_ms
    speaks: Bools = age <= 1.5 * TICK_MS
    if condition.look is Look.SILENT:
        return (age > (condition.value + 0.5) * TICK_MS) & now.device, speaks
    newest = np.zeros(int(now.node.max(initial=0)) + 1, np.int64)
    np.maximum.at(newest, now.node, now.latest.ts_ms)
    behind = newest[now.node] - now.latest.ts_ms
    reported = now.now_ms - newest[now.node] <= 2.5 * TICK_MS
    return (behind > condition.value * TICK_MS) & reported & now.device, speaks


def _pushed(ring: Rings | None, now: _Now, counts: Bools, bit: Bools) -> Rings:
    before: Rings = np.zeros(len(counts), np.uint64)
    if ring is not None:
        before = _taken(ring, now.at, before)
        before[now.gap] = 0
    pushed: Rings = (before << np.uint64(1)) | bit.astype(np.uint64)
    return np.where(counts, pushed, before)


def _count(ring: Rings, of_last: int) -> NDArray[np.uint8]:
    counted: NDArray[np.uint8] = np.bitwise_count(ring & np.uint64((1 << of_last) - 1))
    return counted


def _codes(policy: Policy, memory: Memory, now: _Now, found: list[Finding]) -> Floats:
    """Codes that are new since the last scan, and what each device says now: one that merely stays is said once.

    A code of AMD says nothing without its severity, which only events carry.
    """
    if now.latest.family is not ACCELERATOR:
        return np.zeros(0)
    values, known = now.column("fault_code")
    before = _taken(memory.code, now.at, np.zeros(len(values)))
    code = np.where(now.fresh, np.where(known, values, 0.0), before)
    for place in np.flatnonzero(now.fresh & ~now.first & (code > 0) & (code != before)).tolist():
        thing = now.latest.places[place]
        if thing.model.startswith("MI"):
            continue
        rule = policy.code("xid", int(code[place]))
        found.append(
            Finding(
                rule_id=rule.rule_id,
                subject=Subject(node_id=NodeId(thing.node_id), serial=now.latest.keys[place]),
                at=_instant(int(now.latest.ts_ms[place])),
                witness=METRICS,
                sentence=f"its counters say Xid {int(code[place])}: {rule.says}",
                code=int(code[place]),
            )
        )
    return code


def _finding(rule: Rule, condition: Condition, now: _Now, place: int) -> Finding:
    latest = now.latest
    thing, key = latest.places[place], latest.keys[place]
    aged = condition.look in (Look.LOST, Look.SILENT)
    before = after = None
    if not aged:
        after = float(now.column(condition.field)[0][place])
        was = float(now.was(condition.field)[place])
        before = None if np.isnan(was) else was
    return Finding(
        rule_id=rule.rule_id,
        subject=_subject(latest.family, thing.node_id, key),
        at=_instant(now.now_ms if aged else int(latest.ts_ms[place])),
        witness=METRICS,
        sentence=_sentence(rule, condition, latest.family, key, before, after, now, place),
        before=before,
        after=after,
    )


def _subject(family: Family, node_id: str, key: str) -> Subject:
    if family is ACCELERATOR:
        return Subject(node_id=NodeId(node_id), serial=key)
    return Subject(node_id=NodeId(node_id), part=key.partition("/")[2] if family is PORT else None)


def _sentence(
    rule: Rule,
    condition: Condition,
    family: Family,
    key: str,
    before: float | None,
    after: float | None,
    now: _Now,
    place: int,
) -> str:
    where = f" on {key.partition('/')[2]}" if family is PORT else ""
    if after is None:
        age_s = (now.now_ms - int(now.latest.ts_ms[place])) / 1000
        return f"{rule.says} (last heard {age_s:.0f} s ago)"
    unit = family[condition.field].unit
    shown = f"{condition.field} {after:.10g}{' ' + unit if unit else ''}"
    if condition.look is Look.RISES and before is not None:
        shown = f"{condition.field} rose from {before:.10g} to {after:.10g}"
    return f"{rule.says}{where}: {shown}"


def _instant(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1000, UTC)
