"""A node is one machine whose accelerators are leased: its lifecycle, and health as a verdict beside it.

Invariant: a node moves only along TRANSITIONS and only a `ready` one receives leases. A silent node keeps its
state: silence makes its leases unconfirmed, nothing more.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

SILENT_AFTER_S = 10.0  # five missed reports; then the node's leases are unconfirmed


class NodeState(StrEnum):
    ONBOARDING = "onboarding"
    BURN_IN = "burn_in"
    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    REPAIRING = "repairing"
    VERIFYING = "verifying"
    QUARANTINED = "quarantined"
    RMA = "rma"
    RETIRED = "retired"


class NodeEvent(StrEnum):
    BURN = "burn"
    ADMIT = "admit"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    REPAIR = "repair"
    VERIFY = "verify"
    QUARANTINE = "quarantine"
    RETURN = "return"  # to its maker
    RETIRE = "retire"


class Health(StrEnum):
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    FAULTY = "faulty"


_S, _E = NodeState, NodeEvent
TRANSITIONS: Mapping[tuple[NodeState, NodeEvent], NodeState] = MappingProxyType(
    {
        (_S.ONBOARDING, _E.BURN): _S.BURN_IN,
        (_S.ONBOARDING, _E.ADMIT): _S.READY,  # a node of CPU slots alone has nothing to burn in
        (_S.ONBOARDING, _E.RETIRE): _S.RETIRED,
        (_S.BURN_IN, _E.ADMIT): _S.READY,
        (_S.BURN_IN, _E.REPAIR): _S.REPAIRING,
        (_S.READY, _E.CORDON): _S.CORDONED,
        (_S.READY, _E.DRAIN): _S.DRAINING,
        (_S.READY, _E.QUARANTINE): _S.QUARANTINED,
        (_S.READY, _E.RETIRE): _S.RETIRED,
        (_S.CORDONED, _E.UNCORDON): _S.READY,
        (_S.CORDONED, _E.DRAIN): _S.DRAINING,
        (_S.CORDONED, _E.QUARANTINE): _S.QUARANTINED,
        (_S.CORDONED, _E.RETIRE): _S.RETIRED,
        (_S.DRAINING, _E.CORDON): _S.CORDONED,
        (_S.DRAINING, _E.REPAIR): _S.REPAIRING,
        (_S.DRAINING, _E.QUARANTINE): _S.QUARANTINED,
        (_S.DRAINING, _E.RETIRE): _S.RETIRED,
        (_S.REPAIRING, _E.VERIFY): _S.VERIFYING,
        (_S.REPAIRING, _E.RETURN): _S.RMA,
        (_S.VERIFYING, _E.ADMIT): _S.READY,
        (_S.VERIFYING, _E.REPAIR): _S.REPAIRING,
        (_S.VERIFYING, _E.QUARANTINE): _S.QUARANTINED,  # it came back from its tests too often
        (_S.QUARANTINED, _E.REPAIR): _S.REPAIRING,
        (_S.QUARANTINED, _E.RETURN): _S.RMA,
        (_S.QUARANTINED, _E.RETIRE): _S.RETIRED,
        (_S.RMA, _E.RETIRE): _S.RETIRED,
    }
)


def moved(state: NodeState, event: NodeEvent) -> NodeState | None:
    """Where `event` leads from `state`; None when there is no such move."""
    return TRANSITIONS.get((state, event))
