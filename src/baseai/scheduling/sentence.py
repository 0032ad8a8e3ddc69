"""A sentence says an explanation in plain English, for terminals and logs; pages say the same codes in their language.

Invariant: nothing is said that the values do not hold. Pure text.
"""

from collections.abc import Sequence

from baseai.ground.quantity import shown_mib, shown_s
from baseai.scheduling.place import Constraint
from baseai.scheduling.plan import Change, Explanation, Lever, Wait, WaitKind
from baseai.workloads.demand import Demand

_FAILING = {
    Constraint.STATE: "not ready",
    Constraint.SITE: "at another site",
    Constraint.MODEL: "without the model",
    Constraint.ACCELERATORS: "with too few free accelerators",
    Constraint.MEMORY: "with too little free memory",
    Constraint.DISK: "with too little free disk",
    Constraint.CPU: "with too few free cores",
    Constraint.TENANT: "in use by another tenant, with nothing to keep tenants apart",
    Constraint.CONTAINER: "without a container runtime",
    Constraint.NODES: "without enough others of the same model",
}


def sentence(wait: Wait) -> str:
    """Why this run waits, what would start it now, and when it may start."""
    ahead = "first in the queue" if wait.ahead == 0 else f"number {wait.position} in the queue"
    parts = [f"Waiting, {ahead}."]
    if wait.kind is WaitKind.HELD:
        parts.append(
            f"It fits now, but would put off {wait.behind}, which is ahead and has booked its start."
        )
    elif wait.kind is WaitKind.NEVER:
        parts.append("The nodes that are ready could not take it even when empty.")
    elif wait.kind is WaitKind.CLEARING:
        parts.append("A test of a node is being stopped for it; it starts as soon as the test is gone.")
    elif wait.kind is WaitKind.OWN_NODE:
        parts.append("It tests one node, and starts when nobody wants that node's accelerators.")
    if wait.explanation is not None:
        parts += _explanation_parts(wait.explanation, wait.kind)
    return " ".join(parts)


def change_phrase(change: Change) -> str:
    """The change as advice: `6 accelerators on each node instead of 8`."""
    match change.lever, change.asked, change.instead:
        case Lever.ACCELERATORS, asked, instead:
            return f"{instead} {'accelerator' if instead == 1 else 'accelerators'} on each node instead of {asked}"
        case Lever.NODES, asked, instead:
            return f"{instead} {'node' if instead == 1 else 'nodes'} instead of {asked}"
        case (Lever.MEMORY | Lever.DISK) as lever, int(asked), int(instead):
            return f"{shown_mib(instead)} of {lever} on each node instead of {shown_mib(asked)}"
        case Lever.CPU, int(asked), int(instead):
            return f"{instead / 1000:g} cores on each node instead of {asked / 1000:g}"
        case Lever.DURATION, int(asked), int(instead):
            return f"a max_duration of {shown_s(instead)} instead of {shown_s(asked)}"
        case Lever.SITE, asked, _:
            return f"any site instead of {asked}"
        case lever, asked, instead:
            return f"{lever} {instead} instead of {asked}"


def constraint_phrase(constraint: Constraint, demand: Demand) -> str:
    """What a fleet lacks that fails `demand` at `constraint`."""
    match constraint:
        case Constraint.STATE:
            return "too few nodes are ready or cordoned"
        case Constraint.SITE:
            return f"too few nodes stand in {' or '.join((*demand.sites, *demand.residency))}"
        case Constraint.MODEL:
            return f"too few nodes have {models_phrase(demand.models)}"
        case Constraint.ACCELERATORS:
            least = min(ask.count for ask in demand.asks)
            return f"too few nodes have {least} {models_phrase(demand.models)}"
        case Constraint.MEMORY:
            return f"too few nodes have {shown_mib(demand.memory_mib)} of memory"
        case Constraint.DISK:
            return f"too few nodes have {shown_mib(demand.disk_mib)} of disk"
        case Constraint.CPU:
            return f"too few nodes have {demand.cpu_milli / 1000:g} cores beside their accelerators"
        case Constraint.CONTAINER:
            return "too few nodes have a container runtime, which `image` needs"
        case Constraint.NODES:
            return f"a gang has one model throughout, and too few nodes have the same of {models_phrase(demand.models)}"
        case Constraint.TENANT:
            return "too few nodes keep tenants apart"


def models_phrase(models: Sequence[str]) -> str:
    """Models as people list them: `A, B or C`."""
    if not models:
        return "no accelerators"
    return models[0] if len(models) == 1 else f"{', '.join(models[:-1])} or {models[-1]}"


def _explanation_parts(why: Explanation, kind: WaitKind) -> list[str]:
    parts = []
    if kind is not WaitKind.HELD:
        need = "1 is needed" if why.nodes_needed == 1 else f"{why.nodes_needed} are needed"
        fit = "1 node fits now" if why.nodes_fitting == 1 else f"{why.nodes_fitting} nodes fit now"
        failing = ", ".join(f"{count} {_FAILING[constraint]}" for constraint, count in why.nodes_failing)
        parts.append(f"{fit}, {need}: {failing}." if failing else f"{fit}, {need}.")
    if why.change is not None:
        parts.append(f"It would start now with {change_phrase(why.change)}.")
    if why.latest_at is not None:
        parts.append(f"It starts by {why.latest_at:%Y-%m-%d %H:%M} UTC at the latest if no node is lost.")
    elif why.earliest_at is not None:
        parts.append(
            f"By the ends of the leases that stand, not before {why.earliest_at:%Y-%m-%d %H:%M} UTC."
        )
    return parts
