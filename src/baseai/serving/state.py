"""The states of services, of their versions and of their replicas: every move there is.

Invariant: the three move only along these tables; the database refuses any other move, and each move of a service or a
version writes an event. The platform's loop moves them; a tenant asks (apply, promote, roll back, stop).
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ServiceState(StrEnum):
    IDLE = "idle"  # no replica, no lease: the next request wakes it
    STARTING = "starting"  # wanted, and nobody answers yet
    SERVING = "serving"
    FAILING = "failing"  # its replicas end before they are ready; it is tried ever more slowly
    STOPPED = "stopped"


class ServiceEvent(StrEnum):
    WAKE = "wake"
    SERVE = "serve"
    LOSE = "lose"  # the last replica that answered
    FAIL = "fail"
    REST = "rest"
    STOP = "stop"


class VersionState(StrEnum):
    CANDIDATE = "candidate"
    CURRENT = "current"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"


class VersionEvent(StrEnum):
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    RETIRE = "retire"


class ReplicaState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # it finishes what it has and is given nothing new
    GONE = "gone"


class ReplicaEvent(StrEnum):
    ANSWER = "answer"  # it told where it listens
    LOSE = "lose"  # its attempt ended; the run may start again elsewhere
    DRAIN = "drain"
    END = "end"


_S, _E = ServiceState, ServiceEvent
SERVICE_MOVES: Mapping[tuple[ServiceState, ServiceEvent], ServiceState] = MappingProxyType(
    {
        (_S.IDLE, _E.WAKE): _S.STARTING,
        (_S.STARTING, _E.SERVE): _S.SERVING,
        (_S.STARTING, _E.FAIL): _S.FAILING,
        (_S.STARTING, _E.REST): _S.IDLE,
        (_S.SERVING, _E.LOSE): _S.STARTING,
        (_S.SERVING, _E.FAIL): _S.FAILING,
        (_S.SERVING, _E.REST): _S.IDLE,
        (_S.FAILING, _E.WAKE): _S.STARTING,
        (_S.FAILING, _E.SERVE): _S.SERVING,
        (_S.FAILING, _E.REST): _S.IDLE,
        (_S.IDLE, _E.STOP): _S.STOPPED,
        (_S.STARTING, _E.STOP): _S.STOPPED,
        (_S.SERVING, _E.STOP): _S.STOPPED,
        (_S.FAILING, _E.STOP): _S.STOPPED,
    }
)

VERSION_MOVES: Mapping[tuple[VersionState, VersionEvent], VersionState] = MappingProxyType(
    {
        (VersionState.CANDIDATE, VersionEvent.PROMOTE): VersionState.CURRENT,
        (VersionState.CANDIDATE, VersionEvent.ROLL_BACK): VersionState.ROLLED_BACK,
        (
            VersionState.CANDIDATE,
            VersionEvent.RETIRE,
        ): VersionState.RETIRED,  # another came before it was done
        (VersionState.CURRENT, VersionEvent.RETIRE): VersionState.RETIRED,
    }
)

REPLICA_MOVES: Mapping[tuple[ReplicaState, ReplicaEvent], ReplicaState] = MappingProxyType(
    {
        (ReplicaState.STARTING, ReplicaEvent.ANSWER): ReplicaState.READY,
        (ReplicaState.STARTING, ReplicaEvent.DRAIN): ReplicaState.DRAINING,
        (ReplicaState.STARTING, ReplicaEvent.END): ReplicaState.GONE,
        (ReplicaState.READY, ReplicaEvent.LOSE): ReplicaState.STARTING,
        (ReplicaState.READY, ReplicaEvent.DRAIN): ReplicaState.DRAINING,
        (ReplicaState.READY, ReplicaEvent.END): ReplicaState.GONE,
        (ReplicaState.DRAINING, ReplicaEvent.END): ReplicaState.GONE,
    }
)
LIVE = frozenset({ReplicaState.STARTING, ReplicaState.READY})  # those that count as replicas


def service_event(state: ServiceState, *, wanted: int, ready: int, failing: bool) -> ServiceEvent | None:
    """Which way a service moves, if any: by what is wanted of it and who answers.

    failing: its newest replicas ended before any of them was ready, and none is ready now.
    """
    if state is ServiceState.STOPPED:
        return None
    if ready > 0:
        event = ServiceEvent.SERVE
    elif wanted == 0:
        event = ServiceEvent.REST
    elif failing:
        event = ServiceEvent.FAIL
    else:
        event = ServiceEvent.LOSE if state is ServiceState.SERVING else ServiceEvent.WAKE
    after = SERVICE_MOVES.get((state, event))
    if after is None and event is ServiceEvent.SERVE and state is ServiceState.IDLE:
        return ServiceEvent.WAKE  # one that was on its way as the service went to rest
    return event if after is not None else None
