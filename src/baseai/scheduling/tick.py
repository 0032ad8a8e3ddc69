"""A tick is one cycle of the scheduler: read, decide, tell, record. No choice is made below `decide_on`."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from baseai.scheduling.decide import decide_on
from baseai.scheduling.fragmentation import Pool
from baseai.scheduling.plan import Plan
from baseai.scheduling.snapshot import Snapshot, seconds
from baseai.scheduling.standing import Standing

EXPLAINED_MOST = 8  # new explanations a cycle; others are told what was said before, or in the cycles to come


class Stale(Protocol):
    """A grant the truth refused because the fleet had moved on."""

    @property
    def run_id(self) -> str: ...
    @property
    def why(self) -> str: ...


class Queue(Protocol):
    """What scheduling needs of the record of nodes, runs and leases."""

    async def snapshot(self) -> tuple[Snapshot, datetime]: ...

    async def commit(self, plan: Plan) -> Sequence[Stale]:
        """Write each gang's leases in a transaction of its own; a stale one is refused alone."""
        ...


class Starts(Protocol):
    """What is known of when waiting runs start."""

    async def tell(self, plan: Plan, standing: Standing, snapshot: Snapshot, now: datetime) -> Plan:
        """The plan with what those who wait are told of their starts."""
        ...


class Fragments(Protocol):
    """The record of capacity that is free in sum and in no place."""

    async def note(self, pools: Set[Pool], at: datetime) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """The record, and the columns that are kept between its cycles."""

    queue: Queue
    standing: Standing
    starts: Starts
    fragments: Fragments

    async def tick(self) -> tuple[Plan, Sequence[Stale]]:
        """One cycle. What was refused is planned again on the next snapshot."""
        snapshot, now = await self.queue.snapshot()
        self.standing.take_in(snapshot, seconds(now))
        plan = decide_on(self.standing, now, explained_most=EXPLAINED_MOST)
        await self.fragments.note(plan.fragmented, now)
        plan = await self.starts.tell(plan, self.standing, snapshot, now)
        if not (plan.grants or plan.waits or plan.evictions):
            return plan, ()
        return plan, await self.queue.commit(plan)
