"""A tick is one cycle of the scheduler: read, decide, record. No choice is made below `decide`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from baseai.scheduling.decide import decide
from baseai.scheduling.plan import Plan
from baseai.scheduling.snapshot import Snapshot


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


async def tick(queue: Queue) -> tuple[Plan, Sequence[Stale]]:
    """One cycle. What was refused is planned again on the next snapshot."""
    snapshot, now = await queue.snapshot()
    plan = decide(snapshot, now)
    if not (plan.grants or plan.waits or plan.evictions):
        return plan, ()
    return plan, await queue.commit(plan)
