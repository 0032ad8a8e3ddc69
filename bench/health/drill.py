"""The fault drill: 200 faults by the causes of Llama 3's interruptions over 7 simulated days, and who finds them.

    PYTHONPATH=src:. python bench/health/drill.py [--seed 20260302] [--faults 200] [--nodes 128]

Each fault is made of what it would leave behind: kernel lines in the shape of the saved ones, counters and readings on
top of the saved scrape, devices and nodes of which nothing is heard, words of a management controller. Between them
stand half as many benign look-alikes: errors of runs, lost probes, restarted agents, counters that begin anew. A fifth
of the faults has shapes that no rule was tuned on. Judged by the code that judges in production, on a virtual clock;
the seed replays.

A fault counts as found when one of its right rules stands within three ticks of its first signal. What leaves no trace
on hardware (a bug, a dependency, a time-out of the collective, a node under maintenance) is rightly *noted* and nothing
more: there the right answer is the note, and a drained node would be a healthy node drained.
"""

import argparse
import csv
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from baseai.fleet.health.rule import Action, shipped_policy
from baseai.fleet.node import NodeState
from baseai.telemetry.exposition import Parser
from baseai.telemetry.normalise import normalised
from bench.health.shapes import SHARED, Shape, look_alikes, shapes
from bench.health.world import BEGAN, DEVICES, Machine, World
from bench.report import Figure, show

DAYS = 7
FOUND_WITHIN_S = 30.0  # three ticks
WATCHED_S = 120.0  # so long every tick is walked after a signal


@dataclass(slots=True, kw_only=True)
class Played:
    """One fault or look-alike, and what came of it."""

    cause: str
    shape: Shape
    at: datetime
    machine: Machine
    device: int
    found_after_s: float | None = None
    by: str | None = None  # the right rule that found it
    rules: Counter[str] = field(default_factory=Counter)
    drained: bool = False
    cordoned: bool = False

    @property
    def in_time(self) -> bool:
        return self.found_after_s is not None and self.found_after_s <= FOUND_WITHIN_S


def shares(faults: int) -> dict[str, int]:
    """How many of so many faults each cause has, by largest remainders of the saved counts."""
    with (SHARED / "health" / "llama3_405b_interruptions.csv").open() as file:
        counts = {row["component"]: int(row["count"]) for row in csv.DictReader(file)}
    whole = sum(counts.values())
    exact = {cause: faults * count / whole for cause, count in counts.items()}
    given = {cause: max(1, int(share)) for cause, share in exact.items()}
    left = faults - sum(given.values())
    for cause in sorted(exact, key=lambda each: exact[each] - int(exact[each]), reverse=True)[: max(0, left)]:
        given[cause] += 1
    while sum(given.values()) > faults:
        given[max(given, key=lambda each: given[each])] -= 1
    return given


