"""What ours are held to, by role, against the baselines of the same run.

A figure that is missed is shown as missed. Each check gives verdicts; none where nobody has the role.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import mean

from bench.scheduling.verdict import Verdict

Figures = Mapping[str, float]
Table = Mapping[tuple[str, str], Figures]  # (case, contender) → means over seeds


def packing(table: Table, ours: str) -> Iterator[Verdict]:
    """Above FGD and first fit on every mix; mean +1.0 point at the end and +2.0 at 100 % over FGD."""
    gains: dict[str, list[float]] = {"at_100": [], "at_end": []}
    named = {"at_100": "given out at 100 %", "at_end": "given out at 130 %"}
    for mix, mine in _of(table, ours):
        for figure in gains:
            fgd, first = table[mix, "fgd"][figure], table[mix, "first_fit"][figure]
            bound = mine.get("allocated_pct_bound")
            gains[figure].append(mine[figure] - fgd)
            yield Verdict(
                case=mix,
                figure=named[figure],
                ours=f"{mine[figure]:.2f} %",
                wanted="> FGD, first fit",
                beside=f"FGD {fgd:.2f}, first fit {first:.2f}" + _bound(bound, ".2f"),
                reached=mine[figure] > max(fgd, first),
            )
            if mix == "default" and figure == "at_100":
                yield Verdict(
                    case=mix,
                    figure="the same, stretch",
                    ours=f"{mine[figure]:.2f} %",
                    wanted="97.5 %",
                    reached=None,
                )
    for figure, least in (("at_end", 1.0), ("at_100", 2.0)):
        if gains[figure]:
            gain = mean(gains[figure])
            yield Verdict(
                case=f"mean of {len(gains[figure])} mixes",
                figure=f"{named[figure]}, over FGD",
                ours=f"{gain:+.2f} points",
                wanted=f"≥ {least:+.1f}",
                reached=gain >= least,
            )


def queue(table: Table, ours: str) -> Iterator[Verdict]:
    """No preemption, durations known: mean JCT at most SJF's, p99 wait at most EASY's."""
    for case, mine in _of(table, ours):
        sjf, easy = table[case, "sjf"], table[case, "easy"]
        yield _most(
            case,
            "mean JCT",
            mine["jct_mean_s"],
            sjf["jct_mean_s"],
            "SJF",
            f"EASY {easy['jct_mean_s']:,.0f}" + _bound(mine["jct_mean_bound_s"], ",.0f"),
        )
        yield _most(
            case,
            "p99 wait",
            mine["wait_p99_s"],
            easy["wait_p99_s"],
            "EASY",
            f"SJF {sjf['wait_p99_s']:,.0f}",
        )


def preemptive(table: Table, ours: str) -> Iterator[Verdict]:
    """300 s a restart: mean JCT 5 % below SRSF's with at most 60 % of its preemptions."""
    for case, mine in _of(table, ours):
        srsf = table[case, "srsf 300 s"]
        ratio = mine["jct_mean_s"] / srsf["jct_mean_s"]
        stops = mine["preemptions"] / max(1.0, srsf["preemptions"])
        yield Verdict(
            case=case,
            figure="mean JCT, 300 s a restart",
            ours=f"{mine['jct_mean_s']:,.0f} s, {ratio:.3f}",
            wanted="≤ 0.95 × SRSF",
            beside=f"SRSF {srsf['jct_mean_s']:,.0f}" + _bound(mine["jct_mean_bound_s"], ",.0f"),
            reached=ratio <= 0.95,
        )
        yield Verdict(
            case=case,
            figure="preemptions",
            ours=f"{mine['preemptions']:,.0f}, {stops:.2f}",
            wanted="≤ 0.60 × SRSF",
            beside=f"SRSF {srsf['preemptions']:,.0f}",
            reached=stops <= 0.6,
        )


def blind(table: Table, ours: str) -> Iterator[Verdict]:
    """Durations unknown: within 1.3 times what is wanted of those that know them, on two sets."""
    within = []
    for case, mine in _of(table, ours):
        srsf_s = table[case, "srsf 300 s"]["jct_mean_s"]
        ratio = mine["jct_mean_s"] / (0.95 * srsf_s)
        within.append(ratio <= 1.3)
        yield Verdict(
            case=case,
            figure="mean JCT, durations unknown",
            ours=f"{mine['jct_mean_s']:,.0f} s, {ratio:.2f}",
            wanted="1.3 × 0.95 SRSF",
            beside=f"SRSF, which knows {srsf_s:,.0f}" + _bound(mine["jct_mean_bound_s"], ",.0f"),
            reached=None,
        )
    if within:
        yield Verdict(
            case=f"{len(within)} sets",
            figure="of these within 1.3 ×",
            ours=str(sum(within)),
            wanted="≥ 2",
            reached=sum(within) >= 2,
        )


def overloaded(table: Table, ours: str) -> Iterator[Verdict]:
    """Mean wait at most SJF's, p99 at most EASY's, the best of either over where nodes are sought."""
    for case, mine in _of(table, ours):
        sjf_s, easy_s = (
            min(
                found[figure] for (of, name), found in table.items() if of == case and name.startswith(policy)
            )
            for policy, figure in (("sjf", "wait_mean_s"), ("easy", "wait_p99_s"))
        )
        yield _most(case, "mean wait", mine["wait_mean_s"], sjf_s, "SJF", "the best over packings")
        yield _most(case, "p99 wait", mine["wait_p99_s"], easy_s, "EASY", "the best over packings")


