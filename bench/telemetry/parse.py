"""How fast exposition text is read: lines a CPU-second of repeated scrapes, as a collector meets them.

    PYTHONPATH=src:. python bench/telemetry/parse.py [--rounds 3] [--seconds 2]

The peer is the reader of prometheus_client, Python's own client library, over the same texts. Every text is one of the
saved scrapes with other numbers in it, so that nobody can keep a whole line. Both give every name, label and number.
The saved scrape of node_exporter lies in ../shared (BASEAI_SHARED names it); without it the others are measured.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from prometheus_client.parser import text_string_to_metric_families

from baseai.telemetry.exposition import Parser
from baseai.telemetry.normalise import Normaliser
from bench.report import Figure, show

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "telemetry" / "fixtures"
SHARED = Path(os.environ.get("BASEAI_SHARED") or ROOT.parent / "shared") / "fixtures" / "exposition"
SCRAPES = (
    FIXTURES / "dcgm_h100x8_aicr.prom",
    FIXTURES / "dcgm_l40s_upcloud.prom",
    FIXTURES / "amd_mi300x_docs_clock_xgmi.prom",
    FIXTURES / "amd_device_metrics_exporter_mini.prom",
    SHARED / "node_exporter_linux_e2e.prom",
)
WANTED = 400_000
VARIANTS = 10


def varied(text: str, chance: random.Random) -> str:
    """The same scrape some seconds later: every number is another one of about as many digits."""
    lines = []
    for line in text.removesuffix("\n").split("\n"):
        key, _, digits = line.rpartition(" ")
        if line.startswith("#") or not key:
            lines.append(line)
            continue
        try:
            lines.append(f"{key} {float(digits) * chance.uniform(0.5, 1.5):.9g}")
        except ValueError:
            lines.append(line)
    return "\n".join(lines) + "\n"


def ours(texts: Sequence[str]) -> Callable[[], None]:
    parser = Parser()

    def read() -> None:
        for text in texts:
            parser.parse(text)

    return read


def peers(texts: Sequence[str]) -> Callable[[], None]:
    def read() -> None:
        for text in texts:
            for family in text_string_to_metric_families(text):
                for _ in family.samples:
                    pass

    return read


def rows(texts: Sequence[str]) -> Callable[[], None]:
    """Ours, on to rows of accelerators."""
    parser, normaliser = Parser(), Normaliser()

    def read() -> None:
        remembered = None
        for tick, text in enumerate(texts):
            read = normaliser.normalise(parser.parse(text), at_ms=10_000 * tick, before=remembered)
            remembered = read.remembered

    return read


def lines_per_cpu_s(read: Callable[[], None], lines: int, seconds: float) -> float:
    """Lines a CPU-second of this process, over at least `seconds` of it; the first pass warms up."""
    read()
    passes, began_s = 0, time.process_time()
    while (spent_s := time.process_time() - began_s) < seconds or not passes:
        read()
        passes += 1
    return passes * lines / spent_s


def agree(text: str) -> None:
    """Both read the same numbers; a bench of two that read something else measures nothing.

    The peer writes `_total` behind the name of every counter, whether it stands there or not.
    """

    def known(samples: Iterable[tuple[str, Mapping[str, str], float]]) -> dict[object, float]:
        return {
            (name.removesuffix("_total"), tuple(sorted(labels.items()))): float(value)
            for name, labels, value in samples
        }

    mine = Parser().parse(text)
    own = zip(
        (each.name for each in mine.metrics), (each.labels for each in mine.metrics), mine.values, strict=True
    )
    theirs = (
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )
    assert str(sorted(known(own).items(), key=str)) == str(sorted(known(theirs).items(), key=str))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of each measurement")
    asked = parser.parse_args()
    chance = random.Random(7)
    for scrape in SCRAPES:
        if not scrape.exists():
            print(f"{scrape.name} is not here and is left out", flush=True)
            continue
        texts = [
            varied(scrape.read_text(encoding="utf-8", errors="replace"), chance) for _ in range(VARIANTS)
        ]
        agree(texts[0])
        lines = sum(text.count("\n") for text in texts)
        mine, theirs = ours(texts), peers(texts)
        measured: list[float] = []
        beside: list[float] = []
        for _ in range(asked.rounds):
            measured.append(lines_per_cpu_s(mine, lines, asked.seconds))
            beside.append(lines_per_cpu_s(theirs, lines, asked.seconds))
            beside.append(lines_per_cpu_s(theirs, lines, asked.seconds))
            measured.append(lines_per_cpu_s(mine, lines, asked.seconds))
        show(
            Figure(
                name=f"exposition read, {scrape.stem}",
                unit="lines/CPU-s",
                ours=tuple(measured),
                peer=tuple(beside),
                peer_name=f"prometheus_client {version('prometheus-client')}",
                target=f"≥ {WANTED:,}",
                reached=median(measured) >= WANTED,
                note=f"{lines // VARIANTS:,} lines a scrape",
            )
        )
        if not scrape.name.startswith("node"):
            whole = tuple(lines_per_cpu_s(rows(texts), lines, asked.seconds) for _ in range(asked.rounds))
            show(Figure(name=f"the same, on to rows, {scrape.stem}", unit="lines/CPU-s", ours=whole))


if __name__ == "__main__":
    main()