def programme(chance: random.Random, faults: int, kept_share: float) -> list[tuple[str, Shape]]:
    """Faults and look-alikes in the order of the week. A fifth of the faults has shapes kept back."""
    known = shapes()
    wanted = [cause for cause, count in shares(faults).items() for _ in range(count)]
    chance.shuffle(wanted)
    kept_wanted = round(kept_share * faults)
    chosen: list[tuple[str, Shape]] = []
    for cause in wanted:
        kept = [each for each in known[cause] if each.kept_back]
        tuned = [each for each in known[cause] if not each.kept_back]
        use_kept = kept_wanted > 0 and bool(kept)
        kept_wanted -= use_kept
        chosen.append((cause, chance.choice(kept if use_kept else tuned)))
    benign = look_alikes()
    chosen += [("look-alike", benign[number % len(benign)]) for number in range(faults // 2)]
    chance.shuffle(chosen)
    return chosen


def run(*, seed: int, faults: int, nodes: int, kept_share: float) -> tuple[World, list[Played]]:
    chance = random.Random(seed)
    world = World(shipped_policy(), saved_readings(), nodes=nodes, chance=chance)
    for _ in range(4):
        world.tick()
    chosen = programme(chance, faults, kept_share)
    week_s = DAYS * 86_400
    starts = sorted(chance.uniform(120, week_s - 1200) for _ in chosen)
    played: list[Played] = []
    for number, (start_s, (cause, form)) in enumerate(zip(starts, chosen, strict=True)):
        begins = BEGAN + timedelta(seconds=start_s)
        if begins > world.now + timedelta(seconds=60):
            world.rest(begins - timedelta(seconds=40))
            for _ in range(4):
                world.tick()
        one = Played(
            cause=cause, shape=form, at=world.now, machine=free_machine(world, form, chance), device=0
        )
        one.device = chance.randrange(DEVICES)
        played.append(one)
        following = starts[number + 1] if number + 1 < len(starts) else week_s
        watch(world, one, until=min(WATCHED_S, max(40.0, following - start_s)))
    return world, played


def watch(world: World, one: Played, *, until: float) -> None:
    """Play one shape and walk every tick until its last act, and a while longer."""
    machine = one.machine
    acts = sorted(one.shape.acts, key=lambda act: act[0])
    ends_s = max([until, acts[-1][0] + 60.0])
    drained, cordoned = len(world.drained), len(world.cordoned)
    one.at = world.now
    passed_s = 0.0
    while passed_s <= ends_s:
        while acts and acts[0][0] < passed_s + 10.0:
            acts.pop(0)[1](world, machine, one.device)
        world.tick()
        passed_s += 10.0
        for rule_id in world.rules_since(machine, one.at):
            one.rules[rule_id] += 1
            if one.found_after_s is None and rule_id in one.shape.right:
                one.found_after_s, one.by = passed_s, rule_id
    one.drained = any(node_id == machine.node_id for _, node_id, _ in world.drained[drained:])
    one.cordoned = any(node_id == machine.node_id for _, node_id, _ in world.cordoned[cordoned:])
    if machine.state is NodeState.READY or (machine.state is NodeState.CORDONED and not one.shape.drains):
        world.heal(machine)  # somebody ended it: the run, the heat, the cable


def free_machine(world: World, form: Shape, chance: random.Random) -> Machine:
    """A machine that works and against which nothing but notes stands."""
    model = "MI300X" if form.amd else "H100-SXM"
    stained = {
        sign.subject.node_id
        for sign in world.signs
        if sign.action.rank >= Action.CORDON.rank or sign.rule_id == "run_died"
    }
    free = [
        machine
        for machine in world.machines
        if machine.model == model
        and machine.state is NodeState.READY
        and machine.leases
        and machine.node_id not in stained
    ]
    return chance.choice(free)


def saved_readings() -> dict[str, float]:
    """A busy accelerator: what the saved scrape of an H100 says, with the load of a training run on top."""
    scrape = Parser().parse((SHARED / "exposition" / "dcgm_h100x8_aicr.prom").read_bytes())
    row = normalised(scrape, at_ms=0).rows[0]
    told = {name: each.value for name, each in row.fields.items() if each.value is not None}
    busy = {
        "util_pct": 97.0,
        "temp_c": float(told["temp_c"]) + 32,
        "temp_mem_c": 78.0,
        "clock_mhz": 1755.0,
        "power_w": 655.0,
        "mem_used_b": 6.9e10,
        "throttle_bits": 0.0,
        "ecc_ce": 3.0,
        "ecc_ue": 4.0,
        "row_remap": 0.0,
        "link_err": 20.0,
        "fault_code": 0.0,
    }
    return {**{name: value for name, value in told.items() if name in busy}, **busy}


def drained_in_health(world: World, played: Sequence[Played]) -> list[str]:
    """Drains of the whole week that no fault answers for: of the last thing that befell the node."""
    wrong = []
    for at, node_id, why in world.drained:
        befallen = [each for each in played if each.machine.node_id == node_id and each.at <= at]
        if not befallen or befallen[-1].shape.drains is False:
            wrong.append(f"{node_id} at {at:%a %H:%M}: {why}")
    return wrong


def matrix(played: Sequence[Played]) -> None:
    """By cause: how many were found by a right rule in time, late, by other rules only, or not; and what was done."""
    head = (
        "cause",
        "n",
        "right ≤ 3 ticks",
        "right, late",
        "other rules",
        "nothing",
        "drained",
        "cordoned",
        "found by",
    )
    rows = [head]
    causes = list(dict.fromkeys(each.cause for each in played if each.cause != "look-alike"))
    for cause in [*sorted(causes, key=lambda c: -sum(each.cause == c for each in played)), "look-alike"]:
        of = [each for each in played if each.cause == cause]
        in_time = sum(each.in_time for each in of)
        late = sum(each.found_after_s is not None and not each.in_time for each in of)
        other = sum(each.found_after_s is None and bool(each.rules) for each in of)
        nothing = sum(each.found_after_s is None and not each.rules for each in of)
        by = Counter(
            each.by or max(each.rules, key=lambda rule: each.rules[rule], default="–") for each in of
        )
        told = ", ".join(f"{rule} {count}" for rule, count in by.most_common(7))
        rows.append(
            (
                cause,
                str(len(of)),
                str(in_time) if cause != "look-alike" else "–",
                str(late),
                str(other),
                str(nothing),
                str(sum(each.drained for each in of)),
                str(sum(each.cordoned for each in of)),
                told,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    for row in rows:
        print(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
            ).rstrip()
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=20260302)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=128)
    parser.add_argument("--kept-share", type=float, default=0.2)
    asked = parser.parse_args()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    world, played = run(seed=asked.seed, faults=asked.faults, nodes=asked.nodes, kept_share=asked.kept_share)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    matrix(played)
    faults = [each for each in played if each.cause != "look-alike"]
    wrong = drained_in_health(world, played)
    print(
        f"seed {asked.seed}: {len(faults)} faults and {len(played) - len(faults)} look-alikes on {asked.nodes} nodes,"
        f" {DAYS} days; {world.ticks:,} ticks judged in {took_s:.0f} s, {cpu_s:.0f} s of CPU"
    )
    for each in wrong:
        print(f"  drained in health: {each}")
    for each in [one for one in played if one.cause == "look-alike" and one.cordoned]:
        print(f"  held back, though healthy: {each.shape.name}, rules {dict(each.rules)}")
    for each in [one for one in faults if not one.in_time]:
        print(
            f"  {each.cause}, {each.shape.name}: found after {each.found_after_s}, rules {dict(each.rules)},"
            f" drained {each.drained}"
        )
    most = max(
        (
            sum(abs((b - a).total_seconds()) < 7 * 86_400 for b in of)
            for of in world.reboots.values()
            for a in of
        ),
        default=0,
    )
    for name, of in (
        ("tuned on", [e for e in faults if not e.shape.kept_back]),
        ("kept back", [e for e in faults if e.shape.kept_back]),
        ("all", faults),
    ):
        ratio = 100 * sum(each.in_time for each in of) / max(1, len(of))
        show(
            Figure(
                name=f"faults found by the right rule within 3 ticks, {name} ({len(of)})",
                unit="%",
                ours=(ratio,),
                target="≥ 95 %",
                reached=ratio >= 95,
            )
        )
    show(
        Figure(
            name="healthy nodes drained",
            unit="nodes",
            ours=(float(len(wrong)),),
            target="0",
            reached=not wrong,
        )
    )
    show(
        Figure(
            name="automatic reboots of one node within 7 days, the most",
            unit="reboots",
            ours=(float(most),),
            target="≤ 2",
            reached=most <= 2,
        )
    )


if __name__ == "__main__":
    main()
