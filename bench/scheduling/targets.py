"""What ours are held to, by role, against the baselines of the same run.

A figure that is missed is shown as missed. Each check gives sentences with a verdict; none where nobody has the role.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import mean

Figures = Mapping[str, float]
Table = Mapping[tuple[str, str], Figures]  # (case, contender) → means over seeds
Verdict = tuple[str, bool]


def packing(table: Table, ours: str) -> Iterator[Verdict]:
    """Above FGD and first fit on every mix; mean +1.0 point at the end and +2.0 at 100 % over FGD."""
    mixes = [case for case, name in table if name == ours]
    gains: dict[str, list[float]] = {"at_100": [], "at_end": []}
    for mix in mixes:
        for figure in gains:
            mine = table[mix, ours][figure]
            best = max(table[mix, other][figure] for other in ("fgd", "first_fit") if (mix, other) in table)
            gains[figure].append(mine - table[mix, "fgd"][figure])
            yield f"{mix} {figure}: {mine:.2f} above FGD and first fit ({best:.2f})", mine > best
    if mixes:
        yield (
            f"mean gain over FGD at the end {mean(gains['at_end']):+.2f} ≥ +1.0",
            mean(gains["at_end"]) >= 1.0,
        )
        yield f"mean gain over FGD at 100 % {mean(gains['at_100']):+.2f} ≥ +2.0", mean(gains["at_100"]) >= 2.0


def queue(table: Table, ours: str) -> Iterator[Verdict]:
    """No preemption, durations known: mean JCT at most SJF's, p99 wait at most EASY's."""
    for case, mine in _of(table, ours):
        sjf, easy = table[case, "sjf"]["jct_mean_s"], table[case, "easy"]["wait_p99_s"]
        yield f"{case}: mean JCT {mine['jct_mean_s']:,.0f} ≤ SJF {sjf:,.0f}", mine["jct_mean_s"] <= sjf
        yield f"{case}: p99 wait {mine['wait_p99_s']:,.0f} ≤ EASY {easy:,.0f}", mine["wait_p99_s"] <= easy


def preemptive(table: Table, ours: str) -> Iterator[Verdict]:
    """300 s a restart: mean JCT 5 % below SRSF's with at most 60 % of its preemptions."""
    for case, mine in _of(table, ours):
        srsf = table[case, "srsf 300 s"]
        ratio = mine["jct_mean_s"] / srsf["jct_mean_s"]
        stops = mine["preemptions"] / max(1.0, srsf["preemptions"])
        yield f"{case}: mean JCT {ratio:.3f} of SRSF's ≤ 0.95", ratio <= 0.95
        yield f"{case}: {mine['preemptions']:.0f} preemptions, {stops:.2f} of SRSF's ≤ 0.60", stops <= 0.6


def blind(table: Table, ours: str) -> Iterator[Verdict]:
    """Durations unknown: within 1.3 times what is wanted of those that know them, on two sets."""
    within = []
    for case, mine in _of(table, ours):
        ratio = mine["jct_mean_s"] / (0.95 * table[case, "srsf 300 s"]["jct_mean_s"])
        within.append(ratio <= 1.3)
        yield f"{case}: mean JCT {ratio:.2f} of 0.95 SRSF ≤ 1.3 (on two sets)", ratio <= 1.3
    if within:
        yield f"on {sum(within)} of {len(within)} sets, 2 wanted", sum(within) >= 2


def overloaded(table: Table, ours: str) -> Iterator[Verdict]:
    """Mean wait at most SJF's, p99 at most EASY's, the best of either over where nodes are sought."""
    for case, mine in _of(table, ours):
        sjf = min(
            found["wait_mean_s"]
            for (of, name), found in table.items()
            if of == case and name.startswith("sjf")
        )
        easy = min(
            found["wait_p99_s"]
            for (of, name), found in table.items()
            if of == case and name.startswith("easy")
        )
        yield f"{case}: mean wait {mine['wait_mean_s']:,.0f} ≤ SJF {sjf:,.0f}", mine["wait_mean_s"] <= sjf
        yield f"{case}: p99 wait {mine['wait_p99_s']:,.0f} ≤ EASY {easy:,.0f}", mine["wait_p99_s"] <= easy


def mixed(table: Table, ours: str) -> Iterator[Verdict]:
    """Makespan within 3 % of the bound, mean JCT at most half of list scheduling's."""
    for case, mine in _of(table, ours):
        over = mine["makespan_s"] / mine["makespan_bound_s"]
        jct = mine["jct_mean_s"] / table[case, "list scheduling"]["jct_mean_s"]
        yield f"{case}: makespan {over:.3f} × bound ≤ 1.03", over <= 1.03
        yield f"{case}: mean JCT {jct:.2f} of list scheduling's ≤ 0.5", jct <= 0.5


def fabric(table: Table, ours: str) -> Iterator[Verdict]:
    """At load 0.9: leaves at most 1.30 × the fewest, at most 5 % across pods, mean wait within 5 % of leaf best fit."""
    for case, mine in _of(table, ours):
        if "0.9" not in case:
            continue
        wait_s, base_s = mine["wait_mean_s"], table[case, "leaf_best_fit"]["wait_mean_s"]
        yield (
            f"{case}: {mine['leaves_over_min']:.3f} × the fewest leaves ≤ 1.30",
            mine["leaves_over_min"] <= 1.30,
        )
        yield f"{case}: {mine['gangs_cross_pod_pct']:.1f} % cross pods ≤ 5", mine["gangs_cross_pod_pct"] <= 5
        yield f"{case}: mean wait {wait_s:,.0f} s, within 5 % of {base_s:,.0f}", wait_s <= 1.05 * base_s


def speed(table: Table, ours: str) -> Iterator[Verdict]:
    """Decisions a second: 2,000 at 1,213 nodes, 500 at 9,704; who fits nowhere hears so within 10 ms."""
    for case, mine in _of(table, ours):
        wanted = 500 if "9,704" in case else 2000
        yield (
            f"{case}: {mine['decisions_per_s']:,.0f} decisions/s ≥ {wanted:,}",
            mine["decisions_per_s"] >= wanted,
        )
        yield f"{case}: fits nowhere, said in {mine['verdict_ms']:.2f} ms < 10", mine["verdict_ms"] < 10


def _of(table: Table, ours: str) -> Iterator[tuple[str, Figures]]:
    return ((case, found) for (case, name), found in table.items() if name == ours)


TARGETS: Mapping[str, Callable[[Table, str], Iterator[Verdict]]] = {
    "packing": packing,
    "queue": queue,
    "preemptive": preemptive,
    "blind": blind,
    "overloaded": overloaded,
    "mixed": mixed,
    "fabric": fabric,
    "speed": speed,
}
