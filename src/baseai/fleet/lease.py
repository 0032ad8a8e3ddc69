"""A lease is the right of one attempt of a run to whole accelerators of one node, over [granted_at, ends_at).

Invariant: leases of one accelerator never overlap: PostgreSQL refuses them. A lease is released only when its
node's agent reported its processes gone, or at `ends_at`, when the agent kills them unasked. Until then the lease of
a silent node is `unconfirmed`, holds as firmly as any, and its run is not started elsewhere.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType


class LeaseState(StrEnum):
    GRANTED = "granted"
    ACTIVE = "active"
    UNCONFIRMED = "unconfirmed"
    RELEASED = "released"


class LeaseEvent(StrEnum):
    CONFIRM = "confirm"  # the agent sees its processes
    LOSE_SIGHT = "lose_sight"  # the node is silent
    RELEASE = "release"


_S, _E = LeaseState, LeaseEvent
TRANSITIONS: Mapping[tuple[LeaseState, LeaseEvent], LeaseState] = MappingProxyType(
    {
        (_S.GRANTED, _E.CONFIRM): _S.ACTIVE,
        (_S.GRANTED, _E.LOSE_SIGHT): _S.UNCONFIRMED,
        (_S.GRANTED, _E.RELEASE): _S.RELEASED,
        (_S.ACTIVE, _E.LOSE_SIGHT): _S.UNCONFIRMED,
        (_S.ACTIVE, _E.RELEASE): _S.RELEASED,
        (_S.UNCONFIRMED, _E.CONFIRM): _S.ACTIVE,
        (_S.UNCONFIRMED, _E.RELEASE): _S.RELEASED,
    }
)


def clipped(at: datetime, *, granted_at: datetime, ends_at: datetime) -> datetime:
    """`at` moved into the lease: nothing before its grant or after its end is billable."""
    return min(max(at, granted_at), ends_at)
