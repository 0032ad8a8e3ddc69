"""A collector asks one source (a driver, an exporter, a controller, the kernel) and tells what it said, tick by tick.

Invariant: a collector names devices as its source does (UUID, bus address, `nvidia/3`) and never guesses: what it
cannot take over is a trouble that names device and field, and the rest is kept. It may hang or fail without harm: its
caller bounds it in time, asks it less often after failures, and lets no collector wait for another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from baseai.ground.fault import Fault
from baseai.telemetry.sample import Row, Trouble
from baseai.telemetry.witness import Witness


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one source said at one tick. Keys of accelerators are names as the source knows them; the key of the
    node's own row is empty; a port's is device/port."""

    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)  # by family
    other_names: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # of an accelerator, by its key in `rows`
    witnesses: Sequence[Witness] = ()
    troubles: Sequence[Trouble] = ()


class Rank:
    """Whose word counts where two collectors speak of one field of one thing: the lower number's."""

    DRIVER = 0  # NVML, AMD SMI, the kernel
    EXPORTER = 1
    BOARD = 2  # a management controller
    RUNS = 3  # what the agent knows of its own processes


class Collector(Protocol):
    """One source on this node."""

    name: str  # unique on a node: `nvml`, `scrape http://127.0.0.1:9400/metrics`
    interval_s: float
    timeout_s: float
    rank: int  # see Rank
    quick: bool  # whether it may be asked once more at the start and end of a lease

    async def collect(self, now: datetime) -> Collected:
        """Ask now. Raises NothingThere where there is nothing to ask, any other Fault or OSError when it failed."""

    async def close(self) -> None:
        """Let go of what is held open; it may be asked again."""


class Source(Protocol):
    """A source whose calls block: it is asked in a thread of its own."""

    name: str

    def observe(self, now: datetime) -> Collected:
        """As `Collector.collect`."""


class NothingThere(Fault):
    """This node has nothing of the kind: no such library, driver, device or file. Not an error."""

    retryable = True  # a driver may be loaded later

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class SourceFailed(Fault):
    """The source is there and gave no answer that can be used."""

    retryable = True

    def __init__(self, source: str, why: str) -> None:
        super().__init__(source, why)
        self.source = source
        self.why = why

    def __str__(self) -> str:
        return f"{self.source}: {self.why}"
