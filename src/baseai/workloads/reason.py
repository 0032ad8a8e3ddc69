"""A reason is why an attempt or a run left a state. Its columns decide, not code paths.

Invariant: every move of a run names one reason; whether to retry, whether to bill and whose fault it was
are looked up here and nowhere else.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Reason(StrEnum):
    """Why. The values are stored, so they never change their meaning."""

    SUBMITTED = "submitted"
    GRANTED = "granted"
    STARTED = "started"
    FINISHED = "finished"
    STOPPED_BY_USER = "stopped_by_user"
    STOPPED_BY_OPERATOR = "stopped_by_operator"
    LEASE_ENDED = "lease_ended"
    COMMAND_FAILED = "command_failed"
    SPEC_WRONG = "spec_wrong"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    PROCESS_LOST = "process_lost"
    NODE_LOST = "node_lost"
    NODE_SHUTDOWN = "node_shutdown"
    START_FAILED = "start_failed"
    RENDEZVOUS_FAILED = "rendezvous_failed"
    PEER_FAILED = "peer_failed"
    DISK_FULL = "disk_full"
    PREEMPTED = "preempted"
    DRAINED = (
        "drained"  # its node is taken out of service: it was asked for a checkpoint and goes on elsewhere
    )
    GRANT_STALE = "grant_stale"
    RECOVERED = "recovered"
    SCALED_IN = "scaled_in"  # its service wants fewer replicas, or another version of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from a reason."""

    retry: str  # "never", "interruption" (not the run's doing) or "error" (the run's own doing, if its spec allows)
    billable: bool
    fault: str  # "nobody", "tenant", "platform"


_NOBODY = Verdict(retry="never", billable=True, fault="nobody")
_TENANT = Verdict(retry="error", billable=True, fault="tenant")
_PLATFORM = Verdict(retry="interruption", billable=False, fault="platform")

VERDICTS: MappingProxyType[Reason, Verdict] = MappingProxyType(
    {
        Reason.SUBMITTED: _NOBODY,
        Reason.GRANTED: _NOBODY,
        Reason.STARTED: _NOBODY,
        Reason.FINISHED: _NOBODY,
        Reason.STOPPED_BY_USER: _NOBODY,
        Reason.STOPPED_BY_OPERATOR: _NOBODY,
        Reason.LEASE_ENDED: _NOBODY,
        Reason.COMMAND_FAILED: _TENANT,
        Reason.SPEC_WRONG: Verdict(retry="never", billable=True, fault="tenant"),
        Reason.OUT_OF_MEMORY: Verdict(retry="never", billable=True, fault="tenant"),
        # A killed process keeps its checkpoints, so the time up to it was of use and is billed.
        Reason.WORKER_LOST: Verdict(retry="interruption", billable=True, fault="platform"),
        Reason.PROCESS_LOST: Verdict(retry="interruption", billable=True, fault="platform"),
        Reason.NODE_LOST: _PLATFORM,
        Reason.NODE_SHUTDOWN: Verdict(retry="interruption", billable=True, fault="platform"),
        Reason.START_FAILED: _PLATFORM,
        Reason.RENDEZVOUS_FAILED: _PLATFORM,
        Reason.PEER_FAILED: Verdict(retry="interruption", billable=True, fault="platform"),
        Reason.DISK_FULL: _PLATFORM,
        Reason.PREEMPTED: Verdict(retry="interruption", billable=True, fault="nobody"),
        Reason.DRAINED: Verdict(retry="interruption", billable=True, fault="platform"),
        Reason.GRANT_STALE: _PLATFORM,
        Reason.RECOVERED: _NOBODY,
        Reason.SCALED_IN: _NOBODY,
    }
)
