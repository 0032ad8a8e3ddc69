"""The seam between a policy and whoever carries its choices out: the replay now, and nothing else is assumed.

Invariant: a policy sees values and answers with values; the hall it looks at refuses writes, and what it chooses is
checked before it counts: a plan that does not fit is refused with run, node and resource (`hall.Misplaced`), never
bent until it does. Two kinds: `Packing` finds room for one gang; `Timing` says who starts and who stops now.
Equal arguments and an equally seeded rng must give equal answers.

A policy of one's own is a class in a file: see docs/policies.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from baseai.scheduling.gang import Gang
from baseai.scheduling.hall import Hall, Spots


class Packing(Protocol):
    """Finds room for one gang among what is free now."""

    def __init__(self, hall: Hall, rng: np.random.Generator) -> None:
        """`hall` is the one every later question is about; it is kept, and may be watched (`Hall.watch`)."""

    def place(self, gang: Gang, hall: Hall) -> Spots | None:
        """One spot for each pod, or None where it does not fit as a whole.

        `hall` is the hall of the constructor, or a copy of it on which somebody tries something: what is remembered
        of rows counts for the first alone. A gang that fits must not be refused while packing.
        """
        ...


class Start(NamedTuple):
    """This gang starts now, here."""

    run_id: str
    spots: Spots


class Stop(NamedTuple):
    """This gang is preempted now: it saves where it is, gives back what it holds and waits again."""

    run_id: str


class Wake(NamedTuple):
    """Ask again at this instant, even if nothing comes or ends until then. The last one said counts."""

    at_s: float


Move = Start | Stop | Wake


class Running(NamedTuple):
    """A gang that runs, since when in this segment, and where."""

    gang: Gang
    since_s: float
    spots: Spots
    model: str  # of the accelerators of its first pod
    preemptions: int  # how often it was stopped before


class Moment(Protocol):
    """What a policy may know at one instant. Everything here is read, never written."""

    @property
    def now_s(self) -> float: ...

    @property
    def hall(self) -> Hall:
        """As it stands after the moves that were carried out so far in this turn."""
        ...

    @property
    def arrived(self) -> Sequence[Gang]:
        """Who joined the queue since the last turn: submitted, or thrown off a failed node. In order of number."""
        ...

    @property
    def ended(self) -> Sequence[Gang]:
        """Who finished since the last turn."""
        ...

    @property
    def waiting(self) -> Mapping[str, Gang]:
        """By run, in no order that means anything."""
        ...

    @property
    def running(self) -> Mapping[str, Running]: ...

    @property
    def restart_s(self) -> float:
        """What every start after the first costs before work goes on."""
        ...

    def work_s(self, gang: Gang, model: str) -> float | None:
        """Seconds the whole gang needs on this model; None where durations are not known, inf where it cannot run."""
        ...

    def left_s(self, gang: Gang, model: str) -> float | None:
        """Seconds of it that are still to be done on this model, restarts not counted; None and inf likewise.

        For one that runs: from now, and what its own restart still takes is in it.
        """
        ...

    def served_s(self, gang: Gang) -> float:
        """Seconds it has held accelerators so far, over all segments. Known even where durations are not."""
        ...


class Timing(Protocol):
    """Says who starts and who is preempted now."""

    needs_durations: bool  # it cannot decide without them

    def __init__(self, hall: Hall, rng: np.random.Generator, packing: Packing) -> None:
        """`packing` finds the nodes; a policy that finds them itself may leave it unused."""

    def turn(self, moment: Moment) -> Iterable[Move]:
        """The moves of this instant, carried out one by one in their order.

        May be a generator: `moment` then shows, after each move, what that move made of the hall and the queue. Called
        whenever something arrived, ended or failed, and when it asked to be woken.
        """
        ...
