"""A figure is what one bench measured, beside its peer measured in the same run and the peer against itself.

Invariant: ours[i] was measured beside peer[i], and peer[2n] beside peer[2n + 1], as rounds in the order A-B-B-A give
them; so ratios are of neighbours, and a machine that slows down slows both sides of each. A bench prints a figure as
one line; run by `bench/run.py` it also hands over the raw values.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

HANDED_OVER = "BENCH_FIGURES"  # names the file that collects the figures as JSON, one a line
PREFIX = "figure | "


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity."""

    name: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()  # empty where nothing else does the same
    peer_name: str = ""
    target: str = ""
    reached: bool | None = None  # None: reported, not judged
    note: str = ""

    @property
    def differences(self) -> tuple[float, ...]:
        """Ours less the peer beside it."""
        return tuple(a - b for a, b in zip(self.ours, self.peer, strict=False))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over the peer beside it; a difference that chance made negative has none."""
        return tuple(a / b for a, b in zip(self.ours, self.peer, strict=False) if b > 0 and a >= 0)

    @property
    def own_ratios(self) -> tuple[float, ...]:
        """The peer over itself: what this machine calls equal today."""
        return tuple(a / b for a, b in zip(self.peer[::2], self.peer[1::2], strict=False) if b > 0 and a >= 0)

    def columns(self) -> tuple[str, ...]:
        """Name, ours, peer, ratio, the peer against itself, target, reached; as the table shows them."""
        return (
            self.name,
            f"{number(median(self.ours))} {self.unit}" if self.ours else "–",
            f"{number(median(self.peer))} {self.unit} ({self.peer_name})" if self.peer else "–",
            quartiles(self.ratios) if self.ratios else "–",
            f"{min(self.own_ratios):.3f} to {max(self.own_ratios):.3f}" if self.own_ratios else "–",
            self.target or "–",
            {True: "yes", False: "NO", None: "–"}[self.reached],
        )

    def line(self) -> str:
        name, ours, peer, ratio, own, target, reached = self.columns()
        words = f"{name} | ours {ours} | peer {peer} | ratio {ratio} | A/A {own} | target {target} | reached {reached}"
        return PREFIX + words + f" | load {os.getloadavg()[0]:.1f}" + (f" | {self.note}" if self.note else "")


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def quartiles(values: Sequence[float]) -> str:
    """The median, and the quartiles around it."""
    ordered = sorted(values)
    return f"{median(ordered):.3f} [{ordered[len(ordered) // 4]:.3f}, {ordered[3 * len(ordered) // 4]:.3f}]"


def show(figure: Figure) -> None:
    """Print the figure, and hand it over where somebody collects."""
    print(figure.line(), flush=True)
    if file := os.environ.get(HANDED_OVER):
        with Path(file).open("a") as collected:
            collected.write(json.dumps(asdict(figure)) + "\n")


def figures_in(file: Path) -> list[Figure]:
    """The figures that a bench handed over."""
    lines = file.read_text().splitlines() if file.exists() else []
    told = [json.loads(line) for line in lines]
    return [Figure(**each | {"ours": tuple(each["ours"]), "peer": tuple(each["peer"])}) for each in told]