def replayed(table: Table, ours: str) -> Iterator[Verdict]:
    """The platform's own policy: openb's 8,146 runs in less than 60 s, beside what it makes of their waits."""
    for case, mine in _of(table, ours):
        peers = [
            f"{name} {table[case, name]['wait_mean_s']:,.0f}"
            for name in ("easy", "sjf")
            if (case, name) in table
        ]
        yield Verdict(
            case=case,
            figure="mean wait",
            ours=f"{mine['wait_mean_s']:,.0f} s",
            beside=", ".join(peers) or "–",
            reached=None,
        )
        yield Verdict(
            case=case,
            figure="replay of 8,146 runs",
            ours=f"{mine['cpu_s']:.1f} CPU-s",
            wanted="< 60 s",
            reached=mine["cpu_s"] < 60,
        )


def fast(table: Table, ours: str) -> Iterator[Verdict]:
    """A replay with first fit: a million events a minute."""
    for case, mine in _of(table, ours):
        events = mine["events_per_min"]
        yield Verdict(
            case=case,
            figure="replay, first fit",
            ours=f"{events / 1e6:.2f} M events/CPU-min",
            wanted="≥ 1 M",
            reached=events >= 1e6,
        )


def mixed(table: Table, ours: str) -> Iterator[Verdict]:
    """Makespan within 3 % of the bound, mean JCT at most half of list scheduling's."""
    for case, mine in _of(table, ours):
        listed = table[case, "list scheduling"]
        over = mine["makespan_s"] / mine["makespan_bound_s"]
        jct = mine["jct_mean_s"] / listed["jct_mean_s"]
        yield Verdict(
            case=case,
            figure="makespan",
            ours=f"{mine['makespan_s'] / 3600:.2f} h, {over:.3f}",
            wanted="≤ 1.03 × bound",
            beside=f"list {listed['makespan_s'] / 3600:.2f}, bound {mine['makespan_bound_s'] / 3600:.2f}",
            reached=over <= 1.03,
        )
        yield Verdict(
            case=case,
            figure="mean JCT",
            ours=f"{mine['jct_mean_s'] / 3600:.2f} h, {jct:.3f}",
            wanted="≤ 0.5 × list",
            beside=f"list {listed['jct_mean_s'] / 3600:.2f}, bound {mine['jct_mean_bound_s'] / 3600:.2f}",
            reached=jct <= 0.5,
        )


def fabric(table: Table, ours: str) -> Iterator[Verdict]:
    """At load 0.9: leaves at most 1.30 × the fewest, at most 5 % across pods, mean wait within 5 % of leaf best fit."""
    for case, mine in _of(table, ours):
        if "0.9" not in case:
            continue
        leaf = table[case, "leaf_best_fit"]
        yield Verdict(
            case=case,
            figure="leaves over the fewest",
            ours=f"{mine['leaves_over_min']:.3f}",
            wanted="≤ 1.30",
            beside=f"leaf best fit {leaf['leaves_over_min']:.3f}, bound 1",
            reached=mine["leaves_over_min"] <= 1.30,
        )
        yield Verdict(
            case=case,
            figure="gangs across pods",
            ours=f"{mine['gangs_cross_pod_pct']:.1f} %",
            wanted="≤ 5 %",
            beside=f"leaf best fit {leaf['gangs_cross_pod_pct']:.1f} %",
            reached=mine["gangs_cross_pod_pct"] <= 5,
        )
        yield Verdict(
            case=case,
            figure="mean wait",
            ours=f"{mine['wait_mean_s']:,.0f} s",
            wanted="≤ 1.05 × leaf best fit",
            beside=f"leaf best fit {leaf['wait_mean_s']:,.0f}",
            reached=mine["wait_mean_s"] <= 1.05 * leaf["wait_mean_s"],
        )


def speed(table: Table, ours: str) -> Iterator[Verdict]:
    """Decisions a second: 2,000 at 1,213 nodes, 500 at 9,704; who fits nowhere hears so within 10 ms."""
    for case, mine in _of(table, ours):
        wanted = 500 if "9,704" in case else 2000
        peers = [
            f"{name} {table[case, name]['decisions_per_s']:,.0f}"
            for name in ("first_fit", "best_fit", "fgd")
            if (case, name) in table
        ]
        yield Verdict(
            case=case,
            figure="decisions/s (stretch at 9,704: 5,000)",
            ours=f"{mine['decisions_per_s']:,.0f}",
            wanted=f"≥ {wanted:,}",
            beside=", ".join(peers) or "–",
            reached=mine["decisions_per_s"] >= wanted,
        )
        yield Verdict(
            case=case,
            figure="fits nowhere, said by a placement in",
            ours=f"{mine['verdict_ms']:.2f} ms",
            wanted="< 10 ms",
            reached=mine["verdict_ms"] < 10,
        )


def _of(table: Table, ours: str) -> Iterator[tuple[str, Figures]]:
    return ((case, found) for (case, name), found in table.items() if name == ours)


def _most(case: str, figure: str, mine_s: float, least_s: float, whose: str, beside: str) -> Verdict:
    """At most what somebody else needs, in seconds."""
    return Verdict(
        case=case,
        figure=figure,
        ours=f"{mine_s:,.0f} s, {mine_s / least_s if least_s else 1:.2f}",
        wanted=f"≤ {whose} {least_s:,.0f}",
        beside=beside,
        reached=mine_s <= least_s,
    )


def _bound(bound: float | None, form: str) -> str:
    return "" if bound is None else f", bound {bound:{form}}"


TARGETS: Mapping[str, Callable[[Table, str], Iterator[Verdict]]] = {
    "packing": packing,
    "queue": queue,
    "preemptive": preemptive,
    "blind": blind,
    "overloaded": overloaded,
    "replayed": replayed,
    "fast": fast,
    "mixed": mixed,
    "fabric": fabric,
    "speed": speed,
}
