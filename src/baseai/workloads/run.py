"""A run is what a tenant submitted: one life, from the queue to its end, over as many attempts as it takes.

Invariant: a run moves only along TRANSITIONS; the database refuses any other move, and each move writes an event.
The engine moves runs; a tenant only asks (submit, stop). An attempt is one start of a run on one set of leases.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class RunState(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    PREEMPTED = "preempted"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunEvent(StrEnum):
    GRANT = "grant"  # leases for all of its nodes
    BEGIN = "begin"  # processes seen on every node
    RECOVER = "recover"  # something of it was lost
    REQUEUE = "requeue"  # another attempt is due
    PREEMPT = "preempt"
    STOP = "stop"  # asked to end, or at its natural end: the last processes are going
    CANCEL = "cancel"
    SUCCEED = "succeed"
    FAIL = "fail"


_S, _E = RunState, RunEvent
TRANSITIONS: Mapping[tuple[RunState, RunEvent], RunState] = MappingProxyType(
    {
        (_S.QUEUED, _E.GRANT): _S.STARTING,
        (_S.QUEUED, _E.CANCEL): _S.CANCELLED,
        (_S.STARTING, _E.BEGIN): _S.RUNNING,
        (_S.STARTING, _E.REQUEUE): _S.QUEUED,
        (_S.STARTING, _E.FAIL): _S.FAILED,
        (_S.STARTING, _E.STOP): _S.STOPPING,
        (_S.RUNNING, _E.STOP): _S.STOPPING,
        (_S.RUNNING, _E.RECOVER): _S.RECOVERING,
        (_S.RUNNING, _E.PREEMPT): _S.PREEMPTED,
        (_S.RECOVERING, _E.BEGIN): _S.RUNNING,
        (_S.RECOVERING, _E.REQUEUE): _S.QUEUED,
        (_S.RECOVERING, _E.FAIL): _S.FAILED,
        (_S.RECOVERING, _E.STOP): _S.STOPPING,
        (_S.PREEMPTED, _E.REQUEUE): _S.QUEUED,
        (_S.STOPPING, _E.SUCCEED): _S.SUCCEEDED,
        (_S.STOPPING, _E.FAIL): _S.FAILED,
        (_S.STOPPING, _E.CANCEL): _S.CANCELLED,
    }
)

ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


def moved(state: RunState, event: RunEvent) -> RunState | None:
    """Where `event` leads from `state`; None when it comes too late to matter."""
    return TRANSITIONS.get((state, event))
