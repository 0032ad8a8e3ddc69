"""An order is one lease as its node must carry it out; a node's orders together are all that it shall run.

Invariant: what is not among a node's orders shall not run there. Sightings are what the node answers with; each
carries an id made when it was seen, so that repeating one is harmless.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedDevice:
    accelerator_id: str
    model: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedFile:
    path: str
    digest: str
    bytes: int
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to start, on which devices, until when."""

    lease_id: str
    run_id: str
    run_name: str
    tenant_id: str
    attempt_no: int
    kind: str
    commands: tuple[str, ...]
    train: dict[str, Any] | None
    burn_in: dict[str, Any] | None
    service: dict[str, Any] | None = field(repr=False)  # with the replica's token
    env: dict[str, str]
    secrets: dict[str, str] = field(repr=False)
    files: tuple[OrderedFile, ...]
    working_dir: str | None
    image: str | None
    devices: tuple[OrderedDevice, ...]
    memory_mib: int | None
    node_rank: int
    nodes: int
    addresses: tuple[str, ...]  # by node rank
    rendezvous_port: int
    checkpoint_folder: str
    output_folder: str
    run_started_at: datetime | None
    ends_at: datetime
    ends_in_s: float  # until processes must begin to end, so that they are gone at `ends_at`
    stop: bool
    stop_reason: str | None
    stop_grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    version: int
    node_id: str
    node_state: str
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One thing an agent saw, by its node's clock."""

    event_id: str
    at: datetime
    kind: str  # started, exited, not_started, progress, log_truncated
    lease_id: str
    attempt_no: int
    pid: int | None = None
    exit_code: int | None = None
    reason: str | None = None
    sentence: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """All of a node's present, and what happened since the last report."""

    boot_id: str
    sent_at: datetime  # the node's clock as the report left
    alive: tuple[tuple[str, int], ...]  # (lease, pid) of which processes exist
    gone: tuple[str, ...]  # leases of which none does
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a report."""

    accepted: tuple[str, ...]
    refused: dict[str, str]
    desired_version: int
