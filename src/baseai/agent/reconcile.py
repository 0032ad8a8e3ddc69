"""Reconciling is deciding what this node does next, from what it shall run and what runs here.

Invariant: level-triggered: the answer rests on the two states alone, so a lost message, a repeat or a restart of
the agent changes nothing. One attempt is started at most once, and a lease's processes never outlive its end.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from baseai.api.schemas import Launch
from baseai.ground.identity import LeaseId
from baseai.workloads.reason import Reason

LAST_NOTICE_RATIO = 0.1  # of a lease at most goes into the notice before its end
REPEAT_KILL_S = 2.0


class Phase(StrEnum):
    PREPARING = "preparing"  # files are being fetched, nothing runs yet
    ALIVE = "alive"
    ENDED = "ended"  # it ran and is over, or it will never start


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A launch with its end on this machine's monotonic clock, which no clock change moves."""

    launch: Launch
    ends_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One attempt as this node observes it."""

    lease_id: LeaseId
    attempt_no: int
    phase: Phase
    devices: frozenset[str]  # accelerator ids it holds while it is not ended
    ends_s: float
    notice_s: float  # how long before the end it is asked to stop
    stop_grace_s: float
    asked_s: float | None = None  # when it was asked to stop
    killed_s: float | None = None  # when it was last killed
    settled: bool = False  # its end is in the server's truth and its log delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    lease_id: LeaseId


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline:
    """Say that it will never start here."""

    lease_id: LeaseId
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    lease_id: LeaseId
    ends_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """SIGTERM, once."""

    lease_id: LeaseId
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """SIGKILL to everything of the attempt."""

    lease_id: LeaseId
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidy:
    """Remove the attempt's folder: its end is known where it matters."""

    lease_id: LeaseId


Action = Start | Decline | Extend | Ask | Kill | Tidy


def notice_of(stop_grace_s: float, lease_s: float) -> float:
    """How long before its end a lease's run is asked to stop: its grace, but not most of a short lease."""
    return max(0.0, min(stop_grace_s, LAST_NOTICE_RATIO * lease_s))


def reconcile(
    desired: Mapping[LeaseId, Wanted] | None,
    observed: Mapping[LeaseId, Process],
    *,
    now_s: float,
    released: Set[str] = frozenset(),
    shutdown: bool = False,
) -> tuple[Action, ...]:
    """What this node does next: start what is missing, stop what is not wanted, keep the rest.

    `desired` is None until the server was heard for the first time: then all that runs is kept to its end.
    A start waits until no other process here holds one of its devices. `shutdown`: the node goes down, so
    nothing starts and everything is asked to stop. Actions come in the order of lease ids, stops before starts.
    """
    stops: list[Action] = []
    for lease_id in sorted(observed):
        wanted = desired.get(lease_id) if desired is not None else None
        stops += _of_observed(
            observed[lease_id],
            wanted,
            known=desired is not None,
            released=lease_id in released,
            now_s=now_s,
            shutdown=shutdown,
        )
    held = {
        device for process in observed.values() if process.phase != Phase.ENDED for device in process.devices
    }
    starts: list[Action] = []
    for lease_id in sorted(desired or {}):
        if lease_id in observed or shutdown:
            continue
        assert desired is not None
        launch, ends_s = desired[lease_id].launch, desired[lease_id].ends_s
        devices = {device.accelerator_id for device in launch.devices}
        if launch.stop:
            reason = stop_reason_of(launch)
            starts.append(Decline(lease_id=lease_id, reason=reason, sentence="stopped before it started"))
        elif now_s >= ends_s:
            sentence = "the lease ended before the run could start here"
            starts.append(Decline(lease_id=lease_id, reason=Reason.LEASE_ENDED, sentence=sentence))
        elif not devices & held:
            starts.append(Start(lease_id=lease_id))
            held |= devices
    return (*stops, *starts)


def stop_reason_of(launch: Launch) -> Reason:
    """The server's reason for a stop; one this version does not know yet counts as the operator's."""
    try:
        return Reason(launch.stop_reason) if launch.stop_reason else Reason.STOPPED_BY_USER
    except ValueError:
        return Reason.STOPPED_BY_OPERATOR


def _of_observed(
    process: Process, wanted: Wanted | None, *, known: bool, released: bool, now_s: float, shutdown: bool
) -> list[Action]:
    lease_id = process.lease_id
    if process.phase == Phase.ENDED:
        over = process.settled and (released or (known and wanted is None))
        return [Tidy(lease_id=lease_id)] if over else []
    actions: list[Action] = []
    ends_s = process.ends_s
    if wanted is not None and wanted.ends_s != ends_s:
        ends_s = wanted.ends_s
        actions.append(Extend(lease_id=lease_id, ends_s=ends_s))
    cause = _cause_to_stop(process, wanted, ends_s=ends_s, known=known, now_s=now_s, shutdown=shutdown)
    if now_s >= ends_s:
        if process.killed_s is None or now_s >= process.killed_s + REPEAT_KILL_S:
            sentence = "the lease ended and the run was killed at its end"
            actions.append(Kill(lease_id=lease_id, reason=Reason.LEASE_ENDED, sentence=sentence))
    elif process.asked_s is not None:
        due_s = process.asked_s + process.stop_grace_s
        again_s = due_s if process.killed_s is None else process.killed_s + REPEAT_KILL_S
        if now_s >= due_s and now_s >= again_s:
            reason, _ = cause or (Reason.STOPPED_BY_USER, "")
            sentence = f"did not stop within {process.stop_grace_s:g} s and was killed"
            actions.append(Kill(lease_id=lease_id, reason=reason, sentence=sentence))
    elif cause is not None:
        reason, sentence = cause
        actions.append(Ask(lease_id=lease_id, reason=reason, sentence=sentence))
    return actions


def _cause_to_stop(
    process: Process, wanted: Wanted | None, *, ends_s: float, known: bool, now_s: float, shutdown: bool
) -> tuple[Reason, str] | None:
    if wanted is not None and wanted.launch.stop:
        reason = stop_reason_of(wanted.launch)
        return reason, f"asked to stop: {reason.value.replace('_', ' ')}"
    if known and wanted is None:
        return Reason.GRANT_STALE, "the server no longer wants this attempt here"
    if shutdown:
        return Reason.NODE_SHUTDOWN, "the node was shut down"
    if now_s >= ends_s - process.notice_s:
        return Reason.LEASE_ENDED, "the lease came to its end"
    return None
