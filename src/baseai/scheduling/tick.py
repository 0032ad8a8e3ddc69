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

FEW = 1000  # that wait: as long as they are, everybody is told in every cycle why he waits
TOLD_EVERY_S = 10.0  # otherwise
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


@dataclass(slots=True, kw_only=True)
class Scheduler:
    """The record, and the columns that are kept between its cycles."""

    queue: Queue
    standing: Standing
    starts: Starts
    fragments: Fragments
    _told_s: float = -TOLD_EVERY_S

    def _is_told(self, waiting: int, now_s: float) -> bool:
        """Whether everybody is told in this cycle why he waits: in each of them where few wait."""
        if waiting > FEW and self._told_s <= now_s < self._told_s + TOLD_EVERY_S:
            return False
        self._told_s = now_s
        return True

    async def tick(self) -> tuple[Plan, Sequence[Stale]]:
        """One cycle. What was refused is planned again on the next snapshot."""
        snapshot, now = await self.queue.snapshot()
        self.standing.take_in(snapshot, seconds(now))
        is_told = self._is_told(len(self.standing.waiting), seconds(now))
        plan = decide_on(self.standing, now, explained_most=EXPLAINED_MOST, everybody=is_told)
        if plan.fragmented is not None:
            await self.fragments.note(plan.fragmented, now)
        if is_told:
            plan = await self.starts.tell(plan, self.standing, snapshot, now)
        if not (plan.grants or plan.waits or plan.evictions):
            return plan, ()
        return plan, await self.queue.commit(plan)
